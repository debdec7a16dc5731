"""The mean of several predictions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_lopsided.mean_probability import mean_of


def test_a_mean_by_hand():
    found = mean_of([np.array([[0.0, 1.0]]), np.array([[0.5, 0.25]]), np.array([[1.0, 0.25]])])
    assert found.dtype == np.float32
    assert found.tolist() == [[0.5, 0.5]]


def test_what_is_given_is_left_alone():
    first = np.array([0.25, 0.5], np.float32)
    mean_of([first, np.ones(2, np.float32)])
    assert first.tolist() == [0.25, 0.5]


def test_one_at_a_time_is_taken():
    """No more than one prediction is needed beside the sum."""
    taken: list[float | str] = []

    def predictions():
        for value in (0.0, 1.0):
            taken.append(value)
            yield np.full(3, value)
            taken.append("used")

    assert mean_of(predictions()).tolist() == [0.5] * 3
    assert taken == [0.0, "used", 1.0, "used"]


@given(st.lists(arrays(np.float32, (2, 3), elements=st.floats(0, 1, width=32)), min_size=1, max_size=5))
def test_against_float64(predictions):
    np.testing.assert_allclose(mean_of(predictions), np.mean(np.array(predictions, np.float64), axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([], "at least one, got none"),
        ([np.zeros((2, 2)), np.zeros(2)], r"same shape, got \(2, 2\) and \(2,\)"),
    ],
)
def test_what_has_no_mean(predictions, message):
    with pytest.raises(ValueError, match=message):
        mean_of(predictions)
