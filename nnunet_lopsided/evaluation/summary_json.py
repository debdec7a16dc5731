"""The content of summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields

import nnunet_lopsided
from nnunet_lopsided.evaluation.by_volume import VolumeGroup
from nnunet_lopsided.evaluation.case import SEGMENTATION_THRESHOLD
from nnunet_lopsided.evaluation.confidence import BY_SIZE, CONFIDENCE_DECIMALS, SUM_DECIMALS, TITLES
from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.inputs import patients_table
from nnunet_lopsided.evaluation.intervals import Interval
from nnunet_lopsided.evaluation.metrics import AVERAGE_RECALL_MAX_FP
from nnunet_lopsided.evaluation.patient_roc import RocPoints
from nnunet_lopsided.evaluation.strata import AnnotationGroup, DiameterBin
from nnunet_lopsided.evaluation.summary import Summary
from nnunet_lopsided.evaluation.summary_content import (
    AverageContent,
    CurvesContent,
    DiameterBinContent,
    Ends,
    HistogramContent,
    MetricsContent,
    PatientRocContent,
    ShareContent,
    SpreadContent,
    SurfaceContent,
    ThresholdContent,
    VolumeGroupContent,
)
from nnunet_lopsided.evaluation.summary_content import (
    SummaryContent as SummaryContent,
)
from nnunet_lopsided.evaluation.surface_summary import SurfaceSummary

SCHEMA_VERSION = 1
_BY_CONFIDENCE = "map_by_confidence"


def summary_dict(result: FolderResult) -> SummaryContent:
    """The content of summary.json: plain JSON types, None for what is undefined, never NaN."""
    summary = result.summary
    content: SummaryContent = {
        "schema_version": SCHEMA_VERSION,
        "metrics": _metrics(summary),
        "undefined": summary.undefined,
        "counts": asdict(summary.counts),
        "intervals": {f"{name}_ci95": value.ends for name, value in summary.intervals.items()},
        "by_diameter": [_diameter_bin(b) for b in summary.by_diameter],
        "by_annotation": [{"annotation": g.name, **_share(g)} for g in summary.by_annotation] or None,
        "by_volume": [_volume_group(group) for group in summary.by_volume] or None,
        "by_threshold": [_threshold(threshold, s) for threshold, s in result.by_threshold],
        "sensitivity_at_fp_per_case": [
            {
                "fp_per_case": matched.fp_per_case,
                "sensitivity": matched.sensitivity,
                "threshold": matched.threshold,
                "sensitivity_ci95_bootstrap": interval.ends,
            }
            for matched, interval in summary.sensitivity_at_fp
        ],
        "average_recall_80_percent": _subsampled(summary),
        "lesion_histogram": _histogram(summary, result.rules.probability_bins),
        "curves": _curves(summary),
        "details": {
            "patients": summary.n_patients,
            "patients_with_lesions": summary.n_patients_with_lesions,
            "patients_without_lesions": summary.n_patients_without_lesions,
            "cases_with_lesions": summary.n_cases_with_lesions,
            "false_positives_on_lesions": summary.n_false_positives_on_lesions,
            "missed_but_covered": summary.n_missed_but_covered,
            "merges": summary.n_merges,
            "ignored_lesions": summary.n_ignored_lesions,
            "ignored_candidates": summary.n_ignored_candidates,
            "dropped_candidates": summary.n_dropped_candidates,
            "probabilities_look_hard": result.looks_hard,
            "probabilities_look_swapped": list(result.look_swapped),
            "defined_bootstrap_replicates": summary.n_defined_replicates,
            "missing_predictions": list(result.missing_predictions),
            "predictions_without_reference": list(result.unreferenced_predictions),
            "skipped": [{"case": skipped.case, "problem": skipped.problem} for skipped in result.skipped],
        },
        "settings": _settings(result),
    }
    if summary.surface is not None:
        content["surface_distances"] = _surface(summary.surface)
    if result.rules.instances != "none":
        content["instances"] = {
            "lesions_in_pieces": result.lesions_in_pieces if result.rules.reference_instances else None,
            "candidates_in_pieces": result.candidates_in_pieces if result.rules.predicted_instances else None,
        }
    return content


def _threshold(threshold: float, summary: Summary) -> ThresholdContent:
    content: ThresholdContent = {"threshold": threshold, "metrics": _metrics(summary), "counts": asdict(summary.counts)}
    if summary.surface is not None:
        content["surface_distances"] = _surface(summary.surface)
    return content


def _surface(surface: SurfaceSummary) -> SurfaceContent:
    hd95, nsd = (
        AverageContent(mean=a.mean, median=a.median, mean_ci95_bootstrap=a.interval.ends)
        for a in (surface.hd95_mm, surface.nsd)
    )
    return {
        "nsd_tolerance_mm": surface.tolerance_mm,
        "lesions": surface.n_lesions,
        "missed_lesions": surface.n_missed,
        "hd95_mm": hd95,
        "nsd": nsd,
    }


def _metrics(summary: Summary) -> MetricsContent:
    return {name: value.ends if isinstance(value, Interval) else value for name, value in vars(summary.metrics).items()}


def flat_metrics(metrics: MetricsContent) -> dict[str, float | None]:
    """The metrics of summary.json that are numbers, by name, with those by confidence one by one: ``map_by_mean``, ...

    Intervals are left out.

    Example:
        >>> flat_metrics({"map": 0.5, "map_ci95_bootstrap": None, "map_by_confidence": {"mean": 0.5, "sum": 1.0}})
        {'map': 0.5, 'map_by_mean': 0.5, 'map_by_sum': 1.0}
    """
    numbers: dict[str, float | None] = {}
    for name, value in metrics.items():
        if name != _BY_CONFIDENCE and not _is_interval(name):
            assert value is None or isinstance(value, int | float), "every other metric is a number"
            numbers[name] = value
    return numbers | {f"map_by_{name}": value for name, value in map_by_confidence(metrics).items()}


def map_by_confidence(metrics: MetricsContent) -> Mapping[str, float | None]:
    """The average precision by every confidence, by its name; evaluations of older versions have none."""
    by_name = metrics.get(_BY_CONFIDENCE, {})
    assert isinstance(by_name, Mapping), "it is a mapping of its own"
    return by_name


def metric_intervals(metrics: MetricsContent) -> dict[str, Ends]:
    """The intervals among the metrics of summary.json, by name.

    Example:
        >>> metric_intervals({"map": 0.5, "map_ci95_bootstrap": [0.25, 0.75], "map_by_confidence": {"mean": 0.5}})
        {'map_ci95_bootstrap': [0.25, 0.75]}
    """
    intervals: dict[str, Ends] = {}
    for name, value in metrics.items():
        if _is_interval(name):
            assert value is None or isinstance(value, list), "an interval is its ends"
            intervals[name] = value
    return intervals


def _is_interval(name: str) -> bool:
    return "_ci95" in name


def _subsampled(summary: Summary) -> SpreadContent | None:
    if summary.average_recall_subsampled is None:
        return None
    mean, deviation = summary.average_recall_subsampled
    return {"mean": mean, "standard_deviation": deviation}


def _histogram(summary: Summary, n_bins: int) -> HistogramContent | None:
    if summary.lesion_histogram is None:
        return None
    return {"edges": [i / n_bins for i in range(n_bins + 1)], "counts": summary.lesion_histogram.tolist()}


def _diameter_bin(b: DiameterBin) -> DiameterBinContent:
    return {"lower_mm": b.lower_mm, "upper_mm": b.upper_mm, **_share(b)}


def _volume_group(group: VolumeGroup) -> VolumeGroupContent:
    return {
        "name": group.name,
        "lesions": group.lesions,
        "detected": group.detected,
        "f1_case_mean": group.f1_case_mean,
        "sensitivity_case_mean": group.sensitivity_case_mean,
        "precision_case_mean": group.precision_case_mean,
        "lesion_wise_dice_case_mean": group.lesion_wise_dice_case_mean,
    }


def _share(group: DiameterBin | AnnotationGroup) -> ShareContent:
    return {
        "lesions": group.n_lesions,
        "detected": group.n_detected,
        "sensitivity": group.sensitivity,
        "sensitivity_ci95_wilson": group.interval.ends,
        "sensitivity_ci95_bootstrap": group.bootstrap.ends,
    }


def _curves(summary: Summary) -> CurvesContent:
    points = summary.points
    if points is None:
        return {"pr": None, "froc": None, "patient_roc": None}
    # Both curves are exact by their corners, and a large evaluation has tens of thousands of points.
    corners = points.corners()
    threshold = corners.threshold.tolist()
    sensitivity = corners.sensitivity.tolist() if corners.n_lesions else [None] * len(threshold)
    return {
        "pr": {
            "threshold": threshold,
            "true_positives": corners.n_true.tolist(),
            "false_positives": corners.n_false.tolist(),
            "recall": sensitivity,
            "precision": corners.precision.tolist(),
        },
        "froc": {
            "threshold": threshold,
            "false_positives_per_case": corners.false_positives_per_case.tolist(),
            "sensitivity": sensitivity,
        },
        "patient_roc": _patient_roc(summary.patient_roc),
    }


def _patient_roc(points: RocPoints | None) -> PatientRocContent | None:
    if points is None:
        return None
    return {
        "threshold": points.threshold.tolist(),
        "false_positive_rate": points.false_positive_rate.tolist(),
        "sensitivity": points.sensitivity.tolist(),
    }


def _settings(result: FolderResult) -> dict[str, object]:
    inputs, rules = result.inputs, result.rules
    table = patients_table(inputs)
    several = any(case.patient != case.case for case in result.cases)
    by_name = {f.name: _plain(getattr(rules, f.name)) for f in fields(rules) if f.name not in rules.unused}
    return {
        "version": nnunet_lopsided.__version__,
        "references": str(inputs.references),
        "censored_references": None if inputs.censored_references is None else str(inputs.censored_references),
        "predictions": str(inputs.predictions),
        "folds": None if inputs.folds is None else list(inputs.folds),
        "label": inputs.label if inputs.label is not None else "all foreground",
        "dataset_json": None if inputs.dataset_json is None else str(inputs.dataset_json),
        "hard_labels": inputs.hard_labels,
        "allow_missing": inputs.allow_missing,
        "skip_bad": inputs.skip_bad,
        "patients_regex": inputs.patients_regex,
        **({} if table is None else {"patients_table": str(table)}),
        "cases": None if inputs.cases is None else list(inputs.cases),
        **by_name,
        "profile_changes": {name: _plain(value) for name, value in rules.changes.items()},
        "connectivity": rules.connectivity if rules.connectivity is not None else {"3d": 26, "2d": 8},
        "thresholds": [threshold for threshold, _ in result.by_threshold] or [rules.threshold],
        "threshold_rule": "p >= threshold, the threshold cast to the type of p",
        "match_rule": rules.match_in_words,
        "segmentation_rule": f"the predicted label map, or where there is none p >= {SEGMENTATION_THRESHOLD}",
        "confidence_rule": f"{TITLES[rules.confidence]}, rounded to "
        f"{SUM_DECIMALS if rules.confidence in BY_SIZE else CONFIDENCE_DECIMALS} decimals",
        "confidence_model": None if result.confidence_model is None else str(result.confidence_model.path),
        "confidence_model_has_seen": list(result.seen),
        "average_precision": "step-wise, equal confidences in one point",
        "average_recall_max_fp_per_case": AVERAGE_RECALL_MAX_FP,
        "bootstrap_replicates": result.n_replicates,
        "bootstrap_unit": "case" if inputs.patients_regex is None and not several else "patient",
        "seed": result.seed,
    }


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
