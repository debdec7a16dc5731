"""Whether the audited models are good enough for a miss rate to be printed."""

import numpy as np
import pytest

from nnunet_lopsided.audit.detector import Detector, measure_detector, why_withheld


def detector(**changed):
    numbers = {"n_annotated": 40, "n_found": 36, "n_candidates": 60, "n_cases": 10, "average_precision": 0.45}
    return Detector(**numbers | changed)


def test_the_numbers_by_hand():
    """Annotated lesions at ranks 1, 3 and 4 of five components, and one that is not found."""
    found = measure_detector(np.array([0.9, 0.7, 0.6]), np.array([0.8, 0.1]), n_annotated=4, n_cases=2)
    assert (found.n_found, found.n_candidates, found.sensitivity) == (3, 2, 0.75)
    assert found.false_positives_per_case == 1
    assert found.average_precision == pytest.approx((1 + 2 / 3 + 3 / 4) / 4)


def test_without_annotated_lesions():
    nothing = measure_detector(np.zeros(0), np.array([0.8]), n_annotated=0, n_cases=2)
    assert (nothing.sensitivity, nothing.average_precision) == (None, None)
    assert why_withheld(nothing, None) == "there are no annotated lesions to measure the models on"


def test_good_models_are_let_through():
    assert why_withheld(detector(), 0.5) == ""
    assert why_withheld(detector(), None) == ""
    assert why_withheld(detector(n_found=20, average_precision=0.15), 0.5) == ""


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"n_found": 19}, "they find 0.47 of them, at least 0.5 is needed"),
        ({"average_precision": 0.08}, "their average precision is 0.08, at least 0.15 is needed"),
        (
            {"n_found": 19, "average_precision": 0.08},
            "they find 0.47 of them, at least 0.5 is needed; their average precision is 0.08, at least 0.15 is needed",
        ),
    ],
)
def test_weak_models_are_not(changed, reason):
    assert why_withheld(detector(**changed), 0.5) == (
        f"on annotated lesions out of fold the models are too weak ({reason}), so false positives would be taken for "
        "missed lesions: train longer, or on more patients, and audit again"
    )


def test_a_rate_that_contradicts_the_average_precision():
    """36 of 40 found and half missed: at most 0.45; 0.1 more than that is chance."""
    assert why_withheld(detector(average_precision=0.55), 0.5) == ""
    assert why_withheld(detector(average_precision=0.56), 0.5).startswith(
        "with an estimated miss rate of 0.50 the average precision could be 0.45 at most, but it is 0.56, so "
    )


def test_where_the_maximum_is_low_a_quarter_more_of_it_contradicts():
    """As on MRI of two patients, whose labels were whole: at most .19, and .27 is not within chance."""
    weak = {"n_annotated": 36, "n_found": 27, "n_candidates": 1424}
    assert "the average precision could be 0.19 at most, but it is 0.27" in why_withheld(
        detector(average_precision=0.269, **weak), 0.747
    )
    assert why_withheld(detector(average_precision=0.23, **weak), 0.747) == ""


def test_simulated_data_sets_of_good_and_of_weak_models():
    """Half of the lesions is missed. Weak models: false positives that score as lesions do, many more than lesions."""
    rng = np.random.default_rng(3)
    for shift, n_false, withheld in ((5, 200, False), (1, 4000, True)):
        annotated, missed = rng.normal(shift, 1, (2, 100))
        candidates = np.concatenate([missed, rng.normal(0, 1, n_false)])
        measured = measure_detector(annotated, candidates, 100, 20)
        assert bool(why_withheld(measured, 0.5)) == withheld
