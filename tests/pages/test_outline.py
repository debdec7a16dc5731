"""nnunet_lopsided.pages.outline."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_lopsided.pages.outline import outline


def edges_of(path):
    """Every unit edge of a path, undirected, by walking it; fails where a loop leaves the grid or does not close."""
    edges = []
    for loop in re.findall(r"M(\d+) (\d+)((?:[hv]-?\d+)+)z", path):
        x, y = start = (int(loop[0]), int(loop[1]))
        moves = [(axis, int(n)) for axis, n in re.findall(r"([hv])(-?\d+)", loop[2])]
        end = (x + sum(n for a, n in moves if a == "h"), y + sum(n for a, n in moves if a == "v"))
        assert end[0] == start[0] or end[1] == start[1]
        moves.append(("v", start[1] - end[1]) if end[0] == start[0] else ("h", start[0] - end[0]))
        for axis, n in moves:
            for _ in range(abs(n)):
                there = (x + np.sign(n), y) if axis == "h" else (x, y + np.sign(n))
                edges.append(frozenset([(x, y), (int(there[0]), int(there[1]))]))
                x, y = int(there[0]), int(there[1])
    return edges


@pytest.mark.parametrize(
    ("mask", "path"),
    [
        ([[0, 0], [0, 0]], ""),
        ([[1]], "M0 0h1v1h-1z"),
        ([[1, 1, 1], [1, 0, 1], [1, 1, 1]], "M0 0h3v3h-3zM1 1v1h1v-1z"),
        ([[1, 0], [0, 1]], "M0 0h1v1h-1zM1 1h1v1h-1z"),
    ],
)
def test_by_hand(mask, path):
    assert outline(np.array(mask)) == path


@settings(deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_exactly_the_edges_between_inside_and_outside(mask):
    padded = np.pad(mask, 1)
    expected = set()
    for y, x in np.argwhere(padded[:, :-1] != padded[:, 1:]).tolist():
        expected.add(frozenset([(x, y - 1), (x, y)]))
    for y, x in np.argwhere(padded[:-1] != padded[1:]).tolist():
        expected.add(frozenset([(x - 1, y), (x, y)]))
    found = edges_of(outline(mask))
    assert len(found) == len(set(found))
    assert set(found) == expected
