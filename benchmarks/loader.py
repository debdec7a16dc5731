"""What our trainers cost the data loader, per sample, against nnU-Net's own pipeline in one run.

    python benchmarks/loader.py DATASET [CONFIGURATION] [BATCHES]

The dataset must be preprocessed. Every pipeline loads and augments the same samples with the same random numbers, in
this process, without workers; times are CPU seconds. In 2.5d the first pipeline is nnU-Net's dummy-2D augmentation of
the same stacks, which augments the targets of all slices and blurs across slices; the second is ours.
"""

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

STOCK, WEIGHTED = "nnUNetTrainer25D", "nnUNetTrainerInverseWeightingDice"


def loader_of(dataset: str, configuration: str, name: str, stock_augmentation: bool = False) -> tuple[Any, int]:
    """A loader of training batches and the samples in one."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    trainer = get_trainer_from_args(dataset, configuration, 0, name, device=torch.device("cpu"))
    if stock_augmentation:
        trainer.get_training_transforms = nnUNetTrainer.get_training_transforms
    trainer.initialize()
    return trainer.get_dataloaders()[0], trainer.batch_size


def main() -> None:
    """Print the times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="id or name")
    parser.add_argument("configuration", nargs="?", default="3d_fullres")
    parser.add_argument("batches", nargs="?", type=int, default=30)
    arguments = parser.parse_args()
    dataset, configuration = arguments.dataset, arguments.configuration
    os.environ["nnUNet_n_proc_DA"] = "0"
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results
        import numpy as np
        import torch

        torch.set_num_threads(1)
        loaders = {"nnU-Net's augmentation": loader_of(dataset, configuration, STOCK, stock_augmentation=True)}
        if configuration == "2.5d":
            loaders["2.5d"] = loader_of(dataset, configuration, STOCK)
        loaders["inverse weighting"] = loader_of(dataset, configuration, WEIGHTED)
        seconds: dict[str, list[float]] = {name: [] for name in loaders}
        for batch in range(arguments.batches):
            for name, (loader, batch_size) in loaders.items():
                np.random.seed(batch)  # noqa: NPY002 - what nnU-Net draws from
                torch.manual_seed(batch)
                start = time.process_time()
                next(loader)
                seconds[name].append((time.process_time() - start) / batch_size)
    first = next(iter(loaders))
    for name, times in seconds.items():
        # The same sample costs both much or little: the median of their differences is steadier than that of each.
        extra = statistics.median(b - a for a, b in zip(seconds[first], times, strict=True))
        print(
            f"{name:24} mean {statistics.mean(times):.4f} s per sample, {1 / statistics.mean(times):.1f} samples/s per "
            f"worker, typically {100 * extra / statistics.mean(seconds[first]):+.1f}% of {first}"
        )


if __name__ == "__main__":
    main()
