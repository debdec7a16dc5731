"""What every loss does first: full precision, ignored voxels, labels as channels, foreground problems."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

ScalarReduction = Literal["mean", "weighted_mean", "lesion_mean", "sum"]
Reduction = Literal["mean", "weighted_mean", "lesion_mean", "sum", "none"]
_ROUNDING = 1e-4  # interpolation of a probability leaves [0, 1] by less


class Foreground(NamedTuple):
    """Binary problems of one batch: one per lesion class, or one per region.

    Attributes:
        probability: (B, K, ...) float32 or float64 in [0, 1].
        truth: (B, K, ...) of the same type, zeros and ones, with a belief values between; 0 where the voxel is ignored.
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


def check_target(logits: Tensor, target: Tensor, sigmoid: bool, valid: Tensor | None = None) -> Tensor:
    """``target`` as (B, 1, ...) labels, or with ``sigmoid`` as the (B, R, ...) regions it is.

    On a CPU values are looked at, too: -1 (nnU-Net's mark outside the nonzero mask, background here) to C - 1, regions
    0 and 1; ``valid`` leaves voxels out of that. On CUDA the check must not make the host wait: a wrong value ends the
    next synchronisation with an assertion of the device that holds the same words. Other devices have no such check.

    Raises:
        ValueError: fewer than two classes, shapes that do not fit, or a label that is no class.
    """
    if sigmoid:
        if target.shape != logits.shape:
            raise ValueError(f"target must have the shape of logits, {tuple(logits.shape)}, got {tuple(target.shape)}")
        low, high = 0, 1
    else:
        if logits.ndim < 2 or logits.shape[1] < 2:
            raise ValueError(f"logits must have at least 2 classes in dimension 1, got shape {tuple(logits.shape)}")
        target = with_channel(target, logits, "target")
        low, high = -1, logits.shape[1] - 1
    if valid is not None:
        valid = with_channel(valid, logits, "valid")
    _check_values(
        target,
        valid,
        low=low,
        high=high,
        expected=f"target must hold {low} to {high}: a label is no class of the network",
    )
    return target


def _check_values(values: Tensor, valid: Tensor | None, *, low: float, high: float, expected: str) -> None:
    if values.dtype == torch.bool or not values.numel() or torch.compiler.is_compiling():
        return
    counted = values if valid is None else torch.where(valid, values, 0)
    least, most = (bound.float() for bound in torch.aminmax(counted))  # an unsigned type knows no -1
    if values.is_cuda:
        torch._assert_async((least >= low) & (most <= high), expected)
    elif values.device.type == "cpu" and not (least >= low and most <= high):
        raise ValueError(f"{expected}, got {least.item():g} to {most.item():g}")


def without_ignored(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Logits with zeros on ignored voxels, so that whatever a network says there (NaN, too) reaches no sum.

    Multiplying a loss by 0 would not do: 0 times NaN is NaN. No gradient passes there.
    """
    return logits if valid is None else torch.where(with_channel(valid, logits, "valid"), logits, 0.0)


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
        # A target that brings weights or beliefs is of floats as a whole.
        return target[:, :-1], (ignored < 0.5 if ignored.is_floating_point() else ignored == 0)
    return target, target != ignore_label


def one_hot(labels: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """Labels (B, 1, ...) as (B, n_classes - 1, ...) zeros and ones, background left out."""
    classes = torch.arange(1, n_classes, device=labels.device).view(1, -1, *[1] * (labels.ndim - 2))
    return (labels == classes).to(dtype)


def check_belief(logits: Tensor, belief: Tensor, sigmoid: bool) -> Tensor:
    """``belief`` in the precision of the loss.

    Raises:
        ValueError: its shape is not (B, K, ...) with K lesion classes or regions, or it is no probability: outside
            [0, 1], or of exclusive classes more than 1 in sum. Values are checked as those of a target are.
    """
    n_problems = logits.shape[1] - (not sigmoid)
    shape = (logits.shape[0], n_problems, *logits.shape[2:])
    if belief.shape != shape:
        raise ValueError(f"belief must be (B, lesion classes or regions, ...), {shape}, got {tuple(belief.shape)}")
    belief = belief.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    within = "belief must be within [0, 1]"
    _check_values(belief, None, low=-_ROUNDING, high=1 + _ROUNDING, expected=within)
    if not sigmoid and n_problems > 1:
        in_sum = f"{within} in the sum over exclusive classes"
        _check_values(belief.sum(1), None, low=-_ROUNDING, high=1 + _ROUNDING, expected=in_sum)
    return belief


def verdict(logits: Tensor, *, sigmoid: bool, soft: bool) -> Tensor:
    """What a network calls each voxel, (B, K, ...) without a graph: the lesion class with the highest logit, as zeros
    and ones, or with ``soft`` the probabilities. On a tie the first class wins, so background before any lesion."""
    with torch.no_grad():
        logits = full_precision(logits)
        if sigmoid:
            return torch.sigmoid(logits) if soft else (logits > 0).to(logits.dtype)
        if soft:
            return torch.softmax(logits, 1)[:, 1:]
        if logits.shape[1] == 2:  # several times faster than the maximum with its index
            return (logits[:, 1:] > logits[:, :1]).to(logits.dtype)
        return one_hot(logits.max(1, keepdim=True).indices, logits.shape[1], logits.dtype)


def check_doubt(logits: Tensor, doubt: Tensor) -> Tensor:
    """``doubt`` as (B, 1, ...), in the precision of the loss.

    Raises:
        ValueError: its shape is neither (B, ...) nor (B, 1, ...), or it is no probability. Values are checked as those
            of a target are.
    """
    doubt = with_channel(doubt, logits, "doubt").to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    _check_values(doubt, None, low=-_ROUNDING, high=1 + _ROUNDING, expected="doubt must be within [0, 1]")
    return doubt.clamp(0, 1)


def trust_in_negatives(
    logits: Tensor,
    target: Tensor,
    gamma: float,
    *,
    sigmoid: bool,
    margin: int = 0,
    valid: Tensor | None = None,
    doubt: Tensor | None = None,
) -> Tensor:
    """How much a voxel labelled background counts as that: (1 - p)^gamma, (B, 1, ...), or (B, R, ...) for regions.

    p is the probability of any lesion (of the region), or what somebody else says in its place; no gradient passes.

    Args:
        logits: of the network, or of who judges in its place.
        target: labels (B, 1, ...) or (B, ...); with ``sigmoid`` (B, R, ...).
        gamma: see above.
        sigmoid: every channel is a region of its own.
        margin: voxels around a labelled lesion (of the region) in which a negative counts fully: its annotator has
            looked there. Along every axis.
        valid: False where the voxel is ignored; what is labelled there is no lesion.
        doubt: (B, 1, ...) or (B, ...) in [0, 1], p by somebody else, for all regions: a lesion is missed as a whole.
    """
    with torch.no_grad():
        logits = full_precision(logits)
        if doubt is None:
            background = torch.sigmoid(-logits) if sigmoid else torch.softmax(logits, 1)[:, :1]
        else:
            background = 1 - check_doubt(logits, doubt)
            background = background.expand_as(logits) if sigmoid else background
        trust = background**gamma
        if not margin:
            return trust
        if not sigmoid:
            target = with_channel(target, logits, "target")
        lesion = ~labelled_background(target, sigmoid)
        if valid is not None:
            lesion = lesion & with_channel(valid, logits, "valid")
        return torch.where(_grown(lesion, margin), 1.0, trust)


def _grown(mask: Tensor, margin: int) -> Tensor:
    """A boolean mask (B, K, ...) and ``margin`` voxels around, in a box."""
    grown = mask.to(torch.float16 if mask.is_cuda else torch.float32)
    n_axes = mask.ndim - 2
    pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[n_axes - 1]
    for axis in range(n_axes):  # one after the other: a box is the product of its sides
        sides = [2 * margin + 1 if k == axis else 1 for k in range(n_axes)]
        grown = pool(grown, sides, 1, [side // 2 for side in sides])
    return grown > 0


def foreground(
    logits: Tensor, target: Tensor, *, sigmoid: bool, valid: Tensor | None, belief: Tensor | None = None
) -> Foreground:
    """The lesion classes of a softmax, or the regions, as binary problems of probability and truth.

    Args:
        logits: (B, C, ...), background first; or with ``sigmoid`` (B, R, ...).
        target: labels (B, 1, ...) or (B, ...); with ``sigmoid`` (B, R, ...) zeros and ones.
        sigmoid: every channel is a region of its own.
        valid: boolean (B, 1, ...) or (B, ...), False where the voxel is ignored; None: all count.
        belief: (B, K, ...) in [0, 1], truth of voxels that are labelled background (of each region by itself).

    Raises:
        ValueError: shapes or values that do not fit.
    """
    if valid is not None:
        valid = with_channel(valid, logits, "valid")
    logits = without_ignored(full_precision(logits), valid)
    target = check_target(logits, target, sigmoid, valid)
    if sigmoid:
        probability, truth = torch.sigmoid(logits), (target > 0.5).to(logits.dtype)
    else:
        probability = torch.softmax(logits, 1)[:, 1:]
        truth = one_hot(target, logits.shape[1], logits.dtype)
    if belief is not None:
        truth = torch.where(labelled_background(target, sigmoid), check_belief(logits, belief, sigmoid), truth)
    if valid is not None:
        truth = truth * valid
    return Foreground(probability, truth, valid)


def labelled_background(target: Tensor, sigmoid: bool) -> Tensor:
    """Boolean, (B, 1, ...), or (B, R, ...) for regions."""
    return target <= (0.5 if sigmoid else 0)


def found_on_background(logits: Tensor, target: Tensor, *, sigmoid: bool) -> Tensor:
    """Voxels labelled background that the network (or a teacher) calls lesion: boolean (B, 1, ...) or (B, R, ...).

    On a tie the network's answer is background. No gradient passes.
    """
    with torch.no_grad():
        if sigmoid:
            return (logits > 0) & labelled_background(target, sigmoid)
        lesion = logits[:, 1:].amax(1, keepdim=True) > logits[:, :1]
        return lesion & labelled_background(with_channel(target, logits, "target"), sigmoid)


def voxelwise_cross_entropy(logits: Tensor, target: Tensor, *, sigmoid: bool, valid: Tensor | None = None) -> Tensor:
    """Cross-entropy of every voxel, (B, 1, ...), or binary cross-entropy (B, R, ...), with its graph.

    Ignored voxels (False in ``valid``) have the loss of equal logits and no gradient; mask them afterwards.
    """
    logits = without_ignored(full_precision(logits), valid)
    target = check_target(logits, target, sigmoid, valid)
    if sigmoid:
        return functional.binary_cross_entropy_with_logits(logits, (target > 0.5).to(logits.dtype), reduction="none")
    labels = target.long()
    # -1, and what is ignored, must be a class to be looked up; the former is background, the latter is left out later.
    labels = torch.where((labels >= 0) & (labels < logits.shape[1]), labels, 0)
    return functional.cross_entropy(logits, labels[:, 0], reduction="none").unsqueeze(1)
