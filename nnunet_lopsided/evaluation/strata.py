"""Sensitivity by lesion diameter, and how decided a model is inside lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.intervals import Interval, wilson


@dataclass(frozen=True)
class DiameterBin:
    """Lesions with ``lower_mm <= diameter < upper_mm`` (None: no upper edge) and how many were detected."""

    lower_mm: float
    upper_mm: float | None
    n_lesions: int
    n_detected: int

    @property
    def sensitivity(self) -> float | None:
        """Detected share, None for an empty bin."""
        return self.n_detected / self.n_lesions if self.n_lesions else None

    @property
    def interval(self) -> Interval:
        """Wilson 95% interval of the sensitivity."""
        return wilson(self.n_detected, self.n_lesions)


def sensitivity_by_diameter(
    diameter_mm: NDArray[np.float64], detected: NDArray[np.bool_], edges_mm: Sequence[float]
) -> tuple[DiameterBin, ...]:
    """Count lesions and detections in diameter bins.

    Args:
        diameter_mm: of every reference lesion, shape (K,).
        detected: whether it was, shape (K,).
        edges_mm: inner edges, ascending; a lesion on an edge belongs to the upper bin.

    Returns:
        ``len(edges_mm) + 1`` bins, from the smallest; empty ones included.

    Source:
        Yi et al. (2020), figure 5.

    Example:
        >>> bins = sensitivity_by_diameter(np.array([2.0, 6.0]), np.array([False, True]), (6,))
        >>> [(b.lower_mm, b.upper_mm, b.n_lesions, b.sensitivity) for b in bins]
        [(0.0, 6.0, 1, 0.0), (6.0, None, 1, 1.0)]
    """
    index = np.searchsorted(np.asarray(edges_mm, float), diameter_mm, side="right")
    n_lesions = np.bincount(index, minlength=len(edges_mm) + 1)
    n_detected = np.bincount(index[detected], minlength=len(edges_mm) + 1)
    lower = (0.0, *(float(e) for e in edges_mm))
    upper = (*(float(e) for e in edges_mm), None)
    return tuple(
        DiameterBin(low, high, int(n), int(d))
        for low, high, n, d in zip(lower, upper, n_lesions, n_detected, strict=True)
    )


def probability_histogram(probability: NDArray[np.floating], n_bins: int) -> NDArray[np.int64]:
    """Voxels in ``n_bins`` equal bins over [0, 1]; the last includes 1. Shape (n_bins,)."""
    index = np.minimum((probability.astype(np.float64) * n_bins).astype(np.int64), n_bins - 1)
    return np.bincount(index, minlength=n_bins)


def shannon_entropy_bits(counts: NDArray[np.int64]) -> float | None:
    """Shannon entropy of a histogram in bits, within [0, log2(bins)]; None for an empty one.

    High values mean that a model gives lesion voxels probabilities all over [0, 1].

    Source:
        Yi et al. (2020), figure 3.

    Example:
        >>> shannon_entropy_bits(np.array([5, 5, 0, 0]))
        1.0
    """
    if not counts.sum():
        return None
    share = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(share * np.log2(share)).sum()))
