"""Soft Dice as nnU-Net computes it, with targets that forgive findings on unlabelled lesions; its sum with eq. 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from nnunet_lopsided.losses.base import LesionLoss, TargetFormat
from nnunet_lopsided.losses.distributed import ratio_of_sums, sum_over_ranks
from nnunet_lopsided.losses.lopsided import LopsidedBootstrapLoss
from nnunet_lopsided.losses.preparation import (
    ScalarReduction,
    foreground,
    found_on_background,
    trust_in_negatives,
    verdict,
    without_ignored,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

DiceTerm = Literal["none", "full", "masked", "mixed"]


class SoftDiceLoss(LesionLoss):
    """Minus the mean soft Dice, in -1..0: nnU-Net's ``MemoryEfficientSoftDiceLoss(do_bg=False)``.

    Per lesion class (per region with ``sigmoid``) and sample: D = (2 sum(p t) + s) / (sum(p) + sum(t) + s). Its
    gradient with respect to the p of a voxel is (2 t - D) / (sum(p) + sum(t) + s): **a voxel is pulled towards lesion
    exactly if its target t is above D / 2**.

    Args:
        batch_dice: sums run over the batch, and with ``ddp`` over the ranks; otherwise Dice is taken per sample.
        smooth: s above; nnU-Net trains with 1e-5.
        mask: what t is on voxels labelled background (lesions have 1). ``full``: 0, as in nnU-Net. ``mixed``: eq. 3's
            own target, 1 - beta for the class that the network calls there, otherwise 0, held constant. ``masked``: 0,
            and voxels that the network calls lesion are left out of all sums (no gradient through the choice).
            ``none``: no Dice at all, 0.
        beta: weight of the label on negatives, 0 to 1, for ``mixed``; may be changed between calls. 1 is ``full``.
        soft: the verdict of ``mixed`` is the probability instead of the class called.
        gamma: 0 or more: a voxel labelled background counts (1 - p)^gamma in the sums, held constant (p the probability
            of any lesion, the teacher's where there is one), so that Dice, too, believes a negative the less the surer
            the network is of a lesion; may be changed between calls. With a large gamma Dice hardly sees findings on
            background at all.
        margin: voxels around a labelled lesion in which a negative counts fully, whatever gamma says.
        target_format: see :class:`~nnunet_lopsided.losses.base.LesionLoss`.

    Raises:
        ValueError: ``mask`` is none of the four, or a number is out of range.

    Deep supervision: each level's Dice is of the label resampled to it (nearest); a lesion that vanishes there is
    background there, and only ``masked`` and ``mixed`` do not punish the coarse head for finding it.

    Source:
        Milletari et al. 2016; Isensee et al. 2021 (nnU-Net). ``mixed``: ours, after eq. 3 of Yi et al. 2020.

    Example:
        >>> logits = torch.tensor([[[0.0, 0.0, 0.0], [9.0, 9.0, -9.0]]])  # lesion, lesion, background
        >>> label = torch.tensor([[[1, 0, 0]]])
        >>> [round(float(SoftDiceLoss(mask=mask, beta=0.1)(logits, label)), 2) for mask in ("full", "masked", "mixed")]
        [-0.67, -1.0, -0.97]
    """

    shown = ("mask", "beta", "soft", "gamma", "margin", "batch_dice", "smooth")

    def __init__(
        self,
        *,
        batch_dice: bool = False,
        smooth: float = 1e-5,
        mask: DiceTerm = "full",
        beta: float = 1.0,
        soft: bool = False,
        gamma: float = 0.0,
        margin: int = 0,
        **target_format: Unpack[TargetFormat],
    ) -> None:
        super().__init__(**target_format)
        if mask not in ("none", "full", "masked", "mixed"):
            raise ValueError(f"mask must be none, full, masked or mixed, got {mask}")
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be within [0, 1], got {beta}")
        if not gamma >= 0:
            raise ValueError(f"gamma must be 0 or more, got {gamma}")
        if margin < 0:
            raise ValueError(f"margin must be 0 or more, got {margin}")
        self.batch_dice = batch_dice
        self.smooth = smooth
        self.mask = mask
        self.beta = beta
        self.soft = soft
        self.gamma = gamma
        self.margin = margin

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        teacher: Tensor | None = None,
        belief: Tensor | None = None,
        doubt: Tensor | None = None,
    ) -> Tensor:
        """Scalar loss of ``logits`` (B, C, ...).

        ``teacher`` are logits whose verdict is taken instead of the network's own; ``belief`` (B, K, ...) in [0, 1] is
        the target t of voxels labelled background, beside which a verdict counts for the rest, 1 - t; ``doubt``
        (B, 1, ...) in [0, 1] stands for p in (1 - p)^gamma.
        """
        target, valid = self.split_target(target)
        # In float16 sums over a patch would overflow: it ends at 65504.
        with torch.autocast(logits.device.type, enabled=False):
            p, t, valid = foreground(logits, target, sigmoid=self.sigmoid, valid=valid, belief=belief)
            if self.mask == "none":
                return p.sum() * 0.0  # with a graph: DDP wants a gradient for every parameter
            counted = p
            if self.mask != "full" or self.gamma:
                judge = without_ignored(logits if teacher is None else teacher, valid)
                t, counted = self._lopsided(p, t, judge, target, valid, doubt)
            if valid is not None:
                t, counted = t * valid, counted * valid
            axes = list(range(2, p.ndim))
            sums = torch.stack([(p * t).sum(axes), counted.sum(axes), t.sum(axes)])
            if self.batch_dice:
                sums = sums.sum(1)
                if self.ddp:
                    sums = sum_over_ranks(sums)
            both, predicted, true = sums.unbind()
            # nnU-Net's floor, for smooth = 0 and no lesion in truth or prediction.
            dice = (2 * both + self.smooth) / (predicted + true + self.smooth).clamp_min(1e-8)
            # Ranks may have samples of different numbers; each counts the same.
            if self.ddp and not self.batch_dice:
                return -ratio_of_sums(dice.sum(), float(dice.numel()), ddp=True)
            return -dice.mean()

    def _lopsided(
        self, p: Tensor, t: Tensor, judge: Tensor, target: Tensor, valid: Tensor | None, doubt: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Targets, and of the probabilities what counts, where not all negatives are believed alike.

        A voxel labelled background is lesion for the share that somebody believes, and a negative for the rest.
        """
        share = t if self.sigmoid else t.sum(1, keepdim=True)
        negative = 1 - share
        if self.mask == "masked":
            negative = negative * ~found_on_background(judge, target, sigmoid=self.sigmoid)
        if self.gamma:
            negative = negative * trust_in_negatives(
                judge, target, self.gamma, sigmoid=self.sigmoid, margin=self.margin, valid=valid, doubt=doubt
            )
        if self.mask == "mixed" and self.beta < 1:
            t = t + (1 - self.beta) * negative * verdict(judge, sigmoid=self.sigmoid, soft=self.soft)
        return t, p * (share + negative)


class LopsidedDiceLoss(LopsidedBootstrapLoss):
    """Lopsided bootstrap loss plus ``weight_dice`` times :class:`SoftDiceLoss`.

    Mean cross-entropy divides by all voxels, Dice by those of lesions, so **the Dice term decides** where both speak:
    on a lesion that the labels lack, ``full`` outweighs any beta. ``mixed`` hands beta to the Dice term, too.

    Args:
        alpha: see :class:`LopsidedBootstrapLoss`, as are ``beta``, ``gamma``, ``margin``, ``reduction`` and ``soft``.
            ``alpha``, ``beta`` and ``gamma`` may be changed between calls (warm-up): both terms follow.
        dice: the target of the Dice term on negatives, ``mask`` of :class:`SoftDiceLoss`; ``none``: eq. 3 alone.
        weight_dice: factor of the Dice term.
        batch_dice: see :class:`SoftDiceLoss`, as is ``smooth``.
        target_format: see :class:`~nnunet_lopsided.losses.base.LesionLoss`.

    Example:
        >>> loss = LopsidedDiceLoss(3, 0.1, dice="mixed")
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
        reduction: ScalarReduction = "mean",
        soft: bool = False,
        gamma: float = 0.0,
        margin: int = 0,
        **target_format: Unpack[TargetFormat],
    ) -> None:
        super().__init__(alpha, beta, reduction=reduction, soft=soft, gamma=gamma, margin=margin, **target_format)
        self.weight_dice = weight_dice
        self.dice = SoftDiceLoss(
            batch_dice=batch_dice,
            smooth=smooth,
            mask=dice,
            beta=beta,
            soft=soft,
            gamma=gamma,
            margin=margin,
            **target_format,
        )

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        teacher: Tensor | None = None,
        belief: Tensor | None = None,
        doubt: Tensor | None = None,
    ) -> Tensor:
        """Loss of ``logits`` (B, C, ...) against nnU-Net's ``target``, a scalar; inputs as in both terms."""
        loss = super().forward(logits, target, weight, teacher, belief, doubt)
        if self.dice.mask == "none" or self.weight_dice == 0:
            return loss
        # A warm-up changes those of this loss alone.
        self.dice.beta, self.dice.gamma, self.dice.margin = self.beta, self.gamma, self.margin
        dice: Tensor = self.dice(logits, target, teacher, belief, doubt)
        return loss + self.weight_dice * dice
