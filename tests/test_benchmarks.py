"""The scripts in benchmarks/ start: what they import exists, and they say what they are for."""

from __future__ import annotations

import ast
import importlib
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
COMMANDS = [script for script in SCRIPTS if '__name__ == "__main__"' in script.read_text()]


@pytest.mark.parametrize("script", COMMANDS, ids=lambda path: path.stem)
def test_help(script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    monkeypatch.syspath_prepend(FOLDER)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 0
    text = ast.get_docstring(ast.parse(script.read_text())) or ""
    assert text.splitlines()[0][:40] in " ".join(capsys.readouterr().out.split())


def is_module(package: str, name: str) -> bool:
    """Whether a package has a module of this name, loaded or not."""
    try:
        importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_is_imported_late_exists(script: Path) -> None:
    """Imports of ours and of nnU-Net inside of functions, which ``--help`` does not reach."""
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("nnunet_lopsided", "nnunetv2")):
            module = importlib.import_module(node.module)
            missing = [a.name for a in node.names if not (hasattr(module, a.name) or is_module(node.module, a.name))]
            assert missing == [], node.module


@pytest.mark.parametrize(
    ("script", "few", "too_few"), [("coverage.py", "2", "1"), ("coverage_patients.py", "2,2", "1,5")]
)
def test_coverage_of_few_patients(
    script: str, few: str, too_few: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hits may lack altogether, and false positives too; of one patient there is nothing to resample."""
    monkeypatch.setattr(sys, "argv", [script, "--repeats", "20", "--patients", few, "--seed", "1"])
    runpy.run_path(str(FOLDER / script), run_name="__main__")
    assert "%" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [script, "--patients", too_few])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    assert end.value.code == 2
    assert "must be at least 2" in capsys.readouterr().err
