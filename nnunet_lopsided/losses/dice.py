"""Soft Dice as nnU-Net computes it, with the option to leave bootstrapped negatives out; and its sum with eq. 3."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nnunet_lopsided.losses.distributed import ratio_of_sums, sum_over_ranks
from nnunet_lopsided.losses.lopsided import LopsidedBootstrapLoss
from nnunet_lopsided.losses.preparation import (
    ScalarReduction,
    check_target,
    foreground,
    found_on_background,
    split_ignore,
)

DiceTerm = Literal["none", "full", "masked"]


class SoftDiceLoss(nn.Module):
    """Minus the mean soft Dice, in -1..0: nnU-Net's ``MemoryEfficientSoftDiceLoss(do_bg=False)``.

    Per lesion class (per region with ``sigmoid``) and sample: (2 sum(p t) + s) / (sum(p) + sum(t) + s).

    Args:
        sigmoid: region-based training, see :class:`~nnunet_lopsided.losses.LopsidedBootstrapLoss`.
        ignore_label: the label value to ignore; with ``sigmoid`` the last target channel; None if there is none.
        batch_dice: sums run over the batch, and with ``ddp`` over the ranks; otherwise Dice is taken per sample.
        smooth: s above; nnU-Net trains with 1e-5.
        mask: ``full``: every voxel; ``masked``: voxels labelled background that the network calls lesion are left out
            of all sums (no gradient through the choice), so that Dice does not punish what eq. 3 bootstraps; ``none``:
            no Dice at all, 0.
        ddp: Dice, or the mean of Dice, over all ranks of torch.distributed.

    Raises:
        ValueError: ``mask`` is none of the three.

    Deep supervision: each level's Dice is of the label resampled to it (nearest); a lesion that vanishes there is
    background there, and only ``masked`` does not punish the coarse head for finding it.

    Source:
        Milletari et al. 2016; Isensee et al. 2021 (nnU-Net).

    Example:
        >>> logits = torch.tensor([[[0.0, 0.0, 0.0], [9.0, 9.0, -9.0]]])  # lesion, lesion, background
        >>> label = torch.tensor([[[1, 0, 0]]])
        >>> [round(float(SoftDiceLoss(mask=mask)(logits, label)), 2) for mask in ("full", "masked", "none")]
        [-0.67, -1.0, 0.0]
    """

    def __init__(
        self,
        *,
        sigmoid: bool = False,
        ignore_label: int | None = None,
        batch_dice: bool = False,
        smooth: float = 1e-5,
        mask: DiceTerm = "full",
        ddp: bool = False,
    ) -> None:
        super().__init__()
        if mask not in ("none", "full", "masked"):
            raise ValueError(f"mask must be none, full or masked, got {mask}")
        self.sigmoid = sigmoid
        self.ignore_label = ignore_label
        self.batch_dice = batch_dice
        self.smooth = smooth
        self.mask = mask
        self.ddp = ddp

    def forward(self, logits: Tensor, target: Tensor, teacher: Tensor | None = None) -> Tensor:
        """Scalar loss of ``logits`` (B, C, ...); ``teacher``: logits that choose the voxels to leave out."""
        target, valid = split_ignore(target, self.ignore_label, self.sigmoid)
        target = check_target(logits, target, self.sigmoid)
        with torch.autocast(logits.device.type, enabled=False):
            p, t, valid = foreground(logits, target, sigmoid=self.sigmoid, valid=valid)
            if self.mask == "none":
                return p.sum() * 0.0
            if self.mask == "masked":
                kept = ~found_on_background(logits if teacher is None else teacher, target, sigmoid=self.sigmoid)
                valid = kept if valid is None else kept & valid
            axes = list(range(2, p.ndim))
            counted = p if valid is None else p * valid
            sums = torch.stack([(p * t).sum(axes), counted.sum(axes), t.sum(axes)])
            if self.batch_dice:
                sums = sums.sum(1)
                if self.ddp:
                    sums = sum_over_ranks(sums)
            both, predicted, true = sums.unbind()
            dice = (2 * both + self.smooth) / (predicted + true + self.smooth).clamp_min(1e-8)
            if self.ddp and not self.batch_dice:
                return -ratio_of_sums(dice.sum(), float(dice.numel()), ddp=True)
            return -dice.mean()

    def extra_repr(self) -> str:
        return f"mask={self.mask}, batch_dice={self.batch_dice}, smooth={self.smooth:g}, sigmoid={self.sigmoid}"


class LopsidedDiceLoss(LopsidedBootstrapLoss):
    """Lopsided bootstrap loss plus ``weight_dice`` times :class:`SoftDiceLoss`.

    A full Dice term tolerates lesions missing at random but punishes predictions on them; ``masked`` leaves these out.
    ``alpha`` and ``beta`` may be changed between calls.

    Args:
        alpha: see :class:`LopsidedBootstrapLoss`, as are ``beta``, ``sigmoid``, ``ignore_label``, ``reduction``,
            ``soft`` and ``ddp``.
        dice: which voxels the Dice term sees; ``none``: eq. 3 alone.
        weight_dice: factor of the Dice term.
        batch_dice: see :class:`SoftDiceLoss`, as is ``smooth``.

    Example:
        >>> loss = LopsidedDiceLoss(3, 0.1, dice="masked")
        >>> round(float(loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))), 4)
        0.6931
    """

    def __init__(
        self,
        alpha: float = 3.0,
        beta: float = 0.1,
        *,
        dice: DiceTerm = "full",
        weight_dice: float = 1.0,
        batch_dice: bool = False,
        smooth: float = 1e-5,
        sigmoid: bool = False,
        ignore_label: int | None = None,
        reduction: ScalarReduction = "mean",
        soft: bool = False,
        ddp: bool = False,
    ) -> None:
        super().__init__(
            alpha, beta, sigmoid=sigmoid, ignore_label=ignore_label, reduction=reduction, soft=soft, ddp=ddp
        )
        self.weight_dice = weight_dice
        self.dice = SoftDiceLoss(
            sigmoid=sigmoid, ignore_label=ignore_label, batch_dice=batch_dice, smooth=smooth, mask=dice, ddp=ddp
        )

    def forward(
        self, logits: Tensor, target: Tensor, weight: Tensor | None = None, teacher: Tensor | None = None
    ) -> Tensor:
        """Loss of ``logits`` (B, C, ...) against nnU-Net's ``target``, a scalar."""
        loss = super().forward(logits, target, weight, teacher)
        if self.dice.mask == "none" or self.weight_dice == 0:
            return loss
        return loss + self.weight_dice * self.dice(logits, target, teacher)
