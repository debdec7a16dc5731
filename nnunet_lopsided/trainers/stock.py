"""nnU-Net's own loss under our trainers' conditions: the baseline arm."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_lopsided.trainers.base import LesionTrainer


class nnUNetTrainer25D(LesionTrainer):
    """The stock loss (Dice and cross-entropy) for every configuration, ``2.5d`` included.

    In the stock configurations it trains as ``nnUNetTrainer`` does; unlike that, it takes epochs and iterations from
    its name, so that a baseline gets the budget of the arm it is compared with.
    """

    def _build_loss(self) -> nn.Module:
        return nnUNetTrainer._build_loss(self)
