"""Time and memory of the losses' forward and backward passes, against nnU-Net's Dice + CE and plain cross-entropy.

    python benchmarks/losses.py [--repeats 15] [--threads 1] [--cpu-time] [--device cuda] [--compile] [--shape B1x...]

All losses take turns in one run, so that a busy machine slows all of them; ratios are of the minima over the repeats,
and of the medians. Where other processes keep the cores busy, wall-clock times mean little: ``--cpu-time --threads 1``
counts this process's own seconds instead. Memory is what a pass allocates above the logits, the target and the
gradient it leaves: on a GPU the allocator's peak, on a CPU the peak of the profiler's allocations, in logits' sizes.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler's own messages

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from nnunet_lopsided.losses import (
    BootstrapLoss,
    InverseWeightedLoss,
    LopsidedBootstrapLoss,
    LopsidedDiceLoss,
    RegionSpecificLoss,
    inverse_size_weights,
)

SHAPES = ((2, 2, 96, 96, 96), (16, 2, 256, 256), (2, 4, 96, 96, 96))
PLAIN, NNUNET, RECIPE = "cross_entropy", "nnU-Net Dice + CE", "recipe (Dice + CE, gamma 2)"


def contenders(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, dict[str, Callable[[], Tensor]]]:
    """Logits, and losses of them; 1% lesions, labels as nnU-Net's loader brings them (cross_entropy's are ready)."""
    random = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(shape, generator=random)).to(device).requires_grad_()
    lesion = torch.rand((shape[0], 1, *shape[2:]), generator=random) < 0.01
    target = torch.where(lesion, torch.randint(1, shape[1], lesion.shape, generator=random), 0).to(device, torch.int16)
    ready = target[:, 0].long()
    teacher = logits.detach() + 1
    weight = torch.ones(target.shape, device=device)
    nnunet = DC_and_CE_loss(
        {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False},
        {},
        dice_class=MemoryEfficientSoftDiceLoss,
    )
    recipe = LopsidedDiceLoss(1, 1, gamma=2, batch_dice=True)  # nnUNetTrainerLopsided once its warm-up is over
    lopsided, bootstrap, soft = LopsidedBootstrapLoss(), BootstrapLoss(), LopsidedBootstrapLoss(soft=True)
    with_ignore, dice = LopsidedBootstrapLoss(ignore_label=shape[1]), LopsidedDiceLoss(batch_dice=True)
    regions = RegionSpecificLoss((16,) * (len(shape) - 2))
    weighted = {kind: InverseWeightedLoss(kind, batch_dice=True) for kind in ("ce", "focal", "dice", "asl")}
    return logits, {
        PLAIN: lambda: functional.cross_entropy(logits, ready),
        NNUNET: lambda: nnunet(logits, target),
        RECIPE: lambda: recipe(logits, target),
        "lopsided (eq. 3)": lambda: lopsided(logits, target),
        "  with an ignore label": lambda: with_ignore(logits, target),
        "  with weights": lambda: lopsided(logits, target, weight),
        "  with a teacher": lambda: lopsided(logits, target, None, teacher),
        "  soft": lambda: soft(logits, target),
        "bootstrap (eq. 2)": lambda: bootstrap(logits, target),
        "lopsided + masked Dice": lambda: dice(logits, target),
        "region-specific + CE": lambda: regions(logits, target),
        **{f"inverse weighting, {k}": partial(v, logits, target, weight) for k, v in weighted.items()},
    }


def compiled(losses: dict[str, Callable[[], Tensor]], backend: str = "inductor") -> dict[str, Callable[[], Tensor]]:
    """The recipe and nnU-Net's loss through torch.compile, for these shapes alone."""
    torch._dynamo.reset()  # a second shape would be compiled for any shape, which is slower
    return {f"{name}, compiled": torch.compile(losses[name], backend=backend) for name in (RECIPE, NNUNET)}


def shape_of(text: str) -> tuple[int, ...]:
    """The numbers of ``2x2x96x96x96``."""
    return tuple(int(size) for size in text.split("x"))


def one_pass(logits: Tensor, loss: Callable[[], Tensor]) -> None:
    logits.grad = None
    loss().backward()
    if logits.is_cuda:
        torch.cuda.synchronize()


def time_passes(
    logits: Tensor, losses: dict[str, Callable[[], Tensor]], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every repeat of every loss, which take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for repeat in range(repeats + 1):
        for name, loss in losses.items():
            start = clock()
            one_pass(logits, loss)
            if repeat:  # the first is a warm-up
                seconds[name].append(clock() - start)
    return seconds


def peak_memory(logits: Tensor, loss: Callable[[], Tensor]) -> float:
    """Peak bytes of one pass, without the gradient it leaves, in logits' sizes."""
    size = logits.numel() * logits.element_size()
    logits.grad = None
    if logits.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        one_pass(logits, loss)
        return (torch.cuda.max_memory_allocated() - before) / size - 1
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        one_pass(logits, loss)
    allocations = sorted(
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    return max(np.cumsum([n_bytes for _, n_bytes in allocations]), default=0) / size - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: its own choice)")
    parser.add_argument("--cpu-time", action="store_true", help="this process's CPU seconds, not wall-clock time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--compile", action="store_true", help="the recipe and nnU-Net's loss through torch.compile, too"
    )
    parser.add_argument("--shape", type=shape_of, nargs="+", default=SHAPES, help="of the logits, as 2x2x96x96x96")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    device = torch.device(arguments.device)
    print(f"{device}, {torch.get_num_threads()} threads, {'CPU' if arguments.cpu_time else 'wall-clock'} time")

    for shape in arguments.shape:
        logits, losses = contenders(shape, device)
        if arguments.compile:
            losses |= compiled(losses)
        seconds = time_passes(logits, losses, arguments.repeats, clock)
        low, middle = ({k: float(f(v)) for k, v in seconds.items()} for f in (np.min, np.median))
        print(f"\n{'x'.join(map(str, shape))}")
        columns = ("min ms", "median ms", "min/CE", "med/CE", "min/Dice+CE", "med/Dice+CE", "memory")
        print(f"{'':34s}" + "".join(f"{c:>12s}" for c in columns))
        for name, loss in losses.items():
            ratios = [t[name] / t[other] for other in (PLAIN, NNUNET) for t in (low, middle)]
            numbers = [f"{1e3 * low[name]:.1f}", f"{1e3 * middle[name]:.1f}", *[f"{r:.2f}" for r in ratios]]
            print(f"{name:34s}" + "".join(f"{n:>12s}" for n in [*numbers, f"{peak_memory(logits, loss):.2f}"]))

    ids = np.zeros((96, 96, 96), np.int16)
    for i, corner in enumerate(np.random.default_rng(0).integers(0, 90, (20, 3)), start=1):
        ids[tuple(slice(c, c + 1 + i % 6) for c in corner)] = i
    timed = []
    for _ in range(arguments.repeats):
        start = clock()
        inverse_size_weights(ids)
        timed.append(clock() - start)
    print(f"\ninverse_size_weights of 96x96x96 with 20 lesions: min {1e3 * min(timed):.2f} ms")


if __name__ == "__main__":
    main()
