"""curves.png: precision-recall, FROC and sensitivity by diameter in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnunet_lopsided.evaluation.curves import OperatingPoints
from nnunet_lopsided.evaluation.strata import DiameterBin
from nnunet_lopsided.evaluation.summary import Summary
from nnunet_lopsided.pages.charts import (
    Curve,
    SizeBin,
    draw_froc,
    draw_precision_recall,
    draw_sensitivity_by_diameter,
)
from nnunet_lopsided.pages.rendering import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curve_figure(summary: Summary) -> Figure:
    """Draw both curves and the sensitivity by diameter.

    A panel whose curve is undefined says why. The precision-recall curve is drawn by steps, as its area is taken.

    Args:
        summary: of the evaluation.

    Returns:
        A figure that belongs to no window. :func:`figure_png` draws it in the style of all our figures.
    """
    from matplotlib.figure import Figure

    curves, undefined = [curve_of(summary.points)], summary.undefined.get("map")
    # Not by pyplot, which would keep it, and open a window in some set-ups.
    figure = Figure(figsize=(11.4, 3.7), layout="constrained")
    precision_recall, froc, diameter = figure.subplots(1, 3)
    draw_precision_recall(precision_recall, curves, summary.metrics.map, undefined)
    draw_froc(froc, curves, undefined)
    draw_sensitivity_by_diameter(diameter, [size_bins(summary.by_diameter)])
    return figure


def figure_png(summary: Summary) -> bytes:
    """:func:`curve_figure` as PNG."""
    return png(lambda: curve_figure(summary))


def curve_of(points: OperatingPoints | None) -> Curve | None:
    """The corners of a curve, for drawing it; None without one."""
    if points is None:
        return None
    corners = points.corners()
    return Curve(corners.sensitivity, corners.precision, corners.false_positives_per_case)


def size_bins(bins: Sequence[DiameterBin]) -> list[SizeBin]:
    """The bins for drawing them, with their Wilson intervals."""
    return [
        SizeBin(
            lower_mm=b.lower_mm,
            upper_mm=b.upper_mm,
            n_lesions=b.n_lesions,
            n_detected=b.n_detected,
            interval=None if b.interval.low is None or b.interval.high is None else (b.interval.low, b.interval.high),
        )
        for b in bins
    ]
