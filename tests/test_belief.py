"""nnunet_lopsided.belief."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_lopsided.belief import base_score, belief, candidates_per_annotated, missed_per_annotated

LOW = np.linspace(0, 0.4, 300)  # false ones


def test_half_labels_give_one_missed_per_annotated():
    lesions = np.linspace(0.3, 1, 60)
    assert missed_per_annotated(lesions, np.concatenate([lesions, LOW])) == 1.0
    assert missed_per_annotated(np.repeat(lesions, 2), np.concatenate([lesions, LOW])) == 0.5
    assert missed_per_annotated(lesions, np.concatenate([lesions, lesions, LOW])) == 2.0


def test_whole_labels_give_none():
    lesions = np.linspace(0.3, 1, 60)
    assert missed_per_annotated(lesions, LOW) == 0.0
    assert belief(lesions, LOW, 0.0).tolist() == [0.0] * len(LOW)
    # Some false ones of every score: what is left is their share among the surest.
    false = np.concatenate([LOW, [0.97, 0.6]])
    assert missed_per_annotated(lesions, false) == pytest.approx(1 / 34)


def test_a_tail_of_too_few_tells_nothing():
    scores = np.linspace(0, 1, 19)
    assert missed_per_annotated(scores, LOW) is None
    assert missed_per_annotated(np.zeros(0), LOW, least_annotated=0) is None
    # The surest 19 have nothing unexplained beside them, the 20th has 40.
    assert missed_per_annotated(np.linspace(0.5, 1, 20), np.full(40, 0.5)) == 2.0


def test_candidates_for_each_annotated_lesion_by_hand():
    annotated = np.array([9, 6, 6, 2, 1.9])  # the median is 6: four reach a third of it
    assert candidates_per_annotated(annotated, np.array([30, 2, 1.9, 1.9])) == 2 / 4
    assert candidates_per_annotated(annotated, np.zeros(0)) == 0
    assert candidates_per_annotated(np.array([3]), np.full(7, 1)) == 7


def test_small_ones_that_were_missed_count_although_larger_score_higher():
    """Where no bound from the highest scores sees them."""
    large, small = np.linspace(6, 9, 40), np.linspace(3, 5, 40)
    assert missed_per_annotated(large, np.concatenate([small, LOW])) == 0
    assert candidates_per_annotated(large, np.concatenate([small, LOW])) == 1


def test_belief_finds_the_missed_among_the_false():
    rng = np.random.default_rng(0)
    lesions = rng.beta(8, 2, 2000)
    annotated = rng.random(2000) < 0.5
    false = rng.beta(2, 6, 3000)
    unexplained = np.concatenate([lesions[~annotated], false])
    rho = missed_per_annotated(lesions[annotated], unexplained)
    assert rho is not None
    assert 0.75 < rho < 1.1
    q = belief(lesions[annotated], unexplained, rho)
    of_lesions, of_false = q[: (~annotated).sum()], q[(~annotated).sum() :]
    assert of_lesions.mean() > 0.7
    assert of_false.mean() < 0.15
    assert q.sum() == pytest.approx((~annotated).sum(), rel=0.2)


def test_the_sum_breaks_ties():
    assert base_score(np.array([1, 1, 0.5]), np.array([2, 7, 99])).tolist() == [1, 2, 0]
    assert base_score(np.zeros(0), np.zeros(0)).tolist() == []


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_properties(annotated, unexplained):
    a, u = np.array(annotated), np.array(unexplained)
    rho = missed_per_annotated(a, u, least_annotated=1)
    assert rho is not None
    assert 0 <= rho <= len(u) / (a >= a.max()).sum()
    q = belief(a, u, rho)
    assert ((q >= 0) & (q <= 1)).all()
    order = np.argsort(u, kind="stable")
    assert (np.diff(q[order]) >= -1e-12).all()
    # Nothing is clipped: all that is missed is somewhere, but for what scores above everything unexplained.
    total, inside = belief(a, u, 1e-6).sum(), (a <= u.max()).sum()
    assert total == pytest.approx(1e-6 * inside, abs=1e-12)
