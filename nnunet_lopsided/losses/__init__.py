"""Losses in plain PyTorch."""

from nnunet_lopsided.losses.compiled import CompiledLoss
from nnunet_lopsided.losses.dice import LopsidedDiceLoss, SoftDiceLoss
from nnunet_lopsided.losses.inverse_weighting import InverseWeightedLoss, inverse_size_weights
from nnunet_lopsided.losses.lopsided import (
    BootstrapLoss,
    LopsidedBootstrapLoss,
    bootstrap_loss,
    lopsided_bootstrap_loss,
)
from nnunet_lopsided.losses.region_specific import RegionSpecificLoss, region_specific_loss
from nnunet_lopsided.losses.tversky import TverskyCrossEntropyLoss

__all__ = [
    "BootstrapLoss",
    "CompiledLoss",
    "InverseWeightedLoss",
    "LopsidedBootstrapLoss",
    "LopsidedDiceLoss",
    "RegionSpecificLoss",
    "SoftDiceLoss",
    "TverskyCrossEntropyLoss",
    "bootstrap_loss",
    "inverse_size_weights",
    "lopsided_bootstrap_loss",
    "region_specific_loss",
]
