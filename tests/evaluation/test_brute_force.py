"""The whole evaluation of random volumes against an independent implementation."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, summarize
from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.confidence import PLAIN
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.rules import profile_rules

_spec = importlib.util.spec_from_file_location("brute_force", Path(__file__).with_name("brute_force.py"))
brute_force = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(brute_force)

SPACINGS = [(1, 1, 1), (3, 0.8, 0.8), (0.5, 2, 1.25)]


def volumes(seed, n_cases):
    """Small volumes with lesions found, missed, split, merged and invented; many equal confidences."""
    rng = np.random.default_rng(seed)
    for _ in range(n_cases):
        shape = (6, 11, 12)
        reference = ndimage.gaussian_filter(rng.standard_normal(shape), 0.9) > rng.uniform(0.3, 0.9)
        noise = ndimage.gaussian_filter(rng.standard_normal(shape), 0.8)
        probability = np.clip(0.4 * reference * (rng.random(shape) < 0.8) + noise * rng.uniform(0, 1.5), 0, 1)
        yield reference, np.round(probability, 1)


def check(seed, n_cases, spacing, rules):
    rules = replace(rules, fp_per_case=(0.5, 1, 2))
    cases: list[CaseResult] = []
    expected: list[object] = []
    for reference, probability in volumes(seed, n_cases):
        case = evaluate_case(reference, probability, spacing, rules, case=str(len(cases)))
        slow = brute_force.evaluate(reference, probability, spacing, rules)
        assert (case.n_lesions, int(case.detected.sum())) == (slow.n_lesions, len(slow.detected))
        for status, values in (
            (Status.TRUE_POSITIVE, slow.true),
            (Status.FALSE_POSITIVE, slow.false),
            (Status.DUPLICATE, slow.duplicates),
        ):
            assert sorted(case.confidence[case.matches.status == status].tolist()) == sorted(values)
        assert case.count(Status.IGNORED) == slow.n_ignored
        assert (case.n_merges, case.n_false_positives_on_lesions) == (slow.n_merges, slow.n_false_on_lesions)
        assert case.matches.dice[case.detected].tolist() == pytest.approx(slow.dice)
        cases.append(case)
        expected.append(slow)
    summary, slow = summarize(cases, rules, 0), brute_force.metrics(expected)
    at_fp = slow.pop("sensitivity_at", [])
    for name, value in slow.items():
        assert getattr(summary.metrics, name) == pytest.approx(value), name
    assert [matched.sensitivity for matched, _ in summary.sensitivity_at_fp] == pytest.approx(at_fp)
    for name, value in summary.metrics.map_by_confidence.items():
        by_name = replace(rules, confidence=name)
        again = [brute_force.evaluate(*volume, spacing, by_name) for volume in volumes(seed, n_cases)]
        assert value == pytest.approx(brute_force.metrics(again)["map"]), name


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.sampled_from(SPACINGS),
    st.sampled_from(["box", "center"]),
    st.sampled_from([0.5, 1.0, 2.5]),
    st.sampled_from([0.1, 0.3]),
    st.sampled_from(PLAIN),
    st.integers(1, 3),
)
def test_paper_profile(seed, n_cases, spacing, distance, tolerance, threshold, confidence, min_voxels):
    rules = EvaluationRules(
        distance=distance,
        tolerance_mm=tolerance,
        threshold=threshold,
        confidence=confidence,
        min_candidate_voxels=min_voxels,
    )
    check(seed, n_cases, spacing, rules)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from(SPACINGS), st.sampled_from(PLAIN))
def test_brats_mets_profile(seed, n_cases, spacing, confidence):
    check(seed, n_cases, spacing, profile_rules("brats-mets-2023", confidence=confidence))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    st.sampled_from(["best", "union"]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from(PLAIN),
    st.integers(1, 2),
)
def test_every_mixture_of_the_overlap_rules(seed, dilation, join, dice, cut, confidence, min_voxels):
    rules = EvaluationRules(
        match="overlap",
        dilation_voxels=dilation,
        join_dilated=join and dilation > 0,
        dice=dice,
        min_lesion_mm3=cut,
        threshold=0.3,
        confidence=confidence,
        min_candidate_voxels=min_voxels,
    )
    check(seed, 2, (1, 1, 1), rules)
