"""Candidates by nested thresholds: one around each peak of the probability, so that joined lesions are told apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.lesions import Lesions, find_lesions, lesions_of_voxels

# A candidate's voxels have at least the probability of its peak divided by this, as in picai_eval.
PEAK_OVER = 2.5


def dynamic_candidates(
    probability: NDArray[np.floating],
    least_peak: float,
    spacing_mm: Sequence[float],
    connectivity: int | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> Lesions:
    """One candidate around each peak, the highest first.

    The highest voxel is taken, with the component around it of all voxels of at least its probability over 2.5. These
    voxels are then set aside, and so on until no voxel reaches ``least_peak``. What touches an earlier candidate is no
    candidate of its own: it is the rim that the earlier one left.

    Args:
        probability: finite, at least 0; shape (z, y, x) or (y, x).
        least_peak: within (0, 1]; cast to the type of ``probability``.
        spacing_mm: voxel size along each axis.
        connectivity: as in :func:`~nnunet_lopsided.lesions.find_lesions`; also decides what touches.
        valid: voxels that count, same shape; None: all.

    Returns:
        The candidates, ids in the order of their first voxels. No two touch.

    Source:
        ``extract_lesion_candidates(..., threshold="dynamic")`` of report_guided_annotation, which picai_eval uses; here
        with any number of candidates and of any size.

    Example:
        >>> p = np.array([[0.9, 0.8, 0.3, 0.8, 0.0, 0.05]])
        >>> dynamic_candidates(p, 0.1, (1, 1)).n_voxels.tolist()  # of at least 0.36 and 0.32
        [2, 1]
    """
    # In the type of the probabilities, so that a voxel that says exactly the quotient belongs to the candidate.
    kind = probability.dtype.type
    lowest = kind(float(kind(least_peak)) / PEAK_OVER)
    mask = probability >= lowest
    regions = find_lesions(mask if valid is None else mask & valid, spacing_mm, connectivity)
    neighbours = _neighbours(probability.ndim, connectivity)
    voxels: list[NDArray[np.int64]] = []
    # Peaks of different components do not affect each other.
    for box, flat in zip(regions.boxes, regions.voxels_by_id(), strict=True):
        remaining = _Remaining(tuple(box[:, 1] - box[:, 0]), probability.dtype, neighbours)
        places = np.unravel_index(flat, regions.shape)
        # From the image to the box, and one further for the rim; back below.
        inside = np.ravel_multi_index(_moved(places, 1 - box[:, 0]), remaining.shape).astype(np.int64)
        remaining.values[inside] = probability.reshape(-1)[flat]
        for candidate in _peaks(remaining, inside, kind(least_peak)):
            corner = np.unravel_index(np.sort(candidate), remaining.shape)
            moved = np.ravel_multi_index(_moved(corner, box[:, 0] - 1), regions.shape)
            voxels.append(moved.astype(np.int64))
    voxels.sort(key=lambda of_one: int(of_one[0]))
    ids = np.repeat(np.arange(1, len(voxels) + 1), [len(of_one) for of_one in voxels])
    together = np.concatenate([np.zeros(0, np.int64), *voxels])
    order = np.argsort(together)
    return lesions_of_voxels(regions.shape, spacing_mm, together[order], ids[order])


def _moved(places: Sequence[NDArray[np.integer]], by: NDArray[np.int64]) -> tuple[NDArray[np.integer], ...]:
    return tuple(axis + step for axis, step in zip(places, by, strict=True))


def _neighbours(ndim: int, connectivity: int | None) -> NDArray[np.int64]:
    """Where the neighbours of a voxel lie, (n, ndim)."""
    from scipy.ndimage import generate_binary_structure

    faces_edges_corners = {None: ndim, 26: 3, 18: 2, 6: 1, 8: 2, 4: 1}[connectivity]
    near = np.argwhere(generate_binary_structure(ndim, faces_edges_corners)).astype(np.int64) - 1
    return near[near.any(axis=1)]


class _Remaining:
    """The probabilities of a region that no candidate has taken yet, flat, with a rim of zeros one voxel wide.

    With the rim a neighbour of any voxel is a fixed step away in the flat array.

    Attributes:
        shape: of the region's box with its rim.
        values: probability of every voxel; 0: not of the region, or set aside.
        steps: from a voxel to each of its neighbours.
    """

    def __init__(self, box: tuple[int, ...], dtype: np.dtype[np.floating], neighbours: NDArray[np.int64]) -> None:
        self.shape = tuple(n + 2 for n in box)
        self.values: NDArray[np.floating] = np.zeros(int(np.prod(self.shape)), dtype)
        strides = np.cumprod((1, *self.shape[:0:-1]))[::-1]
        self.steps: NDArray[np.int64] = neighbours @ strides
        self._first: NDArray[np.int32] = np.zeros(len(self.values), np.int32)

    def around(self, voxels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The neighbours of voxels, with repetitions."""
        return (voxels[:, None] + self.steps).reshape(-1)

    def take(self, peak: int, least: np.floating) -> NDArray[np.int64]:
        """Set aside the component around a voxel of all voxels of at least ``least``, above 0; returns its voxels.

        It grows from the peak, a layer of voxels at a time: the cost is that of the component, not of the box.
        """
        layers = [np.array([peak], np.int64)]
        self.values[peak] = 0
        while len(layers[-1]):
            reached = self.around(layers[-1])
            reached = reached[self.values[reached] >= least]
            # Each voxel once, without sorting: of several places that write their number to it, one number stays.
            places = np.arange(len(reached), dtype=np.int32)
            self._first[reached] = places
            layers.append(reached[self._first[reached] == places])
            self.values[layers[-1]] = 0
        return np.concatenate(layers)


def _peaks(remaining: _Remaining, voxels: NDArray[np.int64], least_peak: np.floating) -> Iterator[NDArray[np.int64]]:
    """The candidates of one region, as flat indices of its box with the rim; ``remaining`` is emptied.

    Of equal peaks any may come first: they are in one component, or in two that do not touch.

    Args:
        remaining: the region.
        voxels: its voxels.
        least_peak: lower peaks are none.
    """
    high = voxels[remaining.values[voxels] >= least_peak]
    # The quotient of a small float16 rounds to 0, and 0 marks what was set aside.
    above_zero = np.nextafter(least_peak.dtype.type(0), least_peak.dtype.type(1))
    taken = np.zeros(len(remaining.values), bool)
    for peak in high[np.argsort(-remaining.values[high], kind="stable")].tolist():
        value = remaining.values[peak]
        if not value:
            continue
        least = max(least_peak.dtype.type(float(value) / PEAK_OVER), above_zero)
        candidate = remaining.take(peak, least)
        # What touches an earlier candidate is the rim that this one left.
        if not taken[remaining.around(candidate)].any():
            taken[candidate] = True
            yield candidate
