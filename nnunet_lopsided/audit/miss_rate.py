"""How many lesions the annotators missed: pure numerics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.intervals import (
    LEAST_REPLICATES,
    Interval,
    patient_weights,
    percentile_interval,
    why_no_bootstrap,
)
from nnunet_lopsided.evaluation.strata import diameter_bounds, within_mm

# Below so many annotated lesions that the models find, a share of them says nothing.
LEAST_ANNOTATED = 10
_CONFIDENCE = 0.1  # of the bound that chooses the threshold, Garg et al.'s delta
_SLACK = 0.01  # their gamma
NO_INTERVAL = Interval.without("")


@dataclass(frozen=True, kw_only=True)
class MissRate:
    """The estimate for all lesions, or for those of a range of diameters.

    Attributes:
        lower_mm: diameters from here.
        upper_mm: to below here; None: no limit.
        n_annotated: annotated lesions.
        n_found: those of them that a component matches.
        n_candidates: unexplained components.
        missed_share: estimated share of the candidates that are missed lesions, within [0, 1]; None: undefined.
        rate: estimated share of all lesions that the annotators missed, within [0, 1]; None: undefined.
        n_missed: estimated number of missed lesions, those that the models do not find included; None: undefined.
        interval: 95%, of ``rate``, from a bootstrap over patients.
        undefined: why there is no estimate; empty where there is one.
    """

    lower_mm: float = 0.0
    upper_mm: float | None = None
    n_annotated: int
    n_found: int
    n_candidates: int
    missed_share: float | None = None
    rate: float | None = None
    n_missed: float | None = None
    interval: Interval = NO_INTERVAL
    undefined: str = ""

    def withheld(self, reason: str) -> MissRate:
        """The same counts without the estimate."""
        return replace(
            self, missed_share=None, rate=None, n_missed=None, interval=Interval.without(reason), undefined=reason
        )


def mixture_share(
    positive: NDArray[np.float64],
    unknown: NDArray[np.float64],
    positive_weight: NDArray[np.float64] | None = None,
    unknown_weight: NDArray[np.float64] | None = None,
) -> float:
    """The share of positives among examples of which nothing is known, from a score.

    If the unknown are positives and others, and their positives score like the known ones, then above any threshold
    the unknown hold at least as large a share of themselves as their positives do: the ratio of both shares bounds
    the share of positives from above, and is equal to it where no others score as high. The threshold is the one with
    the least upper confidence bound of that ratio.

    Args:
        positive: scores of known positives, at least one.
        unknown: scores of the others.
        positive_weight: how often each counts; None: once.
        unknown_weight: likewise.

    Returns:
        Within [0, 1]; 0 without unknown examples.

    Source:
        "Best bin estimation", Garg et al. (2021), Mixture proportion estimation and PU learning: a modern approach.

    Example:
        >>> known = np.linspace(0.5, 1, 1000)
        >>> round(mixture_share(known, np.concatenate([known, np.linspace(0, 0.6, 1000)])), 1)
        0.5
    """
    weights = [
        np.ones(len(scores)) if given is None else given
        for scores, given in ((positive, positive_weight), (unknown, unknown_weight))
    ]
    totals = [float(w.sum()) for w in weights]
    if not totals[0] or not totals[1]:
        return 0.0
    _, above = _shares_above((positive, unknown), weights)
    best = _best_bin(above, totals)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Without the slack, which chose the threshold: with it the estimate would be too high in small data sets.
        return float(min(1.0, above[1][best] / above[0][best]))


def mixture_threshold(positive: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """The score from which on :func:`mixture_share` compares both; the lowest positive one without unknown examples.

    Args:
        positive: scores of known positives, at least one.
        unknown: scores of the others.

    Example:
        >>> known = np.linspace(0.5, 1, 1000)
        >>> round(mixture_threshold(known, np.concatenate([known, np.linspace(0, 0.6, 1000)])), 1)
        0.6
    """
    if not len(unknown):
        return float(positive.min())
    thresholds, above = _shares_above((positive, unknown), [np.ones(len(positive)), np.ones(len(unknown))])
    return float(thresholds[_best_bin(above, [len(positive), len(unknown)])])


def _shares_above(
    scores: Sequence[NDArray[np.float64]], weights: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Thresholds, and the share of the positive, then of the unknown examples that reach each."""
    # Between two scores of positives the share of these does not change, and that of the unknown only falls, so the
    # ratio is least at a score of a positive.
    thresholds = np.unique(scores[0])
    return thresholds, [_above(s, w, thresholds) / float(w.sum()) for s, w in zip(scores, weights, strict=True)]


def _best_bin(above: Sequence[NDArray[np.float64]], totals: Sequence[float]) -> int:
    """The threshold with the least upper confidence bound of the ratio of both shares."""
    # How far both shares may be off by chance, as in Garg et al.: without it the few highest scores would decide.
    slack = (1 + _SLACK) * sum(sqrt(log(4 / _CONFIDENCE) / (2 * n)) for n in totals)
    with np.errstate(divide="ignore", invalid="ignore"):
        return int(np.argmin(np.where(above[0] > 0, (above[1] + slack) / above[0], inf)))


def _above(
    scores: NDArray[np.float64], weight: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Total weight of the scores that reach each threshold."""
    order = np.argsort(scores)
    cumulated = np.concatenate([[0.0], np.cumsum(weight[order])])
    return np.asarray(cumulated[-1] - cumulated[np.searchsorted(scores[order], thresholds, side="left")])


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What the estimate needs of lesions and components; patients are numbered from 0.

    Attributes:
        annotated_mm: diameter of every annotated lesion.
        annotated_patient: of each.
        found_mm: diameter of every annotated lesion that a component matches.
        found_score: of the component.
        found_patient: of each.
        candidate_mm: diameter of every unexplained component.
        candidate_score: of each.
        candidate_patient: of each.
        n_patients: patients, those without lesions included.
    """

    annotated_mm: NDArray[np.float64]
    annotated_patient: NDArray[np.int64]
    found_mm: NDArray[np.float64]
    found_score: NDArray[np.float64]
    found_patient: NDArray[np.int64]
    candidate_mm: NDArray[np.float64]
    candidate_score: NDArray[np.float64]
    candidate_patient: NDArray[np.int64]
    n_patients: int

    def drawn(self, weight: NDArray[np.int64]) -> Scored:
        """Those of a bootstrap replicate that draws patients so often, (patients,)."""
        annotated = repeated(weight[self.annotated_patient], self.annotated_mm, self.annotated_patient)
        found = repeated(weight[self.found_patient], self.found_mm, self.found_score, self.found_patient)
        of_candidates = self.candidate_mm, self.candidate_score, self.candidate_patient
        candidates = repeated(weight[self.candidate_patient], *of_candidates)
        return replace(
            self,
            annotated_mm=annotated[0],
            annotated_patient=annotated[1],
            found_mm=found[0],
            found_score=found[1],
            found_patient=found[2],
            candidate_mm=candidates[0],
            candidate_score=candidates[1],
            candidate_patient=candidates[2],
        )


def repeated(times: NDArray[np.int64], *columns: NDArray[np.generic]) -> list[NDArray[Any]]:
    """The rows of a table, given as columns, so often each."""
    return [np.repeat(column, times) for column in columns]


def why_no_interval(n_patients: int, n_replicates: int) -> str | None:
    """The reason why a rate has no bootstrap interval; None: it has one."""
    reason = why_no_bootstrap(n_patients, n_replicates)
    if not reason and n_replicates < LEAST_REPLICATES:
        reason = (
            f"with {n_replicates} replicates the ends of an interval are chance; at least {LEAST_REPLICATES} are needed"
        )
    return reason


def estimate_miss_rates(
    scored: Scored, edges_mm: Sequence[float], n_replicates: int = 1000, seed: int = 0
) -> tuple[MissRate, ...]:
    """The miss rate of the whole data set, then by diameter.

    With a share of s missed lesions among u candidates and f annotated lesions found, the rate is su / (su + f), which
    takes the models to find missed lesions as often as annotated ones. In each range of diameters the share is
    estimated anew from the annotated lesions of that range, so it may differ between them.

    Args:
        scored: lesions and components.
        edges_mm: inner edges of the diameters' ranges, ascending.
        n_replicates: of the bootstrap, 0 for none.
        seed: of the bootstrap.

    Returns:
        One for all diameters, then one per range.
    """
    ranges = [(0.0, None), *diameter_bounds(edges_mm)]
    no_bootstrap = why_no_interval(scored.n_patients, n_replicates)
    weights = None if no_bootstrap else patient_weights(scored.n_patients, n_replicates, seed).astype(np.float64)
    return tuple(_estimate(scored, low, upper, weights=weights, no_bootstrap=no_bootstrap) for low, upper in ranges)


def outside_estimate(rates: Sequence[MissRate]) -> tuple[int, float] | None:
    """Candidates of diameters that are hardly annotated, which the miss rate of the whole data set may not count.

    Where annotators missed all lesions below some size, the small candidates are judged by larger lesions, to which
    the models give higher probabilities.

    Args:
        rates: of :func:`estimate_miss_rates`.

    Returns:
        The number of candidates in ranges of diameters without an estimate, and the miss rate if all of them are
        missed lesions, within [0, 1]; None if there are no such candidates.

    Example:
        >>> def of(annotated, candidates, missed):
        ...     return MissRate(n_annotated=annotated, n_found=annotated, n_candidates=candidates, n_missed=missed)
        >>> outside_estimate([of(40, 70, 20.0), of(0, 50, None), of(40, 20, 10.0)])
        (50, 0.6)
    """
    whole, *ranges = rates
    n = sum(rate.n_candidates for rate in ranges if rate.n_missed is None)
    missed = n + sum(rate.n_missed or 0.0 for rate in ranges)
    return (n, missed / (missed + whole.n_annotated)) if n else None


def _estimate(
    scored: Scored,
    low: float,
    upper: float | None,
    *,
    weights: NDArray[np.float64] | None,
    no_bootstrap: str | None,
) -> MissRate:
    annotated, found_by_models, candidate = (
        within_mm(diameter, low, upper) for diameter in (scored.annotated_mm, scored.found_mm, scored.candidate_mm)
    )
    n_annotated, n_found, n_candidates = int(annotated.sum()), int(found_by_models.sum()), int(candidate.sum())
    if n_found < LEAST_ANNOTATED:
        reason = (
            f"the models find {n_found} annotated lesions of these diameters; at least {LEAST_ANNOTATED} are needed"
        )
        return MissRate(
            lower_mm=low,
            upper_mm=upper,
            n_annotated=n_annotated,
            n_found=n_found,
            n_candidates=n_candidates,
            interval=Interval.without(reason),
            undefined=reason,
        )
    scores = scored.found_score[found_by_models], scored.candidate_score[candidate]
    patients = scored.found_patient[found_by_models], scored.candidate_patient[candidate]
    share = mixture_share(*scores)
    rate = _rate(share, n_candidates, n_found)
    interval = Interval.without(no_bootstrap or "") if weights is None else _interval(scores, patients, weights)
    # Of all annotated lesions, not of those found: the models fail to find missed lesions as often as annotated ones.
    n_missed = n_annotated * rate / (1 - rate)
    return MissRate(
        lower_mm=low,
        upper_mm=upper,
        n_annotated=n_annotated,
        n_found=n_found,
        n_candidates=n_candidates,
        missed_share=share,
        rate=rate,
        n_missed=n_missed,
        interval=interval,
    )


def _interval(
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    patients: tuple[NDArray[np.int64], NDArray[np.int64]],
    weights: NDArray[np.float64],
) -> Interval:
    """Of the rate, by how often each replicate draws each patient; scores and patients of found lesions come first."""
    replicates = np.full(len(weights), np.nan)
    for i, weight in enumerate(weights):
        drawn = weight[patients[0]], weight[patients[1]]
        if drawn[0].sum() >= 1:  # a replicate may draw no patient with a found lesion
            of_all = mixture_share(*scores, *drawn)
            replicates[i] = _rate(of_all, float(drawn[1].sum()), float(drawn[0].sum()))
    return percentile_interval(replicates, len(set(patients[0].tolist())))


def _rate(share: float, n_candidates: float, n_found: float) -> float:
    return share * n_candidates / (share * n_candidates + n_found)
