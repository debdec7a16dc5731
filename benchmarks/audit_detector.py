"""Which detectors are good enough for an audit to print a miss rate, by simulation; a minute on one core.

    python benchmarks/audit_detector.py [--sets N] [--seed SEED]

Signal detection: a case has so many places where a false positive may arise, with values of a standard normal
distribution; lesions have values of one that is shifted by ``separation``. What exceeds a threshold is a component.
Some lesions the models never see, and each lesion is annotated or missed at random. Every simulated data set is audited
by the package's own functions. Prints, as Markdown:

1. per rule, how many of the data sets get a rate, and how far it is from the truth; the last row is the package's rule,
2. the same by separation, so that one sees which detectors are refused,
3. how often the 95% interval of the printed rates holds the truth, by the number of patients.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from nnunet_lopsided.audit.detector import Detector, measure_detector, why_withheld
from nnunet_lopsided.audit.miss_rate import LEAST_ANNOTATED, Scored, estimate_miss_rates

MISS_RATES = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8)


@dataclass(frozen=True, kw_only=True)
class Audited:
    """One simulated data set."""

    separation: float
    detector: Detector
    estimate: float
    truth: float
    low: float | None = None
    high: float | None = None

    @property
    def error(self) -> float:
        return abs(self.estimate - self.truth)


def simulated(rng: np.random.Generator, n_patients: int, separation: float) -> tuple[Scored, float]:
    """Scores of a data set, and its true miss rate; every patient has one case."""
    lesions_per_patient, places = rng.choice([2, 5, 12]), int(rng.choice([30, 300, 3000]))
    false_per_patient = 10 ** rng.uniform(-0.5, np.log10(min(places / 2, 300)))
    invisible, miss_rate = rng.choice([0.0, 0.3]), rng.choice(MISS_RATES)
    threshold = norm.isf(false_per_patient / places)
    patient = np.repeat(np.arange(n_patients), rng.negative_binomial(1, 1 / (1 + lesions_per_patient), n_patients))
    value = rng.normal(separation, 1, len(patient))
    found = (value > threshold) & (rng.random(len(patient)) >= invisible)
    missed = rng.random(len(patient)) < miss_rate
    of_false = np.repeat(np.arange(n_patients), rng.poisson(false_per_patient, n_patients))
    false = norm.isf(rng.random(len(of_false)) * false_per_patient / places)

    def columns(which: NDArray[np.bool_]) -> NDArray[np.int64]:
        return patient[which]

    scored = Scored(
        annotated_mm=np.ones(int((~missed).sum())),
        annotated_patient=columns(~missed),
        found_mm=np.ones(int((found & ~missed).sum())),
        found_score=value[found & ~missed],
        found_patient=columns(found & ~missed),
        candidate_mm=np.ones(int((found & missed).sum()) + len(false)),
        candidate_score=np.concatenate([value[found & missed], false]),
        candidate_patient=np.concatenate([columns(found & missed), of_false]),
        n_patients=n_patients,
    )
    return scored, float(missed.mean()) if len(missed) else 0.0


def audited(rng: np.random.Generator, n_patients: int, separation: float, n_replicates: int) -> Audited | None:
    """An audit of a simulated data set; None where too few annotated lesions are found for any estimate."""
    scored, truth = simulated(rng, n_patients, separation)
    if len(scored.found_mm) < LEAST_ANNOTATED or not len(scored.candidate_mm):
        return None
    (rate,) = estimate_miss_rates(scored, (), n_replicates, seed=0)[:1]
    assert rate.rate is not None, "there are enough annotated lesions"
    detector = measure_detector(scored.found_score, scored.candidate_score, len(scored.annotated_mm), n_patients)
    return Audited(
        separation=separation,
        detector=detector,
        estimate=rate.rate,
        truth=truth,
        low=rate.interval.low,
        high=rate.interval.high,
    )


def rules() -> Iterable[tuple[str, Callable[[Audited], bool]]]:
    """Candidates for the rule that lets a rate be printed."""

    def at_least(one: Audited, sensitivity: float, precision: float) -> bool:
        detector = one.detector
        assert detector.sensitivity is not None, "there are annotated lesions"
        assert detector.average_precision is not None, "there are annotated lesions"
        return detector.sensitivity >= sensitivity and detector.average_precision >= precision

    yield "none", lambda one: True
    for sensitivity, precision in ((0.5, 0.0), (0.0, 0.15), (0.5, 0.1), (0.5, 0.15), (0.5, 0.2), (0.6, 0.15)):
        name = f"sensitivity >= {sensitivity:g}, average precision >= {precision:g}"
        yield name, lambda one, s=sensitivity, p=precision: at_least(one, s, p)  # type: ignore[misc]
    yield "**the package's**, with the contradiction", lambda one: not why_withheld(one.detector, one.estimate)


def row(name: str, sets: list[Audited], printed: list[Audited]) -> str:
    """A line of the tables."""
    errors = np.array([one.error for one in printed]) if printed else np.zeros(0)
    shares = [f"{(errors <= 0.15).mean():.2f}", f"{(errors > 0.3).mean():.3f}"] if len(errors) else ["-", "-"]
    good = [one for one in sets if one.error <= 0.15]
    kept = sum(one.error <= 0.15 for one in printed) / len(good) if good else 0.0
    return f"| {name} | {len(printed) / len(sets):.2f} | {shares[0]} | {shares[1]} | {kept:.2f} |"


HEAD = "| {} | printed | within .15 | off by more than .30 | of the right ones printed |\n|---|---|---|---|---|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    drawn = (audited(rng, int(rng.choice([10, 20, 40])), rng.uniform(0, 6), 0) for _ in range(arguments.sets))
    sets = [one for one in drawn if one is not None]
    print(f"{arguments.sets} data sets, {len(sets)} with at least {LEAST_ANNOTATED} annotated lesions found; ", end="")
    print(f"seed {arguments.seed}\n\n{HEAD.format('rule')}")
    for name, passes in rules():
        print(row(name, sets, [one for one in sets if passes(one)]))
    print(f"\n{HEAD.format('separation')}")
    for low in range(6):
        part = [one for one in sets if low <= one.separation < low + 1]
        printed = [one for one in part if not why_withheld(one.detector, one.estimate)]
        print(row(f"{low} to {low + 1}", part, printed))
    print("\n| patients | printed rates | 95% intervals that hold the truth | mean width |\n|---|---|---|---|")
    for n_patients in (8, 10, 20):
        drawn = (audited(rng, n_patients, rng.uniform(4, 6), 200) for _ in range(arguments.sets // 25))
        held = [one for one in drawn if one is not None and not why_withheld(one.detector, one.estimate)]
        ends = [(one.low, one.high, one.truth) for one in held if one.low is not None and one.high is not None]
        share = np.mean([low <= truth <= high for low, high, truth in ends])
        print(f"| {n_patients} | {len(ends)} | {share:.2f} | {np.mean([high - low for low, high, _ in ends]):.2f} |")


if __name__ == "__main__":
    main()
