"""Sums over the ranks of a DDP run, right under DDP's averaging of gradients."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.autograd.function import FunctionCtx

from nnunet_lopsided.compilation import never_compiled


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        # A copy, as all_reduce writes into its argument.
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> Tensor:
        # Every rank computes the same loss from the sum: rank r's share is d(sum of all ranks' losses)/d(values of r),
        # which DDP then divides by the number of ranks.
        grad_output = grad_output.clone()
        distributed.all_reduce(grad_output)
        return grad_output


@never_compiled
def sum_over_ranks(values: Tensor) -> Tensor:
    """``values`` summed over all ranks; unchanged outside torch.distributed or with one rank.

    A loss made of such sums has the same value on every rank, and its gradients averaged by DDP are those of one
    process that sees the whole batch. Every rank must call it, in the same order.

    Example:
        >>> sum_over_ranks(torch.tensor([1.0, 2.0])).tolist()  # no process group here
        [1.0, 2.0]
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return values
    summed: Tensor = _SumOverRanks.apply(values)
    return summed


def ratio_of_sums(numerator: Tensor, denominator: Tensor | float, ddp: bool) -> Tensor:
    """numerator / denominator, both summed over the ranks if ``ddp``; 0 with a graph where the denominator is 0."""
    total = torch.as_tensor(denominator, dtype=numerator.dtype, device=numerator.device)
    if ddp:
        # Both in one call: ranks wait for each other once.
        numerator, total = sum_over_ranks(torch.stack([numerator, total])).unbind()
    return numerator / torch.where(total > 0, total, 1.0)
