"""Starting a network's last layer at the share of the training voxels that each class has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import nn

_Layer: TypeAlias = nn.Conv2d | nn.Conv3d


def foreground_priors(counts: Mapping[int, int], classes: Sequence[Sequence[int]]) -> list[float]:
    """The share of the voxels that each class or region has; of one without a voxel, that of half a voxel.

    Half a voxel keeps the bias finite.

    Args:
        counts: voxels per label value, without ignored ones.
        classes: the label values of each lesion class or region.

    Example:
        >>> foreground_priors({0: 90, 1: 10}, [[1], [2]])
        [0.1, 0.005]
    """
    total = max(sum(counts.values()), 1)
    return [max(sum(counts.get(int(value), 0) for value in values), 0.5) / total for values in classes]


def bias_of_priors(priors: Sequence[float], *, regions: bool) -> list[float]:
    """The bias with which equal logits become these probabilities: one per channel, background's first.

    Args:
        priors: of each lesion class, or with ``regions`` of each region, which have no channel of background.
        regions: every channel is a binary problem.

    Example:
        >>> [round(b, 3) for b in bias_of_priors([0.1], regions=False)]
        [0.0, -2.197]
    """
    if regions:
        return [math.log(p / max(1 - p, 1e-6)) for p in priors]  # finite, though every voxel be lesion
    background = math.log(max(1 - sum(priors), 1e-6))
    return [0.0] + [math.log(p) - background for p in priors]


def set_bias(network: nn.Module, bias: Sequence[float]) -> None:
    """Set the bias of every last layer."""
    with torch.no_grad():
        for layer in last_layers(network):
            assert layer.bias is not None, "last_layers refuses layers without"
            layer.bias.copy_(torch.tensor(bias))


def last_layers(network: nn.Module) -> list[_Layer]:
    """The layers whose outputs are logits: one, or one per resolution with deep supervision.

    Raises:
        ValueError: the network is of a kind whose last layer we do not know, or has no bias there.
    """
    ours = getattr(network, "last_layers", None)
    layers: list[_Layer]
    # Ours first: the decoder of a 2.5d network raises an error when it is asked for.
    if ours is not None:
        layers = list(ours())
    elif (own := getattr(getattr(network, "decoder", None), "seg_layers", None)) is not None:
        layers = list(own)
    else:
        raise ValueError(
            f"foreground_prior_bias needs a network with decoder.seg_layers or last_layers(), got {type(network)}"
        )
    if any(layer.bias is None for layer in layers):
        raise ValueError(f"foreground_prior_bias needs a bias in the last layer of {type(network)}")
    return layers
