"""How many lesions of which size the annotators missed, told by injected lesions: pure numerics.

The miss rate of :mod:`~nnunet_lopsided.audit.miss_rate` compares candidates with annotated lesions. Where the small
ones were missed, candidates are smaller and less probable than these, and the estimate is too low. Injected lesions are
of every size, so they tell what missed ones of that size look like; but false positives of that size then count, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf, nan, prod

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.miss_rate import (
    LEAST_ANNOTATED,
    NO_INTERVAL,
    Scored,
    mixture_threshold,
    repeated,
    why_no_interval,
)
from nnunet_lopsided.belief import number_reaching
from nnunet_lopsided.evaluation.intervals import Interval, patient_weights, percentile_interval
from nnunet_lopsided.evaluation.strata import diameter_bounds, within_mm

Floats = NDArray[np.float64]

# Below so many lesions above a threshold their share says nothing.
LEAST = LEAST_ANNOTATED
_LEAST_DEFINED = 0.9  # of the replicates of a bootstrap
_CHANCE = 1.3  # standard deviations, by which a count may be off


@dataclass(frozen=True, kw_only=True)
class InjectedLesions:
    """What the networks see of lesions injected into the images of all cases.

    Attributes:
        per_case: how many were to be injected into each; fewer were where there was no room.
        seed: of diameters and places.
        diameter_mm: of every injected lesion, (N,).
        patient: of each, numbered as in :class:`~nnunet_lopsided.audit.miss_rate.Scored`.
        found_mm: of those that a component matches, (F,).
        found_score: highest probability of this component, within [0, 1], (F,).
        found_patient: of each.
    """

    per_case: int
    seed: int
    diameter_mm: Floats
    patient: NDArray[np.int64]
    found_mm: Floats
    found_score: Floats
    found_patient: NDArray[np.int64]

    def drawn(self, weight: NDArray[np.int64]) -> InjectedLesions:
        """Those of a bootstrap replicate that draws patients so often, (patients,)."""
        diameter_mm, patient = repeated(weight[self.patient], self.diameter_mm, self.patient)
        found = repeated(weight[self.found_patient], self.found_mm, self.found_score, self.found_patient)
        return replace(
            self,
            diameter_mm=diameter_mm,
            patient=patient,
            found_mm=found[0],
            found_score=found[1],
            found_patient=found[2],
        )


@dataclass(frozen=True, kw_only=True)
class SizeRange:
    """Injected lesions and the estimate of a range of diameters.

    Attributes:
        lower_mm: diameters from here.
        upper_mm: to below here; None: no limit.
        n_annotated: annotated lesions.
        n_injected: injected lesions.
        n_found: those of them that a component matches.
        by_injected: missed lesions if candidates are compared with injected lesions: false positives count, too. None:
            fewer than 10 of these are found.
        by_highest_scores: missed lesions if the share of them with high probabilities is that of annotated lesions of
            all sizes: too few of the small ones. None: fewer than 10 annotated lesions are found.
        by_annotated: missed lesions if candidates are compared with annotated lesions of the same range. None: fewer
            than 10 of these are found.
        n_missed: the estimate; None: undefined, as where 10 lesions or more were injected and fewer are found, or
            where candidates are like injected lesions, but none scores as high as annotated ones of all sizes.
        seen_interval: 95%, of ``seen``, from a bootstrap over patients.
    """

    lower_mm: float
    upper_mm: float | None
    n_annotated: int
    n_injected: int
    n_found: int
    by_injected: float | None
    by_highest_scores: float | None
    by_annotated: float | None
    n_missed: float | None
    seen_interval: Interval = NO_INTERVAL

    @property
    def seen(self) -> float | None:
        """Share of the lesions that the annotators saw, within [0, 1]; None: undefined, or there are none."""
        if self.n_missed is None or not self.n_annotated + self.n_missed:
            return None
        return self.n_annotated / (self.n_annotated + self.n_missed)

    @property
    def recall(self) -> float | None:
        """Share of the injected lesions that are found, within [0, 1]; None without any."""
        return self.n_found / self.n_injected if self.n_injected else None


@dataclass(frozen=True, kw_only=True)
class MissedBySize:
    """The estimate by injected lesions.

    Attributes:
        per_case, seed: as of :class:`InjectedLesions`.
        n_injected: injected lesions.
        n_annotated: annotated lesions.
        ranges: of diameters, the smallest first.
        undefined: why there is no estimate; empty: there is one.
        interval: 95%, of ``rate``, from a bootstrap over patients.
    """

    per_case: int
    seed: int
    n_injected: int
    n_annotated: int
    ranges: tuple[SizeRange, ...]
    undefined: str = ""
    interval: Interval = NO_INTERVAL

    @property
    def n_missed(self) -> float | None:
        """Missed lesions of the ranges that have an estimate; None: there is none."""
        counts = [r.n_missed for r in self.ranges if r.n_missed is not None]
        return sum(counts) if counts else None

    @property
    def rate(self) -> float | None:
        """Share of all lesions that the annotators missed, within [0, 1]; None: undefined."""
        missed = self.n_missed
        return None if missed is None else missed / (missed + self.n_annotated)

    def withheld(self, reason: str) -> MissedBySize:
        """The same injected lesions without the estimate."""
        ranges = [
            replace(
                r,
                by_injected=None,
                by_highest_scores=None,
                by_annotated=None,
                n_missed=None,
                seen_interval=Interval.without(reason),
            )
            for r in self.ranges
        ]
        return replace(self, ranges=tuple(ranges), undefined=reason, interval=Interval.without(reason))


def tail(known: Floats, n_known: int, unknown: Floats) -> float | None:
    """How many of the unknown components, and of lesions that none shows, are lesions like the known ones, at most.

    Above any threshold the unknown hold at least the lesions among them: the least number of them over the share of the
    known lesions is an upper bound. The threshold is the one at which this is least with chance taken into account.

    Args:
        known: scores of known lesions that are found.
        n_known: known lesions, found or not.
        unknown: scores of components that may be lesions.

    Returns:
        At least 0; None with fewer than 10 known scores.

    Example:
        >>> tail(np.linspace(0.5, 1, 20), 40, np.array([0.1, 0.2, 0.7, 0.8]))
        4.0
    """
    if len(known) < LEAST:
        return None
    thresholds = np.unique(known)
    n, u = (number_reaching(scores, thresholds) for scores in (known, unknown))
    n, u = n[n >= LEAST], u[n >= LEAST]
    # Without chance the few highest scores would decide.
    bound = (u + _CHANCE * np.sqrt(u) + 1) / n * (1 + _CHANCE / np.sqrt(n))
    best = int(np.argmin(bound))
    return float(u[best] / n[best] * n_known)


def estimate_by_size(
    scored: Scored, injected: InjectedLesions, edges_mm: Sequence[float], n_replicates: int = 1000, seed: int = 0
) -> MissedBySize:
    """How many lesions were missed, from the geometric mean of up to three counts of every range of diameters.

    One is too high by the false positives, one too low where small lesions were missed: see :class:`SizeRange`. On
    phantoms whose labels lack nothing, or half of the lesions at random, by size or as readers miss them, the rate was
    within .10 of the true one for 15 of 16 networks (``benchmarks/missed_by_size.py``).

    Args:
        scored: lesions and components of the audit.
        injected: scores of the same kind.
        edges_mm: inner edges of the ranges, ascending.
        n_replicates: of the bootstrap over patients, 0 for none.
        seed: of that bootstrap.

    Returns:
        One range more than there are edges. Without an estimate where fewer than 10 annotated lesions are found, or in
        no range 10 injected ones.
    """
    estimate = _estimated(scored, injected, edges_mm)
    no_interval = why_no_interval(scored.n_patients, n_replicates)
    if no_interval or estimate.undefined:
        reason = Interval.without(estimate.undefined or no_interval or "")
        ranges = tuple(replace(r, seen_interval=reason) for r in estimate.ranges)
        return replace(estimate, ranges=ranges, interval=reason)
    # The rate of a replicate is of the same ranges, so that none comes and goes by chance.
    counted = [r.n_missed is not None for r in estimate.ranges]
    seen = np.full((n_replicates, len(counted)), nan)
    rates = np.full(n_replicates, nan)
    for i, weight in enumerate(patient_weights(scored.n_patients, n_replicates, seed)):
        drawn = _estimated(scored.drawn(weight), injected.drawn(weight), edges_mm)
        seen[i] = [nan if r.seen is None else r.seen for r in drawn.ranges]
        missed = [r.n_missed for r, counts in zip(drawn.ranges, counted, strict=True) if counts]
        if None not in missed:
            n_missed = sum(n for n in missed if n is not None)
            rates[i] = n_missed / max(n_missed + drawn.n_annotated, 1e-9)
    ranges = tuple(
        replace(r, seen_interval=_interval(r.seen, seen[:, i], _n_patients(scored, r)))
        for i, r in enumerate(estimate.ranges)
    )
    interval = _interval(estimate.rate, rates, len(set(scored.found_patient.tolist())))
    return replace(estimate, ranges=ranges, interval=interval)


def _interval(value: float | None, replicates: Floats, n_patients: int) -> Interval:
    if value is None:
        return Interval.without("there is no estimate")
    # Those that are left would be a choice: mostly the ones with many sure candidates.
    if np.isnan(replicates).mean() > 1 - _LEAST_DEFINED:
        return Interval.without("in too many replicates too few lesions are found")
    return percentile_interval(replicates, n_patients)


def _n_patients(scored: Scored, of: SizeRange) -> int:
    """Patients with annotated lesions of a range."""
    return len(set(scored.annotated_patient[within_mm(scored.annotated_mm, of.lower_mm, of.upper_mm)].tolist()))


def rising(ranges: Sequence[SizeRange]) -> list[float | None]:
    """What annotators saw, by range of diameters, taken to rise with the diameter.

    Where a smaller range has a higher share than a larger one, which then is chance, both have their common share
    (isotonic regression; a lesion counts once).

    Args:
        ranges: of :class:`MissedBySize`, the smallest first.

    Returns:
        Of each range, within [0, 1]. Of one without an estimate it is at most that of the next larger one with an
        estimate; None: there is none.

    Example:
        >>> def of(annotated, missed):
        ...     return SizeRange(lower_mm=0, upper_mm=None, n_annotated=annotated, n_injected=0, n_found=0,
        ...         by_injected=None, by_highest_scores=None, by_annotated=None, n_missed=missed)
        >>> rising([of(10, None), of(9, 1.0), of(21, 9.0), of(38, 2.0)])
        [0.75, 0.75, 0.75, 0.95]
    """
    from sklearn.isotonic import isotonic_regression

    known = [(i, r.seen, r.n_annotated + r.n_missed) for i, r in enumerate(ranges) if r.n_missed is not None]
    points = [(i, seen, weight) for i, seen, weight in known if seen is not None]
    curve: list[float | None] = [None] * len(ranges)
    if points:
        fitted = isotonic_regression([seen for _, seen, _ in points], sample_weight=[weight for *_, weight in points])
        for (i, *_), share in zip(points, fitted, strict=True):
            curve[i] = float(share)
    for i in reversed(range(len(ranges) - 1)):
        if curve[i] is None:
            curve[i] = curve[i + 1]
    return curve


def _estimated(scored: Scored, injected: InjectedLesions, edges_mm: Sequence[float]) -> MissedBySize:
    """The estimate without intervals."""
    known, unknown = scored.found_score, scored.candidate_score
    enough = len(known) >= LEAST
    highest = mixture_threshold(known, unknown) if enough else inf
    # Of all annotated lesions, the share that has a component of so high a score.
    share = float((known >= highest).sum()) / len(scored.annotated_mm) if enough else 0.0
    ranges = tuple(
        _range(low, upper, scored=scored, injected=injected, highest=highest, share=share)
        for low, upper in diameter_bounds(edges_mm)
    )
    undefined = ""
    if not enough:
        undefined = f"the models find {len(known)} annotated lesions; at least {LEAST} are needed"
    elif all(r.by_injected is None for r in ranges):
        undefined = f"the models find fewer than {LEAST} injected lesions of every range of diameters"
    elif all(r.n_missed is None or r.by_injected is None for r in ranges):
        undefined = "candidates are like injected lesions, but none is as sure as annotated ones are"
    if undefined:
        ranges = tuple(replace(r, n_missed=None) for r in ranges)
    return MissedBySize(
        per_case=injected.per_case,
        seed=injected.seed,
        n_injected=len(injected.diameter_mm),
        n_annotated=len(scored.annotated_mm),
        ranges=ranges,
        undefined=undefined,
    )


def _range(
    low: float, upper: float | None, *, scored: Scored, injected: InjectedLesions, highest: float, share: float
) -> SizeRange:
    inside = partial(within_mm, lower=low, upper=upper)

    unknown = scored.candidate_score[inside(scored.candidate_mm)]
    n_injected, own = int(inside(injected.diameter_mm).sum()), injected.found_score[inside(injected.found_mm)]
    by_injected = tail(own, n_injected, unknown)
    by_highest = float((unknown >= highest).sum()) / share if share else None
    n_annotated, annotated = int(inside(scored.annotated_mm).sum()), scored.found_score[inside(scored.found_mm)]
    by_annotated = tail(annotated, n_annotated, unknown)
    n_missed = None
    # What the networks hardly see of what was injected they hardly see of missed lesions.
    is_seen = by_injected is not None or n_injected < LEAST
    # Lesions of this size may never score as high as annotated ones do: that none is there says nothing.
    is_blind = by_highest == 0 and by_injected != 0
    if is_seen and not is_blind and by_highest is not None:
        counts = [count for count in (by_injected, by_highest, by_annotated) if count is not None]
        n_missed = prod(counts) ** (1 / len(counts))
    return SizeRange(
        lower_mm=low,
        upper_mm=upper,
        n_annotated=n_annotated,
        n_injected=n_injected,
        n_found=len(own),
        by_injected=by_injected,
        by_highest_scores=by_highest,
        by_annotated=by_annotated,
        n_missed=n_missed,
    )
