"""Put the mistakes of mutations.toml into a copy of the repository, one at a time: which ones does no test notice?

    python tests/mutate.py              # all of them
    python tests/mutate.py curve Dice   # those whose name contains one of the words

The working tree stays as it is. Exit code 0: every mistake was noticed; 1: at least one was not; 2: the list is wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("mutations.toml")
# pytest's exit codes.
_PASSED, _FAILED = 0, 1


class BadList(ValueError):
    """A mutation that cannot be tried as it is written."""


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A mistake, and the tests that should notice it; see the head of mutations.toml."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def of(self, source: str) -> str:
        """The source with the mistake.

        Raises:
            BadList: ``old`` does not occur exactly once, or what comes out is not Python, where it is Python.
        """
        n = source.count(self.old)
        if n != 1:
            raise BadList(f"{self.name}: `old` must occur once in {self.file}, occurs {n} times")
        mutated = source.replace(self.old, self.new)
        if mutated == source:
            raise BadList(f"{self.name}: `old` and `new` are the same")
        if self.file.endswith(".py"):
            try:
                compile(mutated, self.file, "exec")
            except SyntaxError as error:
                raise BadList(f"{self.name}: not Python any more: {error}") from error
        return mutated


def read_mutations(path: Path = LIST) -> list[Mutation]:
    """The list.

    Raises:
        BadList: an entry lacks a key or has one too many, two have one name, or a test does not exist.
    """
    mutations: list[Mutation] = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]:
        if entry.keys() != {"name", "file", "old", "new", "tests"}:
            raise BadList(f"{entry.get('name', entry)}: must have name, file, old, new, tests, has {', '.join(entry)}")
        mutation = Mutation(**{**entry, "tests": tuple(entry["tests"])})
        if mutation.name in (known.name for known in mutations):
            raise BadList(f"{mutation.name}: two mutations have this name")
        for test in mutation.tests:
            if not (REPOSITORY / test.partition("::")[0]).exists():
                raise BadList(f"{mutation.name}: there is no {test}")
        if not mutation.tests:
            raise BadList(f"{mutation.name}: names no tests")
        mutations.append(mutation)
    return mutations


def copy_repository(to: Path) -> None:
    """All that tests read, without environments, caches and bytecode (which would outlive a change of its source)."""
    for entry in REPOSITORY.iterdir():
        if entry.is_file() and not entry.is_symlink():
            shutil.copy(entry, to)
    for name in ("nnunet_lopsided", "tests", "docs", "benchmarks"):
        shutil.copytree(REPOSITORY / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit code and output, stopped at the first failure."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-m", "not slow and not slurm", *tests]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def try_mutation(folder: Path, mutation: Mutation) -> bool:
    """Whether a test notices it.

    Raises:
        BadList: the tests do not even start.
    """
    path = folder / mutation.file
    right = path.read_text(encoding="utf-8")
    path.write_text(mutation.of(right), encoding="utf-8")
    try:
        code, output = run_tests(folder, mutation.tests)
    finally:
        path.write_text(right, encoding="utf-8")
    if code not in (_PASSED, _FAILED):
        raise BadList(f"{mutation.name}: the tests do not start (pytest's exit code {code}):\n{output}")
    return code == _FAILED


def main(argv: list[str] | None = None) -> int:
    """Try them and print which ones survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mutations whose name contains one of these")
    parser.add_argument("--list", type=Path, default=LIST, help="default: tests/mutations.toml")
    arguments = parser.parse_args(argv)
    try:
        mutations = [
            m
            for m in read_mutations(arguments.list)
            if not arguments.words or any(w in m.name for w in arguments.words)
        ]
        if not mutations:
            raise BadList("no mutation has such a name")
        return _try_all(mutations)
    except BadList as error:
        print(error, file=sys.stderr)
        return 2


def _try_all(mutations: Sequence[Mutation]) -> int:
    for mutation in mutations:
        mutation.of((REPOSITORY / mutation.file).read_text(encoding="utf-8"))
    survivors = []
    with tempfile.TemporaryDirectory(prefix="lopsided-mutations-") as name:
        folder = Path(name)
        copy_repository(folder)
        code, output = run_tests(folder, sorted({test for mutation in mutations for test in mutation.tests}))
        if code != _PASSED:
            raise BadList(f"the tests must pass before anything is changed (pytest's exit code {code}):\n{output}")
        for mutation in mutations:
            begin = time.monotonic()
            noticed = try_mutation(folder, mutation)
            print(
                f"{'noticed ' if noticed else 'SURVIVES'} {time.monotonic() - begin:5.0f} s  {mutation.name}",
                flush=True,
            )
            if not noticed:
                survivors.append(mutation)
    print(f"{len(mutations) - len(survivors)} of {len(mutations)} noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
