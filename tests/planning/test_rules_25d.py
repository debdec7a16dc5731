"""The rules of the 2.5d planner: a table of datasets and what is chosen for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.planning.rules_25d import Choices, Overrides, TrainingMemory, choose_25d

GIB = 2**30


def memory(network: Mapping[str, Any], patch: tuple[int, int]) -> TrainingMemory:
    """Half a GiB, and per patch of 256 x 256 a third of one for resnet50 at stride 8, about as in truth."""
    share = {"resnet50": 1, "resnet34": 0.7}.get(network["encoder"], 0.5) * (8 / network["output_stride"])
    return TrainingMemory(GIB // 2, int(GIB / 3 * share * patch[0] * patch[1] / 256**2))


def lesions(small_mm: float = 4.0, median_mm: float = 5.6) -> dict[str, Any]:
    return {"diameter_mm_percentiles": {"25": small_mm, "50": median_mm}}


NO_LESIONS = {"diameter_mm_percentiles": None}


def choose(
    shapes: list[tuple[int, int, int]], spacing: tuple[float, float, float], found: Any, **options: Any
) -> Choices:
    return choose_25d(shapes, spacing, found, memory, **options)


# name: shapes, spacing, lesions -> slices, patch, window, depth, decoder, stride, encoder, batch, iterations, epochs
TABLE: dict[str, tuple[Any, Any, Any, tuple[Any, ...]]] = {
    "isotropic 1 mm brain MR": (
        [(150, 190, 170), (144, 200, 165)] * 50,
        (1.0, 1.0, 1.0),
        lesions(6.0, 8.0),
        # 8 slices -> 7 (the most); .8 * 14700 slices in batches of 32 are 368; 250000 / 368
        (7, (208, 176), (260, 220), 225, "deeplabv3plus", 8, "resnet50", 32, 368, 679),
    ),
    "the paper's: 1 mm slices of 0.94 mm, lesions of 5.6 mm": (
        [(160, 240, 240)] * 105,
        (1.0, 0.94, 0.94),
        lesions(4.0, 5.6),
        (5, (240, 240), (300, 300), 240, "deeplabv3plus", 8, "resnet50", 25, 500, 500),
    ),
    "5 mm slices": (
        [(28, 384, 300)] * 40,
        (5.0, 0.6, 0.6),
        lesions(7.0, 12.0),
        # 2.4 slices -> 3; 11.7 voxels across
        (3, (384, 304), (480, 380), 42, "deeplabv3", 8, "resnet50", 12, 75, 1000),
    ),
    "0.5 mm CT": (
        [(400, 512, 512), (300, 512, 512)],
        (0.5, 0.5, 0.5),
        lesions(3.0, 6.0),
        # Patches of 512 x 512 take four times the memory: 7.5 / (4 / 3) = 5.6 with resnet50, / .7 = 8.04 with resnet34.
        (7, (512, 512), (640, 640), 600, "deeplabv3plus", 8, "resnet34", 8, 70, 1000),
    ),
    "large lesions": (
        [(100, 256, 256)] * 10,
        (1.0, 1.0, 1.0),
        lesions(18.0, 30.0),
        (7, (256, 256), (320, 320), 150, "deeplabv3plus", 16, "resnet50", 32, 50, 1000),
    ),
    "one case": (
        [(20, 100, 90)],
        (3.0, 1.0, 1.0),
        lesions(5.0, 9.0),
        (3, (112, 96), (140, 120), 30, "deeplabv3plus", 8, "resnet50", 20, 50, 1000),
    ),
    "huge in-plane": (
        [(30, 2048, 1400)] * 8,
        (2.0, 0.2, 0.2),
        lesions(5.0, 6.0),
        (3, (512, 512), (512, 512), 45, "deeplabv3plus", 16, "resnet50", 11, 50, 1000),
    ),
    "one case that is far larger": (
        [(30, 256, 256)] * 49 + [(900, 600, 256)],
        (2.0, 1.0, 1.0),
        lesions(5.0, 6.0),
        (3, (256, 256), (320, 320), 45, "deeplabv3plus", 8, "resnet50", 22, 87, 1000),
    ),
    "no lesions": (
        [(30, 64, 64)] * 8,
        (2.0, 1.0, 1.0),
        NO_LESIONS,
        (5, (64, 64), (80, 80), 45, "deeplabv3", 8, "resnet50", 32, 50, 1000),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table(name: str) -> None:
    shapes, spacing, found, expected = TABLE[name]
    c = choose(shapes, spacing, found)
    assert (
        c.slices.value,
        c.patch.value,
        c.window.value,
        c.depth.value,
        c.decoder.value,
        c.output_stride.value,
        c.encoder.value,
        c.batch_size.value,
        c.iterations_per_epoch.value,
        c.epochs.value,
    ) == expected


def test_every_choice_has_its_reason() -> None:
    shapes, spacing, found, _ = TABLE["5 mm slices"]
    reasons = choose(shapes, spacing, found).reasons()
    assert reasons["slices"] == "a median lesion of 12.0 mm spans 2.4 slices of 5 mm (3 to 7)"
    assert reasons["patch"] == "the whole slice (largest 384 x 300), in multiples of 16"
    assert reasons["decoder"] == reasons["output_stride"]
    assert reasons["decoder"] == "a quarter of the lesions is at most 11.7 voxels across, small: the paper's network"
    assert reasons["encoder"] == "the default; 8 GiB hold batches of 12"
    assert reasons["iterations_per_epoch"] == "75 batches show as many slices as a fold trains on, 896 (50 to 500)"
    assert reasons["epochs"] == "75000 iterations in all, nnU-Net's are 250000 (100 to 1000 epochs)"
    assert all(reasons.values())


def test_outliers_do_not_count_and_the_reasons_say_so() -> None:
    shapes, spacing, found, _ = TABLE["one case that is far larger"]
    reasons = choose(shapes, spacing, found).reasons()
    but = "but 1 of 50 cases, of up to 900 x 600 x 256, far larger than nine of ten: several windows cover these"
    assert reasons["patch"] == f"the whole slice (largest 256 x 256 {but}), in multiples of 16"
    assert reasons["depth"] == (
        f"one window covers the deepest case {but}, 30 slices, with a margin: near its edge nnU-Net's window is inexact"
    )


@pytest.mark.parametrize(
    ("depths", "expected"),
    [
        ([40] * 8 + [61], 92),  # one of nine is more than a tenth
        ([40] * 9 + [61], 60),
        ([40] * 9 + [60], 90),  # not far above the others
        ([40] * 18 + [900] * 2, 60),
        ([40] * 17 + [900] * 3, 1350),  # more than a tenth of the cases
        ([20, 30, 40, 50] * 5 + [1000, 70], 105),
    ],
)
def test_what_is_an_outlier(depths: list[int], expected: int) -> None:
    assert choose([(depth, 64, 64) for depth in depths], (2, 1, 1), NO_LESIONS).depth.value == expected


def test_an_outlier_in_the_plane_alone() -> None:
    c = choose([(20, 64, 96)] * 20 + [(20, 64, 300)], (2, 1, 1), NO_LESIONS)
    assert (c.depth.value, c.patch.value, c.window.value) == (30, (64, 96), (80, 120))


def test_arithmetic_of_memory() -> None:
    needed = TrainingMemory(fixed_bytes=100, bytes_per_patch=30)
    assert needed.of_batch(3) == 190
    assert [needed.largest_batch(budget) for budget in (50, 129, 130, 189, 190.5)] == [0, 0, 1, 2, 3]


def test_overrides_win() -> None:
    shapes, spacing, found, _ = TABLE["5 mm slices"]
    given = Overrides(
        n_slices=7,
        encoder="resnet101",
        decoder="deeplabv3plus",
        output_stride=16,
        in_plane_patch=(33, 160),
        batch_size=40,
        encoder_weights="imagenet",
    )
    c = choose(shapes, spacing, found, overrides=given)
    assert c.network == {
        "n_slices": 7,
        "encoder": "resnet101",
        "decoder": "deeplabv3plus",
        "output_stride": 16,
        "encoder_weights": "imagenet",
    }
    assert (c.patch.value, c.batch_size.value) == ((48, 160), 40)
    assert c.reasons()["encoder"] == c.reasons()["decoder"] == "as given"
    assert c.memory.value == memory(c.network, (48, 160)).of_batch(40)


def test_a_single_override_leaves_the_rest_to_the_rules() -> None:
    shapes, spacing, found, expected = TABLE["5 mm slices"]
    c = choose(shapes, spacing, found, overrides=Overrides(output_stride=16))
    assert (c.decoder.value, c.output_stride.value, c.slices.value) == ("deeplabv3", 16, expected[0])


def test_a_small_gpu() -> None:
    shapes, spacing, found, _ = TABLE["0.5 mm CT"]
    c = choose(shapes, spacing, found, memory_target_gib=1)
    assert (c.encoder.value, c.batch_size.value) == ("resnet18", 2)
    assert c.reasons()["batch_size"] == "the smallest; the estimate allows 0 in 1 GiB: it will need more"
    assert c.reasons()["encoder"] == "the smallest; even so 1 GiB hold batches of 0"
    assert c.memory.value > GIB


@pytest.mark.parametrize("target", [0, -1, float("nan"), float("inf")])
def test_no_memory_at_all(target: float) -> None:
    with pytest.raises(InputError, match="GPU memory target must be above 0"):
        choose([(9, 9, 9)], (1, 1, 1), NO_LESIONS, memory_target_gib=target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_slices": 4}, "slices must be a positive odd number, got 4"),
        ({"n_slices": 0}, "slices must be a positive odd number, got 0"),
        ({"n_slices": -3}, "slices must be a positive odd number, got -3"),
        ({"batch_size": 0}, "batch size must be at least 1, got 0"),
        ({"in_plane_patch": (0, 32)}, r"patch must be two positive numbers, got \(0, 32\)"),
        ({"in_plane_patch": (32,)}, r"patch must be two positive numbers, got \(32,\)"),
        ({"n_slices": 3.0}, "slices must be a positive odd number, got 3.0"),
        ({"decoder": "unet"}, "decoder must be deeplabv3 or deeplabv3plus, got unet"),
        ({"output_stride": 4}, "output stride must be 8 or 16, got 4"),
    ],
)
def test_wrong_overrides(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Overrides(**options)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(1, 3000)] * 3), min_size=1, max_size=6),
    st.tuples(*[st.floats(0.05, 12)] * 3),
    st.tuples(st.floats(0.1, 80), st.floats(0.1, 80)) | st.none(),
    st.floats(0.1, 100),
)
def test_whatever_the_data_the_choices_are_in_range(shapes: Any, spacing: Any, sizes: Any, target: float) -> None:
    found = NO_LESIONS if sizes is None else lesions(min(sizes), max(sizes))
    c = choose(shapes, spacing, found, memory_target_gib=target)
    assert c.slices.value in (3, 5, 7)
    assert all(size % 16 == 0 and 16 <= size <= 512 for size in c.patch.value)
    # Up to six cases have no outliers.
    if max(n for shape in shapes for n in shape[1:]) <= 512:
        assert all(c.patch.value[i] >= max(shape[i + 1] for shape in shapes) for i in (0, 1))
    assert 1.5 * max(shape[0] for shape in shapes) <= c.depth.value < 1.5 * max(shape[0] for shape in shapes) + 1
    assert 2 <= c.batch_size.value <= 32
    assert 50 <= c.iterations_per_epoch.value <= 500
    assert 100 <= c.epochs.value <= 1000
    assert c.memory.value <= target * GIB or c.batch_size.value == 2
