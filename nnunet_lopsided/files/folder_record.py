"""What a folder that this package wrote says about itself, so that nothing else is ever removed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from nnunet_lopsided import __version__
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import Shape, check_shape, file_digest, read_json, write_json
from nnunet_lopsided.files.locks import HELD, LOCK_FILE
from nnunet_lopsided.files.new_files import UNFINISHED

RECORD_FILE = ".lopsided.json"
_TOOL = "nnunet-lopsided"
_SHAPE: Shape = {"schema_version": int, "tool": str, "id": str, "files": {str: (int, type(None))}}
# What file browsers, open tables (LibreOffice) and file systems leave in folders that somebody has looked at.
_TRACES = (".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".directory", ".~lock.*#", ".nfs*", ".fuse_hidden*")
# Files that nobody would miss: these, and what this package itself leaves when it is killed.
_LOCKS = (LOCK_FILE, f"{LOCK_FILE}{HELD}", "*.lopsided-lock", f"*.lopsided-lock{HELD}")
_NO_WORK = (*_TRACES, RECORD_FILE, *_LOCKS, f"{UNFINISHED}*")
# Of larger files only some parts are read to note what they hold; of them a later date, too, says that they were
# changed.
_DIGESTED_BYTES = 2**26
_N_PARTS, _PART_BYTES, _OF_PARTS = 16, 2**20, "parts:"


def begin_record(folder: Path) -> None:
    """Mark a folder as one that is being written: all in it is ours."""
    (folder / RECORD_FILE).write_text(json.dumps({"tool": _TOOL}) + "\n", encoding="utf-8")


def finish_record(folder: Path, without: Collection[str] = ()) -> None:
    """Note all files of the folder: their sizes, and digests of what they hold; the id is a digest of that list.

    The same files always give the same record.

    Args:
        folder: to which the record is written, or written anew.
        without: files in it that are somebody else's, relative to it.
    """
    names = sorted(name for name in _files(folder) if name != RECORD_FILE and name not in without)
    files = {name: _size(folder / name) for name in names}
    digests = {name: _digest(folder / name) for name in names}
    content = {"schema_version": 1, "tool": _TOOL, "version": __version__, "id": _id(files, digests)}
    write_json(folder / RECORD_FILE, {**content, "files": files, "digests": digests})


def unrecorded(folder: Path) -> list[str]:
    """Files of a folder with a record that this does not list, sorted, relative to the folder."""
    recorded = _read_record(folder)[0]
    return sorted(name for name in _files(folder) if name not in recorded and not is_nobodys_work(Path(name).name))


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
    recorded, digests = _read_record(folder)
    written = (folder / RECORD_FILE).stat()
    for name in sorted(_files(folder)):
        base = name.rpartition("/")[2]
        if _matches(base, grows) or is_nobodys_work(base):
            continue
        if name not in recorded:
            raise InputError(f"{folder} is not replaced: it holds {name}, which this command did not write")
        if recorded[name] != _size(folder / name) or _has_changed(folder / name, written, digests.get(name), digests):
            raise InputError(f"{folder} is not replaced: {name} has been changed since this command wrote it")
    for inner in _recorded_folders(folder):
        _check_recorded(inner, grows)


def _has_changed(file: Path, written: os.stat_result, digest: str | None, digests: Mapping[str, str]) -> bool:
    """Whether a file of the recorded size holds something else than it did; read only if it is newer than the record.

    A copied folder has new dates and the same content. Those of a large file alone are no proof that it is the same.
    """
    now = file.lstat()
    is_newer = now.st_mtime_ns > written.st_mtime_ns
    if digest is None:  # a large file in a record from before there were digests of parts, or of any
        return is_newer and bool(digests)
    if is_newer and digest.startswith(_OF_PARTS):
        return True
    # The date of a change of the file's data or names cannot be set back.
    return (file.is_symlink() or is_newer or now.st_ctime_ns > written.st_ctime_ns) and _digest(file) != digest


def _read_record(folder: Path) -> tuple[dict[str, int | None], dict[str, str]]:
    """Sizes and digests of the files in a folder's record.

    Raises:
        InputError: it is damaged, or was edited.
    """
    content = read_json(folder / RECORD_FILE, _SHAPE)
    digests = content.get("digests", {})
    check_shape(digests, {str: str}, folder / RECORD_FILE, "digests")
    if content["id"] != _id(content["files"], digests):
        raise InputError(f"{folder} is not replaced: {RECORD_FILE}, the list of its files, has been changed")
    return content["files"], digests


def _id(files: Mapping[str, int | None], digests: Mapping[str, str]) -> str:
    listed = [files, digests] if digests else files  # as before there were digests
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _size(file: Path) -> int | None:
    """Bytes of a file; None for a link, which has no size of its own."""
    return None if file.is_symlink() else file.stat().st_size


def _digest(file: Path) -> str:
    """Of what a file holds, of parts of it where it is large, or of where a link leads."""
    if file.is_symlink():
        return hashlib.sha256(os.fsencode(os.readlink(file))).hexdigest()
    size = file.stat().st_size
    if size <= _DIGESTED_BYTES:
        return file_digest(file)
    digest = hashlib.sha256()
    with file.open("rb") as content:
        for i in range(_N_PARTS):  # the first part begins with the file, the last one ends with it
            content.seek(max(size - _PART_BYTES, 0) * i // (_N_PARTS - 1))
            digest.update(content.read(_PART_BYTES))
    return _OF_PARTS + digest.hexdigest()


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
