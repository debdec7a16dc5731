"""What every command shares: one-line errors with exit code 2, and the way out on Ctrl-C."""

from __future__ import annotations

import argparse
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from nnunet_lopsided.errors import InputError, InputErrors

# As a shell says that SIGPIPE has ended a program.
_READER_IS_GONE = 141


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage that argparse puts before it; so do its sub-commands.

    Numbers are plain digits: Python's own ``int`` takes ``8_02``, `` 802`` and digits of every script.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register("type", int, _whole_number)
        self.register("type", float, _number)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> object:
        # argparse takes the value away from "--output=--", and hands out an empty list in its place.
        if arg_strings == ["--"] and action.option_strings and action.nargs not in ("?", "*"):
            raise argparse.ArgumentError(action, "expected a value, got '--'")
        return super()._get_values(action, arg_strings)


def numbers_of_folds(given: Sequence[str | int], expected: str = "numbers of folds, or all") -> list[int | str]:
    """What ``-f`` was given: numbers, or "all".

    Args:
        given: the words.
        expected: what a message says that they must be.

    Raises:
        InputError: something else.
    """
    words = [str(fold) for fold in given]
    if any(fold != "all" and not re.fullmatch("[0-9]{1,9}", fold) for fold in words):
        raise InputError(f"-f must be {expected}, got {' '.join(words)}")
    return [fold if fold == "all" else int(fold) for fold in words]


def _whole_number(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise ValueError(text)  # argparse makes a message of it
    return int(text)


def _number(text: str) -> float:
    if not text.isascii() or "_" in text or text != text.strip():
        raise ValueError(text)
    return float(text)


def run(parser: Parser, work: Callable[[argparse.Namespace], int], argv: list[str] | None) -> int:
    """Parse ``argv``, do the work, and turn an :class:`InputError` into one line on stderr (several: a line each) and
    exit code 2.
    """
    arguments = parser.parse_args(argv)
    before = _end_on_sigterm()
    try:
        return _printed(parser, work(arguments))
    except InputError as error:
        for problem in error.problems if isinstance(error, InputErrors) else (str(error),):
            print(f"{parser.prog}: error: {' '.join(problem.split())}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            # "| head" has read what it wanted; what was written to files is complete or was taken back.
            _forget_stdout()
            return _READER_IS_GONE
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print(f"{parser.prog}: error: not enough memory; work on less at the same time", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; nothing half-written was kept, run the same command again", file=sys.stderr)
        return 130
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _printed(parser: Parser, code: int) -> int:
    """Write what was printed while there is somebody to say that it cannot be; returns the exit code."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _forget_stdout()
        print(f"{parser.prog}: error: cannot write to stdout: {error}; the work is done", file=sys.stderr)
        return 2
    return code


def _reader_is_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more; the pipe of a worker that has died is another matter."""
    try:
        number = sys.stdout.fileno()
    except OSError:
        return False
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(number, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _forget_stdout() -> None:
    """Lead stdout to nowhere, where it is a file of the system and not one that a test has put there."""
    try:
        number = sys.stdout.fileno()
    except OSError:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _end_on_sigterm() -> Any:
    """Let a batch system's SIGTERM clean up as Ctrl-C does.

    Returns:
        The handler that was set before; None outside the main thread, where none can be set.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, and the function that moves it: cases done, cases."""
    from tqdm import tqdm

    with tqdm(desc=what, unit="case", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
