"""lopsided-audit."""

import csv
import json
import shutil

import numpy as np
import pytest

from nnunet_lopsided.commands.audit import main
from nnunet_lopsided.images import Image, read_image, write_image
from tests.audit.conftest import GEOMETRY, TRAINER


def fails(capsys, *arguments):
    """The one line that the command prints on bad input."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


def test_what_an_audit_prints_and_writes(audited, capsys):
    assert main(["-d", "511", "-tr", TRAINER, "-c", "2.5d", "--bootstrap", "20"]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "50 candidates in 10 cases, which have 30 annotated lesions"
    assert second.startswith("estimated miss rate 0.")
    record = json.loads((audited.audit / "audit.json").read_text())
    assert third == f"audit {record['id']} in {audited.audit}: see audit.html"
    assert sorted(path.name for path in audited.audit.iterdir()) == [
        ".lopsided.json",
        "audit.csv",
        "audit.html",
        "audit.json",
        "maps",
    ]
    assert (record["settings"]["seed"], record["settings"]["threshold"], record["folds"]) == (0, 0.03, [0, 1])
    rows = list(csv.DictReader((audited.audit / "audit.csv").open()))
    assert [int(row["rank"]) for row in rows] == list(range(1, 51))
    assert {row["audit"] for row in rows} == {record["id"]}
    assert rows[0]["reason"].startswith("probability up to 0.")


def test_what_the_miss_rate_leaves_out_is_said(audited, capsys):
    edges = ("--diameter-edges-mm", "3.2", "4.1")
    assert main(["-d", "511", "-tr", TRAINER, "-c", "2.5d", "--bootstrap", "0", *edges]) == 0
    printed = capsys.readouterr().out.splitlines()
    record = json.loads((audited.audit / "audit.json").read_text())
    ranges = record["miss_rate_by_diameter"]
    n = sum(of["candidates"] for of in ranges if of["annotated_lesions_found"] < 10)
    assert n > 0
    missed = n + sum(of["missed_lesions"] for of in ranges if of["annotated_lesions_found"] >= 10)
    rate = missed / (missed + 30)
    assert record["outside_miss_rate"] == {"candidates": n, "miss_rate_if_missed": pytest.approx(rate)}
    assert printed[2] == (
        f"{n} candidates are of diameters that are hardly annotated, and judged by lesions of others; if all of them "
        f"were missed lesions, the rate would be {rate:.2f}"
    )
    page = (audited.audit / "audit.html").read_text(encoding="utf-8")
    assert f"<b>{n} candidates are of diameters that are hardly annotated</b>" in page


def test_an_earlier_audit_is_replaced_only_on_request(written, capsys):
    before = (written.audit / "audit.json").read_bytes()
    assert "output folder exists" in fails(capsys, "-d", 511, "-c", "2.5d")
    assert (written.audit / "audit.json").read_bytes() == before
    assert main(["-d", "511", "-c", "2.5d", "--overwrite", "--bootstrap", "20", "--seed", "4"]) == 0
    assert json.loads((written.audit / "audit.json").read_text())["settings"]["seed"] == 4


def test_a_folder_of_something_else_is_never_replaced(audited, capsys, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").touch()
    message = fails(capsys, "-d", 511, "-c", "2.5d", "-o", tmp_path / "photos", "--overwrite")
    assert "photos holds no audit.json of lopsided-audit with audit.csv beside it; only an earlier output" in message


def test_folds_in_part_are_said(audited, capsys, tmp_path):
    assert main(["-d", "511", "-c", "2.5d", "-f", "0", "-o", str(tmp_path / "out"), "--bootstrap", "0"]) == 0
    error = capsys.readouterr().err
    assert "validated by none of the folds, not audited: p01, p03, p05, p07, p09" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-f", "all"), "fold all trains on every case"),
        (("-f", "one"), "-f must be numbers of folds, got one"),
        (("--threshold", "0"), "threshold must be within (0, 1], got 0.0"),
        (("--label", "tumour"), "label must be one of lesion"),
        (("--seed", "-1"), "--seed must be at least 0, got -1"),
        (("--shown", "5001"), "--shown must be at most 5000, got 5001: a browser opens no larger page"),
        (("-tr", "A", "A"), "-tr names a trainer twice: A A"),
        (("-tr", "A"), "fold 0 has no predictions with probabilities"),
        (("-d", "512"), "dataset 512 not found"),
    ],
)
def test_bad_input_is_one_line(audited, capsys, arguments, message):
    assert message in fails(capsys, "-d", 511, "-c", "2.5d", *arguments)
    assert not audited.audit.exists()


def test_the_whole_loop(written, capsys, tmp_path):
    decisions = tmp_path / "elsewhere" / "decisions.csv"
    decisions.parent.mkdir()
    assert main(["score", "--truth", "501", "--decisions", str(decisions)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "30 missed lesions"
    assert printed[1].startswith(f"{TRAINER}, its ranking: 50 candidates, average precision 1.000")
    assert printed[3] == "  first    30: precision 1.000, found 1.000"
    assert printed[-1] == f"score in {written.audit / 'score'}"
    assert main(["apply", str(decisions), "-o", "521"]) == 0
    made = written.root / "nnUNet_raw" / "Dataset521_CutRepaired"
    assert capsys.readouterr().out == (f"{made}: 30 candidates added, 20 rejected, 0 unsure, 0 not decided on\n")
    for path in sorted((made / "labelsTr").iterdir()):
        whole = read_image(written.whole / "labelsTr" / path.name)
        assert np.array_equal(read_image(path).array, whole.array)


def test_the_truth_decides_on_the_first_candidates(written, capsys):
    """The first 30 of 50 candidates are the 30 missed lesions; the other 20 are none."""
    made = written.root / "nnUNet_raw" / "Dataset521_CutRepaired"
    assert main(["apply", "--truth", "501", "--first", "10", "-o", "521"]) == 0
    assert capsys.readouterr().out == f"{made}: 10 candidates added, 0 rejected, 0 unsure, 40 not decided on\n"
    record = json.loads((made / "repair.json").read_text())
    assert (record["decided_by"], record["first"], record["n_undecided"]) == (written.whole.name, 10, 40)
    assert main(["apply", "--truth", "501", "-o", "521", "--overwrite"]) == 0
    assert capsys.readouterr().out == f"{made}: 30 candidates added, 20 rejected, 0 unsure, 0 not decided on\n"
    for path in sorted((made / "labelsTr").iterdir()):
        assert np.array_equal(read_image(path).array, read_image(written.whole / "labelsTr" / path.name).array)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected exactly one of DECISIONS, --accept-above and --truth"),
        (("--accept-above", 0.5, "--truth", 501), "expected exactly one of DECISIONS, --accept-above and --truth"),
        (("--truth", 501, "--first", 0), "--first must be at least 1, and needs --truth; got 0"),
        (("--accept-above", 0.5, "--first", 3), "--first must be at least 1, and needs --truth; got 3"),
        (("--truth", 502), "dataset 502 not found"),
    ],
)
def test_who_decides_is_said_once(written, capsys, arguments, message):
    assert message in fails(capsys, "apply", *arguments, "-o", 521)


def test_a_dataset_with_regions(audited, capsys, tmp_path):
    """Nested ones, whole and core; the core is the upper half, and so it is in what was predicted."""
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    for folder in (audited.raw, audited.preprocessed):
        content = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(content | {"labels": labels, "regions_class_order": [1, 2]}))
    for path in audited.raw.glob("labelsTr/*"):
        write_image(path, Image(upper_half_2(read_image(path).array), GEOMETRY))
        shutil.copy(path, audited.preprocessed / "gt_segmentations")
    for path in audited.results.glob("fold_*/validation/*.npz"):
        whole = np.load(path)["probabilities"][1]
        core = whole * np.where(np.arange(len(whole)) < 3, 0.0005, 0.9)[:, None, None]
        np.savez_compressed(path, probabilities=np.stack([whole, core]))
    assert main(["-d", "511", "-c", "2.5d", "--bootstrap", "0"]) == 0
    assert capsys.readouterr().out.startswith("50 candidates in 10 cases, which have 30 annotated lesions\n")
    decisions = tmp_path / "decisions.csv"
    assert main(["score", "--truth", "501", "--decisions", str(decisions)]) == 0
    shutil.rmtree(audited.audit / "score")
    assert main(["apply", str(decisions), "-o", "521"]) == 0
    made = audited.root / "nnUNet_raw" / "Dataset521_CutRepaired"
    for path in sorted((made / "labelsTr").iterdir()):
        whole = read_image(audited.whole / "labelsTr" / path.name).array
        assert np.array_equal(read_image(path).array, upper_half_2(whole)), path.name
    written = json.loads((made / "dataset.json").read_text())
    assert (written["labels"], written["regions_class_order"]) == (labels, [1, 2])
    # One region alone.
    assert main(["-d", "511", "-c", "2.5d", "--bootstrap", "0", "--label", "core", "-o", str(tmp_path / "core")]) == 0
    rows = list(csv.DictReader((tmp_path / "core" / "audit.csv").open()))
    assert {(row["label"], float(row["centroid_z"]) > 2) for row in rows} == {("2", True)}


def upper_half_2(label):
    label = np.array(label)
    label[3:][label[3:] > 0] = 2
    return label


def test_score_files(written, tmp_path):
    assert main(["score", str(written.audit), "--truth", "501", "-o", str(tmp_path / "score")]) == 0
    content = json.loads((tmp_path / "score" / "audit_score.json").read_text())
    assert content["missed_lesions"] == 30
    names = [ranking["name"] for ranking in content["rankings"]]
    assert names == [
        f"{TRAINER}, its ranking",
        f"{TRAINER}, mean probability",
        f"{TRAINER}, highest probability",
        "random order",
    ]
    assert [entry["asked"] for entry in content["rankings"][0]["reviewed"]] == [10, 30, 50, 60, 100]
    chance = content["rankings"][3]["reviewed"]
    assert set(chance[0]) == {"n", "precision", "found", "asked"}
    assert chance[0]["precision"] == pytest.approx(30 / 50)
    assert chance[1]["found"] == pytest.approx(30 / 50)
    rows = list(csv.DictReader((tmp_path / "score" / "audit_score.csv").open()))
    assert len(rows) == 4 * 50
    assert (tmp_path / "score" / "audit_score.png").stat().st_size > 5000


def test_score_against_another_model(written, capsys, tmp_path):
    """The other model gives false positives the highest probabilities."""
    other = written.results.with_name("nnUNetTrainer25D__nnUNetPlans__2.5d")
    shutil.copytree(written.results, other)
    shutil.rmtree(other / "audit")
    for path in other.glob("fold_*/validation/*.npz"):
        probability = np.load(path)["probabilities"][1]
        turned = np.where(probability > 0, 1.05 - probability, 0)
        np.savez_compressed(path, probabilities=np.stack([1 - turned, turned]))
        segmented = Image((turned > 0.5).astype(np.uint8), GEOMETRY)
        write_image(path.with_name(path.name.replace(".npz", ".nii.gz")), segmented)
    command = [
        "-d",
        "511",
        "-tr",
        "nnUNetTrainer25D",
        "-c",
        "2.5d",
        "--bootstrap",
        "0",
        "--rank-by",
        "mean-probability",
    ]
    assert main(command) == 0
    assert "there are several audits, name one" in fails(capsys, "score", "--truth", 501)
    capsys.readouterr()
    arguments = ["score", written.audit, "--truth", 501, "--against", other / "audit", "-o", tmp_path / "score"]
    assert main([str(a) for a in arguments]) == 0
    content = json.loads((tmp_path / "score" / "audit_score.json").read_text())
    precision = {r["name"]: r["reviewed"][0]["precision"] for r in content["rankings"]}
    assert precision[f"{TRAINER}, its ranking"] == 1
    assert precision["nnUNetTrainer25D, its ranking"] == 0
    assert len(precision) == 7


def test_a_truth_that_lacks_a_case(written, capsys):
    for path in written.whole.glob("*/p03*"):
        path.unlink()
    assert "case p03 of audit" in fails(capsys, "score", written.audit, "--truth", 501)


def test_a_truth_that_is_none(written, capsys):
    """What would give wrong numbers, or reject every candidate."""
    for command in (("score", written.audit), ("apply", "-o", 521)):
        message = fails(capsys, *command, "--truth", 511)
        assert "expected the dataset with the whole labels, found the audited one, Dataset511_Cut" in message
    path = written.whole / "labelsTr" / "p03.nii.gz"
    label = read_image(path)
    write_image(path, Image(np.where(label.array != 0, 7, 0).astype(np.uint8), label.geometry))
    assert f"case p03: {path}: unknown label value 7" in fails(capsys, "score", written.audit, "--truth", 501)
    content = json.loads((written.whole / "dataset.json").read_text())
    content["labels"]["lesion"] = 2
    (written.whole / "dataset.json").write_text(json.dumps(content))
    message = fails(capsys, "score", written.audit, "--truth", 501)
    assert "expected lesions among the label values 0, 1 of Dataset511_Cut, found 0, 2" in message


def test_a_truth_of_another_shape(written, capsys):
    path = written.whole / "labelsTr" / "p03.nii.gz"
    write_image(path, Image(np.zeros((6, 36, 30), np.uint8), GEOMETRY))
    audited = written.raw / "labelsTr" / "p03.nii.gz"
    message = f"case p03: {path} and {audited} differ: shape (6, 36, 30) versus (6, 36, 36)"
    assert message in fails(capsys, "score", written.audit, "--truth", 501)


def test_labels_that_changed_since_the_audit_are_not_scored(written, capsys):
    path = written.raw / "labelsTr" / "p03.nii.gz"
    label = read_image(path)
    write_image(path, Image(np.zeros_like(label.array), label.geometry))
    assert f"case p03: {path} has changed since audit" in fails(capsys, "score", written.audit, "--truth", 501)


def test_annotated_lesions_that_the_truth_has_not_are_counted(written, capsys, tmp_path):
    path = written.whole / "labelsTr" / "p03.nii.gz"
    label = read_image(path)
    write_image(path, Image(np.zeros_like(label.array), label.geometry))
    assert main(["score", str(written.audit), "--truth", "501", "-o", str(tmp_path / "score")]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert (first, second) == ("27 missed lesions", "3 annotated lesions have no voxel in the truth")
    content = json.loads((tmp_path / "score" / "audit_score.json").read_text())
    assert content["annotated_lesions_not_in_truth"] == 3


def test_a_truth_that_misses_nothing_is_said(written, capsys):
    for path in written.whole.glob("labelsTr/*"):
        shutil.copyfile(written.raw / "labelsTr" / path.name, path)
    assert main(["score", str(written.audit), "--truth", "501"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "0 missed lesions: every lesion of the truth is annotated"
    assert printed[1] == f"{TRAINER}, its ranking: 50 candidates"
    assert printed[2] == "  first    10: precision 0.000, found undefined"


def test_decisions_into_a_folder_that_is_not_there(written, capsys, tmp_path):
    target = tmp_path / "none" / "decisions.csv"
    assert "no such folder" in fails(capsys, "score", written.audit, "--truth", 501, "--decisions", target)
    assert not (written.audit / "score").exists()


def test_an_audit_does_not_go_into_its_dataset(audited, capsys):
    arguments = ("-d", 511, "-tr", TRAINER, "-c", "2.5d", "-o", audited.raw / "audit")
    assert "lies in the dataset" in fails(capsys, *arguments)


def test_no_audit_anywhere(audited, capsys):
    assert "nor below nnUNet_results; name its folder" in fails(capsys, "score", "--truth", 501)


def test_decisions_beside_their_audit_are_found_there(written, capsys, tmp_path):
    """An audit that was moved, with its own table filled in by hand."""
    moved = tmp_path / "moved"
    shutil.move(written.audit, moved)
    table = moved / "audit.csv"
    rows = table.read_text().splitlines()
    rows[1] += "accept"
    table.write_text("\n".join(rows) + "\n")
    assert main(["apply", str(table), "-o", "521"]) == 0
    assert "1 candidates added, 0 rejected, 0 unsure, 49 not decided on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case,candidate\n", "expected the columns audit, case, candidate and decision"),
        ("audit,case,candidate,decision\n", "holds no decision"),
        ("audit,case,candidate,decision\nabc,p00,1,accept\n", "no audit abc in"),
    ],
)
def test_decisions_that_are_refused(written, capsys, tmp_path, content, message):
    path = tmp_path / "decisions.csv"
    path.write_text(content)
    assert message in fails(capsys, "apply", path, "-o", 521)


def test_a_readers_work_is_never_replaced(written, capsys, tmp_path):
    again = ("-d", 511, "-tr", TRAINER, "-c", "2.5d", "--overwrite")
    table = (written.audit / "audit.csv").read_text()
    (written.audit / "decisions.csv").write_text("mine")
    assert "holds decisions.csv, which this command did not write" in fails(capsys, *again)
    (written.audit / "decisions.csv").unlink()
    header, first, *rest = table.splitlines(keepends=True)
    assert header.rstrip().endswith(",decision")
    (written.audit / "audit.csv").write_text("".join([header, first.rstrip() + "accept\n", *rest]))
    assert "audit.csv has been changed since this command wrote it" in fails(capsys, *again)
    assert "accept" in (written.audit / "audit.csv").read_text()
    mine = tmp_path / "decisions.csv"
    mine.write_text("mine")
    assert "is never replaced" in fails(capsys, "score", "--truth", "501", "--decisions", mine, "--overwrite")
    assert mine.read_text() == "mine"
