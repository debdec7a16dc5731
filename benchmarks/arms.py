"""Compare trainers on common seeds in nnU-Net's own training, in one process without its commands' overhead.

    python benchmarks/arms.py prepare 800          # a raw, preprocessed dataset whose labels are whole
    python benchmarks/arms.py run 800 -c 2d_small --out arms.jsonl --trainers nnUNetTrainer25D_prior_10epochs_80iters
    python benchmarks/arms.py table arms.jsonl

``prepare`` divides the training cases into five folds that train on a fifth each (few cases: networks memorise which
lesions are missing) and makes variants that lack half of the lesions at random, by size and as readers miss them, by
the public commands. ``run`` trains fold k with seed k (seeds from 5 on meet the folds again: seed 7, fold 2), predicts
the dataset's test cases (imagesTs, labelsTs) and appends a line of JSON for each training; lines that are there are not
trained again. So arms meet on the same cases, the same missing lesions, the same patches, and intervals are over
trainings on different cases.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import time
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms_tables import t_interval
from detection import evaluate
from numpy.typing import NDArray

from nnunet_lopsided.images import Image, read_image
from nnunet_lopsided.mean_probability import mean_of
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.nnunet.raw import Case, raw_dataset
from nnunet_lopsided.trainers.base import LesionTrainer
from nnunet_lopsided.trainers.predicting import predicting

N_FOLDS = 5
# The last two are the oracle: what is missing is told to the network as ignore label.
MODES = {
    "random": ("stochastic",),
    "size": ("size",),
    "read": ("reader",),
    "random_ignored": ("stochastic", "--ignored"),
    "size_ignored": ("size", "--ignored"),
}
# Labels to which readings of candidates were added, by `readings.py`.
READ = tuple(f"{labels}_{way}" for way in ("sample", "highest") for labels in ("random", "size", "read"))
COLUMNS = {
    "ap_sqrt": "AP by sqrt",
    "ap_sum": "AP by sum",
    "ap_mean": "AP by mean",
    "sensitivity": "sensitivity",
    "fp_per_case": "FP per case",
    "sens_sqrt_at_4": "sensitivity at 4 FP",
    "sens_sqrt_at_4.5": "at 4.5 FP",
    "sens_small_at_4": "of the smaller half at 4 FP",
    "sens_large_at_4": "of the larger half at 4 FP",
    "p_hidden": "p on missing lesions trained on",
}


def variant(dataset: int, labels: str) -> int:
    """Ids of the variants follow that of the whole dataset by 11, 12, ...; of those with readings by 21, 22, ..."""
    if labels in READ:
        return dataset + 21 + READ.index(labels)
    return dataset if labels == "full" else dataset + 11 + list(MODES).index(labels)


def prepare(dataset: int, kinds: Sequence[str] = tuple(MODES)) -> None:
    from nnunet_lopsided.commands import censor, share

    splits = preprocessed_folder(dataset) / "splits_final.json"
    cases = [case.name for case in raw_dataset(dataset).training_cases()]
    n = len(cases) // N_FOLDS
    folds = [{"train": cases[n * k : n * k + n], "val": [cases[(n * k + n) % len(cases)]]} for k in range(N_FOLDS)]
    splits.write_text(json.dumps(folds, indent=1))
    for labels in kinds:
        ids = ["-d", str(dataset), "-o", str(variant(dataset, labels)), "--overwrite"]
        for command, options in ((censor.main, ["--rate", "0.5", "--mode", *MODES[labels]]), (share.main, [])):
            if command([*ids, *options]) != 0:
                raise SystemExit(2)


class Prediction:
    """Probabilities of lesion by nnU-Net's predictor without mirroring, on the grid of the image.

    Attributes:
        magnify: the mean of the image as it is and magnified so many times.
    """

    def __init__(self, trainer: LesionTrainer, magnify: Sequence[float] = ()) -> None:
        self.trainer, self.magnify = trainer, magnify

    def __call__(self, case: Case) -> NDArray[Any]:
        return mean_of(self._magnified(case, factor) for factor in (1.0, *self.magnify))

    def _magnified(self, case: Case, factor: float) -> NDArray[Any]:
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        trainer = self.trainer
        data, properties = preprocessed(tuple(map(str, case.images)), factor, trainer)
        with predicting(trainer) as predictor:
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(data)).float().cpu()
        _, probability = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, trainer.plans_manager, trainer.configuration_manager, trainer.label_manager, properties, True
        )
        return np.asarray(probability[1:]).sum(0)


_KNOWN: dict[tuple[tuple[str, ...], float], Any] = {}


def preprocessed(files: tuple[str, ...], factor: float, trainer: Any) -> Any:
    if (files, factor) not in _KNOWN:
        preprocessor = trainer.configuration_manager.preprocessor_class(verbose=False)
        image, properties = trainer.plans_manager.image_reader_writer_class().read_images(list(files))
        properties["spacing"] = [factor * size for size in properties["spacing"]]
        data, _, properties = preprocessor.run_case_npy(
            image, None, properties, trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json
        )
        _KNOWN[files, factor] = np.asarray(data, np.float32), properties
    return _KNOWN[files, factor]


@cache
def cases_of(dataset: int, split: str) -> dict[str, Case]:
    """The labelled cases of ``Tr`` or ``Ts`` by name."""
    raw = raw_dataset(dataset)
    cases = raw.training_cases() if split == "Tr" else raw.test_cases()
    return {case.name: case for case in cases if case.label is not None}


def label_of(case: Case) -> Image:
    assert case.label is not None, f"{case.name} has no label"
    return read_image(case.label)


def label_array(case: Case) -> NDArray[Any]:
    return np.squeeze(label_of(case).array)


def run(
    dataset: int,
    *,
    labels: str,
    name: str,
    seed: int,
    configuration: str,
    on: str,
    magnify: Sequence[float] = (),
    device: str = "cpu",
    on_all_cases: bool = False,
) -> list[dict[str, Any]]:
    """Of one training: predictions as they are, and magnified where that is asked for."""
    from nnunetv2.run.run_training import get_trainer_from_args

    begin = time.process_time()
    fold = "all" if on_all_cases else seed % N_FOLDS
    trainer = get_trainer_from_args(
        str(variant(dataset, labels)), configuration, fold, f"{name}_seed{seed}", device=torch.device(device)
    )
    trainer.disable_checkpointing = True
    trainer.run_training()
    predict = Prediction(trainer)
    trained_on, _ = trainer.do_split()
    test = [case for name, case in cases_of(dataset, on).items() if name not in trained_on]
    spacing = label_of(test[0]).geometry.spacing_mm
    lesions = [label_array(case) > 0 for case in test]
    rows = []
    for factors in ((), magnify) if magnify else ((),):
        start, predict_test = time.process_time(), Prediction(trainer, factors)
        probability = [np.squeeze(predict_test(case)) for case in test]
        rows.append(evaluate(probability, lesions, spacing[-probability[0].ndim :]))
        if magnify:
            rows[-1] |= {"magnify": list(factors), "prediction_seconds": round(time.process_time() - start, 1)}
    numbers = rows[0]
    seen = on_training_cases(predict, trained_on, dataset, labels)
    numbers["p_hidden"] = float(seen["hidden"].mean()) if len(seen["hidden"]) else None
    numbers["p_labelled"] = float(seen["labelled"].mean())
    numbers["cpu_seconds"] = round(time.process_time() - begin, 1)
    return rows


def on_training_cases(
    predict: Prediction, trained_on: Sequence[str], dataset: int, labels: str
) -> dict[str, NDArray[Any]]:
    """p of the voxels of lesions that the labels lack, of those that they hold, and of all others."""
    p: dict[str, list[NDArray[Any]]] = {"hidden": [], "labelled": [], "other": []}
    variant_cases = cases_of(variant(dataset, labels), "Tr")
    for name, case in cases_of(dataset, "Tr").items():
        if name in trained_on:
            here, whole = np.squeeze(predict(case)), label_array(case) > 0
            left = label_array(variant_cases[name]) == 1
            p["hidden"].append(here[whole & ~left])
            p["labelled"].append(here[left])
            p["other"].append(here[~whole])
    return {what: np.concatenate(values) for what, values in p.items()}


def table(path: Path) -> None:
    """As Markdown: means over seeds, shares of the first trainer on full labels, differences on the same seeds."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for r in rows:
        r["trainer"] += " magnified" * bool(r.get("magnify"))
    by = {(r["labels"], r["trainer"], r["seed"]): r for r in rows}
    first = rows[0]["trainer"]
    heads = ("labels", "trainer", "n", *COLUMNS.values(), "share of full labels", f"AP minus {short(first)}")
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for labels, trainer in product(dict.fromkeys(r["labels"] for r in rows), dict.fromkeys(r["trainer"] for r in rows)):
        mine = [by[key] for key in sorted(by) if key[:2] == (labels, trainer)]
        if not mine:
            continue
        cells = [labels, short(trainer), str(len(mine))]
        for column in COLUMNS:
            values = [r[column] for r in mine if r.get(column) is not None]
            cells.append(f"{np.mean(values):.{1 if column == 'fp_per_case' else 3}f}" if values else "")
        whole = [
            (r["ap_sqrt"], by["full", first, r["seed"]]["ap_sqrt"]) for r in mine if ("full", first, r["seed"]) in by
        ]
        cells.append(f"{np.mean([x for x, _ in whole]) / np.mean([y for _, y in whole]):.1%}" if whole else "")
        pairs = [
            r["ap_sqrt"] - by[labels, first, r["seed"]]["ap_sqrt"] for r in mine if (labels, first, r["seed"]) in by
        ]
        cells.append(interval(pairs) if trainer != first and len(pairs) > 1 else "")
        print("| " + " | ".join(cells) + " |")


def short(trainer: str) -> str:
    """Without the budget, which all arms share."""
    return re.sub(r"nnUNetTrainer|_\d+epochs|_\d+iters", "", trainer)


def interval(differences: list[float]) -> str:
    """Mean and 95% t-interval over seeds."""
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(*t_interval(differences))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("prepare").add_argument("dataset", type=int)
    training = parts.add_parser("run")
    training.add_argument("dataset", type=int)
    training.add_argument("-c", default="2d_small")
    training.add_argument("--trainers", nargs="+", required=True, help="names without a seed, with their budget")
    training.add_argument("--labels", nargs="+", default=["full", *MODES], choices=["full", *MODES, *READ])
    training.add_argument("--seeds", nargs="+", type=int, default=list(range(N_FOLDS)), help="seed k: fold k modulo 5")
    training.add_argument("--all", action="store_true", help="train on all cases, not on the fold of the seed")
    training.add_argument(
        "--on", choices=("Ts", "Tr"), default="Ts", help="Tr: training cases of the other folds, to choose on"
    )
    training.add_argument(
        "--magnify", type=float, nargs="*", default=(), help="predict the test cases a second time, magnified, too"
    )
    training.add_argument("--out", type=Path, required=True)
    parts.add_parser("table").add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "prepare":
        return prepare(arguments.dataset)
    if arguments.part == "table":
        return table(arguments.file)
    if arguments.all and arguments.on == "Tr":
        parser.error("--all leaves no training case to test; expected --on Ts with it, found --on Tr")
    torch.set_num_threads(1)
    # Lines that say nothing of these are of before they were written.
    how = {"configuration": arguments.c, "on": arguments.on, "all": arguments.all}
    for seed, labels, name in product(arguments.seeds, arguments.labels, arguments.trainers):
        key = {"dataset": arguments.dataset, "labels": labels, "trainer": name, "seed": seed}
        lines_there = arguments.out.read_text().splitlines() if arguments.out.exists() else []
        if any({**key, **how}.items() <= {**how, **json.loads(line)}.items() for line in lines_there):
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            rows = run(
                arguments.dataset,
                labels=labels,
                name=name,
                seed=seed,
                configuration=arguments.c,
                on=arguments.on,
                magnify=arguments.magnify,
                on_all_cases=arguments.all,
            )
        lines = "".join(json.dumps({**key, **how, **row}) + "\n" for row in rows)
        with arguments.out.open("a") as file:
            file.write(lines)
        print(lines, end="", flush=True)


if __name__ == "__main__":
    main()
