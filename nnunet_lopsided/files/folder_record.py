"""What a folder that this package wrote says about itself, so that nothing else is ever removed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from nnunet_lopsided import __version__
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.locks import LOCK_FILE
from nnunet_lopsided.files.new_files import UNFINISHED

RECORD_FILE = ".lopsided.json"
_TOOL = "nnunet-lopsided"
_SHAPE = {"schema_version": int, "tool": str, "files": {str: (int, type(None))}}
# What file browsers, open tables (LibreOffice) and file systems leave in folders that somebody has looked at.
_TRACES = (".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".directory", ".~lock.*#", ".nfs*", ".fuse_hidden*")
# Files that nobody would miss: these, and what this package itself leaves when it is killed.
_NO_WORK = (*_TRACES, RECORD_FILE, LOCK_FILE, "*.lopsided-lock", f"{UNFINISHED}*")


def begin_record(folder: Path) -> None:
    """Mark a folder as one that is being written: all in it is ours."""
    (folder / RECORD_FILE).write_text(json.dumps({"tool": _TOOL}) + "\n", encoding="utf-8")


def finish_record(folder: Path) -> None:
    """Note all files of the folder with their sizes; the id is a digest of that list.

    The same files always give the same record.
    """
    files = {name: _size(folder / name) for name in sorted(_files(folder)) if name != RECORD_FILE}
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]
    content = {"schema_version": 1, "tool": _TOOL, "version": __version__, "id": digest, "files": files}
    (folder / RECORD_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_ours(folder: Path, marks: Sequence[str], holds: Collection[str] = (), grows: Collection[str] = ()) -> None:
    """Refuse a folder that is not wholly what this package wrote.

    A folder from before there were records is ours if it holds the marker files and nothing that such folders do not.

    Args:
        folder: an existing one.
        marks: files that every folder of this kind holds.
        holds: patterns of the names in such a folder, for those without a record; none: any.
        grows: patterns of names of files that other commands, nnU-Net's too, add to such a folder or change in it.

    Raises:
        InputError: it is another folder, or holds a file that this package did not write or that has been changed
            since; the first is named.
    """
    missing = next((mark for mark in marks if not (folder / mark).is_file()), None)
    if missing:
        raise InputError(f"{folder} is not replaced: it holds no {missing}, so it was not made by this command")
    if (folder / RECORD_FILE).is_file():
        _check_recorded(folder, grows)
        return
    for name in sorted(os.listdir(folder)) if holds else ():
        if not (_matches(name, (*holds, *grows)) or is_nobodys_work(name)):
            raise InputError(f"{folder} is not replaced: it holds {name}, which this command did not write")


def remove_ours(folder: Path) -> None:
    """Remove a folder that is marked as ours, its record last: a kill leaves what the next run can remove.

    A link is never followed; a folder without a record is removed only if it is empty.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    if (folder / RECORD_FILE).is_file():
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name != RECORD_FILE:
                os.unlink(entry.path)
        (folder / RECORD_FILE).unlink()
    with suppress(OSError):  # not empty, so not ours
        folder.rmdir()


def is_trace(name: str) -> bool:
    """Whether a file is there only because somebody has looked into its folder.

    Example:
        >>> [is_trace(name) for name in (".DS_Store", ".~lock.cases.csv#", "cases.csv", ".notes")]
        [True, True, False, False]
    """
    return _matches(name, _TRACES)


def is_nobodys_work(name: str) -> bool:
    """Whether a file may be removed with its folder although no command wrote it there; see :func:`is_trace`."""
    return _matches(name, _NO_WORK)


def _check_recorded(folder: Path, grows: Collection[str]) -> None:
    recorded: dict[str, int | None] = read_json(folder / RECORD_FILE, _SHAPE)["files"]
    for name in sorted(_files(folder)):
        base = name.rpartition("/")[2]
        if _matches(base, grows) or is_nobodys_work(base):
            continue
        if name not in recorded:
            raise InputError(f"{folder} is not replaced: it holds {name}, which this command did not write")
        if recorded[name] != _size(folder / name):
            raise InputError(f"{folder} is not replaced: {name} has been changed since this command wrote it")
    for inner in _recorded_folders(folder):
        _check_recorded(inner, grows)


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _size(file: Path) -> int | None:
    """Bytes of a file; None for a link, which has no size of its own."""
    return None if file.is_symlink() else file.stat().st_size


def _files(folder: Path) -> Iterator[str]:
    """Files and links below a folder, relative to it; not those of folders inside that have records of their own."""
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        folders[:] = [name for name in folders if not os.path.isfile(os.path.join(parent, name, RECORD_FILE))]
        for name in (*files, *links):
            yield Path(parent, name).relative_to(folder).as_posix()


def _recorded_folders(folder: Path) -> Iterator[Path]:
    for parent, folders, _ in os.walk(folder):
        inner = [name for name in folders if os.path.isfile(os.path.join(parent, name, RECORD_FILE))]
        folders[:] = [name for name in folders if name not in inner]
        yield from (Path(parent, name) for name in inner if not os.path.islink(os.path.join(parent, name)))
