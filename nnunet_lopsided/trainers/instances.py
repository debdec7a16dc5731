"""Lesion ids that travel with the patch: whole-volume components through nnU-Net's loader, weights out of it.

They travel in the label map itself: a voxel of lesion ``id`` with label ``label`` is ``label + n_labels * id``, every
other voxel its label (-1 outside the nonzero mask). A second channel would be cropped, resampled and cleaned once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from numpy.typing import NDArray

from nnunet_lopsided.architectures.deeplabv3_25d import centre_slice
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.lesions import Lesions, find_lesions
from nnunet_lopsided.losses.inverse_weighting import lesion_weights
from nnunet_lopsided.nnunet.preprocessed_case import Properties, StoredArray
from nnunet_lopsided.trainers.host_types import Dataset, PerLevel


@dataclass(frozen=True)
class LesionCodes:
    """What the voxels of a case's lesions carry beside their labels.

    Attributes:
        coordinates: of every lesion voxel, (axes, n).
        added: to its label, ``n_labels * id``, (n,).
    """

    coordinates: NDArray[np.int64]
    added: NDArray[np.int16]

    @classmethod
    def of(cls, lesions: Lesions, n_labels: int) -> LesionCodes:
        """Of all lesions; ``n_labels`` is one more than the largest label value.

        Ids above 32767 / n_labels - 1 start over, because nnU-Net's loader carries labels as int16: two lesions so far
        apart in number that meet in one patch count as one.
        """
        largest_id = np.iinfo(np.int16).max // n_labels - 1
        added = ((lesions.voxel_ids - 1) % largest_id + 1) * n_labels
        return cls(np.ascontiguousarray(lesions.voxel_coordinates().T), added.astype(np.int16))


class LabelWithIds:
    """A label map (1, ...) whose lesion voxels bring their ids: any crop of it, without decoding the volume.

    Has what nnU-Net's loader asks of an array: ``shape``, and slicing to a NumPy array.

    Args:
        label: the label map, an array or nnU-Net's compressed one.
        lesions: its lesions.
    """

    dtype = np.dtype(np.int16)

    def __init__(self, label: StoredArray, lesions: LesionCodes) -> None:
        self.shape = label.shape
        self._label = label
        self._lesions = lesions

    def __getitem__(self, crop: tuple[slice, ...]) -> NDArray[np.int16]:
        """The crop given by one slice per dimension; those of the volume have start and stop."""
        patch = np.array(self._label[crop], self.dtype)
        inside, at = within(crop[1:], self._lesions.coordinates)
        patch[(0, *at)] += self._lesions.added[inside]
        return patch


def within(crop: tuple[slice, ...], coordinates: NDArray[np.integer]) -> tuple[NDArray[np.bool_], tuple[Any, ...]]:
    """Which voxels lie in a crop, and where in it.

    Args:
        crop: one slice with start and stop per axis.
        coordinates: of voxels, (axes, n).

    Returns:
        Whether each does, (n,); and an index per axis of those that do.

    Example:
        >>> inside, at = within((slice(1, 3), slice(0, 2)), np.array([[0, 1, 2], [0, 0, 1]]))
        >>> inside.tolist(), [axis.tolist() for axis in at]
        ([False, True, True], [[0, 1], [0, 1]])
    """
    inside = np.ones(coordinates.shape[1], bool)
    for axis, part in zip(coordinates, crop, strict=True):
        inside &= (axis >= part.start) & (axis < part.stop)
    return inside, tuple(axis[inside] - part.start for axis, part in zip(coordinates, crop, strict=True))


class DatasetAround:
    """An nnU-Net dataset of which a subclass gives other cases.

    Args:
        dataset: nnU-Net's.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):  # while unpickling in a worker, before __init__ has run
            raise AttributeError(name)
        return getattr(self._dataset, name)


class WithInstances(DatasetAround):
    """An nnU-Net dataset whose labels bring lesion ids, so that a lesion cut by the patch stays one lesion.

    Args:
        dataset: nnU-Net's.
        n_labels: one more than the largest label value.
        ignore_label: the label value that is no lesion; None if there is none.
    """

    def __init__(self, dataset: Dataset, n_labels: int, ignore_label: int | None) -> None:
        super().__init__(dataset)
        self._n_labels = n_labels
        self._ignore_label = ignore_label
        self._known: dict[str, LesionCodes] = {}

    def load_case(self, identifier: str) -> tuple[StoredArray, LabelWithIds, StoredArray | None, Properties]:
        """Image, labels with lesion ids, labels of a cascade's previous stage, properties.

        Raises:
            InputError: a label is larger than ``n_labels`` allows.
        """
        data, label, previous, properties = self._dataset.load_case(identifier)
        if identifier not in self._known:
            whole = label[0] if isinstance(label, np.ndarray) else label[:][0]
            if whole.max(initial=0) >= self._n_labels:
                # A code of label and id would be read as another label.
                raise InputError(
                    f"case {identifier}: its preprocessed labels hold {int(whole.max())}, expected at most "
                    f"{self._n_labels - 1}, the largest value that dataset.json declares"
                )
            foreground = whole > 0  # -1 marks voxels outside the nonzero mask
            if self._ignore_label is not None:
                foreground &= whole != self._ignore_label
            # Sizes are counted in voxels of the preprocessed image, as Shirokikh et al. do: spacing plays no part.
            lesions = find_lesions(foreground, (1.0,) * whole.ndim)
            self._known[identifier] = LesionCodes.of(lesions, self._n_labels)
        return data, LabelWithIds(label, self._known[identifier]), previous, properties


class SpatialWithInstances(BasicTransform):
    """nnU-Net's spatial augmentation of labels with lesion ids.

    nnU-Net resamples the patch once per value in it, which for ids means once per lesion. Ids need not be resampled:
    the voxels around a point hold at most one lesion, since components are 26-connected (in a slice 8-connected), so a
    point whose label came out as lesion has the one id among them.

    Args:
        spatial: nnU-Net's transform.
        n_labels: one more than the largest label value.
        ignore_label: the label value that is no lesion; None if there is none.
        cascaded: the second half of the channels are labels of a cascade's previous stage.
    """

    def __init__(
        self, spatial: SpatialTransform, n_labels: int, ignore_label: int | None, cascaded: bool = False
    ) -> None:
        super().__init__()
        self._spatial = spatial
        self._n_labels = n_labels
        self._ignore_label = ignore_label
        self._cascaded = cascaded

    def get_parameters(self, **data_dict: torch.Tensor) -> dict[str, object]:
        parameters: dict[str, object] = self._spatial.get_parameters(**data_dict)
        return parameters

    def _apply_to_image(self, img: torch.Tensor, **params: object) -> torch.Tensor:
        image: torch.Tensor = self._spatial._apply_to_image(img, **params)
        return image

    def _apply_to_segmentation(
        self, segmentation: torch.Tensor, *, grid: torch.Tensor | None, **params: object
    ) -> torch.Tensor:
        resampled: torch.Tensor
        if grid is None:  # a crop
            resampled = self._spatial._apply_to_segmentation(segmentation, grid=grid, **params)
            return resampled
        # A 3D patch augmented in the plane has its slices as channels: those of the labels, then of the previous stage.
        segmentation = segmentation.contiguous()
        coded = segmentation[: len(segmentation) // 2] if self._cascaded else segmentation
        at, codes = _lesion_codes(coded, self._n_labels)
        coded.view(-1)[at] = codes % self._n_labels
        resampled = self._spatial._apply_to_segmentation(segmentation, grid=grid, **params)
        coded.view(-1)[at] = codes  # back in place, to be looked up below
        own = resampled[: len(coded)]
        lesion = own > 0
        if self._ignore_label is not None:
            lesion &= own != self._ignore_label
        voxels = _nonzero(lesion)
        nearest_codes = _largest_around(voxels, coded, grid)
        own.view(-1)[voxels] += nearest_codes - nearest_codes % self._n_labels
        return resampled


def _nonzero(mask: torch.Tensor) -> torch.Tensor:
    """Flat indices of the true values; NumPy finds few of them several times faster."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _lesion_codes(coded: torch.Tensor, n_labels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat indices of the voxels that carry an id, and their values."""
    at = _nonzero(coded >= n_labels)
    return at, coded.view(-1)[at]


def _largest_around(voxels: torch.Tensor, values: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """The largest value next to the grid point of every voxel.

    Args:
        voxels: flat indices into (C, ...) after resampling.
        values: (C, ...) before resampling.
        grid: (..., axes), points as ``grid_sample`` takes them: last axis first, -1 and 1 the edges of ``values``.
    """
    points = grid.reshape(-1, grid.shape[-1])
    channel, point = np.divmod(voxels.numpy(), len(points))
    position = points[torch.from_numpy(point)].flip(1).numpy()
    index = channel * values[0].numel()
    # Of two neighbours along an axis one may lie beyond the edge; then the other one counts twice.
    corners: list[tuple[NDArray[np.int64], ...]] = []
    for axis, size in enumerate(values.shape[1:]):
        lower = np.floor(((position[:, axis] + 1) * size - 1) / 2).astype(np.int64)
        step = values.stride(axis + 1)
        corners.append(tuple(np.clip(lower + i, 0, size - 1) * step for i in (0, 1)))
    flat, largest = values.view(-1).numpy(), np.zeros(len(index), np.int16)
    for corner in product(*corners):
        np.maximum(largest, flat[sum(corner, start=index)], out=largest)
    return torch.from_numpy(largest)


class WeightedTarget(SegOnlyTransform):
    """The end of nnU-Net's augmentation for a weighted loss: labels with ids -> float32 target with weights last.

    Args:
        n_labels: one more than the largest label value.
        regions: nnU-Net's regions, ignore label last, for region-based training; None for labels.
        deep_supervision_scales: as in nnU-Net; None without deep supervision.
        centre_slice_only: keep the slice that a 2.5D network predicts; weights are of that slice alone.
    """

    def __init__(
        self,
        n_labels: int,
        regions: Sequence[object] | None,
        deep_supervision_scales: list[list[float]] | None,
        centre_slice_only: bool = False,
    ) -> None:
        super().__init__()
        self._n_labels = n_labels
        self._centre_slice_only = centre_slice_only
        self._to_regions = None if regions is None else ConvertSegmentationToRegionsTransform(regions)
        self._scale = None
        if deep_supervision_scales is not None:
            self._scale = DownsampleSegForDSTransform(ds_scales=deep_supervision_scales)

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: object) -> PerLevel:
        if self._centre_slice_only:
            segmentation = centre_slice(segmentation[None])[0]
        label = segmentation[:1].contiguous()
        at, codes = _lesion_codes(label, self._n_labels)
        label.view(-1)[at] = codes % self._n_labels
        background, lesions = lesion_weights((codes // self._n_labels).numpy(), label.numel())
        if self._to_regions is not None:
            label = self._to_regions(segmentation=label)["segmentation"]
        target = torch.empty((len(label) + 1, *label.shape[1:]))
        target[:-1] = label
        target[-1].fill_(background).view(-1)[at] = torch.from_numpy(lesions).float()
        # Together with its weights, by nnU-Net's own step: a coarse voxel takes both of the same fine one.
        levels: PerLevel = target if self._scale is None else self._scale(segmentation=target)["segmentation"]
        return levels
