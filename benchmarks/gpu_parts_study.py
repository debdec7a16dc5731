"""Part of benchmarks/gpu.py: a small study, several trainings at once on one card, with what is left of the time."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from typing import Any

from gpu_parts_training import make_dataset
from gpu_running import Number, Part, Report, Settings, rounded

DATASET = 800
LABELS = ("full", "random", "size")
KEPT = ("lesions", "ap_sqrt", "sensitivity", "fp_per_case", "sens_sqrt_at_4", "p_hidden", "p_labelled")
TRAINERS = ("nnUNetTrainer25D", "nnUNetTrainerLopsided")


def study(settings: Settings, report: Report) -> None:
    """Recipe and stock loss on whole labels and on labels that lack half of the lesions, at random and by size.

    One training of each; what it says of the losses is little, what it says of this machine is how many it trains at
    once.
    """
    begin = time.monotonic()
    tiny = settings.rehearsal
    n_train, n_test, shape = (5, 1, (8, 32, 32)) if tiny else (40, 20, (16, 64, 64))
    make_dataset(
        settings,
        DATASET,
        n_train=n_train,
        n_test=n_test,
        shape=shape,
        spacing_mm=(3, 2, 2),
        configurations=("2d",),
    )
    from arms import prepare

    labels = LABELS[:2] if tiny else LABELS
    prepare(DATASET, [kind for kind in labels if kind != "full"])
    report("preparing seconds", rounded(time.monotonic() - begin))
    left = settings.seconds - (time.monotonic() - begin)
    n_iterations = 1 if tiny else 80 if left < 200 else 250
    budget = "_1epochs_1iters" if tiny else f"_10epochs_{n_iterations}iters"
    jobs = list(product(labels, [trainer + budget for trainer in TRAINERS]))
    n_at_once = min(len(jobs), settings.n_cpus if tiny else 6)
    report("trainings", len(jobs))
    report("at once", n_at_once)
    report("budget", budget.strip("_"))
    os.environ["nnUNet_n_proc_DA"] = "0" if tiny else "2"
    os.environ["nnUNet_compile"] = "f"  # six processes that compile at once would take most of the time
    start = time.monotonic()
    # Forked before anything here has touched the GPU.
    context = multiprocessing.get_context("fork")
    failed = 0
    with ProcessPoolExecutor(n_at_once, mp_context=context) as pool:
        futures = {pool.submit(_train, kind, name, settings.device): (kind, name) for kind, name in jobs}
        for future in as_completed(futures):
            error = future.exception()  # of any kind: the other trainings go on
            failed += error is not None
            message = f"{type(error).__name__}: {error}"[:300]
            report(", ".join(futures[future]), future.result() if error is None else message)
    report("seconds of all trainings", rounded(time.monotonic() - start))
    if failed:
        raise RuntimeError(f"{failed} of {len(jobs)} trainings failed")


def _train(labels: str, name: str, device: str) -> dict[str, Number]:
    import torch
    from arms import run

    torch.set_num_threads(1)
    start = time.monotonic()
    (row,) = run(DATASET, labels=labels, name=name, seed=0, configuration="2d", on="Ts", device=device)
    numbers: dict[str, Number] = {key: _plain(row.get(key)) for key in KEPT}
    return {**numbers, "seconds": rounded(time.monotonic() - start)}


def _plain(value: Any) -> Number:
    """For JSON: no numbers of numpy, and none that are not finite."""
    if isinstance(value, (bool, str, int)) or value is None:
        return value
    number = float(value)
    return rounded(number) if abs(number) < float("inf") else None


STUDY = (
    Part(
        name="study",
        measures="recipe and stock loss on whole and on censored labels, trained at the same time",
        work=study,
        estimate_s=90,
        limit_s=600,
    ),
)
