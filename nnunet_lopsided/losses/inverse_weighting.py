"""Inverse size weighting of Shirokikh et al. 2020: every lesion, and the background, gets the same total weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar, cast

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from nnunet_lopsided.losses.base import LesionLoss, TargetFormat
from nnunet_lopsided.losses.distributed import ratio_of_sums, sum_over_ranks
from nnunet_lopsided.losses.preparation import (
    foreground,
    labelled_background,
    voxelwise_cross_entropy,
    with_channel,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

Kind = Literal["ce", "focal", "dice", "asl"]
InstanceMap = TypeVar("InstanceMap", NDArray[np.generic], Tensor)


def inverse_size_weights(
    instances: InstanceMap,
    clip: tuple[float, float] = (1.0, 2e5),
    *,
    batched: bool = False,
    dtype: DTypeLike = np.float32,
) -> InstanceMap:
    """Weight of every voxel of a patch: N / (number of distinct ids x voxels with this id), clipped.

    Each lesion and the background have the same total weight before clipping. A patch without a lesion has weight 1
    everywhere, so a weighted loss equals its base loss there; so has a patch filled by one lesion.

    Args:
        instances: integer ids of one patch, any shape; 0 is background, every other value a lesion. Label components
            on the whole volume and crop them with the patch, so that a lesion cut by the patch is one lesion. A tensor
            on a GPU is copied to the CPU and back: make weights in the data-loader workers.
        clip: smallest and largest weight.
        batched: the first dimension counts patches, each weighted on its own.
        dtype: floating type of the weights; float16 cannot hold 2e5.

    Returns:
        Weights shaped like ``instances``, a tensor (same device) if that is one.

    Raises:
        ValueError: ``instances`` is empty or not of integers, or ``clip`` is not 0 < low <= high.

    Source:
        Shirokikh et al., MICCAI 2020, "Universal Loss Reweighting to Balance Lesion Size Inequality in 3D Medical
        Image Segmentation".

    Example:
        >>> inverse_size_weights(np.array([0, 0, 0, 0, 0, 1, 1, 2])).round(3)
        array([1.   , 1.   , 1.   , 1.   , 1.   , 1.333, 1.333, 2.667],
              dtype=float32)
    """
    if not 0 < clip[0] <= clip[1]:
        raise ValueError(f"clip must be (low, high) with 0 < low <= high, got {clip}")
    if isinstance(instances, Tensor):
        ids = instances.detach().cpu().numpy()
        weights = torch.from_numpy(_weights(ids, clip, batched, dtype))
        return weights.to(instances.device)
    return cast(InstanceMap, _weights(np.asarray(instances), clip, batched, dtype))


def _weights(
    ids: NDArray[np.generic], clip: tuple[float, float], batched: bool, dtype: DTypeLike
) -> NDArray[np.floating]:
    if ids.size == 0 or not (np.issubdtype(ids.dtype, np.integer) or ids.dtype == bool):
        raise ValueError(f"instances must be a non-empty array of integers, got {ids.dtype} of shape {ids.shape}")
    weights = np.empty(ids.shape, dtype)
    for patch, out in zip(ids, weights, strict=True) if batched else [(ids, weights)]:
        flat, flat_out = patch.reshape(-1), out.reshape(-1)
        voxels = np.flatnonzero(flat != 0)  # several times faster on booleans
        background, of_lesions = lesion_weights(flat[voxels], flat.size, clip)
        flat_out.fill(background)
        flat_out[voxels] = of_lesions
    return weights


def lesion_weights(
    ids: NDArray[np.generic], n_voxels: int, clip: tuple[float, float] = (1.0, 2e5)
) -> tuple[float, NDArray[np.float64]]:
    """The weights of :func:`inverse_size_weights` for a patch of which only the lesion voxels are listed.

    Args:
        ids: the lesion id of every lesion voxel of the patch, in any order.
        n_voxels: of the whole patch.
        clip: smallest and largest weight.

    Returns:
        The weight of the background, and that of every voxel listed.

    Example:
        >>> lesion_weights(np.array([7, 7, 2]), 12)
        (1.0, array([2., 2., 4.]))
    """
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    n_background = n_voxels - len(ids)
    # A patch filled by lesions has no background, which then has no share.
    n_groups = len(counts) + (n_background > 0)
    background = float(np.clip(n_voxels / (n_groups * max(n_background, 1)), *clip))
    return background, np.clip(n_voxels / (n_groups * counts), *clip)[inverse.reshape(-1)]


class InverseWeightedLoss(LesionLoss):
    """Cross-entropy, focal loss, Dice or asymmetric similarity loss with a weight on every voxel.

    With w the weights, p the probability, t the truth and means over the valid voxels:

        ce     mean(w CE(y))
        focal  mean(w a_t (1 - p_y)^gamma CE(y)),  a_t = a on lesions, 1 - a on background
        dice   1 - 2 sum(w p t) / sum(w (p^2 + t^2))
        asl    1 - (1 + b^2) sum(w p t) / sum(w (b^2 t^2 + p^2))

    CE is over all classes (binary per region with ``sigmoid``). Dice and ASL are taken per lesion class or region and
    per sample (per class over the batch with ``batch_dice``) and averaged. Computed in float32 or float64, never lower:
    weights up to 2e5 overflow float16.

    Args:
        kind: the base loss.
        focal_a: weight of lesion voxels in the focal loss, 0 to 1.
        focal_gamma: exponent of the focal loss, 0 or more.
        asl_b: weight of missed against false voxels in the ASL, above 0; 1 is Dice.
        smooth: added to numerator and denominator of Dice and ASL. With 0, the paper's form, a sample without a lesion
            has loss 1 and no gradient; with ``batch_dice`` it still counts.
        batch_dice: sums of Dice and ASL run over the batch (and over the ranks with ``ddp``).
        target_format: see :class:`~nnunet_lopsided.losses.base.LesionLoss`.

    Raises:
        ValueError: an argument out of range.

    Deep supervision: every level needs its own weights. Resampled like the labels (nearest), they keep the finest
    level's weight per voxel; made anew from resampled ids, they give what is left of a lesion its full share. Either
    way a lesion that vanishes at a coarse level is background there.

    Source:
        Shirokikh et al., MICCAI 2020 (inverse weighting); Lin et al. 2017 (focal); Hashemi et al. 2018 (ASL).

    Example:
        >>> logits = torch.zeros(1, 2, 1, 8)
        >>> lesions = torch.tensor([[[[0, 0, 0, 0, 0, 1, 2, 2]]]])
        >>> loss = InverseWeightedLoss("dice")(logits, lesions.clamp(max=1), inverse_size_weights(lesions))
        >>> round(float(loss), 4)
        0.3263
    """

    shown = ("kind", "smooth")

    def __init__(
        self,
        kind: Kind,
        *,
        focal_a: float = 0.75,
        focal_gamma: float = 2.0,
        asl_b: float = 1.5,
        smooth: float = 0.0,
        batch_dice: bool = False,
        **target_format: Unpack[TargetFormat],
    ) -> None:
        super().__init__(**target_format)
        if kind not in ("ce", "focal", "dice", "asl"):
            raise ValueError(f"kind must be ce, focal, dice or asl, got {kind}")
        if not 0 <= focal_a <= 1:
            raise ValueError(f"focal_a must be within [0, 1], got {focal_a}")
        for name, value in (("focal_gamma", focal_gamma), ("smooth", smooth)):
            if not value >= 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        if not asl_b > 0:
            raise ValueError(f"asl_b must be above 0, got {asl_b}")
        self.kind = kind
        self.focal_a = focal_a
        self.focal_gamma = focal_gamma
        self.asl_b = asl_b
        self.smooth = smooth
        self.batch_dice = batch_dice

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Scalar loss.

        Args:
            logits: (B, C, ...), float of any precision.
            target: nnU-Net's target: labels (B, 1, ...), or regions with ignore last.
            weight: (B, 1, ...), or (B, R, ...) with ``sigmoid``; float32, not negative. None: 1 everywhere.
        """
        weights = torch.ones_like(logits[:, :1]) if weight is None else weight
        target, valid = self.split_target(target)
        if not (self.sigmoid and weights.shape == logits.shape):
            weights = with_channel(weights, logits, "weight")
        with torch.autocast(logits.device.type, enabled=False):
            # Not lower, whatever the loader gave: the largest weight, 2e5, is infinite in float16.
            weights = weights.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
            if valid is not None:
                weights = weights * valid
            if self.kind in ("ce", "focal"):
                return self._voxelwise(logits, target, weights, valid)
            return self._overlap(logits, target, weights, valid)

    def _voxelwise(self, logits: Tensor, target: Tensor, weights: Tensor, valid: Tensor | None) -> Tensor:
        loss = voxelwise_cross_entropy(logits, target, sigmoid=self.sigmoid, valid=valid)
        if self.kind == "focal":
            positive = ~labelled_background(
                target if self.sigmoid else with_channel(target, logits, "target"), self.sigmoid
            )
            # 1 - p_y of CE(y) = -log p_y, exact near p_y = 1. The floor keeps exponents below 1 differentiable there.
            missing = (-torch.expm1(-loss)).clamp_min(torch.finfo(loss.dtype).tiny)
            loss = torch.where(positive, self.focal_a, 1 - self.focal_a) * missing**self.focal_gamma * loss
        loss = loss * weights
        n_valid: Tensor | float = float(loss.numel())
        if valid is not None:
            n_valid = torch.count_nonzero(valid) * loss.shape[1]
        return ratio_of_sums(loss.sum(), n_valid, self.ddp)

    def _overlap(self, logits: Tensor, target: Tensor, weights: Tensor, valid: Tensor | None) -> Tensor:
        p, t, _ = foreground(logits, target, sigmoid=self.sigmoid, valid=valid)
        # Channels stay apart: a class of few voxels counts as much as one of many.
        axes = ([0] if self.batch_dice else []) + list(range(2, p.ndim))
        b2 = self.asl_b**2 if self.kind == "asl" else 1.0
        both = (weights * p * t).sum(axes)
        either = (weights * (b2 * t + p.square())).sum(axes)  # t is 0 or 1, its own square
        if self.batch_dice and self.ddp:
            both, either = sum_over_ranks(torch.stack([both, either])).unbind()
        overlap = ((1 + b2) * both + self.smooth) / (either + self.smooth).clamp_min(torch.finfo(p.dtype).tiny)
        # An ignored patch: nothing to overlap, nothing lost.
        loss = (1 - overlap) * self._counts(valid, either, axes)
        if self.ddp and not self.batch_dice:
            return ratio_of_sums(loss.sum(), float(loss.numel()), ddp=True)
        return loss.mean()

    def _counts(self, valid: Tensor | None, like: Tensor, axes: list[int]) -> Tensor:
        """1 for problems with at least one valid voxel, otherwise 0."""
        if valid is None:
            return torch.ones_like(like)
        n_valid = valid.sum(axes).to(like.dtype).expand_as(like)
        if self.batch_dice and self.ddp:
            n_valid = sum_over_ranks(n_valid)
        return (n_valid > 0).to(like.dtype)
