"""The outline of a mask along the edges of its pixels, as an SVG path."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Point = tuple[int, int]


def outline(mask: NDArray[np.generic]) -> str:
    """Closed loops around the nonzero pixels of a 2D mask.

    Args:
        mask: shape (h, w); the border of the mask counts as outside.

    Returns:
        Path data in pixels, x before y, pixel (0, 0) covering [0, 1] x [0, 1]; empty for an empty mask.

    Example:
        >>> outline(np.array([[0, 1], [0, 1]]))
        'M1 0h1v2h-1z'
    """
    onward = _directed_edges(np.asarray(mask) != 0)
    path = []
    for start in sorted(onward, key=lambda point: (point[1], point[0])):
        while onward.get(start):
            path.append(_loop(start, onward))
    return "".join(path)


def _directed_edges(mask: NDArray[np.bool_]) -> dict[_Point, list[_Point]]:
    """Every pixel edge between inside and outside, from its start, with the inside on the right."""
    padded = np.pad(mask, 1)  # so that pixels at the border have neighbours outside
    inside = padded[1:-1, 1:-1]
    onward: dict[_Point, list[_Point]] = {}
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    for neighbour, (x0, y0), (x1, y1) in sides:
        for y, x in np.argwhere(inside & ~neighbour).tolist():
            onward.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    return onward


def _loop(start: _Point, onward: dict[_Point, list[_Point]]) -> str:
    """Follow edges until the start is reached again, using them up; straight runs become one command."""
    runs: list[tuple[str, int]] = []
    here = start
    while True:
        there = onward[here].pop()
        axis, length = ("h", there[0] - here[0]) if there[1] == here[1] else ("v", there[1] - here[1])
        if runs and runs[-1][0] == axis and (runs[-1][1] > 0) == (length > 0):
            runs[-1] = (axis, runs[-1][1] + length)
        else:
            runs.append((axis, length))
        here = there
        if here == start:
            # The last run is what closing the path draws.
            return f"M{start[0]} {start[1]}" + "".join(f"{axis}{length}" for axis, length in runs[:-1]) + "z"
