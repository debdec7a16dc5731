"""Lesion ids that travel with the patch: whole-volume components through nnU-Net's loader, weights out of it."""

from __future__ import annotations

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
from nnunet_lopsided.lesions import Lesions, find_lesions
from nnunet_lopsided.losses import inverse_size_weights

_LARGEST_ID = np.iinfo(np.int16).max  # nnU-Net's loader carries labels as int16


class InstanceMap:
    """The instance map of a volume, kept as its foreground voxels: any crop of it, without the volume.

    Has what nnU-Net's loader asks of an array: ``shape``, and slicing to a NumPy array.
    """

    dtype = np.dtype(np.int16)

    def __init__(self, lesions: Lesions) -> None:
        self.shape = lesions.shape
        self._coordinates = lesions.voxel_coordinates().T
        self._ids = ((lesions.voxel_ids - 1) % _LARGEST_ID + 1).astype(np.int16)

    def __getitem__(self, crop: tuple[slice, ...]) -> NDArray[np.int16]:
        """Ids inside the crop, given by one slice with start and stop per axis."""
        starts = [part.start for part in crop]
        patch = np.zeros([max(0, part.stop - part.start) for part in crop], np.int16)
        inside = np.ones(len(self._ids), bool)
        for axis, part in zip(self._coordinates, crop, strict=True):
            inside &= (axis >= part.start) & (axis < part.stop)
        at = tuple(axis[inside] - start for axis, start in zip(self._coordinates, starts, strict=True))
        patch[at] = self._ids[inside]
        return patch


class WithInstances:
    """An nnU-Net dataset whose cases bring their lesion ids where a cascade brings the previous stage.

    nnU-Net's loader then crops the ids with the patch and passes them through the spatial augmentation as a second
    label channel, so that a lesion cut by the patch stays one lesion.
    """

    def __init__(self, dataset: Any, ignore_label: int | None) -> None:
        self._dataset = dataset
        self._ignore_label = ignore_label
        self._known: dict[str, InstanceMap] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # while unpickling in a worker, before __init__ has run
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def load_case(self, identifier: str) -> tuple[Any, Any, InstanceMap, dict[str, Any]]:
        """Image, labels, lesion ids of the whole volume, properties."""
        data, label, _, properties = self._dataset.load_case(identifier)
        if identifier not in self._known:
            whole = label[0] if isinstance(label, np.ndarray) else label[:][0]
            foreground = whole > 0  # -1 marks voxels outside the nonzero mask
            if self._ignore_label is not None:
                foreground &= whole != self._ignore_label
            # Sizes are counted in voxels of the preprocessed image, as Shirokikh et al. do: spacing plays no part.
            self._known[identifier] = InstanceMap(find_lesions(foreground, (1.0,) * whole.ndim))
        return data, label, self._known[identifier], properties


class SpatialWithInstances(BasicTransform):
    """nnU-Net's spatial augmentation of labels whose second half of channels are lesion ids.

    nnU-Net resamples the patch once per value in it, which for ids means once per lesion. Ids need not be resampled:
    the voxels around a point hold at most one lesion, since components are 26-connected (in a slice 8-connected), so a
    point whose label came out as lesion has the one id among them.

    Args:
        spatial: nnU-Net's transform.
        ignore_label: the label value that is no lesion; None if there is none.
    """

    def __init__(self, spatial: SpatialTransform, ignore_label: int | None) -> None:
        super().__init__()
        self._spatial = spatial
        self._ignore_label = ignore_label

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        return self._spatial.get_parameters(**data_dict)

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        return self._spatial._apply_to_image(img, **params)

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        if params["grid"] is None:  # a crop
            return self._spatial._apply_to_segmentation(segmentation, **params)
        # A 3D patch augmented in the plane has its slices as channels: labels of all slices, then ids of all slices.
        half = segmentation.shape[0] // 2
        labels = self._spatial._apply_to_segmentation(segmentation[:half], **params)
        lesion = labels > 0
        if self._ignore_label is not None:
            lesion &= labels != self._ignore_label
        return torch.cat((labels, _ids_at(lesion, segmentation[half:], params["grid"])))


def _ids_at(lesion: torch.Tensor, ids: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """The id next to the grid point of every lesion voxel, elsewhere 0: (C, ...) like ``lesion``.

    ``grid`` (..., axes) are points as ``grid_sample`` takes them: last axis first, -1 and 1 the outer edges of ``ids``.
    """
    sampled = torch.zeros(lesion.shape, dtype=ids.dtype)
    channel, *at = lesion.nonzero(as_tuple=True)
    size = torch.tensor(ids.shape[1:])
    lowest = (((grid[tuple(at)].flip(1) + 1) * size - 1) / 2).floor().long()
    found = torch.zeros(len(channel), dtype=ids.dtype)
    for step in product((0, 1), repeat=len(size)):
        corner = lowest + torch.tensor(step)
        inside = ((corner >= 0) & (corner < size)).all(1)
        corner = corner.clamp_min(0).minimum(size - 1)
        found = found.maximum(torch.where(inside, ids[(channel, *corner.T)], 0))
    sampled[(channel, *at)] = found
    return sampled


class WeightedTarget(SegOnlyTransform):
    """The end of nnU-Net's augmentation for a weighted loss: labels and ids -> float32 target with weights last.

    Args:
        regions: nnU-Net's regions, ignore label last, for region-based training; None for labels.
        deep_supervision_scales: as in nnU-Net; None without deep supervision.
        centre_slice_only: keep the slice that a 2.5D network predicts; weights are of that slice alone.
    """

    def __init__(
        self,
        regions: list[Any] | None,
        deep_supervision_scales: list[list[float]] | None,
        centre_slice_only: bool = False,
    ) -> None:
        super().__init__()
        self._centre_slice_only = centre_slice_only
        self._to_regions = None if regions is None else ConvertSegmentationToRegionsTransform(regions)
        self._scale = None
        if deep_supervision_scales is not None:
            self._scale = DownsampleSegForDSTransform(ds_scales=deep_supervision_scales)

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> Any:
        if self._centre_slice_only:
            segmentation = centre_slice(segmentation[None])[0]
        label, ids = segmentation[:1], segmentation[1]
        if self._to_regions is not None:
            label = self._to_regions(segmentation=label)["segmentation"]
        target = torch.empty((len(label) + 1, *ids.shape))
        target[:-1] = label
        target[-1] = inverse_size_weights(ids)
        return target if self._scale is None else self._scale(segmentation=target)["segmentation"]
