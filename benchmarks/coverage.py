"""How often the 95% intervals of an evaluation hold the true value, and how often two equal models "differ", by
simulation.

    python benchmarks/coverage.py [--repeats 1000] [--patients 2 3 5 10 20 60]

Patients differ in how well a model does on them: each has its own chance that a lesion is found, its own rate of false
positives and its own level of confidence, so that lesions of one patient are not independent. The true value is that of
20,000 such patients. Confidences of hits lie above those of false positives by one standard deviation. Two equal models
are two independent readings of the same patients: their true difference is 0.

``percentile`` is the plain percentile interval, ``expanded`` the one that evaluations give, without its least number of
patients. The table of docs/reference/evaluation.md is made by this.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.curves import average_precision, average_recall, operating_points
from nnunet_lopsided.evaluation.intervals import (
    Detections,
    Interval,
    expanded_percentiles,
    hanley_mcneil,
    patient_weights,
    resampled_curves,
    resampled_ratio,
    wilson,
)

PERCENT_95 = (2.5, 97.5)
END_OF_AVERAGE_RECALL = 5.0


@dataclass(frozen=True)
class Patients:
    """What is the same for every model: how hard each patient is."""

    n_lesions: NDArray[np.int64]
    chance: NDArray[np.float64]
    false_rate: NDArray[np.float64]
    level: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator, n: int) -> Patients:
        # Some patients' images give high confidences throughout: the level.
        return cls(1 + rng.poisson(5, n), rng.beta(4, 1.5, n), rng.gamma(2, 1.5, n), rng.normal(0, 0.7, n))

    def read(self, rng: np.random.Generator) -> Detections:
        """What one model detects in them."""
        n = len(self.n_lesions)
        n_hits, n_false = rng.binomial(self.n_lesions, self.chance), rng.poisson(self.false_rate)
        hits, false = (np.repeat(np.arange(n), counts) for counts in (n_hits, n_false))
        true_confidence = rng.normal(1, 1, len(hits)) + self.level[hits]
        return Detections(
            lesion_confidence=true_confidence,
            lesion_patient=hits,
            true_confidence=true_confidence,
            true_patient=hits,
            false_confidence=rng.normal(0, 1, len(false)) + self.level[false],
            false_patient=false,
            lesions_per_patient=self.n_lesions,
        )


def plain_values(detections: Detections) -> dict[str, float]:
    """Average precision, average recall and sensitivity over all patients."""
    n_lesions = int(detections.lesions_per_patient.sum())
    true, false = detections.true_confidence, detections.false_confidence
    points = operating_points(
        lesion_confidence=true,
        true_confidence=true,
        false_confidence=false,
        n_lesions=n_lesions,
        n_cases=len(detections.lesions_per_patient),
    )
    return {
        "average precision": average_precision(points) or 0.0,
        "average recall": average_recall(points, END_OF_AVERAGE_RECALL) or 0.0,
        "sensitivity": len(true) / n_lesions,
    }


def replicates_of(detections: Detections, weights: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The same values in every replicate."""
    n = len(detections.lesions_per_patient)
    curves = resampled_curves(detections, weights, np.ones(n), END_OF_AVERAGE_RECALL)
    n_found = np.bincount(detections.lesion_patient, minlength=n).astype(float)
    return {
        "average precision": curves.average_precision,
        "average recall": curves.average_recall,
        "sensitivity": resampled_ratio(weights, n_found, detections.lesions_per_patient.astype(float)),
    }


def bootstrap_intervals(replicates: NDArray[np.float64], n: int) -> Iterator[tuple[str, Interval]]:
    """Both bootstrap intervals of a statistic."""
    defined = replicates[~np.isnan(replicates)]
    for name, percent in (("percentile", PERCENT_95), ("expanded", expanded_percentiles(n))):
        low, high = np.percentile(defined, percent)
        yield name, Interval(float(low), float(high))


def one_repeat(rng: np.random.Generator, n: int, n_replicates: int, seed: int) -> dict[str, Interval]:
    """Every interval of one simulated evaluation, and those of the differences of two equal models, by name."""
    patients = Patients.draw(rng, n)
    first, second = patients.read(rng), patients.read(rng)
    weights = patient_weights(n, n_replicates, seed)
    of_first, of_second = replicates_of(first, weights), replicates_of(second, weights)
    intervals = {}
    for name in of_first:
        for kind, interval in bootstrap_intervals(of_first[name], n):
            intervals[f"{name}, {kind}"] = interval
        for kind, interval in bootstrap_intervals(of_second[name] - of_first[name], n):
            intervals[f"difference in {name}, {kind}"] = interval
    n_lesions, n_hits = int(first.lesions_per_patient.sum()), len(first.lesion_confidence)
    area = plain_values(first)["average precision"]
    intervals["average precision, Hanley-McNeil"] = hanley_mcneil(area, n_lesions, len(first.false_confidence))
    intervals["sensitivity, Wilson"] = wilson(n_hits, n_lesions)
    return intervals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--patients", type=int, nargs="+", default=[2, 3, 5, 10, 20, 60])
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if min(arguments.patients) < 2 or arguments.repeats < 1 or arguments.replicates < 1:
        # Of one patient every replicate is the same.
        parser.error("--patients must be at least 2, --repeats and --replicates at least 1")
    rng = np.random.default_rng(arguments.seed)
    truth = plain_values(Patients.draw(rng, 20_000).read(rng))
    print("true values: " + ", ".join(f"{name} {value:.3f}" for name, value in truth.items()))
    print(f"{'patients':<10}{'interval':<46}{'covers':>8}{'undefined':>11}{'mean width':>12}")
    for n in arguments.patients:
        repeats = [one_repeat(rng, n, arguments.replicates, seed) for seed in range(arguments.repeats)]
        for name in repeats[0]:
            true_value = 0.0 if name.startswith("difference") else truth[name.split(",")[0]]
            # An interval may be undefined: Hanley-McNeil's without false positives.
            ends = [repeat[name].ends for repeat in repeats]
            defined = np.array([pair for pair in ends if pair is not None]).reshape(-1, 2)
            covers = ((defined[:, 0] <= true_value) & (true_value <= defined[:, 1])).mean() if len(defined) else np.nan
            width = (defined[:, 1] - defined[:, 0]).mean() if len(defined) else np.nan
            print(f"{n:<10}{name:<46}{covers:>7.1%}{len(ends) - len(defined):>11}{width:>12.3f}", flush=True)


if __name__ == "__main__":
    main()
