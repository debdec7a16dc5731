"""Folders that appear only when complete: two at once, kills in every stage, links, and what may be replaced."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files import folders
from nnunet_lopsided.files.folder_record import RECORD_FILE, begin_record
from nnunet_lopsided.files.folders import check_output_folder, new_folder, new_output_folder
from tests.files.forks import ended, killed_after, started

MARKS = ("summary.json", "cases.csv")


def write(final: Path, text: str = "new", overwrite: bool = False) -> None:
    with new_folder(final, "mark.json", overwrite) as folder:
        (folder / "mark.json").write_text("{}")
        (folder / "deep").mkdir()
        (folder / "deep" / "data.txt").write_text(text)


def write_output(final: Path, text: str = "new", overwrite: bool = False) -> None:
    with new_output_folder(final, overwrite, (), holds=("summary.json", "*.csv")) as folder:
        (folder / "summary.json").write_text('{"schema_version": 1}')
        (folder / "cases.csv").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_appears_when_complete(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", "mark.json") as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith(".unfinished-out-")
        assert not (tmp_path / "out").exists()
        (folder / "mark.json").touch()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == [RECORD_FILE, "mark.json"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_failure_and_the_former_stays(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "out", "old")

    def fails() -> None:
        with new_folder(tmp_path / "out", "mark.json", True) as folder:
            (folder / "half").touch()
            raise error

    with pytest.raises(type(error)):
        fails()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out/deep/data.txt").read_text() == "old"


def test_it_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises(InputError, match="exists; --overwrite replaces it"):
        write(tmp_path / "out")
    write(tmp_path / "out", "newer", overwrite=True)
    assert (tmp_path / "out/deep/data.txt").read_text() == "newer"
    assert names(tmp_path) == ["out"]


def test_foreign_files_are_never_removed(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out/deep/thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"not replaced: it holds deep/thesis\.tex, which this command did not write"):
        write(tmp_path / "out", overwrite=True)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out/deep/thesis.tex").is_file()


def test_foreign_files_that_come_while_it_writes(tmp_path: Path) -> None:
    write(tmp_path / "out")

    def late() -> None:
        with new_folder(tmp_path / "out", "mark.json", True) as folder:
            (folder / "mark.json").touch()
            (tmp_path / "out/late").touch()

    with pytest.raises(InputError, match="it holds late"):
        late()
    assert (tmp_path / "out/late").is_file()


def test_what_was_changed_since_is_not_removed(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out/deep/data.txt").write_text("a reader's decisions")
    with pytest.raises(InputError, match=r"not replaced: deep/data\.txt has been changed since"):
        write(tmp_path / "out", overwrite=True)


def test_a_link_as_output_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"output folder is a link: .*; --overwrite replaces it"):
        write_output(tmp_path / "out")
    write_output(tmp_path / "out", overwrite=True)
    assert names(tmp_path) == ["elsewhere", "out"]
    assert not (tmp_path / "out").is_symlink()
    (tmp_path / "other").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"is a link to .*nothing, which is no folder"):
        write_output(tmp_path / "other", overwrite=True)


def test_a_file_in_the_place_of_a_link(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", "mark.json") as folder:
        (folder / "mark.json").touch()
        (folder / "link").symlink_to(tmp_path)
    (tmp_path / "out/link").unlink()
    (tmp_path / "out/link").touch()
    with pytest.raises(InputError, match="link has been changed"):
        write(tmp_path / "out", overwrite=True)


def test_folders_inside_with_records_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "out")
    write(tmp_path / "out/inner")
    (tmp_path / "out/.DS_Store").touch()
    (tmp_path / "out/.unfinished-0-1-2-data.txt").touch()
    (tmp_path / "out/inner/mine").touch()
    with pytest.raises(InputError, match="it holds mine"):
        write(tmp_path / "out", overwrite=True)
    (tmp_path / "out/inner/mine").unlink()
    write(tmp_path / "out", "newer", overwrite=True)
    assert names(tmp_path / "out") == [RECORD_FILE, "deep", "mark.json"]


TRACES = (".DS_Store", "Thumbs.db", "desktop.ini", ".directory", "._cases.csv", ".~lock.cases.csv#")


@pytest.mark.parametrize("has_record", [True, False])
def test_a_folder_that_somebody_has_looked_into_is_replaced(tmp_path: Path, has_record: bool) -> None:
    write_output(tmp_path / "out", "old")
    if not has_record:
        (tmp_path / "out" / RECORD_FILE).unlink()
    for name in TRACES:
        (tmp_path / "out" / name).write_text("trace")
    write_output(tmp_path / "out", "new", overwrite=True)
    assert not set(TRACES) & set(names(tmp_path / "out"))


def test_a_folder_with_such_traces_alone_is_empty(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.DS_Store").touch()
    write_output(tmp_path / "out")
    assert ".DS_Store" not in names(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("writes", [write, write_output])
def test_a_mounted_file_system_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: Callable[..., None]
) -> None:
    volume = tmp_path / "out"
    volume.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == volume)
    with pytest.raises(InputError, match="mounted file system, which cannot be replaced; give a folder in it"):
        writes(volume, overwrite=True)
    writes(volume / "results")
    assert names(volume) == ["results"]


def test_other_hidden_files_are_somebodys_work(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.notes").touch()
    with pytest.raises(InputError, match="output folder exists"):
        write_output(tmp_path / "out")


def test_earlier_folders_without_a_record(tmp_path: Path) -> None:
    write_output(tmp_path / "out", "old")
    (tmp_path / "out" / RECORD_FILE).unlink()
    (tmp_path / "out/notes.txt").touch()
    with pytest.raises(InputError, match=r"it holds notes\.txt"):
        write_output(tmp_path / "out", overwrite=True)
    (tmp_path / "out/notes.txt").unlink()
    write_output(tmp_path / "out", "newer", overwrite=True)
    assert (tmp_path / "out/cases.csv").read_text() == "newer"
    write(tmp_path / "other")
    (tmp_path / "other" / RECORD_FILE).unlink()
    (tmp_path / "other/mark.json").unlink()
    with pytest.raises(InputError, match=r"it holds no mark\.json"):
        write(tmp_path / "other", overwrite=True)


@pytest.mark.parametrize("writing", [write, write_output])
def test_what_comes_to_the_target_meanwhile_stays(tmp_path: Path, monkeypatch, writing: Callable[[Path], None]) -> None:
    """Somebody else, who knows nothing of locks, makes a folder of that name while ours is written."""
    final = tmp_path / "out"

    def began(unfinished: Path) -> None:
        begin_record(unfinished)
        final.mkdir()
        (final / "mine.txt").touch()

    monkeypatch.setattr(folders, "begin_record", began)
    with pytest.raises(InputError, match="exists"):
        writing(final)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in final.iterdir()] == ["mine.txt"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """A variant moved to another disk and linked back could once be replaced one time, and never again."""
    write(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / "moved")
    (tmp_path / "out").symlink_to(tmp_path / "moved")
    for text in ("one", "two"):
        write(tmp_path / "out", text, overwrite=True)
        assert (tmp_path / "out/deep/data.txt").read_text() == text
        assert (tmp_path / "moved/deep/data.txt").read_text() == "old"
    assert names(tmp_path) == ["moved", "out"]


@pytest.mark.parametrize("name", [".unfinished-out", ".unfinished-out-0123456789ab", ".replaced-out-0123456789ab"])
def test_planted_links_and_folders(tmp_path: Path, name: str) -> None:
    """What a planted link leads to was once emptied."""
    victim, root = tmp_path / "victim", tmp_path / "root"
    victim.mkdir()
    root.mkdir()
    (victim / "precious.txt").touch()
    write(root / "out")
    (root / name).symlink_to(victim)
    write(root / "out", "newer", overwrite=True)
    assert (victim / "precious.txt").is_file()
    (root / name).unlink(missing_ok=True)
    (root / name).mkdir()
    (root / name / "precious.txt").touch()
    write(root / "out", "newer", overwrite=True)
    assert (next(path for path in root.iterdir() if path.name != "out") / "precious.txt").is_file()


def test_a_planted_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / ".out.lopsided-lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match=r"cannot write .*out: lock file"):
        write(tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "x"


def test_full_disk_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"out: \[Errno 28\] No space left: deep/a\.csv$"),
        new_folder(tmp_path / "out", "mark.json") as folder,
    ):
        raise OSError(28, "No space left", str(folder / "deep/a.csv"))
    with (
        pytest.raises(InputError, match=r"^cannot read /share/a\.npz: Stale file handle$"),
        new_folder(tmp_path / "out", "mark.json"),
    ):
        raise OSError(116, "Stale file handle", "/share/a.npz")
    assert names(tmp_path) == []


def test_inputs_survive(tmp_path: Path) -> None:
    (tmp_path / "out/predictions").mkdir(parents=True)
    for folder in (tmp_path / "out", tmp_path / "out/predictions"):
        with pytest.raises(InputError, match="contains the input"):
            check_output_folder(tmp_path / "out", True, [folder])


def test_four_at_once(tmp_path: Path) -> None:
    """One wins and leaves a whole folder; the others say so in one line and leave nothing."""

    def writer(me: int, *, overwrite: bool, begin: float) -> int:
        time.sleep(max(0, begin - time.time()))
        try:
            with new_folder(tmp_path / "out", "mark.json", overwrite) as folder:
                (folder / "mark.json").write_text("{}")
                for i in range(20):
                    (folder / f"{i}.txt").write_text(str(me))
                    time.sleep(0.001)
        except InputError as error:
            return 2 if "another process is writing" in str(error) or "exists; --overwrite" in str(error) else 3
        return 0

    for overwrite in (False, True, True, True):
        begin = time.time() + 0.3
        codes = ended([started(partial(writer, me, overwrite=overwrite, begin=begin)) for me in range(4)])
        counts = Counter(codes)
        assert counts[0] >= 1
        assert set(counts) <= {0, 2}
        assert overwrite or counts[0] == 1
        assert names(tmp_path) == ["out"]
        winners = {(tmp_path / f"out/{i}.txt").read_text() for i in range(20)}
        assert len(winners) == 1
        assert codes[int(winners.pop())] == 0


def cannot_exchange(one: Path, other: Path) -> bool:
    return False


@pytest.mark.parametrize("in_one_step", [True, False])
def test_killed_in_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_one_step: bool) -> None:
    """An earlier folder was once lost by a kill between two renames."""
    if not in_one_step:
        monkeypatch.setattr(folders, "exchange", cannot_exchange)
    elif sys.platform != "linux":
        pytest.skip("Linux alone has such a step")
    for n_calls in range(40):
        root = tmp_path / str(n_calls)
        root.mkdir()
        write(root / "out", "old")

        def overwrite(root: Path = root, n_calls: int = n_calls) -> int:
            killed_after(n_calls)
            write(root / "out", "newer", overwrite=True)
            return 0

        (code,) = ended([started(overwrite)])
        if code == 0:
            break
        assert code == -signal.SIGKILL
        # Who only reads finds one of the two at any moment.
        assert not in_one_step or (root / "out/deep/data.txt").read_text() in ("old", "newer")
        with pytest.raises(InputError, match="exists; --overwrite"):
            write(root / "out")  # brings the earlier one back, if it has to
        assert (root / "out/deep/data.txt").read_text() in ("old", "newer")
        assert names(root) == ["out"]
        write(root / "out", "newest", overwrite=True)
        assert names(root) == ["out"]
        assert (root / "out/deep/data.txt").read_text() == "newest"
    assert 10 <= n_calls < 39


def test_an_output_comes_back_before_it_is_looked_at(tmp_path: Path) -> None:
    write_output(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / ".replaced-out-0123456789ab")
    with pytest.raises(InputError, match="output folder exists"):
        check_output_folder(tmp_path / "out", False, ())
    assert names(tmp_path) == ["out"]


def test_remains_of_a_live_process_stay(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", "mark.json") as folder:
        (folder / "mark.json").touch()
        with pytest.raises(InputError, match="another process is writing"):
            write(tmp_path / "out")
        write(tmp_path / "out2")  # another target
    assert names(tmp_path / "out") == [RECORD_FILE, "mark.json"]


def test_sigterm_leaves_nothing(tmp_path: Path) -> None:
    """In every command, see ``commands._cli.run``."""

    def work(arguments: argparse.Namespace) -> int:
        with new_folder(tmp_path / "out", "mark.json") as folder:
            (folder / "half").touch()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert ended([started(lambda: run(Parser(prog="lopsided-x"), work, []))]) == [130]
    assert names(tmp_path) == []
    assert run(Parser(prog="lopsided-x"), lambda arguments: 0, []) == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_workers_that_outlive_a_killed_parent_do_not_hold_the_lock(tmp_path: Path) -> None:
    """The worker inherits the open lock file; the next run for the folder must not wait for it."""

    def sleeps() -> int:
        time.sleep(30)
        return 0

    def parent() -> int:
        with new_folder(tmp_path / "out", "mark.json"):
            worker = started(sleeps)
            (tmp_path / "worker").write_text(str(worker))
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert ended([started(parent)]) == [-signal.SIGKILL]
    try:
        write(tmp_path / "out")
        assert names(tmp_path) == ["out", "worker"]
    finally:
        os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)
