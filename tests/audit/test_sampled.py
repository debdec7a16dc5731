"""A sample through the commands: drawn, read on its page, estimated, applied."""

import csv
import json
import re
from typing import cast

import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnunet_lopsided.audit.sampled import read_sample, sample_candidates
from nnunet_lopsided.audit.stored import read_audit
from nnunet_lopsided.commands.audit import main
from nnunet_lopsided.images import read_image
from tests.audit.test_agreeing import HEAD
from tests.browser import BROWSER, Browser


def read_as_the_truth(written, path, *, leave=(), unsure=(), everything=False):
    """Decisions of a reader who knows the whole labels, on what was drawn."""
    sample = read_sample(written.audit / "sample")
    lines = []
    for i, c in enumerate(sample.population if everything else sample.drawn):
        whole = read_image(written.whole / "labelsTr" / f"{c.case}.nii.gz").array
        own = read_image(written.audit / "maps" / f"{c.case}.nii.gz").array == c.number
        word = "accept" if whole[own].any() else "reject"
        word = "" if i in leave else "unsure" if i in unsure else word
        lines.append(f"{sample.audit.id},{c.case},{c.number},{word},Ada,,,\n")
    path.write_text(HEAD + "".join(lines))


def test_from_the_audit_to_the_repaired_dataset(written, capsys):
    """Of 50 candidates 30 are missed lesions, the most probable ones; 30 lesions are annotated."""
    assert main(["sample", "--n", "20", "--seed", "4", str(written.audit)]) == 0
    folder = written.audit / "sample"
    assert capsys.readouterr().out.startswith("20 of 50 candidates drawn from ")
    record = json.loads((folder / "sample.json").read_text())
    assert (record["seed"], record["to_read"], record["candidates"]) == (4, 20, 50)
    assert sum(s["candidates"] for s in record["strata"]) == 50
    assert sum(s["sampled"] for s in record["strata"]) == 20
    read_as_the_truth(written, folder / "decisions.csv")
    assert main(["estimate", str(folder / "decisions.csv")]) == 0
    said = capsys.readouterr().out.splitlines()
    record = json.loads((folder / "estimate" / "estimate.json").read_text())
    whole = record["all"]
    assert (whole["candidates"], whole["read"], whole["annotated_lesions"]) == (50, 20, 30)
    low, high = whole["missed_lesions_ci95"]
    assert low <= 30 <= high
    words = f"about {whole['missed_lesions']:.0f} (95% interval {low:.0f} to {high:.0f}) of 50 candidates"
    assert said[0] == f"{words} are missed lesions, 20 were read"
    assert whole["miss_rate"] == pytest.approx(whole["missed_lesions"] / (whole["missed_lesions"] + 30))
    assert sum(row["missed_lesions"] for row in record["by_diameter"]) == pytest.approx(whole["missed_lesions"])
    assert sum(row["annotated_lesions"] for row in record["by_diameter"]) == 30
    zones = folder / "estimate" / "zones.csv"
    made = list(csv.DictReader(zones.open()))
    assert sum(row["decision"] == "accept" for row in made) == record["zones"]["accepted"]
    assert {row["reader"] for row in made if row["comment"].startswith("by its probability")} == {""}
    assert main(["apply", str(zones), "-o", "521", "--unsure", "ignore"]) == 0
    repaired = next((written.root / "nnUNet_raw").glob("Dataset521_*/repaired_lesions.csv"))
    actions = [row["action"] for row in csv.DictReader(repaired.open())]
    assert actions.count("added") == record["zones"]["accepted"] > 20


def test_a_census_is_the_truth(written):
    """All 50 are read: no width is left, and no probability is needed."""
    assert main(["sample", "--n", "60", str(written.audit)]) == 0
    read_as_the_truth(written, written.root / "d.csv", unsure=(3,))
    assert main(["estimate", str(written.root / "d.csv"), "-o", str(written.root / "out")]) == 0
    whole = json.loads((written.root / "out" / "estimate.json").read_text())["all"]
    assert whole["missed_lesions_ci95"] == [whole["missed_lesions"]] * 2
    assert abs(whole["missed_lesions"] - 30) == 0.5


def test_the_reader_is_told_nothing(written):
    assert main(["sample", "--n", "12", str(written.audit)]) == 0
    page = (written.audit / "sample" / "sample.html").read_text(encoding="utf-8")
    cards = re.findall(r"<h3>(\d+)\. (p\d\d), candidate (\d+)</h3>", page)
    assert [int(number) for number, *_ in cards] == list(range(1, 13))
    sample = read_sample(written.audit / "sample")
    assert [(case, int(n)) for _, case, n in cards] == [c.key for c in sample.drawn]
    ranks = [c.rank for c in sample.drawn]
    assert ranks != sorted(ranks)
    assert "score 0." not in page
    assert "likeness" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_what_was_written_is_read_again(written):
    assert main(["sample", "--n", "12", "--seed", "1", str(written.audit)]) == 0
    drawn, again = sample_candidates(read_audit(written.audit), 12, 1), read_sample(written.audit / "sample")
    assert [s.sampled.tolist() for s in drawn.strata] == [s.sampled.tolist() for s in again.strata]
    assert [s.members.tolist() for s in drawn.strata] == [s.members.tolist() for s in again.strata]
    assert drawn.probability == pytest.approx(again.probability, rel=1e-8)
    assert [c.key for c in drawn.drawn] == [c.key for c in again.drawn]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda w, p: read_as_the_truth(w, p, leave=(0, 5)), "2 of the 12 sampled candidates have no decision"),
        (
            lambda w, p: p.write_text(p.read_text().replace(read_audit(w.audit).id, "f" * 16)),
            r"d\.csv: expected decisions of audit [0-9a-f]{16} \(.*\), found f{16}$",
        ),
        (lambda w, p: (w.audit / "sample" / "sample.json").unlink(), "there is no sample, and none beside"),
        (
            lambda w, p: (w.audit / "sample" / "sample.csv").write_text(
                "\n".join((w.audit / "sample" / "sample.csv").read_text().splitlines()[:-1]) + "\n"
            ),
            "rows are missing or were changed",
        ),
    ],
    ids=["undecided", "another audit", "no sample", "a row less"],
)
def test_what_does_not_fit_is_refused(written, capsys, spoil, said):
    assert main(["sample", "--n", "12", str(written.audit)]) == 0
    read_as_the_truth(written, written.root / "d.csv")
    spoil(written, written.root / "d.csv")
    capsys.readouterr()
    assert main(["estimate", str(written.root / "d.csv")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)
    assert not (written.root / "estimate").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["sample", "--n", "1"], "at least 2"),
        (["sample", "--seed", "-1"], "--seed must be at least 0"),
        (["estimate", "d.csv", "--precision", "1.5"], "--precision must be within 0 and 1"),
    ],
)
def test_numbers_out_of_range(written, capsys, monkeypatch, options, said):
    monkeypatch.chdir(written.audit)
    if options[0] == "estimate":
        assert main(["sample", "--n", "12"]) == 0
        read_as_the_truth(written, written.audit / "d.csv")
    assert main(options) == 2
    assert said in capsys.readouterr().err


def test_a_sample_with_decisions_is_not_replaced(written, capsys):
    assert main(["sample", "--n", "12", str(written.audit)]) == 0
    table = written.audit / "sample" / "sample.csv"
    table.write_text(table.read_text().replace(",1,\n", ",1,accept\n", 1))
    assert main(["sample", "--n", "12", "--overwrite", str(written.audit)]) == 2
    assert "sample.csv has been changed since" in capsys.readouterr().err


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_the_page_by_keys(written, tmp_path):
    assert main(["sample", "--n", "4", str(written.audit)]) == 0
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(written.audit / "sample" / "sample.html")
        browser.press("a", "r", "s", "a")
        browser.download("#save-csv", tmp_path)
    finally:
        browser.close()
    assert main(["estimate", str(tmp_path / "decisions.csv")]) == 0
    record = json.loads((tmp_path / "estimate" / "estimate.json").read_text())
    assert record["read"] == {"accept": 2, "reject": 1, "unsure": 1}


def test_the_picture_shows_what_was_seen(written):
    """Bars by diameter, read from the SVG: heights in proportion to the shares annotated."""
    from nnunet_lopsided.audit.estimate_page import draw_seen
    from nnunet_lopsided.audit.sample_estimate import estimate_from_sample

    assert main(["sample", "--n", "30", str(written.audit)]) == 0
    read_as_the_truth(written, written.root / "d.csv")
    found = estimate_from_sample(read_sample(written.audit / "sample"), written.root / "d.csv")
    axes = Figure().subplots()
    draw_seen(axes, found)
    shares = [s.n_annotated / (s.n_annotated + s.total.missed) for s in found.by_size]
    assert [cast(Rectangle, bar).get_height() for bar in axes.patches] == pytest.approx(shares)
    ends = [cast(LineCollection, line).get_segments()[0][:, 1].tolist() for line in axes.collections]
    for size, (low, high) in zip(found.by_size, ends, strict=True):
        assert low == pytest.approx(size.n_annotated / (size.n_annotated + size.total.high))
        assert high == pytest.approx(size.n_annotated / (size.n_annotated + size.total.low))
        assert low < high or size.total.low == size.total.high
