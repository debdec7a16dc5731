"""nnU-Net's augmentation for stacks of slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_lopsided.trainers.augmentation_25d import BlurInPlane, CentreSliceOfTarget, SpatialOfStack, for_slice_stacks


def test_blur_stays_in_the_plane() -> None:
    image = torch.zeros(2, 3, 15, 15)
    image[:, 1, 7, 7] = 1
    blurred = BlurInPlane(GaussianBlurTransform((1.0, 1.0)))(image=image.clone())["image"]
    assert torch.all(blurred[:, [0, 2]] == 0)
    torch.testing.assert_close(blurred[:, 1].sum((1, 2)), torch.ones(2))
    # Separable, with the Gaussian of sigma 1: neighbours are exp(-1/2) of the centre.
    torch.testing.assert_close(blurred[0, 1, 7, 8] / blurred[0, 1, 7, 7], torch.tensor(-0.5).exp())
    assert torch.equal(blurred[0, 1], blurred[0, 1].T)


def test_every_channel_is_blurred_with_its_probability() -> None:
    torch.manual_seed(0)
    blur = BlurInPlane(GaussianBlurTransform((0.5, 1.0), p_per_channel=0.5))
    image = torch.rand(400, 1, 8, 8)
    changed = (blur(image=image.clone())["image"] != image).flatten(1).any(1)
    assert 0.4 < changed.float().mean() < 0.6


def test_the_target_of_the_centre() -> None:
    segmentation = torch.arange(2 * 5 * 4).reshape(2, 5, 2, 2)
    assert torch.equal(CentreSliceOfTarget()(segmentation=segmentation)["segmentation"], segmentation[:, 2:3])


def test_the_centre_is_resampled_by_nnunet_the_others_keep_their_mask() -> None:
    stock = SpatialTransform((20, 20), 0, False, border_mode_seg="constant", padding_value_seg=-1, p_rotation=1)
    segmentation = torch.zeros(5, 20, 20, dtype=torch.int16)
    segmentation[:, 5:9, 5:12] = 1
    segmentation[:, :, 15:] = -1
    np.random.seed(0)  # noqa: NPY002 - what nnU-Net's augmentation draws from
    parameters = stock.get_parameters(image=segmentation)
    assert parameters["grid"] is not None
    expected = stock._apply_to_segmentation(segmentation, **parameters)
    got = SpatialOfStack(stock)._apply_to_segmentation(segmentation, **parameters)
    assert torch.equal(got[2], expected[2])
    assert (got[2] == 1).any()
    others = [0, 1, 3, 4]
    assert set(got[others].unique().tolist()) == {-1, 0}
    # The nearest voxel and nnU-Net's weighing of the four around differ at the border of the mask alone.
    assert ((got[others] < 0) != (expected[others] < 0)).float().mean() < 0.02


@pytest.mark.parametrize("n_slices", [1, 3, 5, 7])
@pytest.mark.parametrize("masked", [False, True])
def test_any_number_of_slices_passes_every_step(n_slices: int, masked: bool) -> None:
    augmentation = nnUNetTrainer.get_training_transforms(
        (n_slices, 24, 24), (-3.0, 3.0), None, (1, 2), True, use_mask_for_norm=[masked, masked]
    )
    for step in for_slice_stacks(augmentation, masked).transforms:
        step.apply_probability = 1  # of those that are random
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what nnU-Net's augmentation draws from
    segmentation = torch.ones(1, n_slices, 30, 30, dtype=torch.int16)
    out = augmentation(image=torch.rand(2, n_slices, 30, 30), segmentation=segmentation)
    assert out["image"].shape == (2, n_slices, 24, 24)
    assert out["image"].isfinite().all()
    assert out["segmentation"].shape == (1, n_slices if masked else 1, 24, 24)
