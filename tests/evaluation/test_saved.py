"""nnunet_lopsided.evaluation.saved."""

import json
from dataclasses import asdict, fields

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import EvaluationRules, evaluate_folder
from nnunet_lopsided.evaluation.saved import read_evaluation
from nnunet_lopsided.evaluation.summary_json import summary_dict
from nnunet_lopsided.evaluation.writing import write_results


@pytest.fixture
def written(two_cases, tmp_path):
    """An evaluation in memory, and the folder it was written to."""
    result = evaluate_folder(two_cases.references, two_cases.predictions, n_replicates=100)
    write_results(result, tmp_path / "out")
    return result, tmp_path / "out"


def assert_same(mine, theirs, name):
    if isinstance(mine, np.ndarray):
        np.testing.assert_allclose(theirs, mine, rtol=1e-8, equal_nan=True, err_msg=name)
        assert theirs.dtype == mine.dtype, name
        assert theirs.shape == mine.shape, name
    else:
        assert theirs == mine, name


def assert_round_trip(result, folder):
    read = read_evaluation(folder)
    assert read.rules == result.rules
    assert read.summary == summary_dict(result)
    assert [case.case for case in read.cases] == [case.case for case in result.cases]
    for mine, theirs in zip(result.cases, read.cases, strict=True):
        for part in ("lesions", "candidates"):
            for name in ("n_voxels", "volume_mm3", "diameter_mm"):
                assert_same(getattr(getattr(mine, part), name), getattr(getattr(theirs, part), name), name)
            if len(getattr(mine, part)):
                assert_same(getattr(mine, part).centroid, getattr(theirs, part).centroid, "centroid")
        np.testing.assert_equal(asdict(mine.matches.pairs), asdict(theirs.matches.pairs))
        for f in fields(mine.scores):
            if f.name != "learned" or mine.scores.learned is not None:
                assert_same(getattr(mine.scores, f.name), getattr(theirs.scores, f.name), f.name)
        for f in fields(mine.matches):
            # The tables tell only which candidate covers a missed lesion.
            if f.name in ("pairs", "covering_candidate"):
                continue
            if f.name == "candidate_of_lesion":  # empty for lesions that do not count
                assert_same(mine.matches.candidate_of_lesion * mine.counted, theirs.matches.candidate_of_lesion, f.name)
            else:
                assert_same(getattr(mine.matches, f.name), getattr(theirs.matches, f.name), f.name)
        for name in (
            "case",
            "patient",
            "kind",
            "confidence",
            "ranked",
            "n_dropped",
            "counted",
            "mean_probability",
            "entropy_bits",
        ):
            assert_same(getattr(mine, name), getattr(theirs, name), name)
        assert (mine.candidate_overlap, mine.segmentation_overlap) == (
            theirs.candidate_overlap,
            theirs.segmentation_overlap,
        )
        assert_same(mine.censored, theirs.censored, "censored")


def test_round_trip(written):
    assert_round_trip(*written)
    read = read_evaluation(written[1])
    assert read.name == "out"
    assert read_evaluation(written[1], "other").name == "other"
    assert read.metrics["max_sensitivity"] == 0.5
    assert not [name for name in read.metrics if "ci95" in name]


@pytest.mark.parametrize(
    "rules",
    [
        EvaluationRules(match="overlap", duplicates="fp", min_lesion_mm3=2.0, connectivity=6),
        EvaluationRules(threshold=0.2, duplicates="tp", diameter_edges_mm=(2.5,)),
        EvaluationRules(confidence="sum", min_candidate_voxels=2),
    ],
)
def test_round_trip_by_other_rules(two_cases, tmp_path, rules):
    result = evaluate_folder(two_cases.references, two_cases.predictions, n_replicates=0, rules=rules)
    write_results(result, tmp_path / "out")
    assert_round_trip(result, tmp_path / "out")


def test_round_trip_of_hard_labels_and_missing_and_skipped_cases(two_cases, tmp_path):
    for name in ("c", "d"):
        two_cases.write_reference(f"{name}.nii.gz", np.eye(4, dtype=np.uint8)[None])
    two_cases.write_image("d.nii.gz", np.zeros((1, 4, 5), np.uint8))
    result = evaluate_folder(
        two_cases.references,
        two_cases.predictions,
        n_replicates=0,
        hard_labels=True,
        allow_missing=True,
        skip_bad=True,
    )
    assert [case.kind for case in result.cases] == ["labels", "labels", "missing"]
    write_results(result, tmp_path / "out")
    assert_round_trip(result, tmp_path / "out")


def test_round_trip_of_censored_lesions(two_cases, tmp_path):
    censored = tmp_path / "censored"
    censored.mkdir()
    kept = np.zeros((8, 10, 12), np.uint8)
    kept[6, 6, 6] = 1
    two_cases.write_reference("../censored/a.nii.gz", kept)
    two_cases.write_reference("../censored/b.nii.gz", kept * 0)
    result = evaluate_folder(two_cases.references, two_cases.predictions, n_replicates=0, censored_references=censored)
    assert result.cases[0].censored.tolist() == [True, False]
    write_results(result, tmp_path / "out")
    assert_round_trip(result, tmp_path / "out")


def test_round_trip_in_2d(folders, tmp_path):
    folders.write_reference("a.png", np.eye(4, dtype=np.uint8))
    folders.write_image("a.png", np.eye(4, dtype=np.uint8))
    result = evaluate_folder(folders.references, folders.predictions)
    write_results(result, tmp_path / "out")
    assert_round_trip(result, tmp_path / "out")


def test_a_folder_that_is_no_evaluation(tmp_path):
    with pytest.raises(InputError, match=r"is no output folder of lopsided-eval: it holds no summary\.json"):
        read_evaluation(tmp_path)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("summary.json", '"schema_version": 1', '"schema_version": 0', "expected schema_version 1, found 0"),
        ("summary.json", '"duplicates": "ignore"', '"other": "ignore"', "duplicates is missing; evaluate again"),
        ("cases.csv", "patient", "person", "patient is missing; evaluate again"),
        ("lesions.csv", "a,1,27", "a,1,many", "case a: invalid literal for int"),
        ("lesions.csv", "a,1,27", "z,1,27", "case z has rows, but not in cases.csv"),
        ("candidates.csv", "false_positive", "maybe", "case a: unknown status 'maybe'"),
        (
            "candidates.csv",
            "false_positive",
            "duplicate",
            "do not belong to summary.json: precision_at_max_sensitivity is 1 by the tables, 0.333",
        ),
    ],
)
def test_files_that_were_changed(written, file, old, new, message):
    folder = written[1]
    edit(folder / file, old, new)
    with pytest.raises(InputError, match=message):
        read_evaluation(folder)


def test_missing_and_unreadable_files(written):
    folder = written[1]
    (folder / "summary.json").write_text(json.dumps([]))
    with pytest.raises(InputError, match="expected schema_version 1, found None"):
        read_evaluation(folder)
    (folder / "summary.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_evaluation(folder)


def test_a_missing_table(written):
    (written[1] / "lesions.csv").unlink()
    with pytest.raises(InputError, match=r"file not found: .*lesions.csv"):
        read_evaluation(written[1])
    (written[1] / "lesions.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"lesions.csv: expected CSV in UTF-8"):
        read_evaluation(written[1])
