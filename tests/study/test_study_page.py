"""nnunet_lopsided.study.study_page: which number stands where, from values of which no two are alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from nnunet_lopsided.evaluation.report.numbers import title_of
from nnunet_lopsided.study.results import CONFIDENCE_METRICS, FURTHER_METRICS, PAPER_METRICS, Results
from nnunet_lopsided.study.study_page import _by_confidence, _commands, _diameters, _further, _histograms, _lines, _runs
from tests.pages.chart_reading import Drawn

NAMES = list(dict.fromkeys((*PAPER_METRICS, *FURTHER_METRICS, *CONFIDENCE_METRICS)))
VALUE = {name: 0.11 + 0.05 * i for i, name in enumerate(NAMES)}


def summary(first: int, second: int, detected: int) -> dict[str, Any]:
    """Voxels in the lower and the upper half of the probabilities, and how many of 8 lesions were found."""
    return {
        "metrics": {"map_ci95_hanley_mcneil": [0.31, 0.77], "lesion_entropy_bits": 0.5},
        "intervals": {},
        "undefined": {},
        "lesion_histogram": {"edges": [0, 0.5, 1], "counts": [first, second]},
        "by_diameter": [
            {"lower_mm": 0, "upper_mm": None, "lesions": 8, "detected": detected, "sensitivity_ci95_wilson": [0.2, 0.4]}
        ],
    }


def run(content: dict[str, Any], name: str = "r") -> Any:
    return SimpleNamespace(
        evaluation=SimpleNamespace(summary=content),
        run=SimpleNamespace(name=name),
        cases="test",
        training_seconds=5400.0,
        metric=lambda metric: VALUE[metric],
        interval=lambda metric: (VALUE[metric] - 0.1, VALUE[metric] + 0.2),
    )


def cell(arm: str, *runs: Any, labels: str = "full", scale: float = 1.0) -> Any:
    return SimpleNamespace(
        arm=arm,
        labels=labels,
        name=f"{labels}, {arm}",
        runs=runs,
        mean=lambda metric: scale * VALUE[metric],
        ends=lambda metric: ((scale * VALUE[metric] - 0.01, scale * VALUE[metric] + 0.02), ""),
    )


TWO = cell("plain", run(summary(1, 4, 2)), run(summary(4, 1, 6)))


def test_further_metrics_stand_under_their_titles() -> None:
    table = _further([TWO])
    (row,) = table.rows
    shown = dict(zip(table.header[2::2], zip(row[2::2], row[3::2], strict=True), strict=True))
    assert shown == {
        title_of(name): (f"{VALUE[name]:.3f}", f"{VALUE[name] - 0.01:.3f} to {VALUE[name] + 0.02:.3f}")
        for name in FURTHER_METRICS
    }


def test_precision_by_confidence_stands_under_its_title() -> None:
    table = _by_confidence([TWO])
    shown = dict(zip(table.header[2:], table.rows[0][2:], strict=True))
    assert shown == {title_of(name): f"{VALUE[name]:.3f}" for name in CONFIDENCE_METRICS}


def test_charts_of_certainty_and_size_are_of_the_first_run() -> None:
    ((histogram, name),) = _histograms([TWO])
    assert name == "full, plain"
    assert Drawn(histogram.svg, (0, 1), (0, 0.84)).bars() == [(0, 0.5, 0.2), (0.5, 1, 0.8)]
    other = cell("other", run(summary(1, 1, 6)))
    ((bars, labels, arms),) = _diameters([TWO, other])
    assert (labels, arms) == ("full", ["plain", "other"])
    drawn = Drawn(bars.svg, (-0.6, 0.6), (0, 1.14))
    assert [round(height, 2) for k in ("k0", "k1") for _, _, height in drawn.bars(k)] == [0.25, 0.75]


def test_each_metric_of_the_paper_has_a_chart_of_its_own() -> None:
    cells = [cell("plain", run({})), cell("plain", run({}), labels="size50", scale=0.5)]
    charts = _lines(cells, ["plain"], {"full": 0.0, "size50": 0.5}, "share missing")
    for chart, name in zip(charts, PAPER_METRICS, strict=True):
        drawn = Drawn(chart.svg, (-0.02 * 0.525, 0.525), (0, 1.05))  # one scale for all, whatever their points
        assert drawn.axis_names() == ("share missing", title_of(name))
        (line,) = drawn.points("curve")
        expected = [(0, VALUE[name]), (0.5, VALUE[name] / 2)]
        assert all(abs(a - b) < 0.006 for p, q in zip(line, expected, strict=True) for a, b in zip(p, q, strict=True))


def test_every_run_in_hours() -> None:
    table = _runs(cast(Results, SimpleNamespace(evaluated=[run(summary(1, 4, 2), "mets-full-plain-r1")])))
    assert table is not None
    shown = dict(zip(table.header, table.rows[0], strict=False))
    assert (shown["run"], shown["cases"], shown["training, h"]) == ("mets-full-plain-r1", "test", "1.500")
    assert shown["mAP, Hanley-McNeil"] == "0.310 to 0.770"
    cells = table.rows[0][2:-2]
    assert [float(value) for value in cells[::2]] == [round(VALUE[name], 3) for name in PAPER_METRICS]
    assert cells[1::2] == [f"{VALUE[name] - 0.1:.3f} to {VALUE[name] + 0.2:.3f}" for name in PAPER_METRICS]


def test_every_job_in_seconds() -> None:
    jobs = [
        SimpleNamespace(name="train/a", results="nnUNet_results", command=["nnUNetv2_train", "800", "a b"]),
        SimpleNamespace(name="train/b", results="nnUNet_results/repetition_2", command=["nnUNetv2_train", "801"]),
    ]
    records = {"train/a": {"seconds": 7321.4}, "train/b": None}
    results: Any = SimpleNamespace(
        jobs=jobs, states={"train/a": "done", "train/b": "waiting"}, folder=SimpleNamespace(record=records.get)
    )
    assert _commands(results).rows == [
        ("<code>nnUNetv2_train 800 &#39;a b&#39;</code>", "done", "7321"),
        ("<code>nnUNet_results=nnUNet_results/repetition_2 nnUNetv2_train 801</code>", "waiting", ""),
    ]
