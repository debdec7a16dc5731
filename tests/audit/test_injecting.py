"""Lesions injected into images: cut out, shrunk, placed and found again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lopsided.audit.injecting import (
    CLEAR_MM,
    Donor,
    as_type,
    case_generator,
    find_donors,
    inject,
    injected_diameters_mm,
    measure_injected,
    shrunk,
)
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.lesions import find_lesions

RULES = EvaluationRules(threshold=0.03)


def ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> NDArray[np.bool_]:
    grid = np.indices(shape)
    return np.asarray(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2)


def lesion(shape: tuple[int, ...], radius: float = 4.0) -> tuple[list[NDArray[np.float32]], NDArray[np.bool_]]:
    """Two channels of noise with a lesion in the middle: brighter by 30, darker by 10."""
    rng = np.random.default_rng(1)
    label = ball(shape, tuple(n // 2 for n in shape), radius)
    noise = [rng.normal(level, 0.1, shape).astype(np.float32) for level in (100, 50)]
    # In float32, as it is written.
    seen = label.astype(np.float32)
    return [noise[0] + 30 * seen, noise[1] - 10 * seen], label


def test_a_donor_by_hand() -> None:
    """A voxel of 9 in fives, whose neighbour is 6 (a partial volume); beyond, a difference is noise."""
    image, label = np.full((11, 11), 5), np.zeros((11, 11), bool)
    image[5, 4:7], image[5, 2], label[5, 5] = (6, 9, 5), 8, True
    (donor,) = find_donors([image, -image], label, (2, 2))
    assert donor.surroundings.tolist() == [5, -5]
    assert donor.difference[0, 4].tolist() == [0, 0, 0, 1, 4, 0, 0, 0, 0]
    assert np.array_equal(donor.difference[1], -donor.difference[0])
    assert donor.inside.sum() == donor.inside[4, 4] == 1
    assert donor.diameter_mm == pytest.approx(2 * math.sqrt(4 / math.pi))


def test_a_neighbouring_lesion_is_no_surroundings() -> None:
    image, label = np.zeros((9, 20)), np.zeros((9, 20), bool)
    label[4, 4] = label[4, 7] = True
    image[label] = 50
    image[4, 8:12] = 50  # around the second one
    first, _ = find_donors([image], label, (1, 1))
    assert first.surroundings.tolist() == [0]
    assert np.flatnonzero(first.difference).size == 1


def test_a_lesion_that_others_surround_is_left_out() -> None:
    label = ndimage.generate_binary_structure(2, 2)
    assert find_donors([np.zeros((3, 3))], label, (1, 1)) == []


@pytest.mark.parametrize("shape", [(31, 31), (31, 31, 31)])
def test_shrunk_lesions_have_the_diameter_that_was_asked_for(shape: tuple[int, ...]) -> None:
    images, label = lesion(shape, radius=8.0)
    (donor,) = find_donors(images, label, (1,) * len(shape))
    for diameter in (12.0, 8.0, 5.0):
        part = shrunk(donor.inside, diameter / donor.diameter_mm)
        (found,) = find_lesions(part >= 0.5, (1,) * len(shape)).diameter_mm
        assert found == pytest.approx(diameter, abs=0.9)
        assert all(n % 2 for n in part.shape)
    assert np.array_equal(shrunk(donor.inside, 1.0), donor.inside)


@pytest.mark.parametrize(("shape", "spacing"), [((60, 60), (1.0, 1.0)), ((20, 60, 60), (3.0, 1.0, 1.0))])
def test_where_lesions_are_injected(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    """In tissue like that around annotated ones, away from what is blocked and from each other."""
    images, label = lesion(shape, radius=2.5)
    for image in images:
        image[..., 40:] += 200  # another tissue
    donors = find_donors(images, label, spacing)
    blocked = label.copy()
    blocked[..., :6] = True
    changed, mask = inject(case_generator(0, "a"), images, blocked, donors, spacing, 4)
    added = find_lesions(mask, spacing)
    assert 2 <= len(added) <= 4
    difference = [c - i for c, i in zip(changed, images, strict=True)]
    assert (difference[0][mask] > 5).all()
    assert (difference[1][mask] < -1).all()
    middle = np.take(np.round(added.centroids).astype(int), -1, axis=1)
    assert (middle < 40).all()
    away = ndimage.distance_transform_edt(~blocked, sampling=spacing)
    assert away[mask].min() >= CLEAR_MM - max(spacing) / 2
    assert not (ndimage.binary_dilation(mask, np.ones([3] * len(shape))) & blocked).any()
    # What surrounds lesions stays as it is.
    untouched = ~ndimage.binary_dilation(mask, iterations=4)
    assert not any(d[untouched].any() for d in difference)


def test_the_same_case_has_the_same_lesions() -> None:
    images, label = lesion((60, 60), radius=3.0)
    donors = find_donors(images, label, (1, 1))
    first, second, other = (inject(case_generator(7, c), images, label, donors, (1, 1), 3)[1] for c in "aab")
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_intensities_have_no_unit() -> None:
    """Images of another unit get the same lesions, in this unit."""
    images, label = lesion((60, 60), radius=3.0)
    scaled = [8 * image + 16 for image in images]
    of, of_scaled = (
        inject(case_generator(7, "a"), i, label, find_donors(i, label, (1, 1)), (1, 1), 3) for i in (images, scaled)
    )
    assert np.array_equal(of[1], of_scaled[1])
    assert of[1].any()
    np.testing.assert_allclose(of_scaled[0][0], 8 * of[0][0] + 16, rtol=1e-5)


def test_where_there_is_nothing_to_inject_or_no_room() -> None:
    images, label = lesion((40, 40), radius=3.0)
    nothing = inject(case_generator(0, "a"), images, label, [], (1, 1), 3)
    assert not nothing[1].any()
    assert np.array_equal(nothing[0], images)
    donors = find_donors(images, label, (1, 1))
    full = inject(case_generator(0, "a"), images, np.ones((40, 40), bool), donors, (1, 1), 3)
    assert not full[1].any()


def test_with_nothing_blocked_there_is_room_everywhere() -> None:
    images, label = lesion((40, 40), radius=3.0)
    donors = find_donors(images, label, (1, 1))
    assert inject(case_generator(0, "a"), images, np.zeros((40, 40), bool), donors, (1, 1), 3)[1].any()


def donor(diameter_mm: float) -> Donor:
    nothing = np.zeros(1, np.float32)
    return Donor(difference=nothing, inside=nothing, surroundings=nothing, spread=nothing, diameter_mm=diameter_mm)


@pytest.mark.parametrize(
    ("diameters", "spacing", "expected"),
    [
        (list(range(1, 12)), (1, 1, 1), (2.5, 10)),
        ([20], (4, 4, 4), (4.963, 20)),  # a voxel
        ([3], (1, 1), (1.5, 3)),  # half of the largest
        ([0.5], (1, 1), (1.128, 1.128)),
    ],
)
def test_diameters(diameters: list[float], spacing: tuple[float, ...], expected: tuple[float, float]) -> None:
    assert injected_diameters_mm([donor(d) for d in diameters], spacing) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_whole_numbers_stay_within_their_type(dtype: type) -> None:
    ends = np.iinfo(dtype)
    found = as_type(np.array([-1e12, 1.6, 1e12], np.float32), np.dtype(dtype))
    assert (found.dtype, found.tolist()) == (dtype, [ends.min, 2, ends.max])
    assert as_type(np.array([1.6], np.float32), np.dtype(np.float64)).dtype == np.float32


def test_what_is_seen_of_injected_lesions() -> None:
    """Of three injected lesions one is found, one below the threshold alone; the annotated one counts for nothing."""
    annotated, injected, p = np.zeros((12, 40), bool), np.zeros((12, 40), bool), np.zeros((12, 40), np.float32)
    annotated[1:3, 1:3], injected[6:8, 6:9], injected[6:8, 20:22], injected[9, 30] = True, True, True, True
    p[1:3, 1:3], p[6:8, 6:9], p[6, 7], p[6:8, 20:22], p[1, 30] = 0.9, 0.4, 0.5, 0.02, 0.8
    seen = measure_injected(annotated, injected, predictions=[p, p / 2], spacing_mm=(1, 1), rules=RULES)
    assert sorted(seen.diameter_mm) == pytest.approx([2 * math.sqrt(n / math.pi) for n in (1, 4, 6)])
    assert seen.found_mm.tolist() == pytest.approx([2 * math.sqrt(6 / math.pi)])
    assert seen.found_score.tolist() == [0.375]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.sampled_from([(25, 31), (9, 25, 31)]), blocked=st.floats(0, 0.05))
def test_injected_lesions_never_touch_what_is_blocked(seed: int, shape: tuple[int, ...], blocked: float) -> None:
    images, label = lesion(shape, radius=3.0)
    rng = np.random.default_rng(seed)
    taken = label | (rng.random(shape) < blocked)
    spacing = (5.0, 1.0, 2.0)[-len(shape) :]
    changed, mask = inject(rng, images, taken, find_donors(images, label, spacing), spacing, 5)
    assert not (ndimage.binary_dilation(mask, np.ones([3] * len(shape))) & taken).any()
    assert all(c.shape == shape and c.dtype == np.float32 and np.isfinite(c).all() for c in changed)
