"""Losses in plain PyTorch."""

from nnunet_lopsided.losses.lopsided import LopsidedBootstrapLoss, lopsided_bootstrap_loss

__all__ = ["LopsidedBootstrapLoss", "lopsided_bootstrap_loss"]
