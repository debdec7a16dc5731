"""Folders that appear under their name only when they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json


@contextmanager
def new_folder(final: Path, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to write into; it becomes ``final`` when the block ends. As :func:`new_raw_dataset`.

    Args:
        final: in an existing folder.
        marker: name of a file every folder of this kind holds; only a folder with this file is ever replaced.
        overwrite: replace ``final`` where it exists.

    Raises:
        InputError: the folder exists and may not be replaced, or another process is writing it.
    """

    def refuse() -> None:
        if final.exists() and not overwrite:
            raise InputError(f"{final} exists; --overwrite replaces it if this command made it")

    with _new_folder(final, marker, refuse) as folder:
        yield folder


@contextmanager
def _new_folder(final: Path, marker: str, refuse: Callable[[], None]) -> Iterator[Path]:
    root = final.parent
    unfinished, replaced = root / f".unfinished-{final.name}", root / f".replaced-{final.name}"
    if replaced.is_dir() and not final.exists():  # killed between the two renames below
        replaced.rename(final)
    refuse()
    if final.exists() and not (final / marker).is_file():
        raise InputError(f"{final} is not replaced: it holds no {marker}, so it was not made by this command")

    unfinished.mkdir(exist_ok=True)
    with locked(unfinished):
        try:
            shutil.rmtree(replaced, ignore_errors=True)
            for left_over in unfinished.iterdir():
                shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
            yield unfinished
            refuse()
            if final.exists():
                final.rename(replaced)
            unfinished.rename(final)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an advisory lock on a folder, where the system has such locks; a killed process gives it back.

    Raises:
        InputError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is writing {folder}") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def check_output_folder(
    folder: Path,
    overwrite: bool,
    inputs: Sequence[Path],
    marks: tuple[str, str] = ("summary.json", "cases.csv"),
    command: str = "lopsided-eval",
) -> None:
    """Refuse a target that would destroy something other than an earlier output of the command.

    Args:
        folder: where the results are to go.
        overwrite: replace an earlier output there.
        inputs: folders that must survive.
        marks: two files that every earlier output of this kind holds, the first with a ``schema_version`` (nnU-Net
            writes a summary.json too, among predictions); only a folder with both is ever replaced.
        command: that makes them, for messages.

    Raises:
        InputError: the folder exists without ``overwrite``, is a file, holds something other than such an output,
            contains one of the inputs, or cannot be created.
    """
    target = folder.resolve()
    for path in inputs:
        if target == path.resolve() or target in path.resolve().parents:
            raise InputError(f"output folder {folder} contains the input {path}")
    if folder.is_dir():
        if not any(folder.iterdir()):
            return
        if not overwrite:
            raise InputError(f"output folder exists: {folder}; --overwrite replaces it")
        if not _is_earlier_output(folder, marks):
            raise InputError(
                f"output folder {folder} holds no {marks[0]} of {command} with {marks[1]} beside it; only an earlier "
                "output of it is replaced"
            )
    elif folder.exists():
        raise InputError(f"output folder {folder} is a file")


def _is_earlier_output(folder: Path, marks: tuple[str, str]) -> bool:
    if not (folder / marks[1]).is_file():
        return False
    try:
        content = read_json(folder / marks[0])
    except (OSError, InputError):
        return False
    return isinstance(content, dict) and isinstance(content.get("schema_version"), int)


@contextmanager
def new_output_folder(
    folder: Path,
    overwrite: bool,
    inputs: Sequence[Path],
    marks: tuple[str, str] = ("summary.json", "cases.csv"),
    command: str = "lopsided-eval",
) -> Iterator[Path]:
    """An empty folder to write an output to; it becomes ``folder`` when the block ends.

    When the block raises, nothing is left and what was there before stays.

    Args:
        folder, overwrite, inputs, marks, command: as for :func:`check_output_folder`.

    Raises:
        InputError: the target is refused, or cannot be written.
    """
    check_output_folder(folder, overwrite, inputs, marks, command)
    folder = folder.absolute()
    unfinished, former = (folder.with_name(f".{word}-{folder.name}") for word in ("unfinished", "former"))
    try:
        for leftover in (unfinished, former):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
        except OSError as error:
            # What is read meanwhile (a share that went away) is not what is written.
            if not _lies_in(error.filename, unfinished) and error.filename is not None:
                raise InputError(f"cannot read {error.filename}: {error.strerror or error}") from error
            raise
        if folder.is_dir():
            folder.rename(former)
        unfinished.rename(folder)
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write output folder {folder}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _lies_in(path: Any, folder: Path) -> bool:
    return isinstance(path, str | Path) and folder in Path(path).parents
