"""nnunet_lopsided.evaluation.patient_roc, and newcombe of nnunet_lopsided.evaluation.intervals."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, evaluate_folder, summarize
from nnunet_lopsided.evaluation.comparison import compare
from nnunet_lopsided.evaluation.intervals import Z95, newcombe
from nnunet_lopsided.evaluation.patient_roc import PatientScores, patient_intervals, resampled_roc_area, roc_points
from nnunet_lopsided.evaluation.report.comparison_page import comparison_html
from nnunet_lopsided.evaluation.saved import read_evaluation
from nnunet_lopsided.evaluation.writing import write_results

NONE = -np.inf


def scores(with_lesion, without_lesion):
    n, m = len(with_lesion), len(without_lesion)
    kind = np.arange(n + m) < n
    return PatientScores(
        confidence=np.array([*with_lesion, *without_lesion], float), with_lesion=kind, without_lesion=~kind
    )


def case(name, reference, candidates, patient=None, rules=None, **options):
    """Voxels of one row that are lesion, and probabilities of its candidates by voxel; None: no prediction."""
    truth, p = np.zeros((1, 1, 40), bool), np.zeros((1, 1, 40))
    truth[0, 0, list(reference)] = True
    for x, value in (candidates or {}).items():
        p[0, 0, x] = value
    prediction = None if candidates is None else p
    return evaluate_case(truth, prediction, (1, 1, 1), rules, case=name, patient=patient or name, **options)


def test_a_curve_by_hand_with_ties():
    """Of 12 pairs: .9 beats 4; .5 beats 2 and ties 1; none ties 2. (4 + 2.5 + 1 + 0.5 x 0) / 12, see below."""
    found = roc_points(scores([0.9, 0.5, NONE], [0.7, 0.5, NONE, NONE]))
    assert found.threshold.tolist() == [0.9, 0.7, 0.5]
    assert found.n_true.tolist() == [1, 1, 2]
    assert found.n_false.tolist() == [0, 1, 2]
    # .9: 4 of 4. .5: two without candidates, half for the equal one. None: half for each of two.
    assert found.area == (4 + 2.5 + 1) / 12
    assert found.sensitivity.tolist() == [1 / 3, 1 / 3, 2 / 3]
    assert found.false_positive_rate.tolist() == [0, 0.25, 0.5]


def test_nobody_has_a_candidate():
    found = roc_points(scores([NONE, NONE], [NONE]))
    assert (len(found.threshold), found.area) == (0, 0.5)


@pytest.mark.parametrize(("with_lesion", "without"), [([], [0.5]), ([0.5, 0.4], [])])
def test_one_kind_alone_has_no_curve(with_lesion, without):
    of_one = scores(with_lesion, without)
    assert roc_points(of_one) is None
    assert np.isnan(resampled_roc_area(of_one, np.ones((1, len(with_lesion) + len(without)), int))).all()
    assert "patient_auc_newcombe" not in patient_intervals(of_one, None)


levels = st.lists(st.sampled_from([NONE, 0.1, 0.2, 0.5, 0.9]), min_size=1, max_size=12)


@settings(deadline=None)
@given(levels, levels, st.integers(0, 1000))
def test_the_area_is_that_of_the_rank_test_and_of_the_trapezoids(with_lesion, without, seed):
    some = scores(with_lesion, without)
    expected = mannwhitneyu(with_lesion, without).statistic / (len(with_lesion) * len(without))
    points = roc_points(some)
    assert points.area == pytest.approx(expected)
    x, y = np.r_[0, points.false_positive_rate, 1], np.r_[0, points.sensitivity, 1]
    assert np.trapezoid(y, x) == pytest.approx(expected)
    # A patient drawn twice counts as two.
    weights = np.random.default_rng(seed).integers(0, 3, (3, len(with_lesion) + len(without)))
    for drawn, area in zip(weights, resampled_roc_area(some, weights, max_cells=5), strict=True):
        n = len(with_lesion)
        a, b = np.repeat(with_lesion, drawn[:n]), np.repeat(without, drawn[n:])
        if len(a) and len(b):
            assert area == pytest.approx(mannwhitneyu(a, b).statistic / (len(a) * len(b)))
        else:
            assert np.isnan(area)


def test_scikit_learn_draws_the_same_curve():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    some = scores(np.round(rng.random(30) + 0.3, 1), np.round(rng.random(20), 1))
    points = roc_points(some)
    false, true, _ = metrics.roc_curve(some.with_lesion, some.confidence, drop_intermediate=False)
    assert points.false_positive_rate == pytest.approx(false[1:])
    assert points.sensitivity == pytest.approx(true[1:])
    assert points.area == pytest.approx(metrics.roc_auc_score(some.with_lesion, some.confidence))


def test_patients_of_several_cases():
    """p: a miss and, in its other case, a false positive that calls it. q: free, two visits. r: free, nothing."""
    cases = [
        case("p1", [5], {}, "p"),
        case("p2", [], {20: 0.6}, "p"),
        case("q1", [], {3: 0.3}, "q"),
        case("q2", [], {9: 0.8}, "q"),
        case("r1", [], {}, "r"),
    ]
    summary = summarize(cases, EvaluationRules(), 0)
    assert (summary.n_patients_with_lesions, summary.n_patients_without_lesions) == (1, 2)
    assert summary.metrics.patient_auc == 0.5  # .6 between .8 and none
    assert (summary.metrics.patient_sensitivity, summary.metrics.patient_specificity) == (1.0, 0.5)
    np.testing.assert_array_equal(summary.patient_confidence, [0.6, 0.8, np.nan])
    assert "8 patients with lesions, and there is 1" in summary.undefined["patient_auc_newcombe_ci95"]
    ends = summary.intervals["patient_specificity_wilson"].ends
    assert ends == pytest.approx([0.0945, 0.9055], abs=1e-4)


def test_a_missing_prediction_clears_nobody_and_small_lesions_make_neither_kind():
    rules = EvaluationRules(min_lesion_mm3=1.0)
    cases = [
        case("a", [5, 6], {5: 0.9, 6: 0.9}, rules=rules),
        case("gone", [], None, rules=rules),  # no lesion and no prediction: nothing is known
        case("small", [5], {5: 0.7}, rules=rules),
        case("free", [], {8: 0.95}, rules=rules),
    ]
    summary = summarize(cases, rules, 0)
    assert (summary.n_patients_with_lesions, summary.n_patients_without_lesions) == (1, 1)
    assert summary.metrics.patient_auc == 0.0
    assert summary.metrics.patient_specificity == 0.0


def test_hard_labels_have_no_curve_but_sensitivity_and_specificity():
    truth = np.zeros((1, 4, 4), bool)
    truth[0, 1, 1] = True
    cases = [
        evaluate_case(truth, truth, (1, 1, 1), case="a", patient="a"),
        evaluate_case(np.zeros_like(truth), np.zeros_like(truth), (1, 1, 1), case="b", patient="b"),
    ]
    summary = summarize(cases, EvaluationRules(), 0)
    assert summary.metrics.patient_auc is None
    assert "hard labels" in summary.undefined["patient_auc"]
    assert (summary.metrics.patient_sensitivity, summary.metrics.patient_specificity) == (1.0, 1.0)


def test_newcombe_solves_its_equation_and_is_symmetric():
    interval = newcombe(0.85, 12, 30)
    for end in interval.ends:
        k = (12 + 30) / 2 - 1
        variance = end * (1 - end) * (1 + k * ((1 - end) / (2 - end) + end / (1 + end))) / (12 * 30)
        assert abs(end - 0.85) == pytest.approx(Z95 * variance**0.5)
    low, high = newcombe(0.15, 12, 30).ends
    assert [1 - high, 1 - low] == pytest.approx(interval.ends)
    assert newcombe(1.0, 8, 8).ends[0] == pytest.approx(1 - newcombe(0.0, 8, 8).ends[1])
    assert newcombe(1.0, 8, 8).ends[0] < 0.8  # not certainty
    assert "at least 8 patients without lesions, and there are 7" in newcombe(0.9, 100, 7).undefined
    with pytest.raises(ValueError, match="within"):
        newcombe(1.1, 10, 10)


@pytest.mark.parametrize("n", [8, 20])
def test_newcombe_covers_where_many_have_no_candidate(n):
    """benchmarks/coverage_patients.py has more; here a few hundred studies, and a bound that chance respects."""
    rng = np.random.default_rng(n)

    def draw(mean, size):
        return np.where(rng.random(size) < 0.5, NONE, rng.normal(mean, 1, size))

    def area(size):
        return roc_points(scores(np.maximum(draw(2, size), draw(0, size)), draw(0, size))).area

    truth = area(200_000)
    covered = [low <= truth <= high for low, high in (newcombe(area(n), n, n).ends for _ in range(400))]
    assert 0.92 < np.mean(covered) <= 1


@pytest.fixture(scope="module")
def two_sets_of_results(tmp_path_factory):
    """Results of two models on 10 patients with a lesion each and 9 without, of one case each."""
    from nnunet_lopsided.images import Image, write_image
    from tests.evaluation.conftest import plain

    folder = tmp_path_factory.mktemp("patients")
    (folder / "references").mkdir()
    rng = np.random.default_rng(3)
    for model in "ab":
        (folder / model).mkdir()
    for i in range(19):
        reference = np.zeros((12, 12), np.uint8)
        reference[3, 3] = i < 10
        write_image(folder / "references" / f"c{i:02d}.png", Image(reference, plain(2)))
        for model, hit in (("a", 0.9), ("b", 0.6)):
            p = np.zeros((12, 12), np.float32)
            p[3, 3] = rng.uniform(0.3, 1) * (i < 10) * (rng.random() < hit)
            p[8, 8] = rng.uniform(0.1, 0.6) * (rng.random() < 0.5)
            np.save(folder / model / f"c{i:02d}.npy", p)
    for model in "ab":
        result = evaluate_folder(folder / "references", folder / model, n_replicates=200)
        write_results(result, folder / f"out_{model}")
    return folder / "out_a", folder / "out_b"


def test_it_stands_in_every_output(two_sets_of_results):
    first, _ = two_sets_of_results
    summary = json.loads((first / "summary.json").read_text())
    area, curve = summary["metrics"]["patient_auc"], summary["curves"]["patient_roc"]
    with open(first / "patients.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with_lesion, without = (
        [float(row["highest_confidence"] or NONE) for row in rows if (int(row["lesions"]) > 0) is kind]
        for kind in (True, False)
    )
    assert area == pytest.approx(mannwhitneyu(with_lesion, without).statistic / 90)
    assert summary["details"]["patients_with_lesions"] == 10
    assert summary["details"]["patients_without_lesions"] == 9
    low, high = summary["intervals"]["patient_auc_newcombe_ci95"]
    assert low < area < high
    assert curve["sensitivity"][-1] == summary["metrics"]["patient_sensitivity"]
    assert 1 - curve["false_positive_rate"][-1] == pytest.approx(summary["metrics"]["patient_specificity"])
    text = (first / "report.html").read_text()
    for shown in (f"AUC {area:.3f}", "10 patients with lesions, 9 without.", "Newcombe"):
        assert shown in text


def test_models_are_compared_by_it(two_sets_of_results):
    models = [read_evaluation(folder, folder.name) for folder in two_sets_of_results]
    comparison = compare(models, n_replicates=300)
    difference = comparison.pairs[0].differences["patient_auc"]
    a, b = (model.metrics["patient_auc"] for model in models)
    assert difference.difference == b - a
    assert difference.interval.ends[0] <= b - a <= difference.interval.ends[1]
    assert "Patients with lesions" in comparison_html(comparison, {})
    same = compare([models[0], read_evaluation(two_sets_of_results[0], "again")], n_replicates=100)
    assert same.pairs[0].differences["patient_auc"].interval.ends == [0, 0]


def test_tables_of_another_evaluation_are_noticed(two_sets_of_results, tmp_path):
    import shutil

    folder = shutil.copytree(two_sets_of_results[0], tmp_path / "changed")
    summary = json.loads((folder / "summary.json").read_text())
    summary["metrics"]["patient_auc"] /= 2
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match="patient_auc is"):
        read_evaluation(folder)


def test_where_every_patient_has_lesions_the_page_says_so_once(folders):
    reference = np.zeros((4, 6, 6), np.uint8)
    reference[1, 1, 1] = 1
    folders.write_reference("a.nii.gz", reference)
    folders.write_npz("a", reference * np.float32(0.5))
    folders.write_dataset_json({"background": 0, "lesion": 1})
    result = evaluate_folder(folders.references, folders.predictions, n_replicates=0)
    write_results(result, folders.references.parent / "out")
    text = (folders.references.parent / "out" / "report.html").read_text()
    assert "Patients with lesions" not in text
    assert "there is no patient without lesions" in text
    assert result.summary.metrics.patient_sensitivity == 1.0
