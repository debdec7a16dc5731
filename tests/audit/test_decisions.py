"""Reading decisions."""

import json
import re

import pytest

from nnunet_lopsided.audit.decisions import read_decisions, write_decisions
from nnunet_lopsided.errors import InputError

HEAD = "audit,case,candidate,decision\n"


def test_csv_and_json_say_the_same(tmp_path):
    table, page = tmp_path / "d.csv", tmp_path / "d.json"
    table.write_text(HEAD + 'x1,"a, b",2,accept\nx1,c,1,Unsure\nx1,c,2,\n')
    listed = [
        {"case": "a, b", "candidate": 2, "decision": "accept"},
        {"case": "c", "candidate": 1, "decision": "unsure"},
    ]
    page.write_text(json.dumps({"audit": "x1", "dataset": "D", "decisions": listed}))
    expected = {("a, b", 2): "accept", ("c", 1): "unsure"}
    assert read_decisions(table).verdicts == read_decisions(page).verdicts == expected
    assert read_decisions(page).audit == "x1"
    assert read_decisions(table).count("unsure") == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("x1,a,1,yes\n", "line 2: expected accept, reject or unsure, found 'yes'"),
        ("x1,a,one,accept\n", "line 2: expected the number of a candidate, found 'one'"),
        ("x1,a,1,accept\nx1,a,1,reject\n", "line 3: case a, candidate 1 is decided on twice"),
        ("x1,a,1,accept\nx2,a,2,reject\n", "holds decisions of several audits: x1, x2"),
        ("x1,a,1,\n", "holds no decision"),
    ],
)
def test_what_is_refused(tmp_path, rows, message):
    path = tmp_path / "d.csv"
    path.write_text(HEAD + rows)
    with pytest.raises(InputError, match=re.escape(message)):
        read_decisions(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected a mapping, found a list"),
        ('{"audit": "x"}', "expected the key decisions, found audit"),
        ('{"audit": "x", "decisions": 3}', "decisions: expected a list, found 3"),
        ('{"audit": 5, "decisions": []}', "audit: expected text, found 5"),
        ('{"audit": "x", "decisions": [{"case": "a"}]}', "decisions[0]: expected the key candidate, found case"),
        (
            '{"audit": "x", "decisions": [{"case": "a", "candidate": 1.5, "decision": "accept"}]}',
            "decisions[0].candidate: expected a whole number or text, found 1.5",
        ),
        (
            '{"audit": "x", "decisions": [{"case": "a", "candidate": 1e999, "decision": "accept"}]}',
            "not valid JSON: expected finite numbers, found 1e999",
        ),
        ("[" * 100_000, "not valid JSON: nested too deeply"),
    ],
)
def test_json_of_another_kind(tmp_path, content, message):
    path = tmp_path / "d.json"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_decisions(path)
    assert str(error.value) == f"{path}: {message}"


def test_files_as_spreadsheets_and_editors_leave_them(tmp_path):
    """With a byte order mark, and a row of empty cells at the end."""
    table, page = tmp_path / "d.csv", tmp_path / "d.json"
    table.write_bytes(f"\ufeff{HEAD}x1,a,1,accept\n,,,\n".replace("\n", "\r\n").encode())
    listed = [{"case": "a", "candidate": 1, "decision": "accept"}, {"case": "a", "candidate": 2, "decision": None}]
    page.write_bytes(("\ufeff" + json.dumps({"audit": "x1", "decisions": listed})).encode())
    assert read_decisions(table).verdicts == read_decisions(page).verdicts == {("a", 1): "accept"}


def test_who_decided_when_and_why_is_kept_with_any_other_column(tmp_path):
    path, copy = tmp_path / "d.csv", tmp_path / "copy.csv"
    rows = 'x1;a;2;accept;Ada;2026-05-01T10:00:00Z;"on b; only";3\nx1;a;1;;;;look again;\n'
    path.write_text("audit;case;candidate;decision;reader;time;comment;screen\n" + rows)
    decisions = read_decisions(path)
    assert decisions.remarks == {
        ("a", 2): {"reader": "Ada", "time": "2026-05-01T10:00:00Z", "comment": "on b; only", "screen": "3"},
        ("a", 1): {"comment": "look again"},
    }
    assert (decisions.verdicts, decisions.readers) == ({("a", 2): "accept"}, ("Ada",))
    write_decisions(decisions, copy)
    assert copy.read_text() == (
        "audit,case,candidate,decision,reader,time,comment,screen\n"
        "x1,a,2,accept,Ada,2026-05-01T10:00:00Z,on b; only,3\nx1,a,1,,,,look again,\n"
    )
    again = read_decisions(copy)
    assert (again.verdicts, again.remarks) == (decisions.verdicts, decisions.remarks)


def test_what_the_audit_wrote_itself_is_no_remark(tmp_path):
    path = tmp_path / "audit.csv"
    path.write_text(
        "audit,rank,case,candidate,score,contrast_0,reason,decision,mine\nx1,1,a,1,0.5,2,bright,accept,ok\n"
    )
    assert read_decisions(path).remarks == {("a", 1): {"mine": "ok"}}
