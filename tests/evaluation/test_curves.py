"""nnunet_lopsided.evaluation.curves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.evaluation.curves import (
    average_precision,
    average_recall,
    operating_points,
    sensitivity_at,
)

NONE = np.zeros(0)


def points(true, false, n_lesions, n_cases=1):
    true, false = np.array(true, float), np.array(false, float)
    return operating_points(
        lesion_confidence=true, true_confidence=true, false_confidence=false, n_lesions=n_lesions, n_cases=n_cases
    )


def test_by_hand():
    p = points([0.9, 0.7], [0.8, 0.1], n_lesions=4, n_cases=2)
    assert p.threshold.tolist() == [0.9, 0.8, 0.7, 0.1]
    assert p.sensitivity.tolist() == [0.25, 0.25, 0.5, 0.5]
    assert p.precision.tolist() == [1.0, 0.5, 2 / 3, 0.5]
    assert p.false_positives_per_case.tolist() == [0.0, 0.5, 0.5, 1.0]
    assert average_precision(p) == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)


def test_two_perfect_detections():
    assert average_precision(points([0.9, 0.8], [], 2)) == 1.0
    assert points([0.9, 0.8], [], 2).sensitivity.tolist() == [0.5, 1.0]


def test_equal_confidences_are_one_point_whatever_their_order():
    p = points([0.5] * 3, [0.5] * 3, n_lesions=3)
    assert (p.threshold.tolist(), p.n_true.tolist(), p.n_false.tolist()) == ([0.5], [3], [3])
    assert average_precision(p) == 0.5


def test_nothing_found_and_nothing_to_find():
    assert average_precision(points([], [], 2)) == 0.0
    assert average_precision(points([], [0.4], 2)) == 0.0
    assert average_precision(points([], [], 0)) is None
    assert average_precision(points([], [0.4], 0)) is None
    assert np.isnan(points([], [0.4], 0).sensitivity).all()


def test_duplicates_as_true_positives_raise_precision_only():
    p = operating_points(
        lesion_confidence=np.array([0.9]),
        true_confidence=np.array([0.9, 0.5]),
        false_confidence=np.array([0.9]),
        n_lesions=2,
        n_cases=1,
    )
    assert p.precision.tolist() == [0.5, 2 / 3]
    assert p.sensitivity.tolist() == [0.5, 0.5]


def test_average_recall_by_hand():
    # Two cases: sensitivity .25 from 0 false positives per case, .5 from .5 on, .75 from 3 on: (.5 * .25 + 2.5 * .5 +
    # 2 * .75) / 5; the last false positive, at 6 per case, does not matter.
    p = points([0.9, 0.7, 0.3], [0.8, 0.6, 0.6, 0.5, 0.5, 0.4, 0.2], n_lesions=4, n_cases=2)
    assert average_recall(p, 5) == pytest.approx((0.5 * 0.25 + 2.5 * 0.5 + 2 * 0.75) / 5)
    assert average_recall(p, 0.5) == 0.25
    assert average_recall(points([], [0.4], 0), 5) is None
    assert average_recall(points([], [], 3), 5) == 0.0
    assert average_recall(points([0.9], [], 1), 5) == 1.0


def test_sensitivity_at_false_positives_per_case():
    p = points([0.9, 0.7, 0.3], [0.8, 0.6, 0.6], n_lesions=4, n_cases=2)
    found = [(m.fp_per_case, m.sensitivity, m.threshold) for m in sensitivity_at(p, (0.25, 0.5, 1, 1.5, 100))]
    assert found == [(0.25, 0.25, 0.9), (0.5, 0.5, 0.7), (1, 0.5, 0.7), (1.5, 0.75, 0.3), (100, 0.75, 0.3)]
    assert [m.threshold for m in sensitivity_at(points([0.5], [0.9], 1), (0.5, 1))] == [None, 0.5]
    # The strictest of the thresholds that find as much: the false positive at .8 is for nothing.
    assert [m.threshold for m in sensitivity_at(points([0.9], [0.8], 1), (1,))] == [0.9]
    assert sensitivity_at(points([], [0.4], 0), (1,)) == ()
    # A false positive of the same confidence comes with the detection: it cannot be had without.
    assert [m.sensitivity for m in sensitivity_at(points([0.5], [0.5], 1), (0.5, 1))] == [0.0, 1.0]


def test_corners_keep_both_ends_of_a_straight_run():
    p = points([0.9, 0.3], [0.8, 0.7, 0.6, 0.5, 0.4, 0.2], n_lesions=2).corners()
    assert p.threshold.tolist() == [0.9, 0.4, 0.3, 0.2]
    assert p.n_false.tolist() == [0, 5, 5, 6]
    assert len(points([], [], 1).corners().threshold) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=40))
def test_agrees_with_scikit_learn_when_every_lesion_is_detected(candidates):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = np.array([c / 10 for c, _ in candidates]), np.array([label for _, label in candidates])
    if not labels.any():
        return
    p = points(scores[labels], scores[~labels], n_lesions=int(labels.sum()))
    assert average_precision(p) == pytest.approx(metrics.average_precision_score(labels, scores))
    # Missed lesions only stretch the recall axis.
    missed = points(scores[labels], scores[~labels], n_lesions=2 * int(labels.sum()))
    assert average_precision(missed) == pytest.approx(metrics.average_precision_score(labels, scores) / 2)
    # The thinned curve has the same area.
    assert average_precision(p.corners()) == pytest.approx(average_precision(p))
