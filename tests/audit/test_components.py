"""What is measured on the components of one case."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nnunet_lopsided.audit.components import FRACTIONS, LEVELS, Kind, divided, fainter, measure_case
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.lesions import find_lesions

RULES = EvaluationRules()


def row(*values, dtype=np.float32):
    """One row of pixels with empty rows around it."""
    image = np.zeros((3, len(values)), dtype)
    image[1] = values
    return image


def measure(reference, predictions, images, **further):
    return measure_case(reference, predictions=predictions, images=images, spacing_mm=(1, 1), rules=RULES, **further)


def measured(reference, *models, images=None):
    reference = row(*reference, dtype=bool)
    return measure(reference, [row(*m) for m in models], images or [reference.astype(float)])


def test_annotated_unexplained_and_touching():
    # A lesion found; a component of its own; one below every level.
    found = measured(
        [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [0.9, 0.7, 0, 0, 0.5, 0.3, 0, 0, 0.0005, 0],
    )
    assert found.kind.tolist() == [Kind.ANNOTATED, Kind.UNEXPLAINED]
    assert found.mean_probability == pytest.approx([0.8, 0.4])
    assert found.max_probability == pytest.approx([0.9, 0.5])
    assert found.lesion_of_component.tolist() == [0, -1]
    assert found.lesion_detected.tolist() == [True]
    assert found.lesion_diameter_mm == pytest.approx([2 * np.sqrt(2 / np.pi)])


def test_what_stays_below_the_threshold_is_a_fainter_component():
    # The threshold is 0.1: what reaches it takes its surroundings with it, what does not is one component at its level.
    found = measured(
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [0.9, 0.05, 0, 0.02, 0.005, 0.02, 0, 0.002, 0, 0.0005, 0, 0.004],
    )
    assert found.components.n_voxels.tolist() == [1, 1, 1, 1, 1]
    assert found.level.tolist() == [0.1, 0.01, 0.01, 0.003, 0.001]
    assert found.kind.tolist() == [Kind.ANNOTATED, *[Kind.UNEXPLAINED] * 2, Kind.ANNOTATED, Kind.UNEXPLAINED]
    assert found.max_probability == pytest.approx([0.9, 0.02, 0.02, 0.004, 0.002])


def test_a_fainter_component_of_several_levels_is_one():
    found = measured([0] * 5, [0.002, 0.005, 0.02, 0.005, 0.002])
    assert (found.components.n_voxels.tolist(), found.level.tolist()) == ([1], [0.01])


def test_fainter_components_lie_where_there_is_annotation():
    reference, faint = row(*[0] * 4, dtype=bool), row(0.02, 0, 0, 0.02)
    valid = row(1, 1, 0, 0, dtype=bool)
    found = measure(reference, [faint], [reference.astype(float)], valid=valid)
    assert found.components.voxels.tolist() == [4]


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, (5, 6), elements=st.sampled_from([0, 0.0005, 0.002, 0.004, 0.02, 0.05, 0.2, 0.9])))
def test_fainter_components_are_the_leaves_below_the_threshold(probability):
    components = find_lesions(probability >= 0.03, (1, 1))
    more, level = fainter(components, probability, 0.03)
    assert level[: len(components)].tolist() == [0.03] * len(components)
    assert (more.instances() * (probability >= np.float32(0.03)) == components.instances()).all()
    expected = set()
    for at in (0.01, 0.003, 0.001):
        for region in range(1, (labels := ndimage.label(probability >= at, np.ones((3, 3)))[0]).max() + 1):
            inside = labels == region
            above = min(higher for higher in (0.03, 0.01, 0.003) if higher > at)
            if probability[inside].max() < np.float32(above):
                expected.add((at, tuple(np.flatnonzero(inside))))
    voxels = [tuple(more.voxels[more.voxel_ids == i + 1]) for i in range(len(components), len(more))]
    assert set(zip(level[len(components) :].tolist(), voxels, strict=True)) == expected


def test_a_second_component_on_a_lesion_is_neither():
    # One lesion of nine pixels, predicted as two pieces: the surer one detects it, the other is a duplicate.
    found = measured([1] * 9, [0.9, 0.9, 0, 0, 0, 0, 0.4, 0.4, 0])
    assert found.kind.tolist() == [Kind.ANNOTATED, Kind.OTHER]


def test_what_lies_beside_an_annotated_lesion_is_divided_off():
    # Everything is one component at 0.1; at 0.3 the right part comes free.
    found = measured([1, 1, 0, 0, 0, 0, 0, 0, 0], [0.9, 0.9, 0.25, 0.25, 0.8, 0.8, 0.8, 0.8, 0.8])
    assert found.kind.tolist() == [Kind.ANNOTATED, Kind.UNEXPLAINED]
    assert found.components.n_voxels.tolist() == [2, 5]
    assert found.max_probability == pytest.approx([0.9, 0.8])


def test_no_component_is_divided_for_a_speck():
    found = measured([1, 1, 0, 0, 0, 0, 0, 0, 0], [0.9, 0.9, 0.25, 0.25, 0.8, 0.8, 0.8, 0.8, 0])
    assert found.kind.tolist() == [Kind.OTHER]  # it reaches a lesion, and its centroid lies on none
    assert found.components.n_voxels.tolist() == [8]


def test_a_component_without_annotation_is_not_divided():
    found = measured([0] * 7, [0.9, 0.9, 0.25, 0.25, 0.8, 0.8, 0])
    assert found.kind.tolist() == [Kind.UNEXPLAINED]
    assert found.components.n_voxels.tolist() == [6]


def test_dice_of_annotated_components_cut_back():
    found = measured([0, 1, 1, 0, 0, 0], [0.2, 0.8, 0.8, 0.2, 0, 0])
    # Up to a quarter of the highest probability all four pixels stay, above it the two of the lesion.
    expected = [2 * 2 / (4 + 2) if fraction <= 0.25 else 1.0 for fraction in FRACTIONS]
    assert found.dice[0] == pytest.approx(expected)


def test_contrast_has_a_sign_and_does_not_ask_for_the_annotation():
    probability = [0, 0.9, 0, 0, 0, 0, 0, 0, 0.9, 0]
    image = row(5, 9, 5, 5, 5, 5, 5, 5, 9, 5) + 1
    image[::2] = np.array([4, 8, 4, 8, 4, 8, 4, 8, 4, 8])  # something to measure the spread by
    dark = 20 - image
    found = measured([0, 1, 0, 0, 0, 0, 0, 0, 0, 0], probability, images=[image, dark])
    assert found.contrasts[:, 0] == pytest.approx(-found.contrasts[:, 1])
    assert (found.contrasts[:, 0] > 0).all()
    without = measured([0] * 10, probability, images=[image, dark])
    assert found.contrasts == pytest.approx(without.contrasts)


def test_agreement_is_the_share_of_models_that_reach_the_threshold():
    found = measured([0] * 6, [0.9, 0, 0, 0.3, 0, 0], [0.02, 0, 0, 0.3, 0, 0], [0.9, 0, 0, 0, 0, 0])
    assert found.agreement == pytest.approx([2 / 3, 2 / 3])
    assert found.any_probability == pytest.approx([0.9, 0.3])
    assert found.max_probability == pytest.approx([(0.9 + 0.02 + 0.9) / 3, 0.2])


def test_cutting_back_keeps_the_largest_piece_with_its_holes():
    probability = np.zeros((7, 9), np.float32)
    probability[1:6, 1:6] = 0.9
    probability[3, 3] = 0.2  # a hole
    probability[3, 6] = 0.2  # a bridge
    probability[3, 7] = 0.9  # a smaller piece
    found = measure(np.zeros((7, 9), bool), [probability], [probability])
    whole = np.zeros((7, 9), bool)
    whole[1:6, 1:6] = True
    assert found.cut_back(0, 0.5).tolist() == np.flatnonzero(whole).tolist()
    assert len(found.cut_back(0, 0.1)) == 27


def test_what_lies_in_a_hole_stays_another_component():
    probability = np.zeros((9, 9), np.float32)
    probability[1:8, 1:8] = 0.9
    probability[3:6, 3:6] = 0
    probability[4, 4] = 0.8
    found = measure(np.zeros((9, 9), bool), [probability], [probability])
    ring, inner = found.cut_back(0, 0.5).tolist(), found.cut_back(1, 0.5).tolist()
    assert inner == [4 * 9 + 4]
    assert len(ring) == 49 - 1
    assert not set(ring) & set(inner)


def test_nothing_predicted():
    found = measured([0, 1, 1], [0, 0, 0])
    assert len(found.kind) == 0
    assert found.lesion_detected.tolist() == [False]
    assert found.dice.shape == (0, len(FRACTIONS))


@settings(deadline=None)
@given(
    arrays(np.float32, (6, 7), elements=st.sampled_from([0.0, 0.15, 0.4, 0.6, 0.96])),
    arrays(bool, (6, 7)),
)
def test_divided_components_are_connected_parts(probability, reference):
    lesions = find_lesions(reference, (1, 1))
    before = find_lesions(probability >= 0.1, (1, 1))
    after = divided(before, probability.reshape(-1)[before.voxels], lesions, LEVELS)
    assert set(after.voxels.tolist()) <= set(before.voxels.tolist())
    parent = before.instances().reshape(-1)
    for i in range(len(after)):
        own = after.voxels[after.voxel_ids == i + 1]
        assert len(set(parent[own].tolist())) == 1  # each is a part of one component
        kept = np.zeros(probability.size, bool)
        kept[own] = True
        assert len(find_lesions(kept.reshape(probability.shape), (1, 1))) == 1  # and connected
    # Components that no lesion touches stay as they are.
    free = [
        i for i in range(1, len(before) + 1) if not reference.reshape(-1)[before.voxels[before.voxel_ids == i]].any()
    ]
    instances = after.instances().reshape(-1)
    for i in free:
        own = before.voxels[before.voxel_ids == i]
        assert len(set(instances[own].tolist())) == 1
        assert instances[own[0]] > 0


@settings(deadline=None)
@given(arrays(np.float32, (5, 6), elements=st.sampled_from([0.0, 0.3, 0.8])), arrays(bool, (5, 6)))
def test_dividing_only_adds_candidates(probability, reference):
    images = [np.zeros((5, 6))]
    found = measure(reference, [probability], images)
    plain = find_lesions(probability >= 0.1, (1, 1))
    free = sum(not reference.reshape(-1)[plain.voxels[plain.voxel_ids == i]].any() for i in range(1, len(plain) + 1))
    touches = np.array(
        [reference.reshape(-1)[found.components.select([i + 1])].any() for i in range(len(found.kind))], bool
    )
    assert int((~touches).sum()) >= free
    assert not touches[found.kind == Kind.UNEXPLAINED].any()


@pytest.mark.parametrize(("connectivity", "n"), [(None, 5), (4, 3)])
def test_pieces_are_found_by_the_connectivity_of_the_components(connectivity, n):
    # Cut back at half of 0.9, two pixels and three touch at a corner; what joins them otherwise is fainter.
    probability = np.zeros((4, 8), np.float32)
    probability[1, 1:3] = probability[2, 3:6] = 0.9
    probability[2, 2] = 0.2
    rules = EvaluationRules(connectivity=connectivity)
    found = measure_case(
        np.zeros((4, 8), bool), predictions=[probability], images=[probability], spacing_mm=(1, 1), rules=rules
    )
    assert len(found.kind) == 1
    assert len(found.cut_back(0, 0.5)) == n
