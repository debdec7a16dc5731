"""From the tables of all cases to the numbers of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.by_volume import VolumeGroup, small_and_large
from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.confidence import BY_SIZE, PLAIN
from nnunet_lopsided.evaluation.curves import (
    MatchedSensitivity,
    OperatingPoints,
    average_precision,
    average_recall,
    operating_points,
    sensitivity_at,
)
from nnunet_lopsided.evaluation.intervals import Detections, Interval, hanley_mcneil, wilson
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.metrics import AVERAGE_RECALL_MAX_FP, RATIOS, each_patient_alone, plain_ratios
from nnunet_lopsided.evaluation.patient_roc import RocPoints, patient_intervals, roc_points
from nnunet_lopsided.evaluation.pooling import detections_by, pool
from nnunet_lopsided.evaluation.replicates import Replicates, subsampled_average_recall
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.strata import (
    AnnotationGroup,
    DiameterBin,
    sensitivity_by_diameter,
    shannon_entropy_bits,
)
from nnunet_lopsided.evaluation.surface_summary import SurfaceSummary, summarize_surfaces
from nnunet_lopsided.evaluation.undefined import (
    NO_LESIONS,
    NO_MAXIMUM,
    NO_PROBABILITIES,
    reasons_of_metrics,
    undefined_metrics,
    undefined_shares,
    undefined_surfaces,
)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Over all cases. Candidates are true positives, false positives and duplicates, whatever the policy for these;
    those that match only lesions that do not count are none of them (:attr:`Summary.n_ignored_candidates`).
    """

    cases: int
    reference_lesions: int
    candidates: int
    true_positives: int
    false_positives: int
    duplicates: int
    missed_lesions: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The numbers of an evaluation; None where undefined (:attr:`Summary.undefined` says why).

    The first eight are those of Yi et al. (2020), section 3.4.

    Attributes:
        map: average precision over all candidates of all cases, within [0, 1].
        map_ci95_hanley_mcneil: its interval by formula.
        map_ci95_bootstrap: its interval by resampling patients.
        max_sensitivity: detected share of the lesions when every candidate is accepted; counted from the matches.
        precision_at_max_sensitivity: true share of the candidates then.
        false_positives_per_case: then, over all cases, with lesions or not.
        tp_dice: Dice between lesion and detecting candidate, averaged over detected lesions.
        lesion_entropy_bits: Shannon entropy of the histogram of probabilities over reference-lesion voxels.
        f1: harmonic mean of ``max_sensitivity`` and ``precision_at_max_sensitivity``.
        lesion_wise_dice: sum of the Dice of detected lesions over the number of lesions and false positives: missed
            lesions and false positives count 0.
        lesion_wise_dice_case_mean: the same per case, averaged over cases with lesions or false positives.
        average_recall: mean sensitivity over 0 to 5 false positives per case.
        false_positives_per_lesion_free_case: over cases without any reference lesion.
        false_positive_volume_mm3_per_case: (2D: mm2).
        false_positive_volume_mm3_per_lesion_free_case: (2D: mm2).
        smallest_detected_diameter_mm: of a sphere (2D: circle) of equal volume.
        voxel_dice: of the segmentation, averaged over cases in which reference or segmentation has a voxel, as nnU-Net
            averages it.
        voxel_dice_pooled: of the segmentation, from the voxels of all cases.
        voxel_dice_at_threshold: of the candidates' voxels, averaged as ``voxel_dice``.
        patient_auc: area under the ROC curve of patients with and without lesions, by their most confident candidates.
        patient_sensitivity: share of the patients with lesions who have any candidate, right or wrong.
        patient_specificity: share of the patients without lesions who have none.
        map_by_confidence: ``map`` by every confidence by its name, candidates matched anew by each.
    """

    map: float | None
    map_ci95_hanley_mcneil: Interval
    map_ci95_bootstrap: Interval
    max_sensitivity: float | None
    precision_at_max_sensitivity: float | None
    false_positives_per_case: float | None
    tp_dice: float | None
    lesion_entropy_bits: float | None
    f1: float | None
    lesion_wise_dice: float | None
    lesion_wise_dice_case_mean: float | None
    average_recall: float | None
    false_positives_per_lesion_free_case: float | None
    false_positive_volume_mm3_per_case: float | None
    false_positive_volume_mm3_per_lesion_free_case: float | None
    smallest_detected_diameter_mm: float | None
    voxel_dice: float | None
    voxel_dice_pooled: float | None
    voxel_dice_at_threshold: float | None
    patient_auc: float | None
    patient_sensitivity: float | None
    patient_specificity: float | None
    map_by_confidence: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Everything computed over all cases.

    Attributes:
        metrics: the metrics.
        counts: the counts behind them.
        undefined: reason by name of every metric and interval that is None, under its name in summary.json
            (``TABLE.NAME`` for what is None in any row of a table).
        intervals: further 95% intervals by name.
        by_diameter: sensitivity by diameter, smallest first.
        by_volume: small and large lesions scored apart; empty unless ``rules.small_below_mm3`` asks for it.
        by_annotation: sensitivity on lesions that an incomplete reference kept and lacks; empty without one.
        points: the curves at every distinct confidence; None for hard labels without a confidence that ranks.
        patient_roc: the ROC curve of patients; None as ``points``, and where all patients have lesions, or none.
        sensitivity_at_fp: the FROC read at ``rules.fp_per_case``, each with its bootstrap interval; empty where
            undefined.
        average_recall_subsampled: mean and standard deviation of the average recall when 80% of the patients are drawn
            without replacement; None where undefined.
        lesion_histogram: of the probabilities of all lesion voxels, (bins,); None without probabilities.
        patients: names of the units of the bootstrap.
        per_patient: the metrics of each patient alone, arrays of shape (n_patients,), NaN where undefined, by name.
        patient_confidence: the highest of each patient's candidates, (n_patients,); NaN without any, or a ranking.
        n_patients_with_lesions, n_patients_without_lesions: what the ROC curve tells apart.
        n_cases_with_lesions: cases with at least one reference lesion.
        n_false_positives_on_lesions: false positives that share a voxel with a lesion, as rings around one do.
        n_missed_but_covered: missed lesions of which candidates cover at least half (``CaseResult.covered_by``).
        n_merges: candidates that share voxels with several lesions.
        n_ignored_lesions: lesions too small to count.
        n_ignored_candidates: candidates that match nothing but such lesions.
        n_dropped_candidates: candidates of fewer voxels than ``rules.min_candidate_voxels``.
        n_defined_replicates: bootstrap replicates in which the average precision is defined.
        surface: HD95 and NSD of the detected lesions; None: they were not asked for.
    """

    metrics: Metrics
    counts: Counts
    undefined: dict[str, str]
    intervals: dict[str, Interval]
    by_diameter: tuple[DiameterBin, ...]
    by_volume: tuple[VolumeGroup, ...]
    by_annotation: tuple[AnnotationGroup, ...]
    points: OperatingPoints | None
    patient_roc: RocPoints | None
    sensitivity_at_fp: tuple[tuple[MatchedSensitivity, Interval], ...]
    average_recall_subsampled: tuple[float, float] | None
    lesion_histogram: NDArray[np.int64] | None
    patients: tuple[str, ...]
    per_patient: dict[str, NDArray[np.float64]]
    patient_confidence: NDArray[np.float64]
    n_patients_with_lesions: int
    n_patients_without_lesions: int
    n_cases_with_lesions: int
    n_false_positives_on_lesions: int
    n_missed_but_covered: int
    n_merges: int
    n_ignored_lesions: int
    n_ignored_candidates: int
    n_dropped_candidates: int
    n_defined_replicates: int
    surface: SurfaceSummary | None = None

    @property
    def n_patients(self) -> int:
        """Units of the bootstrap."""
        return len(self.patients)


def summarize(cases: Sequence[CaseResult], rules: EvaluationRules, n_replicates: int = 2000, seed: int = 0) -> Summary:
    """Pool the cases and compute every metric.

    Candidates of all cases are ranked together, as the paper does; what is averaged over cases says so.

    Args:
        cases: at least one.
        rules: those the cases were evaluated with.
        n_replicates: bootstrap replicates; 0: no bootstrap.
        seed: of the bootstrap.

    Returns:
        The summary; curves and average precision are None when any prediction is a hard label map and size has no part
        in the confidence.

    Raises:
        ValueError: ``cases`` is empty.

    Example:
        >>> from nnunet_lopsided.evaluation import evaluate_case
        >>> reference = np.zeros((3, 8, 8), bool)
        >>> reference[1, 2:4, 2:4] = reference[1, 6, 6] = True
        >>> case = evaluate_case(reference, np.where(reference, 0.75, 0.0) * (np.arange(8) < 5), (1, 1, 1))
        >>> summary = summarize([case], EvaluationRules(), n_replicates=0)
        >>> summary.metrics.map, summary.metrics.max_sensitivity, summary.undefined["map_ci95_bootstrap"]
        (0.5, 0.5, 'the bootstrap was switched off')
    """
    if not cases:
        raise ValueError("cases must not be empty")
    pooled = pool(cases, rules)
    d = pooled.detections
    n_lesions, n_false = int(pooled.totals["lesions"].sum()), len(d.false_confidence)
    points = area = recall = histogram = roc = None
    matched: tuple[MatchedSensitivity, ...] = ()
    if pooled.has_probabilities:
        histogram = pooled.histograms.sum(axis=0)
    if pooled.ranked:
        points = _points(d, n_lesions, len(cases))
        area, recall = average_precision(points), average_recall(points, AVERAGE_RECALL_MAX_FP)
        roc = roc_points(pooled.scores)
        matched = sensitivity_at(points, rules.fp_per_case)
    replicates = Replicates.draw(pooled, rules, n_replicates, seed)
    reasons = reasons_of_metrics(pooled)
    no_area = Interval.without(reasons["map"])
    by_confidence, no_map_by = _map_by_confidence(cases, rules)
    sizes = pooled.detected_diameter_mm
    metrics = Metrics(
        map=area,
        # A sum of many steps may exceed 1 by a rounding.
        map_ci95_hanley_mcneil=no_area if area is None else hanley_mcneil(min(area, 1.0), n_lesions, n_false),
        map_ci95_bootstrap=no_area if area is None else replicates.interval("map"),
        lesion_entropy_bits=None if histogram is None else shannon_entropy_bits(histogram),
        average_recall=recall,
        smallest_detected_diameter_mm=float(sizes.min()) if len(sizes) else None,
        patient_auc=None if roc is None else roc.area,
        map_by_confidence=by_confidence,
        **plain_ratios(pooled),
    )
    intervals = {f"{name}_bootstrap": replicates.interval(name) for name in (*RATIOS, "f1")}
    # Not of the entropy: repeated patients lower it, so that the interval may lie below the value.
    if pooled.ranked:
        intervals["average_recall_bootstrap"] = replicates.interval("average_recall")
    intervals["max_sensitivity_wilson"] = wilson(int(pooled.totals["detected"].sum()), n_lesions)
    intervals |= patient_intervals(pooled.scores, metrics.patient_auc)
    by_diameter = sensitivity_by_diameter(
        pooled.lesion_diameter_mm, pooled.lesion_detected, rules.diameter_edges_mm, replicates.by_diameter()
    )
    by_annotation = replicates.by_annotation()
    at_fp = tuple(zip(matched, replicates.at_fp(len(matched)), strict=True))
    undefined = {
        **undefined_metrics(vars(metrics), intervals, reasons),
        **no_map_by,
        **undefined_shares("by_diameter", by_diameter, "the bin has no lesion"),
        **undefined_shares("by_annotation", by_annotation, "the group has no lesion"),
    }
    surface = None
    if rules.surface_distances:
        surface = summarize_surfaces(cases, pooled, rules.nsd_tolerance_mm, n_replicates, seed)
        undefined |= undefined_surfaces(surface)
    if any(interval.undefined for _, interval in at_fp):
        # The same patients contribute at every number, so that all have the first one's reason.
        undefined["sensitivity_at_fp_per_case.sensitivity_ci95_bootstrap"] = at_fp[0][1].undefined or ""
    return Summary(
        metrics=metrics,
        counts=_counts(cases),
        undefined=undefined,
        intervals=intervals,
        by_diameter=by_diameter,
        by_volume=small_and_large(cases, rules.small_below_mm3) if rules.small_below_mm3 else (),
        by_annotation=by_annotation,
        points=points,
        patient_roc=roc,
        sensitivity_at_fp=at_fp,
        average_recall_subsampled=subsampled_average_recall(pooled, n_replicates, seed),
        lesion_histogram=histogram,
        patients=pooled.patients,
        per_patient=each_patient_alone(pooled),
        patient_confidence=np.where(pooled.scores.called & pooled.ranked, pooled.scores.confidence, np.nan),
        n_patients_with_lesions=int(pooled.scores.with_lesion.sum()),
        n_patients_without_lesions=int(pooled.scores.without_lesion.sum()),
        n_cases_with_lesions=sum(len(case.lesions) > 0 for case in cases),
        n_false_positives_on_lesions=sum(case.n_false_positives_on_lesions for case in cases),
        n_missed_but_covered=sum(int((case.covered_by > 0).sum()) for case in cases),
        n_merges=sum(case.n_merges for case in cases),
        n_ignored_lesions=sum(len(case.lesions) - case.n_lesions for case in cases),
        n_ignored_candidates=sum(case.count(Status.IGNORED) for case in cases),
        n_dropped_candidates=sum(case.n_dropped for case in cases),
        n_defined_replicates=replicates.n_defined("map"),
        surface=surface,
    )


def _points(d: Detections, n_lesions: int, n_cases: int) -> OperatingPoints:
    return operating_points(
        lesion_confidence=d.lesion_confidence,
        true_confidence=d.true_confidence,
        false_confidence=d.false_confidence,
        n_lesions=n_lesions,
        n_cases=n_cases,
    )


def _map_by_confidence(
    cases: Sequence[CaseResult], rules: EvaluationRules
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The average precision by every confidence that all cases have, and why it is undefined where it is."""
    hard = any(case.kind == "labels" for case in cases)
    n_lesions = sum(case.n_lesions for case in cases)
    areas: dict[str, float | None] = {}
    undefined = {}
    for name in PLAIN if any(case.scores.learned is None for case in cases) else (*PLAIN, "learned"):
        unknown = name == "max" and any(np.isnan(case.scores.highest).any() for case in cases)
        reason = NO_PROBABILITIES if hard and name not in BY_SIZE else NO_MAXIMUM if unknown else ""
        areas[name] = None
        if not reason and n_lesions:
            areas[name] = average_precision(_points(detections_by(cases, rules, name), n_lesions, len(cases)))
        if areas[name] is None:
            undefined[f"map_by_confidence.{name}"] = reason or NO_LESIONS
    return areas, undefined


def _counts(cases: Sequence[CaseResult]) -> Counts:
    return Counts(
        cases=len(cases),
        reference_lesions=sum(case.n_lesions for case in cases),
        candidates=sum(len(case.candidates) for case in cases),
        true_positives=sum(case.count(Status.TRUE_POSITIVE) for case in cases),
        false_positives=sum(case.count(Status.FALSE_POSITIVE) for case in cases),
        duplicates=sum(case.count(Status.DUPLICATE) for case in cases),
        missed_lesions=sum(int(case.missed.sum()) for case in cases),
    )
