"""What the lesions of a dataset are like, as nnU-Net's fingerprint says what its images are like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import read_image
from nnunet_lopsided.nnunet.dataset_json import label_scheme, read_dataset_json
from nnunet_lopsided.nnunet.label_values import check_label_values
from nnunet_lopsided.nnunet.lesion_labels import label_lesions
from nnunet_lopsided.nnunet.paths import names_of_dataset
from nnunet_lopsided.nnunet.raw import raw_dataset
from nnunet_lopsided.nnunet.results import label_maps

FILE = "lesion_fingerprint.json"
PERCENTILES = (5, 10, 25, 50, 75, 90, 95)


class LesionsPerCase(TypedDict):
    """None without a case."""

    mean: float | None
    median: float | None
    max: int | None


class LesionFingerprint(TypedDict):
    """The content of lesion_fingerprint.json, see :func:`lesion_fingerprint`."""

    n_cases: int
    n_lesions: int
    n_cases_without_lesions: int
    lesions_per_case: LesionsPerCase
    diameter_mm_percentiles: dict[str, float] | None
    foreground_prior: float | None


def lesion_fingerprint(
    diameters_mm: Sequence[Sequence[float]], n_lesion_voxels: int, n_voxels: int
) -> LesionFingerprint:
    """Counts, sizes and the foreground prior.

    Args:
        diameters_mm: for every case the diameters of its lesions, of the sphere (2D: circle) of equal volume.
        n_lesion_voxels: voxels of all lesions together.
        n_voxels: annotated voxels of all cases together, ignored ones left out.

    Returns:
        ``n_cases``, ``n_lesions``, ``n_cases_without_lesions``, ``lesions_per_case`` (``mean``, ``median``, ``max``),
        ``diameter_mm_percentiles`` ({"5": ..., ..., "95": ...}; null without lesions) and ``foreground_prior``.

    Example:
        >>> fingerprint = lesion_fingerprint([[2.0, 4.0, 9.0], []], n_lesion_voxels=50, n_voxels=10_000)
        >>> fingerprint["lesions_per_case"], fingerprint["diameter_mm_percentiles"]["50"]
        ({'mean': 1.5, 'median': 1.5, 'max': 3}, 4.0)
    """
    counts = [len(case) for case in diameters_mm]
    diameters = [d for case in diameters_mm for d in case]
    percentiles = None
    if diameters:
        values = np.percentile(diameters, PERCENTILES).tolist()
        percentiles = {str(p): round(v, 4) for p, v in zip(PERCENTILES, values, strict=True)}
    return {
        "n_cases": len(counts),
        "n_lesions": len(diameters),
        "n_cases_without_lesions": counts.count(0),
        "lesions_per_case": {
            "mean": round(float(np.mean(counts)), 4) if counts else None,
            "median": float(np.median(counts)) if counts else None,
            "max": max(counts, default=None),
        },
        "diameter_mm_percentiles": percentiles,
        "foreground_prior": n_lesion_voxels / n_voxels if n_voxels else None,
    }


def measure_lesions(folder: Path, n_workers: int = 2) -> LesionFingerprint:
    """The lesion fingerprint of a dataset that nnU-Net has planned or preprocessed.

    Lesions are the 26-connected (2D: 8-connected) components of all label values but background and ignore, in the
    original labels of the training cases.

    Args:
        folder: the dataset's folder below ``nnUNet_preprocessed``. Labels are taken from its ``gt_segmentations``, or
            from the raw dataset of the same name where that is missing or holds TIFF, which have no voxel size there.
        n_workers: labels read at the same time.

    Raises:
        InputError: there are no labels, one is unreadable, or holds a value that dataset.json does not declare.
    """
    scheme = label_scheme(read_dataset_json(folder / "dataset.json"), folder / "dataset.json")
    labels = _labels_of(folder)

    def measure(item: tuple[str, Path]) -> tuple[list[float], int, int]:
        case, path = item
        try:
            label = read_image(path)
        except InputError as error:
            raise InputError(f"case {case}: {error}") from error
        check_label_values(scheme, case, path, label.array)
        lesions = label_lesions(label, scheme.ignore)
        # Nobody has said what ignored voxels are, so they are no background to the prior.
        n_ignored = 0 if scheme.ignore is None else int((label.array == scheme.ignore).sum())
        return lesions.diameter_mm.tolist(), len(lesions.voxels), label.array.size - n_ignored

    rows = for_each(measure, list(labels.items()), n_workers, "lesions")
    return lesion_fingerprint([row[0] for row in rows], sum(row[1] for row in rows), sum(row[2] for row in rows))


def _labels_of(folder: Path) -> dict[str, Path]:
    """The label map of every training case of a preprocessed dataset."""
    ground_truth = folder / "gt_segmentations"
    labels = label_maps(ground_truth) if ground_truth.is_dir() else {}
    # nnU-Net copies CASE.tif there without the CASE.json that says how large a voxel is.
    lack_spacing = any(path.suffix.lower() in (".tif", ".tiff") for path in labels.values())
    if labels and not (lack_spacing and names_of_dataset(folder.name, ("nnUNet_raw",))):
        return labels
    return {case.name: case.label for case in raw_dataset(folder.name).training_cases() if case.label is not None}
