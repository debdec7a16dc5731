"""Tables of lesions, candidates and cases that the reader sorts and filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.pages.html import SortableTable

# Beyond this a page opens slowly; the CSV files have every row.
MAX_ROWS = 2000
_KINDS = {Status.FALSE_POSITIVE: "false positive", Status.DUPLICATE: "duplicate", Status.IGNORED: "not counted"}


def shown_names(cases: Sequence[str], anonymous: bool) -> dict[str, str]:
    """How a page names its cases: as they are called, or by their number from 1.

    Example:
        >>> shown_names(["mets_007", "mets_011"], anonymous=True)
        {'mets_007': 'case 1', 'mets_011': 'case 2'}
    """
    return {case: f"case {i}" if anonymous else case for i, case in enumerate(cases, 1)}


def lesion_table(cases: Sequence[CaseResult], names: Mapping[str, str]) -> SortableTable:
    """Every reference lesion, the missed ones first, then the largest; at most :data:`MAX_ROWS`.

    Args:
        cases: with their lesions.
        names: of the cases on the page, by their own.
    """
    # Sorted as tuples: missed first, then by size, then in the order of the tables, so that pages are always the same.
    order = [
        (not missed, -diameter, i, k)
        for i, case in enumerate(cases)
        for k, (missed, diameter) in enumerate(zip(case.missed, case.lesions.diameter_mm, strict=True))
    ]
    rows, kinds = [], []
    with_surface = all(case.surface is not None for case in cases)
    for _, _, i, k in sorted(order)[:MAX_ROWS]:
        case = cases[i]
        surface = () if case.surface is None else (case.surface.hd95_mm[k], case.surface.nsd[k])
        kinds.append("missed" if case.missed[k] else "detected" if case.detected[k] else "not counted")
        confidence = case.lesion_confidence[k] if case.ranked else np.nan
        rows.append(
            (
                names[case.case],
                str(k + 1),
                kinds[-1],
                f"{case.lesions.diameter_mm[k]:.1f}",
                *map(_number, (confidence, case.matches.dice[k], case.mean_probability[k], *surface)),
                _voxel(case.lesions.centroid[k]),
            )
        )
    surface_columns = ("HD95, mm", "NSD") if with_surface else ()
    numbers = ("diameter, mm", "confidence", "Dice", "mean probability", *surface_columns)
    header = ("case", "lesion", "outcome", *numbers, _axes(cases))
    right = (1, *range(3, 3 + len(numbers)))
    note = left_out(len(order), "missed and large ones", "lesions.csv")
    return SortableTable(name="lesions", header=header, rows=rows, right=right, kinds=kinds, note=note)


def candidate_table(cases: Sequence[CaseResult], names: Mapping[str, str]) -> SortableTable:
    """Every candidate that is no true positive; beyond :data:`MAX_ROWS` the most confident.

    Arguments as of :func:`lesion_table`.
    """
    order = [
        (-case.confidence[k], -case.candidates.n_voxels[k], i, k)
        for i, case in enumerate(cases)
        for k in np.flatnonzero(case.matches.status != Status.TRUE_POSITIVE).tolist()
    ]
    rows, kinds = [], []
    for _, _, i, k in sorted(order)[:MAX_ROWS]:
        case = cases[i]
        kinds.append(_KINDS[Status(case.matches.status[k])])
        rows.append(
            (
                names[case.case],
                str(k + 1),
                kinds[-1],
                f"{case.candidates.diameter_mm[k]:.1f}",
                _number(case.shown_confidence[k]),
                str(int(case.matches.overlap_voxels[k])),
                _voxel(case.candidates.centroid[k]),
            )
        )
    header = ("case", "candidate", "kind", "diameter, mm", "confidence", "voxels in lesions", _axes(cases))
    note = left_out(len(order), "most confident ones", "candidates.csv")
    return SortableTable(name="candidates", header=header, rows=rows, right=(1, 3, 4, 5), kinds=kinds, note=note)


def case_table(cases: Sequence[CaseResult], names: Mapping[str, str]) -> SortableTable:
    """How many lesions were found, missed and invented in every case. Arguments as of :func:`lesion_table`."""
    rows = []
    for case in cases[:MAX_ROWS]:
        lesions = case.n_lesions, int(case.detected.sum()), int(case.missed.sum())
        candidates = case.count(Status.FALSE_POSITIVE), case.count(Status.DUPLICATE)
        rows.append((names[case.case], *map(str, (*lesions, *candidates))))
    header = ("case", "lesions", "detected", "missed", "false positives", "duplicates")
    note = left_out(len(cases), "first ones", "cases.csv")
    return SortableTable(name="cases", header=header, rows=rows, right=(1, 2, 3, 4, 5), note=note)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _axes(cases: Sequence[CaseResult]) -> str:
    return "voxel (x, y)" if cases[0].lesions.centroid.shape[1] == 2 else "voxel (x, y, z)"


def _voxel(centroid: NDArray[np.float64]) -> str:
    """The centroid in the order of viewers, from 0; some of these count from 1."""
    return ", ".join(f"{c:.0f}" for c in centroid[::-1])


def left_out(n: int, which: str, file: str) -> str:
    """Says that a table of ``n`` rows was cut, which rows it has, and where all are; nothing where it was not."""
    return f"{MAX_ROWS} of {n} rows, the {which}; {file} has all." if n > MAX_ROWS else ""
