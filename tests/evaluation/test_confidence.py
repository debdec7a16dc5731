"""nnunet_lopsided.evaluation.confidence, and what follows from it in an evaluation."""

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, evaluate_folder, summarize
from nnunet_lopsided.evaluation.comparison import compare
from nnunet_lopsided.evaluation.confidence import PLAIN, CandidateScores, Confidence
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.saved import read_evaluation
from nnunet_lopsided.evaluation.summary_json import summary_dict
from nnunet_lopsided.evaluation.writing import write_results
from nnunet_lopsided.files.tables import read_table


def speck_and_lesion() -> tuple[NDArray[Any], NDArray[Any]]:
    """A false speck of one voxel with p = .99, and a lesion of 27 voxels found with p = .6."""
    reference, p = np.zeros((5, 12, 12), bool), np.zeros((5, 12, 12))
    reference[1:4, 1:4, 1:4] = True
    p[reference], p[2, 9, 9] = 0.6, 0.99
    return reference, p


def test_a_speck_heads_the_ranking_by_mean_and_not_that_by_sum():
    case = evaluate_case(*speck_and_lesion(), (1, 1, 1))
    maps = summarize([case], EvaluationRules(), 0).metrics.map_by_confidence
    assert maps == {"mean": 0.5, "max": 0.5, "sum": 1.0, "sqrt": 1.0}
    ranking: dict[Confidence, list[float]] = {
        "mean": [0.6, 0.99],
        "max": [0.6, 0.99],
        "sum": [16.2, 0.99],
        "sqrt": [3.117691, 0.99],
    }
    for name, expected in ranking.items():
        rules = EvaluationRules(confidence=name)
        case = evaluate_case(*speck_and_lesion(), (1, 1, 1), rules)
        assert case.confidence.tolist() == expected
        summary = summarize([case], rules, 0)
        assert summary.metrics.map == maps[name]
        assert summary.metrics.map_by_confidence == maps
        assert summary.points.threshold.tolist() == sorted(expected, reverse=True)


def test_the_confidence_chooses_the_candidate_that_detects_a_lesion():
    reference, p = np.zeros((1, 12, 12), bool), np.zeros((1, 12, 12))
    reference[0, 1:11, 1:5] = True
    p[0, 1, 2], p[0, 4:10, 1:5] = 0.9, 0.5
    status = {}
    for name in PLAIN:
        case = evaluate_case(reference, p, (1, 1, 1), EvaluationRules(confidence=name))
        status[name] = [Status(s).name for s in case.matches.status]
        assert case.matches.dice[0] == pytest.approx(2 / 41 if name in ("mean", "max") else 48 / 64)
    assert status["mean"] == status["max"] == ["TRUE_POSITIVE", "DUPLICATE"]
    assert status["sum"] == status["sqrt"] == ["DUPLICATE", "TRUE_POSITIVE"]


def test_small_candidates_are_dropped_before_matching_and_counted():
    reference, p = speck_and_lesion()
    p[0, 8:10, 0] = 0.7
    for least, n in ((1, 3), (2, 2), (3, 1), (28, 0)):
        rules = EvaluationRules(min_candidate_voxels=least)
        case = evaluate_case(reference, p, (1, 1, 1), rules)
        assert (len(case.candidates), case.n_dropped, case.n_lesions) == (n, 3 - n, 1)
        assert summarize([case], rules, 0).n_dropped_candidates == 3 - n
        assert case.segmentation_overlap.predicted == 30  # what is segmented does not change
        assert case.candidate_overlap.predicted == sum(k for k in (27, 2, 1) if k >= least)


def test_hard_labels_are_ranked_by_size_alone():
    reference, p = speck_and_lesion()
    areas: dict[Confidence, float | None] = {"mean": None, "max": None, "sum": 1.0, "sqrt": 1.0}
    for name, area in areas.items():
        rules = EvaluationRules(confidence=name)
        case = evaluate_case(reference, p > 0, (1, 1, 1), rules)
        assert case.confidence.tolist() == {"sum": [27, 1], "sqrt": [5.196152, 1]}.get(name, [1, 1])
        summary = summarize([case], rules, 0)
        assert summary.metrics.map == area
        assert (summary.points is None) == (area is None)
        assert summary.metrics.lesion_entropy_bits is None
        assert summary.metrics.map_by_confidence == {"mean": None, "max": None, "sum": 1.0, "sqrt": 1.0}
        for unknown in ("mean", "max"):
            assert "hard labels" in summary.undefined[f"map_by_confidence.{unknown}"]


def test_without_lesions_every_area_is_undefined():
    reference, p = speck_and_lesion()
    summary = summarize([evaluate_case(np.zeros_like(reference), p, (1, 1, 1))], EvaluationRules(), 0)
    assert set(summary.metrics.map_by_confidence.values()) == {None}
    assert summary.undefined["map_by_confidence.sum"] == "there are no reference lesions"


def test_learned_needs_a_model():
    with pytest.raises(InputError, match="learned needs a model"):
        evaluate_case(*speck_and_lesion(), (1, 1, 1), EvaluationRules(confidence="learned"))
    with pytest.raises(ValueError, match="confidence must be one of mean, max, sum, sqrt"):
        CandidateScores(np.ones(1), np.ones(1), np.ones(1, int)).by("learned")
    rules = EvaluationRules(confidence="learned")
    case = evaluate_case(*speck_and_lesion(), (1, 1, 1), rules, learned=lambda volume, mean, highest: volume / 100)
    assert case.confidence.tolist() == [0.27, 0.01]
    assert summarize([case], rules, 0).metrics.map_by_confidence["learned"] == 1.0


@pytest.mark.parametrize("name", PLAIN)
@given(
    st.floats(0.001, 1),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
    st.floats(0.001, 1),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
)
def test_never_falls_with_size_mean_or_maximum(name, a, b, c, d, n, m):
    scores = CandidateScores(np.sort([a, b]), np.sort([c, d]), np.sort([n, m]))
    low, high = scores.by(name)
    assert low <= high
    assert scores.by("sum")[0] == pytest.approx(min(a, b) * min(n, m), abs=1e-6)
    assert scores.by("sqrt")[0] == pytest.approx(min(a, b) * math.sqrt(min(n, m)), abs=1e-6)


@pytest.mark.parametrize("hard", [False, True])
def test_folder_files_name_the_confidence_and_hold_what_every_ranking_needs(two_cases, tmp_path, hard):
    rules = EvaluationRules(confidence="sum", min_candidate_voxels=2)
    result = evaluate_folder(
        two_cases.references, two_cases.predictions, rules=rules, thresholds=(0.1, 0.4), hard_labels=hard
    )
    write_results(result, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == summary_dict(result)
    assert (summary["settings"]["confidence"], summary["settings"]["min_candidate_voxels"]) == ("sum", 2)
    assert summary["settings"]["confidence_rule"] == "sum of probabilities, rounded to 6 decimals"
    assert summary["details"]["dropped_candidates"] == (0 if hard else 1)
    assert "confidence: sum of probabilities" in (tmp_path / "out" / "report.html").read_text()
    assert "map_by_sqrt" in (tmp_path / "out" / "thresholds.csv").read_text().splitlines()[0]
    read = read_evaluation(tmp_path / "out")
    assert summarize(read.cases, read.rules, 0).metrics.map_by_confidence == result.summary.metrics.map_by_confidence
    assert read.metrics["map_by_sum"] == read.metrics["map"] == summary["metrics"]["map_by_confidence"]["sum"]


def test_other_confidences_are_not_compared(two_cases, tmp_path):
    for name in ("mean", "sum"):
        rules = EvaluationRules(confidence=name)
        result = evaluate_folder(two_cases.references, two_cases.predictions, rules=rules, n_replicates=0)
        write_results(result, tmp_path / name)
    models = [read_evaluation(tmp_path / name) for name in ("mean", "sum")]
    with pytest.raises(InputError, match="confidence is 'mean' versus 'sum'"):
        compare(models)
    pair = compare([models[1], replace(models[1], name="again")], 100).pairs[0]
    assert pair.differences["map_by_mean"].difference == 0


def test_evaluations_of_older_versions_are_read_as_ranked_by_mean(two_cases, tmp_path):
    result = evaluate_folder(two_cases.references, two_cases.predictions, n_replicates=0)
    write_results(result, tmp_path / "new")
    write_results(result, tmp_path / "old")
    path = tmp_path / "old" / "summary.json"
    summary = json.loads(path.read_text())
    del summary["metrics"]["map_by_confidence"], summary["settings"]["min_candidate_voxels"]
    summary["settings"]["confidence"] = "mean probability of the candidate, rounded to 9 decimals"
    path.write_text(json.dumps(summary))
    for table, n_new in (("candidates.csv", 5),):
        lines = (tmp_path / "old" / table).read_text().splitlines()
        (tmp_path / "old" / table).write_text("".join(line.rsplit(",", n_new)[0] + "\n" for line in lines))
    old = read_evaluation(tmp_path / "old")
    assert old.rules == result.rules
    again = summarize(old.cases, old.rules, 0)
    new = result.summary.metrics.map_by_confidence
    assert again.metrics.map_by_confidence == {**new, "max": None}
    assert "highest probability" in again.undefined["map_by_confidence.max"]
    assert compare([read_evaluation(tmp_path / "new"), old], 0).pairs[0].differences["map"].difference == 0


BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "confidence.py"


@pytest.mark.skipif(not BENCHMARK.is_file(), reason="benchmarks are not in the source distribution")
def test_the_benchmark_reads_from_any_evaluation_what_every_other_would_say(two_models, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("benchmark_confidence", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    assert benchmark.main([str(two_models[0]), str(tmp_path), "--csv", str(tmp_path / "all.csv")]) == 0
    assert "left out" in capsys.readouterr().err
    settings = json.loads((two_models[0] / "summary.json").read_text())["settings"]
    references, predictions = (settings[name] for name in ("references", "predictions"))
    rows = read_table(tmp_path / "all.csv")
    assert len(rows) == 12
    for row in rows:
        rules = EvaluationRules(
            confidence=cast(Confidence, row["confidence"]),
            min_candidate_voxels=int(row["min_voxels"]),
            threshold=settings["threshold"],
            fp_per_case=(1, 2, 4, 8),
        )
        summary = evaluate_folder(references, predictions, rules=rules, n_replicates=0).summary
        assert float(row["map"]) == pytest.approx(summary.metrics.map), row
        assert float(row["max_sensitivity"]) == pytest.approx(summary.metrics.max_sensitivity)
        assert int(row["candidates"]) == summary.counts.candidates
        at = [matched.sensitivity for matched, _ in summary.sensitivity_at_fp]
        assert [float(row[f"sensitivity_at_{n}"]) for n in (1, 2, 4, 8)] == pytest.approx(at)
