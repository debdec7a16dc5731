"""Missed lesions that candidates cover nevertheless: to the eye they are found, by the rule they are not."""

from __future__ import annotations

from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.matching import Status

_WHY = {
    Status.TRUE_POSITIVE: "counts for another lesion",
    Status.DUPLICATE: "counts for another lesion",
    Status.FALSE_POSITIVE: "lies with its centroid too far from every lesion",
    Status.IGNORED: "matches only a lesion that is too small to count",
}


def why_missed(case: CaseResult, lesion: int) -> str:
    """Why the candidate under which a missed lesion lies does not detect it; empty where there is none.

    Args:
        case: with its candidates.
        lesion: its number from 0.
    """
    covering = int(case.covered_by[lesion])
    if not covering:
        return ""
    n_touched = int(case.matches.lesions_touched[covering - 1])
    merges = f"merges {n_touched} lesions and " if n_touched > 1 else ""
    reason = _WHY[Status(case.matches.status[covering - 1])]
    return f"covered to {100 * case.covered_share[lesion]:.0f}%; candidate {covering} {merges}{reason}"
