"""The model that ranks the candidates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from nnunet_lopsided.audit.ranking import LEAST_EXAMPLES, fit_likeness, missed_probability, reliability, why_no_model


@pytest.fixture
def examples():
    """300 components of 20 patients: annotated ones have a higher first feature, the second tells nothing."""
    rng = np.random.default_rng(3)
    annotated = rng.random(300) < 0.4
    features = np.column_stack([annotated + rng.normal(0, 0.8, 300), rng.normal(5, 100, 300)])
    return features, annotated, rng.integers(0, 20, 300)


def test_every_patient_is_judged_by_a_model_fitted_to_others(examples):
    features, annotated, patients = examples
    found = fit_likeness(features, ("a", "b"), annotated, patients)
    # Whatever is changed about a patient's own labels, its judgement stays the same.
    for patient in (0, 7):
        own = patients == patient
        changed = annotated.copy()
        changed[own] = ~changed[own]
        again = fit_likeness(features, ("a", "b"), changed, patients)
        assert again.probability[own] == pytest.approx(found.probability[own], abs=1e-12)
        assert not np.allclose(again.probability[~own], found.probability[~own], atol=1e-6)


def test_a_telling_feature_gets_the_weight(examples):
    found = fit_likeness(examples[0], ("a", "b"), *examples[1:])
    weights = dict(found.coefficients)
    assert weights["a"] > 10 * abs(weights["b"])
    standard = (examples[0] - examples[0].mean(axis=0)) / examples[0].std(axis=0)
    assert list(weights.values()) == pytest.approx(LogisticRegression().fit(standard, examples[1]).coef_[0], rel=1e-4)
    assert 0.7 < found.separation < 0.95
    assert sum(b.n for b in found.reliability) == 300
    assert all(abs(b.predicted - b.observed) < 0.25 for b in found.reliability)


def test_calibration_bins():
    bins = reliability(np.array([0.9, 0.1, 0.2, 0.8]), np.array([True, False, True, True]), n_bins=2)
    assert [(b.predicted, b.observed, b.n) for b in bins] == [
        (pytest.approx(0.15), 0.5, 2),
        (pytest.approx(0.85), 1.0, 2),
    ]


def test_too_few_of_either_or_of_patients():
    few = np.arange(100) < LEAST_EXAMPLES - 1
    assert why_no_model(few, np.arange(100)) == (
        "there are 19 annotated lesions that are found and 81 candidates; a model needs 20 of each"
    )
    enough = np.arange(100) < 50
    assert why_no_model(enough, np.arange(100) % 4) == (
        "annotated lesions and candidates must lie in at least 5 patients each"
    )
    assert why_no_model(enough, np.arange(100) % 5) == ""
    with pytest.raises(ValueError, match="20 of each"):
        fit_likeness(np.zeros((100, 1)), ("a",), few, np.arange(100))


def test_elkan_and_noto_on_a_population_that_is_known():
    # Half of 2000 examples with x = 1 are lesions, none of the 2000 with x = 0; 40 % of the lesions are annotated.
    lesions, labelled = 1000, 400
    g_one = labelled / 2000
    unexplained_one = 2000 - labelled
    share = (lesions - labelled) / (unexplained_one + 2000)
    found = missed_probability(np.array([g_one]), labelled, unexplained_one + 2000, share)
    assert found[0] == pytest.approx((lesions - labelled) / unexplained_one)


@given(st.lists(st.floats(1e-6, 1 - 1e-6), min_size=1, max_size=20), st.floats(0, 1))
def test_probabilities_stay_probabilities_and_keep_the_order(probability, share):
    probability = np.sort(probability)
    found = missed_probability(probability, 30, 40, share)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()
