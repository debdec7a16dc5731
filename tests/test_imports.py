"""Which part imports which: the contracts of pyproject.toml hold, and each of them notices when it is broken."""

from __future__ import annotations

import graphlib
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LINT_IMPORTS = "from importlinter.cli import lint_imports_command as main; main()"
LAYERS = "Parts import only parts below them"
CIRCLES = "No circle between packages, nor between the modules of one"
NUMERICS = "Numerics know neither nnU-Net nor files"
HOST = "nnU-Net's code is imported by its adapters alone"
# A module, a line that it must not contain, the contract that it breaks, and what that says of it.
VIOLATIONS = {
    "upwards": ("evaluation.case", "import {}.study.jobs", LAYERS, "{}.evaluation.case -> {}.study.jobs"),
    "beside": ("demo.steps", "import {}.audit.ranking", LAYERS, "{}.demo.steps -> {}.audit.ranking"),
    "inside a function": ("errors", "def late():\n    import {}.images", LAYERS, "{}.errors -> {}.images"),
    "circle in a package": ("study.jobs", "import {}.study.expansion", CIRCLES, ".jobs -> .expansion"),
    "circle of packages": ("nnunet.paths", "import {}.variants.choosing", CIRCLES, ".nnunet -> .variants"),
    "numbers and files": ("evaluation.matching", "import {}.files.json", NUMERICS, "matching -> {}.files.json"),
    "over a detour": ("audit.ranking", "import {}.images", NUMERICS, "{}.audit.ranking -> {}.images"),
    "loss": ("losses.dice", "import nnunetv2", NUMERICS, "{}.losses.dice -> nnunetv2"),
    "nnU-Net": ("evaluation.loading", "import nnunetv2.paths", HOST, "{}.evaluation.loading -> nnunetv2"),
    "batchgenerators": ("study.schema", "import batchgenerators", HOST, "{}.study.schema -> batchgenerators"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on the package and the configuration in a folder."""
    command = [sys.executable, "-c", LINT_IMPORTS, "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of a copy of the package with all violations, by contract, in one line each."""
    folder = tmp_path_factory.mktemp("imports")
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    package = folder / "nnunet_lopsided"
    shutil.copytree(REPOSITORY / "nnunet_lopsided", package, ignore=shutil.ignore_patterns("__pycache__"))
    for module, line, _, _ in VIOLATIONS.values():
        with (package / (module.replace(".", "/") + ".py")).open("a") as source:
            source.write(f"\n{line.format('nnunet_lopsided')}\n")
    done = lint(folder)
    assert done.returncode == 1, done.stdout + done.stderr
    _, _, report = done.stdout.partition("Broken contracts\n")
    report = " ".join(report.split())
    places = sorted((report.index(f"{name} ---"), name) for name in (LAYERS, CIRCLES, NUMERICS, HOST))
    ends = [*(place for place, _ in places[1:]), len(report)]
    return {name: report[begin:end] for (begin, name), end in zip(places, ends, strict=True)}


def test_the_contracts_hold() -> None:
    done = lint(REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_a_violation_is_named(complaints: dict[str, str], violation: str) -> None:
    _, _, contract, complaint = VIOLATIONS[violation]
    assert complaint.replace("{}", "nnunet_lopsided") in complaints[contract]


def test_no_circle_between_modules() -> None:
    """Not through the ``__init__`` of a package either, which the contract leaves out."""
    graph = grimp.build_graph("nnunet_lopsided", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()


def test_what_the_layout_of_nnunet_costs() -> None:
    """Its modules are imported by every command: the seconds of torch and nnU-Net are for those that need them."""
    folder = REPOSITORY / "nnunet_lopsided" / "nnunet"
    modules = [f"nnunet_lopsided.nnunet.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"]
    program = f"import sys, {', '.join(modules)}; print([m for m in ('torch', 'nnunetv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_tests_lie_where_their_modules_lie() -> None:
    """A test with the name of a module is in the folder of one; a name of its own is for what tests several."""
    package, tests = REPOSITORY / "nnunet_lopsided", REPOSITORY / "tests"
    modules = {path.relative_to(package).with_suffix("").as_posix() for path in package.rglob("*.py")}
    names = {module.rpartition("/")[2] for module in modules}
    tested = [
        path.relative_to(tests).with_name(path.stem.removeprefix("test_")).as_posix()
        for path in tests.rglob("test_*.py")
    ]
    assert [test for test in tested if test.rpartition("/")[2] in names and test not in modules] == []
