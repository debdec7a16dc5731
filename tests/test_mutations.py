"""The list of mutations fits the code, and a run of it tells a noticed mistake from one that nobody noticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.mutate import REPOSITORY, BadList, Mutation, main, read_mutations

# Its doctests see how problems are joined, but not the exit code.
FAST = "nnunet_lopsided/errors.py"
ENTRY = """
[[mutation]]
name = "{name}"
file = "nnunet_lopsided/errors.py"
old = {old!r}
new = {new!r}
tests = {tests}
"""


def entry(name: str = "one", old: str = "class InputError(", new: str = "class OtherError(", tests: str = FAST) -> str:
    return ENTRY.format(name=name, old=old, new=new, tests=[tests])


@pytest.fixture(scope="module")
def mutations() -> list[Mutation]:
    return read_mutations()


def test_every_mutation_fits_the_code(mutations: list[Mutation]) -> None:
    wrong = []
    for mutation in mutations:
        try:
            mutation.of((REPOSITORY / mutation.file).read_text(encoding="utf-8"))
        except BadList as error:
            wrong.append(str(error))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (entry(old="no such text"), r"one: `old` must occur once in nnunet_lopsided/errors.py, occurs 0 times"),
        (entry(old="e"), r"one: `old` must occur once in .*, occurs [1-9]\d+ times"),
        (entry(new="class InputError("), r"one: `old` and `new` are the same"),
        (entry(new="class (("), r"one: not Python any more"),
        (entry() + entry(), r"one: two mutations have this name"),
        (entry(tests="tests/test_nothing.py"), r"one: there is no tests/test_nothing.py"),
        (entry() + 'why = "?"', r"one: must have name, file, old, new, tests, has .*why"),
    ],
)
def test_a_wrong_list_is_refused(
    content: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.toml").write_text(content)
    assert main(["--list", str(tmp_path / "list.toml")]) == 2
    assert re.match(complaint, capsys.readouterr().err)


@pytest.mark.slow
def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noticed = entry("joined by a comma", '"; ".join(problems)', '", ".join(problems)')
    survives = entry("another exit code", "raise SystemExit(2)", "raise SystemExit(3)")
    path = tmp_path / "list.toml"
    path.write_text(noticed + survives)
    before = (REPOSITORY / FAST).read_text()
    assert main(["--list", str(path)]) == 1
    out = capsys.readouterr().out
    assert re.fullmatch(r"noticed +\d+ s  joined by a comma\nSURVIVES +\d+ s  another exit code\n1 of 2 noticed\n", out)
    assert (REPOSITORY / FAST).read_text() == before


def test_a_word_that_no_mutation_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no mutation is called this"]) == 2
    assert capsys.readouterr().err == "no mutation has such a name\n"
