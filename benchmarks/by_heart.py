"""When does a training learn by heart which lesions are labelled? p after every epoch, on trained and on unseen cases.

    python benchmarks/by_heart.py 900 --labels random --seed 1 --out by-heart.jsonl \
        --trainer nnUNetTrainerLopsided_g0_paste_20epochs_40iters
    ... --all --trainer nnUNetTrainerLopsided_g0_paste_40epochs_80iters     # 40 cases in place of 8
    ... -c 3d_fullres_small                                                  # in 3D

The phantom and its variants are those of `arms.py`. A line of JSON for every epoch: mean p on the lesions that the
labels of the training cases lack, on those that they hold, and on the lesions of test cases; and of what the network
calls at 0.9 in the training cases, the voxels that no label explains for each that one does.
"""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import N_FOLDS, Prediction, cases_of, label_array, on_training_cases, variant

N_TEST = 16


def measured(trainer: Any, dataset: int, labels: str) -> dict[str, float]:
    predict = Prediction(trainer)
    trained_on, _ = trainer.do_split()
    of = on_training_cases(predict, trained_on, dataset, labels)
    unseen = list(cases_of(dataset, "Ts").values())[:N_TEST]
    of["test"] = np.concatenate([np.squeeze(predict(case))[label_array(case) > 0] for case in unseen])
    called = {what: int((values >= 0.9).sum()) for what, values in of.items()}
    means = {what: float(of[what].mean()) for what in ("hidden", "labelled", "test") if len(of[what])}
    return {**means, "unexplained": (called["hidden"] + called["other"]) / max(1, called["labelled"])}


def main() -> None:
    from nnunetv2.run.run_training import get_trainer_from_args

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=int)
    parser.add_argument("-c", default="2d_small")
    parser.add_argument("--labels", default="random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="train on all five folds, not on that of the seed")
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    torch.set_num_threads(1)
    name = f"{a.trainer}_seed{a.seed}"
    trainer = get_trainer_from_args(
        str(variant(a.dataset, a.labels)), a.c, "all" if a.all else a.seed % N_FOLDS, name, device=torch.device("cpu")
    )
    trainer.disable_checkpointing = True
    end_of_epoch, passes_per_epoch = trainer.on_epoch_end, cache(trainer._passes_per_epoch)

    def on_epoch_end() -> None:
        end_of_epoch()
        done = trainer.current_epoch
        row = {"dataset": a.dataset, "configuration": a.c, "labels": a.labels, "seed": a.seed, "epochs": done,
               "cases": len(trainer.do_split()[0]), "of_epochs": trainer.num_epochs,
               "steps": done * trainer.num_iterations_per_epoch,
               "passes": round(done * passes_per_epoch(), 1)}  # fmt: skip
        with a.out.open("a") as file:
            file.write(json.dumps({**row, **measured(trainer, a.dataset, a.labels)}) + "\n")

    trainer.on_epoch_end = on_epoch_end
    trainer.run_training()


if __name__ == "__main__":
    main()
