"""What single keys of a study.yaml cannot tell: whether they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.study.arms import Arm
from nnunet_lopsided.study.fields import did_you_mean
from nnunet_lopsided.study.schema import Plan25d, Study
from nnunet_lopsided.study.trainer_choice import is_ours
from nnunet_lopsided.trainers.names import with_soft_targets


class _Place:
    """A key of a study.yaml, for messages."""

    def __init__(self, source: str, key: str) -> None:
        self.source, self.key = source, key

    def refuse(self, expected: str, given: str) -> NoReturn:
        raise InputError(f"{self.source}: {self.key}: expected {expected}, found {given}")


def check_together(study: Study, source: str) -> None:
    """Refuse a study whose keys contradict each other.

    Args:
        study: as it will be run: arms have their trainers' budgets, and there is a baseline.
        source: name of its file, for messages.

    Raises:
        InputError: one line with file, key, expected and found.
    """
    _check_names(study, source)
    _check_trainers(study, source)
    _check_folds(study, source)
    _check_magnified(study, source)
    for i, arm in enumerate(study.arms):
        _check_arm(_Place(source, f"arms[{i}]"), arm, study, study.arms[:i])
    for i, dataset in enumerate(study.datasets):
        if dataset.phantom is not None and not dataset.phantom.test and "test" in study.evaluation.cases:
            place = _Place(source, f"datasets[{i}].phantom.test")
            place.refuse("test cases, or evaluation: cases: [validation]", "0")
    if study.plan_25d != Plan25d() and "2.5d" not in study.configurations:
        _Place(source, "plan_25d").refuse("2.5d among the configurations", ", ".join(study.configurations))
    # nnU-Net's ids have three digits.
    low, high = study.dataset_ids
    if not low <= high <= 999:
        _Place(source, "dataset_ids").refuse("two ids from 1 to 999, the smaller first", f"{low}, {high}")


def _check_names(study: Study, source: str) -> None:
    censorings = _names(study)
    _check_different(_Place(source, "datasets"), [dataset.name for dataset in study.datasets])
    _check_different(_Place(source, "censoring"), censorings)
    for i, arm in enumerate(study.arms):
        for j, name in enumerate(arm.censoring or ()):
            _check_known(_Place(source, f"arms[{i}].censoring[{j}]"), name, censorings)
    arms = [arm.name for arm in study.arms]
    _check_different(_Place(source, "arms"), arms)
    _check_known(_Place(source, "baseline"), study.baseline, arms)


def _check_different(place: _Place, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            place.refuse("different ones", f"{name} twice")


def _check_known(place: _Place, name: str, names: Sequence[str]) -> None:
    if name not in names:
        place.refuse(f"one of {', '.join(names)}", f"{name!r}{did_you_mean(name, names)}")


def _check_trainers(study: Study, source: str) -> None:
    """Refuse two arms with the same labels and trainer: nnU-Net would write the results of both into one folder."""
    for repetition in range(1, study.repetitions + 1):
        # The seed is in a trainer's name, so that names may clash in one repetition and differ in another.
        trained = [arm for arm in study.arms if repetition <= study.repetitions_of(arm)]
        names = [f"{study.trainer_of(arm, repetition)} {arm.own_labels}".rstrip() for arm in trained]
        _check_different(_Place(source, "arms"), names)


def _check_folds(study: Study, source: str) -> None:
    """Refuse fold ``all`` where held-out cases are needed: it trains on every case."""
    if "all" not in study.folds:
        return
    place = _Place(source, "folds")
    if len(study.folds) > 1:
        place.refuse("either all or numbers", f"{list(study.folds)}")
    if "validation" in study.evaluation.cases:
        place.refuse("numbers where validation cases are evaluated", "all")
    if study.evaluation.confidence == "learned":
        place.refuse("numbers where the confidence is learned from validation cases", "all")


def _check_magnified(study: Study, source: str) -> None:
    """Only test cases are predicted by a job of ours; validation cases are as nnU-Net's training predicted them."""
    rules = study.evaluation
    if rules.magnify is None:
        return
    place = _Place(source, "evaluation.magnify")
    if "test" not in rules.cases:
        place.refuse("test among the cases, which alone are magnified", ", ".join(rules.cases))
    if rules.confidence == "learned":
        place.refuse("another confidence than learned, which is that of images as they are", "learned")


def _check_arm(place: _Place, arm: Arm, study: Study, before: Sequence[Arm]) -> None:
    if arm.repetitions is not None and arm.repetitions > study.repetitions:
        place.refuse(f"at most as many repetitions as the study has, {study.repetitions}", str(arm.repetitions))
    if arm.teacher is not None:
        teacher = next((other for other in before if other.name == arm.teacher), None)
        # An earlier arm, so that no two wait for each other; with unchanged labels, so that there are no chains of
        # them.
        if teacher is None or teacher.own_labels:
            place.refuse("by to name an earlier arm whose labels are as they are", arm.teacher)
        _check_same_rule(place, arm, before)
        _check_teacher(place, arm, teacher, study)
        rule = arm.completed
        learns = rule is not None and (rule.rounds > 1 or not rule.by_zones)
        if learns and not _takes_soft_targets(teacher.trainer):
            place.refuse(
                "by to name an arm whose trainer takes soft targets, such as nnUNetTrainerLopsided", arm.teacher
            )


def _check_same_rule(place: _Place, arm: Arm, before: Sequence[Arm]) -> None:
    """Refuse another rule than that of an earlier arm relabelled by the same arm: both share one set of labels."""
    own = arm.relabelled
    for rule in (other.relabelled for other in before if other.own_labels == arm.own_labels):
        if own is not None and rule is not None and rule != own:
            expected = f"above to be {rule.above:g}" if rule.read is None else f"read to be {rule.read}"
            given = own.above if rule.read is None else own.read
            place.refuse(f"{expected}, as in the earlier arm that is relabelled by {own.by}", str(given))


def _check_teacher(place: _Place, arm: Arm, teacher: Arm, study: Study) -> None:
    """The arm that relabels must have been trained on the same labels, as often, and on folds that hold cases out."""
    repetitions, most = study.repetitions_of(arm), study.repetitions_of(teacher)
    if repetitions > most:
        place.refuse(f"at most as many repetitions as arm {teacher.name} has, {most}", str(repetitions))
    if "all" in study.folds or len(study.folds) < 2:
        expected = "at least two folds in the study, so that no case is judged by a model that learned from it"
        place.refuse(expected, ", ".join(map(str, study.folds)))
    # Arms without a list of their own are trained on every censoring.
    taught = teacher.censoring or _names(study)
    missing = set(arm.censoring or _names(study)) - set(taught)
    if missing:
        place.refuse(f"arm {teacher.name} to be trained on {', '.join(sorted(missing))} too", ", ".join(taught))


def _takes_soft_targets(trainer: str) -> bool:
    """Whether ``lopsided-complete`` can be given this trainer."""
    try:
        return is_ours(with_soft_targets(trainer))
    except InputError:
        return False


def _names(study: Study) -> list[str]:
    return [censoring.name for censoring in study.censoring]
