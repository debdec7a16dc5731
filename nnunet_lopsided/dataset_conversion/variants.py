"""Variants of a raw nnU-Net dataset: the same images with other labels."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from nnunet_lopsided import __version__
from nnunet_lopsided.dataset_conversion.censoring import LesionRow, check_rate, choose_lesions
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Image, import_readers, read_image, write_image
from nnunet_lopsided.lesions import Lesions, find_lesions
from nnunet_lopsided.nnunet_layout import (
    Case,
    RawDataset,
    new_dataset_name,
    new_raw_dataset,
    nnunet_path,
    plain_name,
    raw_dataset,
    reference,
    write_json,
)

CENSORING_FILE = "censoring.json"
LESIONS_FILE = "censored_lesions.csv"

_T = TypeVar("_T")


@dataclass(frozen=True)
class CensoredVariant:
    """What :func:`write_censored_variant` made."""

    folder: Path
    n_lesions: int
    n_censored: int


def lesion_table(dataset: RawDataset, n_processes: int = 2) -> list[LesionRow]:
    """Every lesion of the training labels, by case name and component id.

    A lesion is a 26-connected (2D: 8-connected) component of the union of all labels but background and ignore.

    Args:
        dataset: a dataset with training labels.
        n_processes: how many label files are read at the same time.

    Returns:
        One row per lesion; cases without a lesion have none.

    Raises:
        InputError: a label is missing or unreadable.
    """

    def rows(case: Case) -> list[LesionRow]:
        lesions = label_lesions(_read_label(case), dataset.ignore_label)
        sizes = zip(lesions.n_voxels.tolist(), lesions.volume_mm3.tolist(), lesions.diameter_mm.tolist(), strict=True)
        return [LesionRow(case.name, i, *size) for i, size in enumerate(sizes, 1)]

    return [row for found in _for_each(rows, dataset.training_cases(), n_processes, "lesions") for row in found]


def label_lesions(label: Image, ignore_label: int | None) -> Lesions:
    """The lesions of one label map: components of what is neither background (0) nor ``ignore_label``."""
    foreground = label.array != 0
    if ignore_label is not None:
        foreground &= label.array != ignore_label
    return find_lesions(foreground, label.geometry.spacing_mm)


def censor_label(label: Image, ignore_label: int | None, ids: Sequence[int]) -> Image:
    """The label map with the lesions of these component ids set to background; dtype and geometry stay.

    Example:
        >>> import numpy as np
        >>> from nnunet_lopsided.images import Geometry
        >>> label = Image(np.array([[1, 1, 0, 2]], np.uint8), Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0)))
        >>> censor_label(label, ignore_label=None, ids=[1]).array.tolist()
        [[0, 0, 0, 2]]
    """
    array = label.array.copy()
    array.reshape(-1)[label_lesions(label, ignore_label).select(ids)] = 0
    return Image(array, label.geometry)


def write_censored_variant(
    source: int | str,
    output_id: int,
    mode: str,
    rate: float,
    seed: int = 0,
    *,
    name: str | None = None,
    overwrite: bool = False,
    n_processes: int = 2,
) -> CensoredVariant:
    """Write a dataset whose training labels lack some of the source's lesions.

    The same call gives the same bytes in every file, wherever it writes. The folder appears only when complete.
    Training images are referenced by dataset.json, test images and labels by symbolic links; test labels stay whole.

    Args:
        source: id or folder name of a dataset below nnUNet_raw; it may itself be a variant.
        output_id: id of the variant, 1 to 999, not in use below any nnU-Net path.
        mode: "stochastic" or "size", see :func:`~nnunet_lopsided.dataset_conversion.censoring.choose_lesions`.
        rate: fraction of lesions to delete, within [0, 1].
        seed: for "stochastic".
        name: folder name after ``DatasetXXX_``; default: the source's name followed by ``Censored``.
        overwrite: replace an earlier variant of the same id and name.
        n_processes: how many label files are worked on at the same time.

    Returns:
        The folder, and how many lesions there were and how many went.

    Raises:
        InputError: an argument is out of range, the source is missing, broken or has no lesions, or the output id is
            in use.
    """
    check_rate(rate)
    if n_processes < 1:
        raise InputError(f"number of processes must be at least 1, got {n_processes}")
    dataset = raw_dataset(source)
    match = re.fullmatch(r"Dataset(\d{3})_(.+)", dataset.name)
    if match is None:
        raise InputError(f"source must be a folder named DatasetXXX_NAME, got {dataset.name}")
    if int(match[1]) == output_id:
        raise InputError(f"output id {output_id} is the id of the source, {dataset.name}")
    name = name or plain_name(f"{match[2]}Censored")
    final = nnunet_path("nnUNet_raw") / new_dataset_name(output_id, name)

    with new_raw_dataset(output_id, name, marker=CENSORING_FILE, overwrite=overwrite) as folder:
        table = lesion_table(dataset, n_processes)
        if not table:
            raise InputError(f"{dataset.name}: the training labels hold no lesion, so there is nothing to censor")
        censored = choose_lesions(table, mode, rate, seed)
        _write_labels(dataset, censored, folder / "labelsTr", n_processes)
        _link_test_files(dataset, folder, final)
        _write_dataset_json(dataset, folder, final)
        _write_lesions_csv(folder / LESIONS_FILE, table, censored)
        write_json(
            folder / CENSORING_FILE,
            {
                "tool": "nnunet-lopsided",
                "version": __version__,
                "source_dataset": dataset.name,
                "mode": mode,
                "rate": rate,
                "seed": seed,
                "n_lesions": len(table),
                "n_censored": len(censored),
                "realised_fraction": len(censored) / len(table),
            },
        )
    return CensoredVariant(final, len(table), len(censored))


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
    name = plain_name(re.sub(r"^Dataset\d{3}_", "", dataset.name))
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


def _write_labels(dataset: RawDataset, censored: Iterable[tuple[str, int]], folder: Path, n_processes: int) -> None:
    ids: dict[str, list[int]] = {}
    for case_name, lesion_id in censored:
        ids.setdefault(case_name, []).append(lesion_id)

    def write(case: Case) -> None:
        label = censor_label(_read_label(case), dataset.ignore_label, ids.get(case.name, []))
        write_image(folder / (case.name + dataset.file_ending), label)

    folder.mkdir()
    _for_each(write, dataset.training_cases(), n_processes, "labels")


def _link_test_files(dataset: RawDataset, folder: Path, final: Path) -> None:
    # Links are followed by the system, not by name: both ends must be real paths.
    root = final.parent.resolve()
    for path in dataset.test_files():
        link = folder / path
        link.parent.mkdir(exist_ok=True)
        target = (dataset.folder / path).resolve()
        # One level below the dataset folder, hence one more step up for relative targets.
        text = reference(target, root / final.name)
        link.symlink_to(text if Path(text).is_absolute() else Path("..") / text)


def _write_dataset_json(dataset: RawDataset, folder: Path, final: Path) -> None:
    cases = dataset.training_cases()
    content = {key: value for key, value in dataset.json.items() if key != "dataset"}
    content["numTraining"] = len(cases)
    content["dataset"] = {
        case.name: {
            "images": [reference(image, final) for image in case.images],
            "label": f"labelsTr/{case.name}{dataset.file_ending}",
        }
        for case in cases
    }
    write_json(folder / "dataset.json", content)
    splits = dataset.folder / "splits_final.json"
    if splits.is_file():
        shutil.copyfile(splits, folder / splits.name)


def _write_lesions_csv(path: Path, table: Iterable[LesionRow], censored: frozenset[tuple[str, int]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "id", "volume_mm3", "diameter_mm", "status"])
        for row in table:
            status = "censored" if row.key in censored else "kept"
            writer.writerow([row.case, row.id, f"{row.volume_mm3:.9g}", f"{row.diameter_mm:.9g}", status])


def _read_label(case: Case) -> Image:
    assert case.label is not None, "training_cases() gives labels"
    return read_image(case.label)


def _for_each(function: Callable[[Case], _T], cases: Sequence[Case], n_workers: int, title: str) -> list[_T]:
    # Threads: reading, writing and labelling release the interpreter lock, and an interrupt leaves no process behind.
    import_readers()
    pool = ThreadPoolExecutor(n_workers)
    try:
        return list(tqdm(pool.map(function, cases), total=len(cases), desc=title, unit="case", disable=None))
    finally:
        pool.shutdown(cancel_futures=True)
