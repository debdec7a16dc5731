"""Writing an evaluation: summary.json, three CSV tables, curves.png and report.html."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnunet_lopsided
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case import CONFIDENCE_DECIMALS, CaseResult
from nnunet_lopsided.evaluation.curves import OperatingPoints
from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.intervals import Interval
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.strata import DiameterBin

SCHEMA_VERSION = 1
STATUS_NAMES = {
    Status.TRUE_POSITIVE: "true_positive",
    Status.FALSE_POSITIVE: "false_positive",
    Status.DUPLICATE: "duplicate",
}
CASE_COLUMNS = (
    "case",
    "patient",
    "prediction",
    "lesions",
    "detected_lesions",
    "missed_lesions",
    "candidates",
    "true_positives",
    "false_positives",
    "duplicates",
    "sensitivity",
    "tp_dice",
    "lesion_volume_mm3",
    "candidate_volume_mm3",
)
_PLACE = ("n_voxels", "volume_mm3", "diameter_mm", "centroid_z", "centroid_y", "centroid_x")
LESION_COLUMNS = ("case", "lesion", *_PLACE, "detected", "candidate", "confidence", "dice", "mean_probability")
CANDIDATE_COLUMNS = ("case", "candidate", *_PLACE, "confidence", "status", "lesion", "distance_mm", "overlap_voxels")


def check_output_folder(folder: Path, overwrite: bool, inputs: Sequence[Path]) -> None:
    """Refuse a target that would destroy something other than an earlier evaluation.

    Args:
        folder: where the results are to go.
        overwrite: replace an earlier evaluation there.
        inputs: folders that must survive.

    Raises:
        InputError: the folder exists without ``overwrite``, is a file, holds something other than an evaluation,
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
        if not (folder / "summary.json").is_file():
            raise InputError(f"output folder {folder} holds no summary.json; only an earlier evaluation is replaced")
    elif folder.exists():
        raise InputError(f"output folder {folder} is a file")


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
    check_output_folder(folder, overwrite, (result.inputs.references, result.inputs.predictions))
    folder = folder.absolute()
    unfinished, former = (folder.with_name(f".{word}-{folder.name}") for word in ("unfinished", "former"))
    try:
        for leftover in (unfinished, former):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _write_files(result, unfinished)
        if folder.is_dir():
            folder.rename(former)
        unfinished.rename(folder)
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write output folder {folder}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_files(result: FolderResult, folder: Path) -> None:
    from nnunet_lopsided.evaluation.report import figure_png, report_html

    summary = summary_dict(result)
    text = json.dumps(summary, indent=2, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    _write_csv(folder / "cases.csv", CASE_COLUMNS, (case_row(case) for case in result.cases))
    _write_csv(folder / "lesions.csv", LESION_COLUMNS, _rows(lesion_rows, result.cases))
    _write_csv(folder / "candidates.csv", CANDIDATE_COLUMNS, _rows(candidate_rows, result.cases))
    (folder / "curves.png").write_bytes(figure_png(result.summary))
    (folder / "report.html").write_text(report_html(result, summary), encoding="utf-8")


def summary_dict(result: FolderResult) -> dict[str, Any]:
    """The content of summary.json: plain JSON types, None for what is undefined, never NaN."""
    summary = result.summary
    metrics = {
        name: _ends(value) if isinstance(value, Interval) else value for name, value in vars(summary.metrics).items()
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "metrics": metrics,
        "undefined": summary.undefined,
        "counts": asdict(summary.counts),
        "intervals": {f"{name}_ci95": _ends(value) for name, value in summary.intervals.items()},
        "by_diameter": [_diameter_bin(b) for b in summary.by_diameter],
        "curves": _curves(summary.points),
        "details": {
            "patients": summary.n_patients,
            "cases_with_lesions": summary.n_cases_with_lesions,
            "false_positives_on_lesions": summary.n_false_positives_on_lesions,
            "defined_bootstrap_replicates": summary.n_defined_replicates,
            "missing_predictions": list(result.missing_predictions),
            "predictions_without_reference": list(result.unreferenced_predictions),
        },
        "settings": _settings(result),
    }


def case_row(case: CaseResult) -> tuple[Any, ...]:
    """One row of cases.csv; None where undefined."""
    n_lesions, n_detected = len(case.lesions), int(case.detected.sum())
    return (
        case.case,
        case.patient,
        case.kind,
        n_lesions,
        n_detected,
        n_lesions - n_detected,
        len(case.candidates),
        case.count(Status.TRUE_POSITIVE),
        case.count(Status.FALSE_POSITIVE),
        case.count(Status.DUPLICATE),
        n_detected / n_lesions if n_lesions else None,
        float(case.matches.dice[case.detected].mean()) if n_detected else None,
        float(case.lesions.volume_mm3.sum()),
        float(case.candidates.volume_mm3.sum()),
    )


def lesion_rows(case: CaseResult) -> Iterable[tuple[Any, ...]]:
    """Rows of lesions.csv, detected and missed lesions alike."""
    confidence: NDArray[np.float64] = case.lesion_confidence
    if case.kind == "labels":
        confidence = np.full(len(confidence), np.nan)
    columns = (
        *_place_columns(case.lesions),
        case.detected.astype(int),
        _or_none(case.matches.candidate_of_lesion, case.detected),
        confidence,
        case.matches.dice,
        case.mean_probability,
    )
    return ((case.case, i + 1, *row) for i, row in enumerate(zip(*map(_listed, columns), strict=True)))


def candidate_rows(case: CaseResult) -> Iterable[tuple[Any, ...]]:
    """Rows of candidates.csv."""
    matched = case.matches.lesion_of_candidate
    confidence = case.confidence if case.kind != "labels" else np.full(len(matched), np.nan)
    columns = (
        *_place_columns(case.candidates),
        confidence,
        [STATUS_NAMES[Status(status)] for status in case.matches.status],
        _or_none(matched, matched > 0),
        case.matches.distance_mm,
        case.matches.overlap_voxels,
    )
    return ((case.case, i + 1, *row) for i, row in enumerate(zip(*map(_listed, columns), strict=True)))


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


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    """Nine significant digits are below a voxel's rounding and keep tables readable; undefined is an empty cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else value


def _ends(interval: Interval) -> list[float] | None:
    return None if interval.low is None or interval.high is None else [interval.low, interval.high]


def _diameter_bin(b: DiameterBin) -> dict[str, Any]:
    return {
        "lower_mm": b.lower_mm,
        "upper_mm": b.upper_mm,
        "lesions": b.n_lesions,
        "detected": b.n_detected,
        "sensitivity": b.sensitivity,
        "sensitivity_ci95_wilson": _ends(b.interval),
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
    return {
        "version": nnunet_lopsided.__version__,
        "references": str(inputs.references),
        "predictions": str(inputs.predictions),
        "label": inputs.label if inputs.label is not None else "all foreground",
        "dataset_json": None if inputs.dataset_json is None else str(inputs.dataset_json),
        "hard_labels": inputs.hard_labels,
        "allow_missing": inputs.allow_missing,
        "patients_regex": inputs.patients_regex,
        "threshold": rules.threshold,
        "threshold_rule": "p >= threshold, the threshold cast to the type of p",
        "connectivity": rules.connectivity if rules.connectivity is not None else {"3d": 26, "2d": 8},
        "match": rules.match,
        "distance": rules.distance,
        "tolerance_mm": rules.tolerance_mm,
        "duplicates": rules.duplicates,
        "confidence": f"mean probability of the candidate, rounded to {CONFIDENCE_DECIMALS} decimals",
        "average_precision": "step-wise, equal confidences in one point",
        "diameter_edges_mm": list(rules.diameter_edges_mm),
        "probability_bins": rules.probability_bins,
        "bootstrap_replicates": result.n_replicates,
        "bootstrap_unit": "case" if inputs.patients_regex is None else "patient",
        "seed": result.seed,
    }
