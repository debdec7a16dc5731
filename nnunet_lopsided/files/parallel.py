"""Work on many cases at the same time, in threads: all of them with a progress bar, or few in memory at a time.

Threads suffice: reading, writing and labelling release the interpreter lock. Unlike processes, none is left behind by
an interrupt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.inflating import libdeflate
from nnunet_lopsided.progress import with_progress

_T = TypeVar("_T")
_R = TypeVar("_R")


def check_n_workers(n_workers: int, option: str = "-np") -> None:
    """Refuse a number of workers below 1; by itself for a command that works long before it has work for them.

    Raises:
        InputError: ``n_workers`` is below 1; the message names ``option``.
    """
    if n_workers < 1:
        raise InputError(f"number of workers ({option}) must be at least 1, got {n_workers}")


def for_each(
    function: Callable[[_T], _R],
    items: Sequence[_T],
    n_workers: int,
    title: str,
    *,
    option: str = "-np",
    progress: bool = True,
) -> list[_R]:
    """``[function(item) for item in items]``, several at the same time; the first exception ends it.

    Args:
        function: what to do with an item.
        items: cases or files.
        n_workers: how many items are worked on at the same time, at least 1.
        title: what the progress bar says.
        option: by which the user sets ``n_workers``.
        progress: show a bar.

    Raises:
        InputError: ``n_workers`` is below 1.

    Example:
        >>> for_each(len, ["a", "bc"], 2, "lengths")
        [1, 2]
    """
    check_n_workers(n_workers, option)
    import_readers()

    def naming_memory(item: _T) -> _R:
        try:
            return function(item)
        except MemoryError:
            raise InputError(
                f"{title}: not enough memory for {_name(item)}; work on fewer at the same time ({option})"
            ) from None

    # All are submitted at once: their results are small, and no worker waits for a slow item. Closed, so that no thread
    # is at work any more when an interrupt of the progress bar reaches the caller.
    with closing(in_order(naming_memory, items, n_workers, n_ahead=len(items))) as results:
        return list(with_progress(results, total=len(items), title=title, unit="case", show=progress))


def in_order(
    function: Callable[[_T], _R], items: Sequence[_T], n_workers: int, n_ahead: int | None = None
) -> Generator[_R, None, None]:
    """Results in the order of ``items``, computed in threads; an exception is raised where its result would come.

    Items that no thread has begun when the caller stops, or when an exception ends it, are left out.

    Args:
        function: what to do with an item.
        items: cases or files.
        n_workers: how many items are worked on at the same time, at least 1.
        n_ahead: how many items are begun, or done and kept, before the caller takes the first of their results. Twice
            the workers by default: a slow case at the head of the queue must not idle them, and few are in memory.

    Example:
        >>> list(in_order(len, ["a", "bc"], 2))
        [1, 2]
    """
    limit = 2 * n_workers if n_ahead is None else n_ahead
    running: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(n_workers) as pool:
        try:
            for item in items:
                running.append(pool.submit(function, item))
                if len(running) >= limit:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _name(item: object) -> str:
    """What a person calls an item: a case's name, a file, or the first of several."""
    parts = item if isinstance(item, tuple) else (item,)
    named = [str(part.name) for part in parts if hasattr(part, "name")]
    return (named or [part for part in parts if isinstance(part, str)] or [type(item).__name__])[0]


def import_readers() -> None:
    """Import what reading and writing need; to be called before threads do either.

    An interrupt in the middle of an import leaves its lock held, and threads that need the import would wait for ever.
    """
    import nibabel
    import SimpleITK
    import tifffile

    libdeflate()
    del nibabel, SimpleITK, tifffile
