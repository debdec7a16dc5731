"""Reading an audit that was written, and edited since."""

import json
import re
from typing import Any

import pytest

from nnunet_lopsided.audit.stored import chosen_audit, read_audit
from nnunet_lopsided.errors import InputError

RECORD: dict[str, Any] = {
    "id": "abc",
    "schema_version": 1,
    "dataset": "Dataset511_Cut",
    "models": [{"trainer": "nnUNetTrainerLopsided"}],
    "counts": {"candidates": 2},
    "settings": {"label": None, "tolerance_mm": 1.0, "connectivity": 26},
    "miss_rate": {},
    "cases": {"p00": {"fold": 0, "label_sha256": "0"}},
}
HEAD = "audit,rank,case,candidate,score,mean_probability,max_probability,label\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "audit.json").write_text(json.dumps(RECORD))
    (tmp_path / "audit.csv").write_text(HEAD + "abc,2,p00,1,0.5,0.4,0.6,1\nabc,1,p00,2,0.7,0.4,0.6,1\n")
    return tmp_path


def test_candidates_come_by_rank(folder):
    found = read_audit(folder)
    assert [(c.case, c.number, c.score) for c in found.candidates] == [("p00", 2, 0.7), ("p00", 1, 0.5)]
    assert (found.id, found.dataset) == ("abc", "Dataset511_Cut")


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ("abc,2,p00,1,0.5,0.4,0.6,1\n", "1"),
        ("abc,1,p00,1,0.5,0.4,0.6,1\nabc,1,p00,2,0.7,0.4,0.6,1\n", "other ranks"),
        ("", "0"),
    ],
)
def test_a_table_in_which_candidates_are_missing(folder, rows, found):
    (folder / "audit.csv").write_text(HEAD + rows)
    message = f"expected the 2 candidates of audit abc, ranked 1 to 2, found {found}; audit again into another folder"
    with pytest.raises(InputError, match=message):
        read_audit(folder)


def test_files_as_a_spreadsheet_leaves_them(folder):
    for name, more in (("audit.json", ""), ("audit.csv", ",,,,,,,\n")):
        path = folder / name
        path.write_bytes(("\ufeff" + path.read_text() + more).replace("\n", "\r\n").encode())
    assert len(read_audit(folder).candidates) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[" * 100_000, "not valid JSON: nested too deeply"),
        ("[]", "expected a mapping, found a list"),
        ("{}", "expected the key schema_version, found none"),
        ({"schema_version": 2}, "schema_version: expected 1, found 2"),
        ({"id": 5}, "id: expected text, found 5"),
        ({"cases": ["p00"]}, "cases: expected a mapping, found a list"),
        ({"cases": {"p00": {"fold": 0}}}, "cases.p00: expected the key label_sha256, found fold"),
        ({"models": [{"plans": "x"}]}, "models[0]: expected the key trainer, found plans"),
        ({"models": []}, "models: expected at least one, found none"),
        ({"settings": []}, "settings: expected a mapping, found a list"),
        (
            {"settings": {**RECORD["settings"], "tolerance_mm": "1"}},
            'settings.tolerance_mm: expected a number, found "1"',
        ),
        ({"miss_rate": 0.5}, "miss_rate: expected a mapping, found 0.5"),
        ({"miss_rate": {"miss_rate": 5}}, "miss_rate.miss_rate: expected a number from 0 to 1, or null, found 5"),
        ({"counts": {"candidates": -1}}, "counts.candidates: expected at least 0, found -1"),
        (
            {"ranked_by": "size"},
            "ranked_by: expected one of likeness, mean-probability, max, sum, sqrt, learned, found size",
        ),
        ({"ranked_by": ["likeness"]}, "ranked_by: expected text, found a list"),
        (
            {"cases": {"../a": {"label_sha256": "0"}}},
            "a case name must be a plain file name, got '../a': it holds a path separator",
        ),
        ({"maps": {"p00": 1}}, "maps.p00: expected text, found 1"),
        (
            {"settings": {**RECORD["settings"], "tolerance_mm": -1.0}},
            "settings: tolerance_mm must be a finite number of at least 0, got -1.0",
        ),
    ],
)
def test_a_damaged_record(folder, content, message):
    path = folder / "audit.json"
    path.write_text(content if isinstance(content, str) else json.dumps(RECORD | content))
    with pytest.raises(InputError) as error:
        read_audit(folder)
    assert str(error.value) == f"{path}: {message}"


def test_a_record_with_a_number_beyond_all_bounds(folder):
    path = folder / "audit.json"
    path.write_text(path.read_text().replace("1.0", "1e999"))
    with pytest.raises(InputError, match="not valid JSON: expected finite numbers, found 1e999"):
        read_audit(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("other,1,p00,1,0.5,0.5,0.5,1", "line 2: expected a candidate of audit abc, found other"),
        ("abc,1,p01,1,0.5,0.5,0.5,1", "line 2: expected a case of audit abc, found p01"),
        ("abc,1,p00,one,0.5,0.5,0.5,1", "line 2: candidate: expected a whole number, found 'one'"),
        ("abc,1,p00,1,1e999,0.5,0.5,1", "line 2: score: expected a number from 0 to 1, found '1e999'"),
        ("abc,1,p00,1,5,0.5,0.5,1", "line 2: score: expected a number from 0 to 1, found '5'"),
        ("abc,1,p00,1,nan,0.5,0.5,1", "line 2: score: expected a number from 0 to 1, found 'nan'"),
        ("abc,1,p00,1,,0.5,0.5,1", "line 2: score: expected a number from 0 to 1, found ''"),
        ("abc,1,p00,1,0.5,-1,0.5,1", "line 2: mean_probability: expected a number from 0 to 1, found '-1'"),
        ("abc,1,p00,1,0.5,0.5,0.5,²", "line 2: label: expected a whole number, found '²'"),
        ("abc,1,p00,0,0.5,0.5,0.5,1", "line 2: expected the number of a candidate, at least 1, found 0"),
        (
            "abc,1,p00,1,0.5,0.5,0.5,1\nabc,2,p00,1,0.5,0.5,0.5,1",
            "line 3: case p00, candidate 1 is listed twice",
        ),
        ("abc,1", "line 2: expected a case of audit abc, found nothing"),
    ],
)
def test_a_damaged_table(folder, row, message):
    (folder / "audit.csv").write_text(f"{HEAD}{row}\n")
    with pytest.raises(InputError) as error:
        read_audit(folder)
    assert str(error.value) == f"{folder / 'audit.csv'}, {message}"


def test_a_table_without_a_column(folder):
    (folder / "audit.csv").write_text(HEAD.replace("label", "value"))
    with pytest.raises(InputError, match=r"expected the columns .* and label, found audit, rank, .*, value"):
        read_audit(folder)


@pytest.mark.parametrize("content", ["[1]", '{"id": ["abc"]}'])
def test_a_damaged_record_among_those_looked_for(folder, monkeypatch, content):
    """Nearby, or below nnUNet_results."""
    path = folder / "audit.json"
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(f"{path}: ")):
        chosen_audit(None, "abc", [folder])
    results = folder / "results"
    (results / "Dataset511_Cut" / "model" / "audit").mkdir(parents=True)
    moved = path.rename(results / "Dataset511_Cut" / "model" / "audit" / "audit.json")
    monkeypatch.setenv("nnUNet_results", str(results))
    with pytest.raises(InputError, match=re.escape(f"{moved}: ")):
        chosen_audit(None, "abc")


def test_a_count_is_not_taken_on_trust(folder):
    """A range up to it would fill the memory."""
    (folder / "audit.json").write_text(json.dumps(RECORD | {"counts": {"candidates": 10**12}}))
    with pytest.raises(InputError, match=r"expected the 1000000000000 candidates of audit abc, .* found 2"):
        read_audit(folder)


def test_sums_may_be_above_1(folder):
    (folder / "audit.json").write_text(json.dumps(RECORD | {"ranked_by": "sum"}))
    table = folder / "audit.csv"
    table.write_text(table.read_text().replace("0.7", "17.5"))
    assert read_audit(folder).candidates[0].score == 17.5
    table.write_text(table.read_text().replace("17.5", "inf"))
    with pytest.raises(InputError, match="score: expected a finite number of at least 0, found 'inf'"):
        read_audit(folder)


def test_withheld_scores_are_none(folder):
    (folder / "audit.json").write_text(json.dumps(RECORD | {"withheld": "the models find too little"}))
    table = folder / "audit.csv"
    table.write_text(table.read_text().replace(",0.5,", ",,").replace(",0.7,", ",,"))
    audit = read_audit(folder)
    assert [c.score for c in audit.candidates] == [None, None]
    assert audit.record.withheld == "the models find too little"
