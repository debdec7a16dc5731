"""One candidate to one lesion, and a least overlap."""

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, profile_rules
from nnunet_lopsided.evaluation.matching import Status

RULES = EvaluationRules(match="overlap", one_to_one=True)


def line(*ranges, value=True, n=40):
    mask = np.zeros((1, 1, n), np.float64 if value is not True else bool)
    for low, high in ranges:
        mask[0, 0, low:high] = value
    return mask


def test_a_candidate_over_two_lesions_detects_the_larger_share():
    reference, p = line((0, 4), (6, 8)), line((0, 8), value=0.5)
    case = evaluate_case(reference, p, (1, 1, 1), RULES)
    assert (case.detected.tolist(), case.covered_by.tolist()) == ([True, False], [0, 1])
    assert case.matches.dice[0] == pytest.approx(2 * 4 / 12)
    assert evaluate_case(reference, p, (1, 1, 1), EvaluationRules(match="overlap")).detected.tolist() == [True, True]


def test_further_candidates_of_a_lesion_are_false():
    case = evaluate_case(line((0, 9)), line((0, 3), (4, 9), value=0.5), (1, 1, 1), RULES)
    assert case.matches.status.tolist() == [Status.FALSE_POSITIVE, Status.TRUE_POSITIVE]


def test_the_sum_of_dice_decides_not_the_best_pair():
    """The best pair is candidate 2 with lesion 1 (12 / 22), which would leave candidate 1 and lesion 2 alone."""
    reference, p = np.zeros((3, 12), bool), np.zeros((3, 12))
    reference[0, 0:10] = reference[2, 0:10] = True
    p[0, 0:3] = 0.5  # candidate 1, on lesion 1: 2 * 3 / 13
    p[0, 4:10] = p[1, 5] = p[2, 5:10] = 0.5  # candidate 2, on lesion 1 and on lesion 2: 2 * 5 / 22
    case = evaluate_case(reference, p, (1, 1), RULES)
    assert case.matches.candidate_of_lesion.tolist() == [1, 2]
    assert case.matches.dice.tolist() == pytest.approx([6 / 13, 10 / 22])


def test_least_overlap():
    reference, p = line((0, 4)), line((2, 8), value=0.5)  # 2 of a union of 8
    for least, found in ((0.25, True), (0.26, False)):
        rules = EvaluationRules(match="overlap", min_iou=least)
        assert evaluate_case(reference, p, (1, 1, 1), rules).detected.tolist() == [found]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"one_to_one": True}, "need match overlap"),
        ({"min_iou": 0.5, "match": "overlap", "dilation_voxels": 1}, "without dilation"),
        ({"min_iou": 1.5, "match": "overlap"}, r"within \[0, 1\], got 1.5"),
        ({"candidates": "nested"}, "candidates must be one of threshold, dynamic"),
    ],
)
def test_rules_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        EvaluationRules(**changes)


def test_profiles_by_their_names():
    letter = profile_rules("paper-letter")
    assert (letter.distance, letter.duplicates, letter.changes) == ("center", "tp", {})
    assert letter.match_in_words == "centroid within 1 mm of a voxel's centre"
    assert profile_rules("brats-mets-2025").match_in_words == "overlap, one to one"
    with pytest.raises(InputError, match="profile brats-mets is now called brats-mets-2023"):
        profile_rules("brats-mets")
