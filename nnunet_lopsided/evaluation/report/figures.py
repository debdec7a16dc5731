"""Precision-recall, FROC and sensitivity by diameter in one figure, the same bytes for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.curves import OperatingPoints
from nnunet_lopsided.evaluation.strata import DiameterBin
from nnunet_lopsided.evaluation.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY = "#2563a8", "#6b7280"
# hashsalt: without it every SVG gets random element ids. DejaVu Sans comes with matplotlib, so every machine has it.
STYLE: dict[str, Any] = {
    "svg.hashsalt": "lopsided",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def curve_figure(summary: Summary) -> Figure:
    """Draw both curves and the sensitivity by diameter.

    A panel whose curve is undefined says why. The precision-recall curve is drawn by steps, as its area is taken.

    Args:
        summary: of the evaluation.

    Returns:
        A figure that belongs to no window and no global state; render it by :func:`figure_png`.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(11.4, 3.7), layout="constrained")
        pr, froc, diameter = figure.subplots(1, 3)
        reason = summary.undefined.get("map")
        for axes, draw in ((pr, _draw_pr), (froc, _draw_froc)):
            if summary.points is None or reason is not None:
                _say(axes, reason or "")
            else:
                draw(axes, summary.points.corners())
        area = summary.metrics.map
        pr.set(title="Precision and recall" + ("" if area is None else f"   AP {area:.3f}"))
        pr.set(xlabel="recall (lesions)", ylabel="precision (candidates)", xlim=(0, 1.02), ylim=(0, 1.04))
        froc.set(title="FROC", xlabel="false positives per case", ylabel="sensitivity", ylim=(0, 1.04))
        _draw_diameter(diameter, summary.by_diameter)
    return figure


def figure_png(summary: Summary) -> bytes:
    """:func:`curve_figure` as PNG."""
    return png(lambda: curve_figure(summary))


def figure_svg(summary: Summary) -> str:
    """:func:`curve_figure` as an ``<svg>`` element for a page."""
    return svg(lambda: curve_figure(summary))


def png(draw: Callable[[], Figure], dpi: int = 150) -> bytes:
    """The figure that ``draw`` makes as PNG, without the version and time stamps that would change its bytes."""
    return _render(draw, "png", {"Software": None}, dpi)


def svg(draw: Callable[[], Figure]) -> str:
    """The figure that ``draw`` makes as an ``<svg>`` element for a page, the same text for the same figure."""
    text = _render(draw, "svg", {"Date": None, "Creator": None}).decode("utf-8")
    return text[text.index("<svg") :]


def _render(draw: Callable[[], Figure], image_format: str, metadata: dict[str, Any], dpi: int = 150) -> bytes:
    from matplotlib import rc_context

    stream = io.BytesIO()
    with rc_context(STYLE):
        draw().savefig(stream, format=image_format, dpi=dpi, metadata=metadata)
    return stream.getvalue()


def _draw_pr(axes: Axes, points: OperatingPoints) -> None:
    if not len(points.threshold):
        _say(axes, "there are no candidates")
        return
    recall, precision = points.sensitivity, points.precision
    draw_pr_steps(axes, recall, precision, color=BLUE)
    axes.plot(recall[-1], precision[-1], "o", color=BLUE, markersize=5)
    axes.annotate(
        f"all candidates\n{recall[-1]:.2f}, {precision[-1]:.2f}",
        (recall[-1], precision[-1]),
        xytext=(-8, -8),
        textcoords="offset points",
        ha="right",
        va="top",
        color=GREY,
    )


def draw_pr_steps(
    axes: Axes,
    recall: Sequence[float] | NDArray[np.float64],
    precision: Sequence[float] | NDArray[np.float64],
    **line: Any,
) -> None:
    """Draw a precision-recall curve as its area is taken: up to each recall the precision reached there counts."""
    axes.plot(np.r_[0, recall], np.r_[precision[0], precision], drawstyle="steps-pre", linewidth=1.6, **line)


def _draw_froc(axes: Axes, points: OperatingPoints) -> None:
    if not len(points.threshold):
        _say(axes, "there are no candidates")
        return
    axes.plot(
        np.r_[0, points.false_positives_per_case],
        np.r_[0, points.sensitivity],
        drawstyle="steps-post",
        color=BLUE,
        linewidth=1.6,
    )
    axes.plot(points.false_positives_per_case[-1], points.sensitivity[-1], "o", color=BLUE, markersize=5)
    axes.set_xlim(0, max(1.0, points.false_positives_per_case[-1] * 1.04))


def _draw_diameter(axes: Axes, bins: Sequence[DiameterBin]) -> None:
    labels = [f"{b.lower_mm:g}+" if b.upper_mm is None else f"{b.lower_mm:g}\u2013{b.upper_mm:g}" for b in bins]
    for x, b in enumerate(bins):
        interval = b.interval
        if b.sensitivity is None or interval.low is None or interval.high is None:
            axes.text(x, 0.02, "none", ha="center", color=GREY, fontsize=8)
            continue
        axes.bar(x, b.sensitivity, width=0.7, color=BLUE, alpha=0.8)
        axes.vlines(x, interval.low, interval.high, color="#111827", linewidth=1.1)
        axes.text(x, 1.06, f"{b.n_detected}/{b.n_lesions}", ha="center", color=GREY, fontsize=8)
    axes.set_xticks(range(len(bins)), labels)
    axes.set_xlim(-0.6, len(bins) - 0.4)
    axes.set(title="By diameter, 95% CI (Wilson)", xlabel="lesion diameter, mm", ylabel="sensitivity", ylim=(0, 1.14))
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.grid(False, axis="x")


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, wrap=True)
