"""Reading decisions."""

import json
import re

import pytest

from nnunet_lopsided.audit.decisions import read_decisions
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
    "content", [[], {"audit": "x"}, {"audit": "x", "decisions": [{"case": "a"}]}, {"decisions": 3}]
)
def test_json_of_another_kind(tmp_path, content):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="expected 'audit' and a list 'decisions'"):
        read_decisions(path)
