"""What sixty readings of candidates bring, in nnU-Net's own training; beside `completion.py` and `arms.py`.

    python benchmarks/completion.py find 840 --labels size --seeds 0 1 2 --out oof  # networks out of fold
    python benchmarks/readings.py 840 --labels size --way sample --out oof          # labels with what was read
    python benchmarks/arms.py run 840 --labels size_sample --trainers nnUNetTrainerLopsided_10epochs_80iters ...

Of each set of eight cases 60 candidates are read, by the truth. Candidates are the components of p >= 0.03 that no
label explains. What is a missed lesion becomes a label, in the voxels that the networks give.

- ``sample``: as ``lopsided-complete --way zones --sample 60``. A random sample by score and size is read. Of the others
  those are accepted that keep a mean probability of 0.8, and ignored from 0.2.
- ``highest``: the 60 of the highest score (mean p times root of size) are read. The others are background.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from arms import cases_of, label_array, label_of, variant
from numpy.typing import NDArray

from nnunet_lopsided.audit.auditing import best_fraction
from nnunet_lopsided.audit.components import Kind, MeasuredCase, measure_case
from nnunet_lopsided.audit.recalibration import recalibrated, zones
from nnunet_lopsided.audit.sampling import all_sampled, draw_sample, probability_by_rank
from nnunet_lopsided.belief import belief, missed_per_annotated
from nnunet_lopsided.dilation import grown_voxels
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.images import Image, write_image
from nnunet_lopsided.lesions import Lesions, lesions_of_voxels
from nnunet_lopsided.nnunet.paths import new_dataset_name, nnunet_path
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.nnunet.raw import new_raw_dataset, raw_dataset
from nnunet_lopsided.variants.linking import link_test_files, write_dataset_files
from nnunet_lopsided.variants.sharing import share_preprocessed

RULES = EvaluationRules()
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Candidate:
    case: str
    lesion: Lesions  # one: the component, cut back to what is taken for its lesion
    score: float
    is_missed: bool


def read(dataset: int, *, labels: str, way: str, n: int, out: Path) -> list[dict[str, Any]]:
    """Write a dataset with ``labels`` and what ``n`` readings in each set bring; counts of each set."""
    source = raw_dataset(variant(dataset, labels))
    folds = json.loads((preprocessed_folder(source.name) / "splits_final.json").read_text())
    whole, left = cases_of(dataset, "Tr"), cases_of(variant(dataset, labels), "Tr")
    arrays = {name: label_array(case).astype(np.uint8) for name, case in left.items()}
    ignore = 1 + max(value for value in source.json["labels"].values() if isinstance(value, int))
    about = []
    for seed, fold in enumerate(folds):
        names = [name for name in fold["train"] if (out / labels / f"{name}.npy").is_file()]
        if not names:
            continue
        measured = {
            name: measure_case(
                arrays[name] == 1,
                predictions=[np.load(out / labels / f"{name}.npy")],
                images=(),
                spacing_mm=label_of(whole[name]).geometry.spacing_mm,
                rules=RULES,
            )
            for name in names
        }
        candidates, known = candidates_of(measured, {name: label_array(whole[name]) > 0 for name in names})
        chosen, accepted, doubtful = decided(candidates, known, way=way, n=n, seed=seed)
        for name in names:
            flat = arrays[name].reshape(-1)
            for which, value, grow in ((accepted, 1, 0), (doubtful, ignore, 1)):
                for i in np.flatnonzero(which):
                    if candidates[i].case == name:
                        voxels = grown_voxels(candidates[i].lesion, grow)[0]
                        flat[voxels[flat[voxels] == 0]] = value
        truth = np.array([c.is_missed for c in candidates])
        counts = {"read": chosen, "accepted": accepted, "ignored": doubtful, "candidates": np.ones(len(truth), bool)}
        numbers = {what: int(which.sum()) for what, which in counts.items()}
        missed = {f"{what}_missed": int(truth[which].sum()) for what, which in counts.items()}
        about.append({"labels": f"{labels}_{way}", "seed": seed, **numbers, **missed})
    output, name = variant(dataset, f"{labels}_{way}"), f"{source.name.split('_', 1)[1]}Read"
    with new_raw_dataset(output, name, marker="dataset.json", overwrite=True) as folder:
        final = nnunet_path("nnUNet_raw") / new_dataset_name(output, name)
        (folder / "labelsTr").mkdir()
        for case, array in arrays.items():
            image = label_of(left[case])
            new = Image(array.reshape(image.array.shape), image.geometry)
            write_image(folder / "labelsTr" / f"{case}{source.file_ending}", new)
        link_test_files(source, folder, final)
        meaning = {**source.json["labels"], "ignore": ignore} if way == "sample" else None
        write_dataset_files(source, source.training_cases(), folder, final, labels=meaning)
    share_preprocessed(dataset, output, overwrite=True)
    return about


def candidates_of(
    measured: Mapping[str, MeasuredCase], whole: Mapping[str, Mask]
) -> tuple[list[Candidate], NDArray[np.float64]]:
    """Candidates, and the scores of components that find annotated lesions."""
    fraction, _ = best_fraction([m.dice[m.level >= RULES.threshold] for m in measured.values()])
    known, candidates = [], []
    for name, m in measured.items():
        score = m.mean_probability * np.sqrt(m.components.n_voxels)
        sure = m.level >= RULES.threshold
        known.append(score[sure & (m.kind == Kind.ANNOTATED)])
        for i in np.flatnonzero(sure & (m.kind == Kind.UNEXPLAINED)).tolist():
            voxels = m.cut_back(i, fraction)
            cut = lesions_of_voxels(m.components.shape, m.components.spacing_mm, voxels, np.ones(len(voxels), int))
            # Of the whole component: a reader sees a lesion although what was cut back misses it by a voxel.
            is_missed = bool(whole[name].reshape(-1)[m.components.select([i + 1])].any())
            candidates.append(Candidate(name, cut, float(score[i]), is_missed))
    return candidates, np.concatenate(known)


def decided(
    candidates: list[Candidate], known: NDArray[np.float64], *, way: str, n: int, seed: int
) -> tuple[Mask, Mask, Mask]:
    """Which are read, accepted and doubtful."""
    scores, truth = np.array([c.score for c in candidates]), np.array([c.is_missed for c in candidates])
    read_, nothing = np.zeros(len(candidates), bool), np.zeros(len(candidates), bool)
    if way == "highest":
        read_[np.argsort(-scores, kind="stable")[:n]] = True
        return read_, read_ & truth, nothing
    rho = missed_per_annotated(known, scores)
    q = belief(known, scores, rho or 0.0)
    if not rho:
        # Where nothing seems missing, or too little is called to tell, ranks alone say where to read.
        q[np.argsort(-scores, kind="stable")] = probability_by_rank(len(candidates))
    diameter_mm = np.array([c.lesion.diameter_mm[0] for c in candidates])
    strata = draw_sample(q, diameter_mm, RULES.diameter_edges_mm, n, seed)
    read_[all_sampled(strata)] = True
    reading = np.where(read_, truth, np.nan)
    drawn = zones(recalibrated(q, diameter_mm, strata, reading), strata, reading)
    return read_, drawn.accepted, drawn.doubtful


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=int)
    parser.add_argument("--labels", nargs="+", required=True)
    parser.add_argument("--way", choices=("sample", "highest"), default="sample")
    parser.add_argument("-n", type=int, default=60, help="readings in each set")
    parser.add_argument("--out", type=Path, required=True, help="of completion.py find")
    arguments = parser.parse_args()
    for labels in arguments.labels:
        for of_set in read(arguments.dataset, labels=labels, way=arguments.way, n=arguments.n, out=arguments.out):
            print(json.dumps(of_set), flush=True)


if __name__ == "__main__":
    main()
