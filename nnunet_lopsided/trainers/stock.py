"""nnU-Net's own losses under our trainers' conditions: baseline arms."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerTopkLoss import nnUNetTrainerTopk10Loss
from torch import nn

from nnunet_lopsided.errors import InputError, refuse
from nnunet_lopsided.trainers.base import LesionTrainer


class nnUNetTrainer25D(LesionTrainer):
    """The stock loss (Dice and cross-entropy) for every configuration, ``2.5d`` included.

    In the stock configurations it trains as ``nnUNetTrainer`` does; unlike that, it takes epochs and iterations from
    its name, so that a baseline gets the budget of the arm it is compared with.
    """

    def _build_loss(self) -> nn.Module:
        # nnU-Net's with its own wrapper, not ours: the baseline's loss is to be the stock one to the last digit.
        loss: nn.Module = nnUNetTrainer._build_loss(self)
        return loss


class nnUNetTrainerTopk10(LesionTrainer):
    """Cross-entropy of the worst tenth of the voxels, nnU-Net's ``nnUNetTrainerTopk10Loss``.

    Missed lesions are among the worst voxels: with labels that lack lesions it is the arm to learn the omissions.
    """

    def _build_loss(self) -> nn.Module:
        if self.label_manager.has_regions:
            refuse(
                InputError("nnUNetTrainerTopk10: nnU-Net's top-k loss takes no regions, found regions in dataset.json")
            )
        loss: nn.Module = nnUNetTrainerTopk10Loss._build_loss(self)
        return loss
