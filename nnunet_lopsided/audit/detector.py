"""How well the audited models find the lesions that are annotated, and whether that is enough: pure numerics.

A weak detector gives many false positives probabilities as high as those of lesions. Then every one of them looks like
a missed lesion, and the estimated miss rate is far too high: .91 was printed for a true .34.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.curves import average_precision, operating_points

# Chosen by benchmarks/audit_detector.py; the table is in docs/reference/audit.md.
LEAST_SENSITIVITY = 0.5
LEAST_AVERAGE_PRECISION = 0.15
# So much more average precision than the estimated miss rate allows is more than chance.
CONTRADICTION = 0.1
# Or by more than this share of it: where the maximum is low, chance is small, too.
CONTRADICTION_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Detector:
    """The audited models on the annotated lesions, out of fold, at the threshold of the audit.

    Attributes:
        n_annotated: annotated lesions.
        n_found: those of them that a component matches.
        n_candidates: components that no annotation explains.
        n_cases: audited cases.
        average_precision: of annotated lesions among all components by their highest probability, within [0, 1]; a
            missed lesion counts as a false positive. None without annotated lesions.
    """

    n_annotated: int
    n_found: int
    n_candidates: int
    n_cases: int
    average_precision: float | None

    @property
    def sensitivity(self) -> float | None:
        """Share of the annotated lesions that are found, within [0, 1]; None without any."""
        return self.n_found / self.n_annotated if self.n_annotated else None

    @property
    def false_positives_per_case(self) -> float:
        """An upper bound: every candidate counts as a false positive, though some are missed lesions."""
        return self.n_candidates / self.n_cases


def measure_detector(
    found_score: NDArray[np.float64], candidate_score: NDArray[np.float64], n_annotated: int, n_cases: int
) -> Detector:
    """Measure the detector.

    Args:
        found_score: highest probability of the component of every annotated lesion that is found.
        candidate_score: of every unexplained component.
        n_annotated: annotated lesions.
        n_cases: audited cases.

    Example:
        >>> detector = measure_detector(np.array([0.9, 0.6]), np.array([0.8, 0.1]), n_annotated=4, n_cases=2)
        >>> detector.sensitivity, detector.false_positives_per_case, round(detector.average_precision, 4)
        (0.5, 1.0, 0.4167)
    """
    points = operating_points(
        # Every found lesion has one component, so lesions and true positives have the same scores.
        lesion_confidence=found_score,
        true_confidence=found_score,
        false_confidence=candidate_score,
        n_lesions=n_annotated,
        n_cases=n_cases,
    )
    return Detector(
        n_annotated=n_annotated,
        n_found=len(found_score),
        n_candidates=len(candidate_score),
        n_cases=n_cases,
        average_precision=average_precision(points),
    )


def why_withheld(detector: Detector, miss_rate: float | None) -> str:
    """Why the miss rate and scores of an audit would say nothing; empty: they are worth printing.

    If the estimated miss rate is right, at most (1 - rate) of the best components are annotated, so the average
    precision is at most the sensitivity times that. More than this and chance means that the estimate is wrong.

    Args:
        detector: of the audit.
        miss_rate: estimated; None: there is no estimate.

    Example:
        >>> good = Detector(n_annotated=40, n_found=36, n_candidates=60, n_cases=10, average_precision=0.44)
        >>> why_withheld(good, 0.5)
        ''
        >>> why_withheld(good, 0.8)[:66]
        'with an estimated miss rate of 0.80 the average precision could be'
    """
    sensitivity, precision = detector.sensitivity, detector.average_precision
    if sensitivity is None or precision is None:
        return "there are no annotated lesions to measure the models on"
    lacking = []
    if sensitivity < LEAST_SENSITIVITY:
        lacking.append(f"they find {sensitivity:.2f} of them, at least {LEAST_SENSITIVITY:g} is needed")
    if precision < LEAST_AVERAGE_PRECISION:
        lacking.append(f"their average precision is {precision:.2f}, at least {LEAST_AVERAGE_PRECISION:g} is needed")
    if lacking:
        return (
            f"on annotated lesions out of fold the models are too weak ({'; '.join(lacking)}), so false positives "
            "would be taken for missed lesions: train longer, or on more patients, and audit again"
        )
    highest = sensitivity * (1 - (miss_rate or 0.0))
    if precision > highest + min(CONTRADICTION, CONTRADICTION_SHARE * highest):
        return (
            f"with an estimated miss rate of {miss_rate:.2f} the average precision could be {highest:.2f} at most, "
            f"but it is {precision:.2f}, so false positives are among the most probable components: train longer, or "
            "on more patients, and audit again"
        )
    return ""
