"""What every command's help has: examples that parse, a version, one spelling; and completion made from it."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_lopsided import __version__
from nnunet_lopsided.commands._cli import Parser, parser_of
from nnunet_lopsided.commands._completion import _commands, completion_script
from nnunet_lopsided.commands._examples import EXAMPLES
from nnunet_lopsided.commands.env import main as env

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
# Not from what is installed: a command may be new.
SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
COMMANDS = {name: place.partition(":")[0] for name, place in SCRIPTS.items()}
PHANTOM = "python -m nnunet_lopsided.commands.phantom"
EVERY_EXAMPLE = [(name, line) for name, lines in EXAMPLES.items() for line in lines]


def main_of(name: str):
    return importlib.import_module(COMMANDS.get(name, "nnunet_lopsided.commands.phantom")).main


def words_of(line: str) -> tuple[str, list[str]]:
    """The command of an example and its arguments, without what is the shell's."""
    line = re.sub(r'^eval "\$\((.*)\)"$', r"\1", line)
    line = line.replace(PHANTOM, "phantom")
    words = shlex.split(line)
    words = words[: words.index(">")] if ">" in words else words
    return words[0], words[1:]


@pytest.mark.parametrize(("name", "line"), EVERY_EXAMPLE, ids=[line[:60] for _, line in EVERY_EXAMPLE])
def test_every_example_parses(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command, arguments = words_of(line)
    parsed = []

    def run(parser: Parser, work: object, argv: list[str] | None) -> int:
        parsed.append(parser.parse_args(argv))
        return 0

    for module in {main_of(command).__module__, "nnunet_lopsided.commands.compare"}:
        monkeypatch.setattr(importlib.import_module(module), "run", run)
    assert main_of(command)(arguments) == 0
    assert len(parsed) == 1


def test_every_command_has_examples_and_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        parser = parser_of(main_of(name), [])
        assert "\nexamples:\n  " in parser.format_help(), name
        choices = [a.choices for a in parser.all_actions() if isinstance(a.choices, dict)]
        for sub in [sub for named in choices for sub in named.values() if isinstance(sub, Parser)]:
            assert "\nexamples:\n  " in sub.format_help(), sub.prog
        with pytest.raises(SystemExit) as end:
            main_of(name)(["--version"])
        assert end.value.code == 0
        assert capsys.readouterr().out == f"nnunet-lopsided {__version__}\n"


def test_options_mean_the_same_everywhere() -> None:
    for name in COMMANDS:
        for action in parser_of(main_of(name), []).all_actions():
            if {"-np", "--np"} & set(action.option_strings):
                assert (action.option_strings[0], action.type, action.dest) == ("-np", int, "np"), name
            if {"-o", "--output"} & set(action.option_strings):
                assert action.option_strings[0] == "-o", name
    help_text = parser_of(main_of("lopsided-eval"), []).format_help()
    assert "-np N " in help_text
    assert "--np" not in help_text
    assert "--output" not in help_text


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert env(["--completion", shell]) == 0
    script = capsys.readouterr().out
    for word in (*dict(_commands()), "--reorient", "--accept-above"):
        assert word in script, word


def test_bash_completes(tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    (tmp_path / "script").write_text(completion_script("bash"))
    ask = (
        f"source {tmp_path / 'script'}\n"
        "COMP_WORDS=(lopsided-convert folder --res); COMP_CWORD=2; COMP_LINE='lopsided-convert folder --res'\n"
        "$(complete -p lopsided-convert | sed 's/.*-F \\([^ ]*\\).*/\\1/') lopsided-convert --res folder\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["--resample-channels"], done.stderr


def test_completion_without_shtab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert env(["--completion", "bash"]) == 2
    assert capsys.readouterr().err == (
        "lopsided-env: error: --completion needs shtab: pip install 'nnunet-lopsided[completion]'\n"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_for_a_reader_that_is_gone(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = f"from nnunet_lopsided.commands.evaluate import main; raise SystemExit(main({arguments}))"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True, check=False, cwd=REPOSITORY
    )
    os.close(writing)
    assert done.stderr == ""
