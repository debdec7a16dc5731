"""The page's and the file's charts show what summary.json and the summary say, and the same."""

from typing import Any

import numpy as np
import pytest

from nnunet_lopsided.evaluation.curves import OperatingPoints
from nnunet_lopsided.evaluation.report.figures import curve_of, size_bins
from nnunet_lopsided.evaluation.report.summary_charts import (
    bins_in,
    compared_curves,
    curve_in,
    histogram_chart,
    operating_curves,
    sensitivity_chart,
)
from nnunet_lopsided.evaluation.strata import DiameterBin
from nnunet_lopsided.pages.charts import MAX_POINTS
from tests.pages.chart_reading import Drawn

CONTENT: Any = {
    "metrics": {"map": 0.25, "lesion_entropy_bits": 0.72},
    "undefined": {},
    "counts": {"reference_lesions": 10},
    "settings": {"confidence": "mean"},
    "by_diameter": [
        {"lower_mm": 0, "upper_mm": 3, "lesions": 8, "detected": 2, "sensitivity_ci95_wilson": [0.07, 0.59]},
        {"lower_mm": 3, "upper_mm": None, "lesions": 0, "detected": 0, "sensitivity_ci95_wilson": None},
    ],
    "lesion_histogram": {"edges": [0, 0.5, 1], "counts": [1, 4]},
    "curves": {
        "pr": {"threshold": [0.9, 0.4], "recall": [0.1, 0.3], "precision": [1.0, 0.6], "false_positives": [0, 2]},
        "froc": {"threshold": [0.9, 0.4], "false_positives_per_case": [0.0, 0.5], "sensitivity": [0.1, 0.3]},
    },
}


def test_curves_of_the_page():
    shown = operating_curves(CONTENT)
    pr, froc = Drawn(shown.charts[0].svg, (0, 1.02), (0, 1.04)), Drawn(shown.charts[1].svg, (0, 1), (0, 1.04))
    assert pr.points("curve") == [[(0, 1), (0, 1), (0.1, 1), (0.1, 0.6), (0.3, 0.6)]]
    assert froc.points("curve") == [[(0, 0), (0, 0), (0, 0.1), (0.5, 0.1), (0.5, 0.3)]]
    assert [pr.data(place) for place in shown.charts[0].places] == [(0.1, 1), (0.3, 0.6)]
    assert [froc.data(place) for place in shown.charts[1].places] == [(0, 0.1), (0.5, 0.3)]
    assert "0.400 or more: sensitivity 0.300 (3 of 10 lesions), precision 0.600, 0.50 false positives" in shown.data


def test_bars_and_histogram_of_the_page():
    drawn = Drawn(sensitivity_chart({"": CONTENT}).svg, (-0.6, 1.6), (0, 1.14))
    assert drawn.bars() == [(-0.35, 0.35, 0.25)]
    assert drawn.whiskers() == [(0, 0.07, 0.59)]
    assert "2/8" in drawn.texts()
    histogram = Drawn(histogram_chart(CONTENT).svg, (0, 1), (0, 0.84))
    assert histogram.bars() == [(0, 0.5, 0.2), (0.5, 1, 0.8)]


def test_an_evaluation_without_lesions_has_no_curve():
    pr = {**CONTENT["curves"]["pr"], "recall": [None, None]}
    without: Any = {**CONTENT, "curves": {**CONTENT["curves"], "pr": pr}, "undefined": {"map": "there are no lesions"}}
    assert curve_in(without) is None
    shown = operating_curves(without)
    assert shown.data is None
    assert all("there are no lesions" in chart.svg for chart in shown.charts)
    both = compared_curves({"a": without, "b": CONTENT})
    drawn = Drawn(both[0].svg, (0, 1.02), (0, 1.04))
    assert (drawn.points("curve", "k0"), drawn.points("curve", "k1")[0][-1]) == ([], (0.3, 0.6))


def test_the_file_shows_the_same():
    points = OperatingPoints(
        threshold=np.array([0.9, 0.4]),
        n_detected=np.array([1, 3]),
        n_true=np.array([1, 3]),
        n_false=np.array([0, 2]),
        n_lesions=10,
        n_cases=4,
    )
    of_file, of_page = curve_of(points), curve_in(CONTENT)
    for name in ("recall", "precision", "false_positives_per_case"):
        assert list(getattr(of_file, name)) == list(getattr(of_page, name)), name
    assert curve_of(None) is None
    (shown,) = size_bins([DiameterBin(lower_mm=0, upper_mm=3, n_lesions=8, n_detected=2)])
    expected = bins_in(CONTENT)[0]
    for one in (shown, expected):
        assert (one.n_lesions, one.n_detected, one.sensitivity) == (8, 2, 0.25)
    assert shown.interval == pytest.approx(expected.interval, abs=0.005)


def test_a_long_curve_is_thinned_and_its_readings_with_it():
    n = 2 * MAX_POINTS
    recall = [i / n for i in range(n)]
    pr = {"threshold": recall[::-1], "recall": recall, "precision": recall, "false_positives": list(range(n))}
    froc = {"threshold": recall[::-1], "false_positives_per_case": recall, "sensitivity": recall}
    content: Any = {**CONTENT, "curves": {"pr": pr, "froc": froc}}
    shown = operating_curves(content)
    assert len(shown.charts[0].places) == len(shown.charts[1].places) == MAX_POINTS
    assert f"({n - 1} in all)" in shown.data
