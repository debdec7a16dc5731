"""Whose folder it is: a demo goes on in its own, and removes what it has written and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folder_record import (
    RECORD_FILE,
    check_ours,
    finish_record,
    is_nobodys_work,
    unrecorded,
)
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.files.locks import HELD, LOCK_FILE, locked
from nnunet_lopsided.nnunet.paths import PATH_VARIABLES

SETTINGS_FILE, SPLITS_FILE = "demo.json", "splits_final.json"
# Folders that steps write, and files of the demo itself.
_FOLDERS = (*PATH_VARIABLES, "predictions", "evaluation", "comparison", "audit", "logs")
_FILES = (SETTINGS_FILE, *_FOLDERS, "table.csv", "table.md", "index.html")
# What a step that is running writes or rewrites; a run that was killed there could not note it.
_OF_A_KILLED_STEP = (
    *("checkpoint_*.pth", "*.damaged", "training_log_*.txt", "debug.json", "progress.png", "lopsided_curves.*"),
    *("*.b2nd", "*.pkl", "*.npz", "*.log"),
)
# What the next run may find of it, too, in the folders that steps write.
_OF_ANY_STEP = (*_OF_A_KILLED_STEP, "*.nii.gz", "*.json", "*.csv", "*.html", "*.png", "table.md")
_LOCKS = (LOCK_FILE, LOCK_FILE + HELD)


@contextmanager
def only_demo(folder: Path) -> Iterator[bool]:
    """Hold the lock of a demo's folder; gives whether the last run there was killed.

    Raises:
        InputError: another process runs a demo in it.
    """
    # A run that ended has removed its lock.
    was_killed = any(os.path.lexists(folder / name) for name in _LOCKS)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            yield was_killed
    except InputError as error:
        if str(error).startswith("another process is writing"):
            raise InputError(f"another lopsided-demo is at work in {folder}") from None
        raise


def remember_kill(folder: Path) -> None:
    """Leave the folder as the kill left it: a run that was refused has released the lock that told of it."""
    (folder / LOCK_FILE).touch()


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something, and no demo."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    if (folder / SETTINGS_FILE).is_file() or not folder.is_dir():
        return
    if not all(is_nobodys_work(path.name) for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no {SETTINGS_FILE}; choose another folder with -o")


def claim(folder: Path, wanted: Mapping[str, object], overwrite: bool, was_killed: bool = False) -> list[str]:
    """Make a folder ours, or go on in it.

    Args:
        folder: an existing one, or one to be made.
        wanted: what the demo is asked to run, as ``demo.json`` holds it.
        overwrite: empty a folder that holds a demo.
        was_killed: whether the last run there was.

    Returns:
        The files in it that somebody else put there meanwhile.

    Raises:
        InputError: it holds something else, or a demo with other settings.
    """
    check_folder(folder)
    if (folder / SETTINGS_FILE).is_file():
        if not overwrite:
            if read_json(folder / SETTINGS_FILE) != wanted:
                raise InputError(f"{folder} holds a demo with other settings; --overwrite starts anew")
            if not (folder / RECORD_FILE).is_file():  # from before there were records: nothing is known of its files
                known = {SETTINGS_FILE, *_LOCKS}
                files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
                finish_record(folder, without=[name for name in files if name not in known])
            return [name for name in unrecorded(folder) if not (was_killed and _is_of_a_step(name))]
        _check_own(folder, was_killed)
        _empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    finish_record(folder)  # before the settings: a kill between the two must not leave a demo that proves nothing
    write_json(folder / SETTINGS_FILE, dict(wanted))
    finish_record(folder)
    return []


def _is_of_a_step(name: str) -> bool:
    """Whether a file, relative to the folder, may be what a step has written."""
    first, _, rest = name.partition("/")
    inside = (first in _FOLDERS and rest) or name in _FILES
    return bool(inside) and any(fnmatch(Path(name).name, pattern) for pattern in _OF_ANY_STEP)


def _check_own(folder: Path, was_killed: bool) -> None:
    """Refuse to remove a folder that holds anything but what a demo wrote: its list of files is the proof."""
    if folder.is_symlink():
        raise InputError(f"{folder} is a link, which is not followed; give the folder that it leads to")
    # A file that was put there while a demo ran is in its list.
    others = sorted(path.name for path in folder.iterdir() if path.name not in _FILES and path.name[0] != ".")
    if others:
        raise InputError(f"{folder} is not replaced: it holds {others[0]}, which lopsided-demo did not write")
    # The halves are put into what other commands have written and noted.
    grows = {SETTINGS_FILE, SPLITS_FILE}
    if was_killed:
        ours = unrecorded(folder) if (folder / RECORD_FILE).is_file() else []
        grows |= {*_OF_A_KILLED_STEP, *(Path(name).name for name in ours if _is_of_a_step(name))}
    try:
        check_ours(folder, [SETTINGS_FILE, RECORD_FILE], grows=grows)
    except InputError as error:
        raise InputError(f"{error}; if it is of a demo that was killed, remove {folder} yourself") from None


def _empty(folder: Path) -> None:
    """Remove what a demo wrote. Killed in the middle, it can begin again: what shows whose folder it is stays.

    The logs, which say what is done, go first.
    """
    kept = {SETTINGS_FILE, RECORD_FILE, *_LOCKS}
    for path in sorted(folder.iterdir(), key=lambda path: path.name != "logs"):
        if path.name in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
