"""nnU-Net's augmentation for stacks of a few slices of which one is predicted: in the plane, without waste."""

from __future__ import annotations

import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch.nn.functional import grid_sample

from nnunet_lopsided.architectures.deeplabv3_25d import centre_slice


def for_slice_stacks(augmentation: ComposeTransforms, masked_images: bool) -> ComposeTransforms:
    """nnU-Net's training augmentation (its dummy-2D one), made fit for stacks of slices.

    Args:
        augmentation: as nnU-Net composes it; changed in place and returned.
        masked_images: the dataset's images are zero outside a mask, which is part of every slice's target; then the
            other slices keep that much of their targets, otherwise nothing.
    """
    for i, step in enumerate(augmentation.transforms):
        if isinstance(step, RandomTransform) and isinstance(step.transform, GaussianBlurTransform):
            step.transform = BlurInPlane(step.transform)
        elif isinstance(step, SpatialTransform):
            augmentation.transforms[i] = SpatialOfStack(step)
    # First of all, so that no step works on slices whose labels nobody asks for.
    if not masked_images:
        augmentation.transforms.insert(0, CentreSliceOfTarget())
    return augmentation


class CentreSliceOfTarget(SegOnlyTransform):
    """Keeps of a target (C, D, H, W) the slice that a 2.5D network predicts."""

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: object) -> torch.Tensor:
        return centre_slice(segmentation[None])[0]


class SpatialOfStack(SpatialTransform):
    """nnU-Net's spatial augmentation of targets (D, H, W) of which the centre slice's labels are used.

    nnU-Net resamples every slice once per label; of the other slices only what lies outside the mask (-1) is needed,
    which is resampled for all at once, to the nearest voxel.

    Args:
        spatial: nnU-Net's transform.
    """

    def __init__(self, spatial: SpatialTransform) -> None:
        # It takes over all that nnU-Net has set; the constructor would ask for each of it again.
        self.__dict__.update(vars(spatial))

    def _apply_to_segmentation(
        self, segmentation: torch.Tensor, *, grid: torch.Tensor | None, **params: object
    ) -> torch.Tensor:
        if grid is None or len(segmentation) == 1:
            as_nnunet: torch.Tensor = super()._apply_to_segmentation(segmentation, grid=grid, **params)
            return as_nnunet
        inside = (segmentation >= 0).float()[None]
        inside = grid_sample(inside, grid[None], "nearest", "zeros", align_corners=self.align_corners)[0]
        resampled = inside.to(segmentation.dtype) - 1  # 0 inside, -1 outside
        centre = slice(len(segmentation) // 2, len(segmentation) // 2 + 1)
        resampled[centre] = super()._apply_to_segmentation(segmentation[centre], grid=grid, **params)
        return resampled


class BlurInPlane(ImageOnlyTransform):
    """nnU-Net's Gaussian blur of every image channel, in the plane alone: its kernel is longer than a stack is deep."""

    def __init__(self, blur: GaussianBlurTransform) -> None:
        super().__init__()
        self._p_per_channel = blur.p_per_channel
        self._blur = GaussianBlurTransform(
            blur.blur_sigma, synchronize_channels=True, synchronize_axes=blur.synchronize_axes, benchmark=blur.benchmark
        )

    def _apply_to_image(self, img: torch.Tensor, **params: object) -> torch.Tensor:
        for channel in (torch.rand(len(img)) < self._p_per_channel).nonzero()[:, 0].tolist():
            img[channel] = self._blur(image=img[channel])["image"]  # its slices as channels of a 2D image
        return img
