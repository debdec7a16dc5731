"""Damaged files for tests, the same ones in every run."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any


def damaged(content: bytes, n: int, seed: str) -> Iterator[bytes]:
    """Variants of a file: cut off, with flipped bits, with bytes of its header replaced, with bytes taken out.

    Args:
        content: the whole file.
        n: how many.
        seed: the same seed gives the same variants.
    """
    chosen = random.Random(seed)
    for i in range(n):
        data = bytearray(content)
        place = chosen.randrange(len(data))
        if i % 4 == 0:
            del data[place:]
        elif i % 4 == 1:
            for _ in range(chosen.choice((1, 1, 8))):
                data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
        elif i % 4 == 2:
            place = chosen.randrange(min(len(data), 400))
            width = chosen.choice((1, 2, 4, 8))
            data[place : place + width] = bytes(chosen.choice((0, 255, 127, 128)) for _ in range(width))
        else:
            del data[place : place + chosen.choice((1, 4, 100))]
        yield bytes(data)


def other_types(content: Any) -> Iterator[Any]:
    """Variants of JSON in which one value has another type."""
    others: tuple[Any, ...] = (None, True, "text", 1.5, [], {}, [[]], {"a": 1})
    for path in _paths(content):
        for value in others:
            variant = copy.deepcopy(content)
            place = variant
            for key in path[:-1]:
                place = place[key]
            old = place[path[-1]]
            same = isinstance(value, type(old)) or (isinstance(value, float) and isinstance(old, int))
            if not same:
                place[path[-1]] = value
                yield variant


def _paths(content: Any, begin: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*begin, key)
        yield from _paths(value, (*begin, key))
