"""The chart of an audit's page: which share of the lesions the annotators saw, by diameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nnunet_lopsided.audit.record_content import AuditContent
from nnunet_lopsided.pages.charts import SERIES, LinePoint, diameter_range, draw_points
from nnunet_lopsided.pages.rendering import Chart, chart, classed

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ShownSeen(NamedTuple):
    """What annotators saw by diameter, and the names of the estimates in its chart."""

    names: list[str]
    chart: Chart
    rises: bool


def shown_seen(record: AuditContent) -> ShownSeen | None:
    """What annotators saw by diameter: by annotated lesions and, where there is that, by injected ones."""
    rates, injected = record["miss_rate_by_diameter"], record["injected"]
    if record["withheld"]:
        return None
    names, rising = ["by annotated lesions of that diameter"], []
    estimates = [
        [
            LinePoint(i, 1 - rate["miss_rate"], None if ends is None else (1 - ends[1], 1 - ends[0]))
            for i, rate in enumerate(rates)
            for ends in [rate["miss_rate_ci95_bootstrap"]]
            if rate["miss_rate"] is not None
        ]
    ]
    if injected is not None and injected["miss_rate"] is not None:
        names.append("by injected lesions")
        rising = [of["seen_rising"] for of in injected["by_diameter"]]
        estimates.append(
            [
                LinePoint(i, of["seen"], None if ends is None else (ends[0], ends[1]))
                for i, of in enumerate(injected["by_diameter"])
                for ends in [of["seen_ci95_bootstrap"]]
                if of["seen"] is not None
            ]
        )
    if not any(estimates):
        return None
    ranges = [(rate["lower_mm"], rate["upper_mm"]) for rate in rates]
    drawn = chart(lambda axes: draw_seen_by_diameter(axes, ranges, estimates, rising))
    return ShownSeen(names, drawn, any(share is not None for share in rising))


def draw_seen_by_diameter(
    axes: Axes,
    ranges: Sequence[tuple[float, float | None]],
    estimates: Sequence[Sequence[LinePoint]],
    rising: Sequence[float | None] = (),
) -> None:
    """Draw the share of all lesions that annotators saw, by range of diameters, as points with their intervals.

    Args:
        axes: where.
        ranges: lower and upper ends in mm.
        estimates: of every way to estimate it, the ranges that have an estimate; x is the number of the range, from 0.
        rising: a curve through the last of them, of every range; None: not there.
    """
    axes.set(title="What your annotators saw", xlabel="lesion diameter, mm", ylabel="share that was annotated")
    axes.set_xticks(range(len(ranges)), [diameter_range(*ends) for ends in ranges])
    axes.set(xlim=(-0.6, len(ranges) - 0.4), ylim=(0, 1.05))
    axes.grid(False, axis="x")
    curve = [(x, share) for x, share in enumerate(rising) if share is not None]
    if curve:
        last = (len(estimates) - 1) % len(SERIES)
        style = SERIES[last].linestyle
        kind = classed(f"curve k{last}")
        axes.plot(*zip(*curve, strict=True), color=SERIES[last].colour, linewidth=1, linestyle=style, gid=kind)
    for i, points in enumerate(estimates):
        aside = (i - (len(estimates) - 1) / 2) * 0.16
        draw_points(axes, i, [p._replace(x=p.x + aside) for p in points], marker="os^D"[i % len(SERIES)])
