"""Lesion ids that travel with the patch: whole-volume components through nnU-Net's loader, weights out of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
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
        weights = inverse_size_weights(ids)[None]
        if self._to_regions is not None:
            label = self._to_regions(segmentation=label)["segmentation"]
        target = torch.cat((label.float(), weights.float()))
        return target if self._scale is None else self._scale(segmentation=target)["segmentation"]
