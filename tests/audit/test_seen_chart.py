"""What annotators saw by diameter, read back from the chart. All values are asymmetric."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from nnunet_lopsided.audit.seen_chart import draw_seen_by_diameter
from nnunet_lopsided.pages.charts import LinePoint
from nnunet_lopsided.pages.rendering import chart
from tests.pages.chart_reading import Drawn


def near(rows: Sequence[Sequence[float]]) -> list[Any]:
    """The same to a hundredth, which is what two decimals can tell."""
    return [pytest.approx(row, abs=0.0051) for row in rows]


def test_what_is_drawn() -> None:
    """Two estimates beside each other, a curve through the second, and none where nothing is known."""
    ranges = [(0, 3), (3, 6), (6, None)]
    first, second = [LinePoint(2, 0.9, (0.85, 0.95))], [LinePoint(1, 0.3, (0.1, 0.65)), LinePoint(2, 0.7, None)]
    draw = partial(draw_seen_by_diameter, ranges=ranges, estimates=[first, second], rising=[None, 0.35, 0.7])
    drawn = Drawn(chart(draw).svg, (-0.6, 2.6), (0, 1.05))
    assert drawn.dots("point", "k0") == near([(1.92, 0.9)])
    assert drawn.dots("point", "k1") == near([(1.08, 0.3), (2.08, 0.7)])
    assert drawn.whiskers("k0") == near([(1.92, 0.85, 0.95)])
    assert drawn.whiskers("k1") == near([(1.08, 0.1, 0.65)])
    assert [near(line) == [(1, 0.35), (2, 0.7)] for line in drawn.points("curve")] == [True]
    assert drawn.colours("curve") == drawn.colours("point", "k1") == {"#d55e00"}
    places = drawn.text_places()
    assert [places[text][0] for text in ("0\u20133", "3\u20136", "6+")] == [0, 1, 2]
    assert drawn.axis_names() == ("lesion diameter, mm", "share that was annotated")
    # One estimate stands in the middle, and has no curve.
    alone = Drawn(chart(partial(draw_seen_by_diameter, ranges=ranges, estimates=[first])).svg, (-0.6, 2.6), (0, 1.05))
    assert (alone.dots("point", "k0"), alone.points("curve")) == (near([(2, 0.9)]), [])
