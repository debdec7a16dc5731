"""The charts, each drawn by one function, for pages (SVG) and files (PNG) alike.

What is drawn carries a class (``classed``), by which tests find it in the SVG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.pages.rendering import classed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY, INK = "#6b7280", "#111827"
NO_CANDIDATES = "there are no candidates"
# More points than pixels only make a page larger.
MAX_POINTS = 1500
# Of bars in a bin or a histogram; the whole width of a bin is 1.
_BARS_WIDTH = 0.7
_LINE_WIDTH = 1.6

Values: TypeAlias = Sequence[float] | NDArray[np.float64]
LineStyle: TypeAlias = str | tuple[float, Sequence[float]]


class Series(NamedTuple):
    """How one of several evaluations is drawn: told apart by colour, and by dashes on paper and by the colour-blind."""

    colour: str
    dashes: tuple[int, ...]

    @property
    def linestyle(self) -> LineStyle:
        """The dashes as Matplotlib takes them, in multiples of the width of the line."""
        return (0, tuple(length / _LINE_WIDTH for length in self.dashes)) if self.dashes else "-"


# Beyond four they repeat.
SERIES = (
    Series("#2563a8", ()),
    Series("#d55e00", (9, 3)),
    Series("#007a5a", (3, 3)),
    Series("#8f3f76", (11, 3, 2, 3)),
)


@dataclass(frozen=True)
class Curve:
    """The operating points of an evaluation, from the strictest confidence to all candidates; empty without any.

    Attributes:
        recall: share of the lesions found, ascending, within [0, 1].
        precision: share of the accepted candidates that are lesions, within [0, 1].
        false_positives_per_case: ascending, at least 0.
    """

    recall: Values
    precision: Values
    false_positives_per_case: Values

    def thinned(self) -> Curve:
        """At most :data:`MAX_POINTS` of the points, evenly spread, both ends included."""
        keep = thinned(len(self.recall))
        return Curve(
            [self.recall[i] for i in keep],
            [self.precision[i] for i in keep],
            [self.false_positives_per_case[i] for i in keep],
        )


class RocCurve(NamedTuple):
    """Operating points from the strictest confidence to any candidate, both ascending and within [0, 1]."""

    false_positive_rate: Values
    sensitivity: Values


@dataclass(frozen=True, kw_only=True)
class SizeBin:
    """Lesions of a range of diameters, and how many were found.

    Attributes:
        lower_mm: inclusive.
        upper_mm: exclusive; None: there is no upper end.
        n_lesions: how many there are.
        n_detected: how many of them were found.
        interval: 95% of the sensitivity; None where it is undefined.
    """

    lower_mm: float
    upper_mm: float | None
    n_lesions: int
    n_detected: int
    interval: tuple[float, float] | None

    @property
    def sensitivity(self) -> float | None:
        """Share found, None without lesions."""
        return self.n_detected / self.n_lesions if self.n_lesions else None


class LinePoint(NamedTuple):
    """A value over something that was varied, with its interval or None."""

    x: float
    value: float
    interval: tuple[float, float] | None


def draw_precision_recall(
    axes: Axes, curves: Sequence[Curve | None], area: float | None = None, undefined: str | None = None
) -> None:
    """Draw precision against recall.

    Args:
        axes: where.
        curves: of every evaluation; None: it has none.
        area: of the only curve, for the title.
        undefined: why there is no curve at all; it is written in place of one.
    """
    axes.set(title="Precision and recall" + ("" if area is None else f"   AP {area:.3f}"))
    axes.set(xlabel="recall (lesions)", ylabel="precision (candidates)", xlim=(0, 1.02), ylim=(0, 1.04))
    for i, curve in _drawable(axes, curves, undefined):
        series = SERIES[i % len(SERIES)]
        kind = classed(f"curve k{i % len(SERIES)}")
        draw_pr_steps(axes, curve.recall, curve.precision, color=series.colour, linestyle=series.linestyle, gid=kind)
        _end(axes, i, curve.recall[-1], curve.precision[-1])
        if len(curves) == 1:
            axes.annotate(
                f"all candidates\n{curve.recall[-1]:.2f}, {curve.precision[-1]:.2f}",
                (curve.recall[-1], curve.precision[-1]),
                xytext=(-8, -8),
                textcoords="offset points",
                ha="right",
                va="top",
                color=GREY,
            )


def draw_pr_steps(
    axes: Axes,
    recall: Values,
    precision: Values,
    *,
    color: str | None = None,
    linestyle: LineStyle = "-",
    label: str = "",
    gid: str | None = None,
) -> None:
    """Draw a precision-recall curve as its area is taken: up to each recall the precision reached there counts.

    Args:
        axes: where.
        recall: of the points, at least one, ascending.
        precision: of the points.
        color: None: the next one of Matplotlib's.
        linestyle: as Matplotlib has it.
        label: for the legend.
        gid: see :func:`~nnunet_lopsided.pages.rendering.classed`.
    """
    axes.plot(
        np.r_[0, recall],
        np.r_[precision[0], precision],
        drawstyle="steps-pre",
        linewidth=_LINE_WIDTH,
        color=color,
        linestyle=linestyle,
        label=label,
        gid=gid,
    )


def draw_froc(axes: Axes, curves: Sequence[Curve | None], undefined: str | None = None) -> None:
    """Draw sensitivity against false positives per case: from each point on its sensitivity holds.

    Arguments as of :func:`draw_precision_recall`.
    """
    most = 0.0
    for i, curve in _drawable(axes, curves, undefined):
        series, false = SERIES[i % len(SERIES)], curve.false_positives_per_case
        axes.plot(
            np.r_[0, false],
            np.r_[0, curve.recall],
            drawstyle="steps-post",
            color=series.colour,
            linewidth=_LINE_WIDTH,
            linestyle=series.linestyle,
            gid=classed(f"curve k{i % len(SERIES)}"),
        )
        _end(axes, i, false[-1], curve.recall[-1])
        most = max(most, false[-1])
        axes.set_xlim(0, max(1.0, most * 1.04))
    axes.set(title="FROC", xlabel="false positives per case", ylabel="sensitivity", ylim=(0, 1.04))


def draw_roc(
    axes: Axes, curves: Sequence[RocCurve | None], area: float | None = None, undefined: str | None = None
) -> None:
    """Draw the sensitivity for patients with lesions against the false positive rate among those without.

    Args:
        axes: where.
        curves: of every evaluation; None: it has none.
        area: under the only curve, for the title.
        undefined: why there is no curve at all; it is written in place of one.
    """
    axes.set(title="Patients with lesions" + ("" if area is None else f"   AUC {area:.3f}"))
    axes.set(xlabel="1 - specificity (patients without)", ylabel="sensitivity (patients with)")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.04))
    if undefined is not None or not any(curves):
        say(axes, undefined or "there are no patients without lesions")
        return
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", gid=classed("chance"))
    for i, curve in enumerate(curves):
        if curve is not None:
            series, kind = SERIES[i % len(SERIES)], classed(f"curve k{i % len(SERIES)}")
            # Straight lines, as the area is taken: what is equally confident is told apart by nothing.
            axes.plot(
                np.r_[0, curve.false_positive_rate, 1],
                np.r_[0, curve.sensitivity, 1],
                color=series.colour,
                linewidth=_LINE_WIDTH,
                linestyle=series.linestyle,
                gid=kind,
            )
            if len(curve.sensitivity):
                _end(axes, i, curve.false_positive_rate[-1], curve.sensitivity[-1])


def _drawable(axes: Axes, curves: Sequence[Curve | None], undefined: str | None) -> list[tuple[int, Curve]]:
    """The curves with points and their numbers; says why where there is none."""
    drawable = [(i, curve) for i, curve in enumerate(curves) if curve is not None and len(curve.recall)]
    if undefined is not None or not drawable:
        say(axes, undefined or NO_CANDIDATES)
        return []
    return drawable


def _end(axes: Axes, i: int, x: float, y: float) -> None:
    """A dot where all candidates are accepted."""
    kind = classed(f"end k{i % len(SERIES)}")
    axes.plot(x, y, "o", color=SERIES[i % len(SERIES)].colour, markersize=5, gid=kind)


def draw_sensitivity_by_diameter(axes: Axes, evaluations: Sequence[Sequence[SizeBin]]) -> None:
    """Draw the sensitivity by diameter as bars with their intervals, those of several evaluations side by side.

    Args:
        axes: where.
        evaluations: the bins of each, the same ranges and lesions in all.
    """
    bins = evaluations[0]
    width = _BARS_WIDTH / len(evaluations)
    for x, first in enumerate(bins):
        for i, of_one in enumerate(evaluations):
            if of_one[x].sensitivity is not None:
                middle = x + (i - (len(evaluations) - 1) / 2) * width
                _bar_with_interval(axes, middle, width, of_one[x], i)
        if first.sensitivity is None:
            axes.text(x, 0.02, "none", ha="center", color=GREY, fontsize=8)
        else:
            share = f"{first.n_detected}/{first.n_lesions}" if len(evaluations) == 1 else f"n={first.n_lesions}"
            axes.text(x, 1.06, share, ha="center", color=GREY, fontsize=8)
    axes.set_xticks(range(len(bins)), [diameter_range(b.lower_mm, b.upper_mm) for b in bins])
    axes.set_xlim(-0.6, len(bins) - 0.4)
    axes.set(
        title="By diameter, Wilson (lesions as independent)",
        xlabel="lesion diameter, mm",
        ylabel="sensitivity",
        ylim=(0, 1.14),
    )
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.grid(False, axis="x")


def _bar_with_interval(axes: Axes, middle: float, width: float, shown: SizeBin, i: int) -> None:
    assert shown.sensitivity is not None, "bins without lesions have no bar"
    series = SERIES[i % len(SERIES)]
    kind = f"k{i % len(SERIES)}"
    axes.bar(middle, shown.sensitivity, width=width, color=series.colour, alpha=0.8, gid=classed(f"bar {kind}"))
    if shown.interval is not None:
        low, high = shown.interval
        axes.vlines(middle, low, high, color=INK, linewidth=1.1, gid=classed(f"whisker {kind}"))


def draw_histogram(
    axes: Axes, counts: Sequence[int], entropy_bits: float | None = None, undefined: str | None = None
) -> None:
    """Draw which probabilities the voxels of the reference lesions were given, as shares of all.

    Args:
        axes: where.
        counts: voxels in equal bins over [0, 1].
        entropy_bits: of the histogram, for the title.
        undefined: why there is no histogram; also shown where all counts are 0.
    """
    entropy = "" if entropy_bits is None else f", entropy {entropy_bits:.2f} bits"
    axes.set(title=f"Lesion voxels by probability{entropy}", xlabel="predicted probability", xlim=(0, 1))
    axes.set(ylabel="share of lesion voxels")
    total = sum(counts)
    if undefined is not None or not total:
        say(axes, undefined or "there are no lesion voxels")
        return
    for k, count in enumerate(counts):
        if count:
            middle, share = (k + 0.5) / len(counts), count / total
            axes.bar(middle, share, width=1 / len(counts), color=SERIES[0].colour, alpha=0.8, gid=classed("bar k0"))
    axes.set_ylim(0, max(counts) / total * 1.05)
    axes.grid(False, axis="x")


def draw_lines(
    axes: Axes, title: str, x_label: str, lines: Mapping[str, Sequence[LinePoint]], top: float | None = None
) -> None:
    """Draw a metric of several models over something that was varied, such as the number of patients.

    Args:
        axes: where.
        title: of the chart, and of its y axis.
        x_label: what was varied.
        lines: by model, with x ascending; colours are those of :data:`SERIES`.
        top: the end of the y axis, so that charts have one scale; None: a little above the highest point.
    """
    axes.set(title=title, xlabel=x_label, ylabel=title)
    points = [point for of_model in lines.values() for point in of_model]
    if not points:
        say(axes, "nothing evaluated yet")
        return
    places = sorted({point.x for point in points})
    x_end = max(places[-1] * 1.05, 1e-9)
    highest = max(max(p.value, p.interval[1] if p.interval else p.value) for p in points)
    for i, of_model in enumerate(lines.values()):
        _draw_line(axes, i, of_model, aside=i * x_end / 150)
    # Wider than the points, so that the dots at the ends are whole.
    axes.set_xlim(-0.02 * x_end, x_end)
    # A little above 1, so that a dot at 1 is whole.
    axes.set_ylim(0, max(highest if top is None else top, 1e-9) * 1.05)
    axes.set_xticks(places, [f"{x:g}" for x in places])


def _draw_line(axes: Axes, i: int, points: Sequence[LinePoint], aside: float) -> None:
    """One model's line; its intervals stand a little ``aside``, where several models share an x."""
    if not points:
        return
    kind, (colour, _), style = f"k{i % len(SERIES)}", SERIES[i % len(SERIES)], SERIES[i % len(SERIES)].linestyle
    x, values = [p.x for p in points], [p.value for p in points]
    axes.plot(x, values, color=colour, linewidth=_LINE_WIDTH, linestyle=style, gid=classed(f"curve {kind}"))
    draw_points(axes, i, points, aside)


def draw_points(axes: Axes, i: int, points: Sequence[LinePoint], aside: float = 0, marker: str = "o") -> None:
    """Draw the points of the i-th of several evaluations; their intervals stand ``aside``."""
    kind, colour = f"k{i % len(SERIES)}", SERIES[i % len(SERIES)].colour
    for p in points:
        axes.plot(p.x, p.value, marker, color=colour, markersize=5, gid=classed(f"point {kind}"))
        if p.interval is not None:
            axes.vlines(p.x + aside, *p.interval, color=colour, linewidth=1.1, gid=classed(f"whisker {kind}"))


def say(axes: Axes, text: str) -> None:
    """Write a sentence in the middle of otherwise empty axes, broken to fit."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, wrap=True)


def thinned(n: int) -> list[int]:
    """Indices of at most :data:`MAX_POINTS` of ``n`` points, evenly spread, both ends included."""
    if n <= MAX_POINTS:
        return list(range(n))
    # A set, as rounding may hit one index twice.
    return sorted({round(i * (n - 1) / (MAX_POINTS - 1)) for i in range(MAX_POINTS)})


def diameter_range(lower: float, upper: float | None) -> str:
    """A bin as its ends; the last one is open."""
    return f"{lower:g}+" if upper is None else f"{lower:g}\u2013{upper:g}"
