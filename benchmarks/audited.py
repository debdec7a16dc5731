"""Audits with injected lesions against the truth: of a cross-validation, as a user has it.

    lopsided-complete -d 841 -c 2d_small -tr TRAINER -o 941 && lopsided-audit -d 841 -c 2d_small -tr TRAINER --inject
    python benchmarks/audited.py 841 --truth 840 -c 2d_small -tr TRAINER --data faint --labels random >> audited.jsonl

A line of JSON: miss rates, true and estimated; by diameter the lesions that were annotated, missed and estimated to be
missed; the share of injected and of truly missed lesions that the networks find (components of at least the audit's
threshold); how many candidates are missed lesions, and what their scores and probabilities add up to; what soft targets
add up to, by p and by q.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from arms import cases_of, label_of
from numpy.typing import NDArray

from nnunet_lopsided.audit.auditing import THRESHOLD
from nnunet_lopsided.audit.components import measure_case
from nnunet_lopsided.audit.inputs import Model, find_inputs
from nnunet_lopsided.audit.measuring import load_predictions
from nnunet_lopsided.audit.recalibration import LEAST_ACCEPTED
from nnunet_lopsided.belief import belief, missed_per_annotated
from nnunet_lopsided.evaluation.loading import lesion_class
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.strata import diameter_bin
from nnunet_lopsided.images import read_image
from nnunet_lopsided.nnunet.raw import raw_dataset
from nnunet_lopsided.soft_target import called_components


def of_truth(dataset: int, truth: int, model: Model) -> NDArray[np.float64]:
    """A row for each lesion of the whole labels: diameter in mm, whether it was annotated, whether networks find it."""
    inputs = find_inputs(dataset, [model])
    target = lesion_class(None, inputs.dataset.folder / "dataset.json")
    whole = cases_of(truth, "Tr")
    rows = []
    for case in inputs.cases:
        loaded, predictions = load_predictions(case, target)
        rules = EvaluationRules(threshold=THRESHOLD)
        mask = np.greater(label_of(whole[case.name]).array.reshape(loaded.reference.shape), 0)
        m = measure_case(mask, predictions=predictions, images=[], spacing_mm=loaded.spacing_mm, rules=rules)
        found = np.zeros(len(m.lesion_diameter_mm), bool)
        found[m.lesion_of_component[(m.lesion_of_component >= 0) & (m.level >= rules.threshold)]] = True
        ids, inside = m.lesions.voxel_ids, loaded.reference.reshape(-1)[m.lesions.voxels]
        annotated = np.bincount(ids[inside], minlength=len(found) + 1)[1:] > 0
        rows += list(zip(m.lesion_diameter_mm, annotated, found, strict=True))
    return np.array(rows, np.float64).reshape(-1, 3)


def judged(audit: Path, truth: int, file_ending: str) -> dict[str, Any]:
    """Candidates that are not fainter, by the truth: a lesion is what shares a voxel with one of the whole labels."""
    whole, lesions = cases_of(truth, "Tr"), set()
    for path in (audit / "maps").iterdir():
        name = path.name.removesuffix(file_ending)
        numbers = read_image(path).array
        hit = np.unique(numbers[np.greater(label_of(whole[name]).array, 0).reshape(numbers.shape)])
        lesions |= {(name, str(number)) for number in hit.tolist()}
    with (audit / "audit.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if float(row["sqrt"]) > 0]
    is_lesion = np.array([(row["case"], row["candidate"]) in lesions for row in rows])
    scores = np.array([float(row["score"] or 0) for row in rows])
    accepted = scores >= LEAST_ACCEPTED
    return {
        "candidates": len(rows),
        "lesions": int(is_lesion.sum()),
        "sum_of_scores": float(scores.sum()),
        "accepted": int(accepted.sum()),
        "accepted_lesions": int(is_lesion[accepted].sum()),
    }


def believed(dataset: int, model: Model) -> dict[str, float]:
    """What soft targets add up to, in lesions: by mean p of a candidate, and by q."""
    inputs = find_inputs(dataset, [model], magnify=())
    target = lesion_class(None, inputs.dataset.folder / "dataset.json")
    p, explained, unexplained = [], [], []
    for case in inputs.cases:
        loaded, (probability,) = load_predictions(case, target)
        known = loaded.reference if loaded.valid is None else loaded.reference | ~loaded.valid
        called = called_components(probability, known, loaded.spacing_mm)
        p += [probability.reshape(-1)[v].mean() for v, e in zip(called.voxels, called.explained, strict=True) if not e]
        explained += called.score[called.explained].tolist()
        unexplained += called.score[~called.explained].tolist()
    annotated, others = np.array(explained), np.array(unexplained)
    rho = missed_per_annotated(annotated, others)
    q = 0.0 if rho is None else float(belief(annotated, others, rho).sum())
    return {"called_annotated": len(annotated), "candidates": len(others), "by_p": float(np.sum(p)), "by_q": q}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=int)
    parser.add_argument("--truth", type=int, required=True, help="dataset with the whole labels")
    parser.add_argument("-c", required=True)
    parser.add_argument("-tr", required=True)
    parser.add_argument("--data", required=True, help="what the line is of")
    parser.add_argument("--labels", required=True, choices=("full", "random", "size", "read"), help="what they lack")
    arguments = parser.parse_args()
    model = Model(arguments.tr, "nnUNetPlans", arguments.c)
    audit = model.folder(raw_dataset(arguments.dataset).name) / "audit"
    record = json.loads((audit / "audit.json").read_text())
    lesions = of_truth(arguments.dataset, arguments.truth, model)
    bins = diameter_bin(lesions[:, 0], record["settings"]["diameter_edges_mm"])
    line: dict[str, Any] = {
        "data": arguments.data,
        "labels": arguments.labels,
        "dataset": arguments.dataset,
        "trainer": arguments.tr,
        "true": float(1 - lesions[:, 1].mean()),
        "missed": int((lesions[:, 1] == 0).sum()),
        "audit": record["miss_rate"]["miss_rate"],
        "audit_ci95": record["miss_rate"]["miss_rate_ci95_bootstrap"],
        "in_any": (record["miss_rate_in_any_prediction"] or {}).get("miss_rate"),
        "injected": record["injected"]["miss_rate"],
        "injected_ci95": record["injected"].get("miss_rate_ci95_bootstrap"),
        "judged": judged(audit, arguments.truth, raw_dataset(arguments.dataset).file_ending),
        "withheld": record["withheld"],
        "believed": believed(arguments.dataset, model),
        "by_diameter": [],
    }
    for i, of in enumerate(record["injected"]["by_diameter"]):
        here = lesions[bins == i]
        missed = here[here[:, 1] == 0]
        line["by_diameter"].append(
            {
                "lower_mm": of["lower_mm"],
                "lesions": len(here),
                "missed": len(missed),
                "missed_found": int(missed[:, 2].sum()),
                "annotated_found": int(here[here[:, 1] == 1, 2].sum()),
                "injected": of["injected"],
                "injected_found": of["found"],
                "estimated_missed": of["missed_lesions"],
                "counts": [of["by_injected"], of["by_highest_scores"], of["by_annotated"]],
                "audit_missed": record["miss_rate_by_diameter"][i]["missed_lesions"],
                "seen_ci95": of.get("seen_ci95_bootstrap"),
            }
        )
    print(json.dumps(line))


if __name__ == "__main__":
    main()
