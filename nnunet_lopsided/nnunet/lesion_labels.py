"""One label map and its lesions: finding them, taking some out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.images import Geometry, Image
from nnunet_lopsided.lesions import Lesions, find_lesions


def label_lesions(label: Image, ignore_label: int | None) -> Lesions:
    """The lesions of one label map: components of what is neither background (0) nor ``ignore_label``."""
    foreground = label.array != 0
    if ignore_label is not None:
        foreground &= label.array != ignore_label
    return find_lesions(foreground, label.geometry.spacing_mm)


def room_for(array: NDArray[np.generic], value: int) -> NDArray[np.generic]:
    """``array`` in a type that holds ``value``: a file of ones may be of a type too small for another label.

    Example:
        >>> room_for(np.ones(2, np.uint8), 300).dtype.name, room_for(np.ones(2, np.uint8), 2).dtype.name
        ('uint16', 'uint8')
    """
    if np.issubdtype(array.dtype, np.integer) and value > np.iinfo(array.dtype.str).max:
        return array.astype(np.min_scalar_type(value))
    return array


def censor_label(label: Image, ignore_label: int | None, ids: Sequence[int], value: int = 0) -> Image:
    """The label map with the lesions of these component ids set to background, or to ``value``; geometry stays.

    Example:
        >>> import numpy as np
        >>> from nnunet_lopsided.images import Geometry
        >>> label = Image(np.array([[1, 1, 0, 2]], np.uint8), Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0)))
        >>> censor_label(label, ignore_label=None, ids=[1]).array.tolist()
        [[0, 0, 0, 2]]
    """
    array = room_for(label.array, value).copy()
    array.reshape(-1)[label_lesions(label, ignore_label).select(ids)] = value
    return Image(array, label.geometry)


@dataclass(frozen=True, kw_only=True)
class SparseLabel:
    """A label map whose lesions are known, small enough to keep while the lesions of all cases are compared.

    Attributes:
        shape: shape of the label map.
        geometry: its geometry.
        voxels: flat index of every nonzero voxel, ascending.
        values: their labels, in the data type of the file.
        ids: the lesion each belongs to; 0 for voxels to ignore.
    """

    shape: tuple[int, ...]
    geometry: Geometry
    voxels: NDArray[np.unsignedinteger]
    values: NDArray[np.generic]
    ids: NDArray[np.unsignedinteger]

    def without(self, ids: Sequence[int], value: int = 0) -> Image:
        """The label map without the lesions of these ids, as :func:`censor_label` would give it."""
        stays = np.ones(int(self.ids.max(initial=0)) + 1, bool)
        stays[np.asarray(ids, np.int64)] = False
        values = room_for(self.values, value)
        array = np.zeros(self.shape, values.dtype)
        array.reshape(-1)[self.voxels] = np.where(stays[self.ids], values, values.dtype.type(value))
        return Image(array, self.geometry)


def sparse_label(label: Image, lesions: Lesions, ignore_label: int | None) -> SparseLabel | None:
    """The label map as a :class:`SparseLabel`, or None where that would not be smaller.

    Args:
        label: the label map.
        lesions: its :func:`label_lesions`.
        ignore_label: the value of voxels to ignore, if there are any.
    """
    flat = label.array.reshape(-1)
    voxels, ids = lesions.voxels, lesions.voxel_ids
    if ignore_label is not None:
        voxels = np.flatnonzero(flat != 0)
        # Ignored voxels are kept too, as the label map must come back whole; both lists ascend, so one is found in the
        # other by bisection.
        ids = np.zeros(len(voxels), np.int32)
        ids[np.searchsorted(voxels, lesions.voxels)] = lesions.voxel_ids
    # Types as small as the numbers need: all cases of a dataset are held at the same time.
    small_ids = ids.astype(np.min_scalar_type(len(lesions)))
    small_voxels = voxels.astype(np.min_scalar_type(flat.size - 1))
    sparse = SparseLabel(
        shape=label.array.shape, geometry=label.geometry, voxels=small_voxels, values=flat[voxels], ids=small_ids
    )
    n_bytes = small_ids.nbytes + small_voxels.nbytes + sparse.values.nbytes
    return sparse if n_bytes < label.array.nbytes else None
