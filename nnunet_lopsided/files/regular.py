"""Files that can be read: those that are there, are files, and have names that every library can be told."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nnunet_lopsided.errors import InputError


def read_text(path: Path) -> str:
    """The text of a file that a user wrote, in UTF-8 with or without a byte order mark.

    Raises:
        InputError: it is missing, no file, cannot be read, or is not in UTF-8.
    """
    check_regular(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8, found byte 0x{error.object[error.start]:02x}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def check_regular(path: Path, kind: str = "file") -> None:
    """Refuse what reading would wait on for ever (a pipe), or what ends the process (SimpleITK, given such a name).

    Args:
        path: links are followed.
        kind: what it is called in the message.

    Raises:
        InputError: nothing is there, it is no file, or its name is not UTF-8.
    """
    check_name(path, kind)
    try:
        # Not Path.is_file(), which does not tell a folder or a pipe from nothing at all.
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{kind} not found: {path}") from None
    except (OSError, ValueError) as error:  # no permission, a circle of links, a NUL character
        raise InputError(f"cannot read {kind} {path}: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(mode):
        what = "folder" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device"
        raise InputError(f"{kind} not found: {path} is a {what}, expected a file")


def check_name(path: Path, kind: str = "file") -> None:
    """Refuse a name that is not UTF-8: of what is written too, as it could not be read again.

    Raises:
        InputError: see above.
    """
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{kind} {os.fspath(path)!a}: expected a name in UTF-8; rename it") from None
