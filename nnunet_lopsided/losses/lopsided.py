"""The lopsided bootstrap loss of Yi et al. 2020 (eq. 3), and eq. 1 and eq. 2 of which it is made.

Notation: logits z, p = softmax(z), CE(k) = logsumexp(z) - z_k, yhat = argmax_c z_c, a constant target.

    eq. 1, class weights:  y = 0: CE(0)                               y > 0: alpha CE(y)      (eq. 3 with beta = 1)
    eq. 2, bootstrap:      beta CE(y) + (1 - beta) CE(yhat)           on every voxel
    eq. 3, lopsided:       y = 0: beta CE(0) + (1 - beta) CE(yhat)    y > 0: alpha CE(y)

The numerics are in :mod:`nnunet_lopsided.losses.bootstrap`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from nnunet_lopsided.losses.base import LesionLoss, TargetFormat
from nnunet_lopsided.losses.bootstrap import Mixture, bootstrapped_cross_entropy
from nnunet_lopsided.losses.distributed import ratio_of_sums, sum_over_ranks
from nnunet_lopsided.losses.preparation import (
    Reduction,
    ScalarReduction,
    check_belief,
    check_target,
    trust_in_negatives,
    with_channel,
    without_ignored,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

# What "lesion_mean" divides by is at least this share of all voxels, so that a batch without lesions stays bounded.
LEAST_LESION_SHARE = 1e-3


def lopsided_bootstrap_loss(
    logits: Tensor,
    target: Tensor,
    alpha: float = 3.0,
    beta: float = 0.1,
    *,
    sigmoid: bool = False,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
    soft: bool = False,
    weight: Tensor | None = None,
    teacher: Tensor | None = None,
    belief: Tensor | None = None,
    gamma: float = 0.0,
    margin: int = 0,
    doubt: Tensor | None = None,
    ddp: bool = False,
) -> Tensor:
    """Lopsided bootstrap loss: positives weighted by alpha, negatives bootstrapped towards the network's own argmax.

    Computed in float32 (float64 stays float64), outside any autocast. The argmax is a constant target; on a tie it is
    the first maximal class, so background wins against an equal lesion logit.

    Args:
        logits: (B, C, ...) raw network outputs; C >= 2 classes with background first, or with ``sigmoid`` one channel
            per region.
        target: class labels (B, ...) or (B, 1, ...) of any real type; with ``sigmoid`` (B, C, ...) zeros and ones.
        alpha: weight of positive voxels, above 0. The paper's grid is 3, 10, 30.
        beta: weight of the label on negative voxels, 0 to 1; 1 - beta goes to the argmax. 1 gives eq. 1.
        sigmoid: treat every channel as a binary problem of its own (nnU-Net's region-based training).
        valid: boolean (B, ...) or (B, 1, ...); False voxels have neither loss nor gradient.
        reduction: ``mean`` over valid voxels (and channels with ``sigmoid``), as in the paper; ``weighted_mean``
            divides by the sum of the weights A + B instead; ``lesion_mean`` by the number of positives, at least by a
            thousandth of all voxels, so that cross-entropy is as strong as a Dice term; ``sum``; or ``none`` for the
            loss of every voxel, (B, ...) or (B, C, ...) with ``sigmoid``.
        soft: Reed's soft bootstrap on the negatives: yhat is the probability p, so that the (1 - beta) term is the
            entropy -sum p log p. Its gradient flows through both factors, as in Reed et al. (minimum-entropy
            regularisation; with a constant p it would have no gradient at all). With a ``teacher`` it is the
            cross-entropy against the teacher's probabilities, which are constant.
        weight: (B, ...) or (B, 1, ...), with ``sigmoid`` also (B, C, ...): factor on alpha, positives only, e.g.
            inverse size weights. Not negative.
        teacher: logits of another network, shaped like ``logits``, from which yhat is taken; no gradient passes.
        belief: (B, K, ...) with one channel per lesion class (or region), within [0, 1]: how sure somebody else is that
            a voxel labelled background is that lesion. It counts there alone: a share t of the voxel is a positive,
            the rest a negative, t alpha CE(k) + (1 - t) (beta CE(0) + (1 - beta) CE(yhat)). Those of one voxel add up
            to at most 1. Belief 0 changes nothing, belief 1 is the label.
        gamma: 0 or more. A negative counts (1 - p)^gamma, p the probability of lesion (the teacher's, where there is
            one), held constant: **the surer the network is of a lesion, the less its label is believed**. The gradient
            of a negative, p (1 - p)^gamma with beta 1, is that of the generalised cross-entropy
            (1 - (1 - p)^gamma) / gamma: bounded, and fading where label and network contradict each other. 0: all
            negatives count alike, as in the paper.
        margin: voxels around a labelled lesion (along every axis) in which a negative counts fully, whatever gamma
            says: who drew that lesion has looked there. Lesions that touch stay apart.
        doubt: (B, ...) or (B, 1, ...) in [0, 1]: somebody else's probability that a voxel labelled background is of a
            missed lesion. With it a negative counts (1 - doubt)^gamma, whatever the network says.
        ddp: sums run over all ranks of torch.distributed, for every ``reduction`` but ``none``.

    Returns:
        A scalar, 0 with a graph attached if no voxel is valid; or the voxel-wise loss.

    Raises:
        ValueError: alpha, beta or reduction out of range, shapes that do not fit, or on a CPU a label that is no class
            (on a GPU an assertion of the device).

    Source:
        Yi et al. 2020, "Brain Metastasis Segmentation Network Trained with Robustness to Annotations with Multiple
        False Negatives", eq. 3; Reed et al. 2014, "Training Deep Neural Networks on Noisy Labels with Bootstrapping".
        ``gamma``: ours, after Zhang and Sabuncu 2018, "Generalized Cross Entropy Loss", on negatives alone.

    Example:
        >>> logits = torch.tensor([[[-1.0], [1.5]]])  # one voxel the network calls lesion, labelled background
        >>> round(float(lopsided_bootstrap_loss(logits, torch.tensor([[0]]), alpha=3, beta=0.1)), 4)
        0.3289
    """
    _check_weights(alpha, beta, reduction, gamma, margin)
    mixture = Mixture(alpha=float(alpha), beta=float(beta), lopsided=True, soft=soft, sigmoid=sigmoid)
    return _reduced(
        logits,
        target,
        mixture,
        valid=valid,
        weight=weight,
        teacher=teacher,
        belief=belief,
        gamma=gamma,
        margin=margin,
        doubt=doubt,
        reduction=reduction,
        ddp=ddp,
    )


def bootstrap_loss(
    logits: Tensor,
    target: Tensor,
    beta: float = 0.5,
    *,
    sigmoid: bool = False,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
    soft: bool = False,
    teacher: Tensor | None = None,
    ddp: bool = False,
) -> Tensor:
    """Bootstrap loss on every voxel: beta CE(y) + (1 - beta) CE(yhat), eq. 2 of Yi et al. 2020.

    beta = 1 is cross-entropy. Arguments, result and errors are those of :func:`lopsided_bootstrap_loss`.

    Source:
        Reed et al. 2014, "Training Deep Neural Networks on Noisy Labels with Bootstrapping".

    Example:
        >>> logits = torch.tensor([[[2.0], [0.0]]])  # called background, labelled lesion
        >>> round(float(bootstrap_loss(logits, torch.tensor([[1]]), beta=0.5)), 4)
        1.1269
    """
    _check_weights(1.0, beta, reduction)
    mixture = Mixture(alpha=1.0, beta=float(beta), lopsided=False, soft=soft, sigmoid=sigmoid)
    return _reduced(logits, target, mixture, valid=valid, teacher=teacher, reduction=reduction, ddp=ddp)


class BootstrapLoss(LesionLoss):
    """Bootstrap loss (eq. 2) on nnU-Net's targets; ``beta`` may be changed between calls.

    Args:
        beta: weight of the label, 0 to 1.
        reduction: see :func:`lopsided_bootstrap_loss`.
        soft: see :func:`lopsided_bootstrap_loss`.
        target_format: see :class:`~nnunet_lopsided.losses.base.LesionLoss`.

    Example:
        >>> loss = BootstrapLoss(beta=0.5, ignore_label=2)
        >>> float(loss(torch.zeros(1, 2, 4, 4), torch.full((1, 1, 4, 4), 2)))
        0.0
    """

    shown = ("beta", "soft")

    def __init__(
        self,
        beta: float = 0.5,
        *,
        reduction: ScalarReduction = "mean",
        soft: bool = False,
        **target_format: Unpack[TargetFormat],
    ) -> None:
        super().__init__(**target_format)
        _check_weights(1.0, beta, reduction)
        self.beta = beta
        self.reduction: ScalarReduction = reduction
        self.soft = soft

    def forward(self, logits: Tensor, target: Tensor, teacher: Tensor | None = None) -> Tensor:
        """Loss of ``logits`` (B, C, ...) against nnU-Net's ``target``, a scalar."""
        target, valid = self.split_target(target)
        return bootstrap_loss(
            logits,
            target,
            self.beta,
            sigmoid=self.sigmoid,
            valid=valid,
            reduction=self.reduction,
            soft=self.soft,
            teacher=teacher,
            ddp=self.ddp,
        )


class LopsidedBootstrapLoss(LesionLoss):
    """Lopsided bootstrap loss (eq. 3) on nnU-Net's targets; ``alpha``, ``beta`` and ``gamma`` may be changed between
    calls (warm-up).

    Args:
        alpha: weight of positive voxels, above 0.
        beta: weight of the label on negative voxels, 0 to 1.
        reduction: see :func:`lopsided_bootstrap_loss`.
        soft: see :func:`lopsided_bootstrap_loss`.
        gamma: how fast trust in a negative fades where the network sees a lesion, see
            :func:`lopsided_bootstrap_loss`.
        margin: around labelled lesions, see there; of every resolution's own voxels.
        target_format: see :class:`~nnunet_lopsided.losses.base.LesionLoss`.

    Deep supervision: nnU-Net's wrapper applies the loss at every resolution to nearest-resampled labels. A lesion too
    small for a coarse level is missing there, which is one more missed lesion to this loss: the bootstrap term does
    not punish the coarse head for finding it. Weights and teacher logits are lists too, one entry per resolution.

    Example:
        >>> loss = LopsidedBootstrapLoss(alpha=3, beta=0.1, ignore_label=2)
        >>> float(loss(torch.zeros(1, 2, 4, 4), torch.full((1, 1, 4, 4), 2)))
        0.0
    """

    shown = ("alpha", "beta", "soft", "gamma", "margin")

    def __init__(
        self,
        alpha: float = 3.0,
        beta: float = 0.1,
        *,
        reduction: ScalarReduction = "mean",
        soft: bool = False,
        gamma: float = 0.0,
        margin: int = 0,
        **target_format: Unpack[TargetFormat],
    ) -> None:
        super().__init__(**target_format)
        _check_weights(alpha, beta, reduction, gamma, margin)
        self.alpha = alpha
        self.beta = beta
        self.reduction: ScalarReduction = reduction
        self.soft = soft
        self.gamma = gamma
        self.margin = margin

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        teacher: Tensor | None = None,
        belief: Tensor | None = None,
        doubt: Tensor | None = None,
    ) -> Tensor:
        """Loss of ``logits`` (B, C, ...) against nnU-Net's ``target``, a scalar.

        ``weight`` (B, 1, ...) multiplies alpha on positives; ``teacher`` are the logits yhat is taken from; ``belief``
        (B, K, ...) is how sure somebody else is that voxels labelled background are lesion; ``doubt`` (B, 1, ...) is
        that, too, and takes weight from the label in place of giving a target.
        """
        target, valid = self.split_target(target)
        return lopsided_bootstrap_loss(
            logits,
            target,
            self.alpha,
            self.beta,
            sigmoid=self.sigmoid,
            valid=valid,
            reduction=self.reduction,
            soft=self.soft,
            weight=weight,
            teacher=teacher,
            belief=belief,
            gamma=self.gamma,
            margin=self.margin,
            doubt=doubt,
            ddp=self.ddp,
        )


def _reduced(
    logits: Tensor,
    target: Tensor,
    mixture: Mixture,
    *,
    valid: Tensor | None,
    teacher: Tensor | None,
    reduction: Reduction,
    ddp: bool,
    weight: Tensor | None = None,
    belief: Tensor | None = None,
    gamma: float = 0.0,
    margin: int = 0,
    doubt: Tensor | None = None,
) -> Tensor:
    """The checked loss of every voxel, brought down to one number as ``reduction`` says."""
    sigmoid = mixture.sigmoid
    if valid is not None:
        valid = with_channel(valid, logits, "valid")
    target = check_target(logits, target, sigmoid, valid)
    if weight is not None and not (sigmoid and weight.shape == logits.shape):
        weight = with_channel(weight, logits, "weight")
    if teacher is not None and teacher.shape != logits.shape:
        raise ValueError(f"teacher must have the shape of logits, {tuple(logits.shape)}, got {tuple(teacher.shape)}")
    if belief is not None:
        belief = check_belief(logits, belief, sigmoid)
    with torch.autocast(logits.device.type, enabled=False):
        # Before anything is computed: whatever a network says there, NaN too, must reach no sum.
        logits, teacher = without_ignored(logits, valid), None if teacher is None else without_ignored(teacher, valid)
        trust = None
        if gamma:
            judge = logits if teacher is None else teacher
            trust = trust_in_negatives(judge, target, gamma, sigmoid=sigmoid, margin=margin, valid=valid, doubt=doubt)
        voxels = bootstrapped_cross_entropy(
            logits, target, mixture, valid=valid, weight=weight, teacher=teacher, belief=belief, trust=trust
        )
        if reduction == "none":
            return voxels.loss if sigmoid else voxels.loss[:, 0]
        total = voxels.loss.sum()
        if reduction == "sum":
            return sum_over_ranks(total) if ddp else total
        if reduction == "weighted_mean":
            return ratio_of_sums(total, voxels.weight.sum(), ddp)
        # By the number of voxels, as in the paper: a voxel that counts less makes the others no heavier.
        n_valid: Tensor | float = float(voxels.loss.numel())
        if valid is not None:
            n_valid = torch.count_nonzero(valid) * voxels.loss.shape[1]
        if reduction == "mean":
            return ratio_of_sums(total, n_valid, ddp)
        positive = (target > 0) if valid is None else (target > 0) & valid
        sums = torch.stack([total, *(torch.as_tensor(n).to(total) for n in (torch.count_nonzero(positive), n_valid))])
        total, n_positive, n_of_all = (sum_over_ranks(sums) if ddp else sums).unbind()
        divisor = torch.maximum(n_positive, LEAST_LESION_SHARE * n_of_all)
        return total / torch.where(divisor > 0, divisor, 1.0)


def _check_weights(alpha: float, beta: float, reduction: str, gamma: float = 0.0, margin: int = 0) -> None:
    if not gamma >= 0:
        raise ValueError(f"gamma must be 0 or more, got {gamma}")
    if margin < 0:
        raise ValueError(f"margin must be 0 or more, got {margin}")
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be within [0, 1], got {beta}")
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be mean, weighted_mean, lesion_mean, sum or none, got {reduction}")
