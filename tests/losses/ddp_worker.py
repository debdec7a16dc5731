"""One rank of the test of losses under DDP: ``python ddp_worker.py RANK WORLD_SIZE STORE OUTPUT``."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import distributed, nn

from nnunet_lopsided.losses import (
    BootstrapLoss,
    InverseWeightedLoss,
    LopsidedBootstrapLoss,
    LopsidedDiceLoss,
    RegionSpecificLoss,
)


def losses(ddp: bool) -> dict[str, Any]:
    """Everything that reduces over voxels, samples or regions; label 2 is ignored."""
    common: dict[str, Any] = {"ignore_label": 2, "ddp": ddp}
    return {
        "lopsided": LopsidedBootstrapLoss(3, 0.1, **common),
        "lopsided, weighted mean": LopsidedBootstrapLoss(3, 0.1, reduction="weighted_mean", **common),
        "lopsided, lesion mean": LopsidedBootstrapLoss(3, 0.1, reduction="lesion_mean", **common),
        "lopsided, sum": LopsidedBootstrapLoss(3, 0.1, reduction="sum", **common),
        "bootstrap, soft": BootstrapLoss(0.5, soft=True, **common),
        "dice over the batch": LopsidedDiceLoss(3, 0.1, batch_dice=True, dice="masked", **common),
        "mixed dice over the batch": LopsidedDiceLoss(1, 0.1, batch_dice=True, dice="mixed", **common),
        "fading trust, dice over the batch": LopsidedDiceLoss(1, 1.0, batch_dice=True, gamma=2.0, **common),
        "fading trust, weighted mean": LopsidedBootstrapLoss(3, 0.5, reduction="weighted_mean", gamma=2.0, **common),
        "dice per sample": LopsidedDiceLoss(3, 0.1, **common),
        "regions": RegionSpecificLoss((2, 2), empty_regions="skip", bootstrap=True, **common),
        "regions, sum": RegionSpecificLoss((2, 2), reduction="sum", **common),
        "inverse weighting": InverseWeightedLoss("focal", **common),
        "inverse weighting, dice over the batch": InverseWeightedLoss("dice", batch_dice=True, **common),
        "inverse weighting, dice per sample": InverseWeightedLoss("asl", **common),
    }


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four images, labels with very different numbers of ignored voxels, and weights."""
    random = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 5, 6, generator=random, dtype=torch.float64)
    labels = (torch.rand(4, 1, 5, 6, generator=random) < 0.2).long()
    labels[0, :, 1:] = 2
    labels[1] = 2
    labels[3, :, 4:] = 2
    return images, labels, 1 + 9 * torch.rand(4, 1, 5, 6, generator=random, dtype=torch.float64)


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Conv2d(3, 2, 3, padding=1).double()


def step(model: nn.Module, name: str, loss: nn.Module, part: slice) -> dict[str, Any]:
    images, labels, weights = (x[part] for x in batch())
    model.zero_grad()
    arguments = (weights,) if name.startswith("inverse") else ()
    value = loss(model(images), labels, *arguments)
    value.backward()
    return {
        "loss": float(value.detach()),
        "gradient": [p.grad.clone() for p in model.parameters() if p.grad is not None],
    }


if __name__ == "__main__":
    rank, world_size, store, output = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    model = nn.parallel.DistributedDataParallel(network())
    mine = slice(rank * 2, rank * 2 + 2)
    torch.save({name: step(model, name, loss, mine) for name, loss in losses(ddp=True).items()}, output)
    distributed.destroy_process_group()
