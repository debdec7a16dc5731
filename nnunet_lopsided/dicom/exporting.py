"""A folder of label maps as DICOM SEG files, each for the series that it belongs to, with reports if wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from nnunet_lopsided.dicom.reports import ReportedLesion, write_report
from nnunet_lopsided.dicom.segmentations import write_segmentation
from nnunet_lopsided.dicom.series import Series, series_of
from nnunet_lopsided.dicom.studies import Study, studies_of
from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.images import Header, Image, difference, read_image
from nnunet_lopsided.lesions import Lesions, find_lesions
from nnunet_lopsided.nnunet.dataset_json import label_scheme, read_dataset_json
from nnunet_lopsided.nnunet.patients import sources_of
from nnunet_lopsided.nnunet.results import find_dataset_json, label_maps

REPORT = "_report.dcm"  # behind the name of a case
# By the name of a case and its lesions: the mean probability of each; None: there are no probabilities.
MeanProbabilities: TypeAlias = Callable[[str, Lesions], Sequence[float] | None]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        written: DICOM SEG files.
        reports: structured reports.
        empty: cases without anything labelled, which have no file.
        without_probabilities: cases whose report has none.
        n_segments: in all files.
    """

    written: tuple[Path, ...]
    reports: tuple[Path, ...]
    empty: tuple[str, ...]
    without_probabilities: tuple[str, ...]
    n_segments: int


@dataclass(frozen=True, kw_only=True)
class _Content:
    """What is to be written of a case."""

    series: Series
    names: dict[int, str]
    lesions: list[ReportedLesion]


def export_label_maps(
    labels: Path,
    dicom: Path,
    output: Path,
    *,
    one: bool = False,
    description: str = "nnunet-lopsided",
    mean_probabilities: MeanProbabilities | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a DICOM SEG for each label map, and a structured report beside it if wanted.

    What dataset.json, in the folder or above it, calls ignore is no lesion.

    Args:
        labels: folder of ``CASE.nii.gz``; ``cases.csv`` of the dataset whose labels they are may name their studies.
        dicom: any folder above the DICOM files.
        output: where ``CASE.dcm``, and ``CASE_report.dcm``, go; made if it is missing.
        one: one segment for each value, not one for each lesion (26-connected component).
        description: of the new series.
        mean_probabilities: of the lesions, for reports; None: there are no reports.
        overwrite: replace files that are there.

    Raises:
        InputErrors: label maps have no series, or more than one they may belong to, or cannot be read, or
            probabilities do not fit; nothing is written then.
        InputError: a folder is missing, a file is there already or two would have one name, or reports are wanted of
            values.
    """
    if one and mean_probabilities is not None:
        raise InputError("a report is of lesions, not of values of the label map: --report or --one, not both")
    maps = label_maps(labels)
    if not maps:
        raise InputError(f"no label maps in {labels}")
    _check_files(maps, output, mean_probabilities is not None, overwrite)
    studies = studies_below(dicom)
    ignore, sources = _ignore_label(labels), sources_of(labels.absolute().parent)
    problems: list[str] = []
    contents: dict[str, _Content] = {}
    for case, path in maps.items():
        try:
            label = read_image(path)
            series = series_for(case, label, studies, sources.get(case, ""))
            _, names, lesions = _segments(label, one, ignore)
            reported = [] if mean_probabilities is None else _reported(case, lesions, mean_probabilities)
            contents[case] = _Content(series=series, names=names, lesions=reported)
        except InputError as error:
            said = str(error)
            problems.append(said if said.startswith(f"case {case}: ") else f"case {case}: {said}")
    if problems:
        raise InputErrors(problems)
    output.mkdir(parents=True, exist_ok=True)
    full = {case: content for case, content in contents.items() if content.names}
    for case, content in full.items():
        image, names, _ = _segments(read_image(maps[case]), one, ignore)
        write_segmentation(output / f"{case}.dcm", image, content.series, names, description)
        if mean_probabilities is not None:
            path = output / f"{case}{REPORT}"
            write_report(path, output / f"{case}.dcm", content.series, content.lesions, description)
    reported_cases = [] if mean_probabilities is None else list(full)
    return Exported(
        written=tuple(output / f"{case}.dcm" for case in full),
        reports=tuple(output / f"{case}{REPORT}" for case in reported_cases),
        empty=tuple(case for case in contents if case not in full),
        without_probabilities=tuple(c for c in reported_cases if full[c].lesions[0].mean_probability is None),
        n_segments=sum(len(content.names) for content in full.values()),
    )


def _check_files(cases: Iterable[str], output: Path, reports: bool, overwrite: bool) -> None:
    """Refuse files that are there already, and a report that would have the name of another case's segmentation."""
    segmentations = {f"{case}.dcm": case for case in cases}
    names = [*segmentations, *(f"{case}{REPORT}" for case in cases if reports)]
    twin = next((name for name in names[len(segmentations) :] if name in segmentations), None)
    if twin is not None:
        raise InputError(f"{output / twin} would be a report and the segmentation of case {segmentations[twin]}")
    there = [name for name in names if (output / name).exists()]
    if there and not overwrite:
        raise InputError(f"{output / there[0]} exists; --overwrite replaces it")


def _ignore_label(labels: Path) -> int | None:
    path = find_dataset_json(labels, labels)
    return None if path is None else label_scheme(read_dataset_json(path), path).ignore


def _reported(case: str, lesions: Lesions, mean_probabilities: MeanProbabilities) -> list[ReportedLesion]:
    means = mean_probabilities(case, lesions) if len(lesions) else None
    sizes = zip(lesions.volume_mm3.tolist(), lesions.diameter_mm.tolist(), strict=True)
    return [
        ReportedLesion(
            volume_mm3=volume, diameter_mm=diameter, mean_probability=None if means is None else float(means[i])
        )
        for i, (volume, diameter) in enumerate(sizes)
    ]


def studies_below(folder: Path) -> list[Study]:
    """The studies of the DICOM files below a folder.

    Raises:
        InputError: it is missing, pydicom is not installed, or see :func:`~nnunet_lopsided.dicom.studies.studies_of`.
    """
    if not folder.is_dir():
        raise InputError(f"folder not found: {folder} (--series)")
    found, _ = series_of(sorted(path for path in folder.rglob("*") if path.is_file()))
    return studies_of(found)


def series_for(case: str, label: Image | Header, studies: Sequence[Study], study_uid: str = "") -> Series:
    """The first series on a label map's grid in the study of a case.

    Args:
        case: its name, as lopsided-convert dicom gives it.
        label: its label map, or what lies on its grid.
        studies: to choose from.
        study_uid: of the study that the case was converted from, which counts before its name; empty: not known.

    Returns:
        The series of the study of this UID or name; where there is none, of the only study with a series that fits.

    Raises:
        InputError: there is none, or several studies have one.
    """
    named = [study for study in studies if study_uid and study.series[0].study == study_uid]
    named = named or [study for study in studies if study.case == case]
    fitting = [(study, series) for study in named or studies for series in study.series if _fits(series, label)]
    where = f"the study of {case}" if named else "any study"
    if not fitting:
        raise InputError(f"no series of {where} lies on the grid of its label map (--series)")
    if len({study.case for study, _ in fitting}) > 1:
        cases = ", ".join(sorted({study.case for study, _ in fitting}))
        raise InputError(
            f"no study has its name, and those of {cases} have series on the same grid: rename the label map, "
            "or give the study's UID in cases.csv of the dataset (column source)"
        )
    return fitting[0][1]


def _fits(series: Series, label: Image | Header) -> bool:
    if series.is_segmentation:
        return False
    try:
        return difference(series.header(), label) is None
    except InputError:  # no stack of slices: a localizer
        return False


def _segments(label: Image, one: bool, ignore: int | None) -> tuple[Image, dict[int, str], Lesions]:
    """The label map with values 1, 2, ..., what each is called, and the lesions, which without ``one`` they are."""
    array = label.array if ignore is None else np.where(label.array == ignore, 0, label.array)
    lesions = find_lesions(array, label.geometry.spacing_mm)
    if one:
        numbers = np.zeros(label.shape, np.uint16)
        values = [value for value in np.unique(array).tolist() if value != 0]
        for number, value in enumerate(values, 1):
            numbers[array == value] = number
        names = {number: f"label {value:g}" for number, value in enumerate(values, 1)}
    else:
        numbers = lesions.instances().astype(np.uint16)
        names = {n: f"lesion {n} ({diameter:.1f} mm)" for n, diameter in enumerate(lesions.diameter_mm.tolist(), 1)}
    return Image(numbers, label.geometry), names, lesions
