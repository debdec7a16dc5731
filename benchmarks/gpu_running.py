"""Parts of a benchmark under a time budget: each in a process of its own, every number on the disk at once.

Nothing here imports PyTorch, and the process that starts the parts never touches a GPU: so parts may be forked from it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from nnunet_lopsided.files.json import write_json

StartMethod = Literal["fork", "spawn"]
Number = float | int | str | bool | None | Mapping[str, "Number"] | Sequence["Number"]
Report = Callable[[str, Number], None]
RESERVE_S = 5.0  # of the budget, to end a part and write what is known


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every part is told.

    Attributes:
        device: ``cuda`` or ``cpu``.
        rehearsal: tiny sizes, whose numbers mean nothing.
        scratch: a folder for datasets and files, removed at the end; nnU-Net's three paths are in it.
        n_cpus: processes that may work at the same time.
        seconds: how long this part may take.
    """

    device: str
    rehearsal: bool
    scratch: Path
    n_cpus: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the benchmark.

    Attributes:
        name: for ``--only``.
        measures: what, in a line.
        work: does it, and reports each number by name as soon as it is known. A function of a module, which a fresh
            process can import.
        estimate_s: seconds on a GPU, a guess: the part is skipped where less is left.
        limit_s: seconds after which it is ended on a GPU.
        needs: names of parts without which it cannot work.
    """

    name: str
    measures: str
    work: Callable[[Settings, Report], None]
    estimate_s: float
    limit_s: float
    needs: tuple[str, ...] = ()


@dataclass
class Record:
    """The JSON file, written anew with every number and never seen half written.

    Attributes:
        path: of the file.
        content: what it holds.
    """

    path: Path
    content: dict[str, Number]
    parts: dict[str, dict[str, Number]] = field(default_factory=dict)

    def save(self) -> None:
        write_json(self.path, {**self.content, "parts": self.parts})

    def update(self, part: str, **values: Number) -> None:
        self.parts.setdefault(part, {}).update(values)
        self.save()


def aimed(value: float, *, at_most: float | None = None, at_least: float | None = None) -> dict[str, Number]:
    """A number beside its aim.

    Example:
        >>> aimed(1.0312, at_most=1.02)
        {'value': 1.031, 'aim': 'at most 1.02', 'met': False}
    """
    met = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
    limits = (("at least", at_least), ("at most", at_most))
    words = [f"{word} {limit:g}" for word, limit in limits if limit is not None]
    return {"value": rounded(value), "aim": ", ".join(words), "met": met}


def rounded(value: float) -> float:
    """Four digits, more than any of these numbers is sure of."""
    return float(f"{value:.4g}")


def run_part(
    part: Part, settings: Settings, record: Record, log: Path, method: StartMethod = "fork", end: float | None = None
) -> str:
    """Run one part in a process of its own, and end it, with all that it has started, when its time is over.

    Args:
        part: which.
        settings: for it; ``seconds`` is its limit.
        record: gets its numbers and how it went.
        log: what it prints is appended to it.
        method: how the process is made.
        end: ``time.monotonic()`` at which the whole budget is over, for what is printed; None: not known.

    Returns:
        ``done``, ``failed`` or ``timed out``. An interrupted one is recorded, too, before KeyboardInterrupt goes on.
    """
    context = multiprocessing.get_context("spawn") if method == "spawn" else multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    start, cpu_start = time.monotonic(), _cpu_seconds()
    numbers: dict[str, Number] = {}
    state, message = "failed", ""
    process = context.Process(target=_child, args=(part, settings, theirs, log))
    try:
        # Within: an interrupt that comes between the two must not leave it running on record.
        record.update(part.name, state="running", measures=part.measures, estimate_s=part.estimate_s, numbers={})
        process.start()
        theirs.close()
        while True:
            if _interrupted.is_set():
                raise KeyboardInterrupt
            left = start + settings.seconds - time.monotonic()
            if left <= 0:
                state, message = "timed out", f"ended after {settings.seconds:.0f} s, with what it had by then"
                break
            alive = process.is_alive()  # asked before its last word is looked for
            try:
                if not ours.poll(min(left, 1) if alive else 0):
                    if alive:
                        continue
                    raise EOFError  # what it has started may hold the other end of the pipe
                name, value = ours.recv()
            except EOFError:
                process.join(10)
                message = f"its process ended without a last word, exit code {process.exitcode}"
                break
            if name == _DONE:
                state = "done"
                break
            if name == _FAILED:
                message = str(value)
                break
            if settings.rehearsal and isinstance(value, Mapping):
                value = {key: item for key, item in value.items() if key != "met"}  # of tiny sizes it means nothing
            numbers[name] = value
            record.update(part.name, numbers=numbers)
            print(f"  {name}: {_shown(value)}", flush=True)
    except KeyboardInterrupt:
        state, message = "interrupted", "stopped by Ctrl-C or SIGTERM"
        raise
    finally:
        _end(process)
        ours.close()
        seconds = rounded(time.monotonic() - start)
        cpu_seconds = rounded(_cpu_seconds() - cpu_start)
        ended: dict[str, Number] = {"state": state, "seconds": seconds, "cpu_seconds": cpu_seconds, "message": message}
        try:
            record.update(part.name, **ended)
        except KeyboardInterrupt:  # that came while it was written
            record.update(part.name, **ended)
            raise
        left_over = "" if end is None else f", {max(0.0, end - time.monotonic()):.0f} s left"
        print(f"{part.name}: {state}, {seconds:g} s{left_over}{': ' + message if message else ''}", flush=True)
    return state


def _cpu_seconds() -> float:
    """Of processes that have ended and been waited for."""
    times = os.times()
    return times.children_user + times.children_system


_interrupted = threading.Event()


def interrupt(*_: object) -> None:
    """Handler of signals: as Ctrl-C, and remembered.

    What is raised while a process is made may be lost: Python calls functions of its libraries there and drops what
    they raise.
    """
    _interrupted.set()
    raise KeyboardInterrupt


_DONE, _FAILED = "\0done", "\0failed"


def _child(part: Part, settings: Settings, parent: Connection, log: Path) -> None:
    """Body of the process of a part: a session of its own, its output in the log."""
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.stdout.flush()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)  # whatever they were: pytest's are no files
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    print(f"\n---- {part.name}", flush=True)
    try:
        part.work(settings, lambda name, value: parent.send((name, value)))
    except Exception as error:  # of any kind: the other parts go on
        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        parent.send((_FAILED, f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]))
    else:
        parent.send((_DONE, None))
    sys.stdout.flush()
    sys.stderr.flush()
    # No waiting for loaders or threads that a part has left: the parent ends the session.
    os._exit(0)


def _end_with_parent() -> None:
    """End this session when the process that started it is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)


def _end(process: multiprocessing.process.BaseProcess) -> None:
    """End a part's process and all processes of its session."""
    if process.pid is None:
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sign)
        if sign == signal.SIGTERM:
            process.join(2)
    process.join(5)
    if process.is_alive():  # it was ended before it had a session
        process.kill()
        process.join(5)


def _shown(value: Number) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
