"""What the losses have in common: how nnU-Net presents a target, and over which voxels a mean is taken."""

from __future__ import annotations

from typing import ClassVar, TypedDict

from torch import Tensor, nn

from nnunet_lopsided.losses.preparation import split_ignore


class TargetFormat(TypedDict, total=False):
    """The arguments that every loss takes by name, see :class:`LesionLoss`."""

    sigmoid: bool
    ignore_label: int | None
    ddp: bool


class LesionLoss(nn.Module):
    """A loss on nnU-Net's targets: label maps with an ignore label, or regions with ignore last.

    Args:
        sigmoid: region-based training: target (B, R, ...) zeros and ones, and with ``ignore_label`` one further, last
            channel that is nonzero where voxels are to be ignored.
        ignore_label: the label value to ignore; with ``sigmoid`` only whether there is one matters; None: there is
            none.
        ddp: sums and means run over all ranks of torch.distributed, so that a voxel weighs the same on every rank.
    """

    # Attributes that ``repr`` shows; nnU-Net writes the loss into its log.
    shown: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, sigmoid: bool = False, ignore_label: int | None = None, ddp: bool = False) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.ignore_label = ignore_label
        self.ddp = ddp

    @property
    def target_format(self) -> TargetFormat:
        """The arguments with which another loss reads the same targets."""
        return {"sigmoid": self.sigmoid, "ignore_label": self.ignore_label, "ddp": self.ddp}

    def split_target(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """Target without ignored voxels' mark, and which voxels count: boolean (B, 1, ...), None for all."""
        return split_ignore(target, self.ignore_label, self.sigmoid)

    def extra_repr(self) -> str:
        values = ((name, getattr(self, name)) for name in (*self.shown, "sigmoid", "ignore_label"))
        return ", ".join(f"{name}={value:g}" if type(value) is float else f"{name}={value}" for name, value in values)
