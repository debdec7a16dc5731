"""Running a command of this environment with its output in a log file: for the demo, audits and studies."""

from __future__ import annotations

import multiprocessing.connection
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # of Linux' prctl
# $0 is the process whose session is to end: by request, and then by force.
_GUARD = 'read line; kill -s TERM -- "-$0"; sleep 5; kill -s KILL -- "-$0"'
# What nnU-Net says when one of its loading processes has ended.
_LOADER_IS_GONE = "background workers are no longer alive"


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
    """Run a command to its end. Nothing that it has started outlives it, or this process, however they end.

    Args:
        command: program and arguments; it cannot ask anything, its input is empty.
        log: gets stdout and stderr.
        environment: variables set beside those of this process.
        every_second: called while the command runs; if it raises, the command and its children are ended.
        cwd: the command's working directory; None: this process's.
        append: keep what the log holds.

    Returns:
        The exit code; 127 if there is no such program; that of a signal is negative, as in :mod:`subprocess`.
    """
    with log.open("ab" if append else "wb") as output:
        try:
            # A session of its own, by which loaders that have lost their parent are still found.
            process = subprocess.Popen(
                [program_path(command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                cwd=cwd,
                preexec_fn=WITH_PARENT,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            output.write(f"{error}\n".encode())
            return 127
        with _guarded(process):
            while True:
                try:
                    return process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    every_second()


@contextmanager
def _guarded(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """When the block ends, the process and all of its session end; so they do when this process is killed.

    Against a kill of this process there is a shell that waits for the end of a pipe which this process alone holds.
    """
    guard = None
    if os.name == "posix":
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, str(process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield
    except BaseException:
        end_with_children(process)
        raise
    finally:
        _end_session(process.pid)
        if guard is not None and guard.stdin is not None:
            guard.kill()
            guard.wait()
            guard.stdin.close()


def _end_session(leader: int, seconds: float = 5) -> None:
    """End what is left of a session whose first process is gone: by request, and after ``seconds`` by force.

    The request comes first because multiprocessing's resource tracker, which ignores it, then frees shared memory.
    """
    if os.name != "posix":
        return
    end = time.monotonic() + seconds
    with suppress(ProcessLookupError, PermissionError):  # nothing is left; macOS says so of zombies
        os.killpg(leader, signal.SIGTERM)
        while time.monotonic() < end:
            os.killpg(leader, 0)
            if not _has_living(leader):  # where nobody collects the dead, as in many containers, they stay in the group
                return
            time.sleep(0.05)
        os.killpg(leader, signal.SIGKILL)


def _has_living(group: int) -> bool:
    """Whether a process group has a member that still runs; True where the system does not tell (it is not Linux)."""
    stats = list(Path("/proc").glob("[0-9]*/stat"))
    for stat in stats:
        with suppress(OSError, ValueError):
            # The name before the last bracket may hold anything, brackets too. Z and X: dead.
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "ZX":
                return True
    return not stats


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    return (text.replace("\r", "\n").strip().splitlines() or ["no output"])[-1].strip()


def why_it_failed(exit_code: int, log_line: str, cure: str) -> str:
    """Why a command failed, in one line.

    Args:
        exit_code: of :func:`run_logged`.
        log_line: the last of its log.
        cure: what gives it more memory, or lets it do with less.

    Example:
        >>> why_it_failed(1, "ValueError: no labels", "give fewer -np")
        'ValueError: no labels'
        >>> why_it_failed(-9, "Epoch 3", "give fewer -np")
        'killed by signal 9 (SIGKILL), as the system does when memory runs out: give fewer -np; last line: Epoch 3'
    """
    number = -exit_code if exit_code < 0 else exit_code - 128  # a shell's way to say it
    if number in set(signal.Signals):
        killed = f"killed by signal {number} ({signal.Signals(number).name})"
        if number == signal.SIGKILL:
            killed += f", as the system does when memory runs out: {cure}"
        return f"{killed}; last line: {log_line}"
    if _LOADER_IS_GONE in log_line:
        killed = "a loading process was killed, as the system does when memory runs out"
        return f"{killed}: {cure}; last line: {log_line}"
    return log_line


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
    # Listed before any of them ends: the children of a dead process are the system's, and no longer found.
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


def end_with_parent() -> None:
    """Let this worker process of a pool end when the process that started the pool is gone, however it ended.

    A worker waits for work for ever otherwise, as it holds the writing end of its own pipe too. For ``initializer`` of
    process pools.
    """
    parent = multiprocessing.parent_process()

    def wait_for_its_end() -> None:
        if parent is not None:
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=wait_for_its_end, daemon=True).start()


def _descendants(pid: int) -> list[int]:
    """The children of a process, and theirs, where the system tells (Linux)."""
    descendants: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, file.read_text().split()):
                descendants += [child, *_descendants(child)]
    return descendants
