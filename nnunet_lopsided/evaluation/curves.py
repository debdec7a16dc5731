"""Precision-recall and FROC curves over candidates of all cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class OperatingPoints:
    """Counts when every candidate with a confidence of at least ``threshold`` is accepted.

    One point per distinct confidence, from the strictest: candidates of equal confidence come in together.

    Attributes:
        threshold: descending, shape (T,).
        n_detected: lesions detected, shape (T,).
        n_true: accepted true positives, shape (T,). Equal to ``n_detected`` unless duplicates count as true positives
            or one candidate may detect several lesions.
        n_false: accepted false positives, shape (T,).
        n_lesions: reference lesions, detected or not.
        n_cases: cases, with lesions or not.
    """

    threshold: NDArray[np.float64]
    n_detected: NDArray[np.int64]
    n_true: NDArray[np.int64]
    n_false: NDArray[np.int64]
    n_lesions: int
    n_cases: int

    @property
    def sensitivity(self) -> NDArray[np.float64]:
        """Recall: detected share of the lesions (NaN without lesions), shape (T,)."""
        return self.n_detected / self.n_lesions if self.n_lesions else np.full(len(self.threshold), np.nan)

    @property
    def precision(self) -> NDArray[np.float64]:
        """True share of the accepted candidates, shape (T,)."""
        return self.n_true / (self.n_true + self.n_false)

    @property
    def false_positives_per_case(self) -> NDArray[np.float64]:
        """Shape (T,)."""
        return self.n_false / self.n_cases

    def corners(self) -> OperatingPoints:
        """Only the points needed to draw both curves exactly.

        Where several points in a row detect the same lesions and accept the same true positives, both curves run
        straight, and only the first and the last point of the run are kept.
        """
        new = np.ones(len(self.threshold) + 1, bool)
        new[1:-1] = (np.diff(self.n_detected) != 0) | (np.diff(self.n_true) != 0)
        keep = new[:-1] | new[1:]
        return OperatingPoints(
            threshold=self.threshold[keep],
            n_detected=self.n_detected[keep],
            n_true=self.n_true[keep],
            n_false=self.n_false[keep],
            n_lesions=self.n_lesions,
            n_cases=self.n_cases,
        )


def operating_points(
    *,
    lesion_confidence: NDArray[np.float64],
    true_confidence: NDArray[np.float64],
    false_confidence: NDArray[np.float64],
    n_lesions: int,
    n_cases: int,
) -> OperatingPoints:
    """Sweep the confidence over all candidates.

    Args:
        lesion_confidence: confidence of the candidate that detects it, for every detected lesion.
        true_confidence: confidence of every candidate counted as true positive.
        false_confidence: confidence of every candidate counted as false positive.
        n_lesions: reference lesions, missed ones included.
        n_cases: cases.

    Returns:
        The points; none (T = 0) without candidates.

    Example:
        >>> hit = np.array([0.9, 0.4])
        >>> points = operating_points(
        ...     lesion_confidence=hit, true_confidence=hit, false_confidence=np.array([0.4]), n_lesions=4, n_cases=1
        ... )
        >>> points.threshold.tolist(), points.sensitivity.tolist(), points.n_false.tolist()
        ([0.9, 0.4], [0.25, 0.5], [0, 1])
    """
    threshold = np.unique(np.concatenate([true_confidence, false_confidence]))[::-1]

    def at_least(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
        # "left": equal confidences are not below, so that they come in together.
        n_below: NDArray[np.int64] = np.searchsorted(np.sort(confidence), threshold, side="left")
        return len(confidence) - n_below

    return OperatingPoints(
        threshold=threshold,
        n_detected=at_least(lesion_confidence),
        n_true=at_least(true_confidence),
        n_false=at_least(false_confidence),
        n_lesions=n_lesions,
        n_cases=n_cases,
    )


def average_precision(points: OperatingPoints) -> float | None:
    """Area under the precision-recall curve by steps: the sum of each rise in recall times the precision reached.

    Within [0, 1]; at most the maximum sensitivity, since no precision is credited beyond it. 0 when there are lesions
    and nothing was found; None when there are no lesions. The same as scikit-learn's ``average_precision_score`` when
    every lesion is detected.

    Source:
        "mAP" of Yi et al. (2020), section 3.4, which does not say how the area is taken.
    """
    if not points.n_lesions:
        return None
    rise = np.diff(points.n_detected, prepend=0)
    return float((rise * points.precision).sum() / points.n_lesions)


def average_recall(points: OperatingPoints, max_fp_per_case: float) -> float | None:
    """Mean sensitivity over 0 to ``max_fp_per_case`` false positives per case: the area under the FROC, by steps.

    Within [0, 1]. Up to a number of false positives the best sensitivity with at most that many counts, so nothing is
    interpolated, and beyond the last point the curve stays level. None when there are no lesions.

    Source:
        "Average recall" of Shirokikh et al. (2020), which divides the false positives of 80% of the cases by the number
        of all cases; here numerator and denominator are of the same cases.

    Example:
        >>> one = np.array([0.9])
        >>> points = operating_points(
        ...     lesion_confidence=one, true_confidence=one, false_confidence=np.array([0.95]), n_lesions=2, n_cases=1
        ... )
        >>> average_recall(points, 5)
        0.4
    """
    if not points.n_lesions:
        return None
    rise = np.diff(points.n_detected, prepend=0)
    width = np.maximum(max_fp_per_case - points.false_positives_per_case, 0)
    return float((rise * width).sum() / max_fp_per_case / points.n_lesions)


@dataclass(frozen=True)
class MatchedSensitivity:
    """The FROC read at a number of false positives per case.

    Attributes:
        fp_per_case: at most so many.
        sensitivity: the highest then, within [0, 1].
        threshold: accepting every candidate of at least this confidence gives it; None: it is 0.
    """

    fp_per_case: float
    sensitivity: float
    threshold: float | None


def sensitivity_at(points: OperatingPoints, fp_per_case: Sequence[float]) -> tuple[MatchedSensitivity, ...]:
    """The highest sensitivity with at most so many false positives per case; empty without lesions.

    Example:
        >>> hits = np.array([0.9, 0.4])
        >>> points = operating_points(
        ...     lesion_confidence=hits, true_confidence=hits, false_confidence=np.array([0.6]), n_lesions=2, n_cases=1
        ... )
        >>> [(m.sensitivity, m.threshold) for m in sensitivity_at(points, (0.5, 1))]
        [(0.5, 0.9), (1.0, 0.4)]
    """
    if not points.n_lesions:
        return ()
    matched = []
    for limit in fp_per_case:
        # 1e-9: limit x cases may be a whole number but for its rounding.
        n = int(np.searchsorted(points.n_false, limit * points.n_cases + 1e-9, side="right"))
        share = float(points.sensitivity[n - 1]) if n else 0.0
        # The strictest threshold that finds as many: lower ones would accept more false candidates alone.
        rises = np.flatnonzero(points.n_detected[:n] == points.n_detected[n - 1]) if n else np.zeros(0, np.int64)
        matched.append(MatchedSensitivity(limit, share, float(points.threshold[rises[0]]) if share else None))
    return tuple(matched)
