"""Candidates as a DICOM SEG with a structured report, for the series that their case was converted from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_lopsided.audit.stored import StoredCandidate
from nnunet_lopsided.audit.viewers.slicer import name_of
from nnunet_lopsided.dicom.exporting import REPORT, series_for, studies_below
from nnunet_lopsided.dicom.reports import ReportedLesion, write_report
from nnunet_lopsided.dicom.segmentations import write_segmentation
from nnunet_lopsided.dicom.series import Series
from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.images import Image, read_header
from nnunet_lopsided.lesions import equivalent_diameter_mm
from nnunet_lopsided.nnunet.patients import sources_of
from nnunet_lopsided.nnunet.raw import Case, RawDataset


def series_of_cases(dataset: RawDataset, cases: Sequence[Case], dicom: Path) -> dict[str, Series]:
    """The series of each case, by its name: on the grid of its label map, in the study it was converted from.

    Args:
        dataset: of the cases; its ``cases.csv`` names the studies where lopsided-convert dicom has written it.
        cases: with labels.
        dicom: any folder above the DICOM files.

    Raises:
        InputError: the folder is missing or pydicom is not installed.
        InputErrors: cases have no series, or several studies may be theirs.
    """
    studies, sources = studies_below(dicom), sources_of(dataset.folder)
    found: dict[str, Series] = {}
    problems = []
    for case in cases:
        assert case.label is not None, "training_cases() gives labels"
        try:
            found[case.name] = series_for(case.name, read_header(case.label), studies, sources.get(case.name, ""))
        except InputError as error:
            problems.append(f"case {case.name}: {error}")
    if problems:
        raise InputErrors(problems)
    return found


def write_dicom(folder: Path, case: str, numbers: Image, candidates: Sequence[StoredCandidate], series: Series) -> None:
    """Write ``CASE.dcm``, a segment for each candidate, and ``CASE_report.dcm``.

    Args:
        folder: where.
        case: its name.
        numbers: the label map of these candidates' numbers.
        candidates: those to write, in the order of the segments.
        series: on whose grid they lie.
    """
    segment_of = np.zeros(int(numbers.array.max()) + 1, np.uint16)
    segment_of[[candidate.number for candidate in candidates]] = np.arange(1, len(candidates) + 1)
    segments = segment_of[numbers.array]
    n_voxels = np.bincount(segments.reshape(-1), minlength=len(candidates) + 1)[1:]
    volumes = n_voxels * np.float64(np.prod(numbers.geometry.spacing_mm))
    diameters = equivalent_diameter_mm(volumes, 3)
    lesions = [
        ReportedLesion(volume_mm3=volume, diameter_mm=diameter, mean_probability=c.mean_probability)
        for c, volume, diameter in zip(candidates, volumes.tolist(), diameters.tolist(), strict=True)
    ]
    names = {value: name_of(candidate) for value, candidate in enumerate(candidates, 1)}
    description = "nnunet-lopsided candidates"
    write_segmentation(folder / f"{case}.dcm", Image(segments, numbers.geometry), series, names, description)
    write_report(folder / f"{case}{REPORT}", folder / f"{case}.dcm", series, lesions, description)
