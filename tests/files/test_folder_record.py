"""What a folder's record proves: edits that keep the size, new dates without a change, edited records; bad places."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files import folder_record
from nnunet_lopsided.files.folder_record import RECORD_FILE, finish_record, unrecorded
from nnunet_lopsided.files.folders import new_folder
from tests.files.test_folders import names, write, write_output


def test_the_record(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    record = json.loads((tmp_path / "one" / RECORD_FILE).read_text())
    assert record["files"] == {"deep/data.txt": 3, "mark.json": 2}
    assert (tmp_path / "one" / RECORD_FILE).read_bytes() == (tmp_path / "two" / RECORD_FILE).read_bytes()


def edit_later(file: Path, text: str, seconds: float = 10) -> None:
    """Edit a file, so many seconds later (earlier: an editor that keeps dates, or a copy of an older file)."""
    now = file.stat().st_mtime
    file.write_text(text)
    os.utime(file, (now + seconds, now + seconds))


@pytest.mark.parametrize("seconds", [10, 0, -1000])
def test_an_edit_that_keeps_the_size_is_noticed(tmp_path: Path, seconds: float) -> None:
    """A label map without compression has the same size whatever it holds."""
    write(tmp_path / "out", "old")
    time.sleep(0.02)  # the clock of file systems is coarse
    edit_later(tmp_path / "out/deep/data.txt", "new", seconds)
    with pytest.raises(InputError, match=r"not replaced: deep/data\.txt has been changed since"):
        write(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/deep/data.txt").read_text() == "new"


def test_an_edit_of_a_large_file_is_noticed_by_its_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_record, "_DIGESTED_BYTES", 2)  # mark.json has two bytes, data.txt three
    write(tmp_path / "out", "old")
    edit_later(tmp_path / "out/deep/data.txt", "new")
    with pytest.raises(InputError, match=r"data\.txt has been changed since"):
        write(tmp_path / "out", overwrite=True)
    monkeypatch.setattr(folder_record, "_DIGESTED_BYTES", 0)
    write(tmp_path / "other", "old")
    (tmp_path / "link").hardlink_to(tmp_path / "other/deep/data.txt")  # its images are shared
    write(tmp_path / "other", "new", overwrite=True)


@pytest.mark.parametrize("at_byte", [0, 7, 19])
@pytest.mark.parametrize("seconds", [10, -1000])
def test_an_edit_where_all_files_are_large_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_byte: int, seconds: float
) -> None:
    """By its date, or, where that was set back, by what some parts hold: here all of it."""
    for name, value in (("_DIGESTED_BYTES", 1), ("_N_PARTS", 5), ("_PART_BYTES", 4)):
        monkeypatch.setattr(folder_record, name, value)
    text = "0123456789abcdefghij"
    write(tmp_path / "out", text)
    record = json.loads((tmp_path / "out" / RECORD_FILE).read_text())
    assert set(record["digests"]) == {"deep/data.txt", "mark.json"}
    time.sleep(0.02)
    edit_later(tmp_path / "out/deep/data.txt", text[:at_byte] + "X" + text[at_byte + 1 :], seconds)
    with pytest.raises(InputError, match=r"data\.txt has been changed since"):
        write(tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("copied", ["copied", "touched", "a hard link more"])
def test_new_dates_are_no_change(tmp_path: Path, copied: str) -> None:
    write(tmp_path / "out", "old")
    if copied == "copied":
        (tmp_path / "out").rename(tmp_path / "away")
        shutil.copytree(tmp_path / "away", tmp_path / "out", copy_function=shutil.copy)
    elif copied == "touched":
        edit_later(tmp_path / "out/deep/data.txt", "old", 100)
    else:
        (tmp_path / "link").hardlink_to(tmp_path / "out/deep/data.txt")
    write(tmp_path / "out", "new", overwrite=True)
    assert (tmp_path / "out/deep/data.txt").read_text() == "new"


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", "mark.json") as folder:
        (folder / "mark.json").touch()
        (folder / "link").symlink_to("mark.json")
    (tmp_path / "out/link").unlink()
    (tmp_path / "out/link").symlink_to("mark.jsox")
    with pytest.raises(InputError, match="link has been changed"):
        write(tmp_path / "out", overwrite=True)


def test_an_edited_record_proves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out/thesis.tex").write_text("x")
    record = json.loads((tmp_path / "out" / RECORD_FILE).read_text())
    record["files"]["thesis.tex"] = 1
    (tmp_path / "out" / RECORD_FILE).write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"not replaced: \.lopsided\.json, the list of its files, has been changed"):
        write(tmp_path / "out", overwrite=True)
    for text in ("{}", "", "[]", '{"schema_version": 1, "tool": "x", "id": "", "files": {"a": "b"}}'):
        (tmp_path / "out" / RECORD_FILE).write_text(text)
        with pytest.raises(InputError, match=r"\.lopsided\.json"):
            write(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/thesis.tex").is_file()


def test_records_from_before_there_were_digests(tmp_path: Path) -> None:
    write(tmp_path / "out")
    record = json.loads((tmp_path / "out" / RECORD_FILE).read_text())
    del record["digests"]
    record["id"] = hashlib.sha256(json.dumps(record["files"]).encode()).hexdigest()[:16]
    (tmp_path / "out" / RECORD_FILE).write_text(json.dumps(record))
    write(tmp_path / "out", "newer", overwrite=True)


def test_files_of_somebody_else_stay_unlisted(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out/deep/notes.txt").touch()
    (tmp_path / "out/.DS_Store").touch()
    assert unrecorded(tmp_path / "out") == ["deep/notes.txt"]
    finish_record(tmp_path / "out", without=["deep/notes.txt"])
    assert unrecorded(tmp_path / "out") == ["deep/notes.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' own folder")
def test_a_folder_in_which_nothing_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write /proc/out: no file can be made in /proc"):
        write_output(Path("/proc/out"))


def test_a_name_that_could_not_be_read_again(tmp_path: Path) -> None:
    for writes in (write, write_output):
        with pytest.raises(InputError, match="expected a name in UTF-8"):
            writes(tmp_path / os.fsdecode(b"n\xff"))
    assert names(tmp_path) == []
