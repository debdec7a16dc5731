"""The model that ranks the candidates."""

import numpy as np
import pytest
from hypothesis import given, settings
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
    found = fit_likeness(features, ("a", "b"), annotated=annotated, patients=patients)
    # Whatever is changed about a patient's own labels, its judgement stays the same.
    for patient in (0, 7):
        own = patients == patient
        changed = annotated.copy()
        changed[own] = ~changed[own]
        again = fit_likeness(features, ("a", "b"), annotated=changed, patients=patients)
        assert again.probability[own] == pytest.approx(found.probability[own], abs=1e-12)
        assert not np.allclose(again.probability[~own], found.probability[~own], atol=1e-6)


def test_what_is_only_judged_teaches_nothing(examples):
    features, annotated, patients = examples
    learned = np.arange(300) >= 60
    patients[:3] = 20  # a patient of whom nothing is learned
    found = fit_likeness(features, ("a", "b"), annotated=annotated, patients=patients, learned=learned)
    alone = fit_likeness(features[learned], ("a", "b"), annotated=annotated[learned], patients=patients[learned])
    assert found.probability[learned].tolist() == alone.probability.tolist()
    for name in ("coefficients", "reliability", "separation"):
        assert getattr(found, name) == getattr(alone, name)
    # A component is judged alike, learned from or not: here each of the others has a twin that is learned from.
    twins = np.concatenate([features, features[:60]])
    other = np.concatenate([learned, np.ones(60, bool)])
    both = fit_likeness(
        twins,
        ("a", "b"),
        annotated=np.concatenate([annotated, annotated[:60]]),
        patients=np.concatenate([patients, patients[:60]]),
        learned=other,
    )
    assert both.probability[:60].tolist() == both.probability[300:].tolist()


def test_a_telling_feature_gets_the_weight(examples):
    features, annotated, patients = examples
    found = fit_likeness(features, ("a", "b"), annotated=annotated, patients=patients)
    weights = dict(found.coefficients)
    assert weights["a"] > 10 * abs(weights["b"])
    # Without its second feature, whose sign may be held back, it is scikit-learn's.
    (_, weight), *_ = fit_likeness(features[:, :1], ("a",), annotated=annotated, patients=patients).coefficients
    standard = (features[:, :1] - features[:, :1].mean()) / features[:, :1].std()
    assert weight == pytest.approx(LogisticRegression().fit(standard, annotated).coef_[0, 0], rel=1e-3)
    assert 0.7 < found.separation < 0.95
    assert sum(b.n for b in found.reliability) == 300
    assert all(abs(b.predicted - b.observed) < 0.25 for b in found.reliability)


def test_two_telling_features_are_weighed_as_scikit_learn_does(examples):
    features, annotated, patients = examples
    features = features.copy()
    features[:, 1] = 3 * annotated + features[:, 1] / 50  # positive in annotated components, and more so
    found = fit_likeness(features, ("a", "b"), annotated=annotated, patients=patients)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    expected = LogisticRegression(tol=1e-8).fit(standard, annotated).coef_[0]
    assert [weight for _, weight in found.coefficients] == pytest.approx(expected, rel=1e-3)


def test_no_feature_counts_against_a_component_for_being_like_annotated_ones():
    """Annotated lesions are dark, the missed ones darker still: darkness may not make a missed lesion improbable."""
    rng = np.random.default_rng(0)
    annotated = np.arange(200) < 100
    contrast = np.where(annotated, -5.0, -9.0) + rng.normal(0, 1, 200)
    sure = annotated + rng.normal(0, 1, 200) + 3
    found = fit_likeness(
        np.column_stack([sure, contrast]), ("sure", "contrast"), annotated=annotated, patients=np.arange(200) % 10
    )
    weights = dict(found.coefficients)
    assert weights["contrast"] == 0
    assert weights["sure"] > 0
    # Where annotated lesions are darker than the rest, darkness speaks for a lesion.
    found = fit_likeness(
        np.column_stack([sure, contrast + 8 * ~annotated]),
        ("a", "b"),
        annotated=annotated,
        patients=np.arange(200) % 10,
    )
    assert found.coefficients[1][1] < 0


def test_a_feature_that_never_varies_is_harmless(examples):
    features, annotated, patients = examples
    constant = np.column_stack([features[:, 0], np.ones(300)])
    found = fit_likeness(constant, ("a", "b"), annotated=annotated, patients=patients)
    assert found.probability == pytest.approx(
        fit_likeness(features[:, :1], ("a",), annotated=annotated, patients=patients).probability
    )


def test_calibration_bins():
    bins = reliability(np.array([0.9, 0.1, 0.2, 0.8]), np.array([True, False, True, True]), n_bins=2)
    assert [(b.predicted, b.observed, b.n) for b in bins] == [
        (pytest.approx(0.15), 0.5, 2),
        (pytest.approx(0.85), 1.0, 2),
    ]


def test_too_few_of_either_or_of_patients():
    few = np.arange(100) < LEAST_EXAMPLES - 1
    assert why_no_model(annotated=few, patients=np.arange(100)) == (
        "there are 19 annotated lesions that are found and 81 candidates; a model needs 20 of each"
    )
    enough = np.arange(100) < 50
    assert why_no_model(enough, np.arange(100) % 4) == (
        "annotated lesions and candidates must lie in at least 5 patients each"
    )
    assert why_no_model(enough, np.arange(100) % 5) == ""
    with pytest.raises(ValueError, match="20 of each"):
        fit_likeness(np.zeros((100, 1)), ("a",), annotated=few, patients=np.arange(100))


def test_elkan_and_noto_on_a_population_that_is_known():
    # Half of 2000 examples with x = 1 are lesions, none of the 2000 with x = 0; 40 % of the lesions are annotated.
    lesions, labelled = 1000, 400
    g_one = labelled / 2000
    unexplained_one = 2000 - labelled
    share = (lesions - labelled) / (unexplained_one + 2000)
    found = missed_probability(np.array([g_one]), labelled, unexplained_one + 2000, share)
    assert found[0] == pytest.approx((lesions - labelled) / unexplained_one)


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1 - 1e-6), min_size=1, max_size=20), st.floats(0, 1))
def test_probabilities_stay_probabilities_and_keep_the_order(probability, share):
    probability = np.sort(probability)
    found = missed_probability(probability, 30, 40, share)
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()
