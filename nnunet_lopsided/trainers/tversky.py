"""Trainer of the Tversky loss, one of the arms a lopsided loss is compared with."""

from __future__ import annotations

from torch import nn

from nnunet_lopsided.losses import TverskyCrossEntropyLoss
from nnunet_lopsided.trainers.base import LesionTrainer


class nnUNetTrainerTversky(LesionTrainer):
    """Tversky loss that weighs a missed voxel 0.7 and a false one 0.3 (Salehi et al. 2017), plus cross-entropy."""

    def _build_criterion(self) -> nn.Module:
        return TverskyCrossEntropyLoss(**self._target_format)
