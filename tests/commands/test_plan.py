"""lopsided-plan."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
def folder(planned_dataset: Callable[..., Path]) -> Path:
    return planned_dataset(PLANS, FINGERPRINT)


def stored(folder: Path, plans: str = "nnUNetPlans") -> dict[str, Any]:
    return json.loads((folder / f"{plans}.json").read_text())["configurations"]["2.5d"]


def test_it_says_what_it_wrote_and_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-d", "505"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"2.5d added to {folder / 'nnUNetPlans.json'}"
    assert lines[-1] == "Train with: nnUNetv2_train 505 2.5d FOLD -tr nnUNetTrainerLopsided"
    assert [line[2:22].strip() for line in lines[1:-1]] == [
        "slices",
        "patch",
        "window",
        "depth",
        "decoder",
        "output stride",
        "encoder",
        "encoder weights",
        "batch size",
        "iterations per epoch",
        "epochs",
        "memory",
    ]
    assert (
        "  slices               5                a median lesion of 14.9 mm spans 5.0 slices of 3 mm (3 to 7)" in lines
    )
    assert "  patch                64 x 64          the whole slice (largest 60 x 50), in multiples of 16" in lines
    written = stored(folder)
    assert written["patch_size"] == [30, 80, 80]
    assert written["lopsided"]["reasons"]["slices"] == "a median lesion of 14.9 mm spans 5.0 slices of 3 mm (3 to 7)"
    assert 2**29 < written["lopsided"]["estimated_training_memory_bytes"] < 8 * 2**30


def test_options_reach_the_plans(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "nnUNetPlans.json").rename(folder / "Mine.json")
    options = "--slices 3 --encoder resnet18 --decoder deeplabv3plus --output-stride 16 --patch 32 96 --batch-size 4"
    assert main(["-d", "Dataset505_Planned", "-p", "Mine", *options.split()]) == 0
    assert "Train with: nnUNetv2_train Dataset505_Planned 2.5d FOLD -tr nnUNetTrainerLopsided -p Mine" in (
        capsys.readouterr().out
    )
    written = stored(folder, "Mine")
    assert (written["patch_size"], written["batch_size"]) == ([30, 32, 96], 4), "several windows: no margin"
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
        (["-d", "505", "--gpu-memory", "0"], "GPU memory target must be above 0, got 0"),
        (["-d", "505", "-np", "0"], "number of workers (-np) must be at least 1, got 0"),
        (["-d", "505", "--encoder", "nonsense"], "encoder must be one of segmentation_models_pytorch that can be "),
        (["-d", "505", "--encoder", "vgg11"], "encoder must be one of segmentation_models_pytorch that can be "),
        (
            ["-d", "505", "--encoder", "resnet18", "--pretrained", "mine"],
            "encoder_weights 'mine' of encoder resnet18: ",
        ),
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
    assert not (folder / "lesion_fingerprint.json").exists()


def test_an_unplanned_dataset_is_told_what_to_run(nnunet_paths: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nnunet_paths / "nnUNet_raw" / "Dataset077_Raw").mkdir()
    assert main(["-d", "77"]) == 2
    assert capsys.readouterr().err.endswith("found none; run nnUNetv2_plan_and_preprocess first\n")


@pytest.mark.parametrize("broken", ["nnUNetPlans.json", "dataset_fingerprint.json", "dataset.json"])
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


def test_a_small_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    network = {"n_stages": 2, "features_per_stage": [32, 64], "strides": [[1, 1], [2, 2]]}
    plans["configurations"]["2d"]["architecture"] = {"network_class_name": "x", "arch_kwargs": network}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    assert main(["-d", "505", "-c", "2d_small"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"2d_small added to {folder / 'nnUNetPlans.json'}",
        "  patch 56 x 40, batch size 15, features 8 16",
    ]
    assert main(["-d", "505", "-c", "2d_small", "--batch-size", "3", "--overwrite"]) == 0
    assert "batch size 3," in capsys.readouterr().out
    assert main(["-d", "505", "-c", "2d_small", "--batch-size", "0", "--overwrite"]) == 2
    assert "batch size must be at least 1, got 0" in capsys.readouterr().err
    assert main(["-d", "505", "-c", "2d_small", "--slices", "3"]) == 2
    assert capsys.readouterr().err == "lopsided-plan: error: --slices is for -c 2.5d, got -c 2d_small\n"
