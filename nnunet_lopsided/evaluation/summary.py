"""From the tables of all cases to the numbers of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.case import CaseResult
from nnunet_lopsided.evaluation.confidence import BY_SIZE, PLAIN
from nnunet_lopsided.evaluation.curves import (
    MatchedSensitivity,
    OperatingPoints,
    average_precision,
    average_recall,
    operating_points,
    sensitivity_at,
)
from nnunet_lopsided.evaluation.intervals import (
    Interval,
    hanley_mcneil,
    patient_weights,
    percentile_interval,
    resampled_curves,
    resampled_ratio,
    subsample_weights,
    why_no_bootstrap,
    wilson,
)
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.pooling import Pooled, detections_by, lesions_by_patient, pool
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.strata import (
    ANNOTATION_GROUPS,
    AnnotationGroup,
    DiameterBin,
    diameter_bin,
    entropy_of_rows,
    sensitivity_by_diameter,
    shannon_entropy_bits,
)

NO_LESIONS = "there are no reference lesions"
NO_MAXIMUM = "the tables do not tell the highest probability of the candidates"
NO_PROBABILITIES = "the predictions are hard labels; a curve over confidences needs probabilities"
# The end of the average recall, and the share of patients drawn for its spread, of Shirokikh et al. (2020).
AVERAGE_RECALL_MAX_FP = 5.0
SUBSAMPLED_SHARE = 0.8


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
    map_by_confidence: Mapping[str, float | None]


@dataclass(frozen=True)
class Summary:
    """Everything computed over all cases.

    Attributes:
        metrics: the metrics.
        counts: the counts behind them.
        undefined: reason by name of every metric and interval that is None, under its name in summary.json
            (``TABLE.NAME`` for what is None in any row of a table).
        intervals: further 95% intervals by name.
        by_diameter: sensitivity by diameter, smallest first.
        by_annotation: sensitivity on lesions that an incomplete reference kept and lacks; empty without one.
        points: the curves at every distinct confidence; None for hard labels without a confidence that ranks.
        sensitivity_at_fp: the FROC read at ``rules.fp_per_case``, each with its bootstrap interval; empty where
            undefined.
        average_recall_subsampled: mean and standard deviation of the average recall when 80% of the patients are drawn
            without replacement; None where undefined.
        lesion_histogram: of the probabilities of all lesion voxels, (bins,); None without probabilities.
        patients: names of the units of the bootstrap.
        per_patient: the metrics of each patient alone, arrays of shape (n_patients,), NaN where undefined, by name.
        n_cases_with_lesions: cases with at least one reference lesion.
        n_false_positives_on_lesions: false positives that share a voxel with a lesion, as rings around one do.
        n_merges: candidates that share voxels with several lesions.
        n_ignored_lesions: lesions too small to count.
        n_ignored_candidates: candidates that match nothing but such lesions.
        n_dropped_candidates: candidates of fewer voxels than ``rules.min_candidate_voxels``.
        n_defined_replicates: bootstrap replicates in which the average precision is defined.
    """

    metrics: Metrics
    counts: Counts
    undefined: dict[str, str]
    intervals: dict[str, Interval]
    by_diameter: tuple[DiameterBin, ...]
    by_annotation: tuple[AnnotationGroup, ...]
    points: OperatingPoints | None
    sensitivity_at_fp: tuple[tuple[MatchedSensitivity, Interval], ...]
    average_recall_subsampled: tuple[float, float] | None
    lesion_histogram: NDArray[np.int64] | None
    patients: tuple[str, ...]
    per_patient: dict[str, NDArray[np.float64]]
    n_cases_with_lesions: int
    n_false_positives_on_lesions: int
    n_merges: int
    n_ignored_lesions: int
    n_ignored_candidates: int
    n_dropped_candidates: int
    n_defined_replicates: int

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
    points = area = recall = histogram = None
    matched: tuple[MatchedSensitivity, ...] = ()
    if pooled.has_probabilities:
        histogram = pooled.histograms.sum(axis=0)
    if pooled.ranked:
        points = operating_points(d.lesion_confidence, d.true_confidence, d.false_confidence, n_lesions, len(cases))
        area, recall = average_precision(points), average_recall(points, AVERAGE_RECALL_MAX_FP)
        matched = sensitivity_at(points, rules.fp_per_case)
    replicates = _Replicates.draw(pooled, rules, n_replicates, seed)
    reasons = _reasons(pooled)
    no_area = Interval.without(reasons["map"])
    by_confidence, no_map_by = _map_by_confidence(cases, rules)
    sizes = pooled.detected_diameter_mm
    metrics = Metrics(
        map=area,
        map_ci95_hanley_mcneil=no_area if area is None else hanley_mcneil(min(area, 1.0), n_lesions, n_false),
        map_ci95_bootstrap=no_area if area is None else replicates.interval("map"),
        lesion_entropy_bits=None if histogram is None else shannon_entropy_bits(histogram),
        average_recall=recall,
        smallest_detected_diameter_mm=float(sizes.min()) if len(sizes) else None,
        map_by_confidence=by_confidence,
        **_plain_ratios(pooled),
    )
    intervals = {f"{name}_bootstrap": replicates.interval(name) for name in (*RATIOS, "f1")}
    # Not of the entropy: repeated patients lower it, so that the interval may lie below the value.
    if pooled.ranked:
        intervals["average_recall_bootstrap"] = replicates.interval("average_recall")
    intervals["max_sensitivity_wilson"] = wilson(int(pooled.totals["detected"].sum()), n_lesions)
    by_diameter = sensitivity_by_diameter(
        pooled.lesion_diameter_mm, pooled.lesion_detected, rules.diameter_edges_mm, replicates.by_diameter()
    )
    by_annotation = replicates.by_annotation()
    at_fp = tuple(zip(matched, replicates.at_fp(len(matched)), strict=True))
    undefined = {
        **_undefined(metrics, intervals, reasons),
        **no_map_by,
        **_undefined_shares("by_diameter", by_diameter, "the bin has no lesion"),
        **_undefined_shares("by_annotation", by_annotation, "the group has no lesion"),
    }
    if any(interval.undefined for _, interval in at_fp):
        undefined["sensitivity_at_fp_per_case.sensitivity_ci95_bootstrap"] = at_fp[0][1].undefined or ""
    return Summary(
        metrics,
        _counts(cases),
        undefined,
        intervals,
        by_diameter,
        by_annotation,
        points,
        at_fp,
        _subsampled(pooled, n_replicates, seed),
        histogram,
        pooled.patients,
        _each_patient_alone(pooled),
        sum(len(case.lesions) > 0 for case in cases),
        sum(case.n_false_positives_on_lesions for case in cases),
        sum(case.n_merges for case in cases),
        sum(len(case.lesions) - case.n_lesions for case in cases),
        sum(case.count(Status.IGNORED) for case in cases),
        sum(case.n_dropped for case in cases),
        replicates.n_defined("map"),
    )


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


def n_contributing(pooled: Pooled, name: str) -> int:
    """Patients that contribute to the denominator of a metric of :func:`resampled_metrics`."""
    totals = pooled.totals
    if name == "f1":
        return int(((totals["lesions"] + totals["true_and_false"]) > 0).sum())
    return int((totals[RATIOS[name][1] if name in RATIOS else "lesions"] > 0).sum())


def resampled_metrics(pooled: Pooled, weights: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
    """Every metric with every patient's cases counted ``weights`` times.

    Args:
        pooled: of :func:`pool`.
        weights: one row per replicate, shape (B, n_patients); a row of ones gives the plain value, the rows of a unit
            matrix those of each patient alone.

    Returns:
        Arrays of shape (B,) by the metric's name in :class:`Metrics`; NaN where undefined.
    """
    return _resampled(pooled, weights, ())[0]


def resampled_map_by(
    cases: Sequence[CaseResult], pooled: Pooled, rules: EvaluationRules, name: str, weights: NDArray[np.integer]
) -> NDArray[np.float64]:
    """The average precision by a confidence that ranks, as :func:`resampled_metrics` resamples it, (B,).

    ``pooled`` are the same cases.
    """
    detections = detections_by(cases, rules, name)
    return resampled_curves(detections, weights, pooled.totals["cases"], AVERAGE_RECALL_MAX_FP).average_precision


def _resampled(
    pooled: Pooled, weights: NDArray[np.integer], fp_per_case: Sequence[float]
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """The metrics, and the FROC read at numbers of false positives per case: (B, F), (B, 0) without a ranking."""
    found = _resampled_ratios(pooled, weights)
    nothing = np.full(len(weights), np.nan)
    # Hard labels whose candidates are ranked by their size have curves, but no histogram.
    found["lesion_entropy_bits"] = entropy_of_rows(weights @ pooled.histograms) if pooled.has_probabilities else nothing
    if not pooled.ranked:
        return {**found, "map": nothing, "average_recall": nothing}, np.zeros((len(weights), 0))
    curves = resampled_curves(pooled.detections, weights, pooled.totals["cases"], AVERAGE_RECALL_MAX_FP, fp_per_case)
    found["map"], found["average_recall"] = curves.average_precision, curves.average_recall
    return found, curves.sensitivity_at


def _resampled_ratios(pooled: Pooled, weights: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
    """Of :func:`resampled_metrics` those that need no confidences."""
    totals = pooled.totals
    found = {name: resampled_ratio(weights, totals[top], totals[bottom]) for name, (top, bottom) in RATIOS.items()}
    found["f1"] = _f1(found["max_sensitivity"], found["precision_at_max_sensitivity"])
    return found


def _f1(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonic mean; NaN: undefined. Where lesions or candidates exist and nothing is right, it is 0, though one of the
    two may be undefined.
    """
    wrong = np.nan_to_num(recall) + np.nan_to_num(precision) == 0
    defined = ~(np.isnan(recall) & np.isnan(precision))
    f1 = np.where(wrong & defined, 0.0, np.nan)
    return np.divide(2 * recall * precision, recall + precision, out=f1, where=~wrong)


def f1_score(recall: float | None, precision: float | None) -> float | None:
    """Harmonic mean; 0 where nothing is right, None where neither is defined.

    Example:
        >>> f1_score(0.5, 1.0), f1_score(0.0, None), f1_score(None, None)
        (0.6666666666666666, 0.0, None)
    """
    f1 = float(_f1(*(np.array([np.nan if value is None else value]) for value in (recall, precision)))[0])
    return None if np.isnan(f1) else f1


def _plain_ratios(pooled: Pooled) -> dict[str, float | None]:
    """The ratios and F1 over all patients; None where undefined."""
    values = _resampled_ratios(pooled, np.ones((1, len(pooled.patients)), np.int64))
    return {name: None if np.isnan(value[0]) else float(value[0]) for name, value in values.items()}


@dataclass(frozen=True)
class _Replicates:
    """The bootstrap: every statistic in every replicate, or the reason why there is none."""

    reason: str | None
    pooled: Pooled
    metrics: dict[str, NDArray[np.float64]]
    diameter: tuple[tuple[NDArray[np.float64], int], ...]
    annotation: tuple[tuple[str, int, int, NDArray[np.float64], int], ...]
    matched: NDArray[np.float64]

    @classmethod
    def draw(cls, pooled: Pooled, rules: EvaluationRules, n_replicates: int, seed: int) -> _Replicates:
        """Draw patients and compute everything."""
        n = len(pooled.patients)
        reason = why_no_bootstrap(n, n_replicates)
        weights = patient_weights(n, 0 if reason else n_replicates, seed)
        bins = diameter_bin(pooled.lesion_diameter_mm, rules.diameter_edges_mm)
        n_bins = len(rules.diameter_edges_mm) + 1
        groups = []
        if pooled.lesion_censored is not None:
            lesions, found = lesions_by_patient(pooled, pooled.lesion_censored.astype(np.int64), 2)
            shares = resampled_ratio(weights, found, lesions)
            for i, name in enumerate(ANNOTATION_GROUPS):
                of_group = lesions[:, i]
                n_with = int((of_group > 0).sum())
                groups.append((name, int(of_group.sum()), int(found[:, i].sum()), shares[:, i], n_with))
        all_in_bin, found_in_bin = lesions_by_patient(pooled, bins, n_bins)
        metrics, matched = _resampled(pooled, weights, rules.fp_per_case)
        return cls(
            reason,
            pooled,
            metrics,
            tuple(zip(resampled_ratio(weights, found_in_bin, all_in_bin).T, (all_in_bin > 0).sum(axis=0), strict=True)),
            tuple(groups),
            matched,
        )

    def of(self, replicates: NDArray[np.float64], n_contributing: int) -> Interval:
        """The interval of a statistic from its replicates and the number of patients in its denominator."""
        if self.reason is not None:
            return Interval.without(self.reason)
        return percentile_interval(replicates, n_contributing)

    def interval(self, name: str) -> Interval:
        return self.of(self.metrics[name], n_contributing(self.pooled, name))

    def n_defined(self, name: str) -> int:
        return int((~np.isnan(self.metrics[name])).sum())

    def by_diameter(self) -> list[Interval]:
        return [self.of(shares, int(n)) for shares, n in self.diameter]

    def by_annotation(self) -> tuple[AnnotationGroup, ...]:
        return tuple(AnnotationGroup(name, n, hit, self.of(shares, k)) for name, n, hit, shares, k in self.annotation)

    def at_fp(self, n: int) -> list[Interval]:
        return [self.of(column, n_contributing(self.pooled, "map")) for column in self.matched.T[:n]]


def _each_patient_alone(pooled: Pooled, n_at_a_time: int = 256) -> dict[str, NDArray[np.float64]]:
    """The metrics of each patient, some patients at a time: the rows of a unit matrix would fill the memory."""
    n = len(pooled.patients)
    blocks = []
    for start in range(0, n, n_at_a_time):
        chosen = np.arange(start, min(start + n_at_a_time, n))
        weights = np.zeros((len(chosen), n), np.int64)
        weights[chosen - start, chosen] = 1
        blocks.append(resampled_metrics(pooled, weights))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _subsampled(pooled: Pooled, n_replicates: int, seed: int) -> tuple[float, float] | None:
    """Mean and standard deviation of the average recall over draws of 80% of the patients."""
    if not pooled.ranked or not n_replicates or len(pooled.patients) < 2:
        return None
    weights = subsample_weights(len(pooled.patients), SUBSAMPLED_SHARE, n_replicates, seed)
    recall = resampled_curves(pooled.detections, weights, pooled.totals["cases"], AVERAGE_RECALL_MAX_FP).average_recall
    defined = recall[~np.isnan(recall)]
    return (float(defined.mean()), float(defined.std())) if len(defined) else None


def _map_by_confidence(
    cases: Sequence[CaseResult], rules: EvaluationRules
) -> tuple[dict[str, float | None], dict[str, str]]:
    """The average precision by every confidence that all cases have, and why it is undefined where it is."""
    hard = any(case.kind == "labels" for case in cases)
    n_lesions = sum(case.n_lesions for case in cases)
    found: dict[str, float | None] = {}
    undefined = {}
    for name in PLAIN if any(case.scores.learned is None for case in cases) else (*PLAIN, "learned"):
        unknown = name == "max" and any(np.isnan(case.scores.highest).any() for case in cases)
        reason = NO_PROBABILITIES if hard and name not in BY_SIZE else NO_MAXIMUM if unknown else ""
        found[name] = None
        if not reason and n_lesions:
            d = detections_by(cases, rules, name)
            points = operating_points(d.lesion_confidence, d.true_confidence, d.false_confidence, n_lesions, len(cases))
            found[name] = average_precision(points)
        if found[name] is None:
            undefined[f"map_by_confidence.{name}"] = reason or NO_LESIONS
    return found, undefined


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


def _reasons(pooled: Pooled) -> dict[str, str]:
    """Why a metric is undefined, if it is."""
    soft = pooled.has_probabilities
    no_area = NO_LESIONS if pooled.ranked else NO_PROBABILITIES
    no_free_case = "every case has a lesion"
    no_voxels = "neither reference nor prediction has a voxel in any case"
    return {
        "map": no_area,
        "average_recall": no_area,
        "max_sensitivity": NO_LESIONS,
        "precision_at_max_sensitivity": "there are no candidates",
        "tp_dice": "no lesion was detected",
        "lesion_entropy_bits": "no lesion voxel has a predicted probability" if soft else NO_PROBABILITIES,
        "f1": "there are neither lesions nor candidates",
        "lesion_wise_dice": "there are neither lesions nor false positives",
        "lesion_wise_dice_case_mean": "no case has lesions or false positives",
        "false_positives_per_lesion_free_case": no_free_case,
        "false_positive_volume_mm3_per_lesion_free_case": no_free_case,
        "smallest_detected_diameter_mm": "no lesion was detected",
        "voxel_dice": no_voxels,
        "voxel_dice_pooled": no_voxels,
        "voxel_dice_at_threshold": no_voxels,
    }


def _undefined(metrics: Metrics, intervals: dict[str, Interval], reasons: dict[str, str]) -> dict[str, str]:
    found = {}
    for name, value in {**vars(metrics), **intervals}.items():
        if isinstance(value, Interval):
            if value.undefined is not None:
                found[name if name in vars(metrics) else f"{name}_ci95"] = value.undefined
        elif value is None:
            found[name] = reasons[name]
    return found


def _undefined_shares(table: str, groups: Sequence[DiameterBin | AnnotationGroup], no_lesion: str) -> dict[str, str]:
    """Why something in a table of sensitivities is undefined, each reason once."""
    found: dict[str, str] = {}
    if any(group.sensitivity is None for group in groups):
        found |= {f"{table}.sensitivity": no_lesion, f"{table}.sensitivity_ci95_wilson": no_lesion}
    reasons = dict.fromkeys(g.bootstrap.undefined for g in groups if g.bootstrap.undefined is not None)
    if reasons:
        found[f"{table}.sensitivity_ci95_bootstrap"] = "; ".join(reasons)
    return found
