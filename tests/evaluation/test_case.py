"""nnunet_lopsided.evaluation.case."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case
from nnunet_lopsided.evaluation.matching import Status


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


def test_specks_of_noise_cost_little_more_than_none():
    rng = np.random.default_rng(0)
    shape = (60, 128, 128)
    reference = ball(shape, (30, 60, 60), 8)
    probability = reference.astype(np.float32) * np.float32(0.9)
    lattice = np.zeros(shape, bool)
    lattice[::3, ::3, ::3] = True
    speckled = probability.copy().reshape(-1)
    speckled[rng.choice(np.flatnonzero(lattice), 19_455, replace=False)] = 0.4

    def seconds(array):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            evaluate_case(reference, array, (1, 1, 1))
            times.append(time.perf_counter() - start)
        return min(times)

    result = evaluate_case(reference, speckled.reshape(shape), (1, 1, 1))
    assert len(result.candidates) > 19_000
    # Bound for a loop over components with any work per volume: 19,455 passes would take minutes.
    assert seconds(speckled.reshape(shape)) < 20 * seconds(probability) + 0.5
