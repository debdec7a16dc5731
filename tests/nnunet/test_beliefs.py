"""Beliefs on the grid of preprocessed images: by hand, and against what nnU-Net makes of a label map."""

from __future__ import annotations

import json
import math
from functools import partial
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import blosc2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.beliefs import (
    BELIEFS_FILE,
    FOLDER,
    BeliefFolder,
    from_levels,
    preprocessed_belief,
    to_levels,
    write_belief,
)
from nnunet_lopsided.nnunet.configurations import Configuration
from nnunet_lopsided.nnunet.preprocessed_case import CleanSegmentation, Properties

SEGMENTATIONS = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}  # nnU-Net's default plans


def configuration(axes: tuple[int, ...], spacing: tuple[float, ...]) -> Configuration:
    """Of plans with this transpose_forward and this target spacing, in the order of the transposed axes."""
    resample = partial(resample_data_or_seg_to_shape, **SEGMENTATIONS)
    plans = SimpleNamespace(transpose_forward=axes)
    return Configuration("data", plans, SimpleNamespace(spacing=spacing, resampling_fn_seg=resample))


def preprocessed(
    label: NDArray[Any], box: tuple[slice, ...], spacing: tuple[float, ...], config: Configuration
) -> CleanSegmentation:
    """A label map (z, y, x) as nnU-Net's DefaultPreprocessor handles it, of images that are nonzero in the box."""
    axes = config.plans.transpose_forward
    images = np.zeros((1, *label.shape), np.float32)
    images[0][box] = 1
    order = [0, *(axis + 1 for axis in axes)]
    images, segmentation = images.transpose(order), label[None].transpose(order).astype(np.int16)
    cropped, segmentation, used = crop_to_nonzero(images, segmentation)
    current = [spacing[axis] for axis in axes]
    target = config.manager.spacing
    new_shape = compute_new_shape(cropped.shape[1:], current, target)
    array = config.manager.resampling_fn_seg(segmentation.astype(np.float32), new_shape, current, target)
    properties = {
        "bbox_used_for_cropping": used,
        "shape_before_cropping": images.shape[1:],
        "shape_after_cropping_and_before_resampling": cropped.shape[1:],
        "spacing": list(spacing),
    }
    return CleanSegmentation(array, cast(Properties, properties))


def test_crop_and_resampling_by_hand() -> None:
    belief = np.zeros((2, 2, 3, 7), np.float32)
    belief[0, 1, 1] = [0.9, 0, 0.8, 0, 0, 0, 0.9]  # the box begins at 1 and ends before 6
    belief[1, 1, 1, 5] = 1  # another class, at the end of the box
    box = (slice(1, 2), slice(1, 2), slice(1, 6))
    config = configuration((0, 1, 2), (1, 1, 0.5))
    clean = preprocessed(np.zeros((2, 3, 7)), box, (1, 1, 1), config)
    found = preprocessed_belief("a", belief, config, clean)
    assert found.shape == (2, 1, 1, 10)
    # Point i of the new grid lies at (i + 1/2) / 2 - 1/2 of the old one.
    np.testing.assert_allclose(found[0, 0, 0], [0, 0.2, 0.6, 0.6, 0.2, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found[1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0.25, 0.75, 1], atol=1e-6)
    assert found.dtype == np.float32


def test_without_resampling_it_is_the_crop() -> None:
    belief = np.random.default_rng(0).random((1, 4, 5, 6)).astype(np.float32)
    box = (slice(1, 3), slice(0, 5), slice(2, 5))
    config = configuration((2, 0, 1), (3.0, 1.0, 2.0))
    clean = preprocessed(np.zeros((4, 5, 6)), box, (1, 2, 3), config)
    found = preprocessed_belief("a", belief, config, clean)
    np.testing.assert_array_equal(found[0], belief[(0, *box)].transpose(2, 0, 1))


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(list(permutations(range(3)))),
    st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 1.7, 4.0])] * 3),
    st.booleans(),
)
def test_a_hard_belief_goes_where_nnunet_puts_the_label(
    seed: int, axes: tuple[int, ...], target: tuple[float, ...], soft: bool
) -> None:
    rng = np.random.default_rng(seed)
    shape = (5, 7, 9)
    box = tuple(slice(int(rng.integers(0, 2)), int(rng.integers(n - 2, n + 1))) for n in shape)
    label = np.zeros(shape)
    label[box] = rng.random(label[box].shape) < 0.3
    config = configuration(axes, target)
    clean = preprocessed(label, box, (1.0, 1.2, 0.9), config)
    assume(math.prod(clean.array.shape))  # nnU-Net rounds two thin slices to none, which it cannot train on either
    belief = label[None].astype(np.float32)
    if soft:
        found = preprocessed_belief("a", rng.random((2, *shape)) * belief * 0.7, config, clean)
        assert 0 <= found.min() <= found.max() <= 0.7
        return
    found = preprocessed_belief("a", belief, config, clean)
    assert found.shape == clean.array.shape
    certain = np.abs(found - 0.5) > 1e-5
    np.testing.assert_array_equal((found > 0.5)[certain], (clean.array[:] == 1)[certain])


def test_other_shapes_are_refused() -> None:
    config = configuration((0, 1, 2), (1, 1, 1))
    clean = preprocessed(np.zeros((2, 3, 4)), (slice(None),) * 3, (1, 1, 1), config)
    with pytest.raises(InputError, match=r"case a: expected shape \(2, 3, 4\), as preprocessed, found \(2, 4, 3\)"):
        preprocessed_belief("a", np.zeros((1, 2, 4, 3)), config, clean)
    with pytest.raises(InputError, match=r"case a: expected shape .* in data, .* preprocess the dataset again"):
        preprocessed_belief("a", np.zeros((1, 2, 3, 4)), configuration((0, 1, 2), (1, 1, 0.5)), clean)


def test_levels_by_hand() -> None:
    values = np.array([[0, 1 / 510 - 1e-6, 1 / 510 + 1e-6, 0.5, 1]])
    assert to_levels(values, exclusive=True).tolist() == [[0, 0, 1, 128, 255]]
    assert to_levels(values, exclusive=False).tolist() == [[0, 0, 1, 128, 255]]
    back = from_levels(to_levels(np.array([[0.0, 1.0]]), exclusive=True))
    assert back.tolist() == [[0, 1]]
    assert back.dtype == np.float32


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans())
def test_levels_are_near_and_sum_to_at_most_1(seed: int, n: int, exclusive: bool) -> None:
    rng = np.random.default_rng(seed)
    belief = rng.random((n, 50)) * (rng.random((n, 50)) < 0.8)
    if exclusive:
        belief /= np.maximum(belief.sum(0), rng.choice([1e-9, 1], 50))
    levels = to_levels(belief, exclusive)
    assert levels.dtype == np.uint8
    assert (levels[belief == 0] == 0).all()
    assert np.abs(from_levels(levels) - belief).max() <= (1 / 255 if exclusive and n > 1 else 1 / 510) + 1e-7
    if exclusive:
        assert levels.sum(0, dtype=int).max() <= 255


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """Cases a (with a belief), b (known to have none) and c (unknown), of shape (2, 3, 4)."""
    for case in "abc":
        for name, dtype, n in ((f"{case}.b2nd", np.float32, 2), (f"{case}_seg.b2nd", np.int16, 1)):
            blosc2.asarray(np.zeros((n, 2, 3, 4), dtype), urlpath=str(tmp_path / name), chunks=(1, 2, 3, 4))
    (tmp_path / FOLDER).mkdir()
    write_belief(tmp_path / FOLDER, "a", np.full((1, 2, 3, 4), 51, np.uint8), tmp_path)
    describe(tmp_path)
    return tmp_path


def describe(folder: Path, **content: Any) -> None:
    described = {"classes": ["lesion"], "cases": {"a": {"a.nii.gz": "0"}}, "cases_without": ["b"]} | content
    (folder / FOLDER / BELIEFS_FILE).write_text(json.dumps(described))


def test_a_folder_of_beliefs(data_folder: Path) -> None:
    folder = BeliefFolder(data_folder)
    assert [folder.has(case, ("lesion",)) for case in "ab"] == [True, False]
    opened = folder.open("a")
    assert (opened.shape, opened.dtype) == ((1, 2, 3, 4), np.uint8)
    assert getattr(opened, "chunks", None) == (1, 2, 3, 4), "as the segmentation's: compressed, and read when sliced"
    np.testing.assert_array_equal(from_levels(opened[:, 0:1].astype(np.uint8)), np.full((1, 1, 3, 4), np.float32(0.2)))


def test_cases_without_a_known_belief_are_refused(data_folder: Path) -> None:
    with pytest.raises(InputError, match=r"^case c: no belief, expected .*/c.b2nd: run lopsided-soften with --overwr"):
        BeliefFolder(data_folder).has("c", ("lesion",))
    with pytest.raises(InputError, match=r"^case a: expected beliefs of rim, core, found lesion in .*lopsided-soften"):
        BeliefFolder(data_folder).has("a", ("rim", "core"))
    file = data_folder / FOLDER / "a.b2nd"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match=r"^case a: cannot read .*/a.b2nd: .*lopsided-soften"):
        BeliefFolder(data_folder).has("a", ("lesion",))
    file.unlink()
    with pytest.raises(InputError, match=r"^case a: no belief, expected .*/a.b2nd: run lopsided-soften"):
        BeliefFolder(data_folder).has("a", ("lesion",))
    (data_folder / FOLDER / BELIEFS_FILE).unlink()
    with pytest.raises(InputError, match=r"^case a: no belief, expected .*/a.b2nd: run lopsided-soften first$"):
        BeliefFolder(data_folder).has("a", ("lesion",))


def test_a_belief_on_another_grid_is_refused(data_folder: Path) -> None:
    write_belief(data_folder / FOLDER, "a", np.zeros((1, 2, 3, 5), np.uint8), data_folder)
    with pytest.raises(InputError, match=r"^case a: expected shape \(1, 2, 3, 4\) of bytes in .*lopsided-soften"):
        BeliefFolder(data_folder).has("a", ("lesion",))
