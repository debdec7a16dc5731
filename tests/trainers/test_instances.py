"""Lesion ids and weights that travel with the patch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.losses import inverse_size_weights
from nnunet_lopsided.trainers.instances import InstanceMap, WeightedTarget, WithInstances


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
