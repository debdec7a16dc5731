"""nnunet_lopsided.dilation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_lopsided.dilation import ball_offsets, grown_voxels, joined_when_grown
from nnunet_lopsided.evaluation.matching import shared_voxels
from nnunet_lopsided.lesions import find_lesions


def line(*places, length=12):
    mask = np.zeros((1, length), bool)
    mask[0, list(places)] = True
    return find_lesions(mask, (1, 1))


def test_offsets_reach_faces_and_edges_but_not_corners():
    offsets = {tuple(o) for o in ball_offsets(3, 1).tolist()}
    assert (1, 1, 0) in offsets
    assert (1, 1, 1) not in offsets
    assert (2, 2, 0) in {tuple(o) for o in ball_offsets(3, 2).tolist()}


def test_growth_stops_at_the_border_and_lists_a_voxel_for_every_component_that_reaches_it():
    voxels, ids = grown_voxels(line(0, 2, 11), 1)
    assert sorted(set(zip(voxels.tolist(), ids.tolist(), strict=True))) == [
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 2),
        (3, 2),
        (10, 3),
        (11, 3),
    ]


@pytest.mark.parametrize(("gap", "n_lesions"), [(1, 1), (2, 1), (3, 2)])
def test_lesions_two_voxels_apart_meet_when_grown_by_one(gap, n_lesions):
    joined = joined_when_grown(line(0, 1 + gap), 1)
    assert len(joined) == n_lesions
    assert joined.n_voxels.sum() == 2


def test_joined_lesions_are_numbered_by_their_first_voxels_and_described_anew():
    joined = joined_when_grown(line(0, 5, 7), 1)
    assert joined.n_voxels.tolist() == [1, 2]
    assert joined.centroids.tolist() == [[0.0, 0.0], [0.0, 6.0]]
    assert joined.boxes[1].tolist() == [[0, 1], [5, 8]]
    assert joined.voxel_ids.tolist() == [1, 2, 2]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.5), st.integers(0, 3), st.sampled_from([(4, 6, 7), (8, 9)]))
def test_growth_and_joining_agree_with_dense_dilation(seed, density, n_steps, shape):
    rng = np.random.default_rng(seed)
    mask, other = rng.random(shape) < density, rng.random(shape) < 0.2
    lesions, candidates = find_lesions(mask, (1,) * len(shape)), find_lesions(other, (1,) * len(shape))
    structure = ndimage.generate_binary_structure(len(shape), 2)
    instances = lesions.instances()

    def grown(k):
        return ndimage.binary_dilation(instances == k, structure, n_steps) if n_steps else instances == k

    voxels, ids = grown_voxels(lesions, n_steps)
    for k in range(1, len(lesions) + 1):
        assert set(voxels[ids == k].tolist()) == set(np.flatnonzero(grown(k)).tolist())
    shared = shared_voxels(lesions, candidates, n_steps)
    expected = {
        (c, k): int((grown(k) & (candidates.instances() == c)).sum())
        for k in range(1, len(lesions) + 1)
        for c in range(1, len(candidates) + 1)
    }
    found = zip(shared.candidate_ids.tolist(), shared.lesion_ids.tolist(), strict=True)
    assert dict(zip(found, shared.n_voxels.tolist(), strict=True)) == {p: n for p, n in expected.items() if n}
    dense, _ = ndimage.label(
        ndimage.binary_dilation(mask, structure, n_steps) if n_steps else mask, np.ones((3,) * len(shape))
    )
    joined = joined_when_grown(lesions, n_steps)
    pairs = {(int(a), int(b)) for a, b in zip(joined.instances()[mask], dense[mask], strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(joined)
