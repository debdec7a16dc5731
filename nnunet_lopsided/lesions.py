"""Label map -> lesions: the one place of this package that computes connected components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

_CELL = 8  # voxels along each side of the cells that tell which foreground lies far apart
_PLACE_VOXELS = 30_000  # labelling one more box costs as much as so many voxels of another


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """The connected components of one mask, stored sparsely: its foreground voxels and the component of each.

    Component ``i`` (an index from 0) has the id ``i + 1``; ids follow the C order of each component's first voxel, so
    the same mask always gives the same ids. Coordinates are in array order: (z, y, x) for images read with SimpleITK.

    Attributes:
        shape: shape of the mask.
        spacing_mm: voxel size along each array axis, in mm (pixels where the image has no spacing).
        voxels: flat C-order index of every foreground voxel, ascending; int64, shape (n,).
        voxel_ids: component id (1..K) of every foreground voxel; int32, shape (n,).
        n_voxels: voxels per component; int64, shape (K,).
        centroids: mean voxel index per component; float64, shape (K, ndim).
        boxes: first (inclusive) and last (exclusive) index of each component along each axis; int64, (K, ndim, 2).
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    voxels: NDArray[np.int64]
    voxel_ids: NDArray[np.int32]
    n_voxels: NDArray[np.int64]
    centroids: NDArray[np.float64]
    boxes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.n_voxels)

    @property
    def volume_mm3(self) -> NDArray[np.float64]:
        """Volume per component in mm3 (area in mm2 for 2D masks), shape (K,)."""
        volumes: NDArray[np.float64] = self.n_voxels * np.float64(np.prod(self.spacing_mm))
        return volumes

    @property
    def diameter_mm(self) -> NDArray[np.float64]:
        """Diameter in mm of the sphere (2D: the circle) of equal volume, shape (K,)."""
        return equivalent_diameter_mm(self.volume_mm3, len(self.shape))

    @property
    def centroids_mm(self) -> NDArray[np.float64]:
        """Centroids in mm along the array axes, measured from the centre of voxel 0; shape (K, ndim)."""
        in_mm: NDArray[np.float64] = self.centroids * np.asarray(self.spacing_mm)
        return in_mm

    def voxel_coordinates(self) -> NDArray[np.int64]:
        """Array index of every foreground voxel, shape (n, ndim)."""
        coordinates: tuple[NDArray[np.int64], ...] = np.unravel_index(self.voxels, self.shape)
        return np.stack(coordinates, axis=1).astype(np.int64, copy=False)

    def instances(self) -> NDArray[np.int32]:
        """Dense instance map: 0 is background, 1..K the components; shape ``shape``."""
        dense = np.zeros(int(np.prod(self.shape)), np.int32)
        dense[self.voxels] = self.voxel_ids
        return dense.reshape(self.shape)

    def voxels_by_id(self) -> list[NDArray[np.int64]]:
        """Flat voxel indices of each component, ascending; K arrays.

        Example:
            >>> import numpy as np
            >>> [voxels.tolist() for voxels in find_lesions(np.array([[1, 0, 1], [1, 0, 0]]), (1, 1)).voxels_by_id()]
            [[0, 3], [2]]
        """
        if not len(self):
            return []
        # Stable, so that the voxels of each component stay ascending.
        return np.split(self.voxels[np.argsort(self.voxel_ids, kind="stable")], np.cumsum(self.n_voxels)[:-1])

    def select(self, ids: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        """Flat voxel indices of the components with these ids (1..K)."""
        wanted = np.zeros(len(self) + 1, bool)
        wanted[np.asarray(ids, np.int64)] = True
        selected: NDArray[np.int64] = self.voxels[wanted[self.voxel_ids]]
        return selected


def equivalent_diameter_mm(volume_mm3: NDArray[np.floating], ndim: int) -> NDArray[np.float64]:
    """Diameter in mm of spheres of these volumes (``ndim`` 2: of circles of these areas)."""
    volumes = volume_mm3.astype(np.float64, copy=False)
    diameters: NDArray[np.float64] = 2.0 * np.sqrt(volumes / np.pi) if ndim == 2 else np.cbrt(6.0 * volumes / np.pi)
    return diameters


def _component_of_voxels(
    coordinates: tuple[NDArray[np.int64], ...], connectivity: int, numbers: NDArray[np.int32] | None = None
) -> NDArray[np.integer]:
    """A component number for each foreground voxel, given in C order; the numbers are in no particular order.

    Only what the foreground spans is labelled: where it lies in a few places far from each other, each by itself. With
    ``numbers``, one per voxel, voxels of different numbers are not connected.
    """
    n_spanned = math.prod(int(c.max()) + 1 - int(c.min()) for c in coordinates)
    if n_spanned < 20 * _PLACE_VOXELS:
        return _labelled_box(coordinates, connectivity, numbers)
    # Voxels that touch lie in the same cell or in cells that touch, so no component reaches from one place to another.
    place = _labelled_box(tuple(c // _CELL for c in coordinates), 8 if len(coordinates) == 2 else 26)
    n_places = int(place.max())
    if n_places == 1 or n_places * _PLACE_VOXELS > n_spanned:
        return _labelled_box(coordinates, connectivity, numbers)
    component, n = np.empty(len(place), np.int64), 0
    for there in np.split(np.argsort(place, kind="stable"), np.cumsum(np.bincount(place)[1:-1])):
        of_place = _labelled_box(
            tuple(c[there] for c in coordinates), connectivity, None if numbers is None else numbers[there]
        )
        component[there] = of_place + np.int64(n)
        n += int(of_place.max())
    return component


def _labelled_box(
    coordinates: tuple[NDArray[np.int64], ...], connectivity: int, numbers: NDArray[np.int32] | None = None
) -> NDArray[np.integer]:
    """A component number, from 1 on, for each of some voxels, found in their bounding box."""
    low = [int(c.min()) for c in coordinates]
    # One voxel more than the bounding box: cc3d 4.1.1 runs out of ids where isolated voxels fill one of odd sides.
    sides = [int(c.max()) + 2 - start for c, start in zip(coordinates, low, strict=True)]
    box = np.zeros(sides, bool if numbers is None else numbers.dtype)
    inside = tuple(c - start for c, start in zip(coordinates, low, strict=True))
    box[inside] = True if numbers is None else numbers
    labelled: NDArray[np.integer] = cc3d.connected_components(box, connectivity=connectivity)
    return labelled[inside]


def find_lesions(label: NDArray[np.generic], spacing_mm: Sequence[float], connectivity: int | None = None) -> Lesions:
    """Connected components of the nonzero voxels of a 2D or 3D mask.

    The cost is one pass over the mask to find its foreground, and cc3d's over the foreground's bounding box. An empty
    mask gives zero lesions.

    Args:
        label: mask or label map, shape (z, y, x) or (y, x); every nonzero (or True) voxel is foreground.
        spacing_mm: voxel size along each axis of ``label``, in mm, all positive.
        connectivity: 26, 18 or 6 for 3D, 8 or 4 for 2D. Default: 26 (8 in 2D).

    Returns:
        The components with sizes, centroids and boxes.

    Raises:
        ValueError: ``label`` is not 2D or 3D, ``spacing_mm`` does not fit it or is not positive, or the connectivity
            does not exist in that dimension.

    Example:
        >>> import numpy as np
        >>> mask = np.zeros((4, 4, 4), bool)
        >>> mask[0, 0, 0] = mask[2:, 2:, 2:] = True
        >>> lesions = find_lesions(mask, spacing_mm=(1, 1, 1))
        >>> lesions.n_voxels.tolist(), lesions.centroids[1].tolist()
        ([1, 8], [2.5, 2.5, 2.5])
    """
    label = np.asarray(label)
    if label.ndim not in (2, 3):
        raise ValueError(f"label must have 2 or 3 dimensions, got shape {label.shape}")
    if len(spacing_mm) != label.ndim or not all(s > 0 for s in spacing_mm):
        raise ValueError(f"spacing_mm must be {label.ndim} positive numbers, got {tuple(spacing_mm)}")
    allowed = {2: (8, 4), 3: (26, 18, 6)}[label.ndim]
    if connectivity is None:
        connectivity = allowed[0]
    if connectivity not in allowed:
        raise ValueError(f"connectivity must be one of {allowed} for {label.ndim}D, got {connectivity}")

    spacing = tuple(float(s) for s in spacing_mm)
    voxels = np.flatnonzero(label if label.dtype == bool else label != 0)  # bool is several times as fast
    if len(voxels) == 0:
        return Lesions(
            shape=label.shape,
            spacing_mm=spacing,
            voxels=voxels,
            voxel_ids=np.zeros(0, np.int32),
            n_voxels=np.zeros(0, np.int64),
            centroids=np.zeros((0, label.ndim)),
            boxes=np.zeros((0, label.ndim, 2), np.int64),
        )
    coordinates = np.unravel_index(voxels, label.shape)
    raw_ids = _component_of_voxels(coordinates, connectivity)

    # Whatever the numbering so far: number components by their first voxel.
    _, first, compact = np.unique(raw_ids, return_index=True, return_inverse=True)
    voxel_ids = _by_first(first)[compact.reshape(-1)]
    return _described(label.shape, spacing, coordinates, voxels=voxels, voxel_ids=voxel_ids)


def find_instances(numbers: NDArray[np.integer | np.floating | np.bool_], spacing_mm: Sequence[float]) -> Lesions:
    """The lesions of a map that numbers them: every positive value is one, in one piece or several.

    Args:
        numbers: the lesion of every voxel, 0 for background, shape (z, y, x) or (y, x).
        spacing_mm: voxel size along each axis, in mm, all positive.

    Returns:
        One lesion per value, with ids in the order of their first voxels as :func:`find_lesions` gives them, whatever
        the values are: what is not connected has the same lesions in both.

    Raises:
        ValueError: as :func:`find_lesions`; or a value is negative, no whole number or not finite.

    Example:
        >>> import numpy as np
        >>> lesions = find_instances(np.array([[0, 7, 7, 2, 0, 2]]), spacing_mm=(1, 1))
        >>> lesions.n_voxels.tolist(), lesions.voxel_ids.tolist()
        ([2, 2], [1, 1, 2, 2])
    """
    numbers = np.asarray(numbers)
    foreground = find_lesions(numbers, spacing_mm)
    if not len(foreground):
        return foreground
    values = numbers.reshape(-1)[foreground.voxels]
    if values.dtype != bool and not (np.isfinite(values) & (values > 0) & (values == np.floor(values))).all():
        raise ValueError("numbers must hold 0 and positive whole numbers alone")
    _, first, compact = np.unique(values, return_index=True, return_inverse=True)
    voxel_ids = _by_first(first)[compact.reshape(-1)]
    return lesions_of_voxels(foreground.shape, foreground.spacing_mm, foreground.voxels, voxel_ids)


def pieces_of(lesions: Lesions) -> NDArray[np.int64]:
    """In how many pieces every lesion lies, which do not touch each other (26 neighbours; 2D: 8); (K,).

    Example:
        >>> import numpy as np
        >>> pieces_of(find_instances(np.array([[0, 7, 7, 2, 0, 2]]), spacing_mm=(1, 1))).tolist()
        [1, 2]
    """
    if not len(lesions):
        return np.zeros(0, np.int64)
    coordinates = tuple(lesions.voxel_coordinates().T)
    pieces = _component_of_voxels(coordinates, 8 if len(lesions.shape) == 2 else 26, lesions.voxel_ids)
    # Each pair of a lesion and one of its pieces once, so that counting the lesions counts the pieces.
    of_pieces = np.unique(np.stack([lesions.voxel_ids, pieces.astype(np.int64)]), axis=1)[0]
    return np.bincount(of_pieces, minlength=len(lesions) + 1)[1:].astype(np.int64)


def join_lesions(lesions: Lesions, group: NDArray[np.integer]) -> Lesions:
    """Take several components together as one lesion.

    Args:
        lesions: K components.
        group: any number per component, shape (K,); components of equal number become one.

    Returns:
        The groups as components, with ids in the order of their first voxels.

    Example:
        >>> import numpy as np
        >>> lesions = find_lesions(np.array([[1, 0, 1, 0, 1]]), spacing_mm=(1, 1))
        >>> join_lesions(lesions, np.array([7, 3, 7])).n_voxels.tolist()
        [2, 1]
    """
    if not len(lesions):
        return lesions
    _, first, compact = np.unique(group, return_index=True, return_inverse=True)
    voxel_ids = _by_first(first)[compact.reshape(-1)][lesions.voxel_ids - 1]
    coordinates = np.unravel_index(lesions.voxels, lesions.shape)
    return _described(lesions.shape, lesions.spacing_mm, coordinates, voxels=lesions.voxels, voxel_ids=voxel_ids)


def lesions_of_voxels(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    voxels: NDArray[np.integer],
    voxel_ids: NDArray[np.integer],
) -> Lesions:
    """Components that are known already: from a map with one number per component, or parts of other components.

    Args:
        shape: of the mask they lie in.
        spacing_mm: voxel size along each axis.
        voxels: flat C-order index of every foreground voxel, ascending.
        voxel_ids: the component of each, 1..K; every number occurs. They are kept, connected or not.

    Returns:
        The components, ids as given.

    Raises:
        ValueError: a number from 1 to the largest does not occur.

    Example:
        >>> lesions_of_voxels((2, 3), (1, 1), np.array([0, 1, 5]), np.array([2, 2, 1])).n_voxels.tolist()
        [1, 2]
    """
    spacing = tuple(float(s) for s in spacing_mm)
    if not len(voxels):
        return find_lesions(np.zeros(tuple(shape), bool), spacing)
    ids = np.asarray(voxel_ids, np.int32)
    missing = np.flatnonzero(np.bincount(ids)[1:] == 0)
    if len(missing):
        raise ValueError(f"voxel_ids must hold every number from 1 to {ids.max()}, {missing[0] + 1} is missing")
    flat = np.asarray(voxels, np.int64)
    return _described(tuple(shape), spacing, np.unravel_index(flat, tuple(shape)), voxels=flat, voxel_ids=ids)


def _by_first(first: NDArray[np.integer]) -> NDArray[np.int32]:
    """Ids (from 1) of the components whose first places are given: the earliest is 1."""
    new_id = np.empty(len(first), np.int32)
    new_id[np.argsort(first)] = np.arange(1, len(first) + 1, dtype=np.int32)
    return new_id


def _described(
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    coordinates: tuple[NDArray[np.int64], ...],
    *,
    voxels: NDArray[np.int64],
    voxel_ids: NDArray[np.int32],
) -> Lesions:
    """Sizes, centroids and boxes of the components of at least one voxel."""
    n, ndim = int(voxel_ids.max()), len(shape)
    n_voxels = np.bincount(voxel_ids, minlength=n + 1)[1:]
    centroids = np.empty((n, ndim))
    boxes = np.empty((n, ndim, 2), np.int64)
    for axis, c in enumerate(coordinates):
        centroids[:, axis] = np.bincount(voxel_ids, weights=c, minlength=n + 1)[1:] / n_voxels
        lows = np.full(n + 1, np.iinfo(np.int64).max)
        highs = np.zeros(n + 1, np.int64)
        np.minimum.at(lows, voxel_ids, c)
        np.maximum.at(highs, voxel_ids, c + 1)
        boxes[:, axis, 0], boxes[:, axis, 1] = lows[1:], highs[1:]
    return Lesions(
        shape=shape,
        spacing_mm=spacing_mm,
        voxels=voxels,
        voxel_ids=voxel_ids,
        n_voxels=n_voxels,
        centroids=centroids,
        boxes=boxes,
    )
