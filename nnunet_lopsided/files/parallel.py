"""Work on many cases at the same time, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from nnunet_lopsided.errors import InputError

_T = TypeVar("_T")
_R = TypeVar("_R")


def for_each(function: Callable[[_T], _R], items: Sequence[_T], n_workers: int, title: str) -> list[_R]:
    """``[function(item) for item in items]``, several at the same time; the first exception ends it.

    Threads: reading, writing and labelling release the interpreter lock, and an interrupt leaves no process behind.

    Args:
        function: what to do with an item.
        items: cases or files.
        n_workers: how many items are worked on at the same time, at least 1.
        title: what the progress bar says.

    Raises:
        InputError: ``n_workers`` is below 1.

    Example:
        >>> for_each(len, ["a", "bc"], 2, "lengths")
        [1, 2]
    """
    if n_workers < 1:
        raise InputError(f"number of processes must be at least 1, got {n_workers}")
    import_readers()

    def naming_memory(item: _T) -> _R:
        try:
            return function(item)
        except MemoryError:
            raise InputError(
                f"{title}: not enough memory for {_name(item)}; work on fewer at the same time (-np)"
            ) from None

    pool = ThreadPoolExecutor(n_workers)
    try:
        return list(tqdm(pool.map(naming_memory, items), total=len(items), desc=title, unit="case", disable=None))
    finally:
        pool.shutdown(cancel_futures=True)


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

    del nibabel, SimpleITK, tifffile
