"""Commands with their output in a log."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_lopsided.running import last_line, program_path, run_logged


def test_output_exit_code_and_environment(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import os, sys; print(os.environ['A'], os.getcwd()); print('bad', file=sys.stderr); sys.exit(3)"
    assert run_logged(["python", "-c", code], log, {"A": "a"}, cwd=tmp_path) == 3
    assert sorted(log.read_text().splitlines()) == sorted([f"a {tmp_path}", "bad"])
    assert run_logged(["python", "-c", "print('more')"], log, {}, append=True) == 0
    assert last_line(log) == "more"
    assert run_logged(["python", "-c", ""], log, {}) == 0
    assert last_line(log) == "no output"


def test_last_line_of_a_progress_bar(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\n  5%\r 50%\rdone \xff\n\n")
    assert last_line(tmp_path / "log") == "done \ufffd"
    assert last_line(tmp_path / "none") == "no output"


def test_programs_of_this_environment_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "lopsided-eval"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert program_path("python") == sys.executable
    assert program_path("lopsided-eval") == str(Path(sys.executable).parent / "lopsided-eval")
    assert program_path("no-such-program") == "no-such-program"


def test_an_interrupted_command_ends_with_its_children(tmp_path: Path) -> None:
    child = f"import time, os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"

    def stop_when_running() -> None:
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_logged(["python", "-c", parent], tmp_path / "log", {}, stop_when_running)
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends it")
def test_a_command_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    child = f"import time, os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        "from pathlib import Path; from nnunet_lopsided.running import run_logged; "
        f"run_logged(['python', '-c', {child!r}], Path({str(tmp_path / 'log')!r}), {{}})"
    )
    starter = subprocess.Popen([sys.executable, "-c", code])
    while not ((tmp_path / "pid").is_file() and (tmp_path / "pid").read_text()):
        assert starter.poll() is None
        time.sleep(0.05)
    starter.kill()
    starter.wait()
    assert gone(int((tmp_path / "pid").read_text()))


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.is_file() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False
