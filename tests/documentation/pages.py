"""The pages of the documentation, and what of them a shell runs."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
# A block in a list is indented.
_BLOCK = re.compile(r"^( *)```(?:bash|shell)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w.-]+(?:/[\w.-]+)*\.(?:html|csv|json|png|txt|ctbl|nii\.gz))`")
_CALL = re.compile(r"`((?:lopsided-\w+|nnUNetv2_\w+|python -m) [^`]*)`")
_TEXT = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPACES_AND_COMMENT = re.compile(r"\s+#\s.*$|^#\s.*$", re.MULTILINE)


def name_of(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(REPOSITORY).as_posix()


def blocks(text: str) -> list[str]:
    """The blocks of shell of a page, without their indentation."""
    return [textwrap.dedent(block) for _, block in _BLOCK.findall(text)]


def lines(block: str) -> list[str]:
    """The lines of a block without comments; a line that ends in a backslash is one with the next.

    Example:
        >>> lines("a \\\\\\n  b   # why\\n# only why\\nc\\n")
        ['a b', 'c']
    """
    joined = re.sub(r"\s*\\\n\s*", " ", block)
    return [line for line in _SPACES_AND_COMMENT.sub("", joined).splitlines() if line.strip()]


def shown(text: str) -> tuple[list[str], list[str]]:
    """Of a page's blocks of text: the commands behind ``$``, and the lines that commands are said to print."""
    commands, printed = [], []
    for block in _TEXT.findall(text):
        if block.splitlines()[0].endswith("/"):
            continue  # a tree of files
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append(line[2:])
            elif line != "...":
                printed.append(line)
    return commands, printed


def pattern_of(line: str) -> str:
    """What matches a line of output that a page shows: numbers, N and M are any, and folders.

    Example:
        >>> bool(re.fullmatch(pattern_of("/data/a1: 123 of N lesions (50.0%)"), "/x/y/a1: 1 of 20 lesions (9%)"))
        True
    """
    line = re.sub(r"(?<!\S)/\S*/", "\0", line)
    pieces = re.split(r"(\0|\b[NM]\b|\d+(?:\.\d+)?)", line)
    return "".join(
        r"\S*/" if piece == "\0" else r"\d+(?:\.\d+)?" if i % 2 else re.escape(piece) for i, piece in enumerate(pieces)
    )


def sentence_calls(text: str) -> list[str]:
    """The commands within a page's sentences that are whole: without dots and words for the reader's own."""
    found = [" ".join(code.split()) for code in _CALL.findall(_CODE.sub("", text))]
    return [call for call in found if re.search(" -|>", call) and not re.search(r"\.\.\.|\b[A-Z]{2,}\b", call)]


def files(text: str) -> list[str]:
    """Files that a page's prose names, each once."""
    return sorted(set(_FILE.findall(_CODE.sub("", text))))
