"""Cross-entropy against a mixture of the label and the network's own answer, as target weights of every class.

Eq. 1 to 3 of Yi et al. 2020 are all of the form -sum_k w_k log p_k. What differs is the weight w_k of each class, which
:func:`_class_weights` writes down; the gradient is PyTorch's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nnunet_lopsided.losses.preparation import full_precision, labelled_background, one_hot, verdict


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How label and own answer are mixed.

    Attributes:
        alpha: weight of the label on positives (eq. 3 only).
        beta: weight of the label on negatives (eq. 3), on all voxels (eq. 2).
        lopsided: eq. 3, only negatives are bootstrapped; otherwise eq. 2, all voxels are.
        soft: yhat is the probability, not the most probable class.
        sigmoid: every channel is a binary problem.
    """

    alpha: float
    beta: float
    lopsided: bool
    soft: bool
    sigmoid: bool


class VoxelLoss(NamedTuple):
    """The loss of every voxel, and the weights it is made of.

    Attributes:
        loss: (B, 1, ...), with regions (B, R, ...); 0 where the voxel is ignored.
        weight: the sum of its target weights, of the same shape.
    """

    loss: Tensor
    weight: Tensor


def bootstrapped_cross_entropy(
    logits: Tensor,
    target: Tensor,
    mixture: Mixture,
    *,
    valid: Tensor | None = None,
    weight: Tensor | None = None,
    teacher: Tensor | None = None,
    belief: Tensor | None = None,
    trust: Tensor | None = None,
) -> VoxelLoss:
    """A CE(y) + B CE(yhat) of every voxel.

    Args:
        logits: (B, C, ...), float of any precision; computed in float32 (float64 stays). Finite on ignored voxels.
        target: labels (B, 1, ...); with ``sigmoid`` (B, R, ...) zeros and ones.
        mixture: A, B and what yhat is.
        valid: boolean (B, 1, ...); False voxels have neither loss nor gradient.
        weight: (B, 1, ...) or (B, C, ...) with ``sigmoid``: factor on alpha.
        teacher: logits like ``logits``, from which yhat is taken instead.
        belief: (B, lesion classes or regions, ...) in [0, 1]: the share of a negative that is each lesion class; they
            add up to at most 1 (eq. 3 only).
        trust: (B, 1, ...) or (B, C, ...) with ``sigmoid``: factor on the negatives' part, a constant (eq. 3 only).
    """
    logits = full_precision(logits)
    log_background, log_lesion = _log_probabilities(logits, mixture.sigmoid)
    answer: Tensor | None = None
    if mixture.beta < 1 and mixture.soft and teacher is None:
        answer = log_lesion.exp()  # moves with the logits, so its gradient counts, too
    elif mixture.beta < 1:
        answer = verdict(logits if teacher is None else teacher, sigmoid=mixture.sigmoid, soft=mixture.soft)
    share = _share_of_lesion(target, log_lesion, mixture.sigmoid, belief)
    on_background, on_lesion = _class_weights(share, mixture, answer=answer, weight=weight, trust=trust)
    if valid is not None:
        on_background, on_lesion = on_background * valid, on_lesion * valid
    loss = -(on_background * log_background + _over_classes(on_lesion * log_lesion, mixture.sigmoid))
    # Detached: dividing by the weights must not reward a network for making them large.
    return VoxelLoss(loss, (on_background + _over_classes(on_lesion, mixture.sigmoid)).detach())


def _log_probabilities(logits: Tensor, sigmoid: bool) -> tuple[Tensor, Tensor]:
    """Logarithms of the probability of background, (B, 1, ...), and of each lesion class; of regions (B, R, ...) both.

    With two classes only the difference of the logits matters, and a logarithm of the sigmoid keeps the digits of a
    confident voxel's small loss, which log_softmax loses in float32.
    """
    if sigmoid or logits.shape[1] == 2:
        lesion_over_background = logits if sigmoid else logits[:, 1:] - logits[:, :1]
        return functional.logsigmoid(-lesion_over_background), functional.logsigmoid(lesion_over_background)
    log_p = torch.log_softmax(logits, 1)
    return log_p[:, :1], log_p[:, 1:]


def _over_classes(values: Tensor, sigmoid: bool) -> Tensor:
    """Sum over the lesion classes of a voxel; regions are problems of their own."""
    return values if sigmoid or values.shape[1] == 1 else values.sum(1, keepdim=True)


def _share_of_lesion(target: Tensor, like: Tensor, sigmoid: bool, belief: Tensor | None) -> Tensor:
    """How much of every voxel is each lesion class: 1 where labelled, elsewhere what is believed, otherwise 0."""
    if sigmoid:
        share = target.to(like.dtype)
    else:
        share = one_hot(target, 1 + like.shape[1], like.dtype)
    if belief is None:
        return share
    return torch.where(labelled_background(target, sigmoid), belief.detach().to(like.dtype), share)


def _class_weights(
    share: Tensor, mixture: Mixture, *, answer: Tensor | None, weight: Tensor | None, trust: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The target weights of background and of the lesion classes.

    Of a voxel with a share s_k of lesion class k, n = 1 - sum s_k is negative. With the answer yhat_k (zeros and ones,
    or probabilities) eq. 3 puts alpha s_k + (1 - beta) n yhat_k on class k, and the rest of n on background.

    Args:
        share: (B, K, ...).
        answer: the same; None if beta is 1, where it does not matter.
        mixture: alpha, beta and which equation.
        weight: factor on alpha, or None.
        trust: factor on negatives, or None.
    """
    negative = 1 - _over_classes(share, mixture.sigmoid)
    if mixture.lopsided:
        on_lesion = mixture.alpha * share
        if weight is not None:
            on_lesion = on_lesion * weight.detach().to(share.dtype)
        bootstrapped = negative if trust is None else negative * trust
        on_background = mixture.beta * bootstrapped
    else:
        on_lesion, on_background = mixture.beta * share, mixture.beta * negative
        bootstrapped = torch.ones_like(negative)
    if answer is None:
        return on_background, on_lesion
    # The answer of a teacher, or an argmax, is a constant; with a soft bootstrap of its own a gradient passes here.
    on_answer = (1 - mixture.beta) * bootstrapped
    answered = _over_classes(answer, mixture.sigmoid)
    return on_background + on_answer * (1 - answered), on_lesion + on_answer * answer
