"""Variants of a raw nnU-Net dataset: the same images with other labels."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.dataset_conversion.censoring import (
    LesionRow,
    ListedLesion,
    check_mode,
    choose_lesions,
    choose_patients,
    expected_rate,
    listed_lesions,
)
from nnunet_lopsided.dataset_conversion.contrast import lesion_contrast
from nnunet_lopsided.dataset_conversion.converters.splitting import folds_of_part, most_lesions
from nnunet_lopsided.dataset_conversion.lesion_labels import (
    SparseLabel,
    censor_label,
    check_label_values,
    label_lesions,
    sparse_label,
)
from nnunet_lopsided.dataset_conversion.parallel import for_each
from nnunet_lopsided.dataset_conversion.patients import CASES_FILE, patients_of
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Image, read_image, write_image
from nnunet_lopsided.lesions import Lesions
from nnunet_lopsided.nnunet_layout import (
    Case,
    RawDataset,
    file_digest,
    link_file,
    new_dataset_name,
    new_raw_dataset,
    nnunet_path,
    plain_name,
    raw_dataset,
    read_json,
    reference,
    write_json,
)
from nnunet_lopsided.tables import numbered_rows, write_table

CENSORING_FILE = "censoring.json"
LESIONS_FILE = "censored_lesions.csv"
LIST = "list"  # the mode that replays a list; the others choose


@dataclass(frozen=True)
class CensoredVariant:
    """What :func:`write_censored_variant` made; ``notes`` is what the user must know."""

    folder: Path
    n_lesions: int
    n_censored: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
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
        patients_regex: see :func:`~nnunet_lopsided.dataset_conversion.patients.patients_of`.
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


@dataclass(frozen=True)
class CensoringPlan:
    """Which lesions of a dataset go, before anything is written.

    Attributes:
        dataset: the source.
        choice: what was asked for.
        training: the training cases of the variant.
        test: the test cases whose labels are censored too.
        table: every lesion of these cases, training cases first.
        censored: the (case, id) of those that go.
        labels: the label maps by case, as far as they are small.
        notes: what ``censoring.json`` says beyond the counts.
        folds: for a choice of patients of a source that has ``splits_final.json``: those of the variant.
    """

    dataset: RawDataset
    choice: Choice
    training: list[Case]
    test: list[Case]
    table: list[LesionRow]
    censored: frozenset[tuple[str, int]]
    labels: dict[str, SparseLabel | None]
    notes: dict[str, Any]
    folds: list[dict[str, list[str]]] = field(default_factory=list)

    @property
    def replacement(self) -> int:
        """What the voxels of censored lesions become."""
        return self.dataset.value_to_ignore if self.choice.ignored else 0


def plan_censoring(source: int | str, choice: Choice, n_processes: int = 2) -> CensoringPlan:
    """Find the lesions of a dataset and choose those that go; nothing is written.

    Args:
        source: id or folder name of a dataset below nnUNet_raw; it may itself be a variant.
        choice: what to censor.
        n_processes: how many cases are read at the same time.

    Raises:
        InputError: an argument is out of range, the source is missing, broken or has no lesions, or a list does not
            fit the source.
    """
    choice.check()
    if n_processes < 1:
        raise InputError(f"number of processes must be at least 1, got {n_processes}")
    dataset = raw_dataset(source)
    training = dataset.training_cases()
    notes: dict[str, Any] = {}
    patients: dict[str, str] = {}
    if choice.n_patients is not None:
        training, patients, notes["patients"] = _chosen_patients(dataset, training, choice)
    test = _labelled_test_cases(dataset, training) if choice.cases == "all" else []
    parts: list[list[LesionRow]] = []
    labels: dict[str, SparseLabel | None] = {}
    for cases in (training, test):
        table, found = _lesions_of(dataset, cases, choice.mode == "contrast", n_processes)
        parts.append(table)
        labels |= found
    rows = [row for part in parts for row in part]
    if not rows and choice.mode is not None:
        raise InputError(f"{dataset.name}: the training labels hold no lesion, so there is nothing to censor")
    censored: frozenset[tuple[str, int]] = frozenset()
    if choice.lesion_list is not None:
        listed = _read_list(choice.lesion_list)
        in_scope = _in_scope(dataset, listed, [*training, *test])
        censored = listed_lesions(rows, in_scope)
        if len(in_scope) < len(listed):
            notes["list_rows_out_of_scope"] = len(listed) - len(in_scope)
        notes["list_sha256"] = file_digest(choice.lesion_list)
    elif choice.mode is not None:
        chosen = [choose_lesions(part, choice.mode, choice.rate, choice.seed) for part in parts]
        censored = frozenset().union(*chosen)
        if choice.mode == "reader":
            notes["expected_rate"] = expected_rate(rows) if choice.rate is None else choice.rate
    if choice.cases != "train":
        notes["cases"] = choice.cases
    folds: list[dict[str, list[str]]] = []
    if choice.n_patients is not None and (dataset.folder / "splits_final.json").is_file():
        lesions = most_lesions((patients[case], n) for case, n in Counter(row.case for row in parts[0]).items())
        folds, note = folds_of_part(read_json(dataset.folder / "splits_final.json"), patients, lesions, choice.seed)
        if note:
            notes["splits"] = note
    return CensoringPlan(dataset, choice, training, test, rows, censored, labels, notes, folds)


def write_censored_variant(
    source: int | str,
    output_id: int,
    mode: str | None,
    rate: float | None = None,
    seed: int = 0,
    *,
    name: str | None = None,
    overwrite: bool = False,
    n_processes: int = 2,
    **more: Any,
) -> CensoredVariant:
    """Write a dataset whose training labels lack some of the source's lesions.

    The same call gives the same bytes in every file, wherever it writes. The folder appears only when complete.
    Training images are referenced by dataset.json, test images and labels by symbolic links; test labels stay whole,
    unless ``cases="all"``.

    Args:
        source: id or folder name of a dataset below nnUNet_raw; it may itself be a variant.
        output_id: id of the variant, 1 to 999, not in use below any nnU-Net path.
        mode: see :class:`Choice`, as for ``rate`` and ``seed``.
        rate: fraction of lesions to delete, within [0, 1].
        seed: any integer.
        name: folder name after ``DatasetXXX_``; default: the source's name followed by ``Censored`` (without a mode by
            the number of patients).
        overwrite: replace an earlier variant of the same id and name.
        n_processes: how many label files are worked on at the same time.
        **more: the other attributes of :class:`Choice`.

    Returns:
        The folder, and how many lesions there were and how many went.

    Raises:
        InputError: the output id is in use, or see :func:`plan_censoring`.
    """
    choice = Choice(mode, rate, seed, **more)
    choice.check()
    dataset = raw_dataset(source)
    match = re.fullmatch(r"Dataset(\d{3})_(.+)", dataset.name)
    if match is None:
        raise InputError(f"source must be a folder named DatasetXXX_NAME, got {dataset.name}")
    if int(match[1]) == output_id:
        raise InputError(f"output id {output_id} is the id of the source, {dataset.name}")
    name = name or plain_name(f"{match[2]}{'Censored' if mode else f'{choice.n_patients}Patients'}")
    final = nnunet_path("nnUNet_raw") / new_dataset_name(output_id, name)

    with new_raw_dataset(output_id, name, marker=CENSORING_FILE, overwrite=overwrite) as folder:
        plan = plan_censoring(source, choice, n_processes)
        _write_labels(plan, folder, n_processes)
        link_test_files(plan.dataset, folder, final)
        keep_splits = choice.n_patients is None
        labels = {**plan.dataset.json["labels"], "ignore": plan.replacement} if choice.ignored else None
        write_dataset_files(plan.dataset, plan.training, folder, final, keep_splits=keep_splits, labels=labels)
        if plan.folds:
            write_json(folder / "splits_final.json", plan.folds)
        _write_lesions_csv(folder / LESIONS_FILE, plan)
        write_json(folder / CENSORING_FILE, _record(plan))
    return CensoredVariant(final, len(plan.table), len(plan.censored), tuple(_notes(plan)))


def _notes(plan: CensoringPlan) -> list[str]:
    notes = [plan.notes["splits"]] if "splits" in plan.notes else []
    if dropped := plan.notes.get("list_rows_out_of_scope"):
        notes.append(f"{dropped} rows of the list are of cases that are not censored here, and had no effect")
    return notes


def link_with_test_set(dataset: RawDataset, output_id: int, every: int = 4) -> Path:
    """Link a dataset into nnUNet_raw under another id, with a labelled test set.

    If the dataset has test labels for all of imagesTs, its own test set is linked; otherwise every ``every``-th
    training case, in the order of names, is a test case instead. Nothing is known of patients here: cases of one
    patient can end up on both sides.

    Args:
        dataset: any folder in nnU-Net's raw layout, inside nnUNet_raw or not.
        output_id: id of the linked dataset, not in use.
        every: which training cases are held out.

    Returns:
        The new folder.

    Raises:
        InputError: the dataset is broken or has too few cases, or the id is in use.
    """
    training, test = dataset.training_cases(), dataset.test_cases()
    if not test or any(case.label is None for case in test):
        test = training[::every]
        training = [case for case in training if case not in test]
    if len(training) < 2:
        raise InputError(f"{dataset.folder}: at least 2 cases to train and 1 to test are needed")
    return link_cases(dataset, output_id, plain_name(re.sub(r"^Dataset\d{3}_", "", dataset.name)), training, test)


def link_cases(dataset: RawDataset, output_id: int, name: str, training: Sequence[Case], test: Sequence[Case]) -> Path:
    """Link cases of a dataset into nnUNet_raw as a dataset of their own.

    Args:
        dataset: any folder in nnU-Net's raw layout, inside nnUNet_raw or not.
        output_id: id of the linked dataset, not in use.
        name: its folder name after ``DatasetXXX_``.
        training: its training cases, with labels.
        test: its test cases, with labels.

    Returns:
        The new folder.

    Raises:
        InputError: the id is in use.
    """
    with new_raw_dataset(output_id, name, marker="dataset.json") as folder:
        for split, cases in (("Tr", training), ("Ts", test)):
            for kind in ("images", "labels"):
                (folder / f"{kind}{split}").mkdir()
            for case in cases:
                assert case.label is not None, "both sides have labels"
                _link(folder / f"labels{split}" / (case.name + dataset.file_ending), case.label)
                for kind, file in (("images", case.images[0]), ("labels", case.label)):
                    spacing = file.with_name(f"{case.name}.json")  # what TIFF lacks
                    if spacing.is_file():
                        _link(folder / f"{kind}{split}" / spacing.name, spacing)
                for channel, image in enumerate(case.images):
                    _link(folder / f"images{split}" / f"{case.name}_{channel:04d}{dataset.file_ending}", image)
        content = {key: value for key, value in dataset.json.items() if key != "dataset"}
        write_json(folder / "dataset.json", {**content, "numTraining": len(training)})
    return nnunet_path("nnUNet_raw") / new_dataset_name(output_id, name)


def _link(link: Path, target: Path) -> None:
    link.symlink_to(target.resolve())


def _chosen_patients(
    dataset: RawDataset, cases: list[Case], choice: Choice
) -> tuple[list[Case], dict[str, str], dict[str, Any]]:
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


def _lesions_of(
    dataset: RawDataset, cases: Sequence[Case], with_contrast: bool, n_processes: int
) -> tuple[list[LesionRow], dict[str, SparseLabel | None]]:
    def examine(case: Case) -> tuple[list[LesionRow], SparseLabel | None]:
        label = _read_label(case)
        lesions = label_lesions(label, dataset.ignore_label)
        sparse = sparse_label(label, lesions, dataset.ignore_label)
        values = label.array if sparse is None else sparse.values
        assert case.label is not None, "a label was read"
        check_label_values(dataset, case.name, case.label, values)
        sizes = zip(lesions.n_voxels.tolist(), lesions.volume_mm3.tolist(), lesions.diameter_mm.tolist(), strict=True)
        rows = [LesionRow(case.name, i, *size) for i, size in enumerate(sizes, 1)]
        if with_contrast:
            contrasts = _contrasts(case, label, lesions)
            rows = [replace(row, contrast=c) for row, c in zip(rows, contrasts, strict=True)]
        return rows, sparse

    found = for_each(examine, cases, n_processes, "lesions") if cases else []
    rows = [row for case_rows, _ in found for row in case_rows]
    return rows, {case.name: sparse for case, (_, sparse) in zip(cases, found, strict=True)}


def _contrasts(case: Case, label: Image, lesions: Lesions) -> list[float]:
    if not len(lesions):
        return []
    return lesion_contrast(case_images(case, label.shape), lesions, label.array != 0).tolist()


def case_images(case: Case, shape: tuple[int, ...], colour: bool = False) -> list[NDArray[np.generic]]:
    """The images of a case, in the order of its files.

    Args:
        case: whose.
        shape: of its label map, which every image must have.
        colour: see :func:`~nnunet_lopsided.images.read_image`.

    Raises:
        InputError: an image cannot be read, has another shape or holds values that are not finite.
    """
    images = []
    for path in case.images:
        image = read_image(path, colour).array
        if image.shape != shape:
            raise InputError(
                f"case {case.name}: expected {path} to have its label's shape {shape}, found {image.shape}"
            )
        if not np.isfinite(image).all():
            raise InputError(f"case {case.name}: {path} holds values that are not finite")
        images.append(image)
    return images


def _read_list(path: Path) -> list[ListedLesion]:
    if not path.is_file():
        raise InputError(f"list of lesions not found: {path}")
    listed = []
    for line, row in numbered_rows(path, ("case", "id", "volume_mm3")):
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
    out_of_scope = known - {case.name for case in scope}
    return [entry for entry in listed if entry.case not in out_of_scope]


def _record(plan: CensoringPlan) -> dict[str, Any]:
    n_lesions, n_censored = len(plan.table), len(plan.censored)
    return {
        "tool": "nnunet-lopsided",
        "version": __version__,
        "source_dataset": plan.dataset.name,
        "mode": plan.choice.mode,
        "rate": plan.choice.rate,
        "seed": plan.choice.seed,
        "n_lesions": n_lesions,
        "n_censored": n_censored,
        "realised_fraction": n_censored / n_lesions if n_lesions else 0.0,
        **({"ignored": True} if plan.choice.ignored else {}),
        **plan.notes,
    }


def _write_labels(plan: CensoringPlan, folder: Path, n_processes: int) -> None:
    ids: dict[str, list[int]] = {}
    for case_name, lesion_id in plan.censored:
        ids.setdefault(case_name, []).append(lesion_id)

    def write(item: tuple[str, Case]) -> None:
        labels, case = item
        gone, sparse = ids.get(case.name, []), plan.labels[case.name]
        if sparse:
            label = sparse.without(gone, plan.replacement)
        else:
            label = censor_label(_read_label(case), plan.dataset.ignore_label, gone, plan.replacement)
        write_image(folder / labels / (case.name + plan.dataset.file_ending), label)

    work = [("labelsTr", case) for case in plan.training] + [("labelsTs", case) for case in plan.test]
    for labels in {labels for labels, _ in work}:
        (folder / labels).mkdir()
    for_each(write, work, n_processes, "labels")


def link_test_files(dataset: RawDataset, folder: Path, final: Path) -> None:
    """Link the source's test images and labels into a variant that is built in ``folder`` and becomes ``final``.

    Those that lie there already, such as censored labels, stay.
    """
    for path in dataset.test_files():
        link = folder / path
        if link.exists():
            continue
        link.parent.mkdir(exist_ok=True)
        link_file(link, dataset.folder / path, final)


def write_dataset_files(
    dataset: RawDataset,
    training: Sequence[Case],
    folder: Path,
    final: Path,
    *,
    keep_splits: bool = True,
    labels: dict[str, Any] | None = None,
) -> None:
    """Write the dataset.json of a variant, which references the source's images, and copy what tells its patients.

    Args:
        dataset: the source.
        training: those of its cases that the variant has, with their labels in ``labelsTr``.
        folder: where the variant is built.
        final: where it will lie.
        keep_splits: copy the source's splits_final.json, if it has one.
        labels: the variant's ``labels`` of dataset.json; None: the source's.
    """
    content = {key: value for key, value in dataset.json.items() if key != "dataset"}
    if labels is not None:
        content["labels"] = labels
    content["numTraining"] = len(training)
    content["dataset"] = {
        case.name: {
            "images": [reference(image, final) for image in case.images],
            "label": f"labelsTr/{case.name}{dataset.file_ending}",
        }
        for case in training
    }
    write_json(folder / "dataset.json", content)
    splits, patients = dataset.folder / "splits_final.json", dataset.folder / CASES_FILE
    if patients.is_file():
        shutil.copyfile(patients, folder / patients.name)
    if splits.is_file() and keep_splits:
        shutil.copyfile(splits, folder / splits.name)


def _write_lesions_csv(path: Path, plan: CensoringPlan) -> None:
    with_contrast = plan.choice.mode == "contrast"
    measures = ["volume_mm3", "diameter_mm", *(["contrast"] if with_contrast else [])]
    rows = (
        [
            *(row.case, row.id, *(f"{getattr(row, name):.9g}" for name in measures)),
            "censored" if row.key in plan.censored else "kept",
        ]
        for row in plan.table
    )
    write_table(path, ["case", "id", *measures, "status"], rows)


def _read_label(case: Case) -> Image:
    assert case.label is not None, "training_cases() gives labels"
    return read_image(case.label)
