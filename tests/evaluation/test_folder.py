"""nnunet_lopsided.evaluation.folder and summary."""

import threading

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, evaluate_folder, summarize
from nnunet_lopsided.evaluation.folder import _in_order


def evaluate(folders, **options):
    return evaluate_folder(folders.references, folders.predictions, **{"n_replicates": 50, **options})


def test_by_hand(two_cases):
    result = evaluate(two_cases)
    metrics, counts = result.summary.metrics, result.summary.counts
    assert vars(counts) == {
        "cases": 2,
        "reference_lesions": 2,
        "candidates": 3,
        "true_positives": 1,
        "false_positives": 2,
        "duplicates": 0,
        "missed_lesions": 1,
    }
    assert metrics.map == 0.5
    assert metrics.max_sensitivity == 0.5
    assert metrics.precision_at_max_sensitivity == pytest.approx(1 / 3)
    assert metrics.false_positives_per_case == 1.0
    assert metrics.tp_dice == pytest.approx(2 * 18 / (27 + 18))
    # Of 28 lesion voxels 18 have .8 and 10 have 0.
    assert metrics.lesion_entropy_bits == pytest.approx(-(18 / 28) * np.log2(18 / 28) - (10 / 28) * np.log2(10 / 28))
    assert (result.summary.n_cases_with_lesions, result.summary.n_patients) == (1, 2)
    # Replicates without case a have no lesion and no average precision; the others all have .5.
    assert 0 < result.summary.n_defined_replicates < 50
    assert (metrics.map_ci95_bootstrap.low, metrics.map_ci95_bootstrap.high) == (0.5, 0.5)


def test_max_sensitivity_of_perfect_detections_is_1():
    reference = np.zeros((3, 9, 9), bool)
    reference[1, 1, 1] = reference[1, 7, 7] = True
    metrics = summarize([evaluate_case(reference, reference.astype(float), (1, 1, 1))], EvaluationRules(), 0).metrics
    assert (metrics.map, metrics.max_sensitivity, metrics.tp_dice) == (1.0, 1.0, 1.0)


def test_everything_empty_gives_reasons():
    empty = evaluate_case(np.zeros((2, 3, 3)), np.zeros((2, 3, 3), np.float32), (1, 1, 1), case="a")
    summary = summarize([empty, empty], EvaluationRules(), 10)
    metrics = summary.metrics
    assert (metrics.map, metrics.max_sensitivity, metrics.precision_at_max_sensitivity) == (None, None, None)
    assert (metrics.tp_dice, metrics.lesion_entropy_bits, metrics.false_positives_per_case) == (None, None, 0.0)
    assert {name for name, value in vars(metrics).items() if value is None} <= set(summary.undefined)
    assert all(summary.undefined.values())
    assert {"map_ci95_hanley_mcneil", "map_ci95_bootstrap", "max_sensitivity_wilson"} <= set(summary.undefined)
    with pytest.raises(ValueError, match="cases must not be empty"):
        summarize([], EvaluationRules())


@pytest.mark.parametrize(("policy", "precision"), [("ignore", 0.5), ("fp", 1 / 3), ("tp", 2 / 3)])
def test_duplicates_policy(policy, precision):
    reference, p = np.zeros((1, 1, 20), bool), np.zeros((1, 1, 20))
    reference[0, 0, 0:8] = True
    p[0, 0, 0:3], p[0, 0, 5:8], p[0, 0, 15] = 0.9, 0.6, 0.3
    rules = EvaluationRules(duplicates=policy)
    summary = summarize([evaluate_case(reference, p, (1, 1, 1), rules)], rules, 0)
    assert (summary.counts.true_positives, summary.counts.duplicates, summary.counts.false_positives) == (1, 1, 1)
    assert summary.metrics.precision_at_max_sensitivity == pytest.approx(precision)
    assert summary.metrics.map == 1.0  # the duplicate is less confident than the detection
    assert summary.metrics.max_sensitivity == 1.0


def test_one_patient_has_no_bootstrap(two_cases):
    summary = evaluate(two_cases, patients_regex="(.*)[ab]$").summary
    assert summary.n_patients == 1
    assert "at least two patients" in summary.undefined["map_ci95_bootstrap"]
    assert "switched off" in evaluate(two_cases, n_replicates=0).summary.undefined["map_ci95_bootstrap"]


def test_patients_regex_is_checked(two_cases):
    assert [c.patient for c in evaluate(two_cases, patients_regex="[ab]").cases] == ["a", "b"]
    with pytest.raises(InputError, match="does not match the cases b"):
        evaluate(two_cases, patients_regex="a")
    with pytest.raises(InputError, match="must be a regular expression"):
        evaluate(two_cases, patients_regex="(")


def test_same_result_whatever_the_threads(two_cases):
    one, four = (evaluate(two_cases, n_workers=n).summary for n in (1, 4))
    assert one.metrics == four.metrics
    assert one.intervals == four.intervals


def test_hard_labels(two_cases):
    summary = evaluate(two_cases, hard_labels=True).summary
    assert summary.points is None
    assert summary.metrics.map is None
    assert summary.metrics.max_sensitivity == 0.5
    assert "hard labels" in summary.undefined["map"]
    assert "hard labels" in summary.undefined["lesion_entropy_bits"]


def test_mixed_predictions_are_refused(two_cases):
    (two_cases.predictions / "b.npz").unlink()
    with pytest.raises(InputError, match=r"1 cases have probabilities and 1 only label maps \(b\)"):
        evaluate(two_cases)


def test_references_without_prediction(two_cases):
    for name in ("c", "d"):
        reference = np.zeros((4, 4, 4), np.uint8)
        reference[1, 1, 1] = 1
        two_cases.write_reference(f"{name}.nii.gz", reference)
    with pytest.raises(InputError, match=r"2 of 4 references have no prediction in .*: c, d; --allow-missing"):
        evaluate(two_cases)
    result = evaluate(two_cases, allow_missing=True)
    assert result.missing_predictions == ("c", "d")
    assert (result.summary.counts.cases, result.summary.counts.missed_lesions) == (4, 3)
    assert result.summary.metrics.max_sensitivity == 0.25
    assert result.summary.metrics.map == 0.25


def test_predictions_without_reference_are_listed(two_cases):
    two_cases.write_image("z.nii.gz", np.zeros((4, 4, 4), np.uint8))
    result = evaluate(two_cases)
    assert result.unreferenced_predictions == ("z",)
    assert result.summary.counts.cases == 2


def test_folders_without_cases(folders, tmp_path):
    with pytest.raises(InputError, match="no label maps in the reference folder"):
        evaluate(folders)
    folders.write_reference("a.nii.gz", np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(InputError, match="no predictions in"):
        evaluate(folders)
    folders.write_image("other.nii.gz", np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(InputError, match=r"no case of .* \(a, \.\.\.\) has a prediction in .* \(other, \.\.\.\)"):
        evaluate(folders)
    with pytest.raises(InputError, match="folder not found"):
        evaluate_folder(tmp_path / "none", folders.predictions)


def test_connectivity_of_the_other_dimension_names_the_case(two_cases):
    with pytest.raises(InputError, match="case a: connectivity must be one of"):
        evaluate(two_cases, rules=EvaluationRules(connectivity=8))


@pytest.mark.parametrize(("option", "value"), [("n_workers", 0), ("n_replicates", -1)])
def test_numbers_out_of_range(two_cases, option, value):
    with pytest.raises(InputError, match=option):
        evaluate(two_cases, **{option: value})


def test_few_cases_are_in_the_air_at_a_time():
    lock, state = threading.Lock(), {"running": 0, "most": 0, "started": 0, "ahead": 0}

    def work(name):
        with lock:
            state["running"] += 1
            state["started"] += 1
            state["most"] = max(state["most"], state["running"])
        result = int(name)
        with lock:
            state["running"] -= 1
        return result

    results = []
    for value in _in_order(work, [str(i) for i in range(50)], 3):
        state["ahead"] = max(state["ahead"], state["started"] - len(results))
        results.append(value)
    assert results == list(range(50))
    assert state["most"] <= 3
    assert state["ahead"] <= 6
