"""Work on many cases in threads, with the results in order and few cases in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Sequence[T], n_workers: int) -> Iterator[R]:
    """Results in the order of ``items``, computed in threads; a bounded number of items is in the air."""
    waiting = iter(items)
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(n_workers) as pool:
        try:
            # Twice the workers: a slow case at the head of the queue must not idle them. Finished ones are only tables.
            for item in waiting:
                running.append(pool.submit(work, item))
                if len(running) >= 2 * n_workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
