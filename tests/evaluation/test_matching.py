"""nnunet_lopsided.evaluation.matching."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_lopsided.evaluation.matching import Status, match, nearest_lesions, shared_voxels
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.lesions import find_lesions

TP, FP, DUPLICATE = Status.TRUE_POSITIVE, Status.FALSE_POSITIVE, Status.DUPLICATE
OVERLAP = EvaluationRules(match="overlap")


def run(reference, prediction, confidence=None, rules=None, spacing=(1, 1, 1)):
    lesions, candidates = find_lesions(reference, spacing), find_lesions(prediction, spacing)
    confidence = np.ones(len(candidates)) if confidence is None else np.asarray(confidence, float)
    return match(lesions, candidates, confidence, rules)


def line(*runs, length=30):
    """A one-voxel-thin volume with these half-open runs of foreground along x."""
    mask = np.zeros((1, 1, length), bool)
    for start, stop in runs:
        mask[0, 0, start:stop] = True
    return mask


def test_perfect_prediction():
    matches = run(line((0, 3), (6, 7)), line((0, 3), (6, 7)))
    assert matches.status.tolist() == [TP, TP]
    assert matches.candidate_of_lesion.tolist() == [1, 2]
    assert matches.dice.tolist() == [1.0, 1.0]
    assert matches.distance_mm.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("reference", "prediction"), [(line(), line((1, 2))), (line((1, 2)), line()), (line(), line())]
)
def test_empty_sides(reference, prediction):
    for rules in (EvaluationRules(), OVERLAP):
        matches = run(reference, prediction, rules=rules)
        assert matches.status.tolist() == [FP] * int(prediction.any())
        assert matches.candidate_of_lesion.tolist() == [0] * int(reference.any())


def test_tolerance_is_measured_from_the_voxel_box():
    # The lesion's last voxel, x = 4, ends at 4.5; candidate voxel x = 5 is .5 mm away, x = 6 1.5 mm.
    reference = line((2, 5))
    assert run(reference, line((5, 6))).distance_mm.tolist() == [0.5]
    assert run(reference, line((6, 7))).status.tolist() == [FP]
    # To the centre of x = 4 it is 1 mm, inclusive.
    center = EvaluationRules(distance="center")
    assert run(reference, line((5, 6)), rules=center).distance_mm.tolist() == [1.0]
    assert run(reference, line((5, 7)), rules=center).status.tolist() == [FP]
    wider = EvaluationRules(tolerance_mm=1.5)
    assert run(reference, line((6, 7)), rules=wider).status.tolist() == [TP]


def test_box_rule_accepts_perfect_predictions_of_thick_slices():
    reference = np.zeros((4, 9, 9), bool)
    reference[1:3, 3:6, 3:6] = True
    spacing = (5, 0.5, 0.5)  # the centroid lies 2.5 mm from the nearest voxel centre, but inside a box
    assert run(reference, reference, spacing=spacing).status.tolist() == [TP]
    assert run(reference, reference, rules=EvaluationRules(distance="center"), spacing=spacing).status.tolist() == [FP]


def test_tiny_detection_inside_a_large_lesion_is_a_true_positive():
    reference = np.zeros((9, 9, 9), bool)
    reference[1:8, 1:8, 1:8] = True
    prediction = np.zeros_like(reference)
    prediction[2, 2, 2] = True
    matches = run(reference, prediction)
    assert matches.status.tolist() == [TP]
    assert matches.dice.tolist() == [2 * 1 / (343 + 1)]


def test_two_candidates_on_one_lesion():
    matches = run(line((0, 10)), line((1, 3), (5, 9)), confidence=(0.4, 0.9))
    assert matches.status.tolist() == [DUPLICATE, TP]
    assert matches.lesion_of_candidate.tolist() == [1, 1]
    assert matches.candidate_of_lesion.tolist() == [2]
    assert matches.dice.tolist() == [2 * 4 / (10 + 4)]


def test_ties_of_confidence_go_to_the_larger_overlap_then_to_the_lower_id():
    assert run(line((0, 10)), line((1, 3), (5, 9))).status.tolist() == [DUPLICATE, TP]
    assert run(line((0, 10)), line((1, 3), (5, 7))).status.tolist() == [TP, DUPLICATE]


def test_one_candidate_on_two_lesions_credits_the_nearest_or_with_overlap_both():
    reference, prediction = line((0, 3), (8, 10)), line((0, 11))  # centroid 5: 2.5 mm to either voxel box at 2 and 8
    assert run(reference, prediction).status.tolist() == [FP]
    wide = EvaluationRules(tolerance_mm=3)
    assert run(reference, prediction, rules=wide).candidate_of_lesion.tolist() == [1, 0]  # a tie: the lower id
    nearer = run(line((0, 3), (7, 10)), prediction, rules=wide)
    assert nearer.candidate_of_lesion.tolist() == [0, 1]
    assert nearer.distance_mm.tolist() == [1.5]
    both = run(reference, prediction, rules=OVERLAP)
    assert both.candidate_of_lesion.tolist() == [1, 1]
    assert both.status.tolist() == [TP]
    assert both.lesion_of_candidate.tolist() == [1]
    assert both.dice.tolist() == [2 * 3 / 14, 2 * 2 / 13]


def test_overlap_duplicate_detects_nothing_else():
    matches = run(line((0, 4), (6, 9)), line((0, 2), (3, 8)), confidence=(0.9, 0.5), rules=OVERLAP)
    assert matches.candidate_of_lesion.tolist() == [1, 2]
    assert matches.status.tolist() == [TP, TP]
    matches = run(line((0, 4)), line((0, 2), (3, 8)), confidence=(0.9, 0.5), rules=OVERLAP)
    assert matches.status.tolist() == [TP, DUPLICATE]


@pytest.mark.parametrize("gap", [None, slice(3, 5)], ids=["ring", "C"])
def test_rings_miss_by_centroid_and_are_reported(gap):
    ring = np.zeros((1, 15, 15), bool)
    ring[0, 3:12, 3:12] = True
    ring[0, 5:10, 5:10] = False
    if gap is not None:
        ring[0, 7, gap] = False
    arm = ring & (np.indices(ring.shape)[2] >= 10)  # the lesion: 18 voxels, 2.5 mm and more from the ring's centroid
    missed = run(arm, ring)
    assert missed.status.tolist() == [FP]
    assert missed.overlap_voxels.tolist() == [18]
    assert run(arm, ring, rules=OVERLAP).status.tolist() == [TP]
    # Something small in the hole, which the ring does not touch, is credited: the letter of the centroid rule.
    center = np.zeros_like(ring)
    center[0, 7, 7] = True
    hit = run(center, ring)
    assert (hit.status.tolist(), hit.overlap_voxels.tolist(), hit.dice.tolist()) == ([TP], [0], [0.0])


def test_single_voxels_in_the_corners():
    reference = np.zeros((3, 3, 3), bool)
    reference[0, 0, 0] = reference[2, 2, 2] = True
    assert run(reference, reference).candidate_of_lesion.tolist() == [1, 2]


def test_exact_tolerance_survives_rounding():
    for spacing in (0.1, 0.3, 0.7, 1 / 3):
        lesions = find_lesions(line((0, 1)), (1, 1, spacing))
        points = np.array([[0.0, 0.0, 3.0]])
        just_below = np.nextafter(3 * spacing, 0)  # as where 3 * 0.1 > 0.3
        rules = EvaluationRules(distance="center", tolerance_mm=just_below)
        nearest, distance = nearest_lesions(lesions, points, rules)
        assert nearest.tolist() == [1]
        assert distance[0] == pytest.approx(3 * spacing, abs=1e-6)


def test_refuses_other_grids():
    one, other = find_lesions(line((0, 1)), (1, 1, 1)), find_lesions(line((0, 1)), (1, 1, 2))
    with pytest.raises(ValueError, match="one shape and spacing"):
        match(one, other, np.ones(1))
    with pytest.raises(ValueError, match="confidence must have shape"):
        match(one, one, np.ones(2))


def masks(seed, density):
    rng = np.random.default_rng(seed)
    return rng, rng.random((5, 7, 8)) < density, rng.random((5, 7, 8)) < density


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.05, 0.2),
    st.sampled_from([(1, 1, 1), (5, 0.5, 0.5), (0.3, 2, 1)]),
    st.sampled_from(["box", "center"]),
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
def test_nearest_lesion_agrees_with_brute_force(seed, density, spacing, distance, tolerance):
    _, reference, prediction = masks(seed, density)
    structure = np.ones((3, 3, 3))
    lesion_map, n_lesions = ndimage.label(reference, structure)
    candidate_map, n_candidates = ndimage.label(prediction, structure)
    lesions, candidates = find_lesions(reference, spacing), find_lesions(prediction, spacing)
    rules = EvaluationRules(distance=distance, tolerance_mm=tolerance)
    nearest, found = nearest_lesions(lesions, candidates.centroids, rules)
    half = np.array(spacing) / 2 if distance == "box" else np.zeros(3)
    for c in range(1, n_candidates + 1):
        row = int(candidates.instances()[candidate_map == c][0]) - 1
        centroid = np.array(ndimage.center_of_mass(candidate_map == c)) * spacing
        to_lesion = []
        for lesion in range(1, n_lesions + 1):
            offset = np.abs(np.argwhere(lesion_map == lesion) * spacing - centroid) - half
            to_lesion.append(np.linalg.norm(np.maximum(offset, 0), axis=1).min())
        if not to_lesion or min(to_lesion) > tolerance + 1e-6:
            assert nearest[row] == 0
            assert np.isnan(found[row])
        else:
            assert found[row] == pytest.approx(min(to_lesion), abs=2e-6)
            chosen = int(lesion_map[lesions.instances() == nearest[row]][0])
            assert to_lesion[chosen - 1] == pytest.approx(min(to_lesion), abs=2e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.4))
def test_shared_voxels_and_overlap_rule_agree_with_brute_force(seed, density):
    rng, reference, prediction = masks(seed, density)
    lesions, candidates = find_lesions(reference, (1, 1, 1)), find_lesions(prediction, (1, 1, 1))
    pairs = np.stack([candidates.instances(), lesions.instances()], -1)[reference & prediction]
    expected = {tuple(p): int((pairs == p).all(1).sum()) for p in np.unique(pairs, axis=0).tolist()}
    shared = shared_voxels(lesions, candidates)
    found = zip(shared.candidate_ids.tolist(), shared.lesion_ids.tolist(), strict=True)
    assert dict(zip(found, shared.n_voxels.tolist(), strict=True)) == expected
    confidence = rng.random(len(candidates)).round(1)
    matches = match(lesions, candidates, confidence, OVERLAP)
    for lesion in range(1, len(lesions) + 1):
        touching = [c for c, hit in expected if hit == lesion]
        best = max(touching, key=lambda c: (confidence[c - 1], expected[c, lesion], -c), default=0)
        assert matches.candidate_of_lesion[lesion - 1] == best
    detecting = matches.candidate_of_lesion[matches.candidate_of_lesion > 0]
    assert set(np.flatnonzero(matches.status == TP) + 1) == set(detecting)
    assert set(np.flatnonzero(matches.status != FP) + 1) == {c for c, _ in expected}
