"""Tversky plus cross-entropy: by hand, against nnU-Net's Dice, and what is ignored."""

from __future__ import annotations

import math

import pytest
import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1
from segmentation_models_pytorch.losses import TverskyLoss

from nnunet_lopsided.losses import TverskyCrossEntropyLoss


def test_by_hand() -> None:
    # p of lesion: .5, .5, .2; the first voxel is lesion: TP .5, FP .7, FN .5.
    p = torch.tensor([0.5, 0.5, 0.2], dtype=torch.float64)
    logits = torch.stack([torch.zeros(3, dtype=torch.float64), torch.logit(p)])[None]
    index = 0.5 / (0.5 + 0.3 * 0.7 + 0.7 * 0.5)
    cross_entropy = -(2 * math.log(0.5) + math.log(0.8)) / 3
    loss = TverskyCrossEntropyLoss()(logits, torch.tensor([[[1, 0, 0]]]))
    assert float(loss) == pytest.approx(1 - index + cross_entropy, rel=1e-9)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize(("fp", "fn"), [(0.3, 0.7), (0.9, 0.0), (0.0, 2.0)])
def test_equals_segmentation_models_pytorch(n_classes: int, fp: float, fn: float) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, n_classes, 6, 7, generator=random, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, n_classes, (2, 1, 6, 7), generator=random)
    target[target == n_classes - 1] = 0  # with four classes one has no voxel, with two there is no lesion at all
    truth = torch.cat([target == k for k in range(1, n_classes)], 1).double()
    theirs = TverskyLoss("multilabel", from_logits=False, alpha=fp, beta=fn)(torch.softmax(logits, 1)[:, 1:], truth)
    expected = theirs + torch.nn.functional.cross_entropy(logits, target[:, 0])
    ours = TverskyCrossEntropyLoss(fp, fn)(logits, target)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weights", [(-0.1, 0.7), (0.3, float("nan"))])
def test_refuses_weights_below_zero(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be 0 or more"):
        TverskyCrossEntropyLoss(*weights)


def test_equal_weights_are_the_batch_dice_of_nnunet() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 6, 7)
    target = torch.randint(0, 3, (2, 1, 6, 7))
    dice = MemoryEfficientSoftDiceLoss(softmax_helper_dim1, batch_dice=True, do_bg=False, smooth=0, ddp=False)(
        logits, target
    )
    loss = TverskyCrossEntropyLoss(0.5, 0.5)
    expected = 1 + dice + torch.nn.functional.cross_entropy(logits, target[:, 0])
    torch.testing.assert_close(loss(logits, target), expected)


def test_without_a_lesion_cross_entropy_alone_speaks() -> None:
    logits = torch.zeros(1, 2, 5, requires_grad=True)
    loss = TverskyCrossEntropyLoss()(logits, torch.zeros(1, 1, 5))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 1].tolist() == pytest.approx([0.1] * 5)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_ignored_voxels_do_not_count(sigmoid: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 10, requires_grad=True)
    if sigmoid:
        truth = torch.randint(0, 2, (2, 2, 10)).bool()
        ignored = torch.zeros(2, 1, 10, dtype=torch.bool)
        ignored[:, :, 6:] = True
        target, kept = torch.cat([truth, ignored], 1), truth[..., :6]
    else:
        labels = torch.randint(0, 2, (2, 1, 10))
        kept = labels[..., :6].clone()
        labels[..., 6:] = 2
        target = labels
    loss = TverskyCrossEntropyLoss(sigmoid=sigmoid, ignore_label=2)(logits, target)
    torch.testing.assert_close(loss, TverskyCrossEntropyLoss(sigmoid=sigmoid)(logits[..., :6], kept))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[..., 6:].abs().max() == 0 < logits.grad[..., :6].abs().min()
