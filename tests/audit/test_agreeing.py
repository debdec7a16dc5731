"""Two and three readers of one audit: what is compared, written and settled."""

import csv
import json
import re

import numpy as np
import pytest

from nnunet_lopsided.audit.agreeing import read_agreement
from nnunet_lopsided.audit.decisions import VERDICTS, audit_and_decisions, read_decisions
from nnunet_lopsided.audit.repair import write_repaired_variant
from nnunet_lopsided.audit.stored import read_audit
from nnunet_lopsided.commands.audit import main
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Image, read_image, write_image
from tests.audit.conftest import GEOMETRY
from tests.browser import BROWSER, Browser

HEAD = "audit,case,candidate,decision,reader,time,comment,monitor\n"


def write_reading(written, name, words, reader=None, separator=","):
    """Decisions on the candidates of these ranks."""
    audit = read_audit(written.audit)
    rows = [
        f"{audit.id},{c.case},{c.number},{word},{reader or ''},2026-05-0{len(name)}T10:00:00Z,says {name},left"
        for c in audit.candidates
        if (word := words.get(c.rank))
    ]
    path = written.root / f"{name}.csv"
    text = "\ufeff" + HEAD.replace("\n", "\r\n") + "\r\n".join(rows) + "\r\n"
    path.write_bytes(text.replace(",", separator).encode())
    return path


A = {**dict.fromkeys(range(1, 25), "accept"), **dict.fromkeys(range(25, 41), "reject")}
B = {**A, **dict.fromkeys((1, 2), "reject"), 3: "unsure", 30: "accept", 41: "reject"}


def test_two_readers_by_hand(written, capsys):
    """40 both: 24/16 by A; B accepts 21 of the 24, rejects 2, is unsure of 1; of the 16 it accepts 1.

    Observed 36/40; by chance (24 x 22 + 16 x 17) / 1600 = 0.5: kappa 0.8.
    """
    first, second = write_reading(written, "a", A, "Ada"), write_reading(written, "b", B, "Bob", ";")
    assert main(["agree", str(first), str(second), "--bootstrap", "200", "--seed", "3"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("Ada and Bob, accept, reject, unsure: Cohen's kappa 0.80 (95% interval 0.")
    assert printed[0].endswith("), 40 candidates")
    assert printed[2] == "36 candidates decided alike by all, 4 differently, 1 by some only"
    folder = written.root / "agreement"
    assert printed[3] == f"{folder}: see agreement.html"
    record = json.loads((folder / "agreement.json").read_text())
    assert (record["seed"], record["bootstrap_replicates"]) == (3, 200)
    assert record["kappas"][0]["kappa"] == pytest.approx(0.8)
    # Accepted or not: 24 against 22 of 40, 21 both: observed 36/40, by chance (24 x 22 + 16 x 18) / 1600 = 0.51.
    assert record["kappas"][1]["kappa"] == pytest.approx((0.9 - 0.51) / 0.49)
    assert record["tables"][0]["candidates"] == [[21, 2, 1], [1, 15, 0], [0, 0, 0]]
    assert [reader["accept"] for reader in record["readers"]] == [24, 22]
    rows = list(csv.DictReader((folder / "agreement.csv").open()))
    assert len(rows) == 41
    assert rows[0]["decision (Ada)"] == "accept"
    assert rows[0]["decision (Bob)"] == "reject"
    assert (rows[0]["consensus"], rows[0]["monitor (Bob)"], rows[0]["comment (Ada)"]) == ("", "left", "says a")


def test_what_all_agree_on_is_applied(written):
    first, second = write_reading(written, "a", A, "Ada"), write_reading(written, "b", B, "Bob")
    assert main(["agree", str(first), str(second), "--bootstrap", "0", "-o", str(written.root / "out")]) == 0
    path = written.root / "out" / "consensus.csv"
    audit, decisions = audit_and_decisions(path)
    by_rank = {c.rank: decisions.verdicts.get(c.key) for c in audit.candidates}
    assert [rank for rank, word in by_rank.items() if word == "accept"] == list(range(4, 25))
    assert decisions.remark(audit.candidates[5].key, "reader") == "Ada, Bob"
    assert decisions.remark(audit.candidates[0].key, "comment") == "Ada: says a; Bob: says b"
    made = write_repaired_variant(audit, decisions, 521)
    assert (made.n_added, made.n_rejected, made.n_undecided) == (21, 15, 14)
    record = json.loads((made.folder / "repair.json").read_text())
    assert record["readers"] == ["Ada, Bob"]
    rows = list(csv.DictReader((made.folder / "repaired_lesions.csv").open()))
    assert rows[0].keys() == {*["case", "candidate", "action", "value", "n_voxels", "reader", "time", "comment"]}
    assert {row["reader"] for row in rows} == {"Ada, Bob"}


def test_three_readers(written):
    rng = np.random.default_rng(0)
    paths = [
        write_reading(written, name, {rank: VERDICTS[rng.integers(0, 2 + (rank % 9 == 0))] for rank in range(1, 31)})
        for name in ("a", "b", "c")
    ]
    found = read_agreement(paths, n_replicates=0)
    assert [kappa.readers for kappa in found.kappas["accept, reject, unsure"]] == [(0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert found.names == ["a", "b", "c"]
    assert len(found.agreed) + len(found.disputed) == 30


def test_the_page_shows_what_is_to_settle(written):
    first, second = write_reading(written, "a", A, "Ada"), write_reading(written, "b", B, "Bob")
    assert main(["agree", str(first), str(second), "--bootstrap", "0"]) == 0
    page = (written.root / "agreement" / "agreement.html").read_text(encoding="utf-8")
    ranks = re.findall(r"<h3>(\d+)\. p\d\d, candidate", page)
    assert ranks == ["1", "2", "3", "30", "41"]
    assert '<p class="said">Ada: accept (says a)</p>\n<p class="said">Bob: unsure (says b)</p>' in page
    assert '<p class="said">Ada: not decided</p>' in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_the_consensus_is_settled_by_keys(written, tmp_path):
    first, second = write_reading(written, "a", A, "Ada"), write_reading(written, "b", B, "Bob")
    assert main(["agree", str(first), str(second), "--bootstrap", "0"]) == 0
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(written.root / "agreement" / "agreement.html")
        browser.press("a", "r")
        browser.download("#save-csv", tmp_path)
    finally:
        browser.close()
    saved = read_decisions(tmp_path / "consensus.csv")
    assert (saved.count("accept"), saved.count("reject")) == (22, 16)
    audit = read_audit(written.audit)
    assert [saved.verdicts.get(c.key) for c in audit.candidates[:4]] == ["accept", "reject", None, "accept"]


def test_what_is_refused(written, capsys):
    first, second = write_reading(written, "a", A), write_reading(written, "b", B)

    def fails(*arguments):
        assert main(["agree", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "expected the decisions of at least two readers, got 1 file" in fails(first)
    assert "a.csv is given twice" in fails(first, second, first)
    assert "--bootstrap must be 0 (no intervals) or at least 100, got 5" in fails(first, second, "--bootstrap", 5)
    other = written.root / "c.csv"
    other.write_text(second.read_text(encoding="utf-8-sig").replace(read_audit(written.audit).id, "f" * 16))
    assert f"c.csv holds decisions of audit {'f' * 16}; expected those of" in fails(first, other)
    other.write_text(f"audit,case,candidate,decision\n{read_audit(written.audit).id},p00,99,accept\n")
    assert "c.csv: case p00 has no candidate 99 in audit" in fails(first, other)
    assert fails(first, second, "-o", written.root / "nnUNet_raw").count("\n") == 1


def test_maps_that_were_edited_show_nothing_wrong(written):
    """Pictures are of the audit's own candidates."""
    first, second = write_reading(written, "a", A), write_reading(written, "b", B)
    case = read_audit(written.audit).candidates[0].case
    path = written.audit / "maps" / f"{case}.nii.gz"
    write_image(path, Image(np.zeros_like(read_image(path).array), GEOMETRY))
    assert main(["agree", str(first), str(second), "--bootstrap", "0"]) == 2
    assert not (written.root / "agreement").exists()


def test_no_candidate_in_common(written):
    first = write_reading(written, "a", {1: "accept"})
    found = read_agreement([first, write_reading(written, "b", {2: "accept"})], n_replicates=0)
    (kappa,) = found.kappas["accept, reject, unsure"]
    assert (kappa.n, kappa.kappa, [c.rank for c in found.partly_read]) == (0, None, [1, 2])
    with pytest.raises(InputError, match="at least two readers"):
        read_agreement([first])
