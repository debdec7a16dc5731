"""How often one human reader misses a lesion of a given size: measured rates, to imitate with.

Source:
    Contours of 1,018 chest CTs read by four radiologists each (LIDC-IDRI, CC BY 3.0; Armato et al. 2011), clustered to
    2,651 nodules. A rate is the fraction of readings in which one reader did not contour a nodule that at least two of
    the other three contoured; the interval is Wilson's, 95%. Diameters are those of the sphere of equal volume.

Caveats:
    Chest CT, not brain MR. A "miss" includes a reader's judgement "below 3 mm" or "not a nodule", so it is disagreement
    that leans high. The readings were the second, unblinded pass. Nodules below 3 mm were not contoured and larger ones
    than 30 mm are not in the data: the nearest bin is used for both, which is an extrapolation.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, kw_only=True)
class MissRate:
    """How often readers missed nodules of one size.

    Attributes:
        low_mm: smallest diameter of the bin, inclusive.
        high_mm: end of the bin, exclusive.
        n_readings: readings of nodules that at least two of the other three readers contoured.
        n_misses: how many of these readings lack the nodule.
        ci95: 95% interval of the rate.
    """

    low_mm: float
    high_mm: float
    n_readings: int
    n_misses: int
    ci95: tuple[float, float]

    @property
    def rate(self) -> float:
        """Misses per reading."""
        return self.n_misses / self.n_readings


# Counts, so that rates and intervals can be checked; the same rows stand in docs/reference/censoring.md.
MISS_RATES = (
    MissRate(low_mm=3, high_mm=4, n_readings=90, n_misses=50, ci95=(0.453, 0.654)),
    MissRate(low_mm=4, high_mm=6, n_readings=1796, n_misses=667, ci95=(0.349, 0.394)),
    MissRate(low_mm=6, high_mm=8, n_readings=1906, n_misses=424, ci95=(0.204, 0.242)),
    MissRate(low_mm=8, high_mm=10, n_readings=954, n_misses=143, ci95=(0.129, 0.174)),
    MissRate(low_mm=10, high_mm=15, n_readings=944, n_misses=79, ci95=(0.068, 0.103)),
    MissRate(low_mm=15, high_mm=30, n_readings=812, n_misses=86, ci95=(0.087, 0.129)),
)


def miss_rate(diameter_mm: float) -> float:
    """The rate at which one reader misses a lesion of this diameter; outside 3 to 30 mm that of the nearest bin.

    Example:
        >>> [round(miss_rate(d), 4) for d in (1.0, 3.0, 4.0, 5.99, 9.0, 200.0)]
        [0.5556, 0.5556, 0.3714, 0.3714, 0.1499, 0.1059]
    """
    bin_index = bisect_right([bin_.low_mm for bin_ in MISS_RATES], diameter_mm) - 1
    return MISS_RATES[max(bin_index, 0)].rate


def scaled_to_mean(rates: Sequence[float], mean: float) -> list[float]:
    """Probabilities ``min(1, k * rate)`` with the one factor k that gives them this mean.

    Every probability grows with ``mean``, without exception by rounding.

    Args:
        rates: numbers in (0, 1].
        mean: the wanted mean, within [0, 1].

    Example:
        >>> scaled_to_mean([0.5, 0.25], 0.75)
        [1.0, 0.5]
        >>> scaled_to_mean([0.5, 0.25], 0.1875)
        [0.25, 0.125]
    """
    # In fractions: a float factor could be rounded down where the mean grows, and a lesion that goes at one rate would
    # stay at a higher one.
    exact = [Fraction(rate) for rate in rates]
    uncapped, missing, factor = sum(exact, Fraction(0)), Fraction(mean) * len(exact), Fraction(0)
    # The highest are capped first, so one pass from above finds all that are.
    for rate in sorted(exact, reverse=True):
        factor = missing / uncapped
        if factor * rate <= 1:
            break
        # This one, and all before it, have probability 1; the others make up the rest.
        uncapped, missing = uncapped - rate, missing - 1
    return [float(min(Fraction(1), factor * rate)) for rate in exact]
