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
from contextvars import ContextVar
from copy import copy
from types import FrameType
from typing import Any, NoReturn, TypeAlias

from nnunet_lopsided import __version__
from nnunet_lopsided.errors import InputError, InputErrors

# As a shell says that SIGPIPE has ended a program.
_READER_IS_GONE = 141
_SignalHandler: TypeAlias = Callable[[int, FrameType | None], object] | int | signal.Handlers


# Where a parser is asked for instead of the work, see parser_of.
_PARSER_WANTED = ContextVar("parser_wanted", default=False)


# The attribute of an option with those of its names that help leaves out.
_NOT_SHOWN = "names_not_shown"


def not_shown(action: argparse.Action, *names: str) -> None:
    """Leave names of an option out of its help: what it was called before, or can be called too."""
    setattr(action, _NOT_SHOWN, names)


class _Formatter(argparse.HelpFormatter):
    """Shows one spelling of an option where others are kept for old scripts."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = [name for name in action.option_strings if name not in getattr(action, _NOT_SHOWN, ())]
        if len(shown) < len(action.option_strings):
            action = copy(action)
            action.option_strings = shown
        return super()._format_action_invocation(action)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage that argparse puts before it; so do its sub-commands.

    Every parser has ``--version``, and the examples of :mod:`nnunet_lopsided.commands._examples` in its help.
    Numbers are plain digits: Python's own ``int`` takes ``8_02``, `` 802`` and digits of every script.
    """

    # Any: what argparse's own constructor takes, which add_parser() calls with names of its own.
    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        super().__init__(*args, **options)
        self.register("type", int, _whole_number)
        self.register("type", float, _number)
        version = f"nnunet-lopsided {__version__}"
        self.add_argument("--version", action="version", version=version, help="print the version and exit")

    def format_help(self) -> str:
        from nnunet_lopsided.commands._examples import EXAMPLES

        lines = [f"  {line}" for line in EXAMPLES.get(self.prog, ())]
        return super().format_help() + ("\n".join(["\nexamples:", *lines, ""]) if lines else "")

    def all_actions(self) -> Iterator[argparse.Action]:
        """Its arguments and those of its sub-commands."""
        for action in self._actions:
            yield action
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser.all_actions()

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
    if _PARSER_WANTED.get():
        raise _ParserFound(parser)
    before = _end_on_sigterm()
    try:
        return _printed(parser, work(_parsed(parser, argv)))
    except InputError as error:
        for problem in error.problems if isinstance(error, InputErrors) else (str(error),):
            # In one line, whatever a library or a path has put into it: logs are read by line.
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


class _ParserFound(Exception):
    """Carries the parser of a command to whoever asked for it."""

    def __init__(self, parser: Parser) -> None:
        super().__init__(parser.prog)
        self.parser = parser


def parser_of(main: Callable[[list[str]], int], argv: list[str]) -> Parser:
    """The parser with which a command would read its arguments; nothing is done.

    Args:
        main: of the command's module; it calls :func:`run`.
        argv: the first words, where they choose the parser.
    """
    token = _PARSER_WANTED.set(True)
    try:
        main(argv)
    except _ParserFound as found:
        return found.parser
    finally:
        _PARSER_WANTED.reset(token)
    raise RuntimeError(f"{main} has not called run")


def _parsed(parser: Parser, argv: list[str] | None) -> argparse.Namespace:
    """The arguments; help and version are written out before the program ends, while a reader that is gone is told."""
    try:
        return parser.parse_args(argv)
    except SystemExit:
        sys.stdout.flush()
        raise


def _printed(parser: Parser, code: int) -> int:
    """Write what was printed while there is somebody to say that it cannot be; returns the exit code."""
    try:
        # Here and not when Python ends, which would say it in its own way.
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
    # No events are asked for: errors are told in any case.
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


def _end_on_sigterm() -> _SignalHandler | None:
    """Let a batch system's SIGTERM clean up as Ctrl-C does.

    Returns:
        The handler that was set before; None outside the main thread, where none can be set.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar, and the function that moves it: cases done, cases."""
    from nnunet_lopsided.progress import progress_bar as bar_of

    with bar_of(title=what, unit="case", leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
