"""Sensitivity by lesion diameter, and how decided a model is inside lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.intervals import Interval, wilson

# Lesions that an incomplete reference kept, and those that it lacks.
ANNOTATION_GROUPS = ("kept", "censored")


class _Share:
    """Detected lesions of a group."""

    n_lesions: int
    n_detected: int

    @property
    def sensitivity(self) -> float | None:
        """Detected share, None for an empty group."""
        return self.n_detected / self.n_lesions if self.n_lesions else None

    @property
    def interval(self) -> Interval:
        """Wilson 95% interval of the sensitivity."""
        return wilson(self.n_detected, self.n_lesions)


@dataclass(frozen=True, kw_only=True)
class DiameterBin(_Share):
    """Lesions with ``lower_mm <= diameter < upper_mm`` (None: no upper edge) and how many were detected."""

    lower_mm: float
    upper_mm: float | None
    n_lesions: int
    n_detected: int
    bootstrap: Interval = field(default_factory=lambda: Interval.without("the bootstrap was switched off"))


@dataclass(frozen=True, kw_only=True)
class AnnotationGroup(_Share):
    """Lesions that an incomplete reference kept or lacks (``kept``, ``censored``), and how many were detected.

    ``bootstrap`` is the 95% interval of the sensitivity over patients; further attributes as in :class:`DiameterBin`.
    """

    name: str
    n_lesions: int
    n_detected: int
    bootstrap: Interval


def within_mm(diameter_mm: NDArray[np.float64], lower: float, upper: float | None) -> NDArray[np.bool_]:
    """Which diameters are of a bin: from ``lower`` to below ``upper``; None: no upper edge."""
    return np.asarray((diameter_mm >= lower) & (diameter_mm < (np.inf if upper is None else upper)))


def diameter_bin(diameter_mm: NDArray[np.float64], edges_mm: Sequence[float]) -> NDArray[np.int64]:
    """The bin (from 0) of every diameter; one on an edge belongs to the upper bin."""
    return np.searchsorted(np.asarray(edges_mm, float), diameter_mm, side="right")


def diameter_bounds(edges_mm: Sequence[float]) -> list[tuple[float, float | None]]:
    """Lower and upper bound of every bin; the last has no upper one."""
    edges = [float(edge) for edge in edges_mm]
    return list(zip([0.0, *edges], [*edges, None], strict=True))


def sensitivity_by_diameter(
    diameter_mm: NDArray[np.float64],
    detected: NDArray[np.bool_],
    edges_mm: Sequence[float],
    bootstrap: Sequence[Interval] | None = None,
) -> tuple[DiameterBin, ...]:
    """Count lesions and detections in diameter bins.

    Args:
        diameter_mm: of every reference lesion, shape (K,).
        detected: whether it was, shape (K,).
        edges_mm: inner edges, ascending; a lesion on an edge belongs to the upper bin.
        bootstrap: interval of each bin's sensitivity over patients; None: there are none.

    Returns:
        ``len(edges_mm) + 1`` bins, from the smallest; empty ones included.

    Source:
        Yi et al. (2020), figure 5.

    Example:
        >>> bins = sensitivity_by_diameter(np.array([2.0, 6.0]), np.array([False, True]), (6,))
        >>> [(b.lower_mm, b.upper_mm, b.n_lesions, b.sensitivity) for b in bins]
        [(0.0, 6.0, 1, 0.0), (6.0, None, 1, 1.0)]
    """
    index = diameter_bin(diameter_mm, edges_mm)
    n_lesions = np.bincount(index, minlength=len(edges_mm) + 1)
    n_detected = np.bincount(index[detected], minlength=len(edges_mm) + 1)
    bounds = diameter_bounds(edges_mm)
    resampled = bootstrap or [Interval.without("the bootstrap was switched off")] * len(bounds)
    return tuple(
        DiameterBin(lower_mm=low, upper_mm=high, n_lesions=int(n), n_detected=int(d), bootstrap=interval)
        for (low, high), n, d, interval in zip(bounds, n_lesions, n_detected, resampled, strict=True)
    )


def probability_histogram(probability: NDArray[np.floating], n_bins: int) -> NDArray[np.int64]:
    """Voxels in ``n_bins`` equal bins over [0, 1]; the last includes 1. Shape (n_bins,)."""
    return np.bincount(_bins(probability, n_bins), minlength=n_bins)


def entropy_by_component(
    probability: NDArray[np.floating], ids: NDArray[np.integer], n_components: int, n_bins: int
) -> NDArray[np.float64]:
    """Shannon entropy of each component's own histogram, in bits.

    Args:
        probability: of voxels of components, shape (n,).
        ids: the component of each, from 1, shape (n,).
        n_components: K.
        n_bins: equal bins over [0, 1].

    Returns:
        Shape (K,); NaN for a component without voxels.

    Example:
        >>> entropy_by_component(np.array([0.1, 0.1, 0.1, 0.9]), np.array([1, 1, 2, 2]), 2, 100).tolist()
        [0.0, 1.0]
    """
    keys = (np.asarray(ids, np.int64) - 1) * n_bins + _bins(probability, n_bins)
    occupied, counts = np.unique(keys, return_counts=True)
    component = occupied // n_bins
    totals = np.bincount(component, weights=counts, minlength=n_components)
    share = counts / totals[component]
    entropy = np.bincount(component, weights=-share * np.log2(share), minlength=n_components)
    return np.where(totals > 0, np.maximum(entropy, 0.0), np.nan)


def shannon_entropy_bits(counts: NDArray[np.int64]) -> float | None:
    """Shannon entropy of a histogram in bits, within [0, log2(bins)]; None for an empty one.

    High values mean that a model gives lesion voxels probabilities all over [0, 1].

    Source:
        Yi et al. (2020), figure 3.

    Example:
        >>> shannon_entropy_bits(np.array([5, 5, 0, 0]))
        1.0
    """
    bits = float(entropy_of_rows(counts[None])[0])
    return None if np.isnan(bits) else bits


def entropy_of_rows(histograms: NDArray[np.integer]) -> NDArray[np.float64]:
    """Shannon entropy in bits of every row, (n, bins) -> (n,); NaN for an empty one."""
    total = histograms.sum(axis=1, keepdims=True)
    share = np.divide(histograms, total, out=np.zeros(histograms.shape), where=total > 0)
    bits = -(share * np.log2(share, out=np.zeros(share.shape), where=share > 0)).sum(axis=1)
    return np.where(total[:, 0] > 0, np.maximum(bits, 0.0), np.nan)


def _bins(probability: NDArray[np.floating], n_bins: int) -> NDArray[np.int64]:
    # Not p * n_bins, which rounds: 0.29 * 100 is 28.999999999999996.
    edges = np.arange(n_bins + 1) / n_bins
    return np.minimum(np.searchsorted(edges, probability.astype(np.float64), side="right") - 1, n_bins - 1)
