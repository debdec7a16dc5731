"""nnunet_lopsided.evaluation.case."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case
from nnunet_lopsided.evaluation.case import evaluate_thresholds
from nnunet_lopsided.evaluation.case_result import VoxelCounts
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.rules import profile_rules


def ball(shape, center, radius, spacing=(1, 1, 1)):
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return np.linalg.norm((grid - center) * np.array(spacing), axis=-1) <= radius


def test_by_hand():
    reference = np.zeros((4, 8, 8), bool)
    reference[0, 0, 0:2] = reference[2, 5, 5] = True
    probability = np.zeros(reference.shape, np.float64)
    probability[0, 0, 0:3] = 0.2, 0.4, 0.3
    probability[2, 5, 5] = 0.05
    probability[3, 0, 7] = 1.0
    result = evaluate_case(reference, probability, (2, 1, 1), case="x")
    assert result.kind == "probabilities"
    assert result.lesions.volume_mm3.tolist() == [4.0, 2.0]
    assert result.confidence.tolist() == [0.3, 1.0]
    assert result.matches.status.tolist() == [Status.TRUE_POSITIVE, Status.FALSE_POSITIVE]
    assert result.detected.tolist() == [True, False]
    np.testing.assert_array_equal(result.lesion_confidence, [0.3, np.nan])
    np.testing.assert_allclose(result.mean_probability, [0.3, 0.05])
    assert result.matches.dice[0] == 2 * 2 / 5
    assert (result.lesion_histogram.sum(), result.lesion_histogram[5]) == (3, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_probability_of_exactly_the_threshold_is_predicted(dtype):
    probability = np.full((3, 3, 3), 0.1, dtype)  # float32(.1) is above, float16(.1) below the double .1
    assert len(evaluate_case(np.ones((3, 3, 3)), probability, (1, 1, 1)).candidates) == 1
    below = np.nextafter(probability, dtype(0))
    assert len(evaluate_case(np.ones((3, 3, 3)), below, (1, 1, 1)).candidates) == 0


def test_equal_probabilities_give_equal_confidences():
    # Sums of .3 over 1, 7 and 49 voxels divided by their number differ in the last bits.
    probability = np.zeros((12, 12), np.float64)
    probability[0, 0] = probability[2, 0:7] = probability[5:12, 5:12] = 0.3
    result = evaluate_case(np.zeros((12, 12), bool), probability, (1, 1))
    assert result.candidates.n_voxels.tolist() == [1, 7, 49]
    assert len(set(result.confidence.tolist())) == 1


def test_hard_labels_and_missing_predictions():
    reference = np.zeros((3, 4, 4), bool)
    reference[1, 1, 1] = True
    hard = evaluate_case(reference, reference.astype(np.uint8), (1, 1, 1))
    assert (hard.kind, hard.detected.tolist(), hard.lesion_histogram.sum()) == ("labels", [True], 0)
    missing = evaluate_case(reference, None, (1, 1, 1))
    assert (missing.kind, missing.detected.tolist(), len(missing.candidates)) == ("missing", [False], 0)
    assert np.isnan(missing.mean_probability).all()


def test_everything_empty():
    result = evaluate_case(np.zeros((3, 4, 4)), np.zeros((3, 4, 4), np.float32), (1, 1, 1))
    assert (len(result.lesions), len(result.candidates), result.lesion_histogram.sum()) == (0, 0, 0)


def test_voxels_without_annotation_hold_neither_lesions_nor_candidates():
    reference = np.zeros((1, 6, 6), bool)
    reference[0, 0, 0] = True
    probability = np.zeros((1, 6, 6), np.float32)
    probability[0, 0, 0] = 0.5
    probability[0, 3:5, 3:5] = 0.9
    valid = np.ones((1, 6, 6), bool)
    valid[0, 3:] = False
    result = evaluate_case(reference, probability, (1, 1, 1), valid=valid)
    assert result.matches.status.tolist() == [Status.TRUE_POSITIVE]


def test_voxel_counts_of_candidates_and_of_the_segmentation():
    reference, p = np.zeros((1, 1, 10), bool), np.zeros((1, 1, 10), np.float32)
    reference[0, 0, 2:6] = True
    p[0, 0, 0:4] = 0.1, 0.2, 0.5, 0.9
    result = evaluate_case(reference, p, (1, 1, 1))
    assert result.candidate_overlap == VoxelCounts(4, 4, 2)
    assert result.segmentation_overlap == VoxelCounts(4, 2, 2)  # p >= .5
    assert result.segmentation_overlap.dice == 2 * 2 / 6
    strict = evaluate_case(reference, p, (1, 1, 1), EvaluationRules(threshold=0.8))
    assert (strict.candidate_overlap, strict.segmentation_overlap) == (VoxelCounts(4, 1, 1), VoxelCounts(4, 2, 2))
    predicted = np.zeros_like(reference)
    predicted[0, 0, 5:9] = True
    given = evaluate_case(reference, p, (1, 1, 1), segmentation=predicted, valid=np.arange(10) < 8 + 0 * reference)
    assert given.segmentation_overlap == VoxelCounts(4, 3, 1)
    hard = evaluate_case(reference, predicted, (1, 1, 1))
    assert hard.segmentation_overlap == hard.candidate_overlap == VoxelCounts(4, 4, 1)
    assert evaluate_case(reference, None, (1, 1, 1)).segmentation_overlap == VoxelCounts(4, 0, 0)
    assert VoxelCounts(0, 0, 0).dice is None


def test_several_thresholds_are_the_single_ones():
    rng = np.random.default_rng(0)
    reference, p = rng.random((4, 9, 9)) < 0.05, rng.random((4, 9, 9)) ** 3
    several = evaluate_thresholds(reference, p, (1, 1, 1), EvaluationRules(), (0.3, 0.1, 0.7))
    for threshold, evaluated in zip((0.3, 0.1, 0.7), several, strict=True):
        alone = evaluate_case(reference, p, (1, 1, 1), EvaluationRules(threshold=threshold))
        np.testing.assert_equal(asdict(evaluated.result.matches), asdict(alone.matches))
        assert evaluated.result.segmentation_overlap == alone.segmentation_overlap
        assert len(evaluated.candidates) == len(alone.candidates)


def test_lesions_at_or_below_the_cut_do_not_count_nor_do_their_candidates():
    reference, p = np.zeros((1, 1, 30), bool), np.zeros((1, 1, 30))
    reference[0, 0, 0:2] = reference[0, 0, 10:13] = reference[0, 0, 20:22] = True
    p[0, 0, 0] = p[0, 0, 10] = p[0, 0, 27] = 0.9  # on a small lesion, on a large one, on nothing
    result = evaluate_case(reference, p, (1, 1, 1), EvaluationRules(min_lesion_mm3=2))
    assert result.counted.tolist() == [False, True, False]
    assert (result.detected.tolist(), result.missed.tolist()) == ([False, True, False], [False, False, False])
    assert result.matches.status.tolist() == [Status.IGNORED, Status.TRUE_POSITIVE, Status.FALSE_POSITIVE]
    assert result.lesion_histogram.sum() == 3
    rounded = evaluate_case(reference, p, (1, 1, 1.0000001), EvaluationRules(min_lesion_mm3=2))
    assert rounded.counted.tolist() == [False, True, False]


def test_brats_mets_by_hand():
    # One reference lesion of two parts that meet when grown by one voxel, one tiny lesion, one missed.
    reference, p = np.zeros((1, 1, 40), bool), np.zeros((1, 1, 40))
    reference[0, 0, 0:4] = reference[0, 0, 6:8] = reference[0, 0, 15:17] = reference[0, 0, 25:30] = True
    p[0, 0, 2:5] = 0.6  # on the first part
    p[0, 0, 8:10] = 0.8  # beside the second part: touches it when grown
    p[0, 0, 17] = 0.9  # beside the tiny lesion
    p[0, 0, 35] = 0.9  # on nothing
    result = evaluate_case(reference, p, (1, 1, 1), profile_rules("brats-mets-2023"))
    assert (result.lesions.n_voxels.tolist(), result.counted.tolist()) == ([6, 2, 5], [True, False, True])
    assert result.detected.tolist() == [True, False, False]
    assert result.matches.dice[0] == 2 * 2 / (6 + 5)
    assert result.matches.status.tolist() == [
        Status.DUPLICATE,
        Status.TRUE_POSITIVE,
        Status.IGNORED,
        Status.FALSE_POSITIVE,
    ]


def test_lesions_that_an_incomplete_reference_lacks():
    reference = np.zeros((1, 1, 12), bool)
    reference[0, 0, 0:3] = reference[0, 0, 5] = reference[0, 0, 9:11] = True
    kept = reference.copy()
    kept[0, 0, 5] = False
    result = evaluate_case(reference, reference * 0.5, (1, 1, 1), censored_reference=kept)
    assert result.censored.tolist() == [False, True, False]
    rules = EvaluationRules(match="overlap", dilation_voxels=1, join_dilated=True)
    joined = evaluate_case(reference, reference * 0.5, (1, 1, 1), rules, censored_reference=kept)
    assert (joined.lesions.n_voxels.tolist(), joined.censored.tolist()) == ([4, 2], [False, False])
    kept[0, 0, 7] = True
    with pytest.raises(InputError, match="1 lesion voxels that the full reference lacks"):
        evaluate_case(reference, reference * 0.5, (1, 1, 1), censored_reference=kept)


def test_2d():
    reference = np.eye(5, dtype=bool)
    result = evaluate_case(reference, reference.astype(np.float32), (1, 1))
    assert (len(result.lesions), result.detected.tolist()) == (1, [True])
    apart = evaluate_case(reference, reference.astype(np.float32), (1, 1), EvaluationRules(connectivity=4))
    assert apart.detected.tolist() == [True] * 5


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match="prediction must have the reference's shape"):
        evaluate_case(np.zeros((3, 3, 3)), np.zeros((3, 3, 4)), (1, 1, 1))
    with pytest.raises(ValueError, match="valid must have"):
        evaluate_case(np.zeros((3, 3, 3)), np.zeros((3, 3, 3)), (1, 1, 1), valid=np.ones((3, 3), bool))


@pytest.mark.parametrize(("place", "value"), [(0, np.nan), (0, -1.0), (0, 2.0), (3, 2.0), (3, np.inf)])
def test_refuses_what_is_no_probability(place, value):
    reference, p = np.array([[1, 0, 0, 0]]), np.zeros((1, 4))
    p[0, place] = value
    with pytest.raises(ValueError, match="prediction must be finite probabilities"):
        evaluate_case(reference, p, (1, 1))


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 1, 1), (3, 1, 1), (5, 0.5, 0.5)])
def test_perfect_balls_of_6_mm_are_all_detected_at_any_spacing(spacing):
    rng = np.random.default_rng(0)
    shape = tuple(int(14 / s) + 1 for s in spacing)
    for _ in range(20):
        mask = ball(shape, rng.uniform(6, 8, 3) / spacing, 3, spacing)
        assert evaluate_case(mask, mask.astype(np.float32), spacing).detected.all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 1, 1), (4, 0.5, 0.5)]))
def test_agrees_with_a_dense_implementation(seed, spacing):
    rng = np.random.default_rng(seed)
    reference = ndimage.gaussian_filter(rng.standard_normal((8, 16, 16)), 1.2) > 0.18
    noise = ndimage.gaussian_filter(rng.standard_normal((8, 16, 16)), 1.2)
    probability = np.clip(0.5 * reference + 2 * noise, 0, 1).astype(np.float32)
    result = evaluate_case(reference, probability, spacing, EvaluationRules(distance="center"))
    labels, n = ndimage.label(probability >= np.float32(0.1), np.ones((3, 3, 3)))
    voxels = np.argwhere(reference) * spacing
    n_hits, confidences = 0, []
    for i in range(1, n + 1):
        centroid = np.array(ndimage.center_of_mass(labels == i)) * spacing
        n_hits += bool(len(voxels)) and np.linalg.norm(voxels - centroid, axis=1).min() <= 1 + 1e-6
        confidences.append(probability[labels == i].astype(float).mean())
    assert len(result.candidates) == n
    assert (result.matches.status != Status.FALSE_POSITIVE).sum() == n_hits
    np.testing.assert_allclose(np.sort(result.confidence), np.sort(confidences), atol=1e-8)


def test_thousands_of_specks_of_noise_are_one_pass():
    lattice = np.zeros((60, 81, 81), bool)
    lattice[::3, ::3, ::3] = True
    chosen = np.random.default_rng(0).choice(np.flatnonzero(lattice), 14_000, replace=False)
    probability = np.zeros(lattice.size, np.float32)
    probability[chosen] = 0.4
    result = evaluate_case(np.zeros(lattice.shape, bool), probability.reshape(lattice.shape), (1, 1, 1))
    assert result.count(Status.FALSE_POSITIVE) == 14_000


def test_a_threshold_that_vanishes_in_the_type_of_the_map_is_refused():
    with pytest.raises(InputError, match=r"threshold 1e-09 is 0 in float16"):
        evaluate_case(np.zeros((2, 3)), np.zeros((2, 3), np.float16), (1, 1), EvaluationRules(threshold=1e-9))
