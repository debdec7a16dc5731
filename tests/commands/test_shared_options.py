"""Options that several commands have: one spelling, one meaning, in every command and sub-command."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from nnunet_lopsided.commands._cli import _NOT_SHOWN, Parser, parser_of
from nnunet_lopsided.commands._completion import _FIRST_WORDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
OTHERS = ("phantom", "fingerprint")  # python -m nnunet_lopsided.commands.NAME


class Option(NamedTuple):
    """An option of a command, by one of its names that help shows."""

    command: str
    name: str
    action: argparse.Action

    @property
    def meaning(self) -> tuple[object, str]:
        """What stands behind it, and its help."""
        return self.action.metavar, self.action.help or ""


def parsers() -> Iterator[Parser]:
    places = [place.partition(":")[0] for place in SCRIPTS.values()]
    for place in [*places, *(f"nnunet_lopsided.commands.{name}" for name in OTHERS)]:
        main = importlib.import_module(place).main
        parser = parser_of(main, [])
        yield parser
        yield from (parser_of(main, [word]) for word in _FIRST_WORDS.get(parser.prog, ()))
        named = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        # The alias of a converter is the same parser.
        yield from {id(sub): sub for subs in named for sub in subs.values()}.values()


def options() -> list[Option]:
    return [
        Option(parser.prog, name, action)
        for parser in parsers()
        for action in parser._actions
        for name in action.option_strings
        if name not in getattr(action, _NOT_SHOWN, ())
    ]


EVERY = options()
DATASET = ("DATASET", "id or name of the dataset .+")
NEW = ("ID", "id of the new dataset, 1 to 999, not in use")
VARIANT = ("ID", "id of the variant, 1 to 999, not in use")
FOLDER = ("FOLDER", "where .+ goe?s?(; .+)?( \\(default: .+\\))?")
MEANINGS: dict[str, list[tuple[object, str]]] = {
    "-d": [DATASET, NEW],
    # A folder, or another dataset; a variant that is there already for lopsided-share.
    "-o": [FOLDER, VARIANT, ("DATASET", "id or name of the variant of it, below nnUNet_raw")],
    "-i": [("FOLDER", "(images|beliefs|label maps)\\b.+")],
    "-g": [("FOLDER", "reference label maps .+")],
    # nnU-Net's, but for lopsided-eval, which has no plans.
    "-p": [("PLANS", "plans identifier \\(default: nnUNetPlans\\)"), ("FOLDER", "CASE\\.npz .+")],
    "-c": [("CONFIGURATION", "configuration, .+"), (None, "configuration to add .+")],
    "-tr": [("TRAINER", "trainer\\b.*\\(default: .+\\)")],
    "-f": [("FOLD", "folds\\b.*\\(default: .+\\)")],
    "-np": [("N", "cases worked on at the same time \\(default: [12]\\)")],
    "-device": [(None, "for .+ \\(default: .+\\)")],
    "--label": [("NAME", "class or region of dataset\\.json \\(default: all foreground\\).*")],
    "--labels": [("PATTERN", ".+")],
    "--seed": [("N", "of .+ \\(default: 0\\)")],
    "--bootstrap": [("N", "replicates, 0 for none \\(default: (1|2)000\\)")],
    "--overwrite": [(None, "replace .+")],
    "--name": [("NAME", "folder name after DatasetXXX_ \\(default: .+\\)")],
    "--patients-regex": [("REGEX", "its first group in a case's name is the patient.* \\(default: .+\\)")],
    "--series": [("FOLDER", ".*any folder above the .*files.*")],
    # Written by one command, read by another.
    "--decisions": [("FILE", "write .+"), ("FILE", "what was decided .+")],
}


@pytest.mark.parametrize("name", MEANINGS)
def test_an_option_means_the_same_in_every_command(name: str) -> None:
    own = [option for option in EVERY if option.name == name]
    assert own
    for option in own:
        metavar, text = option.meaning
        assert any(metavar == one and re.fullmatch(words, text) for one, words in MEANINGS[name]), (option, text)


def test_what_is_the_same_is_spelled_the_same() -> None:
    """A dataset, a number of cases at a time and so on have one name; what else means it is not shown."""
    spelled = [
        ("cases worked on", {"-np"}),
        ("id or name of the dataset", {"-d", "--truth"}),  # a second dataset
        ("class or region of", {"--label"}),
        ("folds", {"-f"}),
        ("plans identifier", {"-p"}),
        ("replicates,", {"--bootstrap"}),
        ("where ", {"-o", "--lidc-xml"}),
        ("folder name after", {"--name"}),
    ]
    for words, names in spelled:
        found = {option.name for option in EVERY if option.meaning[1].startswith(words)}
        assert found <= names, words
    assert not {"--np", "--output", "--device", "--folds", "--rank-by", "--lesion-label"} & {o.name for o in EVERY}
    shown = {action.option_strings[0] for action in (option.action for option in EVERY) if action.metavar == "PATTERN"}
    assert "--label" not in shown


def test_types_and_defaults_are_one() -> None:
    for option in EVERY:
        if option.name in ("-np", "--seed", "--bootstrap"):
            assert option.action.type is int, option
        if option.name == "--seed":
            assert option.action.default == 0, option
        if option.name == "-np":
            assert option.action.default == (1 if "phantom" in option.command else 2), option
        if option.name == "-p" and option.action.metavar == "PLANS":
            assert option.action.default == "nnUNetPlans", option
        if option.name == "-device":
            assert option.action.choices == ("cpu", "cuda", "mps"), option


def test_what_writes_at_a_place_of_the_users_choice_can_overwrite() -> None:
    by_command: dict[str, set[str]] = {}
    for option in EVERY:
        by_command.setdefault(option.command, set()).add(option.name)
    lacking = [command for command, names in by_command.items() if "-o" in names and "--overwrite" not in names]
    # A study goes on with what is there, and nnUNetv2_predict has no such option.
    assert sorted(lacking) == ["lopsided-predict", "lopsided-study plan", "lopsided-study run"]


@pytest.mark.parametrize(
    ("command", "given", "expected"),
    [
        ("lopsided-eval", ["-p", "a", "-o", "b", "--np", "3"], {"np": 3}),
        ("lopsided-eval", ["-p", "a", "--output", "b"], {"output": Path("b")}),
        ("lopsided-eval", ["--cv", "a", "-o", "b", "--folds", "0", "2"], {"folds": [0, 2]}),
        ("lopsided-eval", ["--reference-full", "g", "-p", "a", "-o", "b"], {"references": Path("g")}),
        ("lopsided-audit", ["-d", "1", "-c", "2d", "--rank-by", "max"], {"rank_by": "max"}),
        ("lopsided-audit", ["-d", "1", "-c", "2d", "--device", "cpu"], {"device": "cpu"}),
        ("lopsided-convert", ["folder", "s", "-d", "5", "--channels", "a=b", "--label", "c"], {"d": 5, "label": "c"}),
        ("lopsided-convert", ["dicom", "s", "-d", "5", "--channels", "a=b"], {"label": "*"}),
        ("lopsided-demo", ["--output", "x"], {"output": Path("x")}),
    ],
)
def test_earlier_spellings_are_understood(command: str, given: list[str], expected: dict[str, object]) -> None:
    main = importlib.import_module(SCRIPTS[command].partition(":")[0]).main
    parsed = vars(parser_of(main, []).parse_args(given))
    assert {name: parsed[name] for name in expected} == expected


def test_help_shows_one_spelling() -> None:
    for parser in parsers():
        text = parser.format_help()
        for action in parser._actions:
            hidden = [name for name in getattr(action, _NOT_SHOWN, ()) if name in action.option_strings]
            for name in hidden:
                owner = [a for a in parser._actions if a is not action and name in a.option_strings]
                assert owner or not re.search(rf"(?<![\w-]){name}(?![\w-])", text), (parser.prog, name)


def table() -> list[str]:
    """The table of docs/reference/options.md, from the parsers themselves."""
    columns = ("-d", "-o", "-i", "-g", "-p", "-np", "--label", "--seed", "--overwrite", "-device")
    kinds = ((r"id of the new", "new id"), (r"id of the variant", "new id"), (r"id or name", "dataset"))
    cells: dict[str, dict[str, str]] = {}
    for option in EVERY:
        text = option.meaning[1]
        word = next(
            (kind for words, kind in kinds if text.startswith(words)), str(option.action.metavar or "yes").lower()
        )
        cells.setdefault(option.command, {})[option.name] = word
    converters = [name for name in cells if name.startswith("lopsided-convert ")]
    for name in converters[1:]:
        assert {c: cells[name].get(c) for c in columns} == {c: cells[converters[0]].get(c) for c in columns}, name
    cells["lopsided-convert NAME"] = cells[converters[0]]
    shown = [name for name in cells if set(columns) & set(cells[name]) and name not in converters]
    return [
        "| command | " + " | ".join(f"`{column}`" for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *(f"| `{name}` | " + " | ".join(cells[name].get(c, "") for c in columns) + " |" for name in sorted(shown)),
    ]


def test_the_table_of_the_documentation_is_true() -> None:
    text = (REPOSITORY / "docs" / "reference" / "options.md").read_text(encoding="utf-8")
    assert "\n".join(table()) in text
