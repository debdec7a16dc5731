"""Charts as SVG elements: text that stays text, drawn the same on screen and on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

WIDTH, HEIGHT = 520, 370
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 60


@dataclass(frozen=True)
class Plot:
    """Where values lie in a chart of :data:`WIDTH` x :data:`HEIGHT`; both axes begin at 0.

    Attributes:
        title: plain text, as are the labels.
        x_label: below the chart.
        y_label: beside it.
        x_end: greatest x.
        y_end: greatest y.
    """

    title: str
    x_label: str
    y_label: str
    x_end: float = 1.0
    y_end: float = 1.0

    def x(self, value: float) -> float:
        """Horizontal place of a value, to a tenth."""
        return round(_LEFT + value / self.x_end * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        """Vertical place of a value, to a tenth."""
        return round(HEIGHT - _BOTTOM - value / self.y_end * (HEIGHT - _TOP - _BOTTOM), 1)

    def svg(self, inside: Sequence[str], x_ticks: Sequence[tuple[float, str]] | None = None, curve: str = "") -> str:
        """The chart.

        Args:
            inside: SVG elements drawn over the grid.
            x_ticks: value and text; None: round numbers.
            curve: the name under which the page's script moves a marker on it; empty: the chart does not move.
        """
        bottom, end = self.y(0), WIDTH - _RIGHT
        parts = [text(_LEFT, 18, self.title, "title")]
        for value in ticks(self.y_end):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{end}" y1="{y}" y2="{y}"/>')
            parts.append(text(_LEFT - 7, y + 4, f"{value:g}", anchor="end"))
        for value, label in x_ticks if x_ticks is not None else [(v, f"{v:g}") for v in ticks(self.x_end)]:
            parts.append(text(self.x(value), bottom + 17, label, anchor="middle"))
        parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{end}"/>')
        parts.append(text((_LEFT + end) / 2, HEIGHT - 8, self.x_label, anchor="middle"))
        middle = (_TOP + bottom) / 2
        parts.append(
            f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
            f"{escape(self.y_label)}</text>"
        )
        parts += inside
        moving = ""
        if curve:
            moving = f' data-curve="{curve}" tabindex="0"'
            # Two lines to the axes and the marker; the script places them.
            parts.append(
                f'<g class="only-script"><line class="cross" x1="{_LEFT}"/><line class="cross" y2="{bottom}"/>'
            )
            parts.append('<circle class="marker" r="6"/></g>')
        label = escape(f"{self.title}: {self.y_label} against {self.x_label}")
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}"{moving}>'
            + "".join(parts)
            + "</svg>"
        )


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """A line of text; ``anchor`` is start, middle or end."""
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{of_kind} text-anchor="{anchor}">{escape(content)}</text>'


def ticks(end: float, wanted: int = 5) -> list[float]:
    """Round numbers from 0 to ``end``, about ``wanted`` steps.

    Example:
        >>> ticks(1), ticks(37)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 10.0, 20.0, 30.0])
    """
    rough = end / wanted
    power = 10.0 ** floor(log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.99)
    return [round(i * step, 10) for i in range(int(end / step + 1e-9) + 1)]


def steps(plot: Plot, x: Sequence[float], y: Sequence[float], first: str, kind: str = "") -> str:
    """A stair through points of ascending x.

    Args:
        plot: where.
        x: of the points, at least one.
        y: of the points.
        first: ``y``: up to each point its own y holds, as the area under a precision-recall curve is taken; ``x``: from
            each point on its y holds, beginning at (0, 0), as a FROC curve rises.
        kind: further class of the path.
    """
    places = [(plot.x(a), plot.y(b)) for a, b in zip(x, y, strict=True)]
    if first == "y":
        path = f"M{plot.x(0):g} {places[0][1]:g}" + "".join(f"V{b:g}H{a:g}" for a, b in places)
    else:
        path = f"M{plot.x(0):g} {plot.y(0):g}" + "".join(f"H{a:g}V{b:g}" for a, b in places)
    return f'<path class="curve {kind}" d="{path}"/>' if kind else f'<path class="curve" d="{path}"/>'


def whisker(x: float, low: float, high: float) -> str:
    """A vertical interval with caps, in places of the chart."""
    return f'<path class="whisker" d="M{x - 4:g} {low:g}h8M{x - 4:g} {high:g}h8M{x:g} {low:g}V{high:g}"/>'


def say(content: str) -> str:
    """A sentence in the middle of an otherwise empty chart, broken to fit."""
    lines: list[str] = [""]
    for word in content.split():
        if len(lines[-1]) + len(word) > 52:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    middle = (WIDTH + _LEFT - _RIGHT) / 2
    return "".join(text(middle, HEIGHT / 2 + 16 * i, line, anchor="middle") for i, line in enumerate(lines))
