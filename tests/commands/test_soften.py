"""The lopsided-soften command: what it prints, and its exit codes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.commands.soften import main
from nnunet_lopsided.images import Image, read_image, write_image
from tests.conftest import TinyDataset, set_paths

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tiny: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A belief of one case of the tiny dataset, which may be changed."""
    set_paths(tmp_path, monkeypatch)
    shutil.copytree(tiny.preprocessed, tmp_path / "nnUNet_preprocessed" / tiny.name)
    label = read_image(tiny.preprocessed / "gt_segmentations" / "phantom_000.nii.gz")
    (tmp_path / "beliefs").mkdir()
    write_image(tmp_path / "beliefs" / "phantom_000.nii.gz", Image(label.array.astype(np.float32), label.geometry))
    return tmp_path / "beliefs"


def test_it_says_what_it_did(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-d", "701", "-c", "2d", "-i", str(source)]
    assert main(arguments) == 0
    folder = source.parent / "nnUNet_preprocessed" / "Dataset701_Phantom" / "nnUNetPlans_2d" / "lopsided_beliefs"
    assert capsys.readouterr().out == f"{folder}: beliefs of 1 of 5 cases, 0 everywhere in 4\n"
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"lopsided-soften: error: {folder} exists; --overwrite replaces it if this command made it"
    assert main([*arguments, "--overwrite", "-np", "1"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "700", "-c", "2d"], "dataset 700: expected one folder below nnUNet_preprocessed="),
        (["-d", "701", "-c", "4d"], "configuration must be one of 2d, "),
        (["-d", "701", "-c", "2d", "-np", "0"], "number of workers (-np) must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    source: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*arguments, "-i", str(source)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith(f"lopsided-soften: error: {message}")


def test_every_file_that_belongs_to_no_case_has_a_line(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("phantom_9.nii.gz", "notes.txt"):
        (source / name).touch()
    assert main(["-d", "701", "-c", "2d", "-i", str(source)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith(f"lopsided-soften: error: {source / 'notes.txt'}: belongs to no case, expected CASE")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom nnunet_lopsided.commands.soften import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print([m for m in ('numpy', 'SimpleITK', 'torch', 'nnunetv2') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert out.stdout.startswith("usage: lopsided-soften")
    assert out.stdout.splitlines()[-1] == "[]"
