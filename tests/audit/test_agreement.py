"""Kappa: by hand, from publications, and as scikit-learn computes it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from nnunet_lopsided.audit.agreement import UNDECIDED, agreeing_pairs, cohen_kappa, fleiss_kappa, measure_agreement

# Ten subjects, fourteen raters, five categories: the worked example printed wherever Fleiss' kappa is explained.
FOURTEEN_RATERS = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)


def test_fleiss_published_example():
    assert round(float(agreeing_pairs(FOURTEEN_RATERS).sum() / (10 * 14 * 13)), 3) == 0.378
    kappa = fleiss_kappa(agreeing_pairs(FOURTEEN_RATERS).sum(), FOURTEEN_RATERS.sum(axis=0), 14)
    assert round(float(kappa), 3) == 0.210


def test_the_published_example_by_its_decisions():
    """The same ratings, one column per rater: which rater said what does not matter."""
    rng = np.random.default_rng(0)
    decisions = np.array([rng.permutation(np.repeat(np.arange(5), row)) for row in FOURTEEN_RATERS])
    whole = measure_agreement(decisions, [f"p{i}" for i in range(10)], 200)[-1]
    assert whole.readers == tuple(range(14))
    assert (whole.n, round(whole.observed, 3), round(whole.kappa, 3)) == (10, 0.378, 0.210)
    assert whole.interval.low < whole.kappa < whole.interval.high


def test_two_readers_by_hand():
    """Eight candidates: 4 both accept, 2 both reject, 1 accept against reject, 1 reject against unsure.

    Observed 6/8. By chance: 5/8 x 4/8 accept, 3/8 x 3/8 reject, 0 x 1/8 unsure, together 29/64. (48 - 29) / (64 - 29).
    """
    decisions = np.array([[0, 0]] * 4 + [[1, 1]] * 2 + [[0, 1], [1, 2]])
    (pair,) = measure_agreement(decisions, list("abcdefgh"), 100)
    assert (pair.n, pair.observed) == (8, 0.75)
    assert pair.kappa == pytest.approx(19 / 35)


def test_candidates_that_one_has_not_read_do_not_count():
    decisions = np.array([[0, 0, 1], [1, 1, UNDECIDED], [0, UNDECIDED, 0], [1, 0, 1], [0, 0, 0]])
    found = {kappa.readers: kappa.n for kappa in measure_agreement(decisions, ["a"] * 5, 0)}
    assert found == {(0, 1): 4, (0, 2): 4, (1, 2): 3, (0, 1, 2): 3}


def test_what_is_undefined_says_why():
    (same,) = measure_agreement(np.zeros((9, 2), int), list("abcdefghi"), 100)
    assert (same.observed, same.kappa, same.interval.ends) == (1.0, None, None)
    assert same.undefined.startswith("all decisions are the same")
    (none,) = measure_agreement(np.array([[0, UNDECIDED], [UNDECIDED, 1]]), ["a", "b"], 100)
    assert (none.n, none.observed, none.kappa) == (0, None, None)
    (few,) = measure_agreement(np.array([[0, 0], [1, 0], [1, 1]]), ["a", "b", "c"], 100)
    assert few.interval.ends is None
    assert "at least 8 patients" in few.interval.undefined


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_cohen_as_scikit_learn_computes_it(pairs):
    decisions = np.array(pairs)
    (found,) = measure_agreement(decisions, [str(i) for i in range(len(pairs))], 0)
    if len(set(decisions.ravel().tolist())) == 1:
        assert found.kappa is None
    else:
        assert found.kappa == pytest.approx(cohen_kappa_score(*decisions.T), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=2, max_size=20))
def test_fleiss_by_counting_pairs(rows):
    decisions = np.array(rows)
    found = measure_agreement(decisions, ["a"] * len(rows), 0)[-1]
    equal = [a == b for row in rows for i, a in enumerate(row) for j, b in enumerate(row) if i != j]
    everything = decisions.ravel()
    expected = np.mean(everything[:, None] == everything[None])
    assert found.observed == pytest.approx(np.mean(equal))
    if expected == 1:
        assert found.kappa is None
    else:
        assert found.kappa == pytest.approx((np.mean(equal) - expected) / (1 - expected))


def test_the_bootstrap_draws_patients_and_repeats_by_its_seed():
    """All candidates of a patient alike: the interval is that of ten patients, not of a thousand candidates."""
    rng = np.random.default_rng(2)
    first = rng.integers(0, 2, 10)
    second = np.where(rng.random(10) < 0.3, 1 - first, first)
    once = np.stack([first, second], axis=1)
    many, patients = np.repeat(once, 100, axis=0), np.repeat([f"p{i}" for i in range(10)], 100).tolist()
    (one,), (hundred,) = (
        measure_agreement(once, [f"p{i}" for i in range(10)], 500, 7),
        measure_agreement(many, patients, 500, 7),
    )
    assert hundred.kappa == pytest.approx(one.kappa)
    assert hundred.interval.ends == pytest.approx(one.interval.ends)


def test_kappa_of_many_tables_at_once():
    tables = np.random.default_rng(0).integers(0, 9, (5, 4, 3, 3))
    assert cohen_kappa(tables).shape == (5, 4)
    assert cohen_kappa(tables)[2, 1] == pytest.approx(float(cohen_kappa(tables[2, 1])))
