"""Tables of lesions, candidates and cases that the reader sorts and filters."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.pages.html import sortable_table

# Beyond this a page opens slowly; the CSV files have every row.
MAX_ROWS = 2000


def lesion_table(cases: Sequence[CaseResult]) -> str:
    """Every reference lesion, the missed ones first, then the largest; at most :data:`MAX_ROWS`."""
    found = [
        (not missed, -diameter, i, k)
        for i, case in enumerate(cases)
        for k, (missed, diameter) in enumerate(zip(case.missed, case.lesions.diameter_mm, strict=True))
    ]
    rows, kinds = [], []
    for _, _, i, k in sorted(found)[:MAX_ROWS]:
        case = cases[i]
        kinds.append("missed" if case.missed[k] else "detected" if case.detected[k] else "not counted")
        rows.append(
            (
                escape(case.case),
                str(k + 1),
                kinds[-1],
                f"{case.lesions.diameter_mm[k]:.1f}",
                _number(case.lesion_confidence[k] if case.ranked else np.nan),
                _number(case.matches.dice[k]),
                _number(case.mean_probability[k]),
                _voxel(case.lesions.centroid[k]),
            )
        )
    header = ("case", "lesion", "outcome", "diameter, mm", "confidence", "Dice", "mean probability", _axes(cases))
    return sortable_table("lesions", header, rows, (1, 3, 4, 5, 6), kinds) + left_out(
        len(found), "missed and large ones", "lesions.csv"
    )


def candidate_table(cases: Sequence[CaseResult]) -> str:
    """Every candidate that is no true positive; beyond :data:`MAX_ROWS` the most confident."""
    names = {Status.FALSE_POSITIVE: "false positive", Status.DUPLICATE: "duplicate", Status.IGNORED: "not counted"}
    found = [
        (-case.confidence[k], -case.candidates.n_voxels[k], i, k)
        for i, case in enumerate(cases)
        for k in np.flatnonzero(case.matches.status != Status.TRUE_POSITIVE).tolist()
    ]
    rows, kinds = [], []
    for _, _, i, k in sorted(found)[:MAX_ROWS]:
        case = cases[i]
        kinds.append(names[Status(case.matches.status[k])])
        rows.append(
            (
                escape(case.case),
                str(k + 1),
                kinds[-1],
                f"{case.candidates.diameter_mm[k]:.1f}",
                _number(case.shown_confidence[k]),
                str(int(case.matches.overlap_voxels[k])),
                _voxel(case.candidates.centroid[k]),
            )
        )
    header = ("case", "candidate", "kind", "diameter, mm", "confidence", "voxels in lesions", _axes(cases))
    return sortable_table("candidates", header, rows, (1, 3, 4, 5), kinds) + left_out(
        len(found), "most confident ones", "candidates.csv"
    )


def case_table(cases: Sequence[CaseResult]) -> str:
    """What was found in every case."""
    rows = [
        (
            escape(case.case),
            *map(str, (int((case.detected | case.missed).sum()), int(case.detected.sum()), int(case.missed.sum()))),
            *(str(case.count(status)) for status in (Status.FALSE_POSITIVE, Status.DUPLICATE)),
        )
        for case in cases[:MAX_ROWS]
    ]
    header = ("case", "lesions", "detected", "missed", "false positives", "duplicates")
    return sortable_table("cases", header, rows, (1, 2, 3, 4, 5)) + left_out(len(cases), "first ones", "cases.csv")


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _axes(cases: Sequence[CaseResult]) -> str:
    return "voxel (x, y)" if cases[0].lesions.centroid.shape[1] == 2 else "voxel (x, y, z)"


def _voxel(centroid: Any) -> str:
    """The centroid in the order of viewers, from 0; some of these count from 1."""
    return ", ".join(f"{c:.0f}" for c in centroid[::-1])


def left_out(n: int, which: str, file: str) -> str:
    """Says that a table of ``n`` rows was cut, which rows it has, and where all are; nothing where it was not."""
    return f'<p class="why">{MAX_ROWS} of {n} rows, the {which}; {file} has all.</p>' if n > MAX_ROWS else ""
