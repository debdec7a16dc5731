"""Adaptive region-specific Tversky loss of Chen et al. 2023."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from nnunet_lopsided.losses.base import LesionLoss, TargetFormat
from nnunet_lopsided.losses.distributed import ratio_of_sums
from nnunet_lopsided.losses.lopsided import lopsided_bootstrap_loss
from nnunet_lopsided.losses.preparation import (
    foreground,
    found_on_background,
    full_precision,
    without_ignored,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

RegionReduction = Literal["mean", "sum"]
EmptyRegions = Literal["include", "skip"]


def region_specific_loss(
    probability: Tensor,
    truth: Tensor,
    region_size: Sequence[int] = (16, 16, 16),
    *,
    a: float = 0.3,
    b: float = 0.4,
    smooth: float = 1e-5,
    valid: Tensor | None = None,
    reduction: RegionReduction = "mean",
    detach_weights: bool = False,
    empty_regions: EmptyRegions = "include",
    ddp: bool = False,
) -> Tensor:
    """Tversky loss of every region, its weights adapted to the region's own errors; 0 for a perfect prediction.

    Per sample, class and region R, with TP, FP, FN the means over R's valid voxels of pt, p(1-t), (1-p)t:

        a_R = a + b (FP + s) / (FP + FN + s),  b_R = a + b (FN + s) / (FP + FN + s),
        L_R = 1 - (TP + s) / (TP + a_R FP + b_R FN + s)

    Args:
        probability: (B, K, ...) in [0, 1], 2D or 3D.
        truth: (B, K, ...) zeros and ones.
        region_size: voxels per axis, as many as there are spatial axes (of three, 2D inputs use the last two).
            Regions at the far ends are cut off and average over the voxels they have.
        a: smallest weight of false positives and negatives; 0 or more.
        b: range of the weights; 0 makes them constant. a = .5, b = 0 is Dice per region.
        smooth: s above, positive.
        valid: boolean (B, 1, ...) or (B, K, ...); False voxels are no part of their region. A region without a valid
            voxel does not count.
        reduction: ``mean`` over all regions that count; ``sum`` over the regions of a sample and class, averaged over
            samples and classes, as the paper is reported to do.
        detach_weights: no gradient through a_R and b_R.
        empty_regions: ``include``, or ``skip`` regions without a voxel of the class.
        ddp: sum over all ranks of torch.distributed.

    Returns:
        A scalar; 0 with a graph if no region counts.

    Raises:
        ValueError: an argument out of range, or shapes that do not fit.

    Source:
        Chen et al., TPAMI 2023, "Adaptive Region-Specific Loss for Improved Medical Image Segmentation". Regions here
        are a grid of ``region_size`` voxels. The published evidence is on organs, none on lesions.

    Example:
        >>> truth = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
        >>> probability = torch.tensor([[[[0.5, 0.0, 0.0, 0.5]]]])
        >>> round(float(region_specific_loss(probability, truth, (1, 2))), 4)  # (.4118 + 1.0) / 2
        0.7058
    """
    if probability.shape != truth.shape:
        raise ValueError(
            f"truth must have the shape of probability, {tuple(probability.shape)}, got {tuple(truth.shape)}"
        )
    size = _checked_size(region_size, probability.ndim - 2)
    _check_options(a=a, b=b, smooth=smooth, reduction=reduction, empty_regions=empty_regions)
    tp, fp, fn = probability * truth, probability * (1 - truth), (1 - probability) * truth
    if valid is None:
        n_voxels = _region_sums(torch.ones_like(truth[:1, :1]), size)
    else:
        tp, fp, fn = tp * valid, fp * valid, fn * valid
        n_voxels = _region_sums(valid.to(truth.dtype), size)
    present = _region_sums(truth if valid is None else truth * valid, size) > 0
    divisor = n_voxels.clamp_min(1)  # regions without a valid voxel are left out below
    tp, fp, fn = (_region_sums(x, size) / divisor for x in (tp, fp, fn))

    wrong = fp + fn + smooth
    weight_fp, weight_fn = a + b * (fp + smooth) / wrong, a + b * (fn + smooth) / wrong
    if detach_weights:
        weight_fp, weight_fn = weight_fp.detach(), weight_fn.detach()
    loss = 1 - (tp + smooth) / (tp + weight_fp * fp + weight_fn * fn + smooth)

    counts = (n_voxels > 0).expand_as(loss)
    if empty_regions == "skip":
        counts = counts & present
    loss = torch.where(counts, loss, 0.0)
    n_parts = counts.sum() if reduction == "mean" else float(loss.shape[0] * loss.shape[1])
    return ratio_of_sums(loss.sum(), n_parts, ddp)


class RegionSpecificLoss(LesionLoss):
    """:func:`region_specific_loss` plus ``ce_weight`` times cross-entropy, on nnU-Net's targets.

    On sparse lesions almost all regions are empty: there the region loss saturates near 1 and then has gradients of
    1e4 where p is near 0, so cross-entropy goes with it by default.

    Args:
        region_size: see :func:`region_specific_loss`, as are ``a``, ``b``, ``smooth``, ``reduction``,
            ``detach_weights`` and ``empty_regions``.
        include_background: background is a class like the others, as in public re-implementations; not with
            ``sigmoid``, where it has no channel.
        ce_weight: factor of the cross-entropy (binary with ``sigmoid``); 0: none.
        bootstrap: voxels labelled background that the network (or the teacher) calls lesion are left out of the
            regions; no gradient passes through that choice.
        alpha: with ``beta``, makes the cross-entropy the lopsided bootstrap loss; both 1: plain cross-entropy.
        beta: see ``alpha``.
        target_format: see :class:`~nnunet_lopsided.losses.base.LesionLoss`; nnU-Net's regions are classes here.

    Raises:
        ValueError: an argument out of range.

    Deep supervision: region_size counts voxels of the level the loss is applied to. Either apply it to the finest
    level alone, or give each level its own loss with region_size divided by that level's stride; nnU-Net's wrapper
    around one instance makes regions grow with the stride. Lesions that vanish at a coarse level are background there.

    Example:
        >>> loss = RegionSpecificLoss((2, 2, 2), ce_weight=0)
        >>> label = torch.zeros(1, 1, 4, 4, 4)
        >>> label[0, 0, 0, 0, 0] = 1
        >>> round(float(loss(torch.cat([9 - 20 * label, 20 * label], 1), label)), 2)
        0.78
    """

    shown = (
        "region_size",
        "a",
        "b",
        "reduction",
        "detach_weights",
        "empty_regions",
        "include_background",
        "ce_weight",
        "bootstrap",
        "alpha",
        "beta",
    )

    def __init__(
        self,
        region_size: Sequence[int] = (16, 16, 16),
        *,
        a: float = 0.3,
        b: float = 0.4,
        smooth: float = 1e-5,
        reduction: RegionReduction = "mean",
        detach_weights: bool = False,
        empty_regions: EmptyRegions = "include",
        include_background: bool = False,
        ce_weight: float = 1.0,
        bootstrap: bool = False,
        alpha: float = 1.0,
        beta: float = 1.0,
        **target_format: Unpack[TargetFormat],
    ) -> None:
        super().__init__(**target_format)
        _checked_size(region_size, len(region_size))
        _check_options(a=a, b=b, smooth=smooth, reduction=reduction, empty_regions=empty_regions)
        if include_background and self.sigmoid:
            raise ValueError("include_background must be false with sigmoid: regions have no channel of background")
        self.include_background = include_background
        self.region_size = tuple(region_size)
        self.a = a
        self.b = b
        self.smooth = smooth
        self.reduction: RegionReduction = reduction
        self.detach_weights = detach_weights
        self.empty_regions: EmptyRegions = empty_regions
        self.ce_weight = ce_weight
        self.bootstrap = bootstrap
        self.alpha = alpha
        self.beta = beta

    def forward(self, logits: Tensor, target: Tensor, teacher: Tensor | None = None) -> Tensor:
        """Scalar loss of ``logits`` (B, C, ...) against nnU-Net's ``target``."""
        target, valid = self.split_target(target)
        with torch.autocast(logits.device.type, enabled=False):
            p, t, counted = foreground(logits, target, sigmoid=self.sigmoid, valid=valid)
            if self.include_background:
                # The probability of background comes of the same softmax; foreground() has left it out.
                p = torch.softmax(without_ignored(full_precision(logits), valid), 1)
                background = 1 - t.sum(1, keepdim=True)
                t = torch.cat([background if counted is None else background * counted, t], 1)
            if self.bootstrap:
                kept = ~found_on_background(logits if teacher is None else teacher, target, sigmoid=self.sigmoid)
                counted = kept if counted is None else kept & counted
            loss = region_specific_loss(
                p,
                t,
                self.region_size,
                a=self.a,
                b=self.b,
                smooth=self.smooth,
                valid=counted,
                reduction=self.reduction,
                detach_weights=self.detach_weights,
                empty_regions=self.empty_regions,
                ddp=self.ddp,
            )
        if self.ce_weight == 0:
            return loss
        cross_entropy = lopsided_bootstrap_loss(
            logits, target, self.alpha, self.beta, sigmoid=self.sigmoid, valid=valid, teacher=teacher, ddp=self.ddp
        )
        return loss + self.ce_weight * cross_entropy


def _region_sums(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Sums over the regions, (B, K, regions along each axis); reshaped, as pooling is not deterministic on CUDA."""
    # Padding is listed from the last axis backwards, (before, after).
    # Zeros beyond the far ends change no sum, and the number of voxels is summed in the same way.
    missing = [-n % s for n, s in zip(values.shape[2:], size, strict=True)]
    if any(missing):
        values = functional.pad(values, [x for n in reversed(missing) for x in (0, n)])
    split = [x for n, s in zip(values.shape[2:], size, strict=True) for x in (n // s, s)]
    return values.reshape(*values.shape[:2], *split).sum(list(range(3, 3 + len(split), 2)))


def _checked_size(region_size: Sequence[int], n_axes: int) -> tuple[int, ...]:
    """The size of a region along each of ``n_axes`` axes."""
    size = tuple(region_size)
    if len(size) == 3 and n_axes == 2:
        size = size[1:]
    if len(size) != n_axes or n_axes not in (2, 3) or not all(isinstance(s, int) and s > 0 for s in size):
        raise ValueError(f"region_size must be {n_axes} positive whole numbers for {n_axes}D, got {tuple(region_size)}")
    return size


def _check_options(*, a: float, b: float, smooth: float, reduction: str, empty_regions: str) -> None:
    if not (a >= 0 and b >= 0 and a + b > 0):
        raise ValueError(f"a and b must be 0 or more and not both 0, got {a} and {b}")
    if not smooth > 0:
        raise ValueError(f"smooth must be above 0, got {smooth}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean or sum, got {reduction}")
    if empty_regions not in ("include", "skip"):
        raise ValueError(f"empty_regions must be include or skip, got {empty_regions}")
