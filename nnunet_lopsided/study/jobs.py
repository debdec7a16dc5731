"""A study as jobs, each one call of a public command. Pure: nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from nnunet_lopsided.study.schema import FULL, Arm, Censoring

# Options that decide how fast and where, not what comes out.
_ONLY_SPEED = ("-np", "-npfp", "--np", "-npp", "-nps", "-device", "-num_gpus")
KINDS = (
    *("phantom", "preprocess", "plan", "censor", "share", "train", "audit", "apply", "predict", "confidence"),
    "evaluate",
)


@dataclass(frozen=True)
class Variant:
    """One set of labels to train on.

    Attributes:
        dataset: the study's name of the dataset.
        censoring: which lesions are missing.
        seed: of the censoring and of the choice of patients.
        patients: number of training patients; None: all.
        ignored: whether the missing lesions are marked by the ignore label.
        teacher: the run of the same labels, without their name, whose audit has completed them; empty: none has.
        read: whether a reader has decided on what that audit found.
    """

    dataset: str
    censoring: Censoring
    seed: int = 0
    patients: int | None = None
    ignored: bool = False
    teacher: str = ""
    read: bool = False

    @property
    def plain(self) -> Variant:
        """These labels before anything was marked or added."""
        return replace(self, ignored=False, teacher="", read=False)

    @property
    def is_source(self) -> bool:
        """Whether this is the dataset as it is."""
        return self.censoring.mode is None and self.patients is None and not self.teacher

    @property
    def labels(self) -> str:
        """The kind of labels without the dataset and without the seed, as tables call it."""
        return self.censoring.name + ("" if self.patients is None else f"-n{self.patients}")

    @property
    def name(self) -> str:
        """Unique in the study; the dataset's name where this is the dataset.

        Example:
            >>> Variant("mets", Censoring("size", 0.5), 1, 10).name, Variant("mets", Censoring()).name
            ('mets-size50-s1-n10', 'mets')
        """
        if self.is_source:
            return self.dataset
        seed = "" if self.censoring.mode is None else f"-s{self.seed}"
        patients = "" if self.patients is None else f"-n{self.patients}"
        change = "-ignored" if self.ignored else f"-by-{self.teacher}" if self.teacher else ""
        return f"{self.dataset}-{self.censoring.name}{seed}{patients}{change}{'-read' if self.read else ''}"


@dataclass(frozen=True)
class Run:
    """One arm on one variant, in one configuration and repetition: a training per fold."""

    variant: Variant
    configuration: str
    arm: Arm
    repetition: int

    @property
    def name(self) -> str:
        """Unique in the study, and the name of its folders."""
        labels = f"-{FULL}" if self.variant.plain.is_source else ""
        return f"{self.variant.plain.name}{labels}-{self.configuration}-{self.arm.name}-r{self.repetition}"


@dataclass(frozen=True)
class Job:
    """One call of a public command, in the study's folder.

    Attributes:
        name: ``KIND/NAME``, unique; names its marker and its log.
        command: program and arguments; paths are relative to the study's folder.
        needs: names of the jobs whose results it reads.
        results: nnU-Net's results folder, relative.
        cpus: cores it may use.
        gpus: GPUs it needs.
        memory_gb: main memory it may need.
        hours: time limit.
        fold_folder: for a training, where its checkpoints are, relative.
        run: name of the run it belongs to; empty for jobs on datasets.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    results: str = "nnUNet_results"
    cpus: int = 1
    gpus: int = 0
    memory_gb: float = 4.0
    hours: float = 4.0
    fold_folder: str = ""
    run: str = ""

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        return self.name.split("/")[0]

    def as_json(self) -> dict[str, Any]:
        """For jobs.json."""
        return asdict(self)


def same_outcome(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two commands differ at most in how many processes they use and on which device.

    Example:
        >>> same_outcome(["nnUNetv2_train", "1", "-device", "cpu"], ["nnUNetv2_train", "1", "-device", "cuda"])
        True
        >>> same_outcome(["censor", "--seed", "1", "-np", "2"], ["censor", "--seed", "2", "-np", "2"])
        False
    """
    return _essence(one) == _essence(other)


def trainer_of_command(command: Sequence[str]) -> str:
    """The trainer of a call of nnUNetv2_train.

    Example:
        >>> trainer_of_command(["nnUNetv2_train", "1", "2d", "0", "-tr", "nnUNetTrainer25D"])
        'nnUNetTrainer25D'
    """
    return command[command.index("-tr") + 1]


def _essence(command: Sequence[str]) -> list[str]:
    kept, dropping = [], False
    for word in command:
        dropping = word in _ONLY_SPEED or (dropping and not word.startswith("-"))
        if not dropping:
            kept.append(word)
    return kept


def job_of_json(content: Mapping[str, Any]) -> Job:
    """The reverse of :meth:`Job.as_json`."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    return Job(**values)
