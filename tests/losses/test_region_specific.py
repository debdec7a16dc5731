"""The adaptive region-specific loss: golden values, brute force over regions, properties, edge cases."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from nnunet_lopsided.losses import RegionSpecificLoss, lopsided_bootstrap_loss, region_specific_loss

A, B, SMOOTH = 0.3, 0.4, 1e-5


@pytest.mark.parametrize(("reduction", "expected"), [("mean", 0.9219883361986057), ("sum", 7.375906689588845)])
def test_golden_values(golden_volume: Any, reduction: Any, expected: float) -> None:
    truth = golden_volume.label.double()
    loss = region_specific_loss(golden_volume.probability, truth, (2, 2, 2), reduction=reduction)
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    for sigmoid in (False, True):
        module = RegionSpecificLoss((2, 2, 2), reduction=reduction, ce_weight=0, sigmoid=sigmoid)
        logits = golden_volume.logits[:, 1:] if sigmoid else golden_volume.logits
        assert float(module(logits, golden_volume.label)) == pytest.approx(expected, rel=1e-12)


def of_region(p: NDArray[Any], t: NDArray[Any], a: float, b: float, smooth: float) -> float:
    tp, fp, fn = np.mean(p * t), np.mean(p * (1 - t)), np.mean((1 - p) * t)
    weight_fp = a + b * (fp + smooth) / (fp + fn + smooth)
    weight_fn = a + b * (fn + smooth) / (fp + fn + smooth)
    return float(1 - (tp + smooth) / (tp + weight_fp * fp + weight_fn * fn + smooth))


def brute_force(
    p: NDArray[Any],
    t: NDArray[Any],
    size: tuple[int, ...],
    *,
    valid: NDArray[Any] | None = None,
    reduction: str = "mean",
    skip: bool = False,
    a: float = A,
    b: float = B,
    smooth: float = SMOOTH,
) -> float:
    """(B, K, ...) arrays, one region after the other; valid is (B, 1, ...)."""
    losses = []
    for i, k in np.ndindex(p.shape[:2]):
        starts = product(*[range(0, n, s) for n, s in zip(p.shape[2:], size, strict=True)])
        for start in starts:
            box = tuple(slice(x, x + s) for x, s in zip(start, size, strict=True))
            kept = np.ones_like(p[i, k][box], bool) if valid is None else valid[i, 0][box]
            region_p, region_t = p[i, k][box][kept], t[i, k][box][kept]
            if len(region_p) == 0 or (skip and region_t.sum() == 0):
                continue
            losses.append(of_region(region_p, region_t, a, b, smooth))
    if reduction == "sum":
        return sum(losses) / (p.shape[0] * p.shape[1])
    return float(np.mean(losses)) if losses else 0.0


SHAPES = [
    ((4, 6), (2, 3)),
    ((5, 7), (2, 3)),
    ((3, 3), (16, 16)),
    ((4, 4, 4), (2, 2, 2)),
    ((5, 3, 7), (2, 3, 4)),
    ((5, 3, 7), (16, 1, 2)),
]


def random_problem(shape: tuple[int, ...], seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    p, t = rng.random((2, 3, *shape)), (rng.random((2, 3, *shape)) < 0.1).astype(float)
    valid = rng.random((2, 1, *shape)) < 0.7
    valid[:, :, :2] = False
    return p, t, valid


@pytest.mark.parametrize(("shape", "size"), SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("with_ignored", [False, True])
def test_equals_brute_force(
    shape: tuple[int, ...], size: tuple[int, ...], reduction: Any, skip: bool, with_ignored: bool
) -> None:
    p, t, valid = random_problem(shape)
    kept = valid if with_ignored else None
    loss = region_specific_loss(
        torch.from_numpy(p),
        torch.from_numpy(t),
        size,
        valid=None if kept is None else torch.from_numpy(kept),
        reduction=reduction,
        empty_regions="skip" if skip else "include",
    )
    expected = brute_force(p, t, size, valid=kept, reduction=reduction, skip=skip)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(1e-6, 1),
    st.integers(0, 99),
)
def test_equals_brute_force_for_any_size_and_weight(
    shape: tuple[int, int], size: tuple[int, int], a: float, b: float, smooth: float, seed: int
) -> None:
    p, t, _ = random_problem(shape, seed)
    loss = region_specific_loss(torch.from_numpy(p), torch.from_numpy(t), size, a=a, b=b, smooth=smooth)
    assert float(loss) == pytest.approx(brute_force(p, t, size, a=a, b=b, smooth=smooth), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.integers(1, 5))
def test_zero_for_the_truth_and_below_one_otherwise(seed: int, edge: int) -> None:
    p, t, _ = (torch.from_numpy(x) for x in random_problem((5, 6), seed))
    assert float(region_specific_loss(t, t, (edge, edge))) == 0
    assert 0 < float(region_specific_loss(p, t, (edge, edge))) < 1


def test_one_region_with_constant_weights_is_tversky_and_dice() -> None:
    p, t, _ = (torch.from_numpy(x) for x in random_problem((4, 4)))
    tp, fp, fn = ((x).sum((2, 3)) for x in (p * t, p * (1 - t), (1 - p) * t))
    smooth = 16 * SMOOTH  # ours divides the sums by the voxels
    tversky = (1 - (tp + smooth) / (tp + 0.3 * fp + 0.3 * fn + smooth)).mean()
    torch.testing.assert_close(region_specific_loss(p, t, (16, 16), a=0.3, b=0), tversky, rtol=1e-12, atol=0)
    dice = (1 - (2 * tp + 2 * smooth) / (2 * tp + fp + fn + 2 * smooth)).mean()
    torch.testing.assert_close(region_specific_loss(p, t, (16, 16), a=0.5, b=0), dice, rtol=1e-12, atol=0)


def test_two_dimensions_take_the_last_two_sizes() -> None:
    p, t, _ = (torch.from_numpy(x) for x in random_problem((5, 7)))
    assert torch.equal(region_specific_loss(p, t, (9, 2, 3)), region_specific_loss(p, t, (2, 3)))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("detach_weights", [False, True])
@pytest.mark.parametrize("empty_regions", ["include", "skip"])
def test_gradients(reduction: Any, detach_weights: bool, empty_regions: Any) -> None:
    p, t, valid = (torch.from_numpy(x) for x in random_problem((3, 5)))
    p.requires_grad_()

    def loss(x: torch.Tensor, detached: bool = detach_weights) -> torch.Tensor:
        return region_specific_loss(
            x,
            t,
            (2, 2),
            smooth=1e-2,
            valid=valid,
            reduction=reduction,
            detach_weights=detached,
            empty_regions=empty_regions,
        )

    if not detach_weights:
        assert torch.autograd.gradcheck(loss, p)
        return
    assert torch.equal(loss(p), loss(p, False))
    assert not torch.allclose(torch.autograd.grad(loss(p), p)[0], torch.autograd.grad(loss(p, False), p)[0])


# ---- the module


def make(sigmoid: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, 5, 6, generator=random, dtype=torch.float64)
    if sigmoid:
        return logits, torch.rand(2, 3, 5, 6, generator=random) < 0.3
    return logits, torch.randint(0, 3, (2, 1, 5, 6), generator=random)


def test_cross_entropy_goes_with_it() -> None:
    logits, label = make()
    alone, ce = RegionSpecificLoss((2, 2), ce_weight=0), functional.cross_entropy(logits, label[:, 0])
    both = RegionSpecificLoss((2, 2), ce_weight=0.7)
    torch.testing.assert_close(both(logits, label), alone(logits, label) + 0.7 * ce, rtol=1e-12, atol=0)
    lopsided = RegionSpecificLoss((2, 2), alpha=3, beta=0.1)
    expected = alone(logits, label) + lopsided_bootstrap_loss(logits, label, 3, 0.1)
    torch.testing.assert_close(lopsided(logits, label), expected, rtol=1e-12, atol=0)


def test_background_as_a_class_by_hand() -> None:
    """Logits 0: p = 1/2 everywhere. One region of four voxels, one of them lesion."""
    label = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    logits = torch.zeros(1, 2, 1, 4, dtype=torch.float64)
    # Lesion: TP 1/8, FP 3/8, FN 1/8; background: TP 3/8, FP 1/8, FN 3/8; a = .3 + .4 * share of the error.
    lesion = 1 - 0.125 / (0.125 + 0.6 * 0.375 + 0.4 * 0.125)
    background = 1 - 0.375 / (0.375 + 0.4 * 0.125 + 0.6 * 0.375)
    assert lesion == pytest.approx(0.6875)
    for include, expected in ((False, lesion), (True, (lesion + background) / 2)):
        loss = RegionSpecificLoss((1, 4), smooth=1e-12, ce_weight=0, include_background=include)
        assert float(loss(logits, label)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("reduction", "scale"), [("mean", 1), ("sum", 8)])
def test_with_background_and_alone_it_is_the_loss_of_public_implementations(reduction: Any, scale: int) -> None:
    """Average pooling of all channels in regions that divide the image; PyMIC takes the mean of them all."""
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 4, 6, 2, generator=rng, dtype=torch.float64)
    label = torch.randint(0, 3, (2, 1, 4, 6, 2), generator=rng)
    p, t = torch.softmax(logits, 1), functional.one_hot(label[:, 0], 3).movedim(-1, 1).double()
    tp, fp, fn = (functional.avg_pool3d(x, (2, 3, 1)) for x in (p * t, p * (1 - t), (1 - p) * t))
    weight_fp, weight_fn = (A + B * (x + SMOOTH) / (fp + fn + SMOOTH) for x in (fp, fn))
    expected = (1 - (tp + SMOOTH) / (tp + weight_fp * fp + weight_fn * fn + SMOOTH)).mean()
    assert tp[0, 0].numel() == 8  # the sum over regions, mean over samples and classes
    loss = RegionSpecificLoss((2, 3, 1), reduction=reduction, include_background=True, ce_weight=0)
    torch.testing.assert_close(loss(logits, label), scale * expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("include_background", [False, True])
def test_ignored_voxels_count_for_nothing_in_background_too(include_background: bool) -> None:
    logits, label = make()
    label[:, :, 0, 0] = -1  # beside the image: background
    ignored = torch.zeros_like(label, dtype=torch.bool)
    ignored[..., 4:] = True
    loss = RegionSpecificLoss((2, 2), include_background=include_background, ignore_label=3)
    kept = RegionSpecificLoss((2, 2), include_background=include_background)
    expected = kept(logits[..., :4], label[..., :4])
    torch.testing.assert_close(loss(logits, label.masked_fill(ignored, 3)), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_ignored_voxels_count_for_nothing(sigmoid: bool) -> None:
    logits, target = make(sigmoid)
    ignored = torch.zeros(2, 1, 5, 6, dtype=torch.bool)
    ignored[..., 4:] = True
    if sigmoid:
        given_target, kept = torch.cat([target, ignored], 1), target[..., :4]
    else:
        given_target, kept = target.masked_fill(ignored, 3), target[..., :4]
    loss = RegionSpecificLoss((2, 2), sigmoid=sigmoid, ignore_label=3)
    without = RegionSpecificLoss((2, 2), sigmoid=sigmoid)
    torch.testing.assert_close(loss(logits, given_target), without(logits[..., :4], kept), rtol=1e-12, atol=0)

    nothing = torch.ones_like(given_target) if sigmoid else torch.full_like(given_target, 3)
    logits.requires_grad_()
    value = loss(logits, nothing)
    value.backward()
    assert float(value.detach()) == 0
    assert logits.grad is not None
    assert torch.all(logits.grad == 0)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_bootstrapped_negatives_are_left_out(sigmoid: bool, with_teacher: bool) -> None:
    logits, target = make(sigmoid)
    teacher = -logits if with_teacher else None
    guide = logits if teacher is None else teacher
    if sigmoid:
        p, t = torch.sigmoid(logits), target.double()
        left_out = (guide > 0) & ~target
    else:
        p, t = torch.softmax(logits, 1)[:, 1:], functional.one_hot(target[:, 0], 3).movedim(-1, 1)[:, 1:].double()
        left_out = (guide.argmax(1, keepdim=True) > 0) & (target == 0)
    expected = region_specific_loss(p, t, (2, 2), valid=~left_out)
    loss = RegionSpecificLoss((2, 2), ce_weight=0, bootstrap=True, sigmoid=sigmoid)
    torch.testing.assert_close(loss(logits, target, teacher), expected, rtol=1e-12, atol=0)
    logits.requires_grad_()
    loss(logits, target, teacher).backward()
    assert logits.grad is not None
    everywhere = left_out if sigmoid else left_out.expand_as(logits)
    assert torch.all(logits.grad[everywhere] == 0)
    assert torch.any(logits.grad != 0)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("empty_regions", ["include", "skip"])
def test_patches_of_one_label(value: int, empty_regions: Any) -> None:
    logits = make()[0].float().requires_grad_()
    loss = RegionSpecificLoss((2, 2), empty_regions=empty_regions, ce_weight=0)(logits, torch.full((2, 1, 5, 6), value))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (float(loss.detach()) == 0) == (value == 0 and empty_regions == "skip")


def test_half_precision_is_computed_in_float32() -> None:
    logits, label = make()
    logits = logits.half()
    expected = RegionSpecificLoss((2, 2))(logits.double(), label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = RegionSpecificLoss((2, 2))(logits, label)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_compiles_without_a_break() -> None:
    logits, label = make()
    loss = RegionSpecificLoss((2, 4), ignore_label=2, bootstrap=True)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, label), loss(logits, label))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region_size": (0, 2, 2)}, "region_size must be 3 positive whole numbers for 3D"),
        ({"region_size": (2,)}, "region_size must be 1 positive whole numbers for 1D"),
        ({"a": -1}, "a and b must be 0 or more and not both 0, got -1 and 0.4"),
        ({"smooth": 0}, "smooth must be above 0, got 0"),
        ({"reduction": "none"}, "reduction must be mean or sum, got none"),
        ({"include_background": True, "sigmoid": True}, "include_background must be false with sigmoid"),
        ({"empty_regions": "drop"}, "empty_regions must be include or skip, got drop"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegionSpecificLoss(**options)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="truth must have the shape of probability"):
        region_specific_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="region_size must be 3 positive whole numbers for 3D"):
        region_specific_loss(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4), (2, 2))


def test_one_region_equals_monai_tversky() -> None:
    losses = pytest.importorskip("monai.losses")
    p, t, _ = (torch.from_numpy(x) for x in random_problem((4, 4)))
    theirs = losses.TverskyLoss(alpha=0.3, beta=0.3, smooth_nr=16e-5, smooth_dr=16e-5)(p, t)
    torch.testing.assert_close(region_specific_loss(p, t, (4, 4), a=0.3, b=0.0), theirs)
