"""lopsided-plan."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_lopsided.commands.plan import main

PLANS = {
    "plans_name": "nnUNetPlans",
    "transpose_forward": [0, 1, 2],
    "configurations": {
        "2d": {"patch_size": [56, 40], "batch_size": 12, "spacing": [1.0, 1.0]},
        "3d_fullres": {"patch_size": [16, 64, 64], "batch_size": 2, "spacing": [3.0, 1.0, 1.0]},
    },
}
FINGERPRINT = {"shapes_after_crop": [[20, 60, 50]], "spacings": [[3.0, 1.0, 1.0]]}


@pytest.fixture
def folder(nnunet_paths: Path) -> Path:
    folder = nnunet_paths / "nnUNet_preprocessed" / "Dataset505_Planned"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(PLANS))
    (folder / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT))
    return folder


def stored(folder: Path, plans: str = "nnUNetPlans") -> dict:
    return json.loads((folder / f"{plans}.json").read_text())["configurations"]["2.5d"]


def test_it_says_what_it_wrote(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-d", "505"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"2.5d added to {folder / 'nnUNetPlans.json'}",
        "  network: deeplabv3, encoder resnet50, output stride 8",
        "  training patch: 5 slices of 64 x 48, batch size 12",
        "  prediction patch: 20 slices of 64 x 48",
        "Train with: nnUNetv2_train 505 2.5d FOLD -tr nnUNetTrainerLopsided",
    ]
    assert stored(folder)["patch_size"] == [20, 64, 48]


def test_options_reach_the_plans(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "nnUNetPlans.json").rename(folder / "Mine.json")
    options = "--slices 3 --encoder resnet18 --decoder deeplabv3plus --output-stride 16 --patch 32 96 --batch-size 4"
    assert main(["-d", "Dataset505_Planned", "-p", "Mine", *options.split()]) == 0
    assert "Train with: nnUNetv2_train Dataset505_Planned 2.5d FOLD -tr nnUNetTrainerLopsided -p Mine" in (
        capsys.readouterr().out
    )
    written = stored(folder, "Mine")
    assert (written["patch_size"], written["batch_size"]) == ([20, 32, 96], 4)
    assert written["architecture"]["arch_kwargs"] == {
        "n_slices": 3,
        "encoder": "resnet18",
        "decoder": "deeplabv3plus",
        "output_stride": 16,
    }


def test_again_and_otherwise(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-d", "505"]) == 0
    assert main(["-d", "505"]) == 0
    assert main(["-d", "505", "--slices", "3"]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert main(["-d", "505", "--slices", "3", "--overwrite"]) == 0
    assert stored(folder)["architecture"]["arch_kwargs"]["n_slices"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-d", "77"], "dataset 77: expected one folder below nnUNet_preprocessed="),
        (["-d", "505", "-p", "Other"], "file not found: "),
        (["-d", "505", "--slices", "4"], "slices must be a positive odd number, got 4"),
        (["-d", "505", "--batch-size", "0"], "batch size must be at least 1, got 0"),
        (["-d", "505", "--patch", "0", "32"], "patch must be two positive numbers, got (0, 32)"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    before = (folder / "nnUNetPlans.json").read_bytes()
    assert main(options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"lopsided-plan: error: {message}")
    assert (folder / "nnUNetPlans.json").read_bytes() == before
    assert len(list(folder.iterdir())) == 2


def test_an_unplanned_dataset_is_told_what_to_run(nnunet_paths: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nnunet_paths / "nnUNet_raw" / "Dataset077_Raw").mkdir()
    assert main(["-d", "77"]) == 2
    assert capsys.readouterr().err.endswith("found none; run nnUNetv2_plan_and_preprocess first\n")


@pytest.mark.parametrize("broken", ["nnUNetPlans.json", "dataset_fingerprint.json"])
def test_missing_and_broken_files(folder: Path, broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / broken).write_text("{")
    assert main(["-d", "505"]) == 2
    assert f"{folder / broken}: not valid JSON" in capsys.readouterr().err
    (folder / broken).unlink()
    assert main(["-d", "505"]) == 2
    assert capsys.readouterr().err == f"lopsided-plan: error: file not found: {folder / broken}\n"


def test_missing_paths(nnunet_paths: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = nnunet_paths / "nowhere"
    monkeypatch.setenv("nnUNet_preprocessed", str(nowhere))
    assert main(["-d", "505"]) == 2
    assert capsys.readouterr().err == (
        f"lopsided-plan: error: nnUNet_preprocessed is set to {nowhere}, which is not a folder\n"
    )
    monkeypatch.delenv("nnUNet_preprocessed")
    assert main(["-d", "505"]) == 2
    assert capsys.readouterr().err.startswith("lopsided-plan: error: nnUNet_preprocessed is not set: export ")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom nnunet_lopsided.commands.plan import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('numpy', 'torch', 'nnunetv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: lopsided-plan")
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("encoder", ["nonsense", "vgg11"])  # unknown; cannot be dilated
def test_an_encoder_that_cannot_be_used(folder: Path, capsys: pytest.CaptureFixture[str], encoder: str) -> None:
    assert main(["-d", "505", "--encoder", encoder]) == 2
    message = capsys.readouterr().err
    assert f"encoder {encoder} cannot be used: " in message
    assert message.count("\n") == 1
    assert json.loads((folder / "nnUNetPlans.json").read_text()) == PLANS
