"""Lesion ids that travel with the patch: whole-volume components through nnU-Net's loader, weights out of it.

They travel in the label map itself: a voxel of lesion ``id`` with label ``label`` is ``label + n_labels * id``, every
other voxel its label (-1 outside the nonzero mask). A second channel would be cropped, resampled and cleaned once more.
"""

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
from nnunet_lopsided.losses.inverse_weighting import lesion_weights


class LabelWithIds:
    """A label map (1, ...) whose lesion voxels bring their ids: any crop of it, without decoding the volume.

    Has what nnU-Net's loader asks of an array: ``shape``, and slicing to a NumPy array.

    Args:
        label: the label map, an array or nnU-Net's compressed one.
        lesions: its lesions.
        n_labels: one more than the largest label value. Ids above 32767 / n_labels start over (nnU-Net's loader carries
            labels as int16): two lesions so far apart in number that meet in one patch count as one.
    """

    dtype = np.dtype(np.int16)

    def __init__(self, label: Any, lesions: Lesions, n_labels: int) -> None:
        self.shape = label.shape
        self._label = label
        self._coordinates = lesions.voxel_coordinates().T
        largest_id = np.iinfo(self.dtype).max // n_labels - 1
        self._added = (((lesions.voxel_ids - 1) % largest_id + 1) * n_labels).astype(self.dtype)

    def __getitem__(self, crop: tuple[slice, ...]) -> NDArray[np.int16]:
        """The crop given by one slice per dimension; those of the volume have start and stop."""
        patch = np.array(self._label[crop], self.dtype)
        inside = np.ones(len(self._added), bool)
        for axis, part in zip(self._coordinates, crop[1:], strict=True):
            inside &= (axis >= part.start) & (axis < part.stop)
        at = tuple(axis[inside] - part.start for axis, part in zip(self._coordinates, crop[1:], strict=True))
        patch[(0, *at)] += self._added[inside]
        return patch


class WithInstances:
    """An nnU-Net dataset whose labels bring lesion ids, so that a lesion cut by the patch stays one lesion.

    Args:
        dataset: nnU-Net's.
        n_labels: one more than the largest label value.
        ignore_label: the label value that is no lesion; None if there is none.
    """

    def __init__(self, dataset: Any, n_labels: int, ignore_label: int | None) -> None:
        self._dataset = dataset
        self._n_labels = n_labels
        self._ignore_label = ignore_label
        self._known: dict[str, Lesions] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # while unpickling in a worker, before __init__ has run
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def load_case(self, identifier: str) -> tuple[Any, LabelWithIds, Any, dict[str, Any]]:
        """Image, labels with lesion ids, labels of a cascade's previous stage, properties."""
        data, label, previous, properties = self._dataset.load_case(identifier)
        if identifier not in self._known:
            whole = label[0] if isinstance(label, np.ndarray) else label[:][0]
            foreground = whole > 0  # -1 marks voxels outside the nonzero mask
            if self._ignore_label is not None:
                foreground &= whole != self._ignore_label
            # Sizes are counted in voxels of the preprocessed image, as Shirokikh et al. do: spacing plays no part.
            self._known[identifier] = find_lesions(foreground, (1.0,) * whole.ndim)
        return data, LabelWithIds(label, self._known[identifier], self._n_labels), previous, properties


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

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        return self._spatial.get_parameters(**data_dict)

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        return self._spatial._apply_to_image(img, **params)

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        if params["grid"] is None:  # a crop
            return self._spatial._apply_to_segmentation(segmentation, **params)
        # A 3D patch augmented in the plane has its slices as channels: those of the labels, then of the previous stage.
        segmentation = segmentation.contiguous()
        coded = segmentation[: len(segmentation) // 2] if self._cascaded else segmentation
        at, codes = _lesion_codes(coded, self._n_labels)
        coded.view(-1)[at] = codes % self._n_labels
        resampled = self._spatial._apply_to_segmentation(segmentation, **params)
        coded.view(-1)[at] = codes
        own = resampled[: len(coded)]
        lesion = own > 0
        if self._ignore_label is not None:
            lesion &= own != self._ignore_label
        voxels = lesion.nonzero(as_tuple=True)
        found = _largest_around(voxels, coded, params["grid"])
        own[voxels] += found - found % self._n_labels
        return resampled


def _lesion_codes(coded: torch.Tensor, n_labels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat indices of the voxels that carry an id, and their values."""
    # NumPy finds the few true values of a mask several times faster.
    at = torch.from_numpy(np.flatnonzero((coded >= n_labels).numpy()))
    return at, coded.view(-1)[at]


def _largest_around(voxels: tuple[torch.Tensor, ...], values: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """The largest value next to the grid point of every voxel; 0 if there is none above.

    Args:
        voxels: channels and coordinates of voxels after resampling.
        values: (C, ...) before resampling.
        grid: (..., axes), points as ``grid_sample`` takes them: last axis first, -1 and 1 the edges of ``values``.
    """
    channel, *at = voxels
    size = torch.tensor(values.shape[1:])
    lowest = (((grid[tuple(at)].flip(1) + 1) * size - 1) / 2).floor().long()
    found = torch.zeros(len(channel), dtype=values.dtype)
    for step in product((0, 1), repeat=len(size)):
        corner = lowest + torch.tensor(step)
        inside = ((corner >= 0) & (corner < size)).all(1)
        corner = corner.clamp_min(0).minimum(size - 1)
        found = found.maximum(torch.where(inside, values[(channel, *corner.T)], 0))
    return found


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
        regions: list[Any] | None,
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

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> Any:
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
        return target if self._scale is None else self._scale(segmentation=target)["segmentation"]
