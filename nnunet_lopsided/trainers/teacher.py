"""An exponential moving average of a network, from which a bootstrap takes its targets."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from nnunet_lopsided.trainers.host_types import PerLevel


class EmaTeacher:
    """A copy of a network whose weights follow it slowly: w <- decay w + (1 - decay) w_network after every step.

    Args:
        network: the network to follow, without wrappers.
        decay: within [0, 1); 0.999 follows over about a thousand steps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        # eval(): dropout and statistics of a batch would make its verdict depend on chance and on other patches.
        self.network = deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Move towards ``network`` by one step; buffers are copied."""
        # All weights in a few kernels: one by one, a GPU would wait for Python at every step.
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - self.decay)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)

    @torch.no_grad()
    def __call__(self, data: torch.Tensor) -> PerLevel:
        """The average network's output, without a graph."""
        output: PerLevel = self.network(data)
        return output
