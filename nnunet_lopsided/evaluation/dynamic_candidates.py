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
    kind = probability.dtype.type
    lowest = kind(float(kind(least_peak)) / PEAK_OVER)
    mask = probability >= lowest
    regions = find_lesions(mask if valid is None else mask & valid, spacing_mm, connectivity)
    voxels: list[NDArray[np.int64]] = []
    for box, flat in _regions(regions):
        working = np.zeros(tuple(box[:, 1] - box[:, 0]), probability.dtype)
        inside = tuple(axis - low for axis, low in zip(np.unravel_index(flat, regions.shape), box[:, 0], strict=True))
        working[inside] = probability.reshape(-1)[flat]
        for candidate in _peaks(working, kind(least_peak), connectivity):
            corner = np.unravel_index(candidate, working.shape)
            moved = tuple(axis + low for axis, low in zip(corner, box[:, 0], strict=True))
            voxels.append(np.ravel_multi_index(moved, regions.shape).astype(np.int64))
    voxels.sort(key=lambda of_one: int(of_one[0]))
    ids = np.repeat(np.arange(1, len(voxels) + 1), [len(of_one) for of_one in voxels])
    together = np.concatenate([np.zeros(0, np.int64), *voxels])
    order = np.argsort(together)
    return lesions_of_voxels(regions.shape, spacing_mm, together[order], ids[order])


def _regions(regions: Lesions) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The box and the flat voxel indices of every component: peaks of different components do not affect each other."""
    order = np.argsort(regions.voxel_ids, kind="stable")
    ends = np.cumsum(regions.n_voxels)
    yield from zip(regions.boxes, np.split(regions.voxels[order], ends[:-1]), strict=True) if len(regions) else ()


def _peaks(
    working: NDArray[np.floating], least_peak: np.floating, connectivity: int | None
) -> Iterator[NDArray[np.int64]]:
    """The candidates of one region, as flat ascending indices; ``working`` is emptied."""
    taken = np.zeros(working.shape, bool)
    while (peak := working.max()) >= least_peak:
        above = find_lesions(working >= working.dtype.type(float(peak) / PEAK_OVER), (1,) * working.ndim, connectivity)
        highest = above.voxel_ids[working.reshape(-1)[above.voxels] == peak]
        candidate = above.select([int(highest.min())])
        working.reshape(-1)[candidate] = 0
        if not _touches(candidate, taken, connectivity):
            taken.reshape(-1)[candidate] = True
            yield candidate


def _touches(candidate: NDArray[np.int64], taken: NDArray[np.bool_], connectivity: int | None) -> bool:
    """Whether a component and the voxels that are taken are one component together with it."""
    if not taken.any():
        return False
    mask = taken.copy()
    mask.reshape(-1)[candidate] = True
    together = find_lesions(mask, (1,) * mask.ndim, connectivity)
    # The candidate alone is connected: it touches something where its component is larger than itself.
    number = together.voxel_ids[np.searchsorted(together.voxels, candidate[0])]
    return bool(together.n_voxels[number - 1] > len(candidate))
