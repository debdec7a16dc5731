"""How many candidates are missed lesions, from the reading of a random sample of them: pure numerics.

Candidates are divided into strata by diameter and by the probability that a model gives them. A few of every stratum
are drawn at random and read. What the reading says of a stratum's sample holds for the stratum on average, whatever
the model is worth: a good model makes the interval short, a bad one makes it long, and neither makes it wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.strata import diameter_bin, diameter_bounds

# Two readings of a stratum are the least from which its spread can be told.
LEAST_PER_STRATUM = 2
# A stratum is divided only where about this many readings fall on each part: with fewer, variances are guesses.
_READINGS_PER_STRATUM = 4
# A model may be wrong: no stratum is taken to be surer than this before anybody has read it.
_SUREST = 0.05


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Candidates among which a random sample is drawn.

    Attributes:
        lower_mm: diameters from here.
        upper_mm: to below here; None: no limit.
        lowest: least probability among them, within [0, 1].
        highest: greatest probability among them.
        members: their indices, (N,).
        sampled: those that were drawn, (n,), of :attr:`members`.
    """

    lower_mm: float
    upper_mm: float | None
    lowest: float
    highest: float
    members: NDArray[np.int64]
    sampled: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        range_mm: tuple[float, float | None],
        probability: NDArray[np.float64],
        *,
        members: NDArray[np.int64],
        sampled: NDArray[np.int64],
    ) -> Stratum:
        """With the bounds of its members' probabilities, which are those of all candidates, (N,)."""
        own = probability[members]
        return cls(
            lower_mm=range_mm[0],
            upper_mm=range_mm[1],
            lowest=float(own.min(initial=1)),
            highest=float(own.max(initial=0)),
            members=members,
            sampled=sampled,
        )

    @property
    def weight(self) -> float:
        """How many candidates each sampled one stands for."""
        return len(self.members) / len(self.sampled)


def all_sampled(strata: Sequence[Stratum]) -> NDArray[np.int64]:
    """The candidates to read, stratum by stratum, (n,); none without strata."""
    return np.concatenate([np.zeros(0, np.int64), *(s.sampled for s in strata)])


def probability_by_rank(n: int) -> NDArray[np.float64]:
    """Stand-ins for probabilities, from near 1 to near 0 in equal steps: where an order is known and nothing else.

    Example:
        >>> probability_by_rank(4).tolist()
        [0.875, 0.625, 0.375, 0.125]
    """
    steps: NDArray[np.float64] = 1 - (np.arange(n) + 0.5) / max(n, 1)
    return steps


def draw_sample(
    probability: NDArray[np.float64], diameter_mm: NDArray[np.float64], edges_mm: Sequence[float], n: int, seed: int = 0
) -> tuple[Stratum, ...]:
    """Strata of all candidates, and the sample of each.

    Within each range of diameters the strata are cut so that the sum of sqrt(p (1 - p)) is about equal in all
    (Dalenius and Hodges 1959). Readings go where they say most: to a stratum of N candidates of mean probability p in
    proportion to N sqrt(p (1 - p)) (Neyman 1934), at least two each.

    Args:
        probability: of being a missed lesion, by a model, within [0, 1]; (N,).
        diameter_mm: of each candidate, (N,).
        edges_mm: inner edges of the ranges of diameters, ascending.
        n: readings, at least 2; all candidates are drawn where there are not more.
        seed: of the draw.

    Raises:
        ValueError: there is no candidate, or ``n`` is below 2.

    Example:
        >>> p, diameter = np.linspace(0, 1, 100), np.full(100, 5.0)
        >>> strata = draw_sample(p, diameter, (3, 10), n=8)
        >>> [(len(s.members), len(s.sampled)) for s in strata]
        [(50, 4), (50, 4)]
    """
    if n < LEAST_PER_STRATUM or not len(probability):
        raise ValueError(f"expected candidates and at least {LEAST_PER_STRATUM} readings, got {len(probability)}, {n}")
    doubted = np.clip(probability, _SUREST, 1 - _SUREST)
    spread = np.sqrt(doubted * (1 - doubted))
    groups = _strata(probability, spread, _ranges(diameter_mm, edges_mm, n), n)
    sizes = allocation([len(members) for _, _, members in groups], [spread[m].mean() for _, _, m in groups], n)
    random = np.random.default_rng(seed)
    return tuple(
        Stratum.of(
            (lower, upper), probability, members=members, sampled=np.sort(random.choice(members, size, replace=False))
        )
        for (lower, upper, members), size in zip(groups, sizes, strict=True)
    )


_Range = tuple[float, "float | None", NDArray[np.int64]]


def _ranges(diameter_mm: NDArray[np.float64], edges_mm: Sequence[float], n: int) -> list[_Range]:
    """Ranges of diameters with their candidates; one that holds few is joined with the next larger."""
    of_bin = diameter_bin(diameter_mm, edges_mm)
    ranges: list[_Range] = []
    lower: float | None = None
    waiting: NDArray[np.int64] = np.zeros(0, np.int64)
    for i, (low, upper) in enumerate(diameter_bounds(edges_mm)):
        waiting = np.concatenate([waiting, np.flatnonzero(of_bin == i)])
        lower = low if lower is None else lower
        # Of n readings a range should get its share of four at least.
        if len(waiting) * n >= _READINGS_PER_STRATUM * len(diameter_mm) and len(waiting) >= _READINGS_PER_STRATUM:
            ranges.append((lower, upper, waiting))
            lower, waiting = None, np.zeros(0, np.int64)
    if len(waiting) and ranges:  # the largest diameters, too few for themselves
        low, _, members = ranges.pop()
        ranges.append((low, None, np.concatenate([members, waiting])))
    elif len(waiting) or not ranges:
        ranges.append((0.0, None, waiting))
    # The last range has no end, whatever the last range with candidates was.
    low, _, members = ranges.pop()
    return [*ranges, (low, None, members)]


def _strata(
    probability: NDArray[np.float64], spread: NDArray[np.float64], ranges: Sequence[_Range], n: int
) -> list[_Range]:
    """Every range cut by probability into strata of about equal spread."""
    total = sum(float(spread[members].sum()) for _, _, members in ranges)
    strata: list[_Range] = []
    for lower, upper, members in ranges:
        ordered = members[np.argsort(probability[members], kind="stable")]
        cumulated = np.cumsum(spread[ordered])
        n_parts = max(1, int(n * cumulated[-1] / total / _READINGS_PER_STRATUM + 1e-9))
        part = np.minimum((cumulated / cumulated[-1] * n_parts - 1e-9).astype(np.int64), n_parts - 1)
        # Equal probabilities stay together: what cannot be told apart is one stratum.
        _, first, inverse = np.unique(probability[ordered], return_index=True, return_inverse=True)
        part = part[first][inverse.reshape(-1)]
        strata += [(lower, upper, np.sort(ordered[part == i])) for i in np.unique(part)]
    return strata


def allocation(n_candidates: Sequence[int], spread: Sequence[float], n: int) -> list[int]:
    """Readings of each stratum, of ``n`` in all, for the least variance of the estimated total.

    Args:
        n_candidates: of each stratum.
        spread: standard deviation of a reading in each.
        n: readings.

    Returns:
        In proportion to candidates times spread, at least two (or all) and at most all; they add up to ``n`` where the
        bounds allow it.

    Source:
        Neyman (1934), Journal of the Royal Statistical Society 97:558-625.

    Example:
        >>> allocation([100, 100, 3], [0.5, 0.1, 0.3], 20), allocation([5, 4], [0.5, 0.5], 20)
        ([15, 3, 2], [5, 4])
    """
    most = np.asarray(n_candidates, np.int64)
    sizes = np.minimum(most, LEAST_PER_STRATUM)
    want = most * np.asarray(spread, np.float64)
    # One reading at a time to where it lowers the variance most: want^2 / (n (n + 1)) less. Exact, bounds and all.
    while sizes.sum() < min(n, most.sum()):
        gain = np.where(sizes < most, want**2 / (sizes * (sizes + 1.0)), -1.0)
        sizes[int(np.argmax(gain))] += 1
    return [int(size) for size in sizes]


@dataclass(frozen=True, kw_only=True)
class Total:
    """An estimated number of missed lesions among candidates.

    Attributes:
        n_candidates: among how many.
        n_read: how many of these were read.
        missed: the estimate, within [0, ``n_candidates``].
        low, high: its 95% interval; what was read bounds it.
    """

    n_candidates: int
    n_read: int
    missed: float
    low: float
    high: float


def estimate_total(strata: Sequence[Stratum], reading: NDArray[np.float64]) -> Total:
    """How many of the candidates of these strata are missed lesions, with an interval of the design.

    The estimate is the sum over strata of candidates times the mean reading; it is unbiased however the model ranked.
    Its variance is that of stratified sampling without replacement; where all readings of a stratum are alike, half a
    reading of either kind is added to the sample for its variance alone, as a sample of three that are no lesions does
    not prove that none of a hundred is. The interval is Student's with Satterthwaite's degrees of freedom.

    Args:
        strata: some or all of :func:`draw_sample`.
        reading: of every candidate of the audit, (N,): 1 a lesion, 0 none, between the two where a reader was unsure;
            only the sampled ones are looked at.

    Raises:
        ValueError: a sampled candidate has no reading (NaN).

    Source:
        Cochran (1977), Sampling Techniques, 3rd ed., eq. 5.6, 5.12 and 5.16.

    Example:
        >>> strata = draw_sample(np.linspace(0, 1, 100), np.full(100, 5.0), (3, 10), n=8)
        >>> reading = (np.arange(100) >= 60).astype(float)  # the forty most probable are lesions
        >>> total = estimate_total(strata, reading)
        >>> total.n_candidates, total.n_read, total.low < 40 < total.high
        (100, 8, True)
    """
    values = [reading[s.sampled] for s in strata]
    if any(np.isnan(v).any() for v in values):
        raise ValueError("every sampled candidate needs a reading")
    n, size = (np.array([len(x) for x in sets], np.float64) for sets in (values, [s.members for s in strata]))
    missed = float(sum(w * v.mean() for w, v in zip(size, values, strict=True)))
    half = half_width(stratified_variances(strata, [reading_variance(v) for v in values]), n)
    found, others = (sum(float(v.sum()) for v in sets) for sets in (values, [1 - v for v in values]))
    return Total(
        n_candidates=int(size.sum()),
        n_read=int(n.sum()),
        missed=missed,
        low=max(found, missed - half),
        high=min(float(size.sum()) - others, missed + half),
    )


def stratified_variances(strata: Sequence[Stratum], variances: Sequence[float]) -> NDArray[np.float64]:
    """Each stratum's part in the variance of the estimated sum of a value over all candidates, (strata,).

    Args:
        strata: which were sampled without replacement.
        variances: of the value among the sampled candidates of each.
    """
    n = np.array([len(s.sampled) for s in strata], np.float64)
    size = np.array([len(s.members) for s in strata], np.float64)
    parts: NDArray[np.float64] = size**2 * (1 - n / size) * np.asarray(variances) / n
    return parts


def half_width(variances: NDArray[np.float64], n: NDArray[np.float64]) -> float:
    """Half of a 95% interval of a sum, from the variance of each stratum's part and its number of readings.

    Satterthwaite's degrees of freedom weigh the strata by what they contribute.

    Example:
        >>> round(half_width(np.array([4.0]), np.array([5.0])), 3)  # 2 times Student's 2.776
        5.553
    """
    from scipy.stats import t

    total = float(variances.sum())
    if not total:
        return 0.0
    freedom = total**2 / float((variances**2 / np.maximum(n - 1, 1)).sum())
    return float(t.ppf(0.975, freedom)) * float(np.sqrt(total))


def reading_variance(values: NDArray[np.float64]) -> float:
    """Of the readings of a stratum; equal ones have a variance, too.

    Example:
        >>> reading_variance(np.array([1.0, 0.0])), reading_variance(np.zeros(3))  # half a reading of 4, times 3 / 2
        (0.5, 0.1640625)
    """
    n = len(values)
    own = float(values.var(ddof=1)) if n > 1 else 0.0
    if own:
        return own
    # Agresti and Coull's idea, with half a reading of each kind.
    share = (float(values.sum()) + 0.5) / (n + 1)
    return share * (1 - share) * n / max(n - 1, 1)
