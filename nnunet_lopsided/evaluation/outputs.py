"""Writing an evaluation: summary.json, CSV tables, curves.png and report.html."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnunet_lopsided
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case import SEGMENTATION_THRESHOLD, CaseResult
from nnunet_lopsided.evaluation.confidence import BY_SIZE, CONFIDENCE_DECIMALS, SUM_DECIMALS, TITLES
from nnunet_lopsided.evaluation.curves import OperatingPoints
from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.inputs import Inputs
from nnunet_lopsided.evaluation.intervals import Interval
from nnunet_lopsided.evaluation.matching import Pairs, Status
from nnunet_lopsided.evaluation.pooling import case_sums
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.strata import AnnotationGroup, DiameterBin
from nnunet_lopsided.evaluation.summary import AVERAGE_RECALL_MAX_FP, RATIOS, Summary, f1_score
from nnunet_lopsided.nnunet_layout import read_json
from nnunet_lopsided.tables import write_table

SCHEMA_VERSION = 1
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
)
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
PATIENT_COLUMNS = ("patient", "cases", "lesions", "detected_lesions", "false_positives", *PATIENT_METRICS)


def check_output_folder(
    folder: Path,
    overwrite: bool,
    inputs: Sequence[Path],
    marks: tuple[str, str] = ("summary.json", "cases.csv"),
    command: str = "lopsided-eval",
) -> None:
    """Refuse a target that would destroy something other than an earlier output of the command.

    Args:
        folder: where the results are to go.
        overwrite: replace an earlier output there.
        inputs: folders that must survive.
        marks: two files that every earlier output of this kind holds, the first with a ``schema_version`` (nnU-Net
            writes a summary.json too, among predictions); only a folder with both is ever replaced.
        command: that makes them, for messages.

    Raises:
        InputError: the folder exists without ``overwrite``, is a file, holds something other than such an output,
            contains one of the inputs, or cannot be created.
    """
    target = folder.resolve()
    for path in inputs:
        if target == path.resolve() or target in path.resolve().parents:
            raise InputError(f"output folder {folder} contains the input {path}")
    if folder.is_dir():
        if not any(folder.iterdir()):
            return
        if not overwrite:
            raise InputError(f"output folder exists: {folder}; --overwrite replaces it")
        if not _is_earlier_output(folder, marks):
            raise InputError(
                f"output folder {folder} holds no {marks[0]} of {command} with {marks[1]} beside it; only an earlier "
                "output of it is replaced"
            )
    elif folder.exists():
        raise InputError(f"output folder {folder} is a file")


def _is_earlier_output(folder: Path, marks: tuple[str, str]) -> bool:
    if not (folder / marks[1]).is_file():
        return False
    try:
        content = read_json(folder / marks[0])
    except (OSError, InputError):
        return False
    return isinstance(content, dict) and isinstance(content.get("schema_version"), int)


def write_results(result: FolderResult, folder: Path, overwrite: bool = False) -> None:
    """Write every output to a temporary folder beside ``folder`` and rename it when complete.

    The same result always gives the same bytes.

    Args:
        result: of ``evaluate_folder``.
        folder: target; see :func:`check_output_folder`.
        overwrite: replace an earlier evaluation there.

    Raises:
        InputError: the target is refused, or cannot be written.
    """
    with new_output_folder(folder, overwrite, input_folders(result.inputs)) as unfinished:
        write_files(result, unfinished)


def input_folders(inputs: Inputs) -> tuple[Path, ...]:
    """The folders that an output must not replace."""
    return tuple(p for p in (inputs.references, inputs.predictions, inputs.censored_references) if p is not None)


@contextmanager
def new_output_folder(
    folder: Path,
    overwrite: bool,
    inputs: Sequence[Path],
    marks: tuple[str, str] = ("summary.json", "cases.csv"),
    command: str = "lopsided-eval",
) -> Iterator[Path]:
    """An empty folder to write an output to; it becomes ``folder`` when the block ends.

    When the block raises, nothing is left and what was there before stays.

    Args:
        folder, overwrite, inputs, marks, command: as for :func:`check_output_folder`.

    Raises:
        InputError: the target is refused, or cannot be written.
    """
    check_output_folder(folder, overwrite, inputs, marks, command)
    folder = folder.absolute()
    unfinished, former = (folder.with_name(f".{word}-{folder.name}") for word in ("unfinished", "former"))
    try:
        for leftover in (unfinished, former):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
        except OSError as error:
            # What is read meanwhile (a share that went away) is not what is written.
            if not _lies_in(error.filename, unfinished) and error.filename is not None:
                raise InputError(f"cannot read {error.filename}: {error.strerror or error}") from error
            raise
        if folder.is_dir():
            folder.rename(former)
        unfinished.rename(folder)
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write output folder {folder}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _lies_in(path: Any, folder: Path) -> bool:
    return isinstance(path, str | Path) and folder in Path(path).parents


def write_files(result: FolderResult, folder: Path, gallery: Sequence[Any] = ()) -> None:
    """Write every output into an existing folder.

    Args:
        result: of ``evaluate_folder``.
        folder: an empty one.
        gallery: pictures for the page, of ``report.gallery``.
    """
    from nnunet_lopsided.evaluation.report import figure_png, report_html

    summary = summary_dict(result)
    text = json.dumps(summary, indent=2, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    case_rows = (
        *(case_row(case, result.rules, result.files[case.case].fold) for case in result.cases),
        *_skipped_rows(result),
    )
    write_csv(folder / "cases.csv", CASE_COLUMNS, sorted(case_rows, key=lambda row: row[0]))
    write_csv(folder / "patients.csv", PATIENT_COLUMNS, patient_rows(result))
    write_csv(folder / "lesions.csv", LESION_COLUMNS, _rows(lesion_rows, result.cases))
    write_csv(folder / "candidates.csv", CANDIDATE_COLUMNS, _rows(candidate_rows, result.cases))
    if result.by_threshold:
        write_csv(folder / "thresholds.csv", *_threshold_table(summary["by_threshold"]))
    (folder / "curves.png").write_bytes(figure_png(result.summary))
    (folder / "report.html").write_text(report_html(result, summary, gallery), encoding="utf-8")


def summary_dict(result: FolderResult) -> dict[str, Any]:
    """The content of summary.json: plain JSON types, None for what is undefined, never NaN."""
    summary = result.summary
    return {
        "schema_version": SCHEMA_VERSION,
        "metrics": _metrics(summary),
        "undefined": summary.undefined,
        "counts": asdict(summary.counts),
        "intervals": {f"{name}_ci95": value.ends for name, value in summary.intervals.items()},
        "by_diameter": [_diameter_bin(b) for b in summary.by_diameter],
        "by_annotation": [{"annotation": g.name, **_share(g)} for g in summary.by_annotation] or None,
        "by_threshold": [
            {"threshold": threshold, "metrics": _metrics(s), "counts": asdict(s.counts)}
            for threshold, s in result.by_threshold
        ],
        "sensitivity_at_fp_per_case": [
            {**vars(matched), "sensitivity_ci95_bootstrap": interval.ends}
            for matched, interval in summary.sensitivity_at_fp
        ],
        "average_recall_80_percent": _subsampled(summary),
        "lesion_histogram": _histogram(summary, result.rules.probability_bins),
        "curves": _curves(summary.points),
        "details": {
            "patients": summary.n_patients,
            "cases_with_lesions": summary.n_cases_with_lesions,
            "false_positives_on_lesions": summary.n_false_positives_on_lesions,
            "merges": summary.n_merges,
            "ignored_lesions": summary.n_ignored_lesions,
            "ignored_candidates": summary.n_ignored_candidates,
            "dropped_candidates": summary.n_dropped_candidates,
            "defined_bootstrap_replicates": summary.n_defined_replicates,
            "missing_predictions": list(result.missing_predictions),
            "predictions_without_reference": list(result.unreferenced_predictions),
            "skipped": [asdict(skipped) for skipped in result.skipped],
        },
        "settings": _settings(result),
    }


def _metrics(summary: Summary) -> dict[str, Any]:
    metrics = {
        name: value.ends if isinstance(value, Interval) else value for name, value in vars(summary.metrics).items()
    }
    return {**metrics, "map_by_confidence": dict(summary.metrics.map_by_confidence)}


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of summary.json with those by confidence one by one: ``map_by_mean``, ``map_by_max``, ...

    Example:
        >>> flat_metrics({"map": 0.5, "map_by_confidence": {"mean": 0.5, "sum": 1.0}})
        {'map': 0.5, 'map_by_mean': 0.5, 'map_by_sum': 1.0}
    """
    by_confidence = metrics.get("map_by_confidence", {})
    plain = {name: value for name, value in metrics.items() if name != "map_by_confidence"}
    return {**plain, **{f"map_by_{name}": value for name, value in by_confidence.items()}}


def _subsampled(summary: Summary) -> dict[str, float] | None:
    if summary.average_recall_subsampled is None:
        return None
    mean, deviation = summary.average_recall_subsampled
    return {"mean": mean, "standard_deviation": deviation}


def _histogram(summary: Summary, n_bins: int) -> dict[str, list[Any]] | None:
    if summary.lesion_histogram is None:
        return None
    return {"edges": [i / n_bins for i in range(n_bins + 1)], "counts": summary.lesion_histogram.tolist()}


def _threshold_table(rows: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Header and rows of thresholds.csv: every metric that is a number, both ends of the intervals, the counts."""
    flat = []
    for row in rows:
        cells = {"threshold": row["threshold"]}
        for name, value in flat_metrics(row["metrics"]).items():
            if "ci95" in name:
                cells[f"{name}_low"], cells[f"{name}_high"] = value or (None, None)
            else:
                cells[name] = value
        flat.append(cells | row["counts"])
    return tuple(flat[0]), [tuple(cells.values()) for cells in flat]


def patient_rows(result: FolderResult) -> Iterable[tuple[Any, ...]]:
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
        )


def case_row(case: CaseResult, rules: EvaluationRules, fold: int | None = None) -> tuple[Any, ...]:
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


def _skipped_rows(result: FolderResult) -> Iterable[tuple[Any, ...]]:
    """Rows of cases.csv for the cases that were skipped: a name, the reason, and nothing that could be a number."""
    empty = (None,) * (len(CASE_COLUMNS) - 5)
    for skipped in result.skipped:
        files = result.files.get(skipped.case)  # none of a case that only splits_final.json names
        patient, fold = (None, None) if files is None else (files.patient, files.fold)
        yield (skipped.case, patient, fold, "skipped", *empty, skipped.problem)


def lesion_rows(case: CaseResult) -> Iterable[tuple[Any, ...]]:
    """Rows of lesions.csv, detected and missed lesions alike."""
    confidence: NDArray[np.float64] = case.lesion_confidence
    if not case.ranked:
        confidence = np.full(len(confidence), np.nan)
    columns = (
        *_place_columns(case.lesions),
        case.detected.astype(int),
        _or_none(case.matches.candidate_of_lesion, case.detected),
        confidence,
        case.matches.dice,
        case.mean_probability,
        case.entropy_bits,
        case.counted.astype(int),
        np.full(len(confidence), np.nan) if case.censored is None else case.censored.astype(int),
    )
    return ((case.case, i + 1, *row) for i, row in enumerate(zip(*map(_listed, columns), strict=True)))


def candidate_rows(case: CaseResult) -> Iterable[tuple[Any, ...]]:
    """Rows of candidates.csv."""
    matched, scores = case.matches.lesion_of_candidate, case.scores
    unknown = np.full(len(matched), np.nan)
    hard = case.kind == "labels"
    columns = (
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
    )
    return ((case.case, i + 1, *row) for i, row in enumerate(zip(*map(_listed, columns), strict=True)))


def _pair_columns(pairs: Pairs) -> tuple[list[str], list[str]]:
    """Per candidate the lesions that it matches, and the voxels that it shares with each, with spaces between."""
    order = np.lexsort((pairs.lesion_ids, pairs.candidate_ids))
    ends = np.searchsorted(pairs.candidate_ids[order], np.arange(1, pairs.n_candidates + 1), side="right")

    def joined(values: NDArray[np.int64]) -> list[str]:
        return [" ".join(map(str, part.tolist())) for part in np.split(values[order], ends)[:-1]]

    return joined(pairs.lesion_ids), joined(pairs.n_shared)


def _rows(rows_of: Any, cases: Sequence[CaseResult]) -> Iterable[tuple[Any, ...]]:
    for case in cases:
        yield from rows_of(case)


def _place_columns(components: Any) -> tuple[Any, ...]:
    centroid = components.centroid
    if centroid.shape[1] == 2:
        centroid = np.column_stack([np.full(len(centroid), np.nan), centroid])
    return components.n_voxels, components.volume_mm3, components.diameter_mm, *centroid.T


def _or_none(ids: NDArray[np.int64], defined: NDArray[np.bool_]) -> list[int | None]:
    return [int(i) if ok else None for i, ok in zip(ids, defined, strict=True)]


def _listed(column: Any) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else column


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table: undefined (None, NaN) cells are empty, numbers have nine significant digits."""
    write_table(path, header, ([_cell(value) for value in row] for row in rows))


def _cell(value: Any) -> Any:
    """Nine significant digits are below a voxel's rounding and keep tables readable; undefined is an empty cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else value


def _diameter_bin(b: DiameterBin) -> dict[str, Any]:
    return {"lower_mm": b.lower_mm, "upper_mm": b.upper_mm, **_share(b)}


def _share(group: DiameterBin | AnnotationGroup) -> dict[str, Any]:
    return {
        "lesions": group.n_lesions,
        "detected": group.n_detected,
        "sensitivity": group.sensitivity,
        "sensitivity_ci95_wilson": group.interval.ends,
        "sensitivity_ci95_bootstrap": group.bootstrap.ends,
    }


def _curves(points: OperatingPoints | None) -> dict[str, Any]:
    if points is None:
        return {"pr": None, "froc": None}
    corners = points.corners()
    shared = {
        "threshold": corners.threshold.tolist(),
        "true_positives": corners.n_true.tolist(),
        "false_positives": corners.n_false.tolist(),
    }
    sensitivity = corners.sensitivity.tolist() if corners.n_lesions else [None] * len(corners.threshold)
    return {
        "pr": {**shared, "recall": sensitivity, "precision": corners.precision.tolist()},
        "froc": {
            "threshold": shared["threshold"],
            "false_positives_per_case": corners.false_positives_per_case.tolist(),
            "sensitivity": sensitivity,
        },
    }


def _settings(result: FolderResult) -> dict[str, Any]:
    inputs, rules = result.inputs, result.rules
    by_name = {f.name: _plain(getattr(rules, f.name)) for f in fields(rules)}
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
        **by_name,
        "profile_changes": {name: _plain(value) for name, value in rules.changes.items()},
        "connectivity": rules.connectivity if rules.connectivity is not None else {"3d": 26, "2d": 8},
        "thresholds": [threshold for threshold, _ in result.by_threshold] or [rules.threshold],
        "threshold_rule": "p >= threshold, the threshold cast to the type of p",
        "segmentation_rule": f"the predicted label map, or where there is none p >= {SEGMENTATION_THRESHOLD}",
        "confidence_rule": f"{TITLES[rules.confidence]}, rounded to "
        f"{SUM_DECIMALS if rules.confidence in BY_SIZE else CONFIDENCE_DECIMALS} decimals",
        "confidence_model": None if result.confidence_model is None else str(result.confidence_model.path),
        "confidence_model_has_seen": list(result.seen),
        "average_precision": "step-wise, equal confidences in one point",
        "average_recall_max_fp_per_case": AVERAGE_RECALL_MAX_FP,
        "bootstrap_replicates": result.n_replicates,
        "bootstrap_unit": "case" if inputs.patients_regex is None else "patient",
        "seed": result.seed,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
