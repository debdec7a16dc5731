"""Every page's blocks of shell run from the first line to the last, in a folder that has what the page assumes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.documentation.pages import REPOSITORY, pattern_of, shown
from tests.documentation.quick import quick_shell
from tests.documentation.running import LINES, TEXTS, files_missing, run_page, said, whole_sentence_calls
from tests.documentation.tables import NOT_RUN, SENTENCES, SENTENCES_NOT_RUN, substituted, why_not_run
from tests.documentation.worlds import BY_HAND, TUTORIAL, WORLDS, my_lesions

# nnU-Net's commands and ours are functions of a bash that asks this process over pipes.
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs bash")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(WORLDS) - {TUTORIAL}))
def test_a_page_works_as_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = quick_shell(tmp_path, monkeypatch)
    printed = run_page(name, shell)
    commands, expected = shown(TEXTS[name])
    printed += said(shell, commands)
    assert [line for line in expected if not re.search(f"^{pattern_of(line)}$", printed, re.MULTILINE)] == [], printed
    assert files_missing(name, tmp_path) == []


@pytest.mark.slow
def test_commands_within_sentences_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = quick_shell(tmp_path, monkeypatch)
    my_lesions(shell)
    shell.run("nnUNetv2_plan_and_preprocess -d 501 -c 3d_fullres")
    shell.run("\n".join(map(substituted, SENTENCES)))
    assert (tmp_path / "study.schema.json").stat().st_size > 1000


def test_every_command_within_a_sentence_is_run_or_listed() -> None:
    assert sorted(whole_sentence_calls()) == sorted([*SENTENCES, *SENTENCES_NOT_RUN])


def test_every_block_has_a_language_that_is_known() -> None:
    languages = {language for text in TEXTS.values() for language in re.findall(r"^ *```(\S+)$", text, re.MULTILINE)}
    assert languages <= {"bash", "bibtex", "json", "python", "text", "yaml"}


def test_every_line_is_run_or_listed() -> None:
    """A page whose lines are all listed needs no world; README's are those of another page."""
    elsewhere = set(LINES["docs/getting-started/first-training.md"])
    neither = [
        f"{name}: {line}"
        for name, its in LINES.items()
        for line in its
        if name not in WORLDS and not why_not_run(line) and line not in elsewhere
    ]
    assert neither == []


def test_every_line_listed_is_there() -> None:
    every = [line for its in LINES.values() for line in its]
    listed = [*NOT_RUN, *BY_HAND]
    assert [start for start in listed if not any(line.startswith(start) for line in every)] == []
    assert sorted(set(WORLDS) - {name for name, its in LINES.items() if its}) == []


def test_every_target_of_make_is_there() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    named = {line.split()[1] for its in LINES.values() for line in its if line.startswith("make ")}
    assert [target for target in sorted(named) if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
