"""Cross-entropy against a mixture of the label and the network's own answer, in one pass with its gradient.

Of every voxel the loss is A CE(y) + B CE(yhat) with CE(k) = logsumexp(z) - z_k. With W = A + B and the mixed target
T = A onehot(y) + B onehot(yhat) that is W logsumexp(z) - T.z, and its gradient is W softmax(z) - T. Both come from the
same few numbers, so the gradient is made during the forward pass and only scaled in the backward pass: kept are one
number per voxel for two classes, one per voxel and class for more.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nnunet_lopsided.losses.preparation import full_precision

# Voxels per step on a CPU: the dozen temporaries stay in the second-level cache, and ATen neither starts nor awaits
# threads for so few, which is what makes many small operations slow on a busy machine.
BLOCK_VOXELS = 32768
_WHOLE = slice(None)


class Mixture(NamedTuple):
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
    voxelwise: bool = False,
) -> Tensor:
    """Sum over the voxels of A CE(y) + B CE(yhat), or with ``voxelwise`` the terms.

    Args:
        logits: (B, C, ...), float of any precision; computed in float32 (float64 stays).
        target: labels (B, 1, ...); with ``sigmoid`` (B, R, ...) zeros and ones. Of binary problems it may hold any
            share in [0, 1]: that of the voxel that is lesion.
        mixture: A, B and what yhat is.
        valid: boolean (B, 1, ...); False voxels have neither loss nor gradient.
        weight: (B, 1, ...) or (B, C, ...) with ``sigmoid``: factor on alpha.
        teacher: logits like ``logits``, from which yhat is taken instead.
        belief: of more than two classes, (B, C - 1, ...) in [0, 1]: the share of a negative that is each lesion class;
            they add up to at most 1 (eq. 3 only).
        trust: (B, 1, ...) or (B, C, ...) with ``sigmoid``: factor on the negatives' part, a constant (eq. 3 only).
        voxelwise: return (B, ...), or (B, R, ...) with ``sigmoid``.
    """
    shape = logits.shape
    lead = shape[:2] if mixture.sigmoid else shape[:1]

    def rows(voxels: Tensor | None) -> Tensor | None:
        """(B, 1, ...) as (B, n), for regions (B, R, n)."""
        if voxels is None:
            return None
        voxels = voxels.reshape(*voxels.shape[:2], -1)
        return voxels.expand(*lead, -1) if mixture.sigmoid else voxels[:, 0]

    loss = _Bootstrapped.apply(
        logits.reshape(*shape[:2], -1),
        rows(target),
        rows(valid),
        rows(weight),
        None if teacher is None else teacher.detach().reshape(*shape[:2], -1),
        None if belief is None else belief.detach().reshape(*belief.shape[:2], -1),
        rows(trust),
        mixture,
        voxelwise,
    )
    return loss.view(*lead, *shape[2:]) if voxelwise else loss


class _Bootstrapped(torch.autograd.Function):
    """logits (B, C, n), the rest (B, n), or for regions all (B, R, n)."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        teacher: Tensor | None,
        belief: Tensor | None,
        trust: Tensor | None,
        mixture: Mixture,
        voxelwise: bool,
    ) -> Tensor:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        two_classes = not mixture.sigmoid and logits.shape[1] == 2
        per_class = not mixture.sigmoid and not two_classes
        voxels = logits.shape[:1] + logits.shape[2:] if not mixture.sigmoid else logits.shape
        terms = logits.new_empty(voxels, dtype=dtype) if voxelwise else None
        needs_gradient = ctx.needs_input_grad[0]
        if per_class:
            # Read block by block, and overwritten with the gradient.
            log_p: Tensor | None = torch.log_softmax(logits, 1, dtype=dtype)
            gradient = log_p if needs_gradient else None
        else:
            log_p, gradient = None, logits.new_empty(voxels, dtype=dtype) if needs_gradient else None

        sums = []
        for index, part in _blocks(logits, voxels):
            piece = logits[index][..., part]
            label = target[index][..., part]
            chosen = None if valid is None else valid[index][..., part].to(dtype)
            factor = None if weight is None else weight[index][..., part].to(dtype)
            guide = None if teacher is None else teacher[index][..., part]
            believed = None if belief is None else belief[index][..., part].to(dtype)
            trusted = None if trust is None else trust[index][..., part].to(dtype)
            into = None if gradient is None else gradient[index][..., part]
            if label.dtype == torch.bool:
                label = label.view(torch.uint8)
            if log_p is not None:
                log_piece = log_p[index][..., part]
                loss = _classes(
                    piece, log_piece, label, chosen, factor, guide, believed, trusted, mixture, needs_gradient
                )
            else:
                if two_classes:
                    piece = _difference(piece, dtype)
                    guide = None if guide is None else _difference(guide, dtype)
                loss = _binary(piece.to(dtype), label, chosen, factor, guide, trusted, mixture, into)
            if terms is None:
                sums.append(loss.sum())
            else:
                terms[index][..., part].copy_(loss)
        ctx.save_for_backward(gradient)
        ctx.two_classes, ctx.per_class, ctx.logits = two_classes, per_class, (logits.shape, logits.dtype)
        return torch.stack(sums).sum() if terms is None else terms

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        shape, dtype = ctx.logits
        if ctx.per_class and grad_output.ndim:
            grad_output = grad_output.unsqueeze(1)
        if not ctx.two_classes:
            return ((gradient * grad_output).to(dtype), *[None] * 8)
        if torch.compiler.is_compiling():  # which refuses strided outputs
            of_lesion = (gradient * grad_output).to(dtype)
            return (torch.stack([-of_lesion, of_lesion], 1), *[None] * 8)
        out = gradient.new_empty(shape, dtype=dtype)
        torch.mul(gradient, grad_output, out=out[:, 1])
        torch.neg(out[:, 1], out=out[:, 0])
        return (out, *[None] * 8)


def _blocks(logits: Tensor, voxels: torch.Size) -> Iterator[tuple[tuple[int, ...], slice]]:
    """(index of the leading dimensions, range of voxels) of each step; all at once but for large tensors on a CPU."""
    n = voxels[-1]
    if logits.device.type != "cpu" or n < 1024 or torch.compiler.is_compiling():
        yield (), _WHOLE
        return
    for index in product(*[range(k) for k in voxels[:-1]]):
        for start in range(0, n, BLOCK_VOXELS):
            yield index, slice(start, start + BLOCK_VOXELS)


def _difference(logits: Tensor, dtype: torch.dtype) -> Tensor:
    return logits.select(-2, 1).to(dtype) - logits.select(-2, 0).to(dtype)


def _above_zero(values: Tensor) -> Tensor:
    """1 where a value is positive, otherwise 0, as floats: several times faster than a comparison on a CPU."""
    return values.sign().clamp_min_(0)


def _binary(
    d: Tensor,
    label: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    teacher: Tensor | None,
    trust: Tensor | None,
    mixture: Mixture,
    gradient: Tensor | None,
) -> Tensor:
    """Loss of binary problems with logit ``d`` (lesion minus background); writes dL/dd into ``gradient``."""
    alpha, beta = mixture.alpha, mixture.beta
    y = torch.clamp(label.to(d.dtype), 0, 1)
    p = torch.sigmoid(d) if gradient is not None or mixture.soft else None
    above = _above_zero(d)
    guide = full_precision(teacher).to(d.dtype) if teacher is not None else None
    if mixture.soft:
        answer = torch.sigmoid(guide) if guide is not None else p
    else:
        answer = _above_zero(guide) if guide is not None else above
    assert answer is not None
    if mixture.lopsided:
        negative = 1 - y if trust is None else (1 - y).mul_(trust)
        on_label = y if weight is None else y * weight
        mixed = (answer * negative).mul_(1 - beta).add_(on_label, alpha=alpha)
        total = negative.add_(on_label, alpha=alpha)
    else:
        total = torch.ones_like(d)
        mixed = torch.add(y * beta, answer, alpha=1 - beta)
    if valid is not None:
        total, mixed = total * valid, mixed * valid

    if gradient is not None:
        assert p is not None
        if mixture.soft and teacher is None:
            # yhat = p moves with the logit: the term is B times the entropy, whose own part is -B p (1 - p) d.
            own = torch.ones_like(d) if not mixture.lopsided else 1 - y if trust is None else (1 - y) * trust
            own = own if valid is None else own * valid
            gradient.copy_((p * total).sub_(mixed).sub_(own * p * (1 - p) * d, alpha=1 - beta))
        else:
            gradient.copy_(p.mul_(total).sub_(mixed))

    # W softplus(d) - T d without cancellation: W log(1 + exp(-|d|)) + (W [d > 0] - T) d. With q = sigmoid(-|d|) the
    # logarithm is 2 atanh(q / (2 - q)): exact for small q; log1p can be twenty times slower on a CPU.
    q = d.abs().neg_().sigmoid_()
    half_log = q.div_(2 - q).atanh_()
    return above.mul_(total).sub_(mixed).mul_(d).addcmul_(half_log, total, value=2)


def _classes(
    logits: Tensor,
    log_p: Tensor,
    label: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    teacher: Tensor | None,
    belief: Tensor | None,
    trust: Tensor | None,
    mixture: Mixture,
    needs_gradient: bool,
) -> Tensor:
    """Loss of softmax problems with ``logits`` (..., C, n); overwrites ``log_p`` with dL/dz if that is needed."""
    alpha, beta = mixture.alpha, mixture.beta
    y = label.to(log_p.dtype).clamp_min(0)
    guide = logits if teacher is None else teacher
    if mixture.lopsided:
        positive = y.clamp(max=1)
        negative = 1 - positive
        of_positive = torch.full_like(y, alpha) if weight is None else alpha * weight
        if belief is not None:
            on_belief = belief * (negative * of_positive).unsqueeze(-2)
            negative = negative * (1 - belief.sum(-2))
        if trust is not None:
            negative = negative * trust
        on_label = positive * of_positive + negative * beta
        on_answer = negative * (1 - beta)
    else:
        on_label = torch.full_like(y, beta)
        on_answer = torch.full_like(y, 1 - beta)
    if valid is not None:
        on_label, on_answer = on_label * valid, on_answer * valid
    total = on_label + on_answer
    if belief is not None:
        on_belief = on_belief if valid is None else on_belief * valid.unsqueeze(-2)
        total = total + on_belief.sum(-2)
    if mixture.soft:
        probability = log_p.exp() if teacher is None else torch.softmax(teacher, -2, dtype=log_p.dtype)
    else:
        answer = _first_highest(guide, log_p.dtype)
    # yhat = p moves with the logits: the term is B times the entropy H, whose own part is -B p (log p + H).
    moves = mixture.soft and teacher is None and needs_gradient
    entropy = -(probability * log_p).sum(-2) if moves else None

    loss = torch.zeros_like(total)
    for k in range(logits.shape[-2]):
        log_p_k = log_p.select(-2, k)
        of_answer = probability.select(-2, k) if mixture.soft else _equals(answer, k)
        mixed = torch.addcmul(on_answer * of_answer, on_label, _equals(y, k))
        if belief is not None and k:
            mixed += on_belief.select(-2, k - 1)
        loss.addcmul_(mixed, log_p_k, value=-1)
        if entropy is not None:
            own = (log_p_k + entropy).mul_(of_answer).mul_(on_answer)
            log_p_k.copy_((of_answer * total).sub_(mixed).sub_(own))
        elif needs_gradient:
            log_p_k.exp_().mul_(total).sub_(mixed)
    return loss


def _equals(labels: Tensor, k: int) -> Tensor:
    """1 where a whole-numbered float equals k, otherwise 0."""
    return (1 - (labels - k).abs_()).clamp_min_(0)


def _first_highest(scores: Tensor, dtype: torch.dtype) -> Tensor:
    """First of the highest classes along dimension -2, as floats: background wins a tie."""
    highest = scores.select(-2, 0).to(dtype)
    best = torch.zeros_like(highest)
    for k in range(1, scores.shape[-2]):
        score = scores.select(-2, k).to(dtype)
        better = _above_zero(score - highest)
        best = torch.addcmul(best, k - best, better)
        highest = torch.maximum(highest, score)
    return best
