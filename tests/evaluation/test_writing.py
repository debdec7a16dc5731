"""nnunet_lopsided.evaluation.writing and report."""

import csv
import json
from dataclasses import fields

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, evaluate_folder, summarize
from nnunet_lopsided.evaluation.report import curve_figure, figure_png
from nnunet_lopsided.evaluation.rules import profile_rules
from nnunet_lopsided.evaluation.summary_json import summary_dict
from nnunet_lopsided.evaluation.writing import write_results
from nnunet_lopsided.files.folders import new_output_folder

FILES = [
    ".lopsided.json",
    "candidates.csv",
    "cases.csv",
    "curves.png",
    "lesions.csv",
    "patients.csv",
    "report.html",
    "summary.json",
]


@pytest.fixture
def result(two_cases):
    return evaluate_folder(two_cases.references, two_cases.predictions, n_replicates=100)


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_file_is_written_and_nothing_else(result, tmp_path):
    write_results(result, tmp_path / "out" / "deep")
    assert sorted(p.name for p in (tmp_path / "out" / "deep").iterdir()) == FILES
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["deep"]


def test_same_bytes_twice(result, tmp_path):
    write_results(result, tmp_path / "one")
    write_results(result, tmp_path / "two")
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_summary_keys_and_values(result, tmp_path):
    write_results(result, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == summary_dict(result)
    assert summary["schema_version"] == 1
    assert list(summary["metrics"]) == [
        "map",
        "map_ci95_hanley_mcneil",
        "map_ci95_bootstrap",
        "max_sensitivity",
        "precision_at_max_sensitivity",
        "false_positives_per_case",
        "tp_dice",
        "lesion_entropy_bits",
        "f1",
        "lesion_wise_dice",
        "lesion_wise_dice_case_mean",
        "average_recall",
        "false_positives_per_lesion_free_case",
        "false_positive_volume_mm3_per_case",
        "false_positive_volume_mm3_per_lesion_free_case",
        "smallest_detected_diameter_mm",
        "voxel_dice",
        "voxel_dice_pooled",
        "voxel_dice_at_threshold",
        "patient_auc",
        "patient_sensitivity",
        "patient_specificity",
        "map_by_confidence",
    ]
    assert summary["counts"]["missed_lesions"] == 1
    # The point at .5 lies on the straight line between its neighbours.
    assert summary["curves"]["pr"] == {
        "threshold": pytest.approx([0.8, 0.3]),
        "true_positives": [1, 1],
        "false_positives": [0, 2],
        "recall": [0.5, 0.5],
        "precision": [1.0, pytest.approx(1 / 3)],
    }
    assert summary["curves"]["froc"]["false_positives_per_case"] == [0.0, 1.0]
    assert summary["settings"]["version"]
    assert summary["settings"]["connectivity"] == {"3d": 26, "2d": 8}
    assert [b["lesions"] for b in summary["by_diameter"]] == [1, 1, 0, 0, 0]
    assert summary["by_diameter"][2]["sensitivity"] is None


def test_further_parts_of_the_summary(two_cases, tmp_path):
    result = evaluate_folder(two_cases.references, two_cases.predictions, n_replicates=100, thresholds=(0.1, 0.4))
    write_results(result, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [(row["threshold"], row["counts"]["candidates"]) for row in summary["by_threshold"]] == [(0.1, 3), (0.4, 2)]
    assert summary["by_threshold"][0]["metrics"] == summary["metrics"]
    table = rows(tmp_path / "out" / "thresholds.csv")
    assert [(row["threshold"], row["map"], row["candidates"]) for row in table] == [
        ("0.1", "0.5", "3"),
        ("0.4", "0.5", "2"),
    ]
    assert table[1]["map_ci95_bootstrap_low"] == ""  # all lesions are of one patient
    at_fp = {
        row["fp_per_case"]: (row["sensitivity"], row["threshold"]) for row in summary["sensitivity_at_fp_per_case"]
    }
    assert list(at_fp) == summary["settings"]["fp_per_case"] == [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    assert at_fp[0.125] == (0.5, pytest.approx(0.8))
    assert set(summary["average_recall_80_percent"]) == {"mean", "standard_deviation"}
    histogram = summary["lesion_histogram"]
    assert (len(histogram["edges"]), histogram["counts"][0], histogram["counts"][80]) == (101, 10, 18)
    assert summary["by_annotation"] is None
    # The lesions are all of one patient: resampling patients says nothing about them, and must not look certain.
    assert summary["by_diameter"][1]["sensitivity_ci95_bootstrap"] is None
    assert summary["metrics"]["map_ci95_bootstrap"] is None
    why = summary["undefined"]["map_ci95_bootstrap"]
    assert why.startswith("a bootstrap needs at least 8 patients, and there are 2; ")
    assert summary["undefined"]["sensitivity_at_fp_per_case.sensitivity_ci95_bootstrap"] == why
    assert summary["undefined"]["by_diameter.sensitivity"] == "the bin has no lesion"
    assert why in summary["undefined"]["by_diameter.sensitivity_ci95_bootstrap"]
    null = {name for part in ("metrics", "intervals") for name, value in summary[part].items() if value is None}
    assert null == {name for name in summary["undefined"] if "." not in name}
    assert summary["details"]["merges"] == summary["details"]["ignored_lesions"] == 0
    settings = summary["settings"]
    assert (settings["profile"], settings["profile_changes"], settings["thresholds"]) == ("paper", {}, [0.1, 0.4])


def test_the_rules_of_a_profile_are_in_the_settings(two_cases, tmp_path):
    rules = profile_rules("brats-mets-2023", dice="best")
    summary = summary_dict(evaluate_folder(two_cases.references, two_cases.predictions, rules=rules, n_replicates=0))
    expected = {
        "profile": "brats-mets-2023",
        "profile_changes": {"dice": "best"},
        "threshold": 0.5,
        "match": "overlap",
        "dilation_voxels": 1,
        "join_dilated": True,
        "min_lesion_mm3": 2.0,
        "dice": "best",
    }
    assert {name: summary["settings"][name] for name in expected} == expected
    assert summary["details"]["ignored_lesions"] == 1
    assert {f.name for f in fields(EvaluationRules)} - rules.unused <= set(summary["settings"])


def test_skipped_cases_are_listed_in_the_summary_and_in_the_table_of_cases(two_cases, tmp_path):
    (two_cases.predictions / "a.npz").write_bytes(b"PK")
    result = evaluate_folder(two_cases.references, two_cases.predictions, n_replicates=0, skip_bad=True)
    write_results(result, tmp_path / "out")
    ((skipped),) = json.loads((tmp_path / "out" / "summary.json").read_text())["details"]["skipped"]
    assert skipped["case"] == "a"
    assert "a.npz" in skipped["problem"]
    first, second = rows(tmp_path / "out" / "cases.csv")
    assert (first["case"], first["prediction"], first["lesions"], first["problem"]) == (
        "a",
        "skipped",
        "",
        skipped["problem"],
    )
    assert (second["case"], second["problem"]) == ("b", "")
    assert "a.npz" in (tmp_path / "out" / "report.html").read_text()


def test_censored_lesions_are_marked(two_cases, tmp_path):
    result = evaluate_folder(
        two_cases.references, two_cases.predictions, n_replicates=0, censored_references=two_cases.references
    )
    write_results(result, tmp_path / "out")
    assert [row["censored"] for row in rows(tmp_path / "out" / "lesions.csv")] == ["0", "0"]
    kept, censored = json.loads((tmp_path / "out" / "summary.json").read_text())["by_annotation"]
    assert (kept["annotation"], kept["lesions"], kept["detected"], kept["sensitivity"]) == ("kept", 2, 1, 0.5)
    assert (censored["annotation"], censored["lesions"], censored["sensitivity"]) == ("censored", 0, None)


def test_table_of_patients(two_cases, tmp_path):
    result = evaluate_folder(two_cases.references, two_cases.predictions, n_replicates=0)
    write_results(result, tmp_path / "out")
    a, b = rows(tmp_path / "out" / "patients.csv")
    assert (a["patient"], a["lesions"], a["detected_lesions"], a["false_positives"]) == ("a", "2", "1", "1")
    assert (a["max_sensitivity"], a["map"], a["false_positives_per_case"]) == ("0.5", "0.5", "1")
    assert (b["max_sensitivity"], b["map"], b["false_positives_per_case"]) == ("", "", "1")
    write_results(evaluate_folder(two_cases.references, two_cases.predictions, patients_regex="()"), tmp_path / "one")
    (both,) = rows(tmp_path / "one" / "patients.csv")
    assert (both["cases"], both["map"], both["false_positives_per_case"]) == ("2", "0.5", "1")


def test_tables(result, tmp_path):
    write_results(result, tmp_path / "out")
    cases, lesions, candidates = (rows(tmp_path / "out" / f"{n}.csv") for n in ("cases", "lesions", "candidates"))
    assert [(c["case"], c["lesions"], c["false_positives"], c["sensitivity"]) for c in cases] == [
        ("a", "2", "1", "0.5"),
        ("b", "0", "1", ""),
    ]
    found, missed = lesions
    outcome = ("detected", "candidate", "confidence", "dice", "counted", "censored")
    assert [found[name] for name in outcome] == ["1", "1", "0.800000012", "0.8", "1", ""]
    assert [missed[name] for name in outcome] == ["0", "", "", "", "1", ""]
    assert (found["entropy_bits"], missed["entropy_bits"]) == ("0.918295834", "0")  # 18 voxels of .8, 9 of 0
    assert (missed["volume_mm3"], missed["centroid_z"], missed["centroid_x"]) == ("1", "6", "6")
    assert [(c["case"], c["status"], c["lesion"], c["overlap_voxels"]) for c in candidates] == [
        ("a", "true_positive", "1", "18"),
        ("a", "false_positive", "", "0"),
        ("b", "false_positive", "", "0"),
    ]


def test_hard_labels_have_no_confidence_and_no_curves(two_cases, tmp_path):
    result = evaluate_folder(two_cases.references, two_cases.predictions, hard_labels=True)
    write_results(result, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["curves"] == {"pr": None, "froc": None, "patient_roc": None}
    assert summary["metrics"]["map_ci95_bootstrap"] is None
    assert {c["confidence"] for c in rows(tmp_path / "out" / "candidates.csv")} == {""}
    assert "hard labels" in (tmp_path / "out" / "report.html").read_text()


def test_2d_tables_leave_z_empty(folders, tmp_path):
    folders.write_reference("a.png", np.eye(4, dtype=np.uint8))
    folders.write_image("a.png", np.eye(4, dtype=np.uint8))
    write_results(evaluate_folder(folders.references, folders.predictions), tmp_path / "out")
    (lesion,) = rows(tmp_path / "out" / "lesions.csv")
    assert (lesion["centroid_z"], lesion["centroid_y"], lesion["centroid_x"]) == ("", "1.5", "1.5")


def test_existing_output_is_refused_or_replaced(result, tmp_path):
    out = tmp_path / "out"
    write_results(result, out)
    (out / "curves.png").unlink()
    with pytest.raises(InputError, match="output folder exists"):
        write_results(result, out)
    write_results(result, out, overwrite=True)
    assert (out / "curves.png").is_file()
    (out / "curves.png").write_text("drawn by hand")
    with pytest.raises(InputError, match=r"curves\.png has been changed since this command wrote it"):
        write_results(result, out, overwrite=True)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.jpg").touch()
    with pytest.raises(InputError, match="only an earlier output of it is replaced"):
        write_results(result, other, overwrite=True)
    with pytest.raises(InputError, match="contains the input"):
        write_results(result, tmp_path, overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        write_results(result, out / "summary.json")


@pytest.mark.parametrize("summary", ['{"foreground_mean": {"Dice": 0.5}}', '{"schema_version": 1}', "broken", "[1]"])
def test_folders_of_predictions_are_never_replaced(result, tmp_path, summary):
    """nnU-Net writes its own summary.json into fold_X/validation."""
    folder = tmp_path / "fold_0" / "validation"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(summary)
    (folder / "a.npz").touch()
    with pytest.raises(InputError, match=r"holds no summary\.json of lopsided-eval with cases\.csv beside it"):
        write_results(result, folder, overwrite=True)
    assert (folder / "a.npz").is_file()
    if "schema" not in summary:
        (folder / "cases.csv").touch()
        with pytest.raises(InputError, match="only an earlier output of it is replaced"):
            write_results(result, folder, overwrite=True)


def test_what_cannot_be_read_is_not_called_unwritable(tmp_path):
    with (
        pytest.raises(InputError, match=r"^cannot read /share/a\.npz: Stale file handle$"),
        new_output_folder(tmp_path / "out", False, ()),
    ):
        raise OSError(116, "Stale file handle", "/share/a.npz")
    with (
        pytest.raises(InputError, match=r"^cannot write output folder .*out: .*No space left"),
        new_output_folder(tmp_path / "out", False, ()) as unfinished,
    ):
        raise OSError(28, "No space left", str(unfinished / "cases.csv"))


def test_nothing_is_left_and_the_former_kept_when_writing_fails(result, tmp_path, monkeypatch):
    write_results(result, tmp_path / "out")

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("nnunet_lopsided.evaluation.writing.write_csv", fail)
    with pytest.raises(InputError, match=r"cannot write output folder .*out: disk full"):
        write_results(result, tmp_path / "out", overwrite=True)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == FILES
    assert not list(tmp_path.glob(".*"))


def test_unwritable_output(result, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write output folder"):
        write_results(result, tmp_path / "file" / "out")


def test_figure_panels():
    reference = np.zeros((3, 9, 9), bool)
    reference[1, 1, 1] = reference[1, 7, 7] = True
    rules = EvaluationRules()
    summary = summarize([evaluate_case(reference, reference * 0.5, (1, 1, 1), case="a")], rules, 0)
    pr, froc, diameter = curve_figure(summary).axes
    assert pr.get_title() == "Precision and recall   AP 1.000"
    assert np.asarray(pr.lines[0].get_xdata()).tolist() == [0.0, 1.0]
    assert np.asarray(froc.lines[0].get_ydata()).tolist() == [0.0, 1.0]
    assert diameter.texts[0].get_text() == "2/2"
    empty = summarize([evaluate_case(reference * 0, reference * 0.0, (1, 1, 1), case="a")], rules, 0)
    assert [t.get_text() for t in curve_figure(empty).axes[0].texts] == ["there are no reference lesions"]
    nothing = summarize([evaluate_case(reference, reference * 0.0, (1, 1, 1), case="a")], rules, 0)
    assert [t.get_text() for t in curve_figure(nothing).axes[0].texts] == ["there are no candidates"]


def test_figure_files(result):
    assert figure_png(result.summary).startswith(b"\x89PNG")


@pytest.mark.parametrize(("policy", "precision"), [("ignore", "0.5"), ("fp", "0.333333333"), ("tp", "0.666666667")])
def test_cases_and_patients_agree_on_duplicates(folders, tmp_path, policy, precision):
    reference, p = np.zeros((4, 20), np.uint8), np.zeros((4, 20), np.float32)
    reference[0, 0:8] = 1
    p[0, 0:3], p[0, 5:8], p[0, 15] = 0.9, 0.6, 0.3
    folders.write_reference("a.png", reference)
    np.save(folders.predictions / "a.npy", p)
    rules = EvaluationRules(duplicates=policy)
    write_results(
        evaluate_folder(folders.references, folders.predictions, rules=rules, n_replicates=0), tmp_path / "out"
    )
    (case,), (patient,) = rows(tmp_path / "out" / "cases.csv"), rows(tmp_path / "out" / "patients.csv")
    assert case["precision"] == patient["precision_at_max_sensitivity"] == precision
    assert case["f1"] == patient["f1"]
    assert case["lesion_wise_dice"] == patient["lesion_wise_dice"]
    assert case["false_positive_volume_mm3"] == patient["false_positive_volume_mm3_per_case"]
