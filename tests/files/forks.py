"""Real processes for tests, started by a fork: a new interpreter takes seconds on a slow machine."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def started(work: Callable[[], int]) -> int:
    """Start a process that does some work and ends with the exit code that it returns; returns its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(processes: Sequence[int]) -> list[int]:
    """Wait for processes; returns their exit codes, that of a signal as a negative number."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def killed_after(n_calls: int) -> None:
    """Let the n-th call of any of these kill this process, before it does anything."""
    left = n_calls

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    for name in ("mkdir", "rename", "write_text", "unlink", "rmdir"):
        setattr(Path, name, counted(getattr(Path, name)))
    for name in ("unlink", "rmdir", "replace"):
        setattr(os, name, counted(getattr(os, name)))
