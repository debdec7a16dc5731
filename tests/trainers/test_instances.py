"""Lesion ids and weights that travel with the patch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.losses import inverse_size_weights
from nnunet_lopsided.trainers.instances import InstanceMap, SpatialWithInstances, WeightedTarget, WithInstances


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(-3, 7)] * 3), st.tuples(*[st.integers(1, 8)] * 3))
def test_a_crop_is_that_of_the_dense_map(seed: int, start: tuple[int, ...], size: tuple[int, ...]) -> None:
    mask = np.random.default_rng(seed).random((7, 6, 8)) < 0.2
    lesions = find_lesions(mask, (1, 1, 1))
    box = [[a, a + n] for a, n in zip(start, size, strict=True)]
    if any(a >= n or b <= 0 for (a, b), n in zip(box, mask.shape, strict=True)):
        return  # nnU-Net's loader never asks for a patch beside the volume
    ours = crop_and_pad_nd(InstanceMap(lesions), box, -1, cast_cropped_to=np.int16)
    dense = crop_and_pad_nd(lesions.instances().astype(np.int16), box, -1)
    np.testing.assert_array_equal(ours, dense)


def cases(label: np.ndarray) -> Any:
    return SimpleNamespace(load_case=lambda name: ("image", label[None], None, {"case": name}), identifiers=["a"])


def test_components_are_those_of_the_whole_volume() -> None:
    label = np.zeros((1, 1, 9), np.int8)
    label[0, 0] = [1, 2, 0, 1, -1, 1, 0, 3, 0]  # -1: outside the nonzero mask; 3: ignore
    dataset = WithInstances(cases(label), ignore_label=3)
    image, _, ids, properties = dataset.load_case("a")
    assert (image, properties, dataset.identifiers) == ("image", {"case": "a"}, ["a"])
    assert ids[slice(0, 1), slice(0, 1), slice(0, 9)].tolist() == [[[1, 1, 0, 2, 0, 3, 0, 0, 0]]]
    assert ids.shape == (1, 1, 9)


def test_a_lesion_cut_by_the_patch_is_one_lesion() -> None:
    label = np.zeros((1, 3, 5), np.uint8)
    label[0] = [[1, 0, 1, 0, 0], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0]]  # a U and a dot
    _, _, ids, _ = WithInstances(cases(label), None).load_case("a")
    patch = ids[slice(0, 1), slice(0, 2), slice(0, 5)]  # without the bottom of the U
    assert patch.tolist() == [[[1, 0, 1, 0, 0], [1, 0, 1, 0, 2]]]
    target = WeightedTarget(None, None)(segmentation=torch.from_numpy(np.concatenate([label[:, :2], patch])))
    weights = target["segmentation"][1].numpy()
    # N / ((K + 1) n): 10 voxels, 3 groups; 4 voxels of the U in two pieces, 1 of the dot, 5 of background (clipped).
    np.testing.assert_allclose(weights, [[1, 1, 1, 1, 1], [1, 1, 1, 1, 10 / 3]])


def test_the_target_with_regions_and_deep_supervision() -> None:
    segmentation = torch.zeros(2, 4, 4, dtype=torch.int16)
    segmentation[:, :2, :2] = 1
    segmentation[0, 3, 3] = 2
    target = WeightedTarget([[1, 2], 2], [[1, 1], [0.5, 0.5]])(segmentation=segmentation)["segmentation"]
    assert [tuple(level.shape) for level in target] == [(3, 4, 4), (3, 2, 2)]
    assert all(level.dtype == torch.float32 for level in target)
    assert torch.equal(target[0][0], (segmentation[0] > 0).float())
    assert torch.equal(target[0][1], (segmentation[0] == 2).float())
    assert torch.equal(target[0][2], inverse_size_weights(segmentation[1]))
    assert target[1][2, 0, 0] == target[0][2, 0, 0] == 2  # 16 / (2 * 4)


def test_a_25d_target_is_weighted_within_its_slice() -> None:
    segmentation = torch.zeros(2, 5, 2, 2, dtype=torch.int16)
    segmentation[:, :, 0, 0] = 1
    target = WeightedTarget(None, None, centre_slice_only=True)(segmentation=segmentation)["segmentation"]
    assert target.shape == (2, 1, 2, 2)
    assert target[1, 0, 0, 0] == pytest.approx(2)  # 4 / (2 * 1), not 20 / (2 * 5) by another path


def spatial(patch_size: tuple[int, ...], **options: Any) -> SpatialTransform:
    return SpatialTransform(patch_size, 0, False, border_mode_seg="constant", padding_value_seg=-1, **options)


def moved_by_half_a_pixel(width: int) -> SpatialTransform:
    transform = spatial((1, width))
    x = (2 * torch.arange(1, width + 1) / width - 1).view(1, width)
    transform.get_parameters = lambda **_: {"grid": torch.stack((x, torch.zeros_like(x)), -1)}  # (x, y), -1 to 1
    return transform


def test_ids_follow_the_label_by_hand() -> None:
    label = torch.tensor([[[1, 1, 0, 2, 2, 0, 3, 3]]], dtype=torch.int16)
    ids = torch.tensor([[[1, 1, 0, 2, 2, 0, 0, 0]]], dtype=torch.int16)  # 3 is ignored, hence no lesion
    transform = SpatialWithInstances(moved_by_half_a_pixel(8), ignore_label=3)
    moved = transform(segmentation=torch.cat((label, ids)))["segmentation"]
    lesion = (moved[0] > 0) & (moved[0] != 3)
    assert moved[1, 0, 0] == 1, "between two voxels of lesion 1"
    assert moved[1, 0, 3] == 2, "between two voxels of lesion 2"
    assert torch.equal(moved[1] > 0, lesion)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(9, 10, 8), (12, 11)]))
def test_resampled_ids_are_nnunets_where_both_see_a_lesion(seed: int, shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(seed).random(shape) < 0.1
    mask[(slice(3, 6),) * len(shape)] = True
    lesions = find_lesions(mask, (1,) * len(shape))
    segmentation = torch.from_numpy(np.stack((mask, lesions.instances())).astype(np.int16))
    stock = spatial(shape, p_rotation=1, p_scaling=1)
    np.random.seed(seed)  # noqa: NPY002 - the generator nnU-Net's augmentation draws from
    parameters = stock.get_parameters(image=segmentation)
    expected = stock._apply_to_segmentation(segmentation, **parameters)
    got = SpatialWithInstances(stock, None)._apply_to_segmentation(segmentation, **parameters)
    assert torch.equal(got[0], expected[0]), "labels are resampled by nnU-Net"
    assert torch.equal(got[1] > 0, got[0] > 0), "every lesion voxel has an id, no other voxel has"
    both = (expected[1] > 0) & (got[1] > 0)
    assert torch.equal(got[1][both], expected[1][both])


def test_an_unturned_patch_is_cropped() -> None:
    segmentation = torch.arange(32, dtype=torch.int16).reshape(2, 4, 4)
    cropped = SpatialWithInstances(spatial((2, 2)), None)(image=torch.zeros(1, 4, 4), segmentation=segmentation)
    assert torch.equal(cropped["segmentation"], segmentation[:, 1:3, 1:3])
