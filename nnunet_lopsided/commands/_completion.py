"""Scripts by which a shell completes our commands, made by shtab from the commands' own parsers."""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path

from nnunet_lopsided.commands._cli import Parser, parser_of
from nnunet_lopsided.errors import InputError

SHELLS = ("bash", "zsh")
# Commands that look at their first word before they make a parser.
_FIRST_WORDS = {
    "lopsided-audit": ("apply", "score", "export", "import", "agree", "sample", "estimate"),
    "lopsided-eval": ("compare",),
}


def completion_script(shell: str) -> str:
    """What a shell reads to complete options, choices and file names of all our commands.

    Args:
        shell: one of :data:`SHELLS`.

    Raises:
        InputError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError:
        raise InputError("--completion needs shtab: pip install 'nnunet-lopsided[completion]'") from None

    scripts = []
    for name, module in _commands():
        parser = _with_first_words(name, module)
        for action in parser.all_actions():
            if action.type is Path or action.metavar in ("FOLDER", "FILE", "CSV", "SRC", "DIR"):
                # Folders are completed as files are: what is below them may be meant.
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        scripts.append(shtab.complete(parser, shell=shell))
    return "\n".join(scripts)


def _commands() -> list[tuple[str, str]]:
    """Our console commands and the modules they are in, of what is installed."""
    found = metadata.entry_points(group="console_scripts")
    ours = {entry.name: entry.module for entry in found if entry.module.startswith("nnunet_lopsided.commands.")}
    return sorted(ours.items())


def _with_first_words(name: str, module: str) -> Parser:
    """The parser of a command; with its first words as sub-commands, which it has not itself."""
    main = importlib.import_module(module).main
    parser = parser_of(main, [])
    found = {}
    for word in _FIRST_WORDS.get(name, ()):
        other = parser_of(main, [word])
        if other.prog == f"{name} {word}":
            found[word] = other
    if found:
        commands = parser.add_subparsers(metavar="COMMAND")
        for word, other in found.items():
            commands.add_parser(word, help=other.description)
            commands.choices[word] = other
    return parser
