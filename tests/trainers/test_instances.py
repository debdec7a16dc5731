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
from numpy.typing import NDArray

from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.losses import inverse_size_weights
from nnunet_lopsided.trainers.instances import (
    LabelWithIds,
    LesionCodes,
    SpatialWithInstances,
    WeightedTarget,
    WithInstances,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(-3, 7)] * 3), st.tuples(*[st.integers(1, 8)] * 3))
def test_a_crop_is_that_of_the_dense_map(seed: int, start: tuple[int, ...], size: tuple[int, ...]) -> None:
    label = np.random.default_rng(seed).choice(4, (7, 6, 8), p=(0.7, 0.1, 0.1, 0.1)).astype(np.int8) - 1
    lesions = find_lesions(label > 0, (1, 1, 1))
    box = [[a, a + n] for a, n in zip(start, size, strict=True)]
    if any(a >= n or b <= 0 for (a, b), n in zip(box, label.shape, strict=True)):
        return  # nnU-Net's loader never asks for a patch beside the volume
    ours = crop_and_pad_nd(LabelWithIds(label[None], LesionCodes.of(lesions, 3)), box, -1, cast_cropped_to=np.int16)
    dense = crop_and_pad_nd((label + 3 * lesions.instances())[None].astype(np.int16), box, -1)
    np.testing.assert_array_equal(ours, dense)
    assert label.max() < 3, "the case's own labels stay as they are"


def cases(label: NDArray[Any]) -> Any:
    return SimpleNamespace(load_case=lambda name: ("image", label[None], "prev", {"case": name}), identifiers=["a"])


def patch_of(coded: Any, *crop: slice) -> NDArray[Any]:
    return coded[(slice(None), *crop)]


def test_components_are_those_of_the_whole_volume() -> None:
    label = np.zeros((1, 1, 9), np.int8)
    label[0, 0] = [1, 2, 0, 1, -1, 1, 0, 3, 0]  # -1: outside the nonzero mask; 3: ignore
    dataset = WithInstances(cases(label), n_labels=4, ignore_label=3)
    image, coded, previous, properties = dataset.load_case("a")
    assert (image, previous, properties, dataset.identifiers) == ("image", "prev", {"case": "a"}, ["a"])
    values = patch_of(coded, slice(0, 1), slice(0, 1), slice(0, 9))
    assert values.tolist() == [[[[1 + 4, 2 + 4, 0, 1 + 8, -1, 1 + 12, 0, 3, 0]]]]
    assert coded.shape == (1, 1, 1, 9)


def test_ids_start_over_where_nnunet_carries_no_more() -> None:
    label = np.zeros((1, 1, 20), np.int8)
    label[0, 0, ::2] = 1
    n_labels = 4000  # 32767 // 4000 - 1: ids 1 to 7
    coded = LabelWithIds(label[None], LesionCodes.of(find_lesions(label, (1, 1, 1)), n_labels))
    values = patch_of(coded, slice(0, 1), slice(0, 1), slice(0, 20))[0, 0, 0, ::2]
    assert values.tolist() == [n_labels * i + 1 for i in (1, 2, 3, 4, 5, 6, 7, 1, 2, 3)]


def test_a_lesion_cut_by_the_patch_is_one_lesion() -> None:
    label = np.zeros((1, 3, 5), np.uint8)
    label[0] = [[1, 0, 1, 0, 0], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0]]  # a U and a dot
    _, coded, _, _ = WithInstances(cases(label), 2, None).load_case("a")
    patch = patch_of(coded, slice(0, 1), slice(0, 2), slice(0, 5))  # without the bottom of the U
    assert patch.tolist() == [[[[3, 0, 3, 0, 0], [3, 0, 3, 0, 5]]]]
    target = WeightedTarget(2, None, None)(segmentation=torch.from_numpy(patch[0]))["segmentation"]
    assert torch.equal(target[0], torch.from_numpy(label[0, :2]).float())
    # N / ((K + 1) n): 10 voxels, 3 groups; 4 voxels of the U in two pieces, 1 of the dot, 5 of background (clipped).
    np.testing.assert_allclose(target[1], np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 10 / 3]]))


def test_the_target_with_regions_and_deep_supervision() -> None:
    label, ids = torch.zeros(2, 4, 4, dtype=torch.int16)
    label[:2, :2] = ids[:2, :2] = 1
    label[3, 3] = 2  # the ignore label
    coded = (label + 3 * ids)[None]
    target = WeightedTarget(3, [[1, 2], 2], [[1, 1], [0.5, 0.5]])(segmentation=coded)["segmentation"]
    assert [tuple(level.shape) for level in target] == [(3, 4, 4), (3, 2, 2)]
    assert all(level.dtype == torch.float32 for level in target)
    assert torch.equal(target[0][0], (label > 0).float())
    assert torch.equal(target[0][1], (label == 2).float())
    assert torch.equal(target[0][2], inverse_size_weights(ids))
    assert target[1][2, 0, 0] == target[0][2, 0, 0] == 2  # 16 / (2 * 4)


def test_a_25d_target_is_weighted_within_its_slice() -> None:
    coded = torch.zeros(1, 5, 2, 2, dtype=torch.int16)
    coded[:, :, 0, 0] = 3
    target = WeightedTarget(2, None, None, centre_slice_only=True)(segmentation=coded)["segmentation"]
    assert target.shape == (2, 1, 2, 2)
    assert target[0, 0].tolist() == [[1, 0], [0, 0]]
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
    coded = label + 4 * ids
    moved = SpatialWithInstances(moved_by_half_a_pixel(8), 4, ignore_label=3)(segmentation=coded)["segmentation"]
    labels = moved_by_half_a_pixel(8)(segmentation=label)["segmentation"]
    assert moved[0, 0, 0] == 1 + 4 * 1, "between two voxels of lesion 1"
    assert moved[0, 0, 3] == 2 + 4 * 2, "between two voxels of lesion 2"
    assert torch.equal(moved % 4, labels % 4), "labels are resampled by nnU-Net"
    assert torch.equal(moved >= 4, (labels > 0) & (labels != 3)), "lesion voxels have ids, ignored ones have none"


def coded_volume(seed: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels 0 to 2 of random lesions, and their ids: (1, ...) each."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.1
    mask[(slice(3, 6),) * len(shape)] = True
    ids = find_lesions(mask, (1,) * len(shape)).instances()
    label = np.where(mask, rng.integers(1, 3, shape), 0)
    return torch.from_numpy(label.astype(np.int16))[None], torch.from_numpy(ids.astype(np.int16))[None]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(9, 10, 8), (12, 11)]))
def test_resampled_ids_are_nnunets_where_both_see_a_lesion(seed: int, shape: tuple[int, ...]) -> None:
    label, ids = coded_volume(seed, shape)
    coded = label + 3 * ids
    before = coded.clone()
    stock = spatial(shape, p_rotation=1, p_scaling=1)
    np.random.seed(seed)  # noqa: NPY002 - the generator nnU-Net's augmentation draws from
    parameters = stock.get_parameters(image=label)
    labels = stock._apply_to_segmentation(label, **parameters)
    expected = stock._apply_to_segmentation(ids, **parameters)
    got = SpatialWithInstances(stock, 3, None)._apply_to_segmentation(coded, **parameters)
    assert torch.equal(torch.where(got < 0, got, got % 3), labels), "labels are resampled by nnU-Net"
    assert torch.equal(got >= 3, labels > 0), "every lesion voxel has an id, no other voxel has"
    both = (expected > 0) & (got >= 3)
    assert torch.equal(got[both] // 3, expected[both])
    assert torch.equal(coded, before)


def test_a_cascade_keeps_its_previous_stage() -> None:
    label, ids = coded_volume(0, (12, 11))
    previous = torch.flip(label, (1,))
    stock = spatial((12, 11), p_rotation=1, p_scaling=1)
    np.random.seed(0)  # noqa: NPY002 - the generator nnU-Net's augmentation draws from
    parameters = stock.get_parameters(image=label)
    transform = SpatialWithInstances(stock, 3, None, cascaded=True)
    got = transform._apply_to_segmentation(torch.cat((label + 3 * ids, previous)), **parameters)
    expected = stock._apply_to_segmentation(torch.cat((label, previous)), **parameters)
    assert torch.equal(got[1], expected[1])
    assert torch.equal(torch.where(got[0] < 0, got[0], got[0] % 3), expected[0])
    assert torch.equal(got[0] >= 3, expected[0] > 0)


def test_an_unturned_patch_is_cropped() -> None:
    coded = torch.arange(16, dtype=torch.int16).reshape(1, 4, 4)
    cropped = SpatialWithInstances(spatial((2, 2)), 2, None)(image=torch.zeros(1, 4, 4), segmentation=coded)
    assert torch.equal(cropped["segmentation"], coded[:, 1:3, 1:3])
