"""Which number stands where on the page of an evaluation. All values are asymmetric, so that nothing can be swapped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case
from nnunet_lopsided.evaluation.report.evaluation_page import Card, _at_rates, _by_threshold, _cards, _share
from nnunet_lopsided.evaluation.report.findings import candidate_table, case_table, lesion_table
from nnunet_lopsided.evaluation.report.numbers import confidence_table, intervals_of
from nnunet_lopsided.pages.pictures import finite

METRICS = {
    "map": 0.61,
    "map_ci95_hanley_mcneil": [0.52, 0.67],
    "map_ci95_bootstrap": [0.43, 0.78],
    "max_sensitivity": 0.7,
    "precision_at_max_sensitivity": 0.35,
    "false_positives_per_case": 2.5,
    "tp_dice": None,
    "f1": 0.47,
    "lesion_wise_dice": 0.28,
    "map_by_confidence": {"mean": 0.61, "max": 0.64, "sum": None},
}
CONTENT: Any = {
    "metrics": METRICS,
    "undefined": {"false_positives_per_case_bootstrap_ci95": "few patients", "map_by_confidence.sum": "no sums"},
    "counts": {"reference_lesions": 10, "missed_lesions": 3},
    "details": {"missed_but_covered": 2},
    "settings": {"bootstrap_unit": "patient", "confidence": "max"},
    "intervals": {
        "max_sensitivity_bootstrap_ci95": [0.55, 0.82],
        "max_sensitivity_wilson_ci95": [0.4, 0.89],
        "patient_sensitivity_wilson_ci95": [0.5, 0.95],
        "precision_at_max_sensitivity_bootstrap_ci95": [0.2, 0.5],
        "false_positives_per_case_bootstrap_ci95": None,
    },
    "sensitivity_at_fp_per_case": [
        {"fp_per_case": 0.25, "sensitivity": 0.3, "threshold": 0.8125, "sensitivity_ci95_bootstrap": [0.1, 0.45]},
        {"fp_per_case": 4.0, "sensitivity": 0.7, "threshold": None, "sensitivity_ci95_bootstrap": None},
    ],
    "by_threshold": [
        {"threshold": 0.1, "metrics": METRICS, "counts": {"true_positives": 7, "false_positives": 5}},
    ],
}


def test_the_cards() -> None:
    assert _cards(CONTENT) == [
        Card("7 / 10", "lesions detected", "2 of the missed lie at least half under a candidate"),
        Card("0.610", "average precision (mAP)", "0.43 to 0.78"),
        Card("0.700", "max sensitivity", "0.55 to 0.82"),
        Card("0.350", "precision", "0.20 to 0.50"),
        Card("2.500", "false positives per case", "no interval: few patients"),
        Card("undefined", "Dice of true positives", ""),
    ]


def test_how_an_interval_was_made() -> None:
    assert [(i.method, i.ends) for i in intervals_of(CONTENT, "map")] == [
        ("bootstrap over patients", [0.43, 0.78]),
        ("Hanley-McNeil, lesions taken as independent: held the truth in 80% of simulations", [0.52, 0.67]),
    ]
    assert [(i.method, i.ends) for i in intervals_of(CONTENT, "max_sensitivity")] == [
        ("bootstrap over patients", [0.55, 0.82]),
        ("Wilson, lesions taken as independent: in 85%", [0.4, 0.89]),
    ]
    # Patients are independent.
    assert [(i.method, i.ends) for i in intervals_of(CONTENT, "patient_sensitivity")] == [("Wilson", [0.5, 0.95])]


def test_sensitivity_at_false_positives() -> None:
    table = _at_rates(CONTENT)
    assert table is not None
    assert table.header[-1] == "confidence (max) of at least"
    assert table.rows == [("0.25", "0.300", "0.100 to 0.450", "0.812"), ("4", "0.700", "", "")]


def test_thresholds() -> None:
    table = _by_threshold(CONTENT)
    assert table is not None
    assert table.rows == [("0.1", "0.610", "0.700", "0.350", "2.500", "undefined", "0.470", "0.280", "7", "5")]


def test_confidences() -> None:
    rows = [(name, value, str(mark)) for name, _, value, mark in confidence_table(CONTENT).rows]
    assert rows == [
        ("<code>mean</code>", "0.610", "the paper's"),
        ("<code>max</code>", "0.640", "this page"),
        ("<code>sum</code>", "undefined", '<span class="why">no sums</span>'),
    ]


def test_shares_of_a_group() -> None:
    group: Any = {
        "lesions": 8,
        "detected": 2,
        "sensitivity": 0.25,
        "sensitivity_ci95_wilson": [0.07, 0.59],
        "sensitivity_ci95_bootstrap": [0.11, 0.44],
    }
    assert _share(group, None) == ("2 / 8", "0.250", "0.070 to 0.590", "0.110 to 0.440")
    some: Any = {**group, "sensitivity_ci95_bootstrap": None}
    assert _share(some, "of this row")[3] == '<span class="why">of this row</span>'
    no_lesion: Any = {**some, "lesions": 0, "detected": 0, "sensitivity": None}
    none = _share(no_lesion, "of this row")
    assert (none[0], none[3]) == ("0 / 0", "")


def test_lesions_candidates_and_cases() -> None:
    reference, probability = np.zeros((5, 9, 14), bool), np.zeros((5, 9, 14))
    reference[1, 2:4, 3:7] = reference[3, 6, 9] = reference[4, 0, 12] = reference[0, 8, 1] = True
    probability[1, 2:4, 3:6] = 0.75  # 6 of 8 voxels: Dice 12 / 14
    probability[3, 6, 9] = 0.5
    probability[4, 4, 5] = 0.25
    case = evaluate_case(reference, probability, (1, 1, 1), rules=EvaluationRules(), case="a")
    lesions = lesion_table([case], {"a": "a"})
    assert lesions.header[-1] == "voxel (x, y, z)"
    assert {(row[2], *row[4:]) for row in lesions.rows} == {
        ("missed", "", "", "0.000", "12, 0, 4"),
        ("missed", "", "", "0.000", "1, 8, 0"),
        ("detected", "0.750", "0.857", "0.562", "4, 2, 1"),
        ("detected", "0.500", "1.000", "0.500", "9, 6, 3"),
    }
    assert [row[2:] for row in candidate_table([case], {"a": "a"}).rows] == [
        ("false positive", "1.2", "0.250", "0", "5, 4, 4")
    ]
    one_more = case_table([case], {"a": "a"}).rows
    assert one_more == [("a", "4", "2", "2", "1", "0")]


def test_detected_and_missed_of_a_case() -> None:
    reference, probability = np.zeros((1, 20), bool), np.zeros((1, 20))
    reference[0, [1, 5, 9, 13]] = True
    probability[0, 5] = 0.5
    probability[0, [17, 19]] = 0.25
    case = evaluate_case(reference, probability, (1, 1), case="a")
    assert case_table([case], {"a": "a"}).rows == [("a", "4", "1", "3", "2", "0")]


@pytest.mark.parametrize("unknown", [np.nan, np.inf, -np.inf])
def test_unknown_values_are_as_dark_as_the_darkest(unknown: float) -> None:
    assert finite(np.array([[unknown, 3.0], [7.0, 5.0]])).tolist() == [[3, 3], [7, 5]]
