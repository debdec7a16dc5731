"""Reads what a chart shows back from its SVG, in the units of its data."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from nnunet_lopsided.pages.rendering import AXES_BOX, CHART_SIZE

# Of the box between the axes, in points; y grows downwards.
LEFT, RIGHT = AXES_BOX[0], AXES_BOX[0] + AXES_BOX[2]
BOTTOM = CHART_SIZE[1] - AXES_BOX[1]
TOP = BOTTOM - AXES_BOX[3]


class Drawn:
    """A chart, and the limits of its axes."""

    def __init__(self, svg: str, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.root, self.x, self.y = ET.fromstring(svg), x, y

    def data(self, place: Sequence[float]) -> tuple[float, float]:
        """A place of the SVG in the units of the data, to two decimals."""
        across, up = (place[0] - LEFT) / (RIGHT - LEFT), (BOTTOM - place[1]) / (BOTTOM - TOP)
        return (
            round(float(self.x[0] + across * (self.x[1] - self.x[0])), 2) + 0.0,
            round(float(self.y[0] + up * (self.y[1] - self.y[0])), 2) + 0.0,
        )

    def _paths(self, *classes: str) -> list[ET.Element]:
        groups = [e for e in self.root.iter("g") if set(classes) <= set(e.get("class", "").split())]
        return [path for group in groups for path in group.iter("path")]

    def points(self, *classes: str) -> list[list[tuple[float, float]]]:
        """The corners of every path with these classes, in data."""
        return [
            [self.data((float(x), float(y))) for x, y in re.findall(r"[ML] ([\d.-]+) ([\d.-]+)", path.attrib["d"])]
            for path in self._paths(*classes)
        ]

    def bars(self, *classes: str) -> list[tuple[float, float, float]]:
        """Left and right end and height of every bar, which stands on 0."""
        bars = []
        for corners in self.points("bar", *classes):
            x, y = zip(*corners, strict=True)
            assert min(y) == 0
            bars.append((min(x), max(x), max(y)))
        return bars

    def whiskers(self, *classes: str) -> list[tuple[float, float, float]]:
        """Place, lower and upper end of every interval."""
        ends = self.points("whisker", *classes)
        return [(one[0], min(one[1], other[1]), max(one[1], other[1])) for one, other in ends]

    def dots(self, *classes: str) -> list[tuple[float, float]]:
        """The middle of every dot."""
        moved = (re.match(r"translate\(([\d.-]+) ([\d.-]+)\)", p.attrib["transform"]) for p in self._paths(*classes))
        return [self.data((float(m[1]), float(m[2]))) for m in moved if m is not None]

    def colours(self, *classes: str) -> set[str]:
        """What the paths are filled or drawn with, without black."""
        styles = " ".join(path.attrib["style"] for path in self._paths(*classes))
        return set(re.findall(r"#[0-9a-f]{6}", styles)) - {"#000000"}

    def texts(self) -> list[str]:
        """Every line of text."""
        return ["".join(e.itertext()) for e in self.root.iter("text")]

    def axis_names(self) -> tuple[str, str]:
        """What stands below the chart, and what stands upright beside it: the names of x and y."""
        texts = [e for e in self.root.iter("text") if "x" in e.attrib]
        (upright,) = (e for e in texts if e.get("transform", "").startswith("rotate(-90"))
        lowest = max(texts, key=lambda e: float(e.attrib["y"]) if e is not upright else 0.0)
        return "".join(lowest.itertext()), "".join(upright.itertext())

    def text_places(self) -> dict[str, tuple[float, float]]:
        """Where every line of text stands, in data."""
        return {
            "".join(e.itertext()): self.data((float(e.attrib["x"]), float(e.attrib["y"])))
            for e in self.root.iter("text")
            if "x" in e.attrib
        }
