"""What a completion refuses before it trains for hours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_lopsided.completion import completing
from nnunet_lopsided.errors import InputError


class TrainingBeginsError(Exception):
    """Stands in for hours of training."""


@pytest.fixture
def paths(nnunet_paths: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Dataset501_A, planned; 502_Other, and 503 and 504 below one of nnU-Net's other paths only."""
    for folder in (
        "nnUNet_raw/Dataset501_A",
        "nnUNet_raw/Dataset502_Other",
        "nnUNet_preprocessed/Dataset501_A",
        "nnUNet_preprocessed/Dataset503_B",
        "nnUNet_results/Dataset504_C",
    ):
        (nnunet_paths / folder).mkdir()
    content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (nnunet_paths / "nnUNet_raw/Dataset501_A/dataset.json").write_text(json.dumps(content))

    def train(*arguments: object, **options: object) -> None:
        raise TrainingBeginsError

    monkeypatch.setattr(completing, "train_missing_folds", train)
    monkeypatch.setattr(completing, "_check_trainer", lambda trainer: None)  # would import PyTorch
    return nnunet_paths


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (0, "dataset id must be within 1 to 999, got 0"),
        (1000, "dataset id must be within 1 to 999, got 1000"),
        (-1, "dataset id must be within 1 to 999, got -1"),
        (501, "output id 501 is the id of the source, Dataset501_A"),
        (502, "dataset id 502 is in use: .*nnUNet_raw/Dataset502_Other$"),
        (503, "dataset id 503 is in use: .*nnUNet_preprocessed/Dataset503_B$"),
        (504, "dataset id 504 is in use: .*nnUNet_results/Dataset504_C$"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_id_that_cannot_be_written_is_refused_before_training(
    paths: Path, output: int, reason: str, overwrite: bool
) -> None:
    with pytest.raises(InputError, match=reason):
        completing.complete(501, output, "2d", overwrite=overwrite)


def test_so_are_a_name_and_a_number_of_workers(paths: Path) -> None:
    with pytest.raises(InputError, match="dataset name must consist of letters"):
        completing.complete(501, 510, "2d", name="a b")
    with pytest.raises(InputError, match="must be at least 1, got 0"):
        completing.complete(501, 510, "2d", n_workers=0)
    with pytest.raises(TrainingBeginsError):
        completing.complete(501, 510, "2d")


def test_an_earlier_completion_goes_on(paths: Path) -> None:
    made = paths / "nnUNet_raw/Dataset510_ACompleted"
    made.mkdir()
    with pytest.raises(InputError, match="dataset id 510 is in use"):
        completing.complete(501, 510, "2d")
    (made / "completion.json").write_text("{}")
    (paths / "nnUNet_preprocessed/Dataset510_ACompleted").mkdir()
    with pytest.raises(TrainingBeginsError):
        completing.complete(501, 510, "2d")


def test_a_folder_that_is_no_completion_is_refused_before_training(paths: Path) -> None:
    made = paths / "nnUNet_raw/Dataset510_ACompleted"
    made.mkdir()
    (made / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match=r"is not replaced: it holds no completion\.json, so it was not made by this"):
        completing.complete(501, 510, "2d", overwrite=True)
    (made / "completion.json").write_text("{}")
    (made / "thesis.docx").touch()
    with pytest.raises(InputError, match=r"is not replaced: it holds thesis\.docx, which this command did not write"):
        completing.complete(501, 510, "2d", overwrite=True)
    (made / "thesis.docx").unlink()
    with pytest.raises(TrainingBeginsError):
        completing.complete(501, 510, "2d", overwrite=True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rounds": 3}, "expected 1 or 2 rounds, got 3"),
        ({"first_round": 511}, "--first-round is of two rounds; expected --rounds 2 with it"),
        ({"rounds": 2, "first_round": 510}, "needs an id of its own, 510 is that of Dataset510_ACompleted"),
        ({"rounds": 2, "first_round": 501}, "needs an id of its own, 501 is that of Dataset501_A"),
        ({"rounds": 2, "first_round": 502}, "dataset id 502 is in use: .*Dataset502_Other"),
        ({"rounds": 2, "first_round": 1000}, "must be within 1 to 999, got 1000"),
    ],
)
def test_a_second_round_needs_an_id_before_training(paths: Path, options: dict[str, int], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        completing.complete(501, 510, "2d", **options)  # type: ignore[arg-type]  # of one type each
    with pytest.raises(TrainingBeginsError):
        completing.complete(501, 510, "2d", rounds=2)
