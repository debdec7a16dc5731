"""Lesions grown by a few voxels, as challenge scripts grow them before they look for overlap; sparse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.lesions import Lesions, find_lesions, join_lesions


def ball_offsets(ndim: int, n_steps: int) -> NDArray[np.int64]:
    """Where growth by ``n_steps`` takes a voxel, shape (m, ndim). A step goes to the 18 neighbours over
    faces and edges (2D: to all 8).

    Example:
        >>> len(ball_offsets(3, 0)), len(ball_offsets(3, 1)), len(ball_offsets(2, 1))
        (1, 19, 9)
    """
    from scipy.ndimage import generate_binary_structure, iterate_structure

    if not n_steps:
        return np.zeros((1, ndim), np.int64)
    structure = iterate_structure(generate_binary_structure(ndim, 2), n_steps)
    return np.argwhere(structure) - n_steps


def grown_voxels(components: Lesions, n_steps: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The voxels of all components grown by ``n_steps`` within the image, and the component of each.

    A voxel reached by several components is listed for each of them.

    Args:
        components: K components.
        n_steps: how far they grow, at least 0.

    Returns:
        Flat C-order indices, unordered, with repetitions, and the component ids; both of shape (n,).
    """
    if not n_steps or not len(components):
        return components.voxels, components.voxel_ids
    shape = np.asarray(components.shape)
    coordinates = components.voxel_coordinates()
    # Only the surface grows beyond the component: inner voxels need no copies.
    surface = _surface(components)
    voxels, ids = [components.voxels], [components.voxel_ids]
    for offset in ball_offsets(len(shape), n_steps):
        moved = coordinates[surface] + offset
        inside = ((moved >= 0) & (moved < shape)).all(axis=1)
        voxels.append(np.ravel_multi_index(tuple(moved[inside].T), components.shape))
        ids.append(components.voxel_ids[surface][inside])
    return np.concatenate(voxels), np.concatenate(ids)


def joined_when_grown(lesions: Lesions, n_steps: int, connectivity: int | None = None) -> Lesions:
    """Lesions that touch each other when grown by ``n_steps`` become one.

    Args:
        lesions: K components.
        n_steps: how far they grow.
        connectivity: that decides what touches, as in ``find_lesions``.

    Returns:
        The lesions, with their own voxels only, and new ids in the order of their first voxels.

    Example:
        >>> apart = find_lesions(np.array([[1, 0, 0, 1, 0, 0, 0, 1]]), (1, 1))
        >>> joined_when_grown(apart, 1).n_voxels.tolist()
        [2, 1]
    """
    if len(lesions) < 2:
        return lesions
    # A mask of the whole image, since find_lesions labels masks; lesions that grew into each other are one in it.
    voxels, _ = grown_voxels(lesions, n_steps)
    mask = np.zeros(int(np.prod(lesions.shape)), bool)
    mask[voxels] = True
    grown = find_lesions(mask.reshape(lesions.shape), lesions.spacing_mm, connectivity)
    _, first = np.unique(lesions.voxel_ids, return_index=True)
    group = grown.voxel_ids[np.searchsorted(grown.voxels, lesions.voxels[first])]
    return join_lesions(lesions, group)


def _surface(components: Lesions) -> NDArray[np.bool_]:
    """Which voxels have a neighbour (over a face) outside the foreground; shape (n,)."""
    known = components.voxels
    coordinates = components.voxel_coordinates()
    inner = np.ones(len(known), bool)
    stride = 1
    for axis in reversed(range(len(components.shape))):
        # One stride further in the flat array may be in the next row or slice, so the edge is asked for, too.
        for step, at_edge in ((-stride, 0), (stride, components.shape[axis] - 1)):
            position = np.minimum(np.searchsorted(known, known + step), len(known) - 1)
            inner &= (known[position] == known + step) & (coordinates[:, axis] != at_edge)
        stride *= components.shape[axis]
    return ~inner
