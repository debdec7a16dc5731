"""How good a ranking of candidates is when the missed lesions are known: pure numerics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.curves import average_precision, operating_points


@dataclass(frozen=True)
class Reviewed:
    """What a reader has after the first ``n`` candidates.

    Attributes:
        n: candidates looked at; as many as there are, where there are fewer.
        precision: share of them that lie on a missed lesion; None for none.
        share_found: share of the missed lesions that they lie on; None without any.
    """

    n: int
    precision: float | None
    share_found: float | None


@dataclass(frozen=True, kw_only=True)
class RankingScore:
    """A ranking against the truth.

    Attributes:
        name: of the ranking.
        n_candidates: ranked.
        n_missed: missed lesions, those without any candidate included.
        n_hits: candidates on a missed lesion.
        average_precision: area under precision against the share found, by steps; further candidates of a lesion that
            was found are left out. None without missed lesions or for a random order.
        precision: after every number of candidates from 1, (n_candidates,).
        share_found: of the missed lesions, after every number of candidates, (n_candidates,).
    """

    name: str
    n_candidates: int
    n_missed: int
    n_hits: int
    average_precision: float | None
    precision: NDArray[np.float64]
    share_found: NDArray[np.float64]

    def after(self, n: int) -> Reviewed:
        """After the first ``n`` candidates."""
        n = min(n, self.n_candidates)
        if not n:
            return Reviewed(0, None, 0.0 if self.n_missed else None)
        return Reviewed(n, float(self.precision[n - 1]), float(self.share_found[n - 1]) if self.n_missed else None)


def score_ranking(name: str, lesion: NDArray[np.int64], score: NDArray[np.float64], n_missed: int) -> RankingScore:
    """Score a ranking.

    Args:
        name: of it.
        lesion: number of the missed lesion each candidate lies on, 0 for none, in the order of the ranking.
        score: of each, descending.
        n_missed: missed lesions.

    Example:
        >>> score = score_ranking("", np.array([2, 0, 2, 1]), np.array([0.9, 0.8, 0.7, 0.6]), n_missed=4)
        >>> score.precision.round(2).tolist(), score.share_found.tolist()
        ([1.0, 0.5, 0.67, 0.75], [0.25, 0.25, 0.25, 0.5])
    """
    hit = lesion > 0
    first = np.zeros(len(lesion), bool)
    # unique() gives where each lesion comes first; 0, which is none, is taken out again.
    first[np.unique(lesion, return_index=True)[1]] = True
    first &= hit
    n = np.arange(1, len(lesion) + 1)
    points = operating_points(
        lesion_confidence=score[first],
        true_confidence=score[first],
        false_confidence=score[~hit],
        n_lesions=n_missed,
        # It changes nothing but false positives per case, which are not used.
        n_cases=1,
    )
    return RankingScore(
        name=name,
        n_candidates=len(lesion),
        n_missed=n_missed,
        n_hits=int(hit.sum()),
        average_precision=average_precision(points),
        precision=np.cumsum(hit) / n,
        share_found=np.cumsum(first) / max(n_missed, 1),
    )


def random_order(lesion: NDArray[np.int64], n_missed: int) -> RankingScore:
    """What is to be expected of the same candidates in random order.

    A lesion with k of N candidates is found by the first n with probability 1 - C(N - k, n) / C(N, n).

    Example:
        >>> random_order(np.array([1, 0]), n_missed=1).share_found.tolist()
        [0.5, 1.0]
    """
    n_candidates = len(lesion)
    _, per_lesion = np.unique(lesion[lesion > 0], return_counts=True)
    n = np.arange(1, n_candidates + 1)
    n_found = np.zeros(n_candidates)
    for k in np.unique(per_lesion).tolist():
        # C(N - k, n) / C(N, n) as a product of k factors, so that nothing overflows.
        missed = np.ones(n_candidates)
        for i in range(k):
            missed *= np.maximum(n_candidates - n - i, 0) / (n_candidates - i)
        n_found += (per_lesion == k).sum() * (1 - missed)
    hits = int((lesion > 0).sum())
    share = hits / n_candidates if n_candidates else 0.0
    return RankingScore(
        name="random order",
        n_candidates=n_candidates,
        n_missed=n_missed,
        n_hits=hits,
        average_precision=None,
        precision=np.full(n_candidates, share),
        share_found=n_found / max(n_missed, 1),
    )


def reviewed_numbers(n_missed: int) -> Sequence[int]:
    """After how many candidates a ranking is read: 10, 50, 100, once and twice as many as there are missed lesions."""
    return sorted({10, 50, 100, n_missed, 2 * n_missed} - {0})
