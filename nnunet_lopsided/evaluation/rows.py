"""The rows of an evaluation's tables: cases, patients, lesions, candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.case_result import CaseResult, Components
from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.matching import Pairs, Status
from nnunet_lopsided.evaluation.metrics import RATIOS, f1_score
from nnunet_lopsided.evaluation.pooling import case_sums
from nnunet_lopsided.evaluation.rules import EvaluationRules

# What a cell of a table may hold; None and NaN: undefined.
Cell: TypeAlias = str | int | float | None
Row: TypeAlias = tuple[Cell, ...]

STATUS_NAMES = {
    Status.TRUE_POSITIVE: "true_positive",
    Status.FALSE_POSITIVE: "false_positive",
    Status.DUPLICATE: "duplicate",
    Status.IGNORED: "ignored",
}
CASE_COLUMNS = (
    "case",
    "patient",
    "fold",
    "prediction",
    "lesions",
    "detected_lesions",
    "missed_lesions",
    "candidates",
    "true_positives",
    "false_positives",
    "duplicates",
    "ignored_candidates",
    "merges",
    "false_positives_on_lesions",
    "sensitivity",
    "precision",
    "f1",
    "tp_dice",
    "lesion_wise_dice",
    "voxel_dice",
    "voxel_dice_at_threshold",
    "false_positive_volume_mm3",
    "lesion_volume_mm3",
    "candidate_volume_mm3",
    "reference_voxels",
    "segmented_voxels",
    "shared_segmented_voxels",
    "candidate_voxels",
    "shared_candidate_voxels",
    "dropped_candidates",
    "problem",
)
_PLACE = ("n_voxels", "volume_mm3", "diameter_mm", "centroid_z", "centroid_y", "centroid_x")
LESION_COLUMNS = (
    "case",
    "lesion",
    *_PLACE,
    "detected",
    "candidate",
    "confidence",
    "dice",
    "mean_probability",
    "entropy_bits",
    "counted",
    "censored",
    "covered_by",
    "covered_share",
)
# Further ones, at the end, with surface distances and of instance maps.
SURFACE_COLUMNS = ("hd95_mm", "nsd")
INSTANCE_COLUMNS = ("instance", "pieces")
CANDIDATE_COLUMNS = (
    "case",
    "candidate",
    *_PLACE,
    "confidence",
    "status",
    "lesion",
    "distance_mm",
    "overlap_voxels",
    "lesions_touched",
    "mean_probability",
    "max_probability",
    "learned_confidence",
    "matched_lesions",
    "matched_voxels",
)
# Metrics that say something about one patient.
PATIENT_METRICS = (
    "max_sensitivity",
    "precision_at_max_sensitivity",
    "f1",
    "map",
    "average_recall",
    "false_positives_per_case",
    "false_positive_volume_mm3_per_case",
    "tp_dice",
    "lesion_wise_dice",
    "voxel_dice",
    "voxel_dice_pooled",
    "lesion_entropy_bits",
)
PATIENT_COLUMNS = (
    "patient",
    "cases",
    "lesions",
    "detected_lesions",
    "false_positives",
    *PATIENT_METRICS,
    "highest_confidence",
)


def patient_rows(result: FolderResult) -> Iterable[Row]:
    """Rows of patients.csv."""
    summary = result.summary
    for i, patient in enumerate(summary.patients):
        cases = [case for case in result.cases if case.patient == patient]
        yield (
            patient,
            len(cases),
            sum(case.n_lesions for case in cases),
            sum(int(case.detected.sum()) for case in cases),
            sum(case.count(Status.FALSE_POSITIVE) for case in cases),
            *(float(summary.per_patient[name][i]) for name in PATIENT_METRICS),
            float(summary.patient_confidence[i]),
        )


def case_row(case: CaseResult, rules: EvaluationRules, fold: int | None = None) -> Row:
    """One row of cases.csv; None where undefined.

    The counts of candidates are those of the matching; the metrics follow the rules for duplicates, as all others do.
    """
    n_lesions, n_detected = case.n_lesions, int(case.detected.sum())
    sums = case_sums(case, rules)

    def ratio(name: str) -> float | None:
        top, bottom = (sums[key] for key in RATIOS[name])
        return top / bottom if bottom else None

    sensitivity, precision = ratio("max_sensitivity"), ratio("precision_at_max_sensitivity")
    return (
        case.case,
        case.patient,
        fold,
        case.kind,
        n_lesions,
        n_detected,
        n_lesions - n_detected,
        len(case.candidates),
        case.count(Status.TRUE_POSITIVE),
        case.count(Status.FALSE_POSITIVE),
        case.count(Status.DUPLICATE),
        case.count(Status.IGNORED),
        case.n_merges,
        case.n_false_positives_on_lesions,
        sensitivity,
        precision,
        f1_score(sensitivity, precision),
        ratio("tp_dice"),
        ratio("lesion_wise_dice"),
        case.segmentation_overlap.dice,
        case.candidate_overlap.dice,
        sums["false_volume"],
        float(case.lesions.volume_mm3.sum()),
        float(case.candidates.volume_mm3.sum()),
        case.segmentation_overlap.reference,
        case.segmentation_overlap.predicted,
        case.segmentation_overlap.shared,
        case.candidate_overlap.predicted,
        case.candidate_overlap.shared,
        case.n_dropped,
        None,
    )


def skipped_rows(result: FolderResult) -> Iterable[Row]:
    """Rows of cases.csv for the cases that were skipped: a name, the reason, and nothing that could be a number."""
    empty = (None,) * (len(CASE_COLUMNS) - 5)  # four columns before them, and the problem after
    for skipped in result.skipped:
        files = result.files.get(skipped.case)  # None: splits_final.json names the case, but it has no files
        patient, fold = (None, None) if files is None else (files.patient, files.fold)
        yield (skipped.case, patient, fold, "skipped", *empty, skipped.problem)


def lesion_columns(rules: EvaluationRules) -> tuple[str, ...]:
    """The header of lesions.csv."""
    surface = SURFACE_COLUMNS if rules.surface_distances else ()
    return (*LESION_COLUMNS, *surface, *(INSTANCE_COLUMNS if rules.reference_instances else ()))


def candidate_columns(rules: EvaluationRules) -> tuple[str, ...]:
    """The header of candidates.csv."""
    return (*CANDIDATE_COLUMNS, *(INSTANCE_COLUMNS if rules.predicted_instances else ()))


def lesion_rows(case: CaseResult) -> Iterable[Row]:
    """Rows of lesions.csv, detected and missed lesions alike."""
    confidence: NDArray[np.float64] = case.lesion_confidence
    if not case.ranked:
        confidence = np.full(len(confidence), np.nan)
    columns: tuple[NDArray[np.generic] | list[Cell], ...] = (
        *_place_columns(case.lesions),
        case.detected.astype(int),
        _or_none(case.matches.candidate_of_lesion, case.detected),
        confidence,
        case.matches.dice,
        case.mean_probability,
        case.entropy_bits,
        case.counted.astype(int),
        np.full(len(confidence), np.nan) if case.censored is None else case.censored.astype(int),
        _or_none(case.covered_by, case.covered_by > 0),
        case.covered_share,
        *((case.surface.hd95_mm, case.surface.nsd) if case.surface is not None else ()),
        *_instance_columns(case.lesions),
    )
    return ((case.case, i + 1, *row) for i, row in enumerate(zip(*map(_listed, columns), strict=True)))


def candidate_rows(case: CaseResult) -> Iterable[Row]:
    """Rows of candidates.csv."""
    matched, scores = case.matches.lesion_of_candidate, case.scores
    unknown = np.full(len(matched), np.nan)
    hard = case.kind == "labels"
    columns: tuple[NDArray[np.generic] | list[Cell], ...] = (
        *_place_columns(case.candidates),
        case.shown_confidence,
        [STATUS_NAMES[Status(status)] for status in case.matches.status],
        _or_none(matched, matched > 0),
        case.matches.distance_mm,
        case.matches.overlap_voxels,
        case.matches.lesions_touched,
        unknown if hard else scores.mean,
        unknown if hard else scores.highest,
        unknown if scores.learned is None else scores.learned,
        *_pair_columns(case.matches.pairs),
        *_instance_columns(case.candidates),
    )
    return ((case.case, i + 1, *row) for i, row in enumerate(zip(*map(_listed, columns), strict=True)))


def _pair_columns(pairs: Pairs) -> tuple[list[Cell], list[Cell]]:
    """Per candidate the lesions that it matches, and the voxels that it shares with each, with spaces between."""
    # split wants the pairs of a candidate in a row, and gives a last part beyond the last candidate.
    order = np.lexsort((pairs.lesion_ids, pairs.candidate_ids))
    ends = np.searchsorted(pairs.candidate_ids[order], np.arange(1, pairs.n_candidates + 1), side="right")

    def joined(values: NDArray[np.int64]) -> list[Cell]:
        return [" ".join(map(str, part.tolist())) for part in np.split(values[order], ends)[:-1]]

    return joined(pairs.lesion_ids), joined(pairs.n_shared)


def rows_of_cases(rows_of: Callable[[CaseResult], Iterable[Row]], cases: Sequence[CaseResult]) -> Iterable[Row]:
    """The rows of all cases, of :func:`lesion_rows` or :func:`candidate_rows`."""
    for case in cases:
        yield from rows_of(case)


def _place_columns(components: Components) -> tuple[NDArray[np.generic], ...]:
    centroid = components.centroid
    if centroid.shape[1] == 2:
        # A 2D image has no z, but the table the same columns.
        centroid = np.column_stack([np.full(len(centroid), np.nan), centroid])
    return components.n_voxels, components.volume_mm3, components.diameter_mm, *centroid.T


def _instance_columns(components: Components) -> tuple[NDArray[np.int64], ...]:
    if components.instance is None or components.n_pieces is None:
        return ()
    return components.instance, components.n_pieces


def _or_none(ids: NDArray[np.int64], defined: NDArray[np.bool_]) -> list[Cell]:
    return [int(i) if ok else None for i, ok in zip(ids, defined, strict=True)]


def _listed(column: NDArray[np.generic] | list[Cell]) -> list[Cell]:
    return list(column.tolist()) if isinstance(column, np.ndarray) else column
