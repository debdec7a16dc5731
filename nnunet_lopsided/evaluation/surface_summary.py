"""HD95 and NSD over the detected lesions of all cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.intervals import (
    Interval,
    patient_weights,
    percentile_interval,
    resampled_ratio,
    why_no_bootstrap,
)
from nnunet_lopsided.evaluation.pooling import Pooled

NO_DETECTED = "no lesion was detected"


@dataclass(frozen=True)
class Average:
    """Of one number over the detected lesions; None where there is none.

    Attributes:
        mean: over lesions, those of all patients together.
        median: over lesions.
        interval: of the mean, by resampling patients.
    """

    mean: float | None
    median: float | None
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class SurfaceSummary:
    """The surfaces of all lesions that count.

    Attributes:
        tolerance_mm: of the NSD.
        n_lesions: lesions with a value: the detected ones.
        n_missed: lesions without: nothing can be measured, so they are in no mean and no median.
        hd95_mm: their HD95.
        nsd: their normalised surface Dice.
    """

    tolerance_mm: float
    n_lesions: int
    n_missed: int
    hd95_mm: Average
    nsd: Average


def of_detected(cases: Sequence[CaseResult], name: str) -> NDArray[np.float64]:
    """``hd95_mm`` or ``nsd`` of every detected lesion that counts, case by case."""
    values = [getattr(case.surface, name)[case.detected] for case in cases]
    return np.concatenate(values) if values else np.zeros(0)


def summarize_surfaces(
    cases: Sequence[CaseResult], pooled: Pooled, tolerance_mm: float, n_replicates: int, seed: int
) -> SurfaceSummary:
    """Means and medians over the detected lesions.

    Args:
        cases: evaluated with surface distances.
        pooled: the same cases.
        tolerance_mm: of the NSD.
        n_replicates: bootstrap replicates; 0: no bootstrap.
        seed: of the bootstrap.
    """
    detected = pooled.lesion_detected
    return SurfaceSummary(
        tolerance_mm=tolerance_mm,
        n_lesions=int(detected.sum()),
        n_missed=int((~detected).sum()),
        hd95_mm=_average(of_detected(cases, "hd95_mm"), pooled, n_replicates, seed),
        nsd=_average(of_detected(cases, "nsd"), pooled, n_replicates, seed),
    )


def _average(values: NDArray[np.float64], pooled: Pooled, n_replicates: int, seed: int) -> Average:
    if not len(values):
        return Average(None, None, Interval.without(NO_DETECTED))
    patient, n_patients = pooled.lesion_patient[pooled.lesion_detected], len(pooled.patients)
    # By patient, since lesions of one patient are alike and must be drawn together.
    sums = np.bincount(patient, weights=values, minlength=n_patients).astype(np.float64)
    interval = mean_interval(sums, np.bincount(patient, minlength=n_patients), n_replicates, seed)
    return Average(float(values.mean()), float(np.median(values)), interval)


def mean_interval(sums: NDArray[np.float64], n_lesions: NDArray[np.integer], n_replicates: int, seed: int) -> Interval:
    """The bootstrap interval of a mean over lesions, from sums and numbers of lesions per patient, (n_patients,)."""
    why = why_no_bootstrap(len(sums), n_replicates)
    if why is not None:
        return Interval.without(why)
    weights = patient_weights(len(sums), n_replicates, seed)
    replicates = resampled_ratio(weights, sums, n_lesions.astype(np.float64))
    return percentile_interval(replicates, int((n_lesions > 0).sum()))
