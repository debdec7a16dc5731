"""Tversky loss (Salehi et al. 2017) plus cross-entropy, on nnU-Net's targets: an arm to compare with."""

from __future__ import annotations

import torch
from segmentation_models_pytorch.losses import TverskyLoss
from torch import Tensor, nn

from nnunet_lopsided.losses.lopsided import LopsidedBootstrapLoss
from nnunet_lopsided.losses.preparation import foreground, split_ignore

_IGNORED = -1


class TverskyCrossEntropyLoss(nn.Module):
    """1 - mean Tversky index, TP / (TP + fp FP + fn FN) over the batch, plus mean cross-entropy.

    The index is that of segmentation_models_pytorch: sums run over the batch of one GPU, background does not count, and
    a class without a voxel in the batch has none, so that cross-entropy alone speaks there.

    Args:
        false_positives: weight fp, 0 or more; Salehi et al. found 0.3 best.
        false_negatives: weight fn, 0 or more; 0.7 there. Both 0.5: Dice.
        sigmoid: region-based training, see :class:`~nnunet_lopsided.losses.LopsidedBootstrapLoss`.
        ignore_label: the label value to ignore; with ``sigmoid`` the last target channel; None if there is none.
        ddp: cross-entropy over the voxels of all ranks.

    Source:
        Salehi et al. 2017, "Tversky loss function for image segmentation using 3D fully convolutional deep networks".

    Example:
        >>> loss = TverskyCrossEntropyLoss()
        >>> logits = torch.tensor([[[9.0, 9.0, -9.0], [-9.0, -9.0, 9.0]]])  # background, background, lesion
        >>> round(float(loss(logits, torch.tensor([[[0, 0, 1]]]))), 3)
        0.0
    """

    def __init__(
        self,
        false_positives: float = 0.3,
        false_negatives: float = 0.7,
        *,
        sigmoid: bool = False,
        ignore_label: int | None = None,
        ddp: bool = False,
    ) -> None:
        super().__init__()
        self.cross_entropy = LopsidedBootstrapLoss(1.0, 1.0, sigmoid=sigmoid, ignore_label=ignore_label, ddp=ddp)
        # Per lesion class or region, each a problem of its own, from probabilities.
        self.tversky = TverskyLoss(
            "multilabel", from_logits=False, alpha=false_positives, beta=false_negatives, ignore_index=_IGNORED
        )
        self.sigmoid = sigmoid
        self.ignore_label = ignore_label

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of ``logits`` (B, C, ...) against nnU-Net's ``target``, a scalar."""
        labels, valid = split_ignore(target, self.ignore_label, self.sigmoid)
        with torch.autocast(logits.device.type, enabled=False):
            p, truth, valid = foreground(logits, labels, sigmoid=self.sigmoid, valid=valid)
            truth = truth if valid is None else torch.where(valid, truth, _IGNORED)
            return self.cross_entropy(logits, target) + self.tversky(p, truth)
