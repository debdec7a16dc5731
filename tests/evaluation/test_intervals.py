"""nnunet_lopsided.evaluation.intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.curves import average_precision, average_recall, operating_points, sensitivity_at
from nnunet_lopsided.evaluation.intervals import (
    Detections,
    check_replicates,
    hanley_mcneil,
    patient_weights,
    percentile_interval,
    resampled_curves,
    resampled_ratio,
    subsample_weights,
    why_no_bootstrap,
    wilson,
)


def test_hanley_mcneil_by_hand():
    # A = .8, n1 = n2 = 10: Q1 = .8 / 1.2 = 2/3, Q2 = 1.28 / 1.8 = .71111;
    # variance = (.16 + 9 (.66667 - .64) + 9 (.71111 - .64)) / 100 = (.16 + .24 + .64) / 100 = .0104.
    interval = hanley_mcneil(0.8, 10, 10)
    assert interval.low == pytest.approx(0.8 - 1.959964 * 0.0104**0.5)
    assert interval.high == pytest.approx(min(1, 0.8 + 1.959964 * 0.0104**0.5))


def test_hanley_mcneil_tells_lesions_from_false_positives():
    # As above with n2 = 2: (.16 + 9 (.66667 - .64) + 1 (.71111 - .64)) / 20 = (.16 + .24 + .07111) / 20 = .0235556.
    assert hanley_mcneil(0.8, 10, 2).low == pytest.approx(0.8 - 1.959964 * 0.0235556**0.5, abs=1e-6)


def test_hanley_mcneil_is_clipped_and_undefined_without_lesions_or_false_positives():
    assert hanley_mcneil(0.95, 3, 3).high == 1.0
    for area in (0.0, 1.0):  # one without width would claim certainty
        interval = hanley_mcneil(area, 5, 4)
        assert (interval.low, interval.high) == (None, None)
        assert interval.undefined == (
            f"at exactly {area:g} the Hanley-McNeil formula gives no width, whatever the number of lesions"
        )
    for interval, word in ((hanley_mcneil(1.0, 5, 0), "false positives"), (hanley_mcneil(0.0, 0, 5), "lesions")):
        assert (interval.low, interval.high) == (None, None)
        assert word in (interval.undefined or "")
    with pytest.raises(ValueError, match="area must be within"):
        hanley_mcneil(float("nan"), 1, 1)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"), [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (5, 5, 0.5655, 1.0)]
)
def test_wilson(k, n, low, high):
    assert (wilson(k, n).low, wilson(k, n).high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_of_nothing():
    assert wilson(0, 0).low is None


def test_weights_are_seeded_and_draw_every_replicate_in_full():
    weights = patient_weights(7, 50, seed=3)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(weights, patient_weights(7, 50, seed=3))
    assert (weights != patient_weights(7, 50, seed=4)).any()


def test_subsamples_draw_each_patient_at_most_once():
    weights = subsample_weights(10, 0.8, 200, seed=1)
    assert set(np.unique(weights)) == {0, 1}
    assert (weights.sum(axis=1) == 8).all()
    assert weights.mean(axis=0) == pytest.approx(0.8, abs=0.1)
    np.testing.assert_array_equal(weights, subsample_weights(10, 0.8, 200, seed=1))
    assert subsample_weights(1, 0.3, 2, seed=0).tolist() == [[1], [1]]
    assert (subsample_weights(7, 0.8, 20, seed=1).sum(axis=1) == 6).all()  # 5.6, rounded


def test_percentiles_leave_out_undefined_replicates():
    interval = percentile_interval(np.array([np.nan, *np.linspace(0, 1, 41)]), 10**6)
    assert (interval.low, interval.high) == (pytest.approx(0.025, abs=1e-5), pytest.approx(0.975, abs=1e-5))
    assert percentile_interval(np.array([np.nan]), 10).undefined == "no bootstrap replicate is defined"


def test_few_patients_have_wider_percentiles_and_below_eight_none():
    """Student's t (9 degrees of freedom) is 2.2622, times the root of 10 / 9 2.3846: a normal tail of .00855."""
    replicates = np.linspace(0, 1, 10001, dtype=np.float64)
    interval = percentile_interval(replicates, 10)
    assert (interval.low, interval.high) == (pytest.approx(0.00855, abs=1e-5), pytest.approx(0.99145, abs=1e-5))
    assert percentile_interval(replicates, 8).low is not None
    for n in (7, 2, 1, 0):
        why = percentile_interval(replicates, n).undefined
        assert why.startswith("a bootstrap needs at least 8 patients that contribute to the denominator, and there ")
    assert why_no_bootstrap(8, 100) is None
    assert why_no_bootstrap(7, 100).startswith("a bootstrap needs at least 8 patients, and there are 7; ")
    assert why_no_bootstrap(100, 0) == "the bootstrap was switched off"


@pytest.mark.parametrize("n", [-1, 1, 99])
def test_too_few_replicates_are_refused(n):
    with pytest.raises(InputError, match=f"must be 0 .* or at least 100, got {n}"):
        check_replicates(n)
    check_replicates(0)
    check_replicates(100)


def test_resampled_ratio():
    ratios = resampled_ratio(np.array([[1, 1], [2, 0], [0, 2]]), np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    np.testing.assert_array_equal(ratios, [0.5, 0.5, np.nan])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.sampled_from([1, 7, 10**6]))
def test_resampled_curves_are_those_of_the_replicated_cases(seed, n_patients, max_cells):
    rng = np.random.default_rng(seed)
    lesions = rng.integers(0, 5, n_patients)
    true_patient = np.repeat(np.arange(n_patients), [rng.integers(0, n + 1) for n in lesions])
    false_patient = rng.integers(0, n_patients, rng.integers(0, 15))
    true, false = rng.integers(0, 6, len(true_patient)) / 5, rng.integers(0, 6, len(false_patient)) / 5
    detections = Detections(
        lesion_confidence=true,
        lesion_patient=true_patient,
        true_confidence=true,
        true_patient=true_patient,
        false_confidence=false,
        false_patient=false_patient,
        lesions_per_patient=lesions,
    )
    weights = np.vstack([np.ones((1, n_patients), int), patient_weights(n_patients, 6, seed)])
    n_cases = rng.integers(1, 4, n_patients)
    curves = resampled_curves(detections, weights, n_cases, 5.0, (0.25, 1.0), max_cells)
    fast = curves.average_precision
    for i, row in enumerate(weights):
        t, f = np.repeat(true, row[true_patient]), np.repeat(false, row[false_patient])
        points = operating_points(
            lesion_confidence=t,
            true_confidence=t,
            false_confidence=f,
            n_lesions=int(lesions @ row),
            n_cases=int(n_cases @ row),
        )
        if not points.n_lesions:
            assert np.isnan([fast[i], curves.average_recall[i], *curves.sensitivity_at[i]]).all()
            continue
        assert fast[i] == pytest.approx(average_precision(points))
        assert curves.average_recall[i] == pytest.approx(average_recall(points, 5.0))
        expected = [matched.sensitivity for matched in sensitivity_at(points, (0.25, 1.0))]
        assert curves.sensitivity_at[i].tolist() == pytest.approx(expected)
