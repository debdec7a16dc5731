"""Which cases belong to one patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.tables import read_table
from nnunet_lopsided.nnunet.paths import check_case_name

CASES_FILE = "cases.csv"


def patients_of(cases: Sequence[str], dataset_folder: Path, pattern: str | None = None) -> tuple[dict[str, str], str]:
    """The patient of every case.

    Args:
        cases: names of cases.
        dataset_folder: may hold ``cases.csv`` with the columns ``case`` and ``patient``, as lopsided-convert writes it.
        pattern: a regular expression; its first group (or its match) in a case's name is the patient, whatever
            ``cases.csv`` says. None: ``cases.csv``; where there is none, every case is a patient.

    Returns:
        The patient by case, and in words where that comes from.

    Raises:
        InputError: the pattern is no regular expression or does not match a case, or ``cases.csv`` lacks a case.
    """
    table = dataset_folder / CASES_FILE
    if pattern is not None:
        return {case: _matched(pattern, case) for case in cases}, f"regular expression {pattern}"
    if not table.is_file():
        return {case: case for case in cases}, "every case is a patient"
    known = patients_in(table)
    for case in cases:
        if not known.get(case):
            raise InputError(f"{table}: case {case} has no row with its patient (or give --patients-regex)")
    return {case: known[case] for case in cases}, CASES_FILE


def patients_in(table: Path) -> dict[str, str]:
    """The patient of every case in a cases.csv.

    Raises:
        InputError: the table is missing, lacks a column, or names a case that no file may be named after.
    """
    rows = read_table(table, ("case", "patient"))
    for row in rows:
        check_case_name(row["case"], table)
    return {row["case"]: row["patient"] for row in rows}


def sources_of(dataset_folder: Path) -> dict[str, str]:
    """What each case was converted from, by ``cases.csv``: of DICOM the UID of the study; empty where that is not said.

    Raises:
        InputError: the table cannot be read.
    """
    table = dataset_folder / CASES_FILE
    if not table.is_file():
        return {}
    return {row["case"]: source for row in read_table(table, ("case",)) if (source := row.get("source", ""))}


def _matched(pattern: str, case: str) -> str:
    try:
        match = re.search(pattern, case)
    except re.error as error:
        raise InputError(f"patients regex must be a regular expression, got {pattern!r}: {error}") from None
    if match is None:
        raise InputError(f"patients regex {pattern!r} does not match case {case}")
    # A group that took no part in the match, such as one of two alternatives, names nobody.
    return match[1] if match.re.groups and match[1] is not None else match[0]
