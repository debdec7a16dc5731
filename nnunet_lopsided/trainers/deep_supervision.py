"""One criterion per resolution of a network with deep supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_lopsided.trainers.host_types import PerLevel


class PerResolution(nn.Module):
    """Criteria for the resolutions of a network with deep supervision, as a weighted sum.

    Args:
        criteria: one per output, finest first, maybe the same; (logits, target, further inputs by name) -> scalar.
        weights: one per output; outputs of weight 0 are not looked at.
    """

    def __init__(self, criteria: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.criteria = nn.ModuleList(criteria)
        self.weights = tuple(weights)

    def forward(
        self, outputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], **inputs: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Weighted sum; every argument holds one tensor per resolution."""
        total: torch.Tensor = sum(
            weight * self.criteria[i](outputs[i], targets[i], **{name: value[i] for name, value in inputs.items()})
            for i, weight in enumerate(self.weights)
            if weight
        )
        return total


def weights_of_resolutions(n: int, *, every_output_counts: bool) -> list[float]:
    """nnU-Net's weights: halved at each coarser output, the coarsest unused; they add up to 1.

    Args:
        n: number of outputs.
        every_output_counts: the coarsest has a tiny weight instead of none: without torch.compile DDP complains about
            parameters without a gradient.

    Example:
        >>> [round(w, 4) for w in weights_of_resolutions(3, every_output_counts=False)]
        [0.6667, 0.3333, 0.0]
    """
    weights = [0.5**i for i in range(n)]
    if n > 1:
        weights[-1] = 1e-6 if every_output_counts else 0.0
    return [weight / sum(weights) for weight in weights]


def to_device(tensors: PerLevel, device: torch.device) -> PerLevel:
    """A tensor, or one of every resolution, moved while the host goes on."""
    if isinstance(tensors, list):
        return [tensor.to(device, non_blocking=True) for tensor in tensors]
    return tensors.to(device, non_blocking=True)
