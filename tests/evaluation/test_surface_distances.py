"""nnunet_lopsided.evaluation.surface_distances."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case
from nnunet_lopsided.evaluation.rules import DiceRule, profile_rules
from nnunet_lopsided.evaluation.surface_distances import hd95_and_nsd
from nnunet_lopsided.lesions import find_lesions

WITH = EvaluationRules(surface_distances=True)
SPACINGS = st.sampled_from([(1.0, 1.0, 1.0), (3.0, 0.5, 0.5), (0.7, 1.3, 2.9)])


def boxes(*places, shape=(12, 12, 12)):
    """A mask of boxes, each given as (first, last + 1) along every axis."""
    mask = np.zeros(shape, bool)
    for place in places:
        mask[tuple(slice(*ends) for ends in place)] = True
    return mask


def both(reference, predicted, spacing=(1.0, 1.0, 1.0), tolerance=1.0):
    return hd95_and_nsd(reference, predicted, spacing, tolerance)


def test_equal_masks_lie_nowhere_off():
    box = boxes(((2, 5), (3, 6), (4, 6)))
    assert both(box, box, (5, 0.5, 0.7), 0.0) == (0.0, 1.0)


@pytest.mark.parametrize(("tolerance", "nsd"), [(3.9, 0.0), (4.0, 0.5), (5.9, 0.5), (6.0, 1.0)])
def test_two_voxels_three_slices_of_2_mm_apart(tolerance, nsd):
    """Of the eight corners of each, four lie 2 slices from the other's nearest corner and four lie 3 slices off."""
    a, b = boxes(((1, 2), (1, 2), (1, 2))), boxes(((4, 5), (1, 2), (1, 2)))
    assert both(a, b, (2, 1, 1), tolerance) == (6.0, pytest.approx(nsd, abs=1e-12))


def test_a_box_moved_along_thick_slices_and_in_the_plane():
    """The first layer of its corners lies a step off, with over a twentieth of the area; in the plane all agrees."""
    box = boxes(((3, 6), (3, 6), (3, 6)))
    assert both(box, np.roll(box, 1, axis=0), (5, 0.5, 0.5), 0.5)[0] == 5.0
    assert both(box, np.roll(box, 1, axis=2), (5, 0.5, 0.5), 0.5) == (0.5, 1.0)


def test_a_second_pixel_in_2d():
    """All of the pixel's contour is the other's too; of that one's, two corners of length root(5)/2 lie 2 mm off."""
    a, b = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    a[1, 1] = b[1, 1:3] = True
    corner = np.sqrt(5) / 2
    hd95, nsd = hd95_and_nsd(a, b, (1, 2), 1.0)
    assert hd95 == 2.0
    assert nsd == pytest.approx((4 * corner + 2 * corner + 4) / (4 * corner + 4 * corner + 4), abs=1e-12)


def test_the_edge_of_the_image_is_a_surface():
    inside, at_edge = boxes(((4, 6), (4, 6), (4, 6))), boxes(((0, 2), (0, 2), (10, 12)))
    moved = [np.roll(mask, 1, axis=1) for mask in (inside, at_edge)]
    assert both(inside, moved[0], tolerance=0.5) == both(at_edge, moved[1], tolerance=0.5)


def test_a_tolerance_that_rounding_just_misses():
    """Seven steps of 0.1 mm are 0.7000000000000001 mm in floating point."""
    a, b = boxes(((1, 2), (1, 2), (1, 2))), boxes(((1, 2), (1, 2), (8, 9)))
    assert both(a, b, (0.1, 0.1, 0.1), 0.7)[1] == 1.0


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty mask"):
        both(boxes(), boxes(((1, 2), (1, 2), (1, 2))))


def contour(mask, spacing):
    """Places in mm and lengths of a 2D contour, corner by corner, in plain loops."""
    padded = np.pad(mask, 1)
    places, lengths = [], []
    for y in range(padded.shape[0] - 1):
        for x in range(padded.shape[1] - 1):
            around = padded[y : y + 2, x : x + 2]
            if around.all() or not around.any():
                continue
            half_diagonal = np.hypot(*spacing) / 2
            if around.sum() != 2:
                length = half_diagonal
            elif around[0, 0] == around[1, 1]:
                length = 2 * half_diagonal
            else:
                length = spacing[0] if around[0, 0] == around[1, 0] else spacing[1]
            places.append((y * spacing[0], x * spacing[1]))
            lengths.append(length)
    return np.array(places), np.array(lengths)


def brute_force(a, b, spacing, tolerance, share=0.95):
    """HD95 and NSD from all pairs of contour elements, in float64."""
    (places_a, lengths_a), (places_b, lengths_b) = contour(a, spacing), contour(b, spacing)
    distances = cdist(places_a, places_b)
    hd95, within = 0.0, 0.0
    for nearest, lengths in ((distances.min(axis=1), lengths_a), (distances.min(axis=0), lengths_b)):
        # The least distance within which at least that share of the length lies.
        enough = [d for d in np.unique(nearest) if lengths[nearest <= d].sum() >= share * lengths.sum()]
        hd95 = max(hd95, enough[0])
        within += lengths[nearest <= tolerance + 1e-6].sum()
    return hd95, within / (lengths_a.sum() + lengths_b.sum())


MASKS_2D = arrays(bool, (6, 7)).filter(lambda mask: mask.any())
MASKS_3D = arrays(bool, (4, 5, 4)).filter(lambda mask: mask.any())


# 20 elements, of which 19 are within the same distance: 95% to the last bit.
AT_95_PERCENT = (
    np.array([list("#.#####"), list("##.####"), list("#######"), list("#######"), list("#.##.##"), list("#######")])
    == "#"
)


@given(MASKS_2D, MASKS_2D, st.sampled_from([(1.0, 1.0), (2.5, 0.7)]), st.sampled_from([0.5, 1.0, 2.5]))
@example(np.indices((6, 7)).sum(axis=0) == 0, AT_95_PERCENT, (1.0, 1.0), 0.5)
@settings(max_examples=60, deadline=None)
def test_equals_all_pairs_in_2d(a, b, spacing, tolerance):
    hd95, nsd = hd95_and_nsd(a, b, spacing, tolerance)
    # Where a step ends at exactly 95%, the last bit of a sum decides whether the next step counts: both are right.
    least, nsd_expected = brute_force(a, b, spacing, tolerance, 0.95 * (1 - 1e-12))
    most, _ = brute_force(a, b, spacing, tolerance, 0.95 * (1 + 1e-12))
    assert nsd == pytest.approx(nsd_expected, abs=1e-9)
    assert hd95 in (pytest.approx(least, abs=1e-9), pytest.approx(most, abs=1e-9))


def test_equals_monai_in_3d():
    metrics, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    for spacing in ((1.0, 1.0, 1.0), (3.0, 0.5, 0.7)):
        masks = [rng.random((7, 8, 9)) < share for share in (0.2, 0.4)]
        tensors = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in masks]
        for tolerance in (0.6, 1.2):
            theirs = metrics.compute_surface_dice(
                *tensors, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True
            )
            assert hd95_and_nsd(masks[0], masks[1], spacing, tolerance)[1] == pytest.approx(float(theirs), abs=1e-5)


@given(MASKS_3D, MASKS_3D, SPACINGS, st.sampled_from([0.5, 1.0, 3.0]), st.tuples(*[st.integers(0, 3)] * 3))
@settings(max_examples=40, deadline=None)
def test_symmetric_and_the_same_elsewhere_and_in_other_units(a, b, spacing, tolerance, shift):
    hd95, nsd = hd95_and_nsd(a, b, spacing, tolerance)
    assert 0 <= nsd <= 1
    assert 0 <= hd95 <= np.linalg.norm(np.array(a.shape) * spacing)
    assert hd95_and_nsd(b, a, spacing, tolerance) == pytest.approx((hd95, nsd), abs=1e-12)
    moved = [np.pad(mask, [(s, 3 - s) for s in shift]) for mask in (a, b)]
    assert hd95_and_nsd(moved[0], moved[1], spacing, tolerance) == pytest.approx((hd95, nsd), abs=1e-12)
    doubled = hd95_and_nsd(a, b, tuple(2 * s for s in spacing), 2 * tolerance)
    assert doubled == pytest.approx((2 * hd95, nsd), abs=1e-9)


def test_of_every_found_lesion_and_of_no_missed_one():
    reference = boxes(((1, 3), (1, 3), (1, 3)), ((8, 10), (8, 10), (8, 10)))
    predicted = boxes(((1, 3), (1, 3), (1, 4)))
    case = evaluate_case(reference, predicted, (1, 1, 1), WITH)
    alone = both(boxes(((1, 3), (1, 3), (1, 3))), predicted)
    np.testing.assert_array_equal(case.detected, [True, False])
    np.testing.assert_array_equal(case.surface.hd95_mm, [alone[0], np.nan])
    np.testing.assert_array_equal(case.surface.nsd, [alone[1], np.nan])


def test_off_unless_asked_for_and_empty_without_lesions():
    nothing = np.zeros((3, 4, 5), bool)
    assert evaluate_case(nothing, nothing, (1, 1, 1)).surface is None
    assert evaluate_case(nothing, nothing, (1, 1, 1), WITH).surface.hd95_mm.tolist() == []
    missed = evaluate_case(~nothing, None, (1, 1, 1), WITH)
    assert np.isnan(missed.surface.nsd).tolist() == [True]


def test_what_the_dice_compares_is_compared():
    """Two candidates touch one lesion: the better one alone, or both."""
    lesion = ((2, 4), (2, 4), (2, 10))
    left, right = ((2, 4), (2, 4), (2, 6)), ((2, 4), (2, 4), (7, 10))
    reference, predicted = boxes(lesion), boxes(left, right)
    compared_by: dict[DiceRule, NDArray[Any]] = {"best": boxes(left), "union": predicted}
    for dice, compared in compared_by.items():
        rules = EvaluationRules(match="overlap", dice=dice, confidence="sum", surface_distances=True)
        case = evaluate_case(reference, predicted, (1, 2, 0.5), rules)
        assert (case.surface.hd95_mm[0], case.surface.nsd[0]) == both(reference, compared, (1, 2, 0.5))


def test_a_candidate_over_two_lesions_is_compared_with_each():
    reference = boxes(((2, 4), (2, 4), (2, 4)), ((2, 4), (2, 4), (6, 8)))
    predicted = boxes(((2, 4), (2, 4), (2, 8)))
    case = evaluate_case(reference, predicted, (1, 1, 1), EvaluationRules(match="overlap", surface_distances=True))
    assert case.surface.hd95_mm.tolist() == [4.0, 4.0]


@given(arrays(bool, (5, 6, 7)), arrays(bool, (5, 6, 7)), st.sampled_from(["best", "union"]))
@settings(max_examples=25, deadline=None)
def test_crops_change_nothing(reference, predicted, dice):
    """Each lesion's numbers are those of whole volumes with it and what it is compared with alone."""
    rules = profile_rules("paper", match="overlap", dice=dice, connectivity=6, surface_distances=True)
    case = evaluate_case(reference, predicted, (2, 1, 0.5), rules)
    np.testing.assert_array_equal(np.isnan(case.surface.hd95_mm), ~case.detected)
    lesions, candidates = (find_lesions(m, (2, 1, 0.5), 6).instances() for m in (reference, predicted))
    for k in np.flatnonzero(case.detected):
        pairs = case.matches.pairs
        compared = (
            pairs.candidate_ids[pairs.lesion_ids == k + 1] if dice == "union" else [case.matches.candidate_of_lesion[k]]
        )
        expected = both(lesions == k + 1, np.isin(candidates, compared), (2, 1, 0.5))
        assert (case.surface.hd95_mm[k], case.surface.nsd[k]) == pytest.approx(expected, abs=1e-12)
