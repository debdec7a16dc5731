"""Running a page: its lines by the shell, and between them what the reader does by hand."""

from __future__ import annotations

from pathlib import Path

from tests.documentation.pages import PAGES, blocks, files, lines, name_of, sentence_calls
from tests.documentation.shell import Shell
from tests.documentation.tables import NOT_MADE, substituted, why_not_run
from tests.documentation.worlds import BY_HAND, WORLDS

TEXTS = {name_of(page): page.read_text(encoding="utf-8") for page in PAGES}
LINES = {name: [line for block in blocks(text) for line in lines(block)] for name, text in TEXTS.items()}


def run_page(name: str, shell: Shell) -> str:
    """Run a page's lines; what all of its commands printed."""
    WORLDS[name](shell)
    printed = ""
    for block in blocks(TEXTS[name]):
        script: list[str] = []
        for line in lines(block):
            for start, by_hand in BY_HAND.items():
                if line.startswith(start):
                    printed += said(shell, script)
                    script = []
                    by_hand(shell)
            if not why_not_run(line):
                script.append(substituted(line))
        printed += said(shell, script)
    return printed


def whole_sentence_calls() -> set[str]:
    """Commands within sentences that a reader can type as they are, but for those that a block has too."""
    lines_of_blocks = {line for its in LINES.values() for line in its}
    calls = {call for text in TEXTS.values() for call in sentence_calls(text)}
    # Others name an option, and lack what the command needs.
    needed = {"lopsided-predict": " -i ", "lopsided-eval": " -p ", "lopsided-study": "", "nnUNetv2_train": " -tr "}
    return {
        call
        for call in calls - lines_of_blocks
        if needed.get(call.split()[0], " -d ") in call and not why_not_run(call)
    }


def said(shell: Shell, script: list[str]) -> str:
    return "".join(call.stdout + call.stderr for call in shell.run("\n".join(script))) if script else ""


def files_missing(name: str, root: Path) -> list[str]:
    """Files that a page names and its commands have not made; CASE stands for any."""
    expected = [path for path in files(TEXTS[name]) if path not in NOT_MADE.get(name, {})]
    return [path for path in expected if not any(root.rglob(path.replace("CASE", "*")))]
