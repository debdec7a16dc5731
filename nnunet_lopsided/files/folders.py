"""Folders that appear under their name only when they are complete.

One transaction for all of them. Under a lock, the new folder is written beside the final one, under a hidden name that
nobody else has; then the two change names in one step, and the earlier one is removed. Where the system cannot do that
(macOS, some network file systems), or the earlier one is a link, it first gets another hidden name. A kill at any
moment loses nothing: the next run for the same target brings the earlier folder back, or removes what is left. Links
are never followed, and only what this package wrote is ever removed.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folder_record import (
    RECORD_FILE,
    begin_record,
    check_ours,
    finish_record,
    is_trace,
    remove_ours,
)
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.locks import locked, locked_beside
from nnunet_lopsided.files.new_files import UNFINISHED, exchange, sync
from nnunet_lopsided.files.regular import check_name

__all__ = ["check_holds_only", "check_new_folder", "check_output_folder", "locked", "new_folder", "new_output_folder"]

_REPLACED = ".replaced-"


@contextmanager
def new_folder(
    final: Path,
    marker: str,
    overwrite: bool = False,
    *,
    check: Callable[[], None] = lambda: None,
    holds: Collection[str] = (),
    grows: Collection[str] = (),
) -> Iterator[Path]:
    """An empty folder to write into; it becomes ``final`` when the block ends. As :func:`new_raw_dataset`.

    Args:
        final: in an existing folder. A link to a folder is replaced itself; what it leads to stays.
        marker: name of a file every folder of this kind holds; only a folder with this file is ever replaced.
        overwrite: replace ``final`` where it exists and is wholly ours.
        check: complains if there must not be such a folder; called before and after the block, under the lock.
        holds, grows: see :func:`~nnunet_lopsided.files.folder_record.check_ours`.

    Raises:
        InputError: the folder exists and may not be replaced, holds something that this package did not write, cannot
            be written, or another process is writing it.
    """

    def refuse() -> None:
        check()
        check_new_folder(final, marker, overwrite, holds=holds, grows=grows)

    with _transaction(final, refuse) as folder:
        yield folder


def check_new_folder(
    final: Path, marker: str, overwrite: bool, *, holds: Collection[str] = (), grows: Collection[str] = ()
) -> None:
    """Refuse what :func:`new_folder` would refuse, before hours are spent on what goes into the folder.

    Raises:
        InputError: see :func:`new_folder`.
    """
    _check_can_be_renamed(final)
    if final.exists() and not overwrite:
        raise InputError(f"{final} exists; --overwrite replaces it if this command made it")
    if os.path.lexists(final):
        if not final.is_dir():
            raise InputError(f"{final} is not a folder")
        check_ours(final, [marker], holds, grows)


def check_output_folder(
    folder: Path,
    overwrite: bool,
    inputs: Sequence[Path],
    marks: tuple[str, str] = ("summary.json", "cases.csv"),
    command: str = "lopsided-eval",
    holds: Collection[str] = (),
) -> None:
    """Refuse a target that would destroy something other than an earlier output of the command.

    Args:
        folder: where the results are to go. What a killed run left there is put in order first.
        overwrite: replace an earlier output there.
        inputs: folders that must survive.
        marks: two files that every earlier output of this kind holds, the first with a ``schema_version`` (nnU-Net
            writes a summary.json too, among predictions); only a folder with both is ever replaced.
        command: that makes them, for messages.
        holds: see :func:`~nnunet_lopsided.files.folder_record.check_ours`.

    Raises:
        InputError: the folder exists without ``overwrite``, is a file, holds something other than such an output,
            contains one of the inputs, or cannot be created; another process is writing it.
    """
    folder = Path(os.path.abspath(folder))
    if folder.parent.is_dir() and _remains(folder):
        with locked_beside(folder):
            _put_in_order(folder)
    _check_output(folder, overwrite, inputs, marks, command, holds)


def _check_output(
    folder: Path,
    overwrite: bool,
    inputs: Sequence[Path],
    marks: tuple[str, str],
    command: str,
    holds: Collection[str],
) -> None:
    _check_can_be_renamed(folder)
    target = folder.resolve()
    for path in inputs:
        if target == path.resolve() or target in path.resolve().parents:
            raise InputError(f"output folder {folder} contains the input {path}")
    if folder.is_dir():
        is_empty = all(is_trace(entry.name) for entry in folder.iterdir())
        if is_empty and not folder.is_symlink():
            return
        if not overwrite:
            what = "is a link" if folder.is_symlink() else "exists"
            raise InputError(f"output folder {what}: {folder}; --overwrite replaces it")
        if is_empty:
            return
        if not _is_earlier_output(folder, marks):
            raise InputError(
                f"output folder {folder} holds no {marks[0]} of {command} with {marks[1]} beside it; only an earlier "
                "output of it is replaced"
            )
        check_ours(folder, marks, holds)
    elif os.path.lexists(folder):
        what = f"a link to {os.readlink(folder)}, which is no folder" if folder.is_symlink() else "a file"
        raise InputError(f"output folder {folder} is {what}")


def _check_can_be_renamed(folder: Path) -> None:
    """Refuse, before all the work, a mounted folder (a container's volume, say) and a name that no command can read."""
    check_name(folder, "folder")
    if os.path.ismount(folder):
        raise InputError(f"{folder} is a mounted file system, which cannot be replaced; give a folder in it")


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
    holds: Collection[str] = (),
) -> Iterator[Path]:
    """An empty folder to write an output to; it becomes ``folder`` when the block ends.

    When the block raises, nothing is left and what was there before stays.

    Args:
        folder, overwrite, inputs, marks, command, holds: as for :func:`check_output_folder`.

    Raises:
        InputError: the target is refused, cannot be written, or another process is writing it.
    """
    check_output_folder(folder, overwrite, inputs, marks, command, holds)
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write output folder {folder}: {error}") from error
    with _transaction(folder, lambda: _check_output(folder, overwrite, inputs, marks, command, holds)) as unfinished:
        yield unfinished


def check_holds_only(folder: Path, names: Collection[str]) -> None:
    """Refuse to remove a folder that holds more than what a command puts there.

    Args:
        folder: an existing one.
        names: patterns of the names in it.

    Raises:
        InputError: it holds something else, or is a link; the first is named.
    """
    if folder.is_symlink():
        raise InputError(f"{folder} is a link, which is not followed; give the folder that it leads to")
    check_ours(folder, [], names)


@contextmanager
def _transaction(final: Path, refuse: Callable[[], None]) -> Iterator[Path]:
    final = Path(os.path.abspath(final))
    with locked_beside(final):
        _put_in_order(final)
        refuse()
        unfinished = _hidden(UNFINISHED, final)
        try:
            unfinished.mkdir()
            begin_record(unfinished)
            yield unfinished
            refuse()
            finish_record(unfinished)
            _publish(unfinished, final)
        except OSError as error:
            raise _named(error, unfinished, final) from error
        finally:
            with suppress(OSError):
                remove_ours(unfinished)


def _publish(unfinished: Path, final: Path) -> None:
    """Give the folder its name; a former one goes when the new one is on the disk."""
    if not os.path.lexists(final):
        unfinished.rename(final)
        return
    for parent, _, files in os.walk(unfinished):
        for name in files:
            if not os.path.islink(os.path.join(parent, name)):
                sync(Path(parent, name))
        sync(Path(parent))
    former = _hidden(_REPLACED, final)
    if final.is_dir() and not final.is_symlink():
        _mark_former(final)
        if exchange(unfinished, final):
            sync(final.parent)
            return  # the former one is removed as what is unfinished
    try:
        final.rename(former)
        unfinished.rename(final)
    except BaseException:
        if not os.path.lexists(final) and os.path.lexists(former):
            former.rename(final)
        raise
    sync(final.parent)
    with suppress(OSError):  # the next run for this target removes what is left
        _remove_former(former)


def _mark_former(folder: Path) -> None:
    """Mark an earlier folder as ours where it was made before there were records: it has been checked."""
    if not (folder / RECORD_FILE).is_file():
        finish_record(folder)


def _put_in_order(final: Path) -> None:
    """What killed runs for the same target left: the earlier folder comes back, everything else goes."""
    for path in _remains(final):
        is_whole = path.is_symlink() or (path / RECORD_FILE).is_file()
        if path.name.startswith(_REPLACED) and is_whole and not os.path.lexists(final):
            path.rename(final)
        else:
            with suppress(OSError):
                _remove_former(path)


def _remains(final: Path) -> list[Path]:
    """Former and unfinished folders of this target, former ones first."""
    pattern = re.compile(f"({re.escape(_REPLACED)}|{re.escape(UNFINISHED)}){re.escape(final.name)}-[0-9a-f]{{12}}")
    names = sorted(entry.name for entry in os.scandir(final.parent) if pattern.fullmatch(entry.name))
    return [final.with_name(name) for name in names]


def _remove_former(folder: Path) -> None:
    """Remove an earlier folder, renamed first: a half-removed one must never be taken for a whole one."""
    is_former = folder.name.startswith(_REPLACED)
    if folder.is_symlink():
        if is_former:  # the link itself; nobody makes a link to write into
            folder.unlink()
        return
    if is_former:
        folder = folder.rename(folder.with_name(UNFINISHED + folder.name[len(_REPLACED) :]))
    remove_ours(folder)


def _hidden(begin: str, final: Path) -> Path:
    return final.with_name(f"{begin}{final.name}-{secrets.token_hex(6)}")


def _named(error: OSError, unfinished: Path, final: Path) -> InputError:
    """The one-line error for a failed write, or for a failed read of something else, such as a share that went away."""
    names = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    inside = next((name for name in names if unfinished == name or unfinished in name.parents), None)
    if names and inside is None and final not in names:
        return InputError(f"cannot read {names[0]}: {error.strerror or error}")
    file = f": {inside.relative_to(unfinished)}" if inside not in (None, unfinished) else ""
    reason = f"[Errno {error.errno}] {error.strerror}" if error.errno and error.strerror else str(error)
    return InputError(f"cannot write output folder {final}: {reason}{file}")
