"""Choosing which lesions of a dataset a variant lacks; nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import file_digest
from nnunet_lopsided.files.parallel import check_n_workers, for_each
from nnunet_lopsided.files.tables import numbered_rows
from nnunet_lopsided.nnunet.paths import check_case_name
from nnunet_lopsided.nnunet.patients import patients_of
from nnunet_lopsided.nnunet.raw import Case, RawDataset, raw_dataset
from nnunet_lopsided.nnunet.splitting import Fold, folds_of_part, most_lesions, read_splits
from nnunet_lopsided.variants.case_labels import CaseLabel, measure_label
from nnunet_lopsided.variants.choosing import (
    LesionRow,
    ListedLesion,
    check_mode,
    choose_lesions,
    choose_patients,
    expected_rate,
    listed_lesions,
)

LIST = "list"  # the mode that replays a list; the others choose


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to censor: the arguments of :func:`plan_censoring` and :func:`write_censored_variant`.

    Attributes:
        mode: one of ``censoring.MODES``, ``"list"``, or None to censor nothing and only choose patients.
        rate: fraction of lesions to delete, within [0, 1]; for "reader" it may be None, for "list" it must.
        seed: for "stochastic", "reader" and the choice of patients.
        cases: "train", or "all": labelsTs too. The choice is made in each part on its own, so the training labels do
            not depend on it.
        lesion_list: for "list", a CSV with the columns case, id, volume_mm3 and, if some of its lesions are kept,
            status (``censored`` or ``kept``), such as the ``censored_lesions.csv`` of a variant. Rows of cases of the
            source that are out of scope have no effect.
        n_patients: keep only this many training patients; the test cases stay.
        patients_regex: see :func:`~nnunet_lopsided.nnunet.patients.patients_of`.
        ignored: the lesions get the ignore label instead of background, as if it were known where labels lack them:
            no real dataset tells, so it is what a loss can at best reach.
    """

    mode: str | None
    rate: float | None = None
    seed: int = 0
    cases: str = "train"
    lesion_list: Path | None = None
    n_patients: int | None = None
    patients_regex: str | None = None
    ignored: bool = False

    def check(self) -> None:
        """Raise :class:`InputError` where arguments are out of range or do not go together."""
        if self.mode == LIST:
            if self.lesion_list is None or self.rate is not None:
                raise InputError("mode list needs a CSV of lesions and no rate")
        elif self.lesion_list is not None:
            raise InputError(f"a CSV of lesions is for mode list, got mode {self.mode}")
        elif self.mode is not None:
            check_mode(self.mode, self.rate)
        elif self.n_patients is None:
            raise InputError("expected a mode, a number of patients, or both")
        elif self.rate is not None:
            raise InputError("a rate needs a mode")
        if self.ignored and self.mode is None:
            raise InputError("lesions to ignore need a mode that chooses them")
        if self.cases not in ("train", "all"):
            raise InputError(f"cases must be train or all, got {self.cases!r}")
        if self.patients_regex is not None and self.n_patients is None:
            raise InputError("a patients regex needs a number of patients")


class MoreOfChoice(TypedDict, total=False):
    """The attributes of :class:`Choice` beyond mode, rate and seed, to hand on as keywords."""

    cases: str
    lesion_list: Path | None
    n_patients: int | None
    patients_regex: str | None
    ignored: bool


@dataclass(frozen=True, kw_only=True)
class CensoringPlan:
    """Which lesions of a dataset go, before anything is written.

    Attributes:
        dataset: the source.
        choice: what was asked for.
        training: the training cases of the variant.
        test: the test cases whose labels are censored too.
        table: every lesion of these cases, training cases first.
        censored: the (case, id) of those that go.
        labels: the label maps by case.
        notes: what ``censoring.json`` says beyond the counts.
        folds: for a choice of patients of a source that has ``splits_final.json``: those of the variant.
    """

    dataset: RawDataset
    choice: Choice
    training: list[Case]
    test: list[Case]
    table: list[LesionRow]
    censored: frozenset[tuple[str, int]]
    labels: dict[str, CaseLabel]
    notes: dict[str, object]
    folds: list[dict[str, list[str]]] = field(default_factory=list)

    @property
    def replacement(self) -> int:
        """What the voxels of censored lesions become."""
        return self.dataset.value_to_ignore if self.choice.ignored else 0


def plan_censoring(source: int | str, choice: Choice, n_workers: int = 2) -> CensoringPlan:
    """Find the lesions of a dataset and choose those that go; nothing is written.

    Args:
        source: id or folder name of a dataset below nnUNet_raw; it may itself be a variant.
        choice: what to censor.
        n_workers: how many cases are read at the same time.

    Raises:
        InputError: an argument is out of range, the source is missing, broken or has no lesions, or a list does not
            fit the source.
    """
    choice.check()
    check_n_workers(n_workers)
    dataset = raw_dataset(source)
    training = dataset.training_cases()
    splits = _splits_of(dataset, training)
    notes: dict[str, object] = {}
    patients: dict[str, str] = {}
    if choice.n_patients is not None:
        training, patients, notes["patients"] = _chosen_patients(dataset, training, choice)
    test = _labelled_test_cases(dataset, training) if choice.cases == "all" else []
    with_contrast = choice.mode == "contrast"
    labels = for_each(
        lambda case: measure_label(case, dataset.label_scheme, with_contrast),
        [*training, *test],
        n_workers,
        "lesions",
    )
    parts = [
        [row for label in part for row in label.rows] for part in (labels[: len(training)], labels[len(training) :])
    ]
    rows = [row for part in parts for row in part]
    if not rows and choice.mode is not None:
        raise InputError(f"{dataset.name}: the training labels hold no lesion, so there is nothing to censor")
    if choice.lesion_list is not None:
        censored, of_list = _listed(dataset, rows, choice.lesion_list, [*training, *test])
        notes |= of_list
    else:
        censored = _chosen(parts, choice)
    if choice.mode == "reader":
        notes["expected_rate"] = expected_rate(rows) if choice.rate is None else choice.rate
    # Only where it was asked for, so that records of other variants keep their bytes.
    if choice.cases != "train":
        notes["cases"] = choice.cases
    folds: list[dict[str, list[str]]] = []
    if choice.n_patients is not None and splits is not None:
        lesions = most_lesions((patients[case], n) for case, n in Counter(row.case for row in parts[0]).items())
        folds, note = folds_of_part(splits, patients, lesions, choice.seed)
        if note:
            notes["splits"] = note
    return CensoringPlan(
        dataset=dataset,
        choice=choice,
        training=training,
        test=test,
        table=rows,
        censored=censored,
        labels={label.case.name: label for label in labels},
        notes=notes,
        folds=folds,
    )


def _chosen(parts: Sequence[Sequence[LesionRow]], choice: Choice) -> frozenset[tuple[str, int]]:
    """The lesions that a mode chooses among the training cases, and on its own among the test cases."""
    if choice.mode is None:
        return frozenset()
    return frozenset().union(*(choose_lesions(part, choice.mode, choice.rate, choice.seed) for part in parts))


def _listed(
    dataset: RawDataset, rows: Sequence[LesionRow], path: Path, scope: Sequence[Case]
) -> tuple[frozenset[tuple[str, int]], dict[str, object]]:
    """The lesions that a list names, and what ``censoring.json`` says of the list."""
    listed = _read_list(path)
    in_scope = _in_scope(dataset, listed, scope)
    # A list may be edited later; by its digest one can tell which state of it made the variant.
    record: dict[str, object] = {"list_sha256": file_digest(path)}
    if len(in_scope) < len(listed):
        record = {"list_rows_out_of_scope": len(listed) - len(in_scope), **record}
    return listed_lesions(rows, in_scope), record


def _splits_of(dataset: RawDataset, training: Sequence[Case]) -> list[Fold] | None:
    """The folds that the source brings, read before anything long; they are copied, or reduced to fewer patients."""
    path = dataset.folder / "splits_final.json"
    return read_splits(path, {case.name for case in training}) if path.is_file() else None


def _chosen_patients(
    dataset: RawDataset, cases: list[Case], choice: Choice
) -> tuple[list[Case], dict[str, str], dict[str, object]]:
    """The cases that stay, the patient of each of them, and what ``censoring.json`` says of them."""
    assert choice.n_patients is not None, "called for a number of patients"
    patients, grouping = patients_of([case.name for case in cases], dataset.folder, choice.patients_regex)
    kept = choose_patients(patients.values(), choice.n_patients, choice.seed)
    record = {"n": len(kept), "of": len(set(patients.values())), "grouping": grouping, "kept": sorted(kept)}
    stay = {case: patient for case, patient in patients.items() if patient in kept}
    return [case for case in cases if case.name in stay], stay, record


def _labelled_test_cases(dataset: RawDataset, training: list[Case]) -> list[Case]:
    test, names = dataset.test_cases(), {case.name for case in training}
    for case in test:
        if case.label is None:
            raise InputError(f"{dataset.name}, test case {case.name}: label not found, so it cannot be censored")
        if case.name in names:
            raise InputError(f"{dataset.name}, case {case.name}: is in imagesTr and in imagesTs")
    return test


def _read_list(path: Path) -> list[ListedLesion]:
    if not path.is_file():
        raise InputError(f"list of lesions not found: {path}")
    listed = []
    for line, row in numbered_rows(path, ("case", "id", "volume_mm3")):
        check_case_name(row["case"], f"{path}, line {line}")
        # A list without a status names what another study deleted, and nothing else.
        status = row.get("status", "censored").strip().lower()
        if status not in ("kept", "censored"):
            raise InputError(
                f"{path}, line {line}: expected the status kept or censored, found {row['status']!r} for case "
                f"{row['case']}, lesion {row['id']}"
            )
        try:
            listed.append(ListedLesion(row["case"], int(row["id"]), float(row["volume_mm3"]), status == "censored"))
        except ValueError as error:
            raise InputError(f"{path}, line {line}: expected case,id,volume_mm3: {error}") from None
    return listed


def _in_scope(dataset: RawDataset, listed: list[ListedLesion], scope: Sequence[Case]) -> list[ListedLesion]:
    """The rows without those of cases that the source has, but that are not to be censored."""
    known = {case.name for case in (*dataset.training_cases(), *dataset.test_cases())}
    # Only these are passed over. A case that the source does not know stays in, and is refused with its name.
    out_of_scope = known - {case.name for case in scope}
    return [entry for entry in listed if entry.case not in out_of_scope]
