"""Train on soft targets from networks that did not see the case, in nnU-Net's own training; beside `arms.py`.

    python benchmarks/completion.py find 800 --labels random --seeds 0 --out oof    # networks out of fold
    python benchmarks/completion.py believe 800 --labels random --rule p --out oof  # their candidates as soft targets
    python benchmarks/arms.py run 800 --labels random --trainers ..._softtargets_... # then as any arm

    python benchmarks/completion.py find 800 --labels size --magnify 1.5 2 --out oof  # the same networks, magnified too
    python benchmarks/completion.py believe 800 --labels size --magnified --out oof   # the mean of these predictions

The training cases of a set (a fold of `arms.py`) are divided in four; a network with trainer ``--finder`` trains on
three parts and predicts the fourth. Components of p >= 0.1 that touch no label become soft targets: by rule "p" of
their probability, voxel by voxel; by rule "q" of their probability of being a missed lesion, from all sets together.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import Prediction, cases_of, label_array, label_of, variant

from nnunet_lopsided.belief import belief, missed_per_annotated
from nnunet_lopsided.images import Image, write_image
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.variants.softening import soften

N_PARTS = 4


MAGNIFIED = "-magnified"


def find(
    dataset: int, *, labels: str, seed: int, finder: str, configuration: str, out: Path, magnify: Sequence[float] = ()
) -> None:
    """Predict every training case of a set by a network that did not train on it; ``out/LABELS/CASE.npy``.

    With ``magnify`` also by the mean of the image as it is and magnified: ``out/LABELS-magnified/CASE.npy``.
    """
    from nnunetv2.run.run_training import get_trainer_from_args

    train = json.loads((preprocessed_folder(variant(dataset, labels)) / "splits_final.json").read_text())[seed]["train"]
    cases = cases_of(dataset, "Tr")
    folders: dict[Path, Sequence[float]] = {out / labels: ()}
    if magnify:
        folders[out / f"{labels}{MAGNIFIED}"] = magnify
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for part in range(N_PARTS):
        held = train[part::N_PARTS]
        if all((folder / f"{name}.npy").is_file() for folder in folders for name in held):
            continue
        begin = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            trainer = get_trainer_from_args(
                str(variant(dataset, labels)), configuration, seed, f"{finder}_seed{100 * seed + part}",
                device=torch.device("cpu"),
            )  # fmt: skip
            rest = [name for name in train if name not in held]
            trainer.do_split = lambda rest=rest, held=held: (rest, held)
            trainer.disable_checkpointing = True
            trainer.run_training()
            for folder, factors in folders.items():
                predict = Prediction(trainer, factors)
                for name in held:
                    np.save(folder / f"{name}.npy", np.squeeze(predict(cases[name])).astype(np.float32))
        print(labels, seed, part, round(time.process_time() - begin, 1), flush=True)


def believe(
    dataset: int, *, labels: str, rule: str, configuration: str, out: Path, magnified: bool = False
) -> dict[str, Any]:
    """Write the soft targets of every case that was predicted, and bring them to the grid of the trainer."""
    predicted = out / (labels + MAGNIFIED * magnified)
    source = predicted.with_name(f"{predicted.name}-{rule}")
    source.mkdir(exist_ok=True)
    for old in source.iterdir():
        old.unlink()
    scores: dict[bool, list[float]] = {True: [], False: []}
    places: list[tuple[str, Any, bool]] = []
    probabilities, references = {}, {}
    variant_cases = cases_of(variant(dataset, labels), "Tr")
    for name, case in cases_of(dataset, "Tr").items():
        file = predicted / f"{name}.npy"
        if not file.is_file():
            continue
        image, p = label_of(case), np.load(file)
        annotated = label_array(variant_cases[name]) == 1
        probabilities[name], references[name] = p, image
        components = find_lesions(p >= 0.1, image.geometry.spacing_mm)
        for k in range(1, len(components) + 1):
            voxels = components.select([k])
            explained = bool(annotated.ravel()[voxels].any())
            scores[explained].append(float(p.ravel()[voxels].sum() / np.sqrt(len(voxels))))
            if not explained:
                places.append((name, voxels, bool((np.squeeze(image.array) > 0).ravel()[voxels].any())))
    known, unknown = np.array(scores[True]), np.array(scores[False])
    rho = missed_per_annotated(known, unknown) or 0.0
    q = belief(known, unknown, rho)
    targets = {name: np.zeros_like(p) for name, p in probabilities.items()}
    for (name, voxels, _), t in zip(places, q, strict=True):
        values = probabilities[name].ravel()[voxels]
        targets[name].ravel()[voxels] = {"p": values, "q": t, "qp": t * values / values.max()}[rule]
    for name, target in targets.items():
        image = references[name]
        write_image(source / f"{name}.nii.gz", Image(target.reshape(image.array.shape), image.geometry))
    soften(variant(dataset, labels), configuration, source, overwrite=True)
    truth = np.array([lesion for *_, lesion in places])
    return {"labels": labels, "rule": rule, "magnified": magnified, "cases": len(targets),
            "explained": len(known), "candidates": len(q),
            "lesions_among": int(truth.sum()), "rho": rho, "believed": float(q.sum()),
            "q_of_lesions": float(q[truth].mean()) if truth.any() else None,
            "q_of_others": float(q[~truth].mean()) if (~truth).any() else None}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("find", "believe"))
    parser.add_argument("dataset", type=int)
    parser.add_argument("--labels", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--finder", default="nnUNetTrainerLopsided_10epochs_50iters")
    parser.add_argument("--rule", choices=("p", "q", "qp"), default="p")
    parser.add_argument("-c", default="2d_small")
    parser.add_argument("--magnify", type=float, nargs="*", default=(), help="find: predict magnified, too")
    parser.add_argument("--magnified", action="store_true", help="believe: in predictions with --magnify")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for labels in arguments.labels:
        if arguments.part == "believe":
            about = believe(
                arguments.dataset,
                labels=labels,
                rule=arguments.rule,
                configuration=arguments.c,
                out=arguments.out,
                magnified=arguments.magnified,
            )
            print(json.dumps(about))
            continue
        for seed in arguments.seeds:
            find(
                arguments.dataset,
                labels=labels,
                seed=seed,
                finder=arguments.finder,
                configuration=arguments.c,
                out=arguments.out,
                magnify=arguments.magnify,
            )


if __name__ == "__main__":
    main()
