"""Zones of candidates as decisions, for the one writer of repaired labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.decisions import CandidateKey, Decisions, Verdict
from nnunet_lopsided.audit.recalibration import Zones
from nnunet_lopsided.audit.stored import StoredCandidate


def zone_names(zones: Zones) -> list[str]:
    """``accepted``, ``doubtful`` or ``background``, of every candidate.

    Example:
        >>> from nnunet_lopsided.audit.recalibration import zones
        >>> zone_names(zones(np.array([0.9, 0.5, 0.1]), (), np.full(3, np.nan), precision=0.8))
        ['accepted', 'doubtful', 'background']
    """
    names = np.where(zones.accepted, "accepted", np.where(zones.doubtful, "doubtful", "background"))
    return [str(name) for name in names]


def zone_decisions(
    candidates: Sequence[StoredCandidate],
    probability: NDArray[np.float64],
    zones: Zones,
    read: Decisions,
    origin: Mapping[str, object],
) -> Decisions:
    """Accept what is accepted, be unsure of what is doubtful, decide as the reader on what was read, leave the rest.

    Args:
        candidates: (N,) of one audit.
        probability: of being a missed lesion, (N,).
        zones: of these.
        read: what a reader decided; without verdicts where nobody did.
        origin: who decided, for the record.
    """
    verdicts: dict[CandidateKey, Verdict] = {}
    remarks: dict[CandidateKey, Mapping[str, str]] = {}
    for candidate, zone, p in zip(candidates, zone_names(zones), probability, strict=True):
        key = candidate.key
        if key in read.verdicts:
            verdicts[key] = read.verdicts[key]
            remarks[key] = dict(read.remarks.get(key, {}))
        elif zone != "background":
            verdicts[key] = "accept" if zone == "accepted" else "unsure"
            remarks[key] = {"comment": f"by its probability, {p:.2f}: nobody has read it"}
    return Decisions(read.audit, verdicts, origin, remarks)
