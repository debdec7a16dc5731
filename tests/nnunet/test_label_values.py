"""Which values a label map may hold, and how others are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.dataset_json import LabelScheme
from nnunet_lopsided.nnunet.label_values import check_label_values, unknown_label_values

SCHEME = LabelScheme({"lesion": (1,)}, 3, False)


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.array([0, 1, 255, 255], np.uint8), "255 in 2 voxels"),
        (np.array([0, 1.0000001], np.float32), r"1\.0000001 \(a fraction\) in 1 voxels"),
        (np.array([1000001], np.int32), "1000001 in 1 voxels"),
        (np.array([-1, 2], np.int16), "-1, 2 in 2 voxels"),
        (np.array([np.nan, np.inf, 1]), "inf, nan in 2 voxels"),
        (np.arange(5, 12), "5, 6, 7, 8, 9 and 2 others in 7 voxels"),
    ],
)
def test_values_that_are_not_declared(array: np.ndarray[Any, Any], found: str) -> None:
    with pytest.raises(InputError, match=rf"^case a: a\.png: unknown label value {found}, expected 0, 1, 3 \(dataset"):
        check_label_values(SCHEME, "a", "a.png", array)


def test_declared_values() -> None:
    for dtype in (bool, np.uint8, np.int64, np.float32):
        check_label_values(SCHEME, "a", "a.png", np.array([[0, 1]], dtype))
    check_label_values(SCHEME, "a", "a.png", np.array([3.0]))
    check_label_values(SCHEME, "a", "a.png", np.zeros((0,)))


@given(st_numpy.arrays(st.sampled_from([np.uint8, np.int16, np.float32, np.float64]), 6))
def test_what_is_refused_is_what_is_not_known(array: np.ndarray[Any, Any]) -> None:
    assert bool(unknown_label_values(array, (1, 3))) == any(value not in (0, 1, 3) for value in array.tolist())
    whole = [0 <= value < 2**31 and value == int(value) for value in array.tolist() if value == value]
    assert bool(unknown_label_values(array, None)) == (len(whole) < array.size or not all(whole))


@pytest.mark.parametrize("array", [np.array([1e20]), np.array([2**31], np.int64), np.array([np.inf], np.float32)])
def test_numbers_that_no_software_gives_a_lesion(array: np.ndarray[Any, Any]) -> None:
    assert "expected 0 or positive whole numbers of at most 2147483647" in unknown_label_values(array, None)
    assert unknown_label_values(np.array([1.0, 65536, 2**31 - 1]), None) == ""
