"""Bash, in which our commands and nnU-Net's run inside this process: none imports PyTorch anew.

Bash reads the lines as a user's would: loops, variables, pipes. Every command of ours is a function there that hands
its words over a pipe, and waits for the exit code.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from tests.documentation.pages import REPOSITORY

# Ours by pyproject.toml: a command may be newer than the installation.
_OURS = re.findall(r'^(lopsided-\w+) = "(.*)"$', (REPOSITORY / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
SCRIPTS = {script.name: script.value for script in entry_points(group="console_scripts")} | dict(_OURS)
COMMANDS = sorted(name for name in SCRIPTS if re.match("lopsided-|nnUNetv2_", name))

_PRELUDE = """set -e -o pipefail
_call() {{
    printf '%s\\0' "$#" "$PWD" "$@" >&{ask}
    local code
    IFS= read -r code <&{answer}
    cat {output}
    return "$code"
}}
"""


@dataclass(frozen=True)
class Call:
    """A command that has run.

    Attributes:
        words: the command and its arguments.
        code: its exit code.
        stdout, stderr: what it printed.
    """

    words: tuple[str, ...]
    code: int
    stdout: str
    stderr: str


class Shell:
    """Runs scripts in one folder.

    Args:
        folder: the working directory.
        change: what becomes of a command's words before it runs.
        after: called with the words of every command that has succeeded.
    """

    def __init__(
        self,
        folder: Path,
        change: Callable[[list[str]], list[str]] = lambda words: words,
        after: Callable[[Sequence[str]], None] = lambda words: None,
    ) -> None:
        self.folder, self.change, self.after = folder, change, after
        self.calls: list[Call] = []

    def run(self, script: str) -> list[Call]:
        """Run a script to its end; the calls of our commands in it, and of nnU-Net's.

        Raises:
            AssertionError: a line of it fails.
        """
        self.calls = []
        output = self.folder / ".output"
        ask, asked = os.pipe()
        answered, answer = os.pipe()
        prelude = _PRELUDE.format(ask=asked, answer=answered, output=f"'{output}'")
        prelude += "".join(f'{name}() {{ _call {name} "$@"; }}\n' for name in (*COMMANDS, "python"))
        environment = os.environ | {"HOME": str(self.folder)}
        # A file: a pipe holds 64 KiB, and nobody reads it while bash waits for a command that waits for bash.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said_by_bash:
            process = subprocess.Popen(
                ["bash", "-c", prelude + script],
                cwd=self.folder,
                env=environment,
                pass_fds=(asked, answered),
                stdin=subprocess.DEVNULL,
                stdout=said_by_bash,
                stderr=subprocess.STDOUT,
            )
            os.close(asked)
            os.close(answered)
            with os.fdopen(ask, "rb") as questions, os.fdopen(answer, "w") as answers:
                for where, words in _asked(questions):
                    call = self.call(words, where)
                    output.write_text(call.stdout, encoding="utf-8")
                    answers.write(f"{call.code}\n")
                    answers.flush()
            process.wait()
            said_by_bash.seek(0)
            printed = said_by_bash.read()
        failed = [call for call in self.calls if call.code]
        said = "\n".join(
            f"{' '.join(c.words)}: exit code {c.code}\n{c.stdout[-2000:]}\n{c.stderr[-3000:]}" for c in failed
        )
        assert process.returncode == 0, f"{script}\n{said or printed[-3000:]}"
        return self.calls

    def call(self, words: list[str], where: str | Path) -> Call:
        """Run one command in this process, and keep it in :attr:`calls`."""
        words = self.change(words)
        out, err = io.StringIO(), io.StringIO()
        before, argv = os.getcwd(), sys.argv
        os.chdir(where)
        sys.argv = words
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = _exit_code(words)
        finally:
            os.chdir(before)
            sys.argv = argv
        call = Call(tuple(words), code, out.getvalue(), err.getvalue())
        self.calls.append(call)
        if code == 0:
            self.after(words)
        return call


def _asked(questions: io.BufferedReader) -> Iterator[tuple[str, list[str]]]:
    """The working directories and words of the commands that bash comes across."""
    rest = b""
    fields: list[str] = []
    while got := questions.read1(1 << 16):
        *whole, rest = (rest + got).split(b"\0")
        fields += [field.decode() for field in whole]
        while fields and len(fields) >= int(fields[0]) + 2:
            n = int(fields[0]) + 2
            yield fields[1], fields[2:n]
            fields = fields[n:]


def _exit_code(words: Sequence[str]) -> int:
    try:
        if words[0] == "python":
            assert words[1] == "-m", words
            sys.argv = list(words[2:])
            runpy.run_module(words[2], run_name="__main__", alter_sys=False)
            return 0
        module, function = SCRIPTS[words[0]].split(":")
        return getattr(importlib.import_module(module), function)() or 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
