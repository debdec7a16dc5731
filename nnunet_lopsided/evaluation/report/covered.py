"""Missed lesions that a candidate covers nevertheless: to the eye they are found, by the rule they are not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.case import CaseResult
from nnunet_lopsided.evaluation.matching import Status

# Of a lesion's voxels, from which a reader says that it was found.
MOSTLY = 0.5
_WHY = {
    Status.TRUE_POSITIVE: "counts for another lesion",
    Status.DUPLICATE: "counts for another lesion",
    Status.FALSE_POSITIVE: "lies with its centroid too far from every lesion",
    Status.IGNORED: "counts for a lesion that is too small to count",
}


def mostly_covered(case: CaseResult) -> NDArray[np.bool_]:
    """Which lesions are missed although one candidate covers at least half of their voxels, (K,)."""
    covered_by, share = _covered(case)
    mostly: NDArray[np.bool_] = case.missed & (covered_by > 0) & (share >= MOSTLY)
    return mostly


def _covered(case: CaseResult) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    n = len(case.lesions)
    return getattr(case, "covered_by", np.zeros(n, np.int64)), getattr(case, "covered_share", np.zeros(n))


def why_missed(case: CaseResult, lesion: int) -> str:
    """Why the candidate that covers a missed lesion does not detect it; empty where none covers any of it.

    Args:
        case: with its candidates.
        lesion: its number from 0.
    """
    covered_by, share = _covered(case)
    covering = int(covered_by[lesion])
    if not covering:
        return ""
    n_touched = int(case.matches.lesions_touched[covering - 1])
    merges = f"merges {n_touched} lesions and " if n_touched > 1 else ""
    reason = _WHY[Status(case.matches.status[covering - 1])]
    return f"covered to {100 * share[lesion]:.0f}% by candidate {covering}, which {merges}{reason}"
