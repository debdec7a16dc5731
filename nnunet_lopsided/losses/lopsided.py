"""The lopsided bootstrap loss of Yi et al. 2020 (eq. 3), of which class-weighted cross-entropy (eq. 1) is beta = 1.

Notation: logits z, p = softmax(z), CE(k) = logsumexp(z) - z_k, yhat = argmax_c z_c, a constant target.

    y = 0:  beta CE(0) + (1 - beta) CE(yhat)
    y > 0:  alpha CE(y)

With A the weight on the label and B the weight on yhat (0 on positives) this is

    L = (A + B) logsumexp(z) - A z_y - B max_c z_c,     dL/dz = (A + B) p - A onehot(y) - B onehot(yhat),

which is what is computed: one logsumexp, no second softmax. With two classes (or one sigmoid channel) only the
difference of the logits matters, and both are softplus of it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Reduction = Literal["mean", "weighted_mean", "sum", "none"]


def lopsided_bootstrap_loss(
    logits: Tensor,
    target: Tensor,
    alpha: float = 3.0,
    beta: float = 0.1,
    *,
    sigmoid: bool = False,
    valid: Tensor | None = None,
    reduction: Reduction = "mean",
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
            divides by the sum of the weights A + B instead; ``sum``; or ``none`` for the loss of every voxel, (B, ...)
            or (B, C, ...) with ``sigmoid``.

    Returns:
        A scalar, 0 with a graph attached if no voxel is valid; or the voxel-wise loss.

    Raises:
        ValueError: alpha, beta or reduction out of range, or shapes that do not fit.

    Source:
        Yi et al. 2020, "Brain Metastasis Segmentation Network Trained with Robustness to Annotations with Multiple
        False Negatives", eq. 3.

    Example:
        >>> logits = torch.tensor([[[-1.0], [1.5]]])  # one voxel the network calls lesion, labelled background
        >>> round(float(lopsided_bootstrap_loss(logits, torch.tensor([[0]]), alpha=3, beta=0.1)), 4)
        0.3289
    """
    _check_weights(alpha, beta, reduction)
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if sigmoid:
            if target.shape != logits.shape:
                raise ValueError(
                    f"target must have the shape of logits, {tuple(logits.shape)}, got {tuple(target.shape)}"
                )
            if valid is not None:
                valid = _without_channel(valid, logits, "valid").unsqueeze(1)
            positive = target > 0.5
            loss = _binary(logits, positive, alpha, beta)
        else:
            if logits.ndim < 2 or logits.shape[1] < 2:
                raise ValueError(f"logits must have at least 2 classes in dimension 1, got shape {tuple(logits.shape)}")
            target = _without_channel(target, logits, "target")
            if valid is not None:
                valid = _without_channel(valid, logits, "valid")
                target = target.masked_fill(~valid, 0)
            positive = target > 0
            if logits.shape[1] == 2:
                loss = _binary(logits[:, 1] - logits[:, 0], positive, alpha, beta)
            else:
                loss = _multi_class(logits, target.long(), positive, alpha, beta)
        return _reduce(loss, positive, valid, alpha, reduction)


class LopsidedBootstrapLoss(nn.Module):
    """Lopsided bootstrap loss on nnU-Net's targets: label maps with an ignore label, or regions with ignore last.

    ``alpha`` and ``beta`` may be changed between calls (warm-up).

    Args:
        alpha: weight of positive voxels, above 0.
        beta: weight of the label on negative voxels, 0 to 1.
        sigmoid: region-based training: target (B, R, ...) zeros and ones, and with ``ignore_label`` one further, last
            channel that is nonzero where voxels are to be ignored.
        ignore_label: the label value to ignore; None if the dataset has none.
        reduction: see :func:`lopsided_bootstrap_loss`.

    Deep supervision: nnU-Net's wrapper applies the loss at every resolution to nearest-resampled labels. A lesion too
    small for a coarse level is missing there, which is one more missed lesion to this loss: the bootstrap term does
    not punish the coarse head for finding it.

    Example:
        >>> loss = LopsidedBootstrapLoss(alpha=3, beta=0.1, ignore_label=2)
        >>> float(loss(torch.zeros(1, 2, 4, 4), torch.full((1, 1, 4, 4), 2)))
        0.0
    """

    def __init__(
        self,
        alpha: float = 3.0,
        beta: float = 0.1,
        *,
        sigmoid: bool = False,
        ignore_label: int | None = None,
        reduction: Literal["mean", "weighted_mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        _check_weights(alpha, beta, reduction)
        self.alpha = alpha
        self.beta = beta
        self.sigmoid = sigmoid
        self.ignore_label = ignore_label
        self.reduction: Reduction = reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of ``logits`` (B, C, ...) against nnU-Net's ``target``, a scalar."""
        valid = None
        if self.ignore_label is not None:
            if self.sigmoid:
                valid = target[:, -1:] < 0.5 if target.is_floating_point() else target[:, -1:] == 0
                target = target[:, :-1]
            else:
                valid = target != self.ignore_label
        if target.dtype == torch.bool:
            target = target.to(torch.uint8)
        return lopsided_bootstrap_loss(
            logits, target, self.alpha, self.beta, sigmoid=self.sigmoid, valid=valid, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:g}, beta={self.beta:g}, sigmoid={self.sigmoid}, ignore_label={self.ignore_label}"


def _binary(difference: Tensor, positive: Tensor, alpha: float, beta: float) -> Tensor:
    """Loss of binary problems with logit ``difference`` (lesion minus background)."""
    # CE(1) = softplus(-d) and CE(0) = softplus(d); where d > 0, CE(yhat) = CE(0) - d.
    on_lesion = -alpha * functional.logsigmoid(difference)
    on_background = -functional.logsigmoid(-difference) - (1 - beta) * functional.relu(difference)
    return torch.where(positive, on_lesion, on_background)


def _multi_class(logits: Tensor, target: Tensor, positive: Tensor, alpha: float, beta: float) -> Tensor:
    log_normaliser = torch.logsumexp(logits, dim=1)
    # max over a dimension sends its gradient to one index, amax would split it on ties.
    highest = logits.max(dim=1).values
    labelled = logits.gather(1, target.unsqueeze(1)).squeeze(1)
    on_lesion = alpha * (log_normaliser - labelled)
    on_background = log_normaliser - beta * labelled - (1 - beta) * highest
    return torch.where(positive, on_lesion, on_background)


def _reduce(loss: Tensor, positive: Tensor, valid: Tensor | None, alpha: float, reduction: Reduction) -> Tensor:
    if valid is not None:
        loss = torch.where(valid, loss, 0.0)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean" and valid is None:
        return loss.mean()
    weight = torch.ones_like(loss)
    if reduction == "weighted_mean":
        weight = weight.masked_fill(positive, alpha)
    if valid is not None:
        weight = torch.where(valid, weight, 0.0)
    total = weight.sum()
    return loss.sum() / torch.where(total > 0, total, 1.0)


def _without_channel(labels: Tensor, logits: Tensor, name: str) -> Tensor:
    """A label map or mask as (B, ...), from that or (B, 1, ...)."""
    if labels.ndim == logits.ndim and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            f"{name} must be (B, ...) or (B, 1, ...) for logits {tuple(logits.shape)}, got {tuple(labels.shape)}"
        )
    return labels


def _check_weights(alpha: float, beta: float, reduction: str) -> None:
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be within [0, 1], got {beta}")
    if reduction not in ("mean", "weighted_mean", "sum", "none"):
        raise ValueError(f"reduction must be mean, weighted_mean, sum or none, got {reduction}")
