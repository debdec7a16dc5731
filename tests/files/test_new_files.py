"""Files that appear only when complete."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files import new_files
from nnunet_lopsided.files.json import read_json, update_json, write_json
from nnunet_lopsided.files.locks import HELD, is_locked, lock_file_beside, locked, locked_beside
from nnunet_lopsided.files.new_files import new_file
from tests.files.forks import ended, started


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_it_appears_when_complete(tmp_path: Path, durable: bool) -> None:
    with new_file(tmp_path / "a.nii.gz", durable=durable) as unfinished:
        assert unfinished.name.startswith(".unfinished-")
        assert unfinished.name.endswith("a.nii.gz")
        unfinished.write_text("x")
        assert not (tmp_path / "a.nii.gz").exists()
    assert names(tmp_path) == ["a.nii.gz"]


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def fails() -> None:
        with new_file(tmp_path / "a.txt") as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("filename", [None, "unfinished"])
def test_a_full_disk_names_the_file(tmp_path: Path, filename: str | None) -> None:
    with (
        pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device: '.*/a\.txt'$"),
        new_file(tmp_path / "a.txt") as unfinished,
    ):
        raise OSError(28, "No space left on device", *([str(unfinished)] if filename else []))


def test_long_names(tmp_path: Path) -> None:
    path = tmp_path / ("\u00e9" * 120 + ".nii.gz")
    with new_file(path) as unfinished:
        assert unfinished.name.endswith(".nii.gz")
        unfinished.touch()
    assert path.is_file()


def test_a_link_is_replaced_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "a.json").symlink_to(tmp_path / "precious")
    write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "precious").read_text() == "x"
    assert not (tmp_path / "a.json").is_symlink()


def test_what_killed_processes_left_goes(tmp_path: Path) -> None:
    def killed() -> int:
        with new_file(tmp_path / "a.json") as unfinished:
            unfinished.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert ended([started(killed)]) == [-signal.SIGKILL]
    (left,) = names(tmp_path)
    write_json(tmp_path / "b.json", 1)  # another file
    assert left in names(tmp_path)
    alive = left.replace(left.split("-")[2], str(os.getppid()))
    (tmp_path / alive).touch()
    elsewhere = left.replace(left.split("-")[1], "00000000")
    (tmp_path / elsewhere).touch()
    write_json(tmp_path / "a.json", 1)
    assert set(names(tmp_path)) == {"a.json", "b.json", alive, elsewhere}


def test_the_former_file_stays_until_the_new_one_is_on_the_disk(tmp_path: Path, monkeypatch) -> None:
    write_json(tmp_path / "a.json", 1)

    def fails(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(new_files, "sync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        write_json(tmp_path / "a.json", 2)
    assert read_json(tmp_path / "a.json") == 1
    assert names(tmp_path) == ["a.json"]


def with_one_more(name: str, plans: dict[str, int]) -> dict[str, int]:
    return {**plans, name: 1}


def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    """Two ``lopsided-plan`` at once lost a configuration."""
    write_json(tmp_path / "plans.json", {})

    def plan(me: int) -> int:
        for i in range(10):
            update_json(tmp_path / "plans.json", partial(with_one_more, f"{me}-{i}"))
        return 0

    assert ended([started(partial(plan, me)) for me in range(4)]) == [0] * 4
    assert set(read_json(tmp_path / "plans.json")) == {f"{i}-{j}" for i in range(4) for j in range(10)}
    assert names(tmp_path) == ["plans.json"]


def test_locks(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(InputError, match="another process is writing"), locked(tmp_path):
            pass
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    assert names(tmp_path) == []


def test_a_killed_process_gives_its_lock_back(tmp_path: Path) -> None:
    def killed() -> int:
        with locked(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert ended([started(killed)]) == [-signal.SIGKILL]
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch) -> None:
    import fcntl

    def refuses(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with (
        locked_beside(tmp_path / "a"),
        pytest.raises(InputError, match="another process is writing"),
        locked_beside(tmp_path / "a"),
    ):
        pass
    assert names(tmp_path) == []


def test_a_lock_of_a_process_that_died_on_another_host_is_named(tmp_path: Path, monkeypatch) -> None:
    import fcntl

    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    lock = tmp_path / f"{lock_file_beside(tmp_path / 'a').name}{HELD}"
    lock.write_text("12\nnode7\n")
    with (
        pytest.raises(InputError, match=r"of process 12 on node7; remove this file") as error,
        locked_beside(tmp_path / "a"),
    ):
        pass
    assert str(lock) in str(error.value)
    assert names(tmp_path) == [lock.name]


def test_no_lock_is_removed_while_another_process_makes_it(tmp_path: Path, monkeypatch) -> None:
    """Where a file system has no locks: between the look for the file and the attempt to lock it, another takes it."""
    import fcntl

    began = False

    def refuses(*_: object) -> None:
        nonlocal began
        if not began:
            began = True
            other.enter_context(locked_beside(tmp_path / "a"))
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with ExitStack() as other:
        with pytest.raises(InputError, match="another process is writing"), locked_beside(tmp_path / "a"):
            pass
        with pytest.raises(InputError, match="another process is writing"), locked_beside(tmp_path / "a"):
            pass
    assert names(tmp_path) == []


def test_four_take_turns_without_locks(tmp_path: Path, monkeypatch) -> None:
    import fcntl

    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    (tmp_path / "count").write_text("0")

    def adds() -> int:
        for _ in range(15):
            with locked_beside(tmp_path / "a", seconds=60):
                n = int((tmp_path / "count").read_text())
                time.sleep(0.001)
                (tmp_path / "count").write_text(str(n + 1))
        return 0

    assert ended([started(adds) for _ in range(4)]) == [0] * 4
    assert (tmp_path / "count").read_text() == "60"
    assert names(tmp_path) == ["count"]
