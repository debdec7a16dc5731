"""HD95 and NSD in what an evaluation writes."""

import csv
import json

import numpy as np
import pytest

from nnunet_lopsided.commands.evaluate import main
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import evaluate_folder
from nnunet_lopsided.evaluation.comparison import compare
from nnunet_lopsided.evaluation.comparison_writing import write_comparison
from nnunet_lopsided.evaluation.data_frames import data_frame
from nnunet_lopsided.evaluation.rules import EvaluationRules, profile_rules
from nnunet_lopsided.evaluation.saved import read_evaluation
from nnunet_lopsided.evaluation.surface_distances import hd95_and_nsd
from nnunet_lopsided.evaluation.writing import write_results

NAMES = ("hd95", "nsd", "surface", "instance")


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def run(folders, out, *options):
    code = main(["-g", str(folders.references), "-p", str(folders.predictions), "-o", str(out), *options])
    assert code == 0
    return json.loads((out / "summary.json").read_text())


def expected(tolerance):
    """The lesion of 27 voxels of case a, of which the prediction has 18."""
    reference, predicted = np.ones((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    predicted[:, :, 2] = False
    return hd95_and_nsd(reference, predicted, (1, 1, 1), tolerance)


def test_no_output_names_them_unless_asked_for(two_cases, tmp_path, capsys):
    run(two_cases, tmp_path / "out", "--threshold", "0.1", "0.6")
    text = capsys.readouterr().out
    for path in (tmp_path / "out").iterdir():
        if path.suffix in (".json", ".csv", ".html"):
            text += path.read_text()
    assert [name for name in NAMES if name in text.lower()] == []


def test_in_every_output(two_cases, tmp_path, capsys):
    options = ("--surface-distances", "--nsd-tolerance-mm", "0.5", "--threshold", "0.1", "0.9", "--bootstrap", "100")
    summary = run(two_cases, tmp_path / "out", *options)
    hd95, nsd = expected(0.5)
    assert (hd95, 0.5 < nsd < 1) == (1.0, True)
    content = summary["surface_distances"]
    assert {key: content[key] for key in ("nsd_tolerance_mm", "lesions", "missed_lesions")} == {
        "nsd_tolerance_mm": 0.5,
        "lesions": 1,
        "missed_lesions": 1,
    }
    assert content["hd95_mm"] == {"mean": 1.0, "median": 1.0, "mean_ci95_bootstrap": None}
    assert content["nsd"]["mean"] == content["nsd"]["median"] == pytest.approx(nsd)
    assert "at least 8 patients" in summary["undefined"]["surface_distances.nsd.mean_ci95_bootstrap"]
    assert summary["settings"]["surface_distances"] is True
    assert summary["settings"]["nsd_tolerance_mm"] == 0.5
    assert "instances" not in summary["settings"]
    lesions = table(tmp_path / "out" / "lesions.csv")
    assert [(row["hd95_mm"], row["nsd"]) for row in lesions] == [("1", f"{nsd:.9g}"), ("", "")]
    first, second = table(tmp_path / "out" / "thresholds.csv")
    assert (first["hd95_mm_mean"], first["nsd_median"], first["nsd_mean_low"]) == ("1", f"{nsd:.9g}", "")
    assert (second["hd95_mm_mean"], second["nsd_median"]) == ("", "")
    assert summary["by_threshold"][1]["surface_distances"]["lesions"] == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"{'HD95, mm, mean':<36}{1:>10.4f}" in printed
    assert f"{'NSD at 0.5 mm, median':<36}{nsd:>10.4f}  of 1 lesions, 1 missed without" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Of the 1 lesions found; the 1 missed ones have no value." in page
    assert "HD95, mm" in page
    assert "NSD at 0.5 mm" in page


def test_nothing_found_is_undefined_with_a_reason(two_cases, tmp_path, capsys):
    summary = run(two_cases, tmp_path / "out", "--surface-distances", "--threshold", "0.9")
    assert summary["surface_distances"]["hd95_mm"] == {"mean": None, "median": None, "mean_ci95_bootstrap": None}
    assert summary["undefined"]["surface_distances.hd95_mm.median"] == "no lesion was detected"
    assert f"{'HD95, mm, mean':<36}{'undefined':>10}  no lesion was detected" in capsys.readouterr().out


def test_data_frame(two_cases):
    rules = EvaluationRules(surface_distances=True)
    result = evaluate_folder(two_cases.references, two_cases.predictions, rules=rules, n_replicates=0)
    frame = data_frame(result, "lesions")
    assert frame["hd95_mm"].tolist()[0] == expected(1.0)[0]
    assert np.isnan(frame["nsd"].tolist()[1])


def test_several_classes(two_cases, tmp_path):
    two_cases.write_dataset_json({"background": 0, "lesion": 1, "other": 2})
    options = ("--label", "lesion", "other", "--hard-labels", "--surface-distances", "--bootstrap", "0")
    code = main(
        ["-g", str(two_cases.references), "-p", str(two_cases.predictions), "-o", str(tmp_path / "o"), *options]
    )
    assert code == 0
    lesion, other = table(tmp_path / "o" / "classes.csv")
    assert (lesion["hd95_mm_mean"], other["hd95_mm_mean"], other["nsd_mean"]) == ("1", "", "")


def saved(folders, out, **rules):
    result = evaluate_folder(folders.references, folders.predictions, rules=EvaluationRules(**rules), n_replicates=0)
    write_results(result, out)
    return read_evaluation(out)


def test_read_back_and_compared_on_lesions_that_both_found(two_cases, tmp_path):
    a = saved(two_cases, tmp_path / "a", surface_distances=True)
    assert a.cases[0].surface.hd95_mm[0] == 1.0
    lesion = np.zeros((8, 10, 12), np.float32)
    lesion[1:4, 1:4, 1:4] = lesion[6, 6, 6] = 0.8
    two_cases.write_npz("a", lesion)
    two_cases.write_image("a.nii.gz", (lesion > 0.5).astype(np.uint8))
    b = saved(two_cases, tmp_path / "b", surface_distances=True)
    pair = compare([a, b], n_replicates=0).pairs[0]
    assert pair.surface.n_lesions == 1
    assert (pair.surface.hd95_mm.first, pair.surface.hd95_mm.second, pair.surface.hd95_mm.difference) == (1, 0, -1)
    assert pair.surface.nsd.difference == pytest.approx(1 - expected(1.0)[1])
    write_comparison(compare([a, b], n_replicates=0), tmp_path / "out")
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content["pairs"][0]["surface_distances_of_both"]["hd95_mm_mean"]["difference"] == -1
    first, second = table(tmp_path / "out" / "lesions.csv")
    assert [first[f"{name}:hd95_mm"] for name in "ab"] == ["1", "0"]
    assert [second[f"{name}:nsd"] for name in "ab"] == ["", "1"]
    assert "HD95, mm, of the 1 lesions that both found" in (tmp_path / "out" / "compare.html").read_text()


def test_compared_with_another_tolerance_and_without(two_cases, tmp_path):
    a = saved(two_cases, tmp_path / "a", surface_distances=True)
    b = saved(two_cases, tmp_path / "b", surface_distances=True, nsd_tolerance_mm=2.0)
    c = saved(two_cases, tmp_path / "c")
    pairs = compare([a, b, c], n_replicates=0).pairs
    assert pairs[0].surface.hd95_mm.difference == 0
    assert pairs[0].surface.nsd.interval.undefined == "tolerances of 1 and 2 mm"
    assert [pair.surface for pair in pairs[1:]] == [None, None]
    write_comparison(compare([c, c.__class__(**{**vars(c), "name": "d"})], n_replicates=0), tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        assert [name for name in NAMES if name in path.read_text().lower()] == []


def test_the_interval_of_the_mean_is_the_bootstrap_over_patients(folders):
    """Ten patients of one lesion each; the mean of the drawn ones."""
    for i in range(10):
        reference, predicted = np.zeros((2, 12, 40), np.uint8), np.zeros((2, 12, 40), np.uint8)
        reference[:, 2:4, 2:4] = predicted[:, 2:4, 2 : 4 + i] = 1
        folders.write_reference(f"case{i}.nii.gz", reference)
        folders.write_image(f"case{i}.nii.gz", predicted)
    rules = profile_rules("brats-mets-2025", surface_distances=True)
    result = evaluate_folder(folders.references, folders.predictions, rules=rules, n_replicates=400, seed=3)
    values = np.array([case.surface.hd95_mm[0] for case in result.cases])
    assert values.tolist() == list(range(10))
    average = result.summary.surface.hd95_mm
    assert (average.mean, average.median) == (4.5, 4.5)
    rng = np.random.default_rng(5)
    means = rng.choice(values, (4000, 10)).mean(axis=1)
    assert average.interval.low == pytest.approx(np.percentile(means, 1.4), abs=0.5)
    assert average.interval.high == pytest.approx(np.percentile(means, 98.6), abs=0.5)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_tolerance_that_is_none(value):
    with pytest.raises(InputError, match="nsd_tolerance_mm must be a finite number"):
        EvaluationRules(surface_distances=True, nsd_tolerance_mm=value)


def test_a_tolerance_alone_is_refused():
    with pytest.raises(InputError, match="nsd_tolerance_mm needs surface_distances"):
        EvaluationRules(nsd_tolerance_mm=2.0)
