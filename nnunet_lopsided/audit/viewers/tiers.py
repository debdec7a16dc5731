"""Candidates sorted into three tiers, so that a viewer can colour them by how probable they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nnunet_lopsided.audit.ranking import WITHIN_1
from nnunet_lopsided.audit.stored import StoredAudit, StoredCandidate


class Tier(NamedTuple):
    """One of three; the colour, red, green and blue from 0 to 255, is told apart by the colour-blind too."""

    name: str
    colour: tuple[int, int, int]


TIERS = (Tier("likely", (213, 94, 0)), Tier("possible", (240, 200, 60)), Tier("unlikely", (86, 180, 233)))
# Least scores of the first two, where scores are probabilities.
_LEAST = (0.5, 0.1)


def tiers_of(audit: StoredAudit, shown: Sequence[StoredCandidate]) -> dict[tuple[str, int], Tier]:
    """The tier of each candidate: by its score where that is a probability, else by thirds of the ranks.

    Args:
        audit: whose.
        shown: the candidates, the best first.
    """
    if audit.record.ranked_by in WITHIN_1 and all(c.score is not None for c in shown):
        return {c.key: TIERS[sum((c.score or 0) < least for least in _LEAST)] for c in shown}
    return {c.key: TIERS[3 * i // len(shown)] for i, c in enumerate(shown)}
