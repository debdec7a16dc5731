"""Whose a case is: names that look like sessions, patterns and tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_lopsided.dataset_conversion.converters.patient_names import (
    check_regex,
    numbered_visits,
    patients_table,
    session_question,
    sessions,
)
from nnunet_lopsided.errors import InputError


@pytest.mark.parametrize(
    ("names", "patient"),
    [
        (("sub-01_ses-1", "sub-01_ses-2"), "sub-01"),
        (("p7_T1", "p7_T2"), "p7"),
        (("p7_tp1", "p7_tp2"), "p7"),
        (("A12-v01", "A12-v02"), "A12"),
        (("A12_baseline", "A12_followup"), "A12"),
        (("A12", "A12_followup2"), "A12"),
        (("Meier_20210304", "Meier_20220304"), "Meier"),
        (("Meier_2021-03-04", "Meier_2022-03-04"), "Meier"),
        (("sub-01_ses-1_run-1", "sub-01_ses-2_run-1"), "sub-01_run-1"),
        (("p7_pre", "p7_post"), "p7"),
        (("p7_Scan 1", "p7_scan2"), "p7"),
    ],
)
def test_sessions_are_noticed(names: tuple[str, str], patient: str) -> None:
    others = ["other_1", "q9_ses-1", "q8"]
    assert sessions([*names, *others]) == {patient: sorted(names)}
    question = session_question([*names, *others])
    assert question is not None
    assert "--patients FILE.csv" in question


@pytest.mark.parametrize(
    "names",
    [
        ("P01", "P02", "P03"),
        ("sub-01_ses-1", "sub-02_ses-1"),
        ("T1", "T2"),
        ("case_v1", "case_v2", "case_v3", "case_v4"),
        ("Mets_001", "Mets_002"),
        ("a_t1c", "a_t1n"),
        ("p1_left", "p1_right"),
    ],
)
def test_others_are_not(names: tuple[str, ...]) -> None:
    assert session_question(names) is None


def test_numbers_that_may_be_visits_are_a_note() -> None:
    note = numbered_visits(["BraTS-MET-00001-000", "BraTS-MET-00001-001", "BraTS-MET-00002-000"])
    assert note is not None
    assert "BraTS-MET-00001-000 and BraTS-MET-00001-001" in note
    assert numbered_visits(["100101A", "100101B", "100102A"]) is not None
    for names in (["s1_001", "s1_002"], ["Mets_1", "Mets_2", "Mets_3"], ["a", "b"]):
        assert numbered_visits(names) is None
    many = [f"site{site}_{i:03d}" for site in (1, 2) for i in range(10)]
    assert numbered_visits(many) is None, "cases of a site"


def test_tables(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("patient,case,time_point\nA,x,2021\nA,y,\n")
    assert patients_table(table) == {"x": ("A", "2021"), "y": ("A", "")}
    table.write_text("case,patient\nx,A\nx,B\n")
    with pytest.raises(InputError, match="case x has two rows"):
        patients_table(table)
    table.write_text("case,patient\nx,\n")
    with pytest.raises(InputError, match="case x has no patient"):
        patients_table(table)


def test_patterns() -> None:
    for regex, message in (("(", "is not a regular expression"), ("sub", "finds no patient")):
        with pytest.raises(InputError, match=f"--patients-regex .* {message}"):
            check_regex(regex)
