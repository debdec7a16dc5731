"""Progress bars of all commands: on a terminal a bar, in a file or a batch system's log a line a minute."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from typing import NoReturn, TextIO, TypeVar

from tqdm import tqdm

_T = TypeVar("_T")
_SECONDS_PER_LINE = 60.0


class _Bar(tqdm):  # type: ignore[type-arg]  # not to be subscribed when it runs
    """A bar with a lock for threads alone.

    tqdm's own lock is shared with processes that were forked: one that is killed while it holds it stops all others.
    """


_Bar.set_lock(threading.RLock())


def progress_bar(
    total: int | None = None, *, title: str | None = None, unit: str, bar_format: str | None = None, leave: bool = True
) -> tqdm[NoReturn]:
    """A bar on stderr that the caller moves. Where stderr is no terminal: a line a minute, the first after a minute.

    Args:
        total: how many there will be; None: not known yet.
        title: stands before the bar.
        unit: what is counted.
        bar_format: of tqdm.
        leave: keep the bar on the terminal when all is done.
    """
    return _Bar(total=total, desc=title, unit=unit, bar_format=bar_format, leave=leave, file=_shown_on())


def with_progress(
    items: Iterable[_T], *, title: str, unit: str, total: int | None = None, show: bool = True
) -> Iterable[_T]:
    """The items, with a bar as that of :func:`progress_bar` while they are taken.

    Args:
        items: to be iterated over.
        title: stands before the bar.
        unit: what an item is.
        total: how many there will be; None: as many as ``items``, if that is known.
        show: whether to show anything.

    Example:
        >>> list(with_progress("ab", title="letters", unit="letter"))
        ['a', 'b']
    """
    return _Bar(items, total=total, desc=title, unit=unit, disable=not show, file=_shown_on())


def _shown_on() -> TextIO | _LineAMinute | None:
    stream: TextIO | None = sys.stderr  # None without a console, as under pythonw
    return stream if stream is None or stream.isatty() else _LineAMinute(stream)


class _LineAMinute:
    """What tqdm writes to: it draws its bar anew all the time, each time after a carriage return."""

    def __init__(self, stream: TextIO) -> None:
        self.encoding = stream.encoding
        self._stream = stream
        self._written = time.monotonic()

    def write(self, text: str) -> None:
        line = text.strip()
        if line and time.monotonic() - self._written >= _SECONDS_PER_LINE:
            self._stream.write(line + "\n")
            self._written = time.monotonic()

    def flush(self) -> None:
        self._stream.flush()
