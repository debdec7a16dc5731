"""95% intervals: Hanley-McNeil, Newcombe, Wilson, and a bootstrap over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError

# The 97.5th percentile of the normal distribution, written out so that nobody has to import SciPy for it.
Z95 = 1.959963984540054
# With fewer patients no bootstrap interval is given: benchmarks/coverage.py, table in docs/reference/evaluation.md.
LEAST_PATIENTS = 8
# Of so many replicates two or three lie beyond either end of a 95% interval; of fewer, none for certain.
LEAST_REPLICATES = 100


@dataclass(frozen=True)
class Interval:
    """Both ends of a 95% interval, or None twice and the reason why it is undefined."""

    low: float | None
    high: float | None
    undefined: str | None = None

    @classmethod
    def without(cls, reason: str) -> Interval:
        return cls(None, None, reason)

    @property
    def ends(self) -> list[float] | None:
        """As the outputs write it: [low, high], or None."""
        return None if self.low is None or self.high is None else [self.low, self.high]


def hanley_mcneil(area: float, n_positive: int, n_negative: int) -> Interval:
    """Interval of an area under a curve, clipped to [0, 1].

    The formula is made for ROC areas; Yi et al. apply it to the area under a precision-recall curve over candidates,
    which treats lesions as independent. The bootstrap is the interval to trust.

    Args:
        area: within [0, 1].
        n_positive: reference lesions (n1).
        n_negative: false positives (n2).

    Returns:
        The interval; undefined without lesions or without false positives, and at an area of exactly 0 or 1, where the
        formula gives one without width.

    Source:
        Hanley and McNeil (1982), Radiology 143:29-36, equations 1 and 2; used by Yi et al. (2020), section 3.4.

    Example:
        >>> hanley_mcneil(0.5, 1, 1)
        Interval(low=0.0, high=1.0, undefined=None)
    """
    if not 0 <= area <= 1:
        raise ValueError(f"area must be within [0, 1], got {area}")
    if n_positive < 1:
        return Interval.without("there are no reference lesions")
    if n_negative < 1:
        return Interval.without("there are no false positives, and the Hanley-McNeil formula divides by their number")
    if area in (0, 1):
        return Interval.without(
            f"at exactly {area:g} the Hanley-McNeil formula gives no width, whatever the number of lesions"
        )
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n_positive - 1) * (q1 - area**2) + (n_negative - 1) * (q2 - area**2)
    half = Z95 * sqrt(max(0.0, variance) / (n_positive * n_negative))
    return Interval(max(0.0, area - half), min(1.0, area + half))


def newcombe(area: float, n_positive: int, n_negative: int, least: int = LEAST_PATIENTS) -> Interval:
    """Interval of the area under a ROC curve: all areas from which the one found is no surprise.

    The variance is Hanley and McNeil's at the area that is asked about, not at the one found, with a number of subjects
    in it that is the same for both kinds. So the interval has a width at 0 and 1 too, stays within [0, 1], and holds
    the true area often enough in studies of few patients, where DeLong's does not.

    Args:
        area: within [0, 1], equal scores counted half.
        n_positive: subjects that are independent of each other.
        n_negative: likewise.
        least: of either kind.

    Returns:
        The interval; undefined with too few of either.

    Source:
        Newcombe (2006), Statistics in Medicine 25:559-573, method 5.

    Example:
        >>> [round(end, 3) for end in newcombe(1.0, 10, 10).ends], [round(end, 3) for end in newcombe(0.5, 50, 50).ends]
        ([0.8, 1.0], [0.39, 0.61])
    """
    from scipy.optimize import brentq

    if not 0 <= area <= 1:
        raise ValueError(f"area must be within [0, 1], got {area}")
    for n, kind in ((n_positive, "with"), (n_negative, "without")):
        if n < least:
            there = "there is 1" if n == 1 else f"there are {n}"
            return Interval.without(f"it needs at least {least} patients {kind} lesions, and {there}")
    subjects = (n_positive + n_negative) / 2 - 1

    def surprise(true: float) -> float:
        spread = 1 + subjects * ((1 - true) / (2 - true) + true / (1 + true))
        return (true - area) ** 2 - Z95**2 * true * (1 - true) * spread / (n_positive * n_negative)

    # At the area found there is none, and at 0 and 1, which allow no other outcome, there is. Where 0 or 1 was found it
    # is a root itself, and not the one wanted.
    low = float(brentq(surprise, 0, min(area, 1 - 1e-9))) if area > 0 else 0.0
    high = float(brentq(surprise, max(area, 1e-9), 1)) if area < 1 else 1.0
    return Interval(low, high)


def wilson(n_success: int, n: int, undefined: str = "there are no reference lesions") -> Interval:
    """Score interval of a proportion; undefined for ``n == 0``, for the reason given.

    It takes lesions as independent, those of one patient too.

    Source:
        Wilson (1927), Journal of the American Statistical Association 22:209-212. The terms are in the order of
        SciPy's ``binomtest(...).proportion_ci(method="wilson")``, whose last bit this has; importing scipy.stats takes
        as long as evaluating several cases.

    Example:
        >>> [round(end, 4) for end in (wilson(8, 10).low, wilson(8, 10).high)]
        [0.4902, 0.9433]
    """
    from scipy.special import ndtri

    if not n:
        return Interval.without(undefined)
    p, z = n_success / n, float(ndtri(0.975))
    denominator = 2 * (n + z**2)
    center = (2 * n * p + z**2) / denominator
    half = z / denominator * sqrt(4 * n * p * (1 - p) + z**2)
    return Interval(center - half if n_success else 0.0, center + half if n_success < n else 1.0)


def patient_weights(n_patients: int, n_replicates: int, seed: int) -> NDArray[np.int64]:
    """How often each patient is drawn in each bootstrap replicate, shape (n_replicates, n_patients)."""
    weights: NDArray[np.int64] = np.random.default_rng(seed).multinomial(
        n_patients, np.full(n_patients, 1 / n_patients), size=n_replicates
    )
    return weights


def subsample_weights(n_patients: int, share: float, n_replicates: int, seed: int) -> NDArray[np.int64]:
    """Which patients are drawn when this share of them is drawn without replacement, shape (n_replicates, n_patients).

    The number is rounded, and at least 1.
    """
    rng = np.random.default_rng(seed)
    n_drawn = max(1, round(share * n_patients))
    # The first of a random order are drawn without replacement, in all replicates at once.
    order = np.argsort(rng.random((n_replicates, n_patients)), axis=1, kind="stable")
    weights = np.zeros((n_replicates, n_patients), np.int64)
    np.put_along_axis(weights, order[:, :n_drawn], 1, axis=1)
    return weights


def check_replicates(n_replicates: int) -> None:
    """Refuse a number of bootstrap replicates that says nothing about the ends of a 95% interval.

    Raises:
        InputError: it is neither 0 nor at least 100.
    """
    if n_replicates != 0 and n_replicates < LEAST_REPLICATES:
        raise InputError(
            f"--bootstrap must be 0 (no intervals) or at least {LEAST_REPLICATES}, got {n_replicates}: of fewer "
            "replicates the ends of a 95% interval are chance"
        )


def check_seed(seed: int) -> None:
    """Refuse a seed that NumPy does not take.

    Raises:
        InputError: it is negative.
    """
    if seed < 0:
        raise InputError(f"--seed must be at least 0, got {seed}")


def why_no_bootstrap(n_patients: int, n_replicates: int) -> str | None:
    """The reason why nothing can be resampled; None: it can."""
    if not n_replicates:
        return "the bootstrap was switched off"
    return _too_few("patients", n_patients) if n_patients < LEAST_PATIENTS else None


def _too_few(of_what: str, n: int) -> str:
    there = f"there is {n or 'none'}" if n < 2 else f"there are {n}"
    return (
        f"a bootstrap needs at least {LEAST_PATIENTS} {of_what}, and {there}; with fewer, its 95% interval misses "
        "the true value too often"
    )


def expanded_percentiles(n_patients: int) -> tuple[float, float]:
    """The percentiles of the replicates that are the ends of a 95% interval: wider than 2.5 and 97.5 for few patients.

    The spread of a bootstrap's replicates is too small by the root of (n - 1) / n, and it knows nothing of Student's t.

    Args:
        n_patients: n, that contribute to the statistic, at least 2.

    Raises:
        ValueError: there are fewer.

    Source:
        Hesterberg (2015), The American Statistician 69:371-386, section 5.3 (expanded percentile interval).

    Example:
        >>> [round(p, 2) for p in (*expanded_percentiles(10), *expanded_percentiles(1000))]
        [0.86, 99.14, 2.48, 97.52]
    """
    from scipy.special import ndtr, stdtrit

    if n_patients < 2:
        raise ValueError(f"n_patients must be at least 2, got {n_patients}")
    # Student's quantile, widened by the root that the spread lacks; how much of a normal distribution lies beyond it.
    tail = 100 * float(ndtr(-sqrt(n_patients / (n_patients - 1)) * stdtrit(n_patients - 1, 0.975)))
    return tail, 100 - tail


def percentile_interval(replicates: NDArray[np.float64], n_contributing: int) -> Interval:
    """The expanded percentiles of the replicates in which the statistic is defined (not NaN).

    Args:
        replicates: of the statistic, (B,).
        n_contributing: patients that contribute to its denominator; below :data:`LEAST_PATIENTS` the interval is
            undefined. (Of one alone every replicate is the same, which would look like certainty.)

    Example:
        >>> percentile_interval(np.full(9, 0.5), n_contributing=1).undefined[:90]
        'a bootstrap needs at least 8 patients that contribute to the denominator, and there is 1; '
    """
    if n_contributing < LEAST_PATIENTS:
        return Interval.without(_too_few("patients that contribute to the denominator", n_contributing))
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return Interval.without("no bootstrap replicate is defined")
    low, high = np.percentile(defined, expanded_percentiles(n_contributing))
    return Interval(float(low), float(high))


def resampled_ratio(
    weights: NDArray[np.integer], numerator: NDArray[np.floating], denominator: NDArray[np.floating]
) -> NDArray[np.float64]:
    """A ratio of sums over patients in each replicate; NaN where the denominator is 0.

    Shape (n_replicates,), or (n_replicates, n) for numbers of shape (n_patients, n).
    """
    top, bottom = weights @ numerator, weights @ denominator
    ratio: NDArray[np.float64] = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=ratio, where=bottom > 0)
    return ratio


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Confidences with the index of the patient (from 0) each belongs to; inputs of the resampled average precision.

    Attributes:
        lesion_confidence, lesion_patient: of every detected lesion.
        true_confidence, true_patient: of every candidate counted as true positive.
        false_confidence, false_patient: of every candidate counted as false positive.
        lesions_per_patient: reference lesions, missed ones included, shape (n_patients,).
    """

    lesion_confidence: NDArray[np.float64]
    lesion_patient: NDArray[np.int64]
    true_confidence: NDArray[np.float64]
    true_patient: NDArray[np.int64]
    false_confidence: NDArray[np.float64]
    false_patient: NDArray[np.int64]
    lesions_per_patient: NDArray[np.int64]


@dataclass(frozen=True)
class ResampledCurves:
    """What is read off both curves in each of B replicates; NaN where no lesion was drawn.

    Attributes:
        average_precision: (B,).
        average_recall: over 0 to the greatest number of false positives per case asked for, (B,).
        sensitivity_at: at each number of false positives per case asked for, (B, F).
    """

    average_precision: NDArray[np.float64]
    average_recall: NDArray[np.float64]
    sensitivity_at: NDArray[np.float64]


def resampled_curves(
    detections: Detections,
    weights: NDArray[np.integer],
    cases_per_patient: NDArray[np.float64],
    max_fp_per_case: float,
    fp_per_case: Sequence[float] = (),
    max_cells: int = 500_000,
) -> ResampledCurves:
    """Both curves with every patient's lesions, candidates and cases counted ``weights`` times.

    Recall rises only at confidences of detections, so candidates are first counted per patient between those: the cost
    does not depend on the number of false positives.

    Args:
        detections: confidences by patient.
        weights: one row per replicate, shape (B, n_patients); a row of ones gives the ordinary curves.
        cases_per_patient: shape (n_patients,).
        max_fp_per_case: end of the average recall.
        fp_per_case: where the FROC is read.
        max_cells: replicates x distinct confidences held at a time; bounds memory.

    Returns:
        The values of every replicate.
    """
    from scipy.sparse import coo_array, csr_array

    levels = np.unique(detections.lesion_confidence)[::-1]
    n_patients = len(detections.lesions_per_patient)

    def counts(confidence: NDArray[np.float64], patient: NDArray[np.int64]) -> csr_array:
        # The first level (from the strictest) at which a candidate is accepted; below the last it never matters.
        level = len(levels) - np.searchsorted(levels[::-1], confidence, side="right")
        used = level < len(levels)
        ones = np.ones(int(used.sum()))
        return coo_array((ones, (level[used], patient[used])), shape=(len(levels), n_patients)).tocsr()

    detected = counts(detections.lesion_confidence, detections.lesion_patient)
    true = counts(detections.true_confidence, detections.true_patient)
    false = counts(detections.false_confidence, detections.false_patient)
    precision_area, recall_area = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    matched = np.full((len(weights), len(fp_per_case)), np.nan)
    chunk = max(1, max_cells // max(1, len(levels)))
    for start in range(0, len(weights), chunk):
        rows = slice(start, start + chunk)
        drawn = weights[rows].T.astype(np.float64)
        n_lesions, n_cases = detections.lesions_per_patient @ drawn, cases_per_patient @ drawn
        rise = detected @ drawn
        n_true, n_false = (np.cumsum(counted @ drawn, axis=0) for counted in (true, false))
        accepted = n_true + n_false
        precision = np.divide(n_true, accepted, out=np.zeros_like(accepted), where=accepted > 0)
        some = n_lesions > 0
        np.divide((rise * precision).sum(axis=0), n_lesions, out=precision_area[rows], where=some)
        # A replicate without a case has no lesion either: the 1 only keeps the division quiet.
        width = np.maximum(1 - n_false / (max_fp_per_case * np.maximum(n_cases, 1)), 0)
        np.divide((rise * width).sum(axis=0), n_lesions, out=recall_area[rows], where=some)
        for i, limit in enumerate(fp_per_case):
            allowed = n_false <= limit * n_cases + 1e-9
            np.divide((rise * allowed).sum(axis=0), n_lesions, out=matched[rows, i], where=some)
    return ResampledCurves(precision_area, recall_area, matched)
