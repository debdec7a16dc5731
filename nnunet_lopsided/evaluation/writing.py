"""Writing an evaluation: summary.json, CSV tables, curves.png and report.html."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.inputs import Inputs
from nnunet_lopsided.evaluation.rows import (
    CANDIDATE_COLUMNS,
    CASE_COLUMNS,
    LESION_COLUMNS,
    PATIENT_COLUMNS,
    _rows,
    _skipped_rows,
    candidate_rows,
    case_row,
    lesion_rows,
    patient_rows,
)
from nnunet_lopsided.evaluation.summary_json import flat_metrics, summary_dict
from nnunet_lopsided.files.folders import new_output_folder
from nnunet_lopsided.files.tables import write_table

# Names in the folder of an evaluation.
FILES = ("summary.json", "*.csv", "curves.png", "report.html", "maps")


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
    with new_output_folder(folder, overwrite, input_folders(result.inputs), holds=FILES) as unfinished:
        write_files(result, unfinished)


def input_folders(inputs: Inputs) -> tuple[Path, ...]:
    """The folders that an output must not replace."""
    return tuple(p for p in (inputs.references, inputs.predictions, inputs.censored_references) if p is not None)


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


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table: undefined (None, NaN) cells are empty, numbers have nine significant digits."""
    write_table(path, header, ([_cell(value) for value in row] for row in rows))


def _cell(value: Any) -> Any:
    """Nine significant digits are below a voxel's rounding and keep tables readable; undefined is an empty cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else value
