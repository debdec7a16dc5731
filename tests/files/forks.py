"""Real processes for tests, started by a fork: a new interpreter takes seconds on a slow machine."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence


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
