"""From the tables of all cases to the numbers of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.case import CaseResult
from nnunet_lopsided.evaluation.curves import OperatingPoints, average_precision, operating_points
from nnunet_lopsided.evaluation.intervals import (
    Detections,
    Interval,
    hanley_mcneil,
    patient_weights,
    percentile_interval,
    resampled_average_precision,
    resampled_ratio,
    wilson,
)
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.strata import DiameterBin, sensitivity_by_diameter, shannon_entropy_bits

NO_LESIONS = "there are no reference lesions"
NO_PROBABILITIES = "the predictions are hard labels; a curve over confidences needs probabilities"


@dataclass(frozen=True)
class Counts:
    """Over all cases. Candidates are true positives, false positives and duplicates, whatever the policy for these."""

    cases: int
    reference_lesions: int
    candidates: int
    true_positives: int
    false_positives: int
    duplicates: int
    missed_lesions: int


@dataclass(frozen=True)
class Metrics:
    """The metrics of Yi et al. (2020), section 3.4; None where undefined (:attr:`Summary.undefined` says why).

    Attributes:
        map: average precision over all candidates of all cases, within [0, 1].
        map_ci95_hanley_mcneil: its interval by formula.
        map_ci95_bootstrap: its interval by resampling patients.
        max_sensitivity: detected share of the lesions when every candidate is accepted; counted from the matches.
        precision_at_max_sensitivity: true share of the candidates then.
        false_positives_per_case: then, over all cases, with lesions or not.
        tp_dice: Dice between lesion and detecting candidate, averaged over detected lesions.
        lesion_entropy_bits: Shannon entropy of the histogram of probabilities over reference-lesion voxels.
    """

    map: float | None
    map_ci95_hanley_mcneil: Interval
    map_ci95_bootstrap: Interval
    max_sensitivity: float | None
    precision_at_max_sensitivity: float | None
    false_positives_per_case: float | None
    tp_dice: float | None
    lesion_entropy_bits: float | None


@dataclass(frozen=True)
class Summary:
    """Everything computed over all cases.

    Attributes:
        metrics: the metrics.
        counts: the counts behind them.
        undefined: reason by name of every metric and interval that is None.
        intervals: further 95% intervals by name.
        by_diameter: sensitivity by diameter, smallest first.
        points: the curves at every distinct confidence; None without probabilities.
        n_patients: units of the bootstrap.
        n_cases_with_lesions: cases with at least one reference lesion.
        n_false_positives_on_lesions: false positives that share a voxel with a lesion, as rings around one do.
        n_defined_replicates: bootstrap replicates in which the average precision is defined.
    """

    metrics: Metrics
    counts: Counts
    undefined: dict[str, str]
    intervals: dict[str, Interval]
    by_diameter: tuple[DiameterBin, ...]
    points: OperatingPoints | None
    n_patients: int
    n_cases_with_lesions: int
    n_false_positives_on_lesions: int
    n_defined_replicates: int


@dataclass(frozen=True)
class _Pooled:
    """The candidates and lesions of all cases, with the duplicate policy applied, and numbers per patient."""

    detections: Detections
    detected: NDArray[np.bool_]
    diameter_mm: NDArray[np.float64]
    dice: NDArray[np.float64]
    patients: tuple[str, ...]
    cases_per_patient: NDArray[np.int64]


def summarize(cases: Sequence[CaseResult], rules: EvaluationRules, n_replicates: int = 2000, seed: int = 0) -> Summary:
    """Pool the cases and compute every metric.

    Candidates of all cases are ranked together, as the paper does; nothing is averaged over cases.

    Args:
        cases: at least one.
        rules: those the cases were evaluated with.
        n_replicates: bootstrap replicates; 0: no bootstrap.
        seed: of the bootstrap.

    Returns:
        The summary; curves and average precision are None when any prediction is a hard label map.

    Raises:
        ValueError: ``cases`` is empty.
    """
    if not cases:
        raise ValueError("cases must not be empty")
    pooled = _pool(cases, rules)
    d = pooled.detections
    n_lesions, n_true, n_false = len(pooled.detected), len(d.true_confidence), len(d.false_confidence)
    n_detected = int(pooled.detected.sum())
    kinds = {case.kind for case in cases}
    points = area = None
    if "labels" not in kinds:
        points = operating_points(d.lesion_confidence, d.true_confidence, d.false_confidence, n_lesions, len(cases))
        area = average_precision(points)
    why_no_area = NO_PROBABILITIES if points is None else NO_LESIONS
    if area is None:
        formula = resampled = Interval.without(why_no_area)
        replicates: NDArray[np.float64] = np.zeros(0)
    else:
        formula = hanley_mcneil(min(area, 1.0), n_lesions, n_false)
        resampled, replicates = _bootstrap_area(pooled, n_replicates, seed)
    soft = [case.lesion_histogram for case in cases if "labels" not in kinds]
    entropy = shannon_entropy_bits(np.sum(soft, axis=0)) if soft else None
    metrics = Metrics(
        map=area,
        map_ci95_hanley_mcneil=formula,
        map_ci95_bootstrap=resampled,
        max_sensitivity=n_detected / n_lesions if n_lesions else None,
        precision_at_max_sensitivity=n_true / (n_true + n_false) if n_true + n_false else None,
        false_positives_per_case=n_false / len(cases),
        tp_dice=float(pooled.dice.mean()) if n_detected else None,
        lesion_entropy_bits=entropy,
    )
    intervals = _bootstrap_ratios(pooled, n_replicates, seed)
    intervals["max_sensitivity_wilson"] = wilson(n_detected, n_lesions)
    reasons = {
        "map": why_no_area,
        "max_sensitivity": NO_LESIONS,
        "precision_at_max_sensitivity": "there are no candidates",
        "tp_dice": "no lesion was detected",
        "lesion_entropy_bits": NO_PROBABILITIES if "labels" in kinds else "no lesion voxel has a predicted probability",
    }
    return Summary(
        metrics,
        _counts(cases),
        _undefined(metrics, intervals, reasons),
        intervals,
        sensitivity_by_diameter(pooled.diameter_mm, pooled.detected, rules.diameter_edges_mm),
        points,
        len(pooled.patients),
        sum(len(case.lesions) > 0 for case in cases),
        sum(int(((c.matches.status == Status.FALSE_POSITIVE) & (c.matches.overlap_voxels > 0)).sum()) for c in cases),
        int((~np.isnan(replicates)).sum()),
    )


def _counts(cases: Sequence[CaseResult]) -> Counts:
    n_lesions = sum(len(case.lesions) for case in cases)
    return Counts(
        cases=len(cases),
        reference_lesions=n_lesions,
        candidates=sum(len(case.candidates) for case in cases),
        true_positives=sum(case.count(Status.TRUE_POSITIVE) for case in cases),
        false_positives=sum(case.count(Status.FALSE_POSITIVE) for case in cases),
        duplicates=sum(case.count(Status.DUPLICATE) for case in cases),
        missed_lesions=n_lesions - sum(int(case.detected.sum()) for case in cases),
    )


def _pool(cases: Sequence[CaseResult], rules: EvaluationRules) -> _Pooled:
    patients = tuple(dict.fromkeys(case.patient for case in cases))
    index = {patient: i for i, patient in enumerate(patients)}
    patient_of_case = np.array([index[case.patient] for case in cases], np.int64)
    true_statuses = [Status.TRUE_POSITIVE] + [Status.DUPLICATE] * (rules.duplicates == "tp")
    false_statuses = [Status.FALSE_POSITIVE] + [Status.DUPLICATE] * (rules.duplicates == "fp")
    status = np.concatenate([case.matches.status for case in cases])
    confidence = np.concatenate([case.confidence for case in cases])
    candidate_patient = np.repeat(patient_of_case, [len(case.candidates) for case in cases])
    lesion_patient = np.repeat(patient_of_case, [len(case.lesions) for case in cases])
    detected = np.concatenate([case.detected for case in cases])
    true, false = np.isin(status, true_statuses), np.isin(status, false_statuses)
    return _Pooled(
        Detections(
            np.concatenate([case.lesion_confidence for case in cases])[detected],
            lesion_patient[detected],
            confidence[true],
            candidate_patient[true],
            confidence[false],
            candidate_patient[false],
            np.bincount(lesion_patient, minlength=len(patients)),
        ),
        detected,
        np.concatenate([case.lesions.diameter_mm for case in cases]),
        np.concatenate([case.matches.dice for case in cases])[detected],
        patients,
        np.bincount(patient_of_case, minlength=len(patients)),
    )


def _why_no_bootstrap(pooled: _Pooled, n_replicates: int) -> str | None:
    if not n_replicates:
        return "the bootstrap was switched off"
    if len(pooled.patients) < 2:
        return "a bootstrap over patients needs at least two patients"
    return None


def _bootstrap_area(pooled: _Pooled, n_replicates: int, seed: int) -> tuple[Interval, NDArray[np.float64]]:
    reason = _why_no_bootstrap(pooled, n_replicates)
    if reason is not None:
        return Interval.without(reason), np.zeros(0)
    replicates = resampled_average_precision(
        pooled.detections, patient_weights(len(pooled.patients), n_replicates, seed)
    )
    return percentile_interval(replicates), replicates


def _bootstrap_ratios(pooled: _Pooled, n_replicates: int, seed: int) -> dict[str, Interval]:
    names = ("max_sensitivity", "precision_at_max_sensitivity", "false_positives_per_case", "tp_dice")
    reason = _why_no_bootstrap(pooled, n_replicates)
    if reason is not None:
        return {f"{name}_bootstrap": Interval.without(reason) for name in names}
    d, n = pooled.detections, len(pooled.patients)
    detected, true, false = (
        np.bincount(p, minlength=n).astype(float) for p in (d.lesion_patient, d.true_patient, d.false_patient)
    )
    dice = np.bincount(d.lesion_patient, weights=pooled.dice, minlength=n)
    ratios = (
        (detected, d.lesions_per_patient.astype(float)),
        (true, true + false),
        (false, pooled.cases_per_patient.astype(float)),
        (dice, detected),
    )
    weights = patient_weights(n, n_replicates, seed)
    return {
        f"{name}_bootstrap": percentile_interval(resampled_ratio(weights, top, bottom))
        for name, (top, bottom) in zip(names, ratios, strict=True)
    }


def _undefined(metrics: Metrics, intervals: dict[str, Interval], reasons: dict[str, str]) -> dict[str, str]:
    found = {}
    for name, value in {**vars(metrics), **intervals}.items():
        if isinstance(value, Interval):
            if value.undefined is not None:
                found[name] = value.undefined
        elif value is None:
            found[name] = reasons[name]
    return found
