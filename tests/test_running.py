"""Commands with their output in a log."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_lopsided import running
from nnunet_lopsided.running import last_line, program_path, run_logged, why_it_failed


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


SLEEPER = "import time, os; open({!r}, 'w').write(str(os.getpid())); time.sleep(60)"
# Starts a child in the background, as nnU-Net starts loaders that do not notice when it is gone.
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {!r}]); "


def wait_for_pid(file: Path) -> int:
    """The process id that a sleeper writes."""
    for _ in range(600):
        if file.is_file() and file.read_text():
            return int(file.read_text())
        time.sleep(0.05)
    raise AssertionError(f"{file} was not written")


@pytest.mark.skipif(os.name != "posix", reason="sessions")
def test_what_a_killed_command_has_started_ends_too(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    wait = f"import pathlib; p = pathlib.Path({str(pid)!r})\nwhile not (p.is_file() and p.read_text()): time.sleep(.05)"
    killed = PARENT.format(SLEEPER.format(str(pid))) + wait + "\nimport os; os.kill(os.getpid(), 9)"
    assert run_logged(["python", "-c", killed], tmp_path / "log", {}) == -9
    assert gone(wait_for_pid(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells who is a zombie")
def test_the_dead_that_nobody_collects_are_not_waited_for() -> None:
    """In a container whose first process collects none, every step took five seconds more."""
    leader = os.fork()
    if leader == 0:
        os.setsid()
        os._exit(0)
    os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)  # dead, and not collected
    begin = time.monotonic()
    running._end_session(leader)
    assert time.monotonic() - begin < 3
    os.waitpid(leader, 0)


@pytest.mark.skipif(os.name != "posix", reason="sessions")
def test_a_child_that_takes_its_time_to_end_gets_it() -> None:
    slow = "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(.5), sys.exit(7))); print(flush=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{slow}; time.sleep(60)"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    running._end_session(child.pid)
    assert child.wait() == 7


@pytest.mark.skipif(os.name != "posix", reason="sessions")
def test_what_a_command_has_started_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    parent = PARENT.format(SLEEPER.format(str(tmp_path / "pid"))) + "time.sleep(60)"
    code = (
        "from pathlib import Path; from nnunet_lopsided.running import run_logged; "
        f"run_logged(['python', '-c', {parent!r}], Path({str(tmp_path / 'log')!r}), {{}})"
    )
    starter = subprocess.Popen([sys.executable, "-c", code])
    child = wait_for_pid(tmp_path / "pid")
    starter.kill()
    starter.wait()
    assert gone(child)


def test_workers_of_a_pool_end_when_its_process_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(
        "import os, sys, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from nnunet_lopsided.running import end_with_parent\n"
        "def work(i):\n"
        "    time.sleep(.2)\n"
        "    open(f'{sys.argv[1]}/{i}', 'w').write(str(os.getpid()))\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(2, initializer=end_with_parent) as pool:\n"
        "        list(pool.map(work, range(2)))\n"
        "        time.sleep(60)\n"
    )
    starter = subprocess.Popen([sys.executable, script, tmp_path])
    workers = {wait_for_pid(tmp_path / str(i)) for i in range(2)}
    starter.kill()
    starter.wait()
    assert all(gone(worker) for worker in workers)


@pytest.mark.parametrize(
    ("code", "line", "why"),
    [
        (1, "too bad", "too bad"),
        (127, "no such program", "no such program"),
        (-9, "Epoch 3", "killed by signal 9 (SIGKILL), as the system does when memory runs out: CURE; last line: "),
        (
            137,
            "Epoch 3",
            "killed by signal 9 (SIGKILL), as the system does when memory runs out: CURE; last line: ",
        ),
        (-15, "Epoch 3", "killed by signal 15 (SIGTERM); last line: Epoch 3"),
        (
            1,
            "RuntimeError: One or more background workers are no longer alive. Exiting.",
            "a loading process was killed, as the system does when memory runs out: CURE; last line: Runt",
        ),
    ],
)
def test_why_a_command_failed(code: int, line: str, why: str) -> None:
    assert why_it_failed(code, line, "CURE").startswith(why)


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.is_file() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False
