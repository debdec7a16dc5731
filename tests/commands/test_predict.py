"""The lopsided-predict command: its options are nnUNetv2_predict's, and bad ones end it with one line."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_lopsided.commands import predict
from nnunet_lopsided.commands.predict import main

REPOSITORY = Path(__file__).resolve().parents[2]
NEEDED = ["-i", "in", "-o", "out", "-d", "501", "-c", "2d"]


@pytest.fixture
def nnunets(monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser of nnUNetv2_predict."""
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point

    made: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser) -> None:
        made.append(parser)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(KeyboardInterrupt):
            predict_entry_point()
    if "--not_on_device" not in made[0].format_help():  # 2.6: its predictor can do it, its command cannot ask for it
        made[0].add_argument("--not_on_device", action="store_true")
    return made[0]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["-f", "0", "all", "-tr", "T", "-p", "P", "-chk", "checkpoint_best.pth", "-step_size", "0.7"],
        [
            "-npp",
            "0",
            "-nps",
            "0",
            "-num_parts",
            "3",
            "-part_id",
            "2",
            "-device",
            "cpu",
            "-prev_stage_predictions",
            "q",
        ],
        ["--disable_tta", "--verbose", "--save_probabilities", "--continue_prediction", "--not_on_device"],
        ["--disable_progress_bar"],
    ],
)
def test_options_are_nnunets(nnunets: argparse.ArgumentParser, more: list[str]) -> None:
    ours = vars(predict._parser().parse_args(NEEDED + more))
    assert ours.pop("magnify") == ()
    assert ours.pop("torch_resampling") is False
    assert ours == vars(nnunets.parse_args(NEEDED + more))


def test_no_option_of_nnunet_is_lacking(nnunets: argparse.ArgumentParser) -> None:
    ours, theirs = ({s for action in p._actions for s in action.option_strings} for p in (predict._parser(), nnunets))
    assert ours == theirs | {"--magnify", "--torch-resampling", "--version"}


def test_nnunets_default_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_npp", "7")
    monkeypatch.setenv("nnUNet_nps", "many")
    found = predict._parser().parse_args(NEEDED)
    assert (found.npp, found.nps) == (7, 3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-step_size", "1.5"], "-step_size must be above 0 and at most 1, got 1.5"),
        (["-part_id", "1"], "-part_id must be from 0 to -num_parts minus 1, got 1 of 1"),
        (["-npp", "0"], "-npp and -nps must be at least 1, or both 0, got 0 and 3"),
        (["-npp", "-1", "-nps", "-1"], "-npp and -nps must be at least 1, or both 0, got -1 and -1"),
        (["-f", "zero"], "-f must be numbers of folds, or all, got zero"),
        (["--magnify", "1"], "--magnify must be different numbers above 1, got 1"),
        (["--magnify", "2", "2"], "--magnify must be different numbers above 1, got 2 2"),
        (["--magnify", "nan"], "--magnify must be different numbers above 1, got nan"),
        (
            ["--torch-resampling"],
            "--torch-resampling needs --magnify: without it nnUNetv2_predict itself predicts",
        ),
        ([], "-d 501: expected one dataset of this id below nnU-Net's folders, found none"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert main([*NEEDED, *more]) == 2
    assert capsys.readouterr() == ("", f"lopsided-predict: error: {message}\n")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom nnunet_lopsided.commands.predict import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print([m for m in ('numpy', 'SimpleITK', 'torch', 'nnunetv2') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert out.stdout.startswith("usage: lopsided-predict")
    assert out.stdout.splitlines()[-1] == "[]"
