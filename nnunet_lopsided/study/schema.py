"""What a study is: study.yaml, checked and as frozen dataclasses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.planning.rules_25d import Overrides
from nnunet_lopsided.planning.small import PARENTS as SMALL
from nnunet_lopsided.study.reading import Node, did_you_mean
from nnunet_lopsided.study.trainer_choice import is_ours, known_trainers, other_trainers, with_budget, with_seed
from nnunet_lopsided.variants.choosing import MODES

FULL = "full"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")
_STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# Planner -> the name nnU-Net gives its plans.
PLANNERS = {
    "ExperimentPlanner": "nnUNetPlans",
    "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans",
    "nnUNetPlannerResEncL": "nnUNetResEncUNetLPlans",
    "nnUNetPlannerResEncXL": "nnUNetResEncUNetXLPlans",
}
# Configurations that lopsided-plan adds -> the one of nnU-Net's whose preprocessed data they use.
PARENTS = {"2.5d": "3d_fullres", **SMALL}
_SEEDED = ("stochastic", "reader")


@dataclass(frozen=True)
class Phantom:
    """Procedural brains: the options of ``python -m nnunet_lopsided.commands.phantom``."""

    train: int = 24
    test: int = 12
    shape: tuple[int, int, int] = (32, 80, 80)
    spacing: tuple[float, float, float] = (2.0, 1.6, 1.6)
    seed: int = 0
    lesions: float | None = None
    diameter: float | None = None
    contrast: float | None = None


@dataclass(frozen=True)
class Dataset:
    """One dataset under the study's own name for it.

    Attributes:
        name: in the study.
        source: exactly one of a folder in nnU-Net's raw layout, the id of a dataset below the user's nnUNet_raw, or a
            phantom.
    """

    name: str
    source: str | int | Phantom


@dataclass(frozen=True)
class Censoring:
    """Which lesions the training labels lack; ``mode`` None: none."""

    mode: str | None = None
    rate: float | None = None
    seeds: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        """What arms and tables call it.

        Example:
            >>> Censoring().name, Censoring("size", 0.5).name, Censoring("reader").name, Censoring("size", 0.125).name
            ('full', 'size50', 'reader', 'size12p5')
        """
        if self.mode is None:
            return FULL
        return self.mode + ("" if self.rate is None else f"{100 * self.rate:g}".replace(".", "p"))


@dataclass(frozen=True)
class Relabelled:
    """Labels to which candidates of an audit of another arm's cross-validation are added.

    Attributes:
        by: name of that arm.
        above: the score from which a candidate is added, unread: self-training.
        read: instead, how many candidates a reader who knows the truth decides on; None: nobody reads them.
    """

    by: str
    above: float = 0.5
    read: int | None = None


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: in the study.
        trainer: with its budget in the name, where it is one of ours, but without the seed of a repetition.
        censoring: names of the censorings it is trained on; None: all.
        ignored: whether it is told where labels lack lesions, by the ignore label: an oracle.
        relabelled: how its labels are completed before it is trained; None: they are not.
        repetitions: how many of the study's repetitions it has; None: all.
    """

    name: str
    trainer: str
    censoring: tuple[str, ...] | None = None
    ignored: bool = False
    relabelled: Relabelled | None = None
    repetitions: int | None = None

    @property
    def own_labels(self) -> str:
        """What was done to the labels before it is trained, in words; empty: nothing. Arms with the same share them."""
        if self.ignored:
            return "with ignored lesions"
        if self.relabelled is None:
            return ""
        return f"{'' if self.relabelled.read is None else 'read and '}relabelled by {self.relabelled.by}"

    @property
    def knows_the_truth(self) -> bool:
        """Whether what its labels say of missing lesions is from the whole ones."""
        return self.ignored or (self.relabelled is not None and self.relabelled.read is not None)


@dataclass(frozen=True)
class Plan25d:
    """Options of ``lopsided-plan``; None: its own choice."""

    slices: int | None = None
    encoder: str | None = None
    decoder: str | None = None
    output_stride: int | None = None
    patch: tuple[int, int] | None = None
    batch_size: int | None = None
    gpu_memory: float | None = None
    pretrained: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated and how.

    Attributes:
        cases: "test", "validation" or both.
        profile: of ``lopsided-eval``.
        label: class or region; None: all foreground.
        patients_regex: see ``lopsided-eval``.
        confidence: what ranks candidates; None: as the profile does.
    """

    cases: tuple[str, ...] = ("test",)
    profile: str = "paper"
    label: str | None = None
    patients_regex: str | None = None
    confidence: str | None = None


@dataclass(frozen=True)
class Resources:
    """What one training may take.

    Attributes:
        cpus: cores.
        gpus: GPUs, when the device is cuda.
        memory_gb: main memory.
        hours: time limit.
        seconds_per_iteration: for the estimate; None: measured in the study, or else assumed.
    """

    cpus: int = 2
    gpus: int = 1
    memory_gb: float = 8.0
    hours: float = 24.0
    seconds_per_iteration: float | None = None


@dataclass(frozen=True)
class Study:
    """A whole study; see docs/reference/study.md for every key of the YAML file.

    ``seeds`` None: true, but where the study's folder holds trainings without.
    """

    name: str
    datasets: tuple[Dataset, ...]
    arms: tuple[Arm, ...]
    censoring: tuple[Censoring, ...] = (Censoring(),)
    patients: tuple[int | None, ...] = (None,)
    configurations: tuple[str, ...] = ("3d_fullres",)
    planner: str = "ExperimentPlanner"
    plan_25d: Plan25d = Plan25d()
    folds: tuple[int | str, ...] = (0,)
    splits: int = 5
    repetitions: int = 1
    seeds: bool | None = None
    baseline: str = ""
    evaluation: Evaluation = Evaluation()
    mirroring: bool = True
    device: str = "cuda"
    resources: Resources = Resources()
    dataset_ids: tuple[int, int] = (800, 999)

    @property
    def plans(self) -> str:
        """Name of the plans."""
        return PLANNERS[self.planner]

    def repetitions_of(self, arm: Arm) -> int:
        """How often an arm is trained on the same labels."""
        return arm.repetitions or self.repetitions

    def trainer_of(self, arm: Arm, repetition: int) -> str:
        """The trainer of a repetition; one of ours has its number as seed, so that arms are compared on the same."""
        return arm.trainer if self.seeds is False else with_seed(arm.trainer, repetition)


def read_study(path: Path) -> Study:
    """The study in a YAML file.

    Args:
        path: the file; folders in it are relative to where it lies.

    Raises:
        InputError: something in it is unknown, missing or wrong; one line with file, key, expected and found.
    """
    return _study(Node.of_file(path), path.resolve().parent)


def study_of_text(text: str, source: str, folder: Path) -> Study:
    """As :func:`read_study`, from the text of a file called ``source``."""
    return _study(Node.of_text(text, source), folder)


_KEYS = (
    *(
        "name",
        "datasets",
        "censoring",
        "patients",
        "configurations",
        "planner",
        "plan_25d",
        "arms",
        "baseline",
        "folds",
        "splits",
    ),
    *("repetitions", "seeds", "budget", "evaluation", "mirroring", "device", "resources", "dataset_ids"),
)


def _study(top: Node, folder: Path) -> Study:
    top.mapping(_KEYS, required=("name", "datasets", "arms"))
    datasets = top.need("datasets", lambda n: n.list_of(lambda d: _dataset(d, folder)))
    _unique(top, "datasets", [d.name for d in datasets])
    censoring = top.get("censoring", lambda n: n.list_of(_censoring), (Censoring(),))
    names = [c.name for c in censoring]
    _unique(top, "censoring", names)
    budget = top.get("budget", _budget, (None, None))
    arms = top.need("arms", lambda n: n.list_of(lambda a: _arm(a, names, budget)))
    _unique(top, "arms", [arm.name for arm in arms])
    study = Study(
        name=top.need("name", _study_name),
        datasets=datasets,
        arms=arms,
        censoring=censoring,
        patients=top.get("patients", lambda n: n.list_of(_patients), (None,)),
        configurations=top.get("configurations", lambda n: n.list_of(_configuration), ("3d_fullres",)),
        planner=top.get("planner", lambda n: n.choice(list(PLANNERS)), "ExperimentPlanner"),
        plan_25d=top.get("plan_25d", _plan_25d, Plan25d()),
        folds=top.get("folds", lambda n: n.list_of(_fold), (0,)),
        splits=top.get("splits", lambda n: n.whole(2, 99), 5),
        repetitions=top.get("repetitions", lambda n: n.whole(1, 999), 1),
        seeds=top.get("seeds", Node.truth, None),
        baseline=top.get("baseline", lambda n: n.choice([arm.name for arm in arms]), arms[0].name),
        evaluation=top.get("evaluation", _evaluation, Evaluation()),
        mirroring=top.get("mirroring", Node.truth, True),
        device=top.get("device", lambda n: n.choice(("cpu", "cuda", "mps")), "cuda"),
        resources=top.get("resources", _resources, Resources()),
        dataset_ids=top.get("dataset_ids", _id_range, (800, 999)),
    )
    _check_together(top, study)
    return study


def _check_together(top: Node, study: Study) -> None:
    """What single keys cannot tell."""
    for repetition in range(1, study.repetitions + 1):  # nnU-Net keeps results by labels and trainer
        trained = [arm for arm in study.arms if repetition <= study.repetitions_of(arm)]
        names = [f"{study.trainer_of(arm, repetition)} {arm.own_labels}".rstrip() for arm in trained]
        _unique(top, "arms", names)
    if "all" in study.folds and len(study.folds) > 1:
        top.get("folds", lambda n: n.fail("either all or numbers", f"{list(study.folds)}"), None)
    if "all" in study.folds and "validation" in study.evaluation.cases:  # those that it trained on
        top.get("folds", lambda n: n.fail("numbers where validation cases are evaluated"), None)
    if "all" in study.folds and study.evaluation.confidence == "learned":
        top.get("folds", lambda n: n.fail("numbers where the confidence is learned from validation cases"), None)
    for i, arm in enumerate(study.arms):
        place = Node(top.source, f"arms[{i}]", 0)
        if arm.repetitions is not None and arm.repetitions > study.repetitions:
            place.fail(f"at most as many repetitions as the study has, {study.repetitions}", str(arm.repetitions))
        _check_relabelled(place, arm, study, study.arms[:i])
    for i, dataset in enumerate(study.datasets):
        if isinstance(dataset.source, Phantom) and not dataset.source.test and "test" in study.evaluation.cases:
            place = Node(top.source, f"datasets[{i}].phantom.test", 0)
            place.fail("test cases, or evaluation: cases: [validation]")
    if study.plan_25d != Plan25d() and "2.5d" not in study.configurations:
        top.get("plan_25d", lambda n: n.fail("2.5d among the configurations", ", ".join(study.configurations)), None)


def _check_relabelled(place: Node, arm: Arm, study: Study, before: Sequence[Arm]) -> None:
    if arm.relabelled is None:
        return
    teacher = next((other for other in before if other.name == arm.relabelled.by), None)
    if teacher is None or teacher.own_labels:
        place.fail("by to name an arm above it, whose labels are as they are", arm.relabelled.by)
    for rule in (other.relabelled for other in before if other.own_labels == arm.own_labels):
        if rule is not None and rule != arm.relabelled:
            expected = f"above to be {rule.above:g}" if rule.read is None else f"read to be {rule.read}"
            own = arm.relabelled.above if rule.read is None else arm.relabelled.read
            place.fail(f"{expected}, as in the arm before that is relabelled by {teacher.name}", str(own))
    repetitions, most = study.repetitions_of(arm), study.repetitions_of(teacher)
    if repetitions > most:
        place.fail(f"at most as many repetitions as arm {teacher.name} has, {most}", str(repetitions))
    if "all" in study.folds or len(study.folds) < 2:
        expected = "at least two folds in the study, so that no case is judged by a model that learned from it"
        place.fail(expected, ", ".join(map(str, study.folds)))
    missing = set(arm.censoring or _names(study)) - set(teacher.censoring or _names(study))
    if missing:
        found = ", ".join(teacher.censoring or _names(study))
        place.fail(f"arm {teacher.name} to be trained on {', '.join(sorted(missing))} too", found)


def _names(study: Study) -> list[str]:
    return [censoring.name for censoring in study.censoring]


def _unique(top: Node, key: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            top.get(key, lambda n, name=name: n.fail("different ones", f"{name} twice"), None)  # type: ignore[misc]


def _study_name(node: Node) -> str:
    text = node.text()
    if not _STUDY_NAME.fullmatch(text):
        node.fail("a name of letters, digits, '.', '_' and '-' that begins with a letter or digit")
    return text


def _name(node: Node) -> str:
    text = node.text()
    if not _NAME.fullmatch(text) or "__" in text:
        node.fail("a name of letters, digits, '.' and single '_' that begins with a letter or digit")
    return text


def _dataset(node: Node, folder: Path) -> Dataset:
    node.mapping(("name", "folder", "id", "phantom"), required=("name",))
    given = [key for key in ("folder", "id", "phantom") if node.value.get(key) is not None]
    if len(given) != 1:
        node.fail("exactly one of the keys folder, id, phantom", ", ".join(given) or "none of them")
    name = node.need("name", _name)
    path = node.get("folder", lambda n: str((folder / Path(n.text()).expanduser()).resolve()), "")
    number = node.get("id", lambda n: n.whole(1, 999), 0)
    phantom = node.get("phantom", _phantom, None)
    return Dataset(name, phantom or number or path)


def _phantom(node: Node) -> Phantom:
    node.mapping(("train", "test", "shape", "spacing", "seed", "lesions", "diameter", "contrast"))
    default = Phantom()
    z, y, x = node.get("shape", lambda n: _numbers(n, 3, 8, integer=True), default.shape)
    spacing = node.get("spacing", lambda n: _numbers(n, 3, 0.01), default.spacing)
    return Phantom(
        train=node.get("train", lambda n: n.whole(2), default.train),
        test=node.get("test", lambda n: n.whole(0), default.test),
        shape=(int(z), int(y), int(x)),
        spacing=(spacing[0], spacing[1], spacing[2]),
        seed=node.get("seed", lambda n: n.whole(), default.seed),
        lesions=node.get("lesions", lambda n: n.number(0), None),
        diameter=node.get("diameter", lambda n: n.number(0), None),
        contrast=node.get("contrast", lambda n: n.number(0), None),
    )


def _numbers(node: Node, n: int, low: float, integer: bool = False) -> tuple[float, ...]:
    values = tuple(item.whole(int(low)) if integer else item.number(low) for item in node.items())
    if len(values) != n:
        node.fail(f"a list of {n} numbers")
    return values


def _censoring(node: Node) -> Censoring:
    if node.value == "none":
        return Censoring()
    if not isinstance(node.value, dict):
        node.fail("none or a mapping with the keys mode, rate, seeds")
    node.mapping(("mode", "rate", "seeds"), required=("mode",))
    mode = node.need("mode", lambda n: n.choice(MODES))
    rate = node.get("rate", lambda n: n.number(0, 1), None)
    if rate is None and mode != "reader":
        node.fail(f"a rate for mode {mode}", "none")
    seeds = node.get("seeds", lambda n: n.list_of(lambda s: s.whole()), (0,))
    if len(seeds) > 1 and mode not in _SEEDED:
        node.get("seeds", lambda n: n.fail(f"one seed: mode {mode} deletes the same lesions with any"), None)
    return Censoring(mode, rate, seeds)


def _patients(node: Node) -> int | None:
    return None if node.value == "all" else node.whole(1)


def _configuration(node: Node) -> str:
    if isinstance(node.value, float):  # 2.5d is text, 2.5 is not
        node.fail("a configuration such as 2d, 2.5d, 3d_fullres")
    return node.choice(("2d", "3d_fullres", "3d_lowres", *PARENTS))


def _fold(node: Node) -> int | str:
    return "all" if node.value == "all" else node.whole(0, 99)


def _budget(node: Node) -> tuple[int | None, int | None]:
    node.mapping(("epochs", "iterations"))
    return (
        node.get("epochs", lambda n: n.whole(1), None),
        node.get("iterations", lambda n: n.whole(1), None),
    )


def _arm(node: Node, censorings: list[str], budget: tuple[int | None, int | None]) -> Arm:
    keys = ("name", "trainer", "censoring", "ignored", "relabelled", "repetitions")
    node.mapping(keys, required=("name", "trainer"))
    trainer = node.need("trainer", lambda n: _trainer(n, budget))
    chosen = node.get("censoring", lambda n: n.list_of(lambda c: c.choice(censorings)), None)
    ignored = node.get("ignored", Node.truth, False)
    relabelled = node.get("relabelled", _relabelled, None)
    if ignored and relabelled:
        node.fail("either ignored or relabelled", "both")
    repetitions = node.get("repetitions", lambda n: n.whole(1, 999), None)
    return Arm(node.need("name", _name), trainer, chosen, ignored, relabelled, repetitions)


def _relabelled(node: Node) -> Relabelled:
    node.mapping(("by", "above", "read"), required=("by",))
    if node.value.get("above") is not None and node.value.get("read") is not None:
        node.fail("either above or read", "both")
    return Relabelled(
        node.need("by", Node.text),
        node.get("above", lambda n: n.number(0, 1), Relabelled.above),
        node.get("read", lambda n: n.whole(1), None),
    )


def _trainer(node: Node, budget: tuple[int | None, int | None]) -> str:
    name = node.text()
    if name in other_trainers():
        return name
    try:
        full = with_budget(name, *budget) if is_ours(name) else None
        if full is not None:
            is_ours(full)
    except InputError as error:
        raise InputError(f"{node.source}: {node.key}: {error}; found {name}") from None
    if full is None:
        node.fail("a trainer of nnU-Net or of this package", f"{name}{did_you_mean(name, known_trainers())}")
    return full


def _plan_25d(node: Node) -> Plan25d:
    node.mapping(("slices", "encoder", "decoder", "output_stride", "patch", "batch_size", "gpu_memory", "pretrained"))
    patch = node.get("patch", lambda n: _numbers(n, 2, 1, integer=True), None)
    plan = Plan25d(
        slices=node.get("slices", lambda n: n.whole(1), None),
        encoder=node.get("encoder", Node.text, None),
        decoder=node.get("decoder", Node.text, None),
        output_stride=node.get("output_stride", lambda n: n.whole(1), None),
        patch=None if patch is None else (int(patch[0]), int(patch[1])),
        batch_size=node.get("batch_size", lambda n: n.whole(1), None),
        gpu_memory=node.get("gpu_memory", lambda n: n.number(0.1), None),
        pretrained=node.get("pretrained", Node.text, None),
    )
    try:
        Overrides(plan.slices, plan.encoder, plan.decoder, plan.output_stride)
    except InputError as error:
        raise InputError(f"{node.source}: {node.key}: {error}") from None
    return plan


def _evaluation(node: Node) -> Evaluation:
    node.mapping(("cases", "profile", "label", "patients_regex", "confidence"))
    return Evaluation(
        cases=node.get("cases", lambda n: n.list_of(lambda i: i.choice(("test", "validation"))), ("test",)),
        profile=node.get(
            "profile",
            lambda n: n.choice(("paper", "paper-letter", "lesions", "brats-mets-2023", "brats-mets-2025")),
            "paper",
        ),
        label=node.get("label", Node.text, None),
        patients_regex=node.get("patients_regex", Node.text, None),
        confidence=node.get("confidence", lambda n: n.choice(("mean", "max", "sum", "sqrt", "learned")), None),
    )


def _resources(node: Node) -> Resources:
    node.mapping(("cpus", "gpus", "memory_gb", "hours", "seconds_per_iteration"))
    default = Resources()
    return Resources(
        cpus=node.get("cpus", lambda n: n.whole(1), default.cpus),
        gpus=node.get("gpus", lambda n: n.whole(1), default.gpus),
        memory_gb=node.get("memory_gb", lambda n: n.number(0.1), default.memory_gb),
        hours=node.get("hours", lambda n: n.number(0.01), default.hours),
        seconds_per_iteration=node.get("seconds_per_iteration", lambda n: n.number(0), None),
    )


def _id_range(node: Node) -> tuple[int, int]:
    low, high = (int(value) for value in _numbers(node, 2, 1, integer=True))
    if not low <= high <= 999:
        node.fail("two ids from 1 to 999, the smaller first", f"{low}, {high}")
    return low, high
