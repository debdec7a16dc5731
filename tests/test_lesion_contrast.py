"""Contrast of lesions: computed by hand, by brute force, and what must not change it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.lesion_contrast import channel_contrasts, lesion_contrast
from nnunet_lopsided.lesions import find_lesions


def test_by_hand() -> None:
    # Unit spacing: the shell are the three voxels on each side, and the other lesion is none of it.
    image = np.array([[10.0, 12, 10, 12, 15, 12, 10, 40, 12, 10, 10, 12]])
    mask = (image == 15) | (image == 40)
    contrast = lesion_contrast([image], find_lesions(mask, (1.0, 1.0)), mask)
    # Median 12, deviations 2 0 2 0 3 0 2 28 0 2 2 0: median 2.
    spread = 1.4826 * 2
    first, second = np.mean([12, 10, 12, 12, 10]), np.mean([12, 10, 12, 10, 10])
    np.testing.assert_allclose(contrast, [(15 - first) / spread, (40 - second) / spread])


def test_the_channel_that_shows_it_best_counts() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((5, 9, 9), bool)
    mask[2, 4, 4] = True
    flat, visible = rng.normal(50, 1, mask.shape), rng.normal(50, 1, mask.shape)
    visible[mask] = 80
    lesions = find_lesions(mask, (1, 1, 1))
    both = lesion_contrast([flat, visible], lesions, mask)
    assert both == lesion_contrast([visible], lesions, mask) > lesion_contrast([flat], lesions, mask)
    assert lesion_contrast([np.full(mask.shape, 7.0)], lesions, mask).tolist() == [0.0]


def test_darker_than_its_surroundings_is_negative() -> None:
    image = np.array([[10.0, 12, 10, 12, 15, 12, 10, 12, 12, 10, 10, 12]])
    mask = image == 15
    lesions = find_lesions(mask, (1.0, 1.0))
    contrasts = channel_contrasts([image, -image], lesions, mask)
    assert contrasts[0, 0] == -contrasts[0, 1] == lesion_contrast([image], lesions, mask)[0] > 0
    alone = np.ones((1, 1), bool)
    assert np.isnan(channel_contrasts([np.ones((1, 1))], find_lesions(alone, (1.0, 1.0)), alone)).all()


def test_air_is_no_surroundings() -> None:
    """A lesion at the surface of a brain that was cut out does not look bright because of the zeros around it."""
    image = np.zeros((1, 11))
    image[0, 3:] = [20, 21, 19, 20, 21, 19, 20, 21]
    mask = np.zeros((1, 11), bool)
    mask[0, 3] = True
    contrast = lesion_contrast([image], find_lesions(mask, (1, 1)), mask)[0]
    assert contrast == pytest.approx(abs(20 - np.mean([21, 19, 20])) / 1.4826)
    image[0, 4:7] = 0  # only zeros are near: now they are its surroundings
    spread = 1.4826 * 1  # of 20 21 19 20 21 without the zeros
    assert lesion_contrast([image], find_lesions(mask, (1, 1)), mask)[0] == pytest.approx(20 / spread)


def test_a_lesion_that_fills_the_image_goes_last() -> None:
    mask = np.ones((2, 3), bool)
    assert lesion_contrast([np.arange(1.0, 7).reshape(2, 3)], find_lesions(mask, (1, 1)), mask).tolist() == [np.inf]
    empty = np.zeros((2, 3), bool)
    assert lesion_contrast([np.ones((2, 3))], find_lesions(empty, (1, 1)), empty).tolist() == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1.0, 1.0, 1.0), (5.0, 1.0, 1.5), (4.0, 4.0, 4.0)]))
def test_agrees_with_brute_force(seed, spacing) -> None:
    rng = np.random.default_rng(seed)
    shape = (4, 8, 9)
    image = rng.integers(0, 30, shape).astype(np.int16)
    label = (rng.random(shape) < 0.05).astype(np.uint8)
    label[rng.random(shape) < 0.02] = 3  # ignored
    lesions = find_lesions(label == 1, spacing)
    found = lesion_contrast([image], lesions, label != 0)
    tissue = image != 0
    spread = 1.4826 * np.median(np.abs(image[tissue] - np.median(image[tissue])))
    ids = lesions.instances()
    for i in range(len(lesions)):
        inside = np.argwhere(ids == i + 1)
        shell = [
            at
            for at in itertools.product(*map(range, shape))
            if label[at] == 0 and min(np.linalg.norm((inside - at) * spacing, axis=1)) <= max(3.0, min(spacing)) + 1e-6
        ]
        shell = [at for at in shell if tissue[at]] or shell
        expected = abs(image[ids == i + 1].mean() - np.mean([image[at] for at in shell])) / spread if shell else np.inf
        assert found[i] == pytest.approx(expected)


def test_units_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(100, 10, (6, 12, 12)).astype(np.float32)
    mask = rng.random(image.shape) < 0.01
    lesions = find_lesions(mask, (2, 1, 1))
    one = lesion_contrast([image], lesions, mask)
    np.testing.assert_allclose(lesion_contrast([image * 8], lesions, mask), one, rtol=1e-6)
