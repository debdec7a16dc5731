"""nnunet_lopsided.evaluation.strata."""

import numpy as np
import pytest

from nnunet_lopsided.evaluation.strata import (
    entropy_by_component,
    probability_histogram,
    sensitivity_by_diameter,
    shannon_entropy_bits,
)


def test_bins_by_hand():
    diameter = np.array([1.0, 2.9, 3.0, 7.0, 50.0])
    bins = sensitivity_by_diameter(diameter, np.array([False, True, True, False, True]), (3, 6, 10))
    assert [(b.lower_mm, b.upper_mm, b.n_lesions, b.n_detected) for b in bins] == [
        (0.0, 3.0, 2, 1),
        (3.0, 6.0, 1, 1),
        (6.0, 10.0, 1, 0),
        (10.0, None, 1, 1),
    ]
    assert [b.sensitivity for b in bins] == [0.5, 1.0, 0.0, 1.0]
    empty = sensitivity_by_diameter(np.zeros(0), np.zeros(0, bool), (3,))
    assert [(b.sensitivity, b.interval.low) for b in empty] == [(None, None), (None, None)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_histogram_includes_both_ends(dtype):
    values = np.array([0, 0.24, 0.25, 0.5, 0.99, 1], dtype)
    assert probability_histogram(values, 4).tolist() == [2, 1, 1, 2]


def test_entropy():
    assert shannon_entropy_bits(np.array([7, 0, 0])) == 0.0
    assert shannon_entropy_bits(np.array([1, 1, 1, 1])) == 2.0
    assert shannon_entropy_bits(np.array([3, 1])) == pytest.approx(0.8112781)
    assert shannon_entropy_bits(np.array([0, 0])) is None


def test_entropy_of_each_component_is_that_of_its_own_histogram():
    rng = np.random.default_rng(0)
    values, ids = rng.random(200), rng.integers(1, 6, 200)
    ids[ids == 3] = 1  # component 3 has no voxel
    found = entropy_by_component(values, ids, 5, 10)
    expected = [shannon_entropy_bits(probability_histogram(values[ids == i], 10)) for i in (1, 2, 4, 5)]
    assert found[[0, 1, 3, 4]].tolist() == pytest.approx(expected)
    assert np.isnan(found[2])
    assert entropy_by_component(np.zeros(0), np.zeros(0, int), 0, 10).shape == (0,)


@pytest.mark.parametrize("n_bins", [10, 100, 7])
def test_a_probability_on_an_edge_is_in_the_bin_above(n_bins):
    edges = np.arange(n_bins) / n_bins
    assert probability_histogram(edges, n_bins).tolist() == [1] * n_bins
