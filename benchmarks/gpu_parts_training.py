"""Parts of benchmarks/gpu.py: a dataset, and seconds per epoch of our trainers beside nnU-Net's own."""

from __future__ import annotations

import json
import os
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

from gpu_running import Part, Report, Settings, aimed, rounded

DATASET = 900
ITERATIONS_PER_EPOCH = 250  # nnU-Net's
STOCK = "nnUNetTrainer"
STOCK_25D = "nnUNetTrainer25D"  # nnU-Net's own refuses 2.5d: this is its loss
RECIPE = "nnUNetTrainerLopsided_nolookback_from0"  # a loss that computes its doubt is dearer than one that reads it
COMPILED = " with a compiled loss"
ROOM_FOR_ALL = 64 * 2**30  # bytes of a GPU that holds all trainers, planned for 8 GiB each
# What is compared, and at most how many times the stock trainer's time it may take.
OURS = {
    RECIPE: 1.02,
    RECIPE + COMPILED: 1.02,
    "nnUNetTrainerLopsided_from0_ema0p99": 1.05,
    "nnUNetTrainerInverseWeightingDice": 1.05,
    "nnUNetTrainerRegionSpecific": 1.05,
}


def data(settings: Settings, report: Report) -> None:
    """A procedural dataset through nnU-Net's fingerprint, planning and preprocessing, and the 2.5d configuration."""
    from nnunet_lopsided.planning.configuration_25d import add_configuration
    from nnunet_lopsided.planning.rules_25d import Overrides

    tiny = settings.rehearsal
    start = time.monotonic()
    path = make_dataset(
        settings,
        DATASET,
        n_train=5 if tiny else 10,
        n_test=1,
        shape=(12, 32, 32) if tiny else (48, 192, 192),
        spacing_mm=(5, 4, 4) if tiny else (3, 1, 1),
        configurations=("2d", "3d_fullres"),
    )
    overrides = Overrides(encoder="resnet18", output_stride=16, batch_size=2) if tiny else Overrides()
    add_configuration(DATASET, overrides=overrides)
    report("seconds: drawing, fingerprint, plans, preprocessing", rounded(time.monotonic() - start))
    for name, content in json.loads(path.read_text())["configurations"].items():
        if "patch_size" in content:
            report(f"{name}: patch and batch", [*content["patch_size"], content["batch_size"]])


def make_dataset(
    settings: Settings,
    number: int,
    *,
    n_train: int,
    n_test: int,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    configurations: tuple[str, ...],
) -> Path:
    """A procedural dataset, planned and preprocessed; in a rehearsal with small networks. Returns the plans file."""
    import multiprocessing
    from multiprocessing.pool import ThreadPool
    from types import SimpleNamespace

    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

    from nnunet_lopsided.dataset_conversion.phantom import write_phantom_dataset
    from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder

    n_workers = 1 if settings.rehearsal else min(8, settings.n_cpus)
    write_phantom_dataset(
        number, n_train=n_train, n_test=n_test, shape=shape, spacing_mm=spacing_mm, seed=3, n_workers=n_workers
    )
    os.environ["nnUNet_n_proc_DA"] = "2"  # planning crashes at 0
    own = multiprocessing.get_context
    # Threads instead of spawned processes, each of which would import PyTorch again.
    multiprocessing.get_context = lambda method=None: SimpleNamespace(Pool=ThreadPool)  # type: ignore
    try:
        extractor = nnunet.DatasetFingerprintExtractor(number, num_processes=n_workers)
        extractor.num_foreground_voxels_for_intensitystats = 10_000  # the default, 1e8, would take most of the time
        extractor.run()
        nnunet.plan_experiment_dataset(number)
        nnunet.preprocess_dataset(number, configurations=configurations, num_processes=(n_workers,))
    finally:
        multiprocessing.get_context = own
    path = preprocessed_folder(number) / "nnUNetPlans.json"
    if settings.rehearsal:
        _with_few_features(path)
    return path


def _with_few_features(path: Path) -> None:
    plans = json.loads(path.read_text())
    for configuration in plans["configurations"].values():
        configuration["batch_size"] = 2
        network = configuration.get("architecture", {}).get("arch_kwargs", {})
        if "features_per_stage" in network:
            network["features_per_stage"] = [4 * 2**i for i in range(network["n_stages"])]
    path.write_text(json.dumps(plans))


def training(configuration: str, settings: Settings, report: Report) -> None:
    """Seconds per epoch of 250 iterations without the data loader, trainers in turns, and then with it."""
    import torch

    stock = STOCK_25D if configuration == "2.5d" else STOCK
    groups = [[stock, *OURS]]
    if settings.device == "cuda" and torch.cuda.get_device_properties(0).total_memory < ROOM_FOR_ALL:
        groups = [[stock, name] for name in OURS]
    for group in groups:
        _compare(group, configuration, settings, report)


def _compare(names: list[str], configuration: str, settings: Settings, report: Report) -> None:
    """The first of these is what the others are compared with."""
    import torch

    n_blocks, n_steps, n_warm = (1, 1, 1) if settings.rehearsal else (5, 8, 5)
    os.environ["nnUNet_n_proc_DA"] = "0"
    trainers, batches = {}, {}
    for name in names:
        start = time.monotonic()
        os.environ["LOPSIDED_COMPILE_LOSS"] = "1" if name.endswith(COMPILED) else "0"
        trainer = started(name.removesuffix(COMPILED), configuration, torch.device(settings.device))
        trainers[name] = trainer
        # The same batches again and again: their making is not in these numbers.
        batches[name] = [next(trainer.dataloader_train) for _ in range(2)]
        for step in range(n_warm):
            trainer.train_step(batches[name][step % 2])
        wait(settings.device)
        report(f"{name}: seconds to build, compile and warm up", rounded(time.monotonic() - start))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(n_blocks):
        for name, trainer in trainers.items():
            start = time.perf_counter()
            for step in range(n_steps):
                trainer.train_step(batches[name][step % 2])
            wait(settings.device)
            seconds[name].append((time.perf_counter() - start) / n_steps)
    told(report, "without the loader", seconds)
    if settings.device == "cuda":
        report("peak GiB of these trainers together", rounded(torch.cuda.max_memory_allocated() / 2**30))
    os.environ["nnUNet_n_proc_DA"] = "0" if settings.rehearsal else str(max(2, min(12, settings.n_cpus - 2)))
    for name, trainer in trainers.items():
        loader, validation_loader = trainer.get_dataloaders()
        times = []
        for step in range(n_warm + 3 * n_steps):
            start = time.perf_counter()
            trainer.train_step(next(loader))
            wait(settings.device)
            if step >= n_warm:
                times.append(time.perf_counter() - start)
        seconds[name] = [statistics.mean(times)]
        for used in (loader, validation_loader):
            if hasattr(used, "_finish"):
                used._finish()
    told(report, "with the loader", seconds)


def started(name: str, configuration: str, device: Any) -> Any:
    """A trainer as nnUNetv2_train has it when the first epoch begins."""
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer: Any = get_trainer_from_args(str(DATASET), configuration, 0, name, device=device)
    trainer.disable_checkpointing = True
    trainer.plot_network_architecture = lambda: None
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def wait(device: str) -> None:
    """Until the GPU has done what it was told."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def told(report: Report, how: str, seconds: dict[str, list[float]]) -> None:
    """Seconds per epoch, and over the first trainer's; the median over blocks is steadier than one long time."""
    median = {name: statistics.median(times) for name, times in seconds.items()}
    stock = next(iter(median))
    for name, value in median.items():
        report(f"{name}, {how}: seconds per epoch", rounded(ITERATIONS_PER_EPOCH * value))
        if name != stock:
            report(f"{name}, {how}: over {stock}", aimed(value / median[stock], at_most=OURS[name]))


training_2d = partial(training, "2d")
training_3d = partial(training, "3d_fullres")
training_25d = partial(training, "2.5d")

DATA_AND_TRAINING = (
    Part(
        name="data",
        measures="a procedural dataset, planned and preprocessed by nnU-Net",
        work=data,
        estimate_s=40,
        limit_s=100,
    ),
    Part(
        name="train-3d",
        measures="seconds per epoch in 3d_fullres beside nnU-Net's own trainer",
        work=training_3d,
        estimate_s=90,
        limit_s=150,
        needs=("data",),
    ),
)
FURTHER_TRAINING = (
    Part(
        name="train-2d",
        measures="seconds per epoch in 2d beside nnU-Net's own trainer",
        work=training_2d,
        estimate_s=75,
        limit_s=120,
        needs=("data",),
    ),
    Part(
        name="train-2.5d",
        measures="seconds per epoch in 2.5d beside nnU-Net's own loss",
        work=training_25d,
        estimate_s=75,
        limit_s=120,
        needs=("data",),
    ),
)
