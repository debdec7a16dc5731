"""The metrics of an evaluation, every patient being counted any number of times: once, or as a bootstrap draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.intervals import resampled_curves, resampled_ratio
from nnunet_lopsided.evaluation.patient_roc import resampled_roc_area
from nnunet_lopsided.evaluation.pooling import Pooled, detections_by
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.strata import entropy_of_rows

# The end of the average recall of Shirokikh et al. (2020).
AVERAGE_RECALL_MAX_FP = 5.0

# Metrics that are ratios of sums over patients: numerator and denominator by their names in ``Pooled.totals``.
RATIOS: Mapping[str, tuple[str, str]] = {
    "max_sensitivity": ("detected", "lesions"),
    "precision_at_max_sensitivity": ("true", "true_and_false"),
    "false_positives_per_case": ("false", "cases"),
    "tp_dice": ("dice", "detected"),
    "lesion_wise_dice": ("dice", "lesions_and_false"),
    "lesion_wise_dice_case_mean": ("case_lesion_dice", "cases_with_lesion_dice"),
    "false_positives_per_lesion_free_case": ("false_lesion_free", "lesion_free_cases"),
    "false_positive_volume_mm3_per_case": ("false_volume", "cases"),
    "false_positive_volume_mm3_per_lesion_free_case": ("false_volume_lesion_free", "lesion_free_cases"),
    "voxel_dice": ("case_voxel_dice", "cases_with_voxel_dice"),
    "voxel_dice_pooled": ("twice_shared_voxels", "voxels_of_both"),
    "voxel_dice_at_threshold": ("case_candidate_dice", "cases_with_candidate_dice"),
}

# The same of patients that have lesions or have none, in whom there is any candidate or none.
PATIENT_RATIOS: Mapping[str, tuple[str, str]] = {
    "patient_sensitivity": ("called_patients_with_lesion", "patients_with_lesion"),
    "patient_specificity": ("cleared_patients_without_lesion", "patients_without_lesion"),
}
_EVERY = {**RATIOS, **PATIENT_RATIOS}


def n_contributing(pooled: Pooled, name: str) -> int:
    """Patients that contribute to the denominator of a metric of :func:`resampled_metrics`."""
    totals = pooled.totals
    if name == "f1":
        return int(((totals["lesions"] + totals["true_and_false"]) > 0).sum())
    # An area compares patients of two kinds, and is as sure as the fewer of them allow.
    if name == "patient_auc":
        return int(min(totals["patients_with_lesion"].sum(), totals["patients_without_lesion"].sum()))
    return int((totals[_EVERY[name][1] if name in _EVERY else "lesions"] > 0).sum())


def resampled_metrics(pooled: Pooled, weights: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
    """Every metric with every patient's cases counted ``weights`` times.

    Args:
        pooled: of :func:`pool`.
        weights: one row per replicate, shape (B, n_patients); a row of ones gives the plain value, the rows of a unit
            matrix those of each patient alone.

    Returns:
        Arrays of shape (B,) by the metric's name in :class:`Metrics`; NaN where undefined.
    """
    return resampled_metrics_and_froc(pooled, weights, ())[0]


def resampled_map_by(
    cases: Sequence[CaseResult], pooled: Pooled, rules: EvaluationRules, name: str, weights: NDArray[np.integer]
) -> NDArray[np.float64]:
    """The average precision by a confidence that ranks, as :func:`resampled_metrics` resamples it, (B,).

    ``pooled`` are the same cases.
    """
    detections = detections_by(cases, rules, name)
    return resampled_curves(detections, weights, pooled.totals["cases"], AVERAGE_RECALL_MAX_FP).average_precision


def resampled_metrics_and_froc(
    pooled: Pooled, weights: NDArray[np.integer], fp_per_case: Sequence[float]
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """The metrics, and the FROC read at numbers of false positives per case: (B, F), (B, 0) without a ranking."""
    metrics = _resampled_ratios(pooled, weights)
    nothing = np.full(len(weights), np.nan)
    # Hard labels whose candidates are ranked by their size have curves, but no histogram.
    metrics["lesion_entropy_bits"] = (
        entropy_of_rows(weights @ pooled.histograms) if pooled.has_probabilities else nothing
    )
    if not pooled.ranked:
        undefined = {"map": nothing, "average_recall": nothing, "patient_auc": nothing}
        return {**metrics, **undefined}, np.zeros((len(weights), 0))
    curves = resampled_curves(pooled.detections, weights, pooled.totals["cases"], AVERAGE_RECALL_MAX_FP, fp_per_case)
    metrics["map"], metrics["average_recall"] = curves.average_precision, curves.average_recall
    metrics["patient_auc"] = resampled_roc_area(pooled.scores, weights)
    return metrics, curves.sensitivity_at


def _resampled_ratios(pooled: Pooled, weights: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
    """Of :func:`resampled_metrics` those that need no confidences."""
    totals = pooled.totals
    ratios = {name: resampled_ratio(weights, totals[top], totals[bottom]) for name, (top, bottom) in _EVERY.items()}
    ratios["f1"] = _f1(ratios["max_sensitivity"], ratios["precision_at_max_sensitivity"])
    return ratios


def _f1(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonic mean; NaN: undefined. Where lesions or candidates exist and nothing is right, it is 0, though one of the
    two may be undefined.
    """
    wrong = np.nan_to_num(recall) + np.nan_to_num(precision) == 0
    defined = ~(np.isnan(recall) & np.isnan(precision))
    f1 = np.where(wrong & defined, 0.0, np.nan)
    np.divide(2 * recall * precision, recall + precision, out=f1, where=~wrong)
    return f1


def f1_score(recall: float | None, precision: float | None) -> float | None:
    """Harmonic mean; 0 where nothing is right, None where neither is defined.

    Example:
        >>> f1_score(0.5, 1.0), f1_score(0.0, None), f1_score(None, None)
        (0.6666666666666666, 0.0, None)
    """
    as_array = [np.array([np.nan if value is None else value]) for value in (recall, precision)]
    f1 = float(_f1(as_array[0], as_array[1])[0])
    return None if np.isnan(f1) else f1


def plain_ratios(pooled: Pooled) -> dict[str, float | None]:
    """The ratios, those of patients too, and F1 over all patients; None where undefined."""
    values = _resampled_ratios(pooled, np.ones((1, len(pooled.patients)), np.int64))
    return {name: None if np.isnan(value[0]) else float(value[0]) for name, value in values.items()}


def each_patient_alone(pooled: Pooled, n_at_a_time: int = 256) -> dict[str, NDArray[np.float64]]:
    """The metrics of each patient, some patients at a time: the rows of a unit matrix would fill the memory."""
    n = len(pooled.patients)
    blocks = []
    for start in range(0, n, n_at_a_time):
        chosen = np.arange(start, min(start + n_at_a_time, n))
        weights = np.zeros((len(chosen), n), np.int64)
        weights[chosen - start, chosen] = 1
        blocks.append(resampled_metrics(pooled, weights))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
