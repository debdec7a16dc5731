"""A 2.5D DeepLabv3 that nnU-Net sees as a 3D network: slices into channels, a 2D network, slices back."""

from __future__ import annotations

import warnings
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

with warnings.catch_warnings():
    # What it imports makes PyTorch warn about itself, on stderr, in every command that looks for a trainer.
    warnings.simplefilter("ignore", FutureWarning)
    from segmentation_models_pytorch import DeepLabV3, DeepLabV3Plus

NETWORK_CLASS_NAME = "nnunet_lopsided.architectures.deeplabv3_25d.DeepLabV3For25D"

_DECODERS = {"deeplabv3": DeepLabV3, "deeplabv3plus": DeepLabV3Plus}
_Batch = TypeVar("_Batch", Tensor, "list[Tensor]")


class DeepLabV3For25D(nn.Module):
    """DeepLabv3 that predicts every slice of a volume from the slices around it, stacked into channels.

    Input (B, C, D, H, W), output logits (B, K, D, H, W) for any D: slice z is predicted from slices z - r to z + r with
    r = (n_slices - 1) / 2, where slices beyond the volume are zero. Batch normalisation is replaced by group
    normalisation, so that a prediction depends on its own slices alone, whatever the batch.

    The constructor is called by nnU-Net with the ``arch_kwargs`` of the plans.

    Args:
        input_channels: C, image channels per slice.
        num_classes: K, output channels.
        n_slices: slices stacked, an odd number; 5 in Yi et al. 2020, 1 is a 2D network.
        encoder: any encoder of segmentation_models_pytorch.
        decoder: ``deeplabv3`` or ``deeplabv3plus``; the latter adds features of stride 4, for finer outlines.
        output_stride: 8 or 16, in-plane stride of the deepest features.
        slices_per_pass: slices that go through the 2D network at once, which bounds the memory of a prediction.
        deep_supervision: accepted because nnU-Net passes it; the network has one output.

    Attributes:
        centre_slice_only: predict only slice (D - 1) / 2, giving (B, K, 1, H, W); set by our trainers for training.

    Raises:
        ValueError: an argument is out of its range, or the encoder is unknown.

    Source:
        Yi et al. 2020, section 3.2 (2.5D DeepLabv3); Chen et al. 2017, "Rethinking Atrous Convolution".

    Example:
        >>> network = DeepLabV3For25D(2, 3, n_slices=5, encoder="resnet18").eval()
        >>> network(torch.zeros(1, 2, 7, 32, 32)).shape
        torch.Size([1, 3, 7, 32, 32])
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        n_slices: int = 5,
        encoder: str = "resnet50",
        decoder: Literal["deeplabv3", "deeplabv3plus"] = "deeplabv3",
        output_stride: int = 8,
        slices_per_pass: int = 16,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if n_slices < 1 or n_slices % 2 == 0:
            raise ValueError(f"n_slices must be a positive odd number, got {n_slices}")
        if decoder not in _DECODERS:
            raise ValueError(f"decoder must be one of {', '.join(_DECODERS)}, got {decoder}")
        if output_stride not in (8, 16):
            raise ValueError(f"output_stride must be 8 or 16, got {output_stride}")
        if slices_per_pass < 1:
            raise ValueError(f"slices_per_pass must be at least 1, got {slices_per_pass}")
        self.n_slices = n_slices
        self.slices_per_pass = slices_per_pass
        self.output_stride = output_stride
        self.centre_slice_only = False
        try:
            network = _DECODERS[decoder](
                encoder_name=encoder,
                encoder_weights=None,
                encoder_output_stride=output_stride,
                in_channels=input_channels * n_slices,
                classes=num_classes,
            )
        except KeyError as error:
            raise ValueError(f"encoder must be one of segmentation_models_pytorch, got {encoder}") from error
        self.network = _with_group_norm(network)

    def forward(self, volume: Tensor) -> Tensor:
        """Logits (B, K, D, H, W) of a volume (B, C, D, H, W); (B, K, 1, H, W) if ``centre_slice_only``."""
        batch, channels, depth, height, width = volume.shape
        radius = self.n_slices // 2
        if self.centre_slice_only:
            first = (depth - 1) // 2
            slices, n_predicted = volume[:, :, max(0, first - radius) : first + radius + 1], 1
            missing = (max(0, radius - first), max(0, first + radius + 1 - depth))
            padded = functional.pad(slices, (0, 0, 0, 0, *missing))
        else:
            padded, n_predicted = functional.pad(volume, (0, 0, 0, 0, radius, radius)), depth

        # In-plane sizes that the strides do not divide are padded and cropped back.
        extra = (-height % self.output_stride, -width % self.output_stride)
        padded = functional.pad(padded, (0, extra[1], 0, extra[0]))
        # (B, C, n_predicted, H, W, n_slices), a view -> one stack of n_slices * C channels per predicted slice.
        windows = padded.unfold(2, self.n_slices, 1)
        outputs = []
        for start in range(0, n_predicted, self.slices_per_pass):
            chunk = windows[:, :, start : start + self.slices_per_pass]
            stacks = chunk.permute(0, 2, 5, 1, 3, 4)
            logits = self.network(stacks.reshape(-1, self.n_slices * channels, *padded.shape[-2:]))
            outputs.append(logits[..., :height, :width].reshape(batch, -1, *logits.shape[1:2], height, width))
        return torch.cat(outputs, dim=1).transpose(1, 2)

    def last_layers(self) -> list[Any]:
        """The layer whose output are the logits."""
        head: Any = self.network.segmentation_head
        return [head[0]]


def centre_slice(target: _Batch) -> _Batch:
    """The part of a training target (B, 1, D, H, W) that ``centre_slice_only`` predicts, (B, 1, 1, H, W)."""
    if isinstance(target, list):
        raise TypeError("a 2.5d target must be one tensor: the network has no deep supervision")
    middle = (target.shape[2] - 1) // 2
    return target[:, :, middle : middle + 1]


def _with_group_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            groups = next(g for g in (16, 8, 4, 2, 1) if child.num_features % g == 0 and child.num_features > g)
            setattr(module, name, nn.GroupNorm(groups, child.num_features))
        else:
            _with_group_norm(child)
    return module
