"""The charts of pages, from the content of summary.json; several evaluations share a chart in a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nnunet_lopsided.evaluation.summary_json import SummaryContent, flat_metrics
from nnunet_lopsided.pages.charts import (
    Curve,
    RocCurve,
    SizeBin,
    draw_froc,
    draw_histogram,
    draw_precision_recall,
    draw_roc,
    draw_sensitivity_by_diameter,
    thinned,
)
from nnunet_lopsided.pages.html import data_block
from nnunet_lopsided.pages.rendering import Chart, chart


@dataclass(frozen=True)
class OperatingCurves:
    """Precision-recall and FROC with one operating point that the reader moves through both.

    Attributes:
        charts: both curves.
        data: for the page's script: what every operating point means, and where it lies; None: there is no curve.
    """

    charts: tuple[Chart, Chart]
    data: Markup | None


def operating_curves(content: SummaryContent) -> OperatingCurves:
    """The curves of one evaluation; the charts say why, where there is none."""
    curve, undefined = curve_in(content), content["undefined"].get("map")
    area = flat_metrics(content["metrics"])["map"]
    moves = undefined is None and curve is not None and len(curve.recall) > 0
    if curve is None or not moves:
        empty = (
            chart(lambda axes: draw_precision_recall(axes, [None], area, undefined)),
            chart(lambda axes: draw_froc(axes, [None], undefined)),
        )
        return OperatingCurves(empty, None)
    keep, drawn = thinned(len(curve.recall)), curve.thinned()
    precision_recall = chart(
        lambda axes: draw_precision_recall(axes, [drawn], area),
        marked=list(zip(drawn.recall, drawn.precision, strict=True)),
        curve="pr",
    )
    froc = chart(
        lambda axes: draw_froc(axes, [drawn]),
        marked=list(zip(drawn.false_positives_per_case, drawn.recall, strict=True)),
        curve="froc",
    )
    data = {
        "readings": _readings(content, curve, keep),
        "places": {"pr": precision_recall.places, "froc": froc.places},
    }
    return OperatingCurves((precision_recall, froc), data_block("curve-data", data))


def _readings(content: SummaryContent, curve: Curve, keep: Sequence[int]) -> list[str]:
    """What every shown operating point means."""
    pr, n_lesions = content["curves"]["pr"], content["counts"]["reference_lesions"]
    assert pr is not None, "there is a curve"
    return [
        f"{pr['threshold'][i]:.3f} or more: sensitivity {curve.recall[i]:.3f} "
        f"({round(curve.recall[i] * n_lesions)} of {n_lesions} lesions), precision {curve.precision[i]:.3f}, "
        f"{curve.false_positives_per_case[i]:.2f} false positives per case ({pr['false_positives'][i]} in all)"
        for i in keep
    ]


def compared_curves(contents: Mapping[str, SummaryContent]) -> tuple[Chart, Chart]:
    """The precision-recall and FROC curves of several evaluations by name, one colour and dash each."""
    curves = [_curve_to_compare(content) for content in contents.values()]
    # One model without a curve is left out; only without any there is nothing to draw.
    undefined = None if any(curves) else "no curve without probabilities and lesions"
    return (
        chart(lambda axes: draw_precision_recall(axes, curves, undefined=undefined)),
        chart(lambda axes: draw_froc(axes, curves, undefined)),
    )


def _curve_to_compare(content: SummaryContent) -> Curve | None:
    curve = curve_in(content)
    return None if curve is None or flat_metrics(content["metrics"])["map"] is None else curve.thinned()


def roc_charts(contents: Mapping[str, SummaryContent]) -> list[Chart]:
    """The ROC curves of patients of evaluations by name, in one chart; no chart where there is no curve."""
    curves = [_roc_in(content) for content in contents.values()]
    if not any(curves):
        return []
    area = flat_metrics(next(iter(contents.values()))["metrics"])["patient_auc"] if len(curves) == 1 else None
    return [chart(lambda axes: draw_roc(axes, curves, area))]


def _roc_in(content: SummaryContent) -> RocCurve | None:
    # Evaluations of older versions have none.
    roc = content["curves"].get("patient_roc")
    if roc is None:
        return None
    keep = thinned(len(roc["sensitivity"]))
    return RocCurve([roc["false_positive_rate"][i] for i in keep], [roc["sensitivity"][i] for i in keep])


def sensitivity_chart(contents: Mapping[str, SummaryContent]) -> Chart:
    """The sensitivity by diameter with its Wilson intervals; one bar per evaluation and bin."""
    evaluations = [bins_in(content) for content in contents.values()]
    return chart(lambda axes: draw_sensitivity_by_diameter(axes, evaluations))


def histogram_chart(content: SummaryContent) -> Chart:
    """Which probabilities the voxels of the reference lesions were given, and the entropy of that."""
    histogram, entropy = content["lesion_histogram"], flat_metrics(content["metrics"])["lesion_entropy_bits"]
    undefined = content["undefined"].get("lesion_entropy_bits")
    counts = [] if histogram is None else histogram["counts"]
    return chart(lambda axes: draw_histogram(axes, counts, entropy, undefined))


def curve_in(content: SummaryContent) -> Curve | None:
    """The curve of an evaluation; None for one without probabilities or lesions."""
    pr, froc = content["curves"]["pr"], content["curves"]["froc"]
    if pr is None or froc is None:
        return None
    recall = [value for value in pr["recall"] if value is not None]
    if len(recall) < len(pr["recall"]):  # without lesions there is no recall
        return None
    return Curve(recall, pr["precision"], froc["false_positives_per_case"])


def bins_in(content: SummaryContent) -> list[SizeBin]:
    """The lesions of an evaluation by diameter."""
    return [
        SizeBin(
            lower_mm=b["lower_mm"],
            upper_mm=b["upper_mm"],
            n_lesions=b["lesions"],
            n_detected=b["detected"],
            interval=None if (ends := b["sensitivity_ci95_wilson"]) is None else (ends[0], ends[1]),
        )
        for b in content["by_diameter"]
    ]
