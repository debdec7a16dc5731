"""Rankings against the truth."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from nnunet_lopsided.audit.score_writing import score_figure
from nnunet_lopsided.audit.scoring import random_order, reviewed_numbers, score_ranking


def test_by_hand():
    # Of three missed lesions, the second is hit twice and the third never.
    score = score_ranking("x", np.array([2, 0, 2, 1, 0]), np.array([5.0, 4, 3, 2, 1]), n_missed=3)
    assert score.n_hits == 3
    assert score.precision == pytest.approx([1, 1 / 2, 2 / 3, 3 / 4, 3 / 5])
    assert score.share_found == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    # The second hit on lesion 2 is left out: precisions 1 and 2/3 at the two rises.
    assert score.average_precision == pytest.approx((1 + 2 / 3) / 3)
    assert vars(score.after(4)) == {"n": 4, "precision": 0.75, "share_found": pytest.approx(2 / 3)}
    assert score.after(100).n == 5


def test_without_candidates_or_lesions():
    nothing = score_ranking("x", np.zeros(0, int), np.zeros(0), n_missed=2)
    assert vars(nothing.after(10)) == {"n": 0, "precision": None, "share_found": 0.0}
    assert nothing.average_precision == 0
    no_lesions = score_ranking("x", np.zeros(3, int), np.array([3.0, 2, 1]), n_missed=0)
    assert no_lesions.average_precision is None
    assert no_lesions.after(2).share_found is None
    assert random_order(np.zeros(0, int), 0).after(5).n == 0


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any))
def test_area_as_scikit_learn_has_it_where_every_lesion_is_hit_once(hits):
    lesion = np.cumsum(hits) * np.array(hits)
    score = np.arange(len(hits), 0, -1, dtype=np.float64)
    found = score_ranking("x", lesion, score, n_missed=sum(hits))
    assert found.average_precision == pytest.approx(average_precision_score(hits, score))


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_random_order_is_the_mean_over_all_orders(lesion):
    orders = list(permutations(lesion))
    scores = [
        score_ranking("x", np.array(order), np.arange(len(lesion), 0, -1, dtype=np.float64), 4) for order in orders
    ]
    expected = random_order(np.array(lesion), 4)
    assert expected.share_found == pytest.approx(np.mean([s.share_found for s in scores], axis=0))
    assert expected.precision == pytest.approx(np.mean([s.precision for s in scores], axis=0))


def test_where_a_ranking_is_read():
    assert list(reviewed_numbers(30)) == [10, 30, 50, 60, 100]
    assert list(reviewed_numbers(0)) == [10, 50, 100]


def test_the_picture_of_a_score():
    lesion = np.array([2, 0, 2, 1, 0])
    scores = [score_ranking("of it", lesion, np.array([5.0, 4, 3, 2, 1]), n_missed=4), random_order(lesion, 4)]
    curve, reviewed = score_figure(scores).axes
    assert (curve.get_xlabel(), curve.get_ylabel()) == ("missed lesions found", "precision")
    assert (reviewed.get_xlabel(), reviewed.get_ylabel()) == ("candidates reviewed", "missed lesions found")
    # Of four missed lesions the first, third and fourth candidate find two.
    of_it, by_chance = reviewed.lines[:2]
    assert np.asarray(of_it.get_xydata()).tolist() == [[1, 0.25], [2, 0.25], [3, 0.25], [4, 0.5], [5, 0.5]]
    assert [line.get_linestyle() for line in (of_it, by_chance)] == ["-", "--"]
    assert [line.get_label() for line in (of_it, by_chance)] == ["of it", "random order"]
    assert np.asarray(reviewed.lines[2].get_xdata()).tolist() == [4, 4]
    steps = np.asarray(curve.lines[0].get_xydata()).round(3).tolist()
    assert steps == [[0, 1], [0.25, 1], [0.25, 0.5], [0.25, 0.667], [0.5, 0.75], [0.5, 0.6]]
