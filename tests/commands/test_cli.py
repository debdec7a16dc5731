"""What every command shares: arguments that argparse itself takes wrongly, and a stdout that cannot be written."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_lopsided.commands._cli import Parser, numbers_of_folds, run
from nnunet_lopsided.errors import InputError

_PRINTS = """
import sys
from nnunet_lopsided.commands._cli import Parser, run
sys.exit(run(Parser(prog="lopsided-x"), lambda arguments: print("line " * int(sys.argv[1])) or 0, []))
"""

_BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def work(arguments: argparse.Namespace) -> int:
    raise AssertionError(arguments)  # must not be reached


@pytest.mark.parametrize("given", [["--output=--"], ["-o--"], ["--size=--"], ["--folds=--"]])
def test_two_dashes_are_no_value(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="lopsided-x")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--size", type=int)
    parser.add_argument("--folds", type=int, nargs="+")
    with pytest.raises(SystemExit) as end:
        run(parser, work, given)
    assert end.value.code == 2
    name = {"-o--": "-o/--output", "--output=--": "-o/--output"}.get(given[0], given[0][:-3])
    assert capsys.readouterr().err == f"lopsided-x: error: argument {name}: expected a value, got '--'\n"


@pytest.mark.parametrize(
    "given", ["+802", "8_02", " 802", "802 ", "\u0668\u0660\u0662", "\u00b2", "8.0", "0x10", "9" * 30, ""]
)
def test_numbers_are_plain_digits(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="lopsided-x")
    verb = parser.add_subparsers().add_parser("verb")
    for parser_of_it in (parser, verb):
        parser_of_it.add_argument("-o", type=int)
    for arguments in (["-o", given], ["verb", "-o", given]):
        with pytest.raises(SystemExit) as end:
            run(parser, work, arguments)
        assert end.value.code == 2
        assert f"error: argument -o: invalid int value: {given!r}" in capsys.readouterr().err
    assert [parser.parse_args(["-o", text]).o for text in ("802", "-5", "007")] == [802, -5, 7]


@pytest.mark.parametrize("given", ["1_0.5", " 0.5", "\u0660.\u0665", "0,5", ""])
def test_so_are_fractions(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="lopsided-x")
    parser.add_argument("--rate", type=float)
    with pytest.raises(SystemExit):
        run(parser, work, ["--rate", given])
    assert f"argument --rate: invalid float value: {given!r}" in capsys.readouterr().err
    assert [parser.parse_args(["--rate", text]).rate for text in ("0.5", ".5", "1e-3", "-1")] == [0.5, 0.5, 0.001, -1]


def test_folds_are_plain_digits_or_all() -> None:
    assert numbers_of_folds([0, "1", "all"]) == [0, 1, "all"]
    for wrong in ("+1", "1_0", "\u0663", "-1", "ALL", ""):
        with pytest.raises(InputError, match="-f must be numbers of folds, or all, got"):
            numbers_of_folds(["0", wrong])


def test_two_dashes_still_end_the_options() -> None:
    parser = Parser(prog="lopsided-x")
    parser.add_argument("--folds", nargs="*")
    parser.add_argument("name")
    assert parser.parse_args(["--folds", "1", "--", "-a"]) == argparse.Namespace(folds=["1"], name="-a")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is needed")
@pytest.mark.parametrize(
    ("words", "reason"),
    [  # both sides of Python's buffer
        (1, "cannot write to stdout: [Errno 28] No space left on device; the work is done"),
        (100_000, "[Errno 28] No space left on device"),
    ],
)
def test_a_full_disk_behind_stdout_is_one_line(words: int, reason: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", _PRINTS, str(words)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=_BUFFERED,
        )
    assert (done.returncode, done.stderr) == (2, f"lopsided-x: error: {reason}\n")


@pytest.mark.parametrize("words", [1, 100_000])
def test_a_reader_that_has_enough_is_no_error(words: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", _PRINTS, str(words)],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=_BUFFERED,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_broken_pipe_of_a_worker_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def work(arguments: argparse.Namespace) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    assert run(Parser(prog="lopsided-x"), work, []) == 2
    assert capfd.readouterr().err == "lopsided-x: error: [Errno 32] Broken pipe\n"
