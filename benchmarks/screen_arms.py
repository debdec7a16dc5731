"""The arms that `screen.py` compares: ways to train on labels that lack lesions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.losses.dice import DiceTerm


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to train.

    Attributes:
        dice: the Dice term.
        alpha: weight of lesions in cross-entropy.
        beta: as a function of the share of the training that is done.
        judge: (logits, network's average or None) -> logits whose verdict counts; None: the network's own.
        ema: decay of the average network.
        soft: the verdict is the probability.
        per_lesion: cross-entropy is divided by the lesion voxels of the batch, so that Dice does not drown it.
        gamma: how fast trust in a negative fades where lesion is seen; it grows over the first tenth.
        ignored: hidden lesions are ignored: the oracle.
        finder: trained twice: candidates of leave-one-out networks, trained as this arm is, become soft targets.
        paste: annotated lesions are pasted into the training slices, see :mod:`screen_paste`.
        crossfit: share of the training from which networks of half of the cases judge the other half's.
        crossfit_as: their p is a "belief" (soft target), or the "judge" of trust.
        target: what a candidate that touches no label gets as soft target, see :func:`believed`; a number or a rule.
    """

    dice: DiceTerm = "full"
    alpha: float = 1.0
    beta: Callable[[float], float] = lambda done: 1.0
    judge: Callable[[Tensor, Tensor | None], Tensor] | None = None
    ema: float | None = None
    soft: bool = False
    per_lesion: bool = False
    gamma: float = 0.0
    ignored: bool = False
    finder: str | None = None
    target: float | str = "q"
    paste: bool = False
    crossfit: float | None = None
    crossfit_as: Literal["belief", "judge"] = "belief"


def falls(to: float, start: float = 0.0, over: float = 0.1) -> Callable[[float], float]:
    """Beta 1 until ``start``, then falling to ``to`` over a share of the training."""
    return lambda done: 1 - (1 - to) * min(1.0, max(0.0, (done - start) / over))


def smoothed(kernel: int) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The mean probability around a voxel decides, so that specks are never believed."""

    def judge(logits: Tensor, _: Tensor | None) -> Tensor:
        p = torch.softmax(logits.detach(), 1)[:, 1:]
        p = functional.avg_pool2d(p, kernel, 1, kernel // 2, count_include_pad=False).clamp(1e-6, 1 - 1e-6)
        return torch.cat([torch.zeros_like(p), torch.logit(p)], 1)

    return judge


def above(threshold: float, base: Callable[[Tensor, Tensor | None], Tensor] | None = None, which: str = "own") -> Any:
    """A voxel is called when p is above a threshold other than one half."""
    shift = math.log(threshold / (1 - threshold))

    def judge(logits: Tensor, average: Tensor | None) -> Tensor:
        source = logits if which == "own" else average
        assert source is not None
        source = source.detach() if base is None else base(source, average)
        return torch.cat([source[:, :1] + shift, source[:, 1:]], 1)

    return judge


def unexplained(p: Tensor, target: Tensor) -> Tensor:
    """p (B, 1, y, x) of the candidates of every slice that touch no label, 0 elsewhere."""
    beliefs = torch.zeros_like(p)
    for believed, of_slice, label in zip(beliefs[:, 0], p[:, 0], target[:, 0], strict=True):
        candidates = torch.from_numpy(find_lesions(of_slice.numpy() >= 0.1, (1, 1)).instances())
        free = (candidates > 0) & ~torch.isin(candidates, candidates[label == 1])
        believed[free] = of_slice[free]
    return beliefs


def surer(logits: Tensor, average: Tensor | None) -> Tensor:
    """The network or its average, whichever is surer of a lesion."""
    assert average is not None
    own = logits.detach()
    return torch.where(average[:, 1:] - average[:, :1] > own[:, 1:] - own[:, :1], average, own)


ARMS: dict[str, Arm] = {
    "dice_ce": Arm(),
    "oracle": Arm(ignored=True),
    "recipe_old": Arm(beta=falls(0.5)),
    "masked": Arm(dice="masked", beta=falls(0.1)),
    "mixed": Arm(dice="mixed", beta=falls(0.1)),
    "mixed_b3": Arm(dice="mixed", beta=falls(0.3)),
    "mixed_b5": Arm(dice="mixed", beta=falls(0.5)),
    "mixed_late": Arm(dice="mixed", beta=falls(0.1, 0.3)),
    "mixed_ema": Arm(dice="mixed", beta=falls(0.1), ema=0.99, judge=lambda logits, average: average),
    "mixed_p9": Arm(dice="mixed", beta=falls(0.1), judge=above(0.9)),
    "mixed_p3": Arm(dice="mixed", beta=falls(0.1), judge=above(0.3)),
    "mixed_soft": Arm(dice="mixed", beta=falls(0.1), soft=True),
    "mixed_smooth3": Arm(dice="mixed", beta=falls(0.1), judge=smoothed(3)),
    "mixed_smooth5": Arm(dice="mixed", beta=falls(0.1), judge=smoothed(5)),
    "mixed_smooth3_p3": Arm(dice="mixed", beta=falls(0.1), judge=above(0.3, smoothed(3))),
    "per_lesion": Arm(per_lesion=True, beta=falls(0.1)),
    "per_lesion_mixed": Arm(per_lesion=True, dice="mixed", beta=falls(0.1)),
    "per_lesion_paste": Arm(per_lesion=True, gamma=2.0, paste=True),
    "per_lesion_mixed_paste": Arm(per_lesion=True, dice="mixed", beta=falls(0.1), paste=True),
    "gamma1": Arm(gamma=1.0),
    "gamma2": Arm(gamma=2.0),
    "gamma4": Arm(gamma=4.0),
    "paste": Arm(gamma=2.0, paste=True),
    "crossfit": Arm(gamma=2.0, crossfit=0.3),
    "crossfit_trust": Arm(gamma=2.0, crossfit=0.3, crossfit_as="judge"),
    "gamma2_ema": Arm(gamma=2.0, ema=0.99, judge=lambda logits, average: average),
    # A long memory: what the network said hundreds of steps ago, before it knew by heart what is labelled.
    "gamma2_ema998": Arm(gamma=2.0, ema=0.998, judge=lambda logits, average: average),
    "gamma2_max998": Arm(gamma=2.0, ema=0.998, judge=surer),
    "gamma4_max998": Arm(gamma=4.0, ema=0.998, judge=surer),
    # The finder trains with ..., the second network with ...
    "q_plain": Arm(finder="gamma2"),
    "q_gamma2": Arm(gamma=2.0, finder="gamma2"),
    "t4_plain": Arm(finder="gamma2", target=0.4),
    "t4_gamma2": Arm(gamma=2.0, finder="gamma2", target=0.4),
    "p_plain": Arm(finder="gamma2", target="p"),
    "p_gamma2": Arm(gamma=2.0, finder="gamma2", target="p"),
    "true_plain": Arm(finder="gamma2", target="truth"),
    "eq3": Arm(dice="none", alpha=3.0, beta=falls(0.1)),
}
