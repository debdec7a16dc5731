"""An audit of models that know nothing: no miss rate, no scores, and what to do."""

import csv
import json

import pytest

from nnunet_lopsided.audit.decisions import decisions_above
from nnunet_lopsided.audit.stored import read_audit
from nnunet_lopsided.commands.audit import main
from nnunet_lopsided.errors import InputError
from tests.audit.conftest import TRAINER, add_specks


@pytest.fixture
def weak(audited):
    """Specks in the slices of the lesions, none beside a lesion or another speck, as probable as lesions, or more."""
    add_specks(audited, range(0, 12, 2))
    return audited


def test_neither_rate_nor_scores(weak, capsys):
    assert main(["-d", "511", "-c", "2.5d", "--bootstrap", "0", "--shown", "5"]) == 0
    printed = capsys.readouterr().out
    assert "miss rate and scores by likeness are withheld: on annotated lesions out of fold the models are" in printed
    assert "estimated miss rate" not in printed
    record = json.loads((weak.audit / "audit.json").read_text())
    assert record["withheld"].endswith("train longer, or on more patients, and audit again")
    assert record["detector"]["average_precision"] < 0.15
    assert record["detector"]["sensitivity"] == 1
    rates = [record["miss_rate"], *record["miss_rate_by_diameter"]]
    assert {(r["miss_rate"], r["missed_lesions"], r["missed_share_of_candidates"]) for r in rates} == {(None,) * 3}
    assert record["outside_miss_rate"] is None
    rows = list(csv.DictReader((weak.audit / "audit.csv").open()))
    assert {(row["score"], row["likeness"]) for row in rows} == {("", "")}
    mean = [float(row["mean_probability"]) for row in rows]
    assert mean == sorted(mean, reverse=True)
    page = (weak.audit / "audit.html").read_text(encoding="utf-8")
    assert "Miss rates and scores are withheld: on annotated lesions out of fold" in page
    assert "candidate 1: score" not in page


def test_what_can_be_done_with_it(weak, capsys):
    assert main(["-d", "511", "-c", "2.5d", "--bootstrap", "0", "--shown", "0"]) == 0
    with pytest.raises(InputError, match="has no scores to accept by: on annotated lesions out of fold"):
        decisions_above(read_audit(weak.audit), 0.5)
    capsys.readouterr()
    assert main(["score", str(weak.audit), "--truth", "501"]) == 0
    assert f"{TRAINER}: miss rate estimated withheld, true 0.500" in capsys.readouterr().out
    score = json.loads((weak.audit / "score" / "audit_score.json").read_text())
    (rates,) = score["miss_rates"]
    assert (rates["estimated"], rates["true"], rates["name"]) == (None, 0.5, TRAINER)
    assert "too weak" in rates["withheld"]
    assert main(["apply", "--truth", "501", "--first", "20", "-o", "521"]) == 0
