"""The tables of an evaluation as pandas frames, with the columns of the CSV files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.rows import (
    CASE_COLUMNS,
    PATIENT_COLUMNS,
    candidate_columns,
    candidate_rows,
    case_row,
    lesion_columns,
    lesion_rows,
    patient_rows,
    rows_of_cases,
)

if TYPE_CHECKING:
    from pandas import DataFrame

Table = Literal["cases", "patients", "lesions", "candidates"]


def data_frame(result: FolderResult, table: Table) -> DataFrame:
    """One table of an evaluation.

    Args:
        result: of ``evaluate_folder``.
        table: ``cases`` (without skipped ones), ``patients``, ``lesions`` or ``candidates``.

    Raises:
        ValueError: there is no such table.
    """
    from pandas import DataFrame

    if table == "cases":
        rows = [case_row(case, result.rules, result.files[case.case].fold) for case in result.cases]
        return DataFrame(rows, columns=list(CASE_COLUMNS))
    if table == "patients":
        return DataFrame(list(patient_rows(result)), columns=list(PATIENT_COLUMNS))
    if table == "lesions":
        return DataFrame(list(rows_of_cases(lesion_rows, result.cases)), columns=list(lesion_columns(result.rules)))
    if table == "candidates":
        return DataFrame(
            list(rows_of_cases(candidate_rows, result.cases)), columns=list(candidate_columns(result.rules))
        )
    raise ValueError(f"table must be one of cases, patients, lesions, candidates, got {table!r}")
