"""nnunet_lopsided.evaluation.learned_confidence, and fitting it to a cross-validation."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from nnunet_lopsided.commands.confidence import main as fit_main
from nnunet_lopsided.commands.evaluate import main as eval_main
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import EvaluationRules, evaluate_folder
from nnunet_lopsided.evaluation.confidence import PLAIN
from nnunet_lopsided.evaluation.confidence_fitting import Evidence, FittedClass
from nnunet_lopsided.evaluation.learned_confidence import (
    FILE_NAME,
    Coefficients,
    features_of,
    fit_coefficients,
    read_model,
)
from nnunet_lopsided.images import Geometry, Image, write_image

PLAIN_GEOMETRY = Geometry((1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel().tolist()))


def candidates(seed, n=3000):
    rng = np.random.default_rng(seed)
    volume, highest = np.exp(rng.uniform(0, 6, n)), rng.uniform(0.1, 1, n)
    return rng, volume, highest * rng.uniform(0.5, 1, n), highest


def fitted(seed, logit):
    rng, volume, mean, highest = candidates(seed)
    share = 1 / (1 + np.exp(-logit(volume, mean, highest)))
    return fit_coefficients(volume, mean, highest, (rng.random(len(share)) < share).astype(float))


def test_recovers_a_ranking_by_size_by_sum_and_by_maximum():
    for logit in (
        lambda v, mean, top: 2 * np.log(v) - 6,
        lambda v, mean, top: 2 * np.log(v * mean) - 5,
        lambda v, mean, top: 4 * np.log(top / (1.001 - top)) - 2,
    ):
        model = fitted(0, logit)
        _, *fresh = candidates(1)
        assert spearmanr(model.confidence(*fresh), logit(*fresh)).statistic > 0.98


def test_what_makes_a_lesion_less_likely_is_left_out():
    model = fitted(0, lambda v, mean, top: 3 - 2 * np.log(v))
    assert model.weights[0] == 0
    assert min(model.weights) >= 0


def test_half_a_belief_is_two_half_rows():
    _, volume, mean, highest = candidates(3, 40)
    twice = np.concatenate([volume, volume]), np.concatenate([mean, mean]), np.concatenate([highest, highest])
    halves = fit_coefficients(volume, mean, highest, np.full(40, 0.5))
    rows = fit_coefficients(*twice, np.repeat([1.0, 0.0], 40))
    assert halves.weights == pytest.approx([0] * 5, abs=1e-6)
    assert rows.weights == pytest.approx([0] * 5, abs=1e-6)
    for nothing in (np.zeros(40), np.ones(40)):
        with pytest.raises(ValueError, match="belief must be neither"):
            fit_coefficients(volume, mean, highest, nothing)


def test_special_rankings():
    _, volume, mean, highest = candidates(5)
    for weights, values in (
        ((0, 1, 0, 0, 0), mean),
        ((0, 0, 0, 1, 0), highest),
        ((1, 1, 0, 0, 0), volume * mean),
        ((0.5, 1, 0, 0, 0), np.sqrt(volume) * mean),
    ):
        confidence = Coefficients(-3.0, weights).confidence(volume, mean, highest)
        assert spearmanr(confidence, values).statistic == pytest.approx(1)


@settings(max_examples=200)
@given(st.tuples(*[st.floats(0, 50)] * 5), st.lists(st.floats(1e-3, 1), min_size=6, max_size=6))
def test_never_falls_with_size_mean_or_maximum(weights, values):
    a, b, c, d, e, f = values
    low, high = Coefficients(-1.0, weights).confidence(np.sort([1e4 * a, 1e4 * b]), np.sort([c, d]), np.sort([e, f]))
    assert 0 <= low <= high <= 1
    assert np.isfinite(features_of(np.array([a]), np.array([1.0]), np.array([1.0]))).all()


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Results of a cross-validation: large lesions at p = .6, every second annotated, and specks of high p; and the
    truth.
    """
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    preprocessed = tmp_path / "preprocessed" / "Dataset501_Test"
    results = tmp_path / "results" / "Dataset501_Test" / "nnUNetTrainerLopsided__nnUNetPlans__2d"
    (preprocessed / "gt_segmentations").mkdir(parents=True)
    (tmp_path / "truth").mkdir()
    rng = np.random.default_rng(0)
    names = [f"case_{i}" for i in range(12)]
    splits = [{"train": [n for n in names if n not in names[k::3]], "val": names[k::3]} for k in range(3)]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    for i, name in enumerate(names):
        truth, labels = np.zeros((5, 60, 60), np.uint8), np.zeros((5, 60, 60), np.uint8)
        p = np.zeros((5, 60, 60), np.float32)
        for k in range(8):
            place = np.s_[1:4, 15 * (k % 4) + 2 : 15 * (k % 4) + 6, 30 * (k // 4) + 2 : 30 * (k // 4) + 6]
            truth[place] = 1
            labels[place] = (k + i) % 2
            p[place] = rng.uniform(0.85, 0.95)
        for k in range(8):
            p[2, 15 * (k % 4) + 10, 30 * (k // 4) + 16] = rng.uniform(0.2, 0.99)
        fold = results / f"fold_{i % 3}" / "validation"
        fold.mkdir(parents=True, exist_ok=True)
        for folder, array in ((preprocessed / "gt_segmentations", labels), (tmp_path / "truth", truth)):
            write_image(folder / f"{name}.nii.gz", Image(array, PLAIN_GEOMETRY))
        np.savez_compressed(fold / f"{name}.npz", probabilities=np.stack([1 - p, p]))
    for folder in (preprocessed, results, tmp_path / "truth"):
        (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lesion": 1}}))
    return results


ARGUMENTS = ["-d", "501", "-c", "2d"]


def test_fit_and_evaluate(model, tmp_path, capsys):
    assert fit_main(ARGUMENTS) == 0
    printed = capsys.readouterr()
    assert "all foreground: 48 candidates on annotated lesions, 144 on none" in printed.out
    assert printed.err == ""
    record = json.loads((model / FILE_NAME).read_text())
    assert (record["dataset"], record["trainer"], record["threshold"]) == (
        "Dataset501_Test",
        "nnUNetTrainerLopsided",
        0.1,
    )
    assert set(record["classes"]) == {"all foreground", "lesion"}
    entry = record["classes"]["all foreground"]
    assert set(entry["without_fold"]) == {"0", "1", "2"}
    # 1 and 48: the least of the ratios is too small where tails are short.
    assert 0.5 < entry["fitted_on"]["missed_per_annotated"] <= 1
    assert 24 < entry["fitted_on"]["expected_missed_lesions"] <= 48.5
    assert min(entry["all_folds"]["weights"]) >= 0

    out = tmp_path / "out"
    command = ["--cv", str(model), "-g", str(tmp_path / "truth"), "--confidence", "learned", "--bootstrap", "0"]
    assert eval_main([*command, "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert "learned 1.0000  (here: learned)" in printed.out
    assert printed.err == ""
    summary = json.loads((out / "summary.json").read_text())
    assert summary["metrics"]["map_by_confidence"]["mean"] < 0.95
    assert summary["settings"]["confidence_model"] == str(model / FILE_NAME)
    assert summary["settings"]["confidence_model_has_seen"] == []


def test_cases_are_judged_by_what_was_fitted_without_their_fold(model, tmp_path):
    fit_main(ARGUMENTS)
    path = model / FILE_NAME
    record = json.loads(path.read_text())
    for fold, slope in (("0", 1.0), ("1", 2.0)):
        record["classes"]["all foreground"]["without_fold"][fold] = {"intercept": 0.0, "weights": [0, slope, 0, 0, 0]}
    del record["classes"]["all foreground"]["without_fold"]["2"]
    record["classes"]["all foreground"]["all_folds"] = {"intercept": 0.0, "weights": [0, 3.0, 0, 0, 0]}
    path.write_text(json.dumps(record))
    rules = EvaluationRules(confidence="learned")
    result = evaluate_folder(tmp_path / "truth", model, rules=rules, cross_validation=True, n_replicates=0)
    for case in result.cases:
        slope = 1.0 + result.files[case.case].fold
        expected = case.scores.mean**slope / (1 + case.scores.mean**slope)
        np.testing.assert_allclose(case.confidence, expected, atol=2e-9)
    assert result.seen == ("case_11", "case_2", "case_5", "case_8")  # of fold 2
    # One fold's own folder; and a copy elsewhere, which is no validation.
    one = evaluate_folder(tmp_path / "truth", model / "fold_1" / "validation", rules=rules, n_replicates=0)
    np.testing.assert_array_equal(one.cases[0].confidence, result.cases[1].confidence)
    shutil.copytree(model / "fold_1" / "validation", tmp_path / "copy")
    with pytest.raises(InputError, match="--confidence-model: a file of lopsided-confidence"):
        evaluate_folder(tmp_path / "truth", tmp_path / "copy", rules=rules, allow_missing=True)
    for given_path in (model, path):
        other = evaluate_folder(
            tmp_path / "truth", tmp_path / "copy", confidence_model=given_path, allow_missing=True, n_replicates=0
        )
        assert (other.rules.confidence, other.seen) == ("mean", ())
        judged = next(case for case in other.cases if case.kind == "probabilities")
        np.testing.assert_allclose(
            judged.scores.learned, judged.scores.mean**3 / (1 + judged.scores.mean**3), atol=2e-9
        )
        assert set(other.summary.metrics.map_by_confidence) == {*PLAIN, "learned"}


def test_complete_labels_have_nothing_missed(model, tmp_path):
    assert fit_main([*ARGUMENTS, "--complete"]) == 0
    entry = json.loads((model / FILE_NAME).read_text())["classes"]["all foreground"]
    assert (entry["fitted_on"]["missed_per_annotated"], entry["fitted_on"]["expected_missed_lesions"]) == (0, 0)


def test_refusals(model, tmp_path, capsys):
    def says(expected, command=fit_main, arguments=ARGUMENTS):
        assert command(arguments) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert len(error.splitlines()) == 1

    learned = ["--cv", str(model), "--confidence", "learned", "-o", str(tmp_path / "out")]
    says("lopsided-confidence -d ID -c CONFIGURATION -tr TRAINER makes it", eval_main, learned)
    assert not (tmp_path / "out").exists()
    says("no trained model: folder not found", arguments=["-d", "501", "-c", "3d_fullres"])
    says("expected at least 20 candidates", arguments=[*ARGUMENTS, "--threshold", "0.995"])
    assert not (model / FILE_NAME).exists()
    assert fit_main(ARGUMENTS) == 0
    before = (model / FILE_NAME).read_bytes()
    capsys.readouterr()
    says("exists; --overwrite replaces it")
    assert fit_main([*ARGUMENTS, "--overwrite"]) == 0
    assert (model / FILE_NAME).read_bytes() == before
    with pytest.raises(InputError, match="expected a model of edema, found those of all foreground, lesion"):
        read_model(model).of_class("edema")
    content = json.loads(before)
    for key, value, expected in (
        ("schema_version", 2, "schema_version: expected 1"),
        ("epsilon", 0.1, "epsilon: expected 0.0001"),
        ("features", ["size"], "fit it again"),
        ("classes", {"x": {"all_folds": {"intercept": 0, "weights": [-1] * 5}, "without_fold": {}}}, "at least 0"),
    ):
        (model / FILE_NAME).write_text(json.dumps({**content, key: value}))
        with pytest.raises(InputError, match=expected):
            read_model(model)
    for fold in range(3):
        for path in (model / f"fold_{fold}" / "validation").glob("*.npz"):
            array = np.load(path)["probabilities"]
            write_image(path.with_suffix(".nii.gz"), Image((array[1] > 0.5).astype(np.uint8), PLAIN_GEOMETRY))
            path.unlink()
    says("no probabilities", arguments=[*ARGUMENTS, "--overwrite"])


def test_one_fold_alone_has_seen_its_candidates(model, tmp_path, capsys):
    assert fit_main([*ARGUMENTS, "-f", "0"]) == 2
    assert "expected at least 20 candidates" in capsys.readouterr().err
    assert fit_main([*ARGUMENTS, "-f", "0", "1"]) == 0
    assert "too few candidates without fold 0, 1" in capsys.readouterr().err
    command = ["--cv", str(model), "--folds", "0", "1", "-o", str(tmp_path / "out")]
    assert eval_main([*command, "--confidence", "learned", "--bootstrap", "0", "--threshold", "0.2"]) == 0
    error = capsys.readouterr().err
    assert "fitted to the candidates of 8 of these cases" in error
    assert "fitted to candidates at a threshold of 0.1" in error
    assert "fitted to these very candidates" in (tmp_path / "out" / "report.html").read_text()


def evidence_of(seed, n_folds=2, smaller=0.0):
    """60 candidates on annotated lesions and 60 on none that look alike, or are ``smaller`` (in log volume)."""
    rng = np.random.default_rng(seed)
    explained = np.repeat([True, False], 60)
    volume = np.exp(rng.normal(4, 1, 120) - smaller * ~explained)
    mean = rng.uniform(0.3, 0.9, 120)
    return Evidence(
        volume_mm3=volume,
        mean=mean,
        highest=np.minimum(mean + 0.05, 1.0),
        n_voxels=np.ceil(volume).astype(np.int64),
        explained=explained,
        fold=np.tile(np.arange(n_folds), 120 // n_folds),
        n_left_out=0,
        n_lesions=60,
        n_cases=10,
    )


def test_a_good_network_and_random_omissions_leave_nothing_to_learn_or_a_model_but_no_crash():
    """Found candidates are lesions, labelled or not: what touches no label looks like what does."""
    alike = [evidence_of(seed, smaller=s) for seed in range(20) for s in (0, -1)]
    outcomes = [FittedClass.of("lesion", evidence, (0, 1), False) for evidence in alike]
    for outcome in outcomes:
        if outcome.all_folds is None:
            assert "is nothing to rank by; --complete" in outcome.reason
        else:
            assert any(outcome.all_folds.coefficients.weights)
    assert any(outcome.all_folds is None for outcome in outcomes)
    assert all(FittedClass.of("lesion", evidence_of(s, smaller=2.0), (0, 1), False).all_folds for s in range(5))
