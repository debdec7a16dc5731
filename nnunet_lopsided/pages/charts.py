"""The charts of an evaluation, from the content of summary.json; several evaluations share a chart in a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from nnunet_lopsided.pages.html import data_block
from nnunet_lopsided.pages.svg import Plot, say, steps, text, whisker

# More points than pixels only make the page larger; summary.json has them all.
MAX_POINTS = 1500

Summaries = Mapping[str, Mapping[str, Any]]


def operating_curves(summary: Mapping[str, Any]) -> str:
    """Precision-recall and FROC with one operating point that the reader moves through both."""
    pr, froc = summary["curves"]["pr"], summary["curves"]["froc"]
    why = summary["undefined"].get("map")
    plots = _pr_plot(summary["metrics"]["map"]), _froc_plot([froc] if froc else [])
    if why is not None or not pr["threshold"]:
        empty = [say(why or "there are no candidates")]
        return figures([plot.svg(empty) for plot in plots])
    keep = thinned(len(pr["threshold"]))
    recall, precision, fp = (
        [curve[name][i] for i in keep]
        for curve, name in ((pr, "recall"), (pr, "precision"), (froc, "false_positives_per_case"))
    )
    charts = [
        plots[0].svg([steps(plots[0], recall, precision, first="y")], curve="pr"),
        plots[1].svg([steps(plots[1], fp, recall, first="x")], curve="froc"),
    ]
    data = {
        "readings": [_reading(summary, i) for i in keep],
        "places": {
            "pr": [(plots[0].x(x), plots[0].y(y)) for x, y in zip(recall, precision, strict=True)],
            "froc": [(plots[1].x(x), plots[1].y(y)) for x, y in zip(fp, recall, strict=True)],
        },
    }
    slider = (
        '<div class="operating only-script"><label for="operating-point">accept candidates from a confidence '
        f"({escape(summary['settings']['confidence'])}) of</label>"
        '<input type="range" id="operating-point" min="0" max="0" value="0" step="1">'
        '<div class="reading" role="status"></div></div>'
        '<p class="why only-script">Move over a curve, or use the slider or the arrow keys.</p>'
    )
    return f'<div data-curves="curve-data">{figures(charts)}{slider}</div>{data_block("curve-data", data)}'


def _reading(summary: Mapping[str, Any], i: int) -> str:
    pr, froc = summary["curves"]["pr"], summary["curves"]["froc"]
    n_lesions = summary["counts"]["reference_lesions"]
    found = round(pr["recall"][i] * n_lesions)
    return (
        f"{pr['threshold'][i]:.3f} or more: sensitivity {pr['recall'][i]:.3f} ({found} of {n_lesions} lesions), "
        f"precision {pr['precision'][i]:.3f}, {froc['false_positives_per_case'][i]:.2f} false positives per case "
        f"({pr['false_positives'][i]} in all)"
    )


def compared_curves(summaries: Summaries) -> str:
    """The precision-recall and FROC curves of several evaluations, one colour and dash each."""
    curves = {
        name: s["curves"] for name, s in summaries.items() if s["curves"]["pr"] and s["metrics"]["map"] is not None
    }
    plots = _pr_plot(None), _froc_plot([curve["froc"] for curve in curves.values()])
    if not curves:
        return figures([plot.svg([say("no curve without probabilities and lesions")]) for plot in plots])
    inside: tuple[list[str], list[str]] = ([], [])
    for i, name in enumerate(summaries):
        if name not in curves or not curves[name]["pr"]["threshold"]:
            continue
        pr, froc = curves[name]["pr"], curves[name]["froc"]
        keep = thinned(len(pr["threshold"]))
        recall = [pr["recall"][k] for k in keep]
        inside[0].append(steps(plots[0], recall, [pr["precision"][k] for k in keep], "y", f"k{i % 4}"))
        fp = [froc["false_positives_per_case"][k] for k in keep]
        inside[1].append(steps(plots[1], fp, recall, "x", f"k{i % 4}"))
    return figures([plot.svg(lines) for plot, lines in zip(plots, inside, strict=True)])


def key(names: Sequence[str]) -> str:
    """Which colour and dash is which evaluation."""
    lines = [
        f'<svg class="chart" style="display:inline;width:34px" viewBox="0 0 34 10" aria-hidden="true">'
        f'<path class="curve k{i % 4}" d="M1 5h32"/></svg> {escape(name)}'
        for i, name in enumerate(names)
    ]
    return "<p>" + " &emsp; ".join(lines) + "</p>"


def sensitivity_by_diameter(summaries: Summaries) -> str:
    """Bars of the sensitivity by diameter with their Wilson intervals; one bar per evaluation and bin."""
    bins = [s["by_diameter"] for s in summaries.values()]
    n_bins, n_bars = len(bins[0]), len(bins)
    plot = Plot(
        "Sensitivity by diameter, 95% interval (Wilson)", "diameter of the lesion, mm", "sensitivity", n_bins, 1.0
    )
    ticks = [(k + 0.5, diameter_range(b["lower_mm"], b["upper_mm"])) for k, b in enumerate(bins[0])]
    width = 0.7 / n_bars
    inside = []
    for k in range(n_bins):
        for i, of_model in enumerate(bins):
            b = of_model[k]
            middle = k + 0.5 + (i - (n_bars - 1) / 2) * width
            left, right = plot.x(middle - width / 2), plot.x(middle + width / 2)
            if b["sensitivity"] is not None:
                top = plot.y(b["sensitivity"])
                inside.append(
                    f'<rect class="bar k{i % 4}" x="{left:g}" y="{top:g}" width="{right - left:g}" '
                    f'height="{plot.y(0) - top:g}"/>'
                )
                low, high = b["sensitivity_ci95_wilson"]
                inside.append(whisker(plot.x(middle), plot.y(low), plot.y(high)))
        share = f"{bins[0][k]['detected']}/{bins[0][k]['lesions']}" if n_bars == 1 else f"n={bins[0][k]['lesions']}"
        inside.append(text(plot.x(k + 0.5), plot.y(0) + 32, share, anchor="middle"))
    return plot.svg(inside, ticks)


def probability_histogram(summary: Mapping[str, Any]) -> str:
    """Which probabilities the voxels of the reference lesions were given, and the entropy of that."""
    histogram, entropy = summary.get("lesion_histogram"), summary["metrics"]["lesion_entropy_bits"]
    title = "Lesion voxels by probability" + ("" if entropy is None else f", entropy {entropy:.2f} bits")
    labels = title, "predicted probability", "share of lesion voxels"
    if not histogram or not sum(histogram["counts"]):
        return Plot(*labels).svg([say(summary["undefined"].get("lesion_entropy_bits", "there are no lesion voxels"))])
    edges, counts = histogram["edges"], histogram["counts"]
    shares = [count / sum(counts) for count in counts]
    plot = Plot(*labels, 1.0, max(shares) * 1.05)
    inside = [
        f'<rect class="bar" x="{plot.x(low):g}" y="{plot.y(share):g}" width="{plot.x(high) - plot.x(low):.1f}" '
        f'height="{plot.y(0) - plot.y(share):.1f}"/>'
        for low, high, share in zip(edges, edges[1:], shares, strict=False)
        if share
    ]
    return plot.svg(inside)


def lines_over(
    title: str, x_label: str, lines: Mapping[str, Sequence[tuple[float, float, tuple[float, float] | None]]]
) -> str:
    """A metric of several models over something that was varied, such as the number of patients.

    Args:
        title: of the chart, and of its axis.
        x_label: what was varied.
        lines: by model, ascending (x, value, interval or None); colours are those of :func:`key`.
    """
    points = [point for of_model in lines.values() for point in of_model]
    if not points:
        return Plot(title, x_label, title).svg([say("nothing evaluated yet")])
    places = sorted({x for x, _, _ in points})
    highest = max(max(value, ends[1] if ends else value) for _, value, ends in points)
    plot = Plot(title, x_label, title, max(places[-1] * 1.05, 1e-9), max(highest * 1.05, 1e-9))
    inside = []
    for i, of_model in enumerate(lines.values()):
        path = "L".join(f"{plot.x(x):g} {plot.y(value):g}" for x, value, _ in of_model)
        inside += [f'<path class="curve k{i % 4}" d="M{path}"/>'] if of_model else []
        for x, value, ends in of_model:
            inside.append(f'<circle class="bar k{i % 4}" cx="{plot.x(x):g}" cy="{plot.y(value):g}" r="4"/>')
            if ends is not None:
                inside.append(whisker(plot.x(x) + 3 * i, plot.y(ends[0]), plot.y(ends[1])))
    return plot.svg(inside, [(x, f"{x:g}") for x in places])


def figures(charts: Sequence[str]) -> str:
    """Charts side by side, below each other where there is no room."""
    return '<div class="charts">' + "".join(f"<figure>{chart}</figure>" for chart in charts) + "</div>"


def _pr_plot(area: float | None) -> Plot:
    title = "Precision and recall" + ("" if area is None else f", mAP {area:.3f}")
    return Plot(title, "recall (share of lesions found)", "precision (share of candidates that are lesions)")


def _froc_plot(curves: Sequence[Mapping[str, Any]]) -> Plot:
    most = max((max(c["false_positives_per_case"], default=0.0) for c in curves), default=0.0)
    return Plot("FROC", "false positives per case", "sensitivity (share of lesions found)", max(1.0, most * 1.03))


def thinned(n: int) -> list[int]:
    """Indices of at most :data:`MAX_POINTS` of ``n`` points, evenly spread, both ends included."""
    if n <= MAX_POINTS:
        return list(range(n))
    return sorted({round(i * (n - 1) / (MAX_POINTS - 1)) for i in range(MAX_POINTS)})


def diameter_range(lower: float, upper: float | None) -> str:
    """A bin as its ends; the last one is open."""
    return f"{lower:g}+" if upper is None else f"{lower:g}\u2013{upper:g}"
