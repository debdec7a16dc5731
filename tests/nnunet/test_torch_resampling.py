"""Logits brought back to the grid of the image by PyTorch are those of nnU-Net's functions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from nnunet_lopsided.nnunet.torch_resampling import interpolated, is_linear, resampled

PLANNED: dict[str, Any] = {
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
}
CPU = torch.device("cpu")


def test_by_hand() -> None:
    row = torch.tensor([0.0, 4.0, 8.0, 8.0]).view(1, 1, 1, 4)
    assert interpolated(row, (1, 1, 2)).flatten().tolist() == [2.0, 8.0]
    assert interpolated(row, (1, 1, 2), thick_axis=2).flatten().tolist() == [4.0, 8.0]  # two are as near
    assert interpolated(row.movedim(3, 1), (3, 1, 1), thick_axis=0).flatten().tolist() == [0.0, 8.0, 8.0]


def back(
    logits: torch.Tensor,
    shape: tuple[int, ...],
    spacing: list[float],
    planned_spacing: list[float],
    configuration: dict[str, Any] = PLANNED,
) -> torch.Tensor:
    return resampled(
        logits,
        SimpleNamespace(transpose_forward=[0, 1, 2]),
        SimpleNamespace(configuration=configuration, spacing=planned_spacing),
        {"shape_after_cropping_and_before_resampling": shape, "spacing": spacing},
        CPU,
    )


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], list[float], list[float]]:
    """Shape of the logits and of the image, spacing of the image and of the plans: cubes and thick slices."""
    old = tuple(draw(st.integers(2, 7)) for _ in range(3))
    new = tuple(draw(st.integers(2, 9)) for _ in range(3))
    spacing = draw(
        st.sampled_from([[1.0, 1.0, 1.0], [6.0, 1.0, 1.0], [1.0, 6.0, 1.0], [1.0, 1.0, 5.0], [9.0, 9.0, 1.0]])
    )
    return old, new, spacing, draw(st.sampled_from([[1.0, 1.0, 1.0], [4.0, 1.0, 1.0], spacing, [1.0, 1.0]]))


@settings(max_examples=80)
@given(grids(), st.integers(0, 9))
def test_it_is_what_nnunet_gives(
    grid: tuple[tuple[int, ...], tuple[int, ...], list[float], list[float]], seed: int
) -> None:
    old, new, spacing, planned = grid
    logits = 6 * torch.randn(2, *old, generator=torch.Generator().manual_seed(seed))
    logits = logits.half()
    current = planned if len(planned) == 3 else [spacing[0], *planned]
    kwargs = PLANNED["resampling_fn_probabilities_kwargs"]
    expected = resample_data_or_seg_to_shape(logits.float(), new, current, spacing, **kwargs)
    found = back(logits, new, spacing, planned)
    if old == new:
        assert found is logits
        return
    assert found.dtype == torch.float32
    np.testing.assert_allclose(
        torch.softmax(found, 0).numpy(), torch.softmax(torch.as_tensor(expected), 0).numpy(), atol=1e-5
    )
    in_half = torch.as_tensor(resample_data_or_seg_to_shape(logits, new, current, spacing, **kwargs)).float()
    # nnU-Net rounds to half precision; here logits are up to some 25, where that is 0.008, and no voxel is in doubt.
    difference = (torch.softmax(found, 0) - torch.softmax(in_half, 0)).abs().max()
    assert difference < 5e-3


@pytest.mark.parametrize(
    "change",
    [
        {"resampling_fn_probabilities": "resample_torch_fornnunet"},
        {"resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 3, "order_z": 0}},
        {"resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 1}},
        {"resampling_fn_probabilities_kwargs": {"is_seg": True, "order": 1, "order_z": 0}},
        {"resampling_fn_probabilities_kwargs": {"is_seg": False, "order_z": 0}},  # its default is cubic
        {"resampling_fn_probabilities_kwargs": {"order": 1, "other": 2}},
        {"resampling_fn_probabilities_kwargs": None},
    ],
)
def test_what_was_set_otherwise_is_left_to_nnunet(change: dict[str, Any]) -> None:
    logits = torch.randn(2, 3, 4, 5)
    assert not is_linear(PLANNED | change)
    assert back(logits, (6, 4, 5), [1, 1, 1], [1, 1, 1], PLANNED | change) is logits


def test_without_the_key_thick_slices_are_interpolated_as_nnunet_does() -> None:
    configuration = PLANNED | {"resampling_fn_probabilities_kwargs": {"order": 1}}
    logits = torch.randn(1, 4, 3, 3)
    expected = resample_data_or_seg_to_shape(logits, (6, 3, 3), [4, 1, 1], [3, 1, 1], order=1)
    found = back(logits, (6, 3, 3), [3, 1, 1], [4, 1, 1], configuration)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_full_gpu_leaves_it_to_nnunet(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("full")

    monkeypatch.setattr(torch.nn.functional, "interpolate", full)
    logits = torch.randn(2, 3, 4, 5)
    assert back(logits, (6, 4, 5), [1, 1, 1], [1, 1, 1]) is logits
