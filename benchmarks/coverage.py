"""How often the 95% intervals of an evaluation hold the true value, by simulation.

    python benchmarks/coverage.py [--repeats 400] [--patients 20 60]

Patients differ in how well a model does on them: each has its own chance that a lesion is found, its own rate of false
positives and its own level of confidence, so that lesions of one patient are not independent. The true value is that of
20,000 such patients. Confidences of hits lie above those of false positives by one standard deviation.
"""

from __future__ import annotations

import argparse

import numpy as np

from nnunet_lopsided.evaluation.curves import average_precision, average_recall, operating_points
from nnunet_lopsided.evaluation.intervals import (
    Detections,
    hanley_mcneil,
    patient_weights,
    percentile_interval,
    resampled_curves,
    resampled_ratio,
    wilson,
)


def draw(rng: np.random.Generator, n_patients: int) -> tuple[Detections, np.ndarray]:
    """Detections of some patients, and how many lesions of each are found."""
    n_lesions = 1 + rng.poisson(5, n_patients)
    found = rng.binomial(n_lesions, rng.beta(4, 1.5, n_patients))
    n_false = rng.poisson(rng.gamma(2, 1.5, n_patients))
    hits, false = (np.repeat(np.arange(n_patients), n) for n in (found, n_false))
    level = rng.normal(0, 0.7, n_patients)  # some patients' images give high confidences throughout
    true_confidence = rng.normal(1, 1, len(hits)) + level[hits]
    false_confidence = rng.normal(0, 1, len(false)) + level[false]
    detections = Detections(true_confidence, hits, true_confidence, hits, false_confidence, false, n_lesions)
    return detections, found


def values(detections: Detections) -> tuple[float, float, float]:
    """Average precision, average recall, sensitivity."""
    n_lesions = int(detections.lesions_per_patient.sum())
    true, false = detections.true_confidence, detections.false_confidence
    points = operating_points(true, true, false, n_lesions, len(detections.lesions_per_patient))
    return average_precision(points) or 0.0, average_recall(points, 5.0) or 0.0, len(true) / n_lesions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--patients", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    names = ("average precision", "average recall", "sensitivity")
    truth = values(draw(rng, 20_000)[0])
    print("true values: " + ", ".join(f"{name} {value:.3f}" for name, value in zip(names, truth, strict=True)))
    print(f"{'patients':<10}{'interval':<38}{'covers':>8}{'mean width':>12}")
    for n in arguments.patients:
        ends: dict[str, list[tuple[float, float, float]]] = {}
        for i in range(arguments.repeats):
            detections, found = draw(rng, n)
            point = values(detections)
            weights = patient_weights(n, arguments.replicates, seed=i)
            curves = resampled_curves(detections, weights, np.ones(n), 5.0)
            lesions = detections.lesions_per_patient
            formula = hanley_mcneil(point[0], int(lesions.sum()), len(detections.false_confidence))
            share = percentile_interval(resampled_ratio(weights, found.astype(float), lesions.astype(float)))
            for name, true_value, interval in (
                ("average precision, bootstrap", truth[0], percentile_interval(curves.average_precision)),
                ("average precision, Hanley-McNeil", truth[0], formula),
                ("average recall, bootstrap", truth[1], percentile_interval(curves.average_recall)),
                ("sensitivity, bootstrap", truth[2], share),
                ("sensitivity, Wilson", truth[2], wilson(int(found.sum()), int(lesions.sum()))),
            ):
                assert interval.low is not None
                assert interval.high is not None
                ends.setdefault(name, []).append((interval.low, true_value, interval.high))
        for name, rows in ends.items():
            low, true_values, high = np.array(rows).T
            covers = float(((low <= true_values) & (true_values <= high)).mean())
            print(f"{n:<10}{name:<38}{covers:>7.1%}{(high - low).mean():>12.3f}")


if __name__ == "__main__":
    main()
