"""The repaired variant."""

import csv
import json
import re
import shutil

import numpy as np
import pytest

from nnunet_lopsided.audit.decisions import audit_and_decisions, decisions_above
from nnunet_lopsided.audit.repair import write_repaired_variant
from nnunet_lopsided.audit.stored import read_audit
from nnunet_lopsided.commands.audit import main
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.images import Image, read_image, write_image
from nnunet_lopsided.nnunet.raw import raw_dataset
from tests.audit.conftest import GEOMETRY


def decide(written, verdicts, audit_id=None):
    """Decisions on the candidates of these ranks (from 1), beside nothing."""
    audit = read_audit(written.audit)
    path = written.root / "decisions.csv"
    rows = [
        f"{audit_id or audit.id},{audit.candidates[rank - 1].case},{audit.candidates[rank - 1].number},{word}\n"
        for rank, word in verdicts.items()
    ]
    path.write_text("audit,case,candidate,decision\n" + "".join(rows))
    return path, [audit.candidates[rank - 1] for rank in verdicts]


def repaired(path, output_id, audit_folder=None, **options):
    """As ``lopsided-audit apply`` does it."""
    return write_repaired_variant(*audit_and_decisions(path, audit_folder), output_id, **options)


def voxels_of(written, candidate):
    path = written.audit / "maps" / f"{candidate.case}.nii.gz"
    return np.asarray(read_image(path).array) == candidate.number


def labels(folder):
    return {path.name: np.asarray(read_image(path).array) for path in sorted((folder / "labelsTr").iterdir())}


def test_accepted_candidates_are_added_and_nothing_else_changes(written):
    path, (one, two, _, _) = decide(written, {1: "accept", 5: "accept", 40: "reject", 41: "unsure"})
    made = repaired(path, 521)
    assert made.folder.name == "Dataset521_CutRepaired"
    assert (made.n_added, made.n_rejected, made.n_unsure, made.n_undecided, made.ignored) == (2, 1, 1, 46, False)
    expected = labels(written.raw)
    for candidate in (one, two):
        expected[f"{candidate.case}.nii.gz"] = np.where(
            voxels_of(written, candidate), 1, expected[f"{candidate.case}.nii.gz"]
        )
    found = labels(made.folder)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name
    dataset = raw_dataset(521)
    assert dataset.json["labels"] == {"background": 0, "lesion": 1}
    assert [case.images for case in dataset.training_cases()] == [c.images for c in raw_dataset(511).training_cases()]


def test_with_everything_the_truth_would_accept_the_labels_are_whole(written):
    path, _ = decide(written, dict.fromkeys(range(1, 31), "accept"))
    made = repaired(path, 521)
    whole = labels(written.whole)
    for name, array in labels(made.folder).items():
        assert np.array_equal(array, whole[name]), name


def test_unsure_candidates_can_be_ignored(written):
    path, (one, two) = decide(written, {1: "accept", 2: "unsure"})
    made = repaired(path, 521, unsure="ignore")
    assert made.ignored
    assert json.loads((made.folder / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "lesion": 1,
        "ignore": 2,
    }
    found = labels(made.folder)
    assert set(found[f"{one.case}.nii.gz"][voxels_of(written, one)]) == {1}
    assert set(found[f"{two.case}.nii.gz"][voxels_of(written, two)]) == {2}
    assert sum(int((array == 2).sum()) for array in found.values()) == voxels_of(written, two).sum()


def test_without_unsure_ones_there_is_no_ignore_label(written):
    path, _ = decide(written, {1: "accept"})
    made = repaired(path, 521, unsure="ignore")
    assert not made.ignored
    assert raw_dataset(521).ignore_label is None


def test_what_is_recorded(written):
    path, candidates = decide(written, {1: "accept", 40: "reject", 41: "unsure"})
    made = repaired(path, 521)
    record = json.loads((made.folder / "repair.json").read_text())
    n_voxels = int(voxels_of(written, candidates[0]).sum())
    wanted = {
        "source_dataset": "Dataset511_Cut",
        "audit": read_audit(written.audit).id,
        "unsure": "leave",
        "ignore_label": None,
        "n_candidates": 50,
        "n_added": 1,
        "n_rejected": 1,
        "n_ignored": 0,
        "n_left": 1,
        "n_undecided": 47,
        "cases_changed": [candidates[0].case],
        "voxels_changed": n_voxels,
    }
    assert {key: record[key] for key in wanted} == wanted
    rows = list(csv.DictReader((made.folder / "repaired_lesions.csv").open()))
    assert {(r["case"], int(r["candidate"]), r["action"], r["value"], int(r["n_voxels"])) for r in rows} == {
        (candidates[0].case, candidates[0].number, "added", "1", n_voxels),
        (candidates[1].case, candidates[1].number, "rejected", "", 0),
        (candidates[2].case, candidates[2].number, "left", "", 0),
    }


def test_a_candidate_redrawn_in_a_viewer_is_added_as_drawn_but_never_over_annotations(written):
    path, (one,) = decide(written, {1: "accept"})
    chart = written.audit / "maps" / f"{one.case}.nii.gz"
    drawn = np.asarray(read_image(chart).array).copy()
    before = labels(written.raw)[f"{one.case}.nii.gz"]
    drawn[drawn == one.number] = 0
    drawn[0] = one.number
    drawn[1][before[1] > 0] = one.number
    write_image(chart, Image(drawn, GEOMETRY))
    with pytest.raises(InputError, match=rf"^case {one.case}: .* is not the map that audit .* wrote: .*-maps$"):
        repaired(path, 521)
    made = repaired(path, 521, edited_maps=True)
    assert json.loads((made.folder / "repair.json").read_text())["edited_maps"]
    after = labels(made.folder)[f"{one.case}.nii.gz"]
    assert np.array_equal(after, np.where(drawn == one.number, 1, before))


def test_candidates_that_are_not_added_need_no_voxels(written):
    """A reader may erase what was rejected from the map, and leave the map away where nothing is accepted."""
    audit = read_audit(written.audit)
    case = audit.candidates[0].case
    ranks = [i for i, c in enumerate(audit.candidates, 1) if c.case == case]
    path, (one, two, *_) = decide(written, {rank: "accept" if rank == 1 else "reject" for rank in ranks})
    chart = written.audit / "maps" / f"{case}.nii.gz"
    drawn = np.asarray(read_image(chart).array).copy()
    drawn[drawn != one.number] = 0
    write_image(chart, Image(drawn, GEOMETRY))
    made = repaired(path, 521, edited_maps=True)
    expected = labels(written.raw)
    expected[chart.name][drawn > 0] = 1
    assert np.array_equal(labels(made.folder)[chart.name], expected[chart.name])
    assert (made.n_added, made.n_rejected) == (1, len(ranks) - 1)

    path, _ = decide(written, {rank: "unsure" if rank == ranks[1] else "reject" for rank in ranks})
    chart.unlink()
    made = repaired(path, 522)
    assert np.array_equal(labels(made.folder)[chart.name], labels(written.raw)[chart.name])
    assert (made.n_rejected, made.n_unsure) == (len(ranks) - 1, 1)
    write_image(chart, Image(drawn, GEOMETRY))
    with pytest.raises(InputError, match=rf"{case}\.nii\.gz has no voxel of candidate {two.number}"):
        repaired(path, 523, unsure="ignore", edited_maps=True)


def test_a_label_that_the_dataset_has_not(written):
    path, (one, _) = decide(written, {1: "accept", 2: "reject"})
    table = written.audit / "audit.csv"
    rows = [row.split(",") for row in table.read_text().splitlines()]
    for row in rows[1:3]:
        row[rows[0].index("label")] = "7"
    table.write_text("\n".join(map(",".join, rows)) + "\n")
    expected = (
        f"case {one.case}, candidate {one.number}: expected one of the labels 1 of Dataset511_Cut, found 7 in {table}"
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        repaired(path, 521)


def test_decisions_of_another_audit(written):
    path, _ = decide(written, {1: "accept"}, audit_id="f" * 16)
    with pytest.raises(InputError, match=f"no audit {'f' * 16} in"):
        repaired(path, 521)
    with pytest.raises(InputError, match=f"the decisions are of audit {'f' * 16}, but .* holds audit"):
        repaired(path, 521, audit_folder=written.audit)


def test_a_candidate_that_does_not_exist(written):
    path, (one,) = decide(written, {1: "accept"})
    path.write_text(path.read_text().replace(f"{one.case},{one.number},", f"{one.case},99,"))
    with pytest.raises(InputError, match=f"case {one.case} has no candidate 99 in audit"):
        repaired(path, 521)


def test_labels_that_changed_since_the_audit(written):
    path, (one,) = decide(written, {1: "accept"})
    label = written.raw / "labelsTr" / f"{one.case}.nii.gz"
    image = read_image(label)
    write_image(label, Image(np.zeros_like(image.array), image.geometry))
    with pytest.raises(InputError, match=re.escape(f"case {one.case}: {label} has changed since audit")):
        repaired(path, 521)
    assert not list((written.root / "nnUNet_raw").glob("*521*"))


def test_nothing_is_overwritten_unasked(written):
    path, _ = decide(written, {1: "accept"})
    made = repaired(path, 521)
    before = labels(made.folder)
    decide(written, {2: "accept"})
    with pytest.raises(InputError, match="dataset id 521 is in use"):
        repaired(path, 521)
    assert all(np.array_equal(a, b) for a, b in zip(before.values(), labels(made.folder).values(), strict=True))
    repaired(path, 521, overwrite=True)
    assert not all(np.array_equal(a, b) for a, b in zip(before.values(), labels(made.folder).values(), strict=True))
    with pytest.raises(InputError, match="output id 511 is the id of the source"):
        repaired(path, 511, overwrite=True)


def test_the_same_decisions_give_the_same_bytes(written):
    path, _ = decide(written, {1: "accept", 2: "unsure"})
    contents = []
    for _ in range(2):
        made = repaired(path, 521, unsure="ignore", overwrite=True)
        contents.append({p.name: p.read_bytes() for p in made.folder.rglob("*") if p.is_file()})
    assert contents[0] == contents[1]


def test_without_a_reader_the_best_scores_are_accepted(written):
    audit = read_audit(written.audit)
    score = audit.candidates[4].score
    n = sum(candidate.score >= score for candidate in audit.candidates)
    made = write_repaired_variant(audit, decisions_above(audit, score), 521)
    assert (made.n_added, made.n_rejected, made.n_undecided) == (n, 0, len(audit.candidates) - n)
    record = json.loads((made.folder / "repair.json").read_text())
    assert (record["accepted_above"], record["n_added"]) == (score, n)
    assert "decisions_sha256" not in record
    expected = labels(written.raw)
    for candidate in audit.candidates[:n]:
        expected[f"{candidate.case}.nii.gz"][voxels_of(written, candidate)] = 1
    for name, array in labels(made.folder).items():
        assert np.array_equal(expected[name], array), name


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_a_score_to_accept_from_is_a_probability(written, score):
    with pytest.raises(InputError, match=r"^expected a score from 0 to 1 above which to accept, got "):
        decisions_above(read_audit(written.audit), score)


def test_maps_of_another_audit_are_refused(written, tmp_path):
    """Two audits into one folder once mixed their maps, and apply wrote those of the other into labels."""
    other = tmp_path / "other"
    assert main(["-d", "511", "-c", "2.5d", "--bootstrap", "0", "--confidence", "sqrt", "-o", str(other)]) == 0
    rank = next(c.rank for c in read_audit(written.audit).candidates if c.case == "p00")  # numbered otherwise by sqrt
    path, (one,) = decide(written, {rank: "accept"})
    shutil.copy(other / "maps" / "p00.nii.gz", written.audit / "maps" / "p00.nii.gz")
    with pytest.raises(InputError, match=rf"^case {one.case}: .* is not the map that audit"):
        repaired(path, 521)


def test_a_map_of_another_format_is_the_same_map(written):
    path, (one,) = decide(written, {1: "accept"})
    chart = written.audit / "maps" / f"{one.case}.nii.gz"
    numbers = read_image(chart)
    write_image(chart, Image(numbers.array.astype(np.float32), numbers.geometry))
    assert repaired(path, 521).n_added == 1


def test_numbers_that_no_candidate_has_are_refused(written):
    path, (one,) = decide(written, {1: "accept"})
    chart = written.audit / "maps" / f"{one.case}.nii.gz"
    drawn = np.asarray(read_image(chart).array).copy()
    drawn[0, 0, 0] = 77
    write_image(chart, Image(drawn, GEOMETRY))
    with pytest.raises(InputError, match=r"holds 77; expected the numbers of the candidates of audit .*, 1 to 5$"):
        repaired(path, 521, edited_maps=True)


def test_an_audit_from_before_maps_had_digests(written):
    path, _ = decide(written, {1: "accept"})
    record = written.audit / "audit.json"
    content = json.loads(record.read_text())
    del content["maps"]
    record.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not the map that audit"):
        repaired(path, 521)
    assert repaired(path, 521, edited_maps=True).n_added == 1


def test_without_scores_none_can_be_accepted_by(written):
    record = written.audit / "audit.json"
    content = json.loads(record.read_text()) | {"withheld": "the models find 2 of 30 annotated lesions"}
    record.write_text(json.dumps(content))
    table = written.audit / "audit.csv"
    columns, *rows = csv.reader(table.open())
    at = columns.index("score")
    write_table(table, columns, [[*row[:at], "", *row[at + 1 :]] for row in rows])
    with pytest.raises(InputError, match=r"has no scores to accept by: the models find 2 of 30 annotated lesions$"):
        decisions_above(read_audit(written.audit), 0.5)
