"""What the curves say about a network's output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def describe_output(logits: Tensor, target: Tensor, *, regions: bool, ignore_label: int | None) -> dict[str, Tensor]:
    """Fraction of background voxels called lesion and mean probability of labelled lesion voxels; NaN if none.

    Over all classes but background; ignored voxels count in neither.

    Args:
        logits: (B, C, ...).
        target: nnU-Net's, (B, 1, ...) labels or (B, R, ...) regions with ignore last.
        regions: every channel is a binary problem.
        ignore_label: None if there is none.
    """
    logits = logits.float()
    if regions:
        probability = torch.sigmoid(logits)
        called = logits > 0
        lesion = target[:, : logits.shape[1]] > 0
        valid = torch.ones_like(lesion) if ignore_label is None else (target[:, -1:] == 0).expand_as(lesion)
    else:
        probability = 1 - torch.softmax(logits, 1)[:, 0]
        called = logits.argmax(1) > 0
        lesion = target[:, 0] > 0
        valid = torch.ones_like(lesion) if ignore_label is None else target[:, 0] != ignore_label
    background, lesion = valid & ~lesion, valid & lesion
    # Without such voxels 0 / 0 is NaN, which means() leaves out.
    return {
        "flipped_background": (called & background).sum() / background.sum(),
        "lesion_probability": (probability * lesion).sum() / lesion.sum(),
    }


def means(rows: Sequence[dict[str, Tensor]]) -> dict[str, float | None]:
    """The mean of every number over the rows that have it; None if none has."""
    numbers = {name: torch.stack([row[name].float() for row in rows]).nanmean() for name in (rows[0] if rows else ())}
    return {name: None if math.isnan(float(mean)) else float(mean) for name, mean in numbers.items()}
