"""Writing an evaluation: summary.json, CSV tables, curves.png and report.html."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.inputs import Inputs
from nnunet_lopsided.evaluation.rows import (
    CASE_COLUMNS,
    PATIENT_COLUMNS,
    Cell,
    Row,
    candidate_columns,
    candidate_rows,
    case_row,
    lesion_columns,
    lesion_rows,
    patient_rows,
    rows_of_cases,
    skipped_rows,
)
from nnunet_lopsided.evaluation.summary_content import CountsContent, MetricsContent, SurfaceContent, ThresholdContent
from nnunet_lopsided.evaluation.summary_json import flat_metrics, metric_intervals, summary_dict
from nnunet_lopsided.files.folders import new_output_folder
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.pages.pictures import Picture

# Names in the folder of an evaluation.
FILES = ("summary.json", "*.csv", "curves.png", "report.html", "maps")


def write_results(result: FolderResult, folder: Path, overwrite: bool = False, anonymous: bool = False) -> None:
    """Write every output to a temporary folder beside ``folder`` and rename it when complete.

    The same result always gives the same bytes.

    Args:
        result: of ``evaluate_folder``.
        folder: target; see :func:`check_output_folder`.
        overwrite: replace an earlier evaluation there.
        anonymous: see :func:`write_files`.

    Raises:
        InputError: the target is refused, or cannot be written.
    """
    with new_output_folder(folder, overwrite, input_folders(result.inputs), holds=FILES) as unfinished:
        write_files(result, unfinished, anonymous=anonymous)


def input_folders(inputs: Inputs) -> tuple[Path, ...]:
    """The folders that an output must not replace."""
    return tuple(p for p in (inputs.references, inputs.predictions, inputs.censored_references) if p is not None)


def write_files(result: FolderResult, folder: Path, gallery: Sequence[Picture] = (), anonymous: bool = False) -> None:
    """Write every output into an existing folder.

    Args:
        result: of ``evaluate_folder``.
        folder: an empty one.
        gallery: pictures for the page, of ``report.gallery``.
        anonymous: the page names no case and no folder. The other files do, and tell which case is which.
    """
    # Here, since others use this module for its tables alone, and the page needs Jinja and its templates.
    from nnunet_lopsided.evaluation.report import figure_png, report_html

    summary = summary_dict(result)
    text = json.dumps(summary, indent=2, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    case_rows = (
        *(case_row(case, result.rules, result.files[case.case].fold) for case in result.cases),
        *skipped_rows(result),
    )
    # Skipped cases in their places, so that a reader who looks for one finds it.
    write_csv(folder / "cases.csv", CASE_COLUMNS, sorted(case_rows, key=lambda row: str(row[0])))
    write_csv(folder / "patients.csv", PATIENT_COLUMNS, patient_rows(result))
    write_csv(folder / "lesions.csv", lesion_columns(result.rules), rows_of_cases(lesion_rows, result.cases))
    write_csv(folder / "candidates.csv", candidate_columns(result.rules), rows_of_cases(candidate_rows, result.cases))
    if result.by_threshold:
        write_csv(folder / "thresholds.csv", *_threshold_table(summary["by_threshold"]))
    (folder / "curves.png").write_bytes(figure_png(result.summary))
    (folder / "report.html").write_text(report_html(result, summary, gallery, anonymous), encoding="utf-8")


def _threshold_table(rows: Sequence[ThresholdContent]) -> tuple[tuple[str, ...], list[Row]]:
    """Header and rows of thresholds.csv: every metric that is a number, both ends of the intervals, the counts."""
    flat = [
        {
            "threshold": row["threshold"],
            **metric_cells(row["metrics"], row["counts"], row.get("surface_distances")),
        }
        for row in rows
    ]
    return tuple(flat[0]), [tuple(cells.values()) for cells in flat]


def metric_cells(
    metrics: MetricsContent, counts: CountsContent, surface: SurfaceContent | None = None
) -> dict[str, Cell]:
    """A row of a table: every metric that is a number, both ends of the intervals, the counts, the surfaces."""
    cells: dict[str, Cell] = {}
    numbers, intervals = flat_metrics(metrics), metric_intervals(metrics)
    for name in [*metrics, *numbers]:  # in the order of summary.json, those by confidence last
        if name in intervals:
            cells[f"{name}_low"], cells[f"{name}_high"] = intervals[name] or (None, None)
        elif name in numbers:
            cells[name] = numbers[name]
    cells |= {name: count for name, count in counts.items() if isinstance(count, int)}
    if surface is not None:
        for name, average in (("hd95_mm", surface["hd95_mm"]), ("nsd", surface["nsd"])):
            cells[f"{name}_mean"], cells[f"{name}_median"] = average["mean"], average["median"]
            ends = average["mean_ci95_bootstrap"] or (None, None)
            cells[f"{name}_mean_low"], cells[f"{name}_mean_high"] = ends
    return cells


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Write a table: undefined (None, NaN) cells are empty, numbers have nine significant digits."""
    write_table(path, header, ([_cell(value) for value in row] for row in rows))


def _cell(value: Cell) -> str | int:
    """A cell as text: numbers with nine significant digits, finer than anything measured; empty where undefined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else value
