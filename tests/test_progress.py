import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_lopsided import progress
from nnunet_lopsided.progress import progress_bar, with_progress

PACKAGE = Path(progress.__file__).parent


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class Log(Terminal):
    def isatty(self):
        return False


@pytest.fixture
def minutes(monkeypatch):
    """Sets the clock that says whether a line is due."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def at(minute):
        now[0] = 60 * minute

    return at


def test_a_log_gets_a_line_a_minute(monkeypatch, minutes):
    log = Log()
    monkeypatch.setattr("sys.stderr", log)
    with progress_bar(total=400, title="cases", unit="case") as bar:
        for i in range(400):
            minutes(i / 100)
            bar.update()
            bar.refresh()  # what a changed description does
    lines = log.getvalue().splitlines()
    assert [re.findall(r"\d+/400", line) for line in lines] == [["101/400"], ["201/400"], ["301/400"]]
    assert all(line.startswith("cases:") for line in lines)
    assert "\r" not in log.getvalue()


def test_a_log_gets_nothing_of_what_ends_within_a_minute(monkeypatch, minutes):
    log = Log()
    monkeypatch.setattr("sys.stderr", log)
    assert list(with_progress(range(1000), title="cases", unit="case")) == list(range(1000))
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    list(with_progress("ab", title="letters", unit="letter"))
    assert "letters: 100%" in terminal.getvalue()
    assert "\r" in terminal.getvalue()


def test_nothing_where_nothing_is_to_be_shown(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    list(with_progress("ab", title="letters", unit="letter", show=False))
    assert terminal.getvalue() == ""


def test_no_part_has_bars_of_its_own():
    own = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(from|import) tqdm", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert own == ["progress.py"]


FORK = """
import os, signal, time
from nnunet_lopsided.progress import progress_bar
first = progress_bar(1, unit="x")
ready, done = os.pipe()
child = os.fork()
if child == 0:
    with first.get_lock():
        os.write(done, b"x")
        time.sleep(60)
os.read(ready, 1)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
progress_bar(1, unit="x").close()
print("went on")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_that_is_killed_with_the_lock_stops_nobody() -> None:
    """tqdm's own lock would be shared with the child, and nobody would give it back."""
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("went on\n", "")
