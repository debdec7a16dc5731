"""Which labels a study trains on, and which runs it has. Pure: nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.study.arms import FULL, Arm, Censoring
from nnunet_lopsided.study.schema import Study


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
        completed: whether ``lopsided-complete`` has completed them by that run, not the run's audit.
        rounds: of that completion.
        zones: whether that completion has changed labels.
        sample: how many candidates a reader has decided on for it.
    """

    dataset: str
    censoring: Censoring
    _: KW_ONLY
    seed: int = 0
    patients: int | None = None
    ignored: bool = False
    teacher: str = ""
    read: bool = False
    completed: bool = False
    rounds: int = 1
    zones: bool = False
    sample: int = 0

    @property
    def plain(self) -> Variant:
        """These labels before anything was marked or added."""
        return Variant(self.dataset, self.censoring, seed=self.seed, patients=self.patients)

    @property
    def first_round(self) -> Variant:
        """The soft targets from which the second cross-validation of a completion in two rounds learns."""
        return replace(self, rounds=1, zones=False, sample=0)

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
            >>> Variant("mets", Censoring("size", 0.5), seed=1, patients=10).name, Variant("mets", Censoring()).name
            ('mets-size50-s1-n10', 'mets')
        """
        if self.is_source:
            return self.dataset
        seed = "" if self.censoring.mode is None else f"-s{self.seed}"
        patients = "" if self.patients is None else f"-n{self.patients}"
        how = "-completed-by" if self.completed else "-by"
        change = "-ignored" if self.ignored else f"{how}-{self.teacher}" if self.teacher else ""
        change += "-read" if self.read else ""
        change += ("-zones" if self.zones else "") + (f"-sample{self.sample}" if self.sample else "")
        change += "" if self.rounds == 1 else f"-rounds{self.rounds}"
        return f"{self.dataset}-{self.censoring.name}{seed}{patients}{change}"


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
        # Else the folder of a run on whole labels would begin as those of the runs on every variant.
        labels = f"-{FULL}" if self.variant.plain.is_source else ""
        return f"{self.variant.plain.name}{labels}-{self.configuration}-{self.arm.name}-r{self.repetition}"


def variants_of(study: Study) -> tuple[Variant, ...]:
    """Every set of labels that an arm of the study trains on, and every dataset, sorted by dataset."""
    # A variant that no arm trains on would be written and preprocessed for nothing.
    wanted = {name for arm in study.arms for name in arm.censoring or [c.name for c in study.censoring]}
    variants = []
    for dataset in study.datasets:
        # The dataset itself always: variants are made from it, and compared on its whole labels.
        variants.append(Variant(dataset.name, Censoring()))
        for censoring in study.censoring:
            for patients in study.patients:
                of_all = [Variant(dataset.name, censoring, seed=seed, patients=patients) for seed in censoring.seeds]
                variants += [v for v in of_all if censoring.name in wanted and not v.is_source]
    return tuple(variants)


def changed_variants_of(study: Study) -> tuple[Variant, ...]:
    """The sets of labels that single arms have of their own."""
    changed = [run.variant for run in runs_of(study) if run.variant != run.variant.plain]
    # The first of two rounds has a dataset of its own, which an arm of one round may share.
    firsts = [variant.first_round for variant in changed if variant.rounds > 1]
    return tuple(dict.fromkeys([*changed, *firsts]))


def runs_of(study: Study) -> tuple[Run, ...]:
    """Every run, in the order of the study's lists."""
    trained = {
        name: [v for v in variants_of(study) if v.dataset == name and (not v.is_source or None in study.patients)]
        for name in (dataset.name for dataset in study.datasets)
    }
    has_full = any(censoring.mode is None for censoring in study.censoring)
    return tuple(
        Run(_of_arm(variant, arm, configuration, repetition), configuration, arm, repetition)
        for dataset in study.datasets
        for variant in trained[dataset.name]
        if has_full or variant.censoring.mode is not None
        for configuration in study.configurations
        for arm in study.arms
        if arm.censoring is None or variant.censoring.name in arm.censoring
        if not arm.knows_the_truth or variant.censoring.mode is not None  # whole labels lack nothing
        for repetition in range(1, study.repetitions_of(arm) + 1)
    )


def _of_arm(variant: Variant, arm: Arm, configuration: str, repetition: int) -> Variant:
    if arm.teacher is None:
        return replace(variant, ignored=arm.ignored)
    changed = replace(variant, teacher=f"{configuration}-{arm.teacher}-r{repetition}")
    if arm.completed is not None:
        rule = arm.completed
        return replace(changed, completed=True, rounds=rule.rounds, zones=rule.by_zones, sample=rule.sample)
    return replace(changed, read=arm.relabelled is not None and arm.relabelled.read is not None)


def choose_ids(study: Study, earlier: Mapping[str, int]) -> dict[str, int]:
    """A dataset id for every variant; those of an earlier run of the study are kept.

    Args:
        study: the study.
        earlier: ids by name of the variant.

    Raises:
        InputError: the study's range has too few ids.
    """
    low, high = study.dataset_ids
    names = [variant.name for variant in (*variants_of(study), *changed_variants_of(study))]
    # Under its id lie a variant's preprocessed data and trainings.
    chosen = {name: earlier[name] for name in names if name in earlier}
    # Not those of variants that the study no longer has either: their results lie under these ids.
    free = (i for i in range(low, high + 1) if i not in earlier.values())
    for name in names:
        if name not in chosen:
            number = next(free, None)
            if number is None:
                raise InputError(
                    f"dataset_ids must have room for {len(names)} datasets and variants, got {low} to {high} with "
                    f"{len(earlier)} in use"
                )
            chosen[name] = number
    return {name: chosen[name] for name in names}
