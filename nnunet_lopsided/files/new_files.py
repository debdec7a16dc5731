"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunet_lopsided.files.locks import locked_beside

UNFINISHED = ".unfinished-"
_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and a flag of Linux' renameat2
_NAME_MAX = 180  # bytes of the name that are kept; file systems take 255 in all


@contextmanager
def new_file(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """A path to write a file to; when the block ends, the file becomes ``path``.

    The name is hidden, nobody else's, in the same folder, and ends as that of ``path`` does, so that writers choose the
    right format. When the block raises, nothing is left and what was there before stays. What a killed process left of
    the same file is removed.

    Args:
        path: an existing file is replaced, a link too, not what it leads to.
        durable: have it on the disk before the former file goes; for what cannot be made again.

    Raises:
        OSError: the file could not be written; it names ``path``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with new_file(Path(folder) / "a.txt") as unfinished:
        ...         _ = unfinished.write_text("whole")
        ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
        [('a.txt', 'whole')]
    """
    path = Path(path)
    kept_name = os.fsdecode(os.fsencode(path.name)[-_NAME_MAX:])
    begin = f"{UNFINISHED}{_machine()}-{os.getpid()}-"
    unfinished = path.with_name(f"{begin}{secrets.token_hex(4)}-{kept_name}")
    try:
        # An unfinished folder is removed as a whole, and may get thousands of files.
        if not any(part.startswith(UNFINISHED) for part in path.parts):
            _remove_left_over(path.parent, kept_name)
        yield unfinished
        if durable:
            sync(unfinished)
        os.replace(unfinished, path)
        if durable:
            sync(path.parent)
    except OSError as error:
        if error.filename is None or Path(os.fsdecode(error.filename)) == unfinished:
            named = OSError(error.errno, error.strerror, str(path)) if error.errno else OSError(f"{path}: {error}")
            raise named from error
        raise
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


@contextmanager
def locked_file(path: Path, seconds: float = 60) -> Iterator[None]:
    """Hold the lock of a file while it is read, changed and written, so that no other process' change is lost.

    Args:
        path: the file; it need not exist, its folder must.
        seconds: so long another process is waited for.

    Raises:
        InputError: another process holds the lock for longer.
    """
    with locked_beside(path, seconds):
        yield


def sync(path: Path) -> None:
    """Have a file, or the list of a folder's files, written to the disk itself."""
    is_folder, windows = path.is_dir(), os.name == "nt"
    if is_folder and windows:  # folders cannot be opened there
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not is_folder:  # some network file systems refuse it for folders
            raise
    finally:
        os.close(handle)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders of one file system change names, in one step that a kill cannot halve.

    Returns:
        False: nothing was done, the system or the file system has no such step.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # another system than Linux, or an old one
        return False
    names = (ctypes.c_char_p(os.fsencode(path.absolute())) for path in (one, other))
    return bool(rename(_HERE, next(names), _HERE, next(names), _RENAME_EXCHANGE) == 0)


def _machine() -> str:
    """Short name of what process ids are counted in: this host, or this container."""
    names = [platform.node()]
    with suppress(OSError):
        names.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:8]


def _remove_left_over(folder: Path, name: str) -> None:
    """Remove what processes of this machine that are gone left of a file."""
    pattern = re.compile(re.escape(f"{UNFINISHED}{_machine()}-") + r"([0-9]+)-[0-9a-f]{8}-" + re.escape(name))
    for entry in os.scandir(folder):
        match = pattern.fullmatch(entry.name)
        if match and not _is_alive(int(match[1])) and entry.is_file(follow_symlinks=False):
            with suppress(OSError):
                os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # signal 0 would end it there
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
