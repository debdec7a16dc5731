"""nnunet_lopsided.evaluation.dynamic_candidates; the comparison with picai_eval is in test_peers."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, generate_binary_structure, label

from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case
from nnunet_lopsided.evaluation.dynamic_candidates import dynamic_candidates


def by_the_letter(probability, least_peak, rank=3):
    """report_guided_annotation's loop over the whole volume, with scipy's labelling: slow, and nothing shared."""
    working, taken, candidates = probability.copy(), np.zeros(probability.shape, bool), []
    full = generate_binary_structure(probability.ndim, rank)
    while (peak := working.max()) >= probability.dtype.type(least_peak):
        components, _ = label(working >= probability.dtype.type(peak / 2.5), full)
        mask = components == components[working == peak].min()
        working[mask] = 0
        grown = label(taken | mask, full)[0]
        if not (taken & (grown == grown[mask][0])).any():
            taken |= mask
            candidates.append(tuple(np.flatnonzero(mask)))
    return set(candidates)


def of(lesions):
    return {tuple(lesions.select([k + 1])) for k in range(len(lesions))}


def test_joined_lesions_are_told_apart_by_hand():
    """Around .9 reach the voxels of at least .36, around .8 those of .32; the saddle of .3 belongs to neither."""
    p = np.array([[[0.2, 0.9, 0.4, 0.3, 0.5, 0.8, 0.31, 0.0, 0.1, 0.05, 0.03]]])
    candidates = dynamic_candidates(p, 0.1, (1, 1, 1))
    assert of(candidates) == {(1, 2), (4, 5), (8, 9)}
    assert candidates.voxel_ids.tolist() == [1, 1, 2, 2, 3, 3]
    assert len(dynamic_candidates(p, 0.2, (1, 1, 1))) == 2  # the least peak
    assert len(dynamic_candidates(p, 0.95, (1, 1, 1))) == 0
    assert len(dynamic_candidates(np.zeros((2, 3)), 0.1, (1, 1))) == 0


def test_a_rim_is_no_candidate_of_its_own():
    p = np.array([[0.3, 0.3, 0.9, 0.3, 0.3]])  # .3 is above the threshold and below .36
    assert of(dynamic_candidates(p, 0.1, (1, 1))) == {(2,)}


def test_voxels_without_annotation_hold_nothing():
    p = np.array([[0.9, 0.0, 0.8]])
    assert of(dynamic_candidates(p, 0.1, (1, 1), valid=np.array([[False, True, True]]))) == {(2,)}


@pytest.mark.parametrize("seed", range(25))
def test_against_the_loop_over_the_whole_volume(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(3, 14, 2 + seed % 2))
    p = gaussian_filter(rng.random(shape) ** 4, rng.choice([0.6, 1.0]))
    p = (p / p.max() * rng.choice([0.4, 1])).astype(rng.choice(["float32", "float64"]))
    if seed % 3 == 0:
        p = np.round(p, 1)  # many equal peaks
    least = float(rng.choice([0.1, 0.25]))
    assert of(dynamic_candidates(p, least, (1.0,) * p.ndim)) == by_the_letter(p, least)


@pytest.mark.parametrize(("connectivity", "shape", "rank"), [(6, (6, 9, 8), 1), (18, (6, 9, 8), 2), (4, (15, 14), 1)])
def test_neighbours_are_those_of_the_connectivity(connectivity, shape, rank):
    p = np.random.default_rng(0).random(shape) ** 8
    candidates = dynamic_candidates(p, 0.1, (1.0,) * p.ndim, connectivity)
    assert of(candidates) == by_the_letter(p, 0.1, rank)
    assert len(candidates) > 5


def test_the_smallest_numbers_of_a_type_are_peaks_too():
    """A peak over 2.5 is then 0, which the voxels around it have as well."""
    p = np.zeros((3, 4), np.float16)
    p[1, 1:3] = smallest = np.nextafter(np.float16(0), np.float16(1))
    assert of(dynamic_candidates(p, float(smallest), (1, 1))) == {(5, 6)}


@pytest.mark.parametrize("haze", [0.0, 0.05])
def test_the_time_is_that_of_the_voxels_not_of_voxels_times_peaks(haze):
    """A haze joins 8,000 peaks to one region; a pass over it for each peak would take minutes."""
    p = np.full((60, 60, 60), haze, np.float32)
    p[1::3, 1::3, 1::3] = 0.5 + 0.5 * np.random.default_rng(0).random((20, 20, 20))
    candidates = dynamic_candidates(p, 0.1, (1, 1, 1))
    assert candidates.n_voxels.tolist() == [1] * 8000


def test_two_lesions_under_one_candidate():
    reference = np.zeros((1, 1, 9), bool)
    reference[0, 0, [1, 2, 5, 6]] = True
    p = np.array([[[0.0, 0.9, 0.9, 0.3, 0.3, 0.9, 0.9, 0.0, 0.0]]])
    one = evaluate_case(reference, p, (1, 1, 1))
    # The centroid lies in the middle, 1 mm from either lesion's box; both are covered, and one counts as missed.
    assert (one.detected.tolist(), one.covered_share.tolist()) == ([True, False], [1.0, 1.0])
    assert one.covered_by.tolist() == [0, 1]
    apart = evaluate_case(reference, p, (1, 1, 1), EvaluationRules(candidates="dynamic"))
    assert (apart.detected.tolist(), apart.covered_by.tolist()) == ([True, True], [0, 0])
    # The segmentation is the same, whatever the candidates are.
    assert apart.segmentation_overlap == one.segmentation_overlap


def test_less_than_half_is_not_covered():
    reference = np.zeros((1, 1, 30), bool)
    reference[0, 0, 0:5] = True
    p = np.zeros((1, 1, 30))
    p[0, 0, 3:25] = 0.5
    case = evaluate_case(reference, p, (1, 1, 1))
    assert (case.missed.tolist(), case.covered_share.tolist(), case.covered_by.tolist()) == ([True], [0.4], [0])
    p[0, 0, 2] = 0.5
    assert evaluate_case(reference, p, (1, 1, 1)).covered_by.tolist() == [1]
