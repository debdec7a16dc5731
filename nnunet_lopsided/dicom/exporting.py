"""A folder of label maps as DICOM SEG files, each for the series that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_lopsided.dicom.segmentations import write_segmentation
from nnunet_lopsided.dicom.series import Series, series_of
from nnunet_lopsided.dicom.studies import Study, studies_of
from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.images import Image, difference, read_image
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.nnunet.results import label_maps


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        written: files.
        empty: cases without anything labelled, which have no file.
        n_segments: in all files.
    """

    written: tuple[Path, ...]
    empty: tuple[str, ...]
    n_segments: int


def export_label_maps(
    labels: Path,
    dicom: Path,
    output: Path,
    *,
    one: bool = False,
    description: str = "nnunet-lopsided",
    overwrite: bool = False,
) -> Exported:
    """Write a DICOM SEG for each label map.

    Args:
        labels: folder of ``CASE.nii.gz``.
        dicom: any folder above the DICOM files.
        output: where ``CASE.dcm`` go; made if it is missing.
        one: one segment for each value, not one for each lesion (26-connected component).
        description: of the new series.
        overwrite: replace files that are there.

    Raises:
        InputErrors: label maps have no series, or more than one they may belong to, or cannot be read; nothing is
            written then.
        InputError: a folder is missing, or a file is there already.
    """
    maps = label_maps(labels)
    if not maps:
        raise InputError(f"no label maps in {labels}")
    if not dicom.is_dir():
        raise InputError(f"folder not found: {dicom} (--series)")
    there = [name for name in maps if (output / f"{name}.dcm").exists()]
    if there and not overwrite:
        raise InputError(f"{output / there[0]}.dcm exists; --overwrite replaces it")
    found, _ = series_of(sorted(path for path in dicom.rglob("*") if path.is_file()))
    studies = studies_of(found)
    problems, chosen = [], {}
    for case, path in maps.items():
        try:
            chosen[case] = _series_of(case, read_image(path), studies)
        except InputError as error:
            problems.append(f"case {case}: {error}")
    if problems:
        raise InputErrors(problems)
    output.mkdir(parents=True, exist_ok=True)
    written, empty, n_segments = [], [], 0
    for case, series in chosen.items():
        image, segments = _segments(read_image(maps[case]), one)
        if not segments:
            empty.append(case)
            continue
        write_segmentation(output / f"{case}.dcm", image, series, segments, description)
        written.append(output / f"{case}.dcm")
        n_segments += len(segments)
    return Exported(written=tuple(written), empty=tuple(empty), n_segments=n_segments)


def _series_of(case: str, label: Image, studies: list[Study]) -> Series:
    """The first series on the label map's grid in the study of this name, or else in the only study that has one."""
    named = [study for study in studies if study.case == case]
    fitting = [(study, series) for study in named or studies for series in study.series if _fits(series, label)]
    where = f"the study of {case}" if named else "any study"
    if not fitting:
        raise InputError(f"no series of {where} lies on the grid of its label map (--series)")
    if len({study.case for study, _ in fitting}) > 1:
        cases = ", ".join(sorted({study.case for study, _ in fitting}))
        raise InputError(
            f"no study has its name, and those of {cases} have series on the same grid: rename the label map"
        )
    return fitting[0][1]


def _fits(series: Series, label: Image) -> bool:
    if series.is_segmentation:
        return False
    try:
        return difference(series.header(), label) is None
    except InputError:  # no stack of slices: a localizer
        return False


def _segments(label: Image, one: bool) -> tuple[Image, dict[int, str]]:
    """The label map with values 1, 2, ... and what each is called."""
    numbers = np.zeros(label.shape, np.uint16)
    if one:
        values = [value for value in np.unique(label.array).tolist() if value != 0]
        for number, value in enumerate(values, 1):
            numbers[label.array == value] = number
        names = {number: f"label {value:g}" for number, value in enumerate(values, 1)}
        return Image(numbers, label.geometry), names
    lesions = find_lesions(label.array, label.geometry.spacing_mm)
    names = {}
    for number, diameter in enumerate(lesions.diameter_mm.tolist(), 1):
        names[number] = f"lesion {number} ({diameter:.1f} mm)"
    numbers[:] = lesions.instances()
    return Image(numbers, label.geometry), names
