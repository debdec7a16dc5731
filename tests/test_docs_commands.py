"""Every command line in the documentation is one that the commands take; what a page prints is what comes out."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?:bash|shell)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:lopsided-|nnUNetv2_)\w+")
# What a page writes in the place of a number of the reader's own.
STANDS_FOR = {"ID": "501", "FOLD": "0", "$fold": "0", "$full": "501", "$n": "10", "$id": "501", "$seed": "0"}
ARITHMETIC = re.compile(r"\$\(\(.*?\)\)")


class Parsed(Exception):
    """The command has taken its arguments."""


def commands(text: str) -> Iterator[list[str]]:
    """The calls of our commands and of nnU-Net's in a page's blocks of shell, as lists of words."""
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words: list[str] = []
            for word in [*shlex.split(ARITHMETIC.sub("1", line), comments=True), ";"]:
                if word not in ("&&", "||", "|", ";", "done", "do", ">"):
                    words.append(STANDS_FOR.get(word.rstrip(";"), word.rstrip(";")))
                if word in ("&&", "||", "|", ";", "do", ">") or word.endswith(";"):
                    if words and COMMAND.match(words[0]):
                        yield words
                    words = []


CALLS = sorted({tuple(call) for page in PAGES for call in commands(page.read_text(encoding="utf-8"))})
# Ours by pyproject.toml: a command may be newer than the installation.
OURS = re.findall(
    r'^(lopsided-\w+) = "(.*)"$', (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
)
SCRIPTS = {script.name: script.value for script in entry_points(group="console_scripts")} | dict(OURS)


def stop(self: argparse.ArgumentParser, args: list[str] | None = None, namespace: argparse.Namespace | None = None):
    """Parse, as ``parse_args`` does, and go no further."""
    _, unknown = self.parse_known_args(args, namespace)
    if unknown:
        self.error(f"unrecognized arguments: {' '.join(unknown)}")
    raise Parsed


@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call)[:80])
def test_a_command_takes_what_the_pages_say(call: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    module, function = SCRIPTS[call[0]].split(":")
    main = getattr(importlib.import_module(module), function)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", list(call))
    with pytest.raises(Parsed):
        main()


def test_commands_are_read_from_pages() -> None:
    text = "```bash\nfor fold in 0 1; do lopsided-x -f $fold \\\n  -o a; done  # lopsided-y\n"
    text += "lopsided-z 'b c' && nnUNetv2_t > d\n```\n"
    assert list(commands(text + "```text\nlopsided-no\n```\n")) == [
        ["lopsided-x", "-f", "0", "-o", "a"],
        ["lopsided-z", "b c"],
        ["nnUNetv2_t"],
    ]
