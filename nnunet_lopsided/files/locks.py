"""Locks, so that two processes never write one folder or file at the same time."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from nnunet_lopsided.errors import InputError

LOCK_FILE = ".lopsided.lock"
# Ends the name of the file that is itself the lock, where a file system has none of its own.
HELD = "-held"
# What file systems answer that have no locks of their own.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an existing folder; a process that is killed gives it back.

    Args:
        folder: gets a hidden file while the lock is held.

    Raises:
        InputError: another process holds it, or the folder cannot be written to.
    """
    with _held(folder / LOCK_FILE, folder, 0):
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of this folder; nothing is written where none ever did."""
    if not any(os.path.lexists(folder / name) for name in (LOCK_FILE, LOCK_FILE + HELD)):
        return False
    try:
        with locked(folder):
            return False
    except InputError:
        return True


@contextmanager
def locked_beside(path: Path, seconds: float = 0) -> Iterator[None]:
    """Hold the lock of a file or folder that need not exist, and may be replaced meanwhile.

    Args:
        path: in an existing folder, which gets a hidden file while the lock is held.
        seconds: so long another process is waited for.

    Raises:
        InputError: another process holds it, or the folder cannot be written to.
    """
    with _held(lock_file_beside(path), path, seconds):
        yield


def lock_file_beside(path: Path) -> Path:
    """The file whose lock is that of ``path``."""
    return path.with_name(f".{path.name}.lopsided-lock")


@contextmanager
def _held(lock_file: Path, what: Path, seconds: float) -> Iterator[None]:
    try:
        lock = _acquired(lock_file, seconds)
    except Timeout:
        if not _can_be_made_in(lock_file.parent):
            raise InputError(f"cannot write {what}: no file can be made in {lock_file.parent}") from None
        raise InputError(f"another process is writing {what}{_holder(lock_file)}") from None
    except OSError as error:
        raise InputError(f"cannot write {what}: lock file {lock_file}: {error.strerror or error}") from error
    try:
        yield
    finally:
        # While it is held: whoever opened the file before then sees that it is gone, and makes a new one.
        if sys.platform != "win32":
            lock_file.unlink(missing_ok=True)
        lock.release()
        if sys.platform == "win32":  # an open file cannot be removed there
            with suppress(OSError):
                lock_file.unlink()


def _can_be_made_in(folder: Path) -> bool:
    """Some folders, such as those of /proc, answer as a lock does that another process has just given back."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _holder(lock_file: Path) -> str:
    """Which process holds a lock that is the file itself: one that died on another host never takes it away."""
    for file in (_held_file(lock_file), lock_file):
        with suppress(OSError, ValueError):
            process, host = file.read_text(encoding="utf-8").split()[:2]
            return f": {file} is of process {process} on {host}; remove this file if that process is gone"
    return ""  # a lock of the file system, which ends with its process


def _held_file(lock_file: Path) -> Path:
    return lock_file.with_name(lock_file.name + HELD)


def _acquired(lock_file: Path, seconds: float) -> BaseFileLock:
    lock: BaseFileLock = FileLock(lock_file, timeout=seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # filelock says that it takes a soft lock, as below
            lock.acquire()
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
            raise
        # The empty file that was to be locked, which nobody can lock here. The lock is another file, so that this one
        # is never removed in the moment in which another process makes it its own.
        lock_file.unlink(missing_ok=True)
        # It names host and process, by which the next run sees that a process is dead.
        lock = SoftFileLock(_held_file(lock_file), timeout=seconds)
        lock.acquire()
    return lock
