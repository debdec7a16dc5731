"""nnunet_lopsided.lesions."""

import math

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_lopsided.lesions import find_instances, find_lesions, lesions_of_voxels, pieces_of


def test_literal_volume():
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[0, 0, 0] = 3
    mask[2:4, 3:5, 4:6] = 1
    lesions = find_lesions(mask, spacing_mm=(2, 1, 0.5))
    assert len(lesions) == 2
    assert lesions.n_voxels.tolist() == [1, 8]
    assert lesions.volume_mm3.tolist() == [1.0, 8.0]
    assert lesions.centroids.tolist() == [[0, 0, 0], [2.5, 3.5, 4.5]]
    assert lesions.centroids_mm.tolist() == [[0, 0, 0], [5.0, 3.5, 2.25]]
    assert lesions.boxes[1].tolist() == [[2, 4], [3, 5], [4, 6]]
    assert lesions.diameter_mm[1] == pytest.approx((6 * 8 / math.pi) ** (1 / 3))
    assert lesions.select([1]).tolist() == [0]
    assert lesions.instances()[3, 4, 5] == 2
    assert lesions.voxel_coordinates()[0].tolist() == [0, 0, 0]


def test_connectivity_is_an_explicit_choice():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert [len(find_lesions(mask, (1, 1, 1), c)) for c in (None, 26, 18, 6)] == [1, 1, 2, 2]
    diagonal = np.eye(2, dtype=bool)
    assert [len(find_lesions(diagonal, (1, 1), c)) for c in (None, 8, 4)] == [1, 1, 2]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3, 1), (1, 1, 7), (3, 3, 3)])
def test_as_many_isolated_voxels_as_fit(shape):
    mask = np.zeros(shape, bool)
    mask[::2, ::2, ::2] = True
    assert len(find_lesions(mask, (1, 1, 1))) == mask.sum()


def test_empty_and_2d():
    assert len(find_lesions(np.zeros((3, 3, 3)), (1, 1, 1))) == 0
    square = find_lesions(np.ones((2, 2), bool), (0.5, 0.5))
    assert square.volume_mm3.tolist() == [1.0]
    assert square.diameter_mm[0] == pytest.approx(2 / math.sqrt(math.pi))


@pytest.mark.parametrize(
    ("label", "spacing", "connectivity", "message"),
    [
        (np.zeros(3), (1,), None, "2 or 3 dimensions"),
        (np.zeros((3, 3)), (1, 1, 1), None, "2 positive numbers"),
        (np.zeros((3, 3)), (1, 0), None, "2 positive numbers"),
        (np.zeros((3, 3)), (1, 1), 26, "one of"),
        (np.zeros((3, 3, 3)), (1, 1, 1), 8, "one of"),
    ],
)
def test_refuses(label, spacing, connectivity, message):
    with pytest.raises(ValueError, match=message):
        find_lesions(label, spacing, connectivity)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(26, 3), (18, 2), (6, 1)]), st.floats(0.05, 0.5))
def test_agrees_with_scipy(seed, connectivity, density):
    mask = np.random.default_rng(seed).random((5, 6, 7)) < density
    structure = ndimage.generate_binary_structure(3, connectivity[1])
    labels, n = ndimage.label(mask, structure)
    lesions = find_lesions(mask, (1, 2, 3), connectivity[0])
    mine = lesions.instances()
    assert len(lesions) == n
    # The same partition: a one-to-one map between the two numberings.
    assert len(set(zip(mine[mask].tolist(), labels[mask].tolist(), strict=True))) == n
    first_voxels = [int(np.flatnonzero(mine == i + 1)[0]) for i in range(n)]
    assert first_voxels == sorted(first_voxels)
    for i in range(n):
        assert lesions.n_voxels[i] == (mine == i + 1).sum()
        np.testing.assert_allclose(lesions.centroids[i], ndimage.center_of_mass(mine == i + 1))


@pytest.mark.parametrize(
    ("connectivity", "expected"),
    [
        (4, [[1, 0, 2, 0, 3], [0, 4, 0, 0, 0], [5, 0, 0, 6, 6]]),
        (8, [[1, 0, 1, 0, 2], [0, 1, 0, 0, 0], [1, 0, 0, 3, 3]]),
    ],
)
def test_ids_follow_the_first_voxel_of_each_component(connectivity, expected):
    found = find_lesions(np.array(expected) > 0, (1, 1), connectivity)
    assert found.instances().tolist() == expected


def test_a_component_that_joins_late_keeps_its_first_place():
    # Two arms that meet in the last row are one lesion, before the one between them.
    mask = np.array([[1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
    assert find_lesions(mask, (1, 1), 4).instances()[1].tolist() == [1, 0, 2, 0, 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(26, 3), (18, 2), (6, 1), (8, 2), (4, 1)]), st.floats(0.02, 0.6))
def test_the_very_numbering_of_scipy(seed, connectivity, density):
    shape = (5, 6, 7) if connectivity[0] in (26, 18, 6) else (9, 8)
    mask = np.random.default_rng(seed).random(shape) < density
    labels, _ = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, connectivity[1]))
    # SciPy, too, numbers components by their first voxel, so each number's first place must be after the last one's.
    order = np.unique(labels[labels > 0], return_index=True)[1]
    assert np.all(np.diff(order) > 0)
    np.testing.assert_array_equal(find_lesions(mask, (1,) * mask.ndim, connectivity[0]).instances(), labels)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(26, 3), (18, 2), (6, 1), (8, 2), (4, 1)]), st.floats(0.001, 0.1))
def test_places_far_apart_are_labelled_each_by_itself(seed, connectivity, density):
    """The same components as of the whole box: components of more voxels than a cell's side reach into several."""
    shape = (17, 20, 23) if connectivity[0] in (26, 18, 6) else (60, 70)
    rng = np.random.default_rng(seed)
    mask = ndimage.binary_dilation(rng.random(shape) < density, iterations=int(rng.integers(1, 3)))
    labels, _ = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, connectivity[1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnunet_lopsided.lesions._CELL", int(rng.integers(1, 6)))
        patch.setattr("nnunet_lopsided.lesions._PLACE_VOXELS", 0)
        found = find_lesions(mask, (1,) * mask.ndim, connectivity[0])
        numbers = np.where(mask, rng.integers(1, 4, shape), 0)
        pieces = pieces_of(find_instances(numbers, (1,) * mask.ndim))
    np.testing.assert_array_equal(found.instances(), labels)
    np.testing.assert_array_equal(pieces, pieces_of(find_instances(numbers, (1,) * mask.ndim)))


def test_little_of_a_large_volume_is_labelled(monkeypatch):
    """Two lesions at opposite corners span 7 million voxels."""
    mask = np.zeros((150, 220, 220), bool)
    mask[:3, :3, :3] = mask[-4:, -4:, -4:] = True
    sizes = []
    label = cc3d.connected_components

    def noting(box, **options):
        sizes.append(box.size)
        return label(box, **options)

    monkeypatch.setattr(cc3d, "connected_components", noting)
    assert find_lesions(mask, (1, 1, 1)).n_voxels.tolist() == [27, 64]
    # Of the cells (19 x 28 x 28, and one more each), and of both lesions.
    assert sizes == [20 * 29 * 29, 4**3, 5**3]


def test_rows_do_not_join_around_the_edge():
    mask = np.zeros((3, 4, 50), bool)
    mask[0, 0, 49] = mask[0, 1, 0] = mask[0, 3, 49] = mask[2, 0, 0] = True
    assert len(find_lesions(mask, (1, 1, 1))) == 4


def test_components_that_are_known_already():
    mask = np.zeros((3, 4, 5), bool)
    mask[0, 0, :2] = mask[2, 3, 4] = True
    found = find_lesions(mask, (2.0, 1.0, 1.0))
    again = lesions_of_voxels(mask.shape, (2.0, 1.0, 1.0), found.voxels, found.voxel_ids)
    for name, value in vars(found).items():
        assert np.array_equal(getattr(again, name), value), name
    turned = lesions_of_voxels(mask.shape, (2.0, 1.0, 1.0), found.voxels, 3 - found.voxel_ids)
    assert turned.n_voxels.tolist() == found.n_voxels[::-1].tolist()
    assert len(lesions_of_voxels((3, 3), (1, 1), np.zeros(0, int), np.zeros(0, int))) == 0
    with pytest.raises(ValueError, match="every number from 1 to 3, 2 is missing"):
        lesions_of_voxels((3, 3), (1, 1), np.array([0, 4]), np.array([1, 3]))
