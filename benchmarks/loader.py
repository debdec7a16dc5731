"""What carrying lesion ids and making inverse-volume weights costs the data loader, per sample, in one run.

    python benchmarks/loader.py DATASET [CONFIGURATION]

The dataset must be preprocessed. Loads and augments in this process, without workers, in turn with nnU-Net's own
pipeline, and prints median seconds per sample.
"""

import os
import statistics
import sys
import tempfile
import time

_N_BATCHES = 30


def main() -> None:
    """Print the two times and their ratio."""
    dataset, configuration = sys.argv[1], (sys.argv[2:] or ["3d_fullres"])[0]
    os.environ["nnUNet_n_proc_DA"] = "0"
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results
        import torch
        from nnunetv2.run.run_training import get_trainer_from_args

        torch.set_num_threads(1)
        loaders = {}
        for name in ("nnUNetTrainer25D", "nnUNetTrainerInverseWeightingDice"):
            trainer = get_trainer_from_args(dataset, configuration, 0, name, device=torch.device("cpu"))
            trainer.initialize()
            loaders[name] = (trainer.get_dataloaders()[0], trainer.batch_size)
        seconds: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(_N_BATCHES):
            for name, (loader, batch_size) in loaders.items():
                start = time.perf_counter()
                next(loader)
                seconds[name].append((time.perf_counter() - start) / batch_size)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    means = {name: statistics.mean(times) for name, times in seconds.items()}
    for name in medians:
        print(f"{name:36} median {medians[name]:.4f} s, mean {means[name]:.4f} s per sample")
    stock, ours = medians.values()
    print(f"ratio of medians {ours / stock:.3f}, of means {means[name] / means['nnUNetTrainer25D']:.3f}")


if __name__ == "__main__":
    main()
