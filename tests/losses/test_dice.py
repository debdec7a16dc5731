"""Soft Dice against nnU-Net's, its masked form, and its sum with the lopsided loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch.nn import functional

from nnunet_lopsided.losses import LopsidedBootstrapLoss, LopsidedDiceLoss, SoftDiceLoss


def make(sigmoid: bool = False, shape: tuple[int, ...] = (4, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, *shape, generator=random)
    if sigmoid:
        return logits, torch.rand(2, 3, *shape, generator=random) < 0.3
    return logits, torch.randint(0, 3, (2, 1, *shape), generator=random)


def ignoring(target: torch.Tensor, sigmoid: bool) -> torch.Tensor:
    """The target with a third of the voxels ignored: label 3, or a last channel."""
    ignored = torch.zeros_like(target[:, :1], dtype=torch.bool)
    ignored[..., 3:] = True
    return torch.cat([target, ignored], 1) if sigmoid else target.masked_fill(ignored, 3)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("with_ignored", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_the_sum_with_cross_entropy_is_nnunets(
    sigmoid: bool, batch_dice: bool, with_ignored: bool, shape: tuple[int, ...]
) -> None:
    logits, target = make(sigmoid, shape)
    target = ignoring(target, sigmoid) if with_ignored else target
    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": sigmoid, "ddp": False}
    if sigmoid:
        theirs: Any = DC_and_BCE_loss({}, dice, use_ignore_label=with_ignored)
        # nnU-Net sums the masked channels but counts each voxel once: three channels, three times our mean.
        theirs.weight_ce = 1 / 3 if with_ignored else 1
    else:
        theirs = DC_and_CE_loss(
            dice, {}, ignore_label=3 if with_ignored else None, dice_class=MemoryEfficientSoftDiceLoss
        )
    ours = LopsidedDiceLoss(
        1, 1, dice="full", batch_dice=batch_dice, sigmoid=sigmoid, ignore_label=3 if with_ignored else None
    )
    logits.requires_grad_()
    expected, got = theirs(logits, target), ours(logits, target)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, logits)[0], torch.autograd.grad(expected, logits)[0])


def test_golden_value() -> None:
    # p = (.5, .75), t = (1, 0): (2 * .5 + 1) / (1.25 + 1 + 1).
    logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0986122886681098]]], dtype=torch.float64)
    loss = SoftDiceLoss(smooth=1.0)(logits, torch.tensor([[[1, 0]]]))
    assert float(loss) == pytest.approx(-2 / 3.25, rel=1e-12)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_masked_leaves_findings_on_background_out(sigmoid: bool, with_teacher: bool) -> None:
    logits, target = make(sigmoid)
    guide = -logits if with_teacher else logits
    if sigmoid:
        p, t, left_out = torch.sigmoid(logits), target.float(), (guide > 0) & ~target
    else:
        p, t = torch.softmax(logits, 1)[:, 1:], functional.one_hot(target[:, 0], 3).movedim(-1, 1)[:, 1:].float()
        left_out = (guide.argmax(1, keepdim=True) > 0) & (target == 0)
    kept = (~left_out).float()
    axes = (2, 3)
    dice = (2 * (p * t * kept).sum(axes) + 1e-5) / ((p * kept).sum(axes) + (t * kept).sum(axes) + 1e-5)
    loss = SoftDiceLoss(mask="masked", sigmoid=sigmoid)
    teacher = guide if with_teacher else None
    torch.testing.assert_close(loss(logits, target, teacher), -dice.mean())

    logits.requires_grad_()
    loss(logits, target, teacher).backward()
    assert logits.grad is not None
    assert torch.all(logits.grad[left_out if sigmoid else left_out.expand_as(logits)] == 0)
    assert torch.any(logits.grad != 0)


def test_none_is_zero_with_a_graph() -> None:
    logits, target = make()
    logits.requires_grad_()
    loss = SoftDiceLoss(mask="none")(logits, target)
    loss.backward()
    assert float(loss.detach()) == 0


@pytest.mark.parametrize("mask", ["full", "masked"])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_gradcheck(mask: Any, sigmoid: bool) -> None:
    logits, target = make(sigmoid)
    loss = SoftDiceLoss(mask=mask, sigmoid=sigmoid, ignore_label=3)
    given = ignoring(target, sigmoid)
    assert torch.autograd.gradcheck(lambda z: loss(z, given), logits.double().requires_grad_())


@pytest.mark.parametrize("dice", ["none", "full", "masked"])
@pytest.mark.parametrize("value", [0, 1, 3])
def test_patches_of_one_label(dice: Any, value: int) -> None:
    logits = make()[0].requires_grad_()
    loss = LopsidedDiceLoss(dice=dice, ignore_label=3)(logits, torch.full((2, 1, 4, 5), value))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    if value == 3:
        assert torch.all(logits.grad == 0)


def test_the_parts_of_the_sum() -> None:
    logits, target = make()
    alone = LopsidedBootstrapLoss(3, 0.1)(logits, target)
    assert torch.equal(LopsidedDiceLoss(3, 0.1, dice="none")(logits, target), alone)
    assert torch.equal(LopsidedDiceLoss(3, 0.1, weight_dice=0)(logits, target), alone)
    summed = alone + 0.5 * SoftDiceLoss(mask="masked", batch_dice=True)(logits, target)
    loss = LopsidedDiceLoss(3, 1.0, dice="masked", weight_dice=0.5, batch_dice=True)
    loss.beta = 0.1
    assert torch.equal(loss(logits, target), summed)


def test_half_precision_is_computed_in_float32() -> None:
    logits, target = make()
    logits = logits.half()
    expected = LopsidedDiceLoss()(logits.double(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LopsidedDiceLoss()(logits, target)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_compiles_without_a_break() -> None:
    logits, target = make()
    loss = LopsidedDiceLoss(ignore_label=2)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))


def test_wrong_parameters() -> None:
    with pytest.raises(ValueError, match="mask must be none, full, masked or mixed, got half"):
        SoftDiceLoss(mask="half")  # type: ignore[arg-type]
