"""nnunet_lopsided.soft_target: literal cases, then what must hold for any."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.soft_target import soft_target, unexplained_components


def test_only_components_that_touch_no_annotation() -> None:
    p = np.zeros((3, 6, 7), np.float32)
    p[0, 0, 0:3] = 0.9, 0.5, 0.2  # its last voxel touches the label only diagonally: still one component with it
    p[1, 1, 3] = 0.3
    p[2, 5, 5:7] = 0.25, 0.75  # unexplained
    p[0, 5, 0] = 0.09  # below the threshold
    annotated = np.zeros(p.shape, bool)
    annotated[1, 1, 3] = True
    target = unexplained_components(p, annotated, (4.0, 1.0, 1.0))
    expected = np.zeros_like(p)
    expected[2, 5, 5:7] = 0.25, 0.75
    np.testing.assert_array_equal(target.probability, expected)
    assert target.components.n_voxels.tolist() == [2]
    assert target.components.volume_mm3.tolist() == [8.0]
    np.testing.assert_allclose(target.mean, [0.5])
    np.testing.assert_allclose(target.highest, [0.75])
    np.testing.assert_allclose(target.unexplained_score, [0.5 * np.sqrt(2)])
    np.testing.assert_allclose(target.explained_score, [(0.9 + 0.5 + 0.2 + 0.3) / 4 * 2], rtol=1e-6)


def test_nothing_called() -> None:
    target = unexplained_components(np.full((4, 4), 0.0999, np.float32), np.zeros((4, 4), bool), (1.0, 1.0))
    assert not target.probability.any()
    assert len(target.components) == len(target.mean) == 0


def test_rows_and_components_have_one_order() -> None:
    """The second component is larger; numbers belong to ids, not to sizes."""
    p = np.array([[0.2, 0, 0.6, 0.8, 0.7, 0, 0.4]], np.float32)
    target = unexplained_components(p, np.zeros(p.shape, bool), (1.0, 1.0))
    assert target.components.n_voxels.tolist() == [1, 3, 1]
    np.testing.assert_allclose(target.mean, [0.2, 0.7, 0.4], rtol=1e-6)


def test_a_component_is_as_probable_as_it_is_believed() -> None:
    p = np.array([[0.2, 0, 0.6, 0.8, 0.4, 0, 0.5]], np.float32)
    target = soft_target(p, (1.0, 1.0), np.array([1.0, 0.5, 0.0]))
    np.testing.assert_allclose(target, [[1, 0, 0.375, 0.5, 0.25, 0, 0]], rtol=1e-6)
    assert target.dtype == np.float32


@given(
    hnp.arrays(np.float32, (3, 5, 6), elements=st.sampled_from([0, 0, 0, 0.05, 0.1, 0.5, 1])),
    hnp.arrays(bool, (3, 5, 6), elements=st.sampled_from([False] * 9 + [True])),
)
def test_it_is_the_probability_or_nothing(p: NDArray[Any], annotated: NDArray[Any]) -> None:
    target = unexplained_components(p, annotated, (1.0, 1.0, 1.0))
    called_voxels = target.probability > 0
    np.testing.assert_array_equal(target.probability[called_voxels], p[called_voxels])
    assert not (called_voxels & annotated).any()
    called = find_lesions(p >= np.float32(0.1), (1.0, 1.0, 1.0))
    touching = sum(bool(annotated.reshape(-1)[called.select([i])].any()) for i in range(1, len(called) + 1))
    assert len(target.components) == len(called) - touching == len(target.unexplained_score)
    assert len(target.explained_score) == touching
