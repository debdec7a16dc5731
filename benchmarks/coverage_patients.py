"""How often the 95% interval of the patient-level ROC area holds the true value, by simulation, beside DeLong's.

    python benchmarks/coverage_patients.py [--repeats 1000] [--patients 3,3 8,8 20,20 8,40 40,8]

Patients without lesions have false positives in a Poisson number, those with lesions hits as well; the most confident
counts, and who has none ties with all others who have none. ``poor``: 1.5 false positives per patient and hits one
standard deviation above them; ``good``: 0.3, and two. The table of docs/reference/evaluation.md is made by this.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.intervals import Z95, Interval, newcombe
from nnunet_lopsided.evaluation.patient_roc import PatientScores, roc_points

# Mean false positives and hits per patient, and how far the confidences of hits lie above.
MODELS = {"poor": (1.5, 3.0, 1.0), "good": (0.3, 2.0, 2.0)}


def highest(rng: np.random.Generator, mean_number: float, level: float, n: int) -> NDArray[np.float64]:
    """The highest of a Poisson number of confidences of each of n patients; -inf where there is none."""
    numbers = rng.poisson(mean_number, n)
    best = np.full(n, -np.inf)
    np.maximum.at(best, np.repeat(np.arange(n), numbers), rng.normal(level, 1, int(numbers.sum())))
    return best


def draw(rng: np.random.Generator, model: str, n_with: int, n_without: int) -> PatientScores:
    """The scores of patients of both kinds."""
    false, hits, above = MODELS[model]
    kind = np.arange(n_with + n_without) < n_with
    confidence = highest(rng, false, 0, len(kind))
    confidence[kind] = np.maximum(confidence[kind], highest(rng, hits, above, n_with))
    return PatientScores(confidence=confidence, with_lesion=kind, without_lesion=~kind)


def area_of(scores: PatientScores) -> float:
    points = roc_points(scores)
    assert points is not None, "there are patients of both kinds"
    return points.area


def delong(scores: PatientScores) -> Interval:
    """DeLong et al. (1988): the area plus and minus its standard error, which is 0 where the area is 1."""
    a, b = scores.confidence[scores.with_lesion], scores.confidence[scores.without_lesion]
    order = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    error = (order.mean(axis=1).var(ddof=1) / len(a) + order.mean(axis=0).var(ddof=1) / len(b)) ** 0.5
    return Interval(order.mean() - Z95 * error, order.mean() + Z95 * error)


def both(text: str) -> tuple[int, int]:
    n_with, n_without = map(int, text.split(","))
    return n_with, n_without


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=1000)
    sizes = [(3, 3), (5, 5), (8, 8), (12, 12), (20, 20), (50, 50), (8, 40), (40, 8)]
    parser.add_argument("--patients", type=both, nargs="+", default=sizes, metavar="WITH,WITHOUT")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if min(map(min, arguments.patients)) < 2 or arguments.repeats < 1:
        parser.error(
            "--patients must be at least 2 of either kind, --repeats at least 1"
        )  # DeLong's variance needs two
    rng = np.random.default_rng(arguments.seed)
    truth = {model: area_of(draw(rng, model, 200_000, 200_000)) for model in MODELS}
    print("true areas: " + ", ".join(f"{model} {area:.3f}" for model, area in truth.items()))
    print(f"{'with':>6}{'without':>9}{'model':>8}{'Newcombe':>10}{'DeLong':>9}{'mean width, Newcombe':>22}")
    for n_with, n_without in arguments.patients:
        for model, true in truth.items():
            held, widths = np.zeros(2), []
            for _ in range(arguments.repeats):
                scores = draw(rng, model, n_with, n_without)
                ours = newcombe(area_of(scores), n_with, n_without, least=1)
                for i, interval in enumerate((ours, delong(scores))):
                    assert interval.ends is not None, "there are enough patients"
                    held[i] += interval.ends[0] <= true <= interval.ends[1]
                    widths += [interval.ends[1] - interval.ends[0]] if i == 0 else []
            shares = held / arguments.repeats
            print(
                f"{n_with:>6}{n_without:>9}{model:>8}{shares[0]:>10.1%}{shares[1]:>9.1%}{np.mean(widths):>22.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
