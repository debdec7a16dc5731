"""Tversky loss (Salehi et al. 2017) plus cross-entropy, on nnU-Net's targets: an arm to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nnunet_lopsided.losses.base import LesionLoss, TargetFormat
from nnunet_lopsided.losses.lopsided import LopsidedBootstrapLoss
from nnunet_lopsided.losses.preparation import foreground

if TYPE_CHECKING:
    from typing_extensions import Unpack

# segmentation_models_pytorch's, so that both give the same; far below the share of one voxel's probability.
_SMALLEST_DIVISOR = 1e-7


class TverskyCrossEntropyLoss(LesionLoss):
    """1 - mean Tversky index, TP / (TP + fp FP + fn FN) over the batch, plus mean cross-entropy.

    Sums run over the batch of one GPU and background does not count. A class without a voxel in the batch has a Tversky
    loss of 0 without a gradient, so that cross-entropy alone speaks there; it does count in the mean over classes. With
    ``ddp`` only the cross-entropy is that of all ranks.

    Args:
        false_positives: weight fp, 0 or more; Salehi et al. found 0.3 best.
        false_negatives: weight fn, 0 or more; 0.7 there. Both 0.5: Dice.
        target_format: see :class:`~nnunet_lopsided.losses.base.LesionLoss`.

    Raises:
        ValueError: a weight is below 0.

    Source:
        Salehi et al. 2017, "Tversky loss function for image segmentation using 3D fully convolutional deep networks".

    Example:
        >>> loss = TverskyCrossEntropyLoss()
        >>> logits = torch.tensor([[[9.0, 9.0, -9.0], [-9.0, -9.0, 9.0]]])  # background, background, lesion
        >>> round(float(loss(logits, torch.tensor([[[0, 0, 1]]]))), 3)
        0.0
    """

    shown = ("false_positives", "false_negatives")

    def __init__(
        self,
        false_positives: float = 0.3,
        false_negatives: float = 0.7,
        **target_format: Unpack[TargetFormat],
    ) -> None:
        super().__init__(**target_format)
        for name, value in (("false_positives", false_positives), ("false_negatives", false_negatives)):
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        self.false_positives = false_positives
        self.false_negatives = false_negatives
        self.cross_entropy = LopsidedBootstrapLoss(1.0, 1.0, **target_format)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of ``logits`` (B, C, ...) against nnU-Net's ``target``, a scalar."""
        labels, valid = self.split_target(target)
        with torch.autocast(logits.device.type, enabled=False):
            p, truth, valid = foreground(logits, labels, sigmoid=self.sigmoid, valid=valid)
            if valid is not None:
                p = p * valid  # the truth is 0 there already
            cross_entropy: Tensor = self.cross_entropy(logits, target)
            return cross_entropy + self._tversky(p, truth)

    def _tversky(self, p: Tensor, truth: Tensor) -> Tensor:
        axes = [0, *range(2, p.ndim)]
        both = (p * truth).sum(axes)
        n_true = truth.sum(axes)
        false_positive, false_negative = p.sum(axes) - both, n_true - both
        weighted = both + self.false_positives * false_positive + self.false_negatives * false_negative
        index = both / weighted.clamp_min(_SMALLEST_DIVISOR)
        # Without a voxel of a class the index is 0 whatever is predicted, and would only add a constant 1.
        return torch.where(n_true > 0, 1 - index, 0.0).mean()
