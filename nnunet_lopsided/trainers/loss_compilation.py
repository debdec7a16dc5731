"""Whether a trainer's loss goes through torch.compile."""

from __future__ import annotations

import os

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_lopsided.losses.compiled import CompiledLoss


def maybe_compiled(loss: nn.Module, trainer: nnUNetTrainer) -> nn.Module:
    """The loss through torch.compile where ``LOPSIDED_COMPILE_LOSS`` asks for it and nnU-Net compiles networks.

    Never with several GPUs: sums over ranks cannot be compiled. Not while a warm-up moves the loss's weights.

    Args:
        loss: of the trainer.
        trainer: one with ``_warm_up`` epochs, or one whose loss keeps its weights.
    """
    wanted = os.environ.get("LOPSIDED_COMPILE_LOSS", "").lower() in ("true", "1", "t")  # as nnUNet_compile is read
    if not wanted or trainer.is_ddp or not trainer._do_i_compile():
        return loss
    return CompiledLoss(
        loss,
        settled=lambda: bool(trainer.current_epoch >= getattr(trainer, "_warm_up", 0)),
        say=trainer.print_to_log_file,
    )
