"""What every loss does first: full precision, ignored voxels, labels as channels, foreground problems."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ScalarReduction = Literal["mean", "weighted_mean", "sum"]
Reduction = Literal["mean", "weighted_mean", "sum", "none"]


class Foreground(NamedTuple):
    """Binary problems of one batch: one per lesion class, or one per region.

    Attributes:
        probability: (B, K, ...) float32 or float64 in [0, 1].
        truth: (B, K, ...) zeros and ones of the same type; 0 where the voxel is ignored.
        valid: boolean, (B, 1, ...) or (B, K, ...); None if every voxel counts.
    """

    probability: Tensor
    truth: Tensor
    valid: Tensor | None


def full_precision(logits: Tensor) -> Tensor:
    """``logits`` in float32; float64 stays as it is."""
    return logits if logits.dtype == torch.float64 else logits.float()


def with_channel(labels: Tensor, logits: Tensor, name: str) -> Tensor:
    """A label map or mask as (B, 1, ...), from that or (B, ...).

    Raises:
        ValueError: the shape fits neither.
    """
    if labels.ndim == logits.ndim - 1:
        labels = labels.unsqueeze(1)
    if labels.shape != (logits.shape[0], 1, *logits.shape[2:]):
        raise ValueError(
            f"{name} must be (B, ...) or (B, 1, ...) for logits {tuple(logits.shape)}, got {tuple(labels.shape)}"
        )
    return labels


def check_target(logits: Tensor, target: Tensor, sigmoid: bool) -> Tensor:
    """``target`` as (B, 1, ...) labels, or with ``sigmoid`` as the (B, R, ...) regions it is.

    Raises:
        ValueError: fewer than two classes, or shapes that do not fit.
    """
    if sigmoid:
        if target.shape != logits.shape:
            raise ValueError(f"target must have the shape of logits, {tuple(logits.shape)}, got {tuple(target.shape)}")
        return target
    if logits.ndim < 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must have at least 2 classes in dimension 1, got shape {tuple(logits.shape)}")
    return with_channel(target, logits, "target")


def split_ignore(target: Tensor, ignore_label: int | None, sigmoid: bool) -> tuple[Tensor, Tensor | None]:
    """nnU-Net's target as (target, valid); valid is boolean (B, 1, ...), None where the data set ignores nothing.

    Args:
        target: labels (B, 1, ...); with ``sigmoid`` regions (B, R, ...), of which the last channel is nonzero on
            ignored voxels if there is an ``ignore_label``.
        ignore_label: the label value to ignore; None if the data set has none.
        sigmoid: region-based training.
    """
    if ignore_label is None:
        return target, None
    if sigmoid:
        ignored = target[:, -1:]
        return target[:, :-1], (ignored < 0.5 if ignored.is_floating_point() else ignored == 0)
    return target, target != ignore_label


def one_hot(labels: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """Labels (B, 1, ...) as (B, n_classes - 1, ...) zeros and ones, background left out."""
    classes = torch.arange(1, n_classes, device=labels.device).view(1, -1, *[1] * (labels.ndim - 2))
    return (labels == classes).to(dtype)


def foreground(logits: Tensor, target: Tensor, *, sigmoid: bool, valid: Tensor | None) -> Foreground:
    """The lesion classes of a softmax, or the regions, as binary problems of probability and truth.

    Args:
        logits: (B, C, ...), background first; or with ``sigmoid`` (B, R, ...).
        target: labels (B, 1, ...) or (B, ...); with ``sigmoid`` (B, R, ...) zeros and ones.
        sigmoid: every channel is a region of its own.
        valid: boolean (B, 1, ...) or (B, ...), False where the voxel is ignored; None: all count.

    Raises:
        ValueError: shapes that do not fit.
    """
    logits = full_precision(logits)
    target = check_target(logits, target, sigmoid)
    if sigmoid:
        probability, truth = torch.sigmoid(logits), (target > 0.5).to(logits.dtype)
    else:
        probability = torch.softmax(logits, 1)[:, 1:]
        truth = one_hot(target, logits.shape[1], logits.dtype)
    if valid is not None:
        valid = with_channel(valid, logits, "valid")
        truth = truth * valid
    return Foreground(probability, truth, valid)


def found_on_background(logits: Tensor, target: Tensor, *, sigmoid: bool) -> Tensor:
    """Voxels labelled background that the network (or a teacher) calls lesion: boolean (B, 1, ...) or (B, R, ...).

    On a tie the network's answer is background. No gradient passes.
    """
    with torch.no_grad():
        if sigmoid:
            return (logits > 0) & (target <= 0.5)
        lesion = logits[:, 1:].amax(1, keepdim=True) > logits[:, :1]
        return lesion & (with_channel(target, logits, "target") <= 0)


def voxelwise_cross_entropy(logits: Tensor, target: Tensor, *, sigmoid: bool) -> Tensor:
    """Cross-entropy of every voxel, (B, 1, ...), or binary cross-entropy (B, R, ...), with its graph.

    Labels outside 0..C-1 (ignored voxels) count as background here; mask them afterwards.
    """
    logits = full_precision(logits)
    target = check_target(logits, target, sigmoid)
    if sigmoid:
        return functional.binary_cross_entropy_with_logits(logits, (target > 0.5).to(logits.dtype), reduction="none")
    labels = target.long()
    labels = torch.where((labels >= 0) & (labels < logits.shape[1]), labels, 0)
    return functional.cross_entropy(logits, labels[:, 0], reduction="none").unsqueeze(1)
