"""95% intervals: Hanley-McNeil, Wilson, and a bootstrap over patients."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """Both ends of a 95% interval, or None twice and the reason why it is undefined."""

    low: float | None
    high: float | None
    undefined: str | None = None

    @classmethod
    def without(cls, reason: str) -> Interval:
        return cls(None, None, reason)


def hanley_mcneil(area: float, n_positive: int, n_negative: int) -> Interval:
    """Interval of an area under a curve, clipped to [0, 1].

    The formula is made for ROC areas; Yi et al. apply it to the area under a precision-recall curve over candidates,
    which treats lesions as independent. At an area of exactly 0 or 1 it has no width, which says nothing about
    certainty. The bootstrap is the interval to trust.

    Args:
        area: within [0, 1].
        n_positive: reference lesions (n1).
        n_negative: false positives (n2).

    Returns:
        The interval; undefined without lesions or without false positives.

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
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n_positive - 1) * (q1 - area**2) + (n_negative - 1) * (q2 - area**2)
    half = Z95 * sqrt(max(0.0, variance) / (n_positive * n_negative))
    return Interval(max(0.0, area - half), min(1.0, area + half))


def wilson(n_success: int, n: int) -> Interval:
    """Score interval of a proportion; undefined for ``n == 0``.

    Source:
        Wilson (1927), Journal of the American Statistical Association 22:209-212.

    Example:
        >>> [round(end, 4) for end in (wilson(8, 10).low, wilson(8, 10).high)]
        [0.4902, 0.9433]
    """
    if not n:
        return Interval.without("there are no reference lesions")
    share, z2 = n_success / n, Z95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    return Interval(
        0.0 if n_success == 0 else max(0.0, center - half), 1.0 if n_success == n else min(1.0, center + half)
    )


def patient_weights(n_patients: int, n_replicates: int, seed: int) -> NDArray[np.int64]:
    """How often each patient is drawn in each bootstrap replicate, shape (n_replicates, n_patients)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=n_replicates)


def percentile_interval(replicates: NDArray[np.float64]) -> Interval:
    """The 2.5th and 97.5th percentile of the replicates in which the statistic is defined (not NaN)."""
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return Interval.without("no bootstrap replicate is defined")
    low, high = np.percentile(defined, (2.5, 97.5))
    return Interval(float(low), float(high))


def resampled_ratio(
    weights: NDArray[np.int64], numerator: NDArray[np.float64], denominator: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A ratio of sums over patients in each replicate; NaN where the denominator is 0. Shape (n_replicates,)."""
    top, bottom = weights @ numerator, weights @ denominator
    return np.divide(top, bottom, out=np.full(len(weights), np.nan), where=bottom > 0)


@dataclass(frozen=True)
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


def resampled_average_precision(
    detections: Detections, weights: NDArray[np.int64], max_cells: int = 2_000_000
) -> NDArray[np.float64]:
    """Average precision with every patient's lesions and candidates counted ``weights`` times.

    Recall rises only at confidences of detections, so candidates are first counted per patient between those: the cost
    does not depend on the number of false positives.

    Args:
        detections: confidences by patient.
        weights: one row per replicate, shape (B, n_patients); a row of ones gives the ordinary average precision.
        max_cells: replicates x distinct confidences held at a time; bounds memory.

    Returns:
        Shape (B,); NaN where no lesion was drawn.
    """
    from scipy.sparse import coo_array

    levels = np.unique(detections.lesion_confidence)[::-1]
    n_patients = len(detections.lesions_per_patient)

    def counts(confidence: NDArray[np.float64], patient: NDArray[np.int64]) -> coo_array:
        # The first level (from the strictest) at which a candidate is accepted; below the last it never matters.
        level = len(levels) - np.searchsorted(levels[::-1], confidence, side="right")
        used = level < len(levels)
        ones = np.ones(int(used.sum()))
        return coo_array((ones, (level[used], patient[used])), shape=(len(levels), n_patients)).tocsr()

    detected = counts(detections.lesion_confidence, detections.lesion_patient)
    true = counts(detections.true_confidence, detections.true_patient)
    false = counts(detections.false_confidence, detections.false_patient)
    result = np.full(len(weights), np.nan)
    chunk = max(1, max_cells // max(1, len(levels)))
    for start in range(0, len(weights), chunk):
        drawn = weights[start : start + chunk].T.astype(np.float64)
        n_lesions = detections.lesions_per_patient @ drawn
        n_true, n_false = (np.cumsum(counted @ drawn, axis=0) for counted in (true, false))
        accepted = n_true + n_false
        precision = np.divide(n_true, accepted, out=np.zeros_like(accepted), where=accepted > 0)
        area = ((detected @ drawn) * precision).sum(axis=0)
        np.divide(area, n_lesions, out=result[start : start + chunk], where=n_lesions > 0)
    return result
