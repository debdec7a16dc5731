"""nnunet_lopsided.evaluation.folder and summary."""

import multiprocessing
import threading
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, evaluate_folder, folder, summarize
from nnunet_lopsided.evaluation.folder import LoadedAndEvaluated, load_again
from nnunet_lopsided.evaluation.loading import load_case
from nnunet_lopsided.files.parallel import in_order


def evaluate(folders, **options):
    return evaluate_folder(folders.references, folders.predictions, **{"n_replicates": 100, **options})


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
    # Two patients are too few to resample.
    assert result.summary.n_defined_replicates == 0
    assert metrics.map_ci95_bootstrap.low is None
    assert "and there are 2" in result.summary.undefined["map_ci95_bootstrap"]


def test_further_metrics_by_hand(two_cases):
    metrics = evaluate(two_cases).summary.metrics
    assert metrics.f1 == pytest.approx(2 * 0.5 * (1 / 3) / (0.5 + 1 / 3))
    dice = 2 * 18 / (27 + 18)
    assert metrics.lesion_wise_dice == pytest.approx(dice / (2 + 2))
    assert metrics.lesion_wise_dice_case_mean == pytest.approx((dice / 3 + 0 / 1) / 2)
    # No false positives per case up to .5, then those at .5 and .3: nothing more is found.
    assert metrics.average_recall == 0.5
    assert metrics.false_positives_per_lesion_free_case == 1.0  # case b
    assert metrics.false_positive_volume_mm3_per_case == (2 + 1) / 2
    assert metrics.false_positive_volume_mm3_per_lesion_free_case == 1.0
    assert metrics.smallest_detected_diameter_mm == pytest.approx((6 * 27 / np.pi) ** (1 / 3))
    # The label map (p > .5) has 18 voxels of 28; of case b neither has any, which nnU-Net leaves out of its mean.
    assert metrics.voxel_dice == metrics.voxel_dice_pooled == pytest.approx(2 * 18 / (28 + 18))
    # At .1 candidates have 18 + 2 and 1 voxels.
    assert metrics.voxel_dice_at_threshold == pytest.approx((2 * 18 / (28 + 20) + 0) / 2)


def test_voxel_dice_is_that_of_nnunet(folders, tmp_path, monkeypatch):
    """A case found in part, one where both are empty, one with voxels in the prediction alone."""
    from nnunetv2.evaluation import evaluate_predictions
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    # Threads instead of spawned processes, each of which would import torch again.
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
    rng = np.random.default_rng(0)
    empty = np.zeros((4, 9, 9), np.uint8)
    full, other = ((rng.random(empty.shape) < 0.3).astype(np.uint8) for _ in range(2))
    for case, reference, predicted in (
        ("a", full, full * other),
        ("b", empty, empty),
        ("c", empty, other),
        ("d", full, other),
    ):
        folders.write_reference(f"{case}.nii.gz", reference)
        folders.write_image(f"{case}.nii.gz", predicted)
        folders.write_npz(case, predicted * 0.6 + 0.2)
    theirs = evaluate_predictions.compute_metrics_on_folder(
        str(folders.references), str(folders.predictions), None, SimpleITKIO(), ".nii.gz", [1], num_processes=1
    )
    ours = evaluate(folders)
    assert ours.summary.metrics.voxel_dice == pytest.approx(theirs["foreground_mean"]["Dice"])
    by_case = [case["metrics"][1]["Dice"] for case in theirs["metric_per_case"]]
    found = [
        np.nan if case.segmentation_overlap.dice is None else case.segmentation_overlap.dice for case in ours.cases
    ]
    assert found == pytest.approx(by_case, nan_ok=True)


def test_per_patient_is_each_patient_alone(two_cases):
    summary = evaluate(two_cases).summary
    assert summary.patients == ("a", "b")
    for i, case in enumerate(evaluate(two_cases).cases):
        alone = summarize([case], EvaluationRules(), 0).metrics
        for name, values in summary.per_patient.items():
            value = getattr(alone, name)
            assert (value is None and np.isnan(values[i])) or values[i] == pytest.approx(value), name


def test_the_bootstrap_of_every_metric_surrounds_it():
    rng = np.random.default_rng(0)
    cases = []
    for i in range(40):
        reference = np.zeros((4, 20, 20), bool)
        for z, y, x in rng.integers(0, 19, (i % 4, 3)) * [0, 1, 1]:
            reference[z + 1, y, x] = True
        p = np.where(rng.random(reference.shape) < 0.01, rng.random(reference.shape), reference * rng.random())
        cases.append(evaluate_case(reference, p, (1, 1, 1), case=str(i)))
    summary = summarize(cases, EvaluationRules(), 400, seed=1)
    bootstrapped = {name.removesuffix("_bootstrap"): i for name, i in summary.intervals.items() if "bootstrap" in name}
    assert len(bootstrapped) == 14
    for name, interval in {**bootstrapped, "map": summary.metrics.map_ci95_bootstrap}.items():
        assert interval.low <= getattr(summary.metrics, name) <= interval.high, name
        assert interval.low < interval.high, name
    mean, deviation = summary.average_recall_subsampled
    assert mean == pytest.approx(summary.metrics.average_recall, abs=0.03)
    assert 0 < deviation < 0.2
    for b in summary.by_diameter[:1]:
        assert b.bootstrap.low <= b.sensitivity <= b.bootstrap.high


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
    assert {"map_ci95_hanley_mcneil", "map_ci95_bootstrap", "max_sensitivity_wilson_ci95"} <= set(summary.undefined)
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
    assert "and there is 1; " in summary.undefined["map_ci95_bootstrap"]
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


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("n_workers", 0, "n_workers must be"),
        ("n_replicates", -1, "--bootstrap must be"),
        ("n_replicates", 99, "got 99"),
    ],
)
def test_numbers_out_of_range(two_cases, option, value, message):
    with pytest.raises(InputError, match=message):
        evaluate(two_cases, **{option: value})


def test_several_thresholds_share_the_loaded_cases(two_cases, monkeypatch):
    loads = []
    real = load_case

    def noting(name, *rest):
        loads.append(name)
        return real(name, *rest)

    monkeypatch.setattr("nnunet_lopsided.evaluation.checking.load_case", noting)
    result = evaluate(two_cases, thresholds=(0.4, 0.1, 0.9))
    assert sorted(loads) == ["a", "b"]
    assert [threshold for threshold, _ in result.by_threshold] == [0.4, 0.1, 0.9]
    assert [s.counts.candidates for _, s in result.by_threshold] == [2, 3, 0]
    assert (result.rules.threshold, result.summary) == (0.4, result.by_threshold[0][1])
    for threshold, summary in result.by_threshold:
        alone = evaluate(two_cases, rules=EvaluationRules(threshold=threshold)).summary
        assert (summary.metrics, summary.counts) == (alone.metrics, alone.counts)
    assert evaluate(two_cases).by_threshold == ()
    with pytest.raises(InputError, match="thresholds must differ"):
        evaluate(two_cases, thresholds=(0.4, 0.4))
    with pytest.raises(InputError, match="threshold must be within"):
        evaluate(two_cases, thresholds=(0.4, 0.0))


def test_kept_and_censored_lesions(two_cases, tmp_path):
    censored = type(two_cases)(tmp_path / "censored", two_cases.predictions)
    censored.references.mkdir()
    kept = np.zeros((8, 10, 12), np.uint8)
    kept[6, 6, 6] = 1  # the missed lesion; the found one was censored
    censored.write_reference("a.nii.gz", kept)
    with pytest.raises(InputError, match=r"case b: no censored reference in .*censored"):
        evaluate(two_cases, censored_references=censored.references)
    skipped = evaluate(two_cases, censored_references=censored.references, skip_bad=True).skipped
    assert [s.case for s in skipped] == ["b"]
    censored.write_reference("b.nii.gz", np.zeros_like(kept))
    groups = evaluate(two_cases, censored_references=censored.references).summary.by_annotation
    assert [(g.name, g.n_lesions, g.n_detected, g.sensitivity) for g in groups] == [
        ("kept", 1, 0, 0.0),
        ("censored", 1, 1, 1.0),
    ]
    assert (groups[1].bootstrap.low, groups[1].interval.high) == (None, 1.0)  # all of one patient
    assert evaluate(two_cases).summary.by_annotation == ()
    kept[0, 0, 0] = 1
    censored.write_reference("b.nii.gz", kept)
    with pytest.raises(InputError, match=r"case b: the censored reference has 2 lesion voxels .* lacks: .*b\.nii\.gz"):
        evaluate(two_cases, censored_references=censored.references)


def test_on_case_sees_every_case_with_its_volumes(two_cases):
    seen: dict[str, LoadedAndEvaluated] = {}
    result = evaluate(two_cases, on_case=lambda case: seen.__setitem__(case.files.name, case))
    assert sorted(seen) == ["a", "b"]
    assert seen["a"].loaded.prediction.shape == seen["a"].loaded.reference.shape == (8, 10, 12)
    assert (len(seen["a"].evaluated.lesions), len(seen["a"].evaluated.candidates)) == (2, 2)
    assert seen["a"].evaluated.result in result.cases
    np.testing.assert_array_equal(load_again(result, "a").prediction, seen["a"].loaded.prediction)


# Bad cases ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bad_cases(two_cases):
    """Beside the two good cases: c of another shape (its header says so), d and e with values that are none."""
    reference, lesion = np.zeros((4, 5, 6), np.uint8), np.full((4, 5, 6), 0.2, np.float32)
    for case in "cde":
        two_cases.write_reference(f"{case}.nii.gz", reference)
    two_cases.write_npz("c", lesion[:, :, :5])
    two_cases.write_npz("d", lesion * 7)
    two_cases.write_npz("e", lesion * np.nan)
    return two_cases


def test_every_problem_is_reported_at_once_before_anything_is_computed(bad_cases, monkeypatch):
    monkeypatch.setattr(folder, "evaluate_thresholds", None)
    with pytest.raises(InputErrors) as caught:
        evaluate(bad_cases)
    c, d, e = caught.value.problems
    assert c.startswith("case c: expected shape (channels, 4, 5, 6) of the reference, found (2, 4, 5, 5) in")
    assert d.startswith("case d: expected finite probabilities within [0, 1], found")
    assert e.startswith("case e: expected finite probabilities within [0, 1], found nan")


def test_a_missing_prediction_does_not_hide_other_problems(bad_cases):
    (bad_cases.predictions / "a.npz").unlink()
    (bad_cases.predictions / "a.nii.gz").unlink()
    with pytest.raises(InputErrors) as caught:
        evaluate(bad_cases)
    assert [p[:12] for p in caught.value.problems] == ["1 of 5 refer", "case c: expe", "case d: expe", "case e: expe"]


def test_content_problems_alone_are_gathered_too(bad_cases):
    (bad_cases.references / "c.nii.gz").unlink()
    with pytest.raises(InputErrors) as caught:
        evaluate(bad_cases)
    assert [problem[:7] for problem in caught.value.problems] == ["case d:", "case e:"]


def test_bad_cases_are_skipped_on_request_and_listed(bad_cases):
    result = evaluate(bad_cases, skip_bad=True)
    assert [case.case for case in result.cases] == ["a", "b"]
    assert [skipped.case for skipped in result.skipped] == ["c", "d", "e"]
    assert all(f"case {skipped.case}: expected" in skipped.problem for skipped in result.skipped)
    for case in "ab":
        (bad_cases.references / f"{case}.nii.gz").unlink()
    with pytest.raises(InputErrors, match="none of the 3 cases can be evaluated; case c"):
        evaluate(bad_cases, skip_bad=True)


def test_skipping_bad_cases_still_refuses_missing_predictions(bad_cases):
    (bad_cases.predictions / "a.npz").unlink()
    (bad_cases.predictions / "a.nii.gz").unlink()
    with pytest.raises(InputErrors, match="1 of 5 references have no prediction"):
        evaluate(bad_cases, skip_bad=True)


def test_a_skipped_case_is_not_missed_too(bad_cases):
    for ending in ("npz", "nii.gz"):
        (bad_cases.predictions / f"e.{ending}").unlink(missing_ok=True)
    (bad_cases.references / "e.nii.gz").write_bytes(b"broken")
    result = evaluate(bad_cases, skip_bad=True, allow_missing=True)
    assert (result.missing_predictions, [s.case for s in result.skipped]) == ((), ["c", "d", "e"])


def test_problems_found_on_the_way_are_gathered_and_skipped_too(two_cases):
    def on_case(case):
        if case.files.name == "a":
            raise InputError("case a: no image")

    with pytest.raises(InputErrors, match="case a: no image"):
        evaluate(two_cases, on_case=on_case)
    result = evaluate(two_cases, on_case=on_case, skip_bad=True)
    assert ([c.case for c in result.cases], [s.case for s in result.skipped]) == (["b"], ["a"])


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

    results: list[int] = []
    for value in in_order(work, [str(i) for i in range(50)], 3):
        state["ahead"] = max(state["ahead"], state["started"] - len(results))
        results.append(value)
    assert results == list(range(50))
    assert state["most"] <= 3
    assert state["ahead"] <= 6
