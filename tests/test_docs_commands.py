"""Every command line in the documentation is one that the commands take, in a sentence and in a synopsis too.

The lines in blocks of shell are also run: tests/documentation.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.documentation.pages import PAGES, blocks, name_of
from tests.documentation.shell import COMMANDS, SCRIPTS

# What a page writes in the place of a number of the reader's own.
STANDS_FOR = {"ID": "501", "FOLD": "0", "$fold": "0", "$full": "501", "$n": "10", "$id": "501", "$seed": "0"}
ARITHMETIC = re.compile(r"\$\(\(.*?\)\)")


class Parsed(Exception):
    """The command has taken its arguments."""


def commands(text: str) -> Iterator[list[str]]:
    """The calls of our commands and of nnU-Net's in a page's blocks of shell, as lists of words."""
    for block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            words: list[str] = []
            for word in [*shlex.split(ARITHMETIC.sub("1", line), comments=True), ";"]:
                if word not in ("&&", "||", "|", ";", "done", "do", ">"):
                    words.append(STANDS_FOR.get(word.rstrip(";"), word.rstrip(";")))
                if word in ("&&", "||", "|", ";", "do", ">") or word.endswith(";"):
                    if words and words[0] in COMMANDS:
                        yield words
                    words = []


CALLS = sorted({tuple(call) for page in PAGES for call in commands(page.read_text(encoding="utf-8"))})


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
    text = "```bash\nfor fold in 0 1; do lopsided-eval -f $fold \\\n  -o a; done  # lopsided-env\n"
    text += "lopsided-plan 'b c' && nnUNetv2_train > d\n```\n"
    text += "1. a\n\n   ```bash\n   lopsided-env\n   ```\n"
    assert list(commands(text + "```text\nlopsided-no\n```\n")) == [
        ["lopsided-eval", "-f", "0", "-o", "a"],
        ["lopsided-plan", "b c"],
        ["nnUNetv2_train"],
        ["lopsided-env"],
    ]


# ---- commands within sentences, and synopses

SYNOPSIS = re.compile(r"^```text\n(lopsided-.*?)^```", re.MULTILINE | re.DOTALL)
IN_SENTENCE = re.compile(r"`((?:lopsided-|nnUNetv2_)\w[^`]*)`")
OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


class Found(Exception):
    """Carries a command's parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


@cache
def options_of(command: str, sub: str | None) -> frozenset[str]:
    """The options of a command; of one that has sub-commands, those of the one named, or else of all."""

    def found(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise Found(self)

    module, function = SCRIPTS[command].split(":")
    with pytest.MonkeyPatch.context() as patch:
        for method in ("parse_args", "parse_known_args"):
            patch.setattr(argparse.ArgumentParser, method, found)
        patch.setattr(sys, "argv", [command, *([sub] if sub else [])])
        with pytest.raises(Found) as raised:
            getattr(importlib.import_module(module), function)()
    actions = raised.value.parser._actions
    for action in actions:
        if isinstance(action, argparse._SubParsersAction):
            named = [action.choices[sub]] if sub in action.choices else action.choices.values()
            actions = [inner for parser in named for inner in parser._actions]
    return frozenset(option for action in actions for option in action.option_strings)


def unknown_options(text: str) -> list[str]:
    """Options that a call's command does not have; what follows ``--`` goes to another program."""
    words = text.split()
    sub = words[1] if len(words) > 1 and re.fullmatch("[a-z][a-z0-9-]*", words[1]) else None
    known = options_of(words[0], sub)
    return sorted(set(OPTION.findall(re.sub(r"'[^']*'|\s-- .*|\s-- ?\[.*", "", text))) - known)


def calls_of(text: str) -> Iterator[str]:
    """The calls in a page's sentences and synopses."""
    for synopsis in SYNOPSIS.findall(text):
        yield from re.split(r"\n(?=lopsided-|nnUNetv2_)", synopsis.strip())
    for code in IN_SENTENCE.findall(re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)):
        call = " ".join(code.split())
        if call.split()[0] in COMMANDS and " " in call:
            yield call


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_sentence_names_options_that_are_there(page: Path) -> None:
    calls = list(calls_of(page.read_text(encoding="utf-8")))
    assert [f"{call}: {unknown}" for call in calls if (unknown := unknown_options(call))] == []


def test_an_option_that_is_not_there_is_found() -> None:
    text = "```text\nlopsided-audit apply F -o ID --truth\nlopsided-share -d A --truth\n```\n`lopsided-eval --no-such`"
    assert [unknown_options(call) for call in calls_of(text)] == [[], ["--truth"], ["--no-such"]]
