"""Running a command of this environment with its output in a log file: for the demo, audits and studies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def program_path(name: str) -> str:
    """Where a program is: beside this Python, so that no other environment's is taken, or else as the system finds it;
    ``python`` is this Python.
    """
    if name == "python":
        return sys.executable
    return shutil.which(name, path=os.path.dirname(sys.executable)) or name


def run_logged(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    every_second: Callable[[], None] = lambda: None,
    *,
    cwd: Path | None = None,
    append: bool = False,
) -> int:
    """Run a command to its end.

    Args:
        command: program and arguments.
        log: gets stdout and stderr.
        environment: variables set beside those of this process.
        every_second: called while the command runs; if it raises, the command and its children are ended.
        cwd: the command's working directory; None: this process's.
        append: keep what the log holds.

    Returns:
        The exit code; 127 if there is no such program.
    """
    with log.open("ab" if append else "wb") as output:
        try:
            process = subprocess.Popen(
                [program_path(command[0]), *command[1:]],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                cwd=cwd,
                preexec_fn=WITH_PARENT,
            )
        except FileNotFoundError as error:
            output.write(f"{error}\n".encode())
            return 127
        try:
            while True:
                try:
                    return process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    every_second()
        except BaseException:
            end_with_children(process)
            raise


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    return (text.replace("\r", "\n").strip().splitlines() or ["no output"])[-1].strip()


def _die_with_parent() -> None:
    """Let Linux end this process when the one that started it dies, however it dies."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


# For ``preexec_fn`` of a process that the main thread starts.
WITH_PARENT = _die_with_parent if sys.platform == "linux" else None


def end_with_children(process: subprocess.Popen[bytes], seconds: float = 10) -> None:
    """End a process and all it has started: by request, and after ``seconds`` by force.

    nnU-Net's loading processes do not notice when their parent is gone.
    """
    family = [process.pid, *_descendants(process.pid)]
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family[1:]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    """Where the system tells (Linux)."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, file.read_text().split()):
                found += [child, *_descendants(child)]
    return found
