"""Why a number of an evaluation is undefined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nnunet_lopsided.evaluation.intervals import Interval
from nnunet_lopsided.evaluation.patient_roc import NO_FREE_PATIENT, NO_PATIENT
from nnunet_lopsided.evaluation.pooling import Pooled
from nnunet_lopsided.evaluation.strata import AnnotationGroup, DiameterBin
from nnunet_lopsided.evaluation.surface_summary import NO_DETECTED, SurfaceSummary

NO_LESIONS = "there are no reference lesions"
NO_MAXIMUM = "the tables do not tell the highest probability of the candidates"
NO_PROBABILITIES = "the predictions are hard labels; a curve over confidences needs probabilities"


def reasons_of_metrics(pooled: Pooled) -> dict[str, str]:
    """Why a metric is undefined, if it is."""
    soft = pooled.has_probabilities
    no_area = NO_LESIONS if pooled.ranked else NO_PROBABILITIES
    no_free_case = "every case has a lesion"
    no_roc = (
        (NO_PATIENT if pooled.scores.without_lesion.any() else NO_FREE_PATIENT) if pooled.ranked else NO_PROBABILITIES
    )
    no_voxels = "neither reference nor prediction has a voxel in any case"
    return {
        "map": no_area,
        "average_recall": no_area,
        "max_sensitivity": NO_LESIONS,
        "precision_at_max_sensitivity": "there are no candidates",
        "tp_dice": NO_DETECTED,
        "lesion_entropy_bits": "no lesion voxel has a predicted probability" if soft else NO_PROBABILITIES,
        "f1": "there are neither lesions nor candidates",
        "lesion_wise_dice": "there are neither lesions nor false positives",
        "lesion_wise_dice_case_mean": "no case has lesions or false positives",
        "false_positives_per_lesion_free_case": no_free_case,
        "false_positive_volume_mm3_per_lesion_free_case": no_free_case,
        "smallest_detected_diameter_mm": NO_DETECTED,
        "voxel_dice": no_voxels,
        "voxel_dice_pooled": no_voxels,
        "voxel_dice_at_threshold": no_voxels,
        "patient_auc": no_roc,
        "patient_sensitivity": NO_PATIENT,
        "patient_specificity": NO_FREE_PATIENT,
    }


def undefined_metrics(
    metrics: Mapping[str, object], intervals: Mapping[str, Interval], reasons: Mapping[str, str]
) -> dict[str, str]:
    """The reason by name of every metric and interval that is undefined, under its name in summary.json.

    Args:
        metrics: an evaluation's, by name.
        intervals: its further intervals, by name.
        reasons: of :func:`reasons_of_metrics`.
    """
    undefined = {}
    for name, value in {**metrics, **intervals}.items():
        if isinstance(value, Interval):
            if value.undefined is not None:
                undefined[name if name in metrics else f"{name}_ci95"] = value.undefined
        elif value is None:
            undefined[name] = reasons[name]
    return undefined


def undefined_shares(table: str, groups: Sequence[DiameterBin | AnnotationGroup], no_lesion: str) -> dict[str, str]:
    """Why something in a table of sensitivities is undefined, each reason once."""
    undefined: dict[str, str] = {}
    if any(group.sensitivity is None for group in groups):
        undefined |= {f"{table}.sensitivity": no_lesion, f"{table}.sensitivity_ci95_wilson": no_lesion}
    # A dict, not a set: in the order of the groups.
    reasons = dict.fromkeys(g.bootstrap.undefined for g in groups if g.bootstrap.undefined is not None)
    if reasons:
        undefined[f"{table}.sensitivity_ci95_bootstrap"] = "; ".join(reasons)
    return undefined


def undefined_surfaces(surface: SurfaceSummary) -> dict[str, str]:
    """Why something of ``surface_distances`` is undefined, under its name in summary.json."""
    undefined: dict[str, str] = {}
    for name, average in (("hd95_mm", surface.hd95_mm), ("nsd", surface.nsd)):
        for of_lesions, value in (("mean", average.mean), ("median", average.median)):
            if value is None:
                undefined[f"surface_distances.{name}.{of_lesions}"] = NO_DETECTED
        if average.interval.undefined is not None:
            undefined[f"surface_distances.{name}.mean_ci95_bootstrap"] = average.interval.undefined
    return undefined
