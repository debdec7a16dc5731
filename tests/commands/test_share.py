"""The lopsided-share command: what it prints, and its exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nnunet_lopsided.commands.share import main
from nnunet_lopsided.variants.writing import write_censored_variant
from tests.conftest import TinyDataset

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def variant(tiny: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A variant of the tiny dataset, in a root of its own that links to the tiny one's."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        (tmp_path / variable / tiny.name).symlink_to(tiny.root / variable / tiny.name)
    return write_censored_variant(tiny.name, 711, "size", 0.5).folder


def test_it_says_what_it_did(variant: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["-d", "701", "-o", "711"]) == 0
    folder = variant.parents[1] / "nnUNet_preprocessed" / variant.name
    captured = capsys.readouterr()
    assert captured.out == (f"{folder}: 5 cases, nnUNetPlans_2d, nnUNetPlans_3d_fullres; 10 image files linked\n")
    assert "note:" not in captured.err
    assert main(["-d", "701", "-o", "711"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"lopsided-share: error: {folder} exists; --overwrite replaces it if this command made it"
    assert main(["-d", "701", "-o", "711", "--overwrite", "-np", "1"]) == 0


def test_it_says_that_it_copied(
    variant: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert main(["-d", "701", "-o", "711"]) == 0
    assert "note: 10 image files could not be linked (another file system or user) and were copied" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "700", "-o", "711"], "dataset 700: expected one folder below nnUNet_preprocessed="),
        (["-d", "701", "-o", "799"], "dataset 799 not found below nnUNet_raw="),
        (["-d", "701", "-o", "701"], "Dataset701_Phantom is source and variant"),
        (["-d", "701", "-o", "711", "-np", "0"], "number of workers (-np) must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    variant: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"lopsided-share: error: {message}")
    assert captured.err.count("\n") == 1
    preprocessed = variant.parents[1] / "nnUNet_preprocessed"
    assert [path.name for path in preprocessed.iterdir()] == ["Dataset701_Phantom"]


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom nnunet_lopsided.commands.share import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print([m for m in ('numpy', 'SimpleITK', 'torch', 'nnunetv2') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert out.stdout.startswith("usage: lopsided-share")
    assert out.stdout.splitlines()[-1] == "[]"
