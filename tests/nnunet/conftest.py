"""A small raw dataset."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Dataset501_Toy with two training cases of two channels and one test case."""
    folder = tmp_path / "raw" / "Dataset501_Toy"
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for case in ("b", "a"):
        (folder / "labelsTr" / f"{case}.nii.gz").touch()
        for channel in range(2):
            (folder / "imagesTr" / f"{case}_000{channel}.nii.gz").touch()
    for channel in range(2):
        (folder / "imagesTs" / f"t_000{channel}.nii.gz").touch()
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "lesion": 1, "ignore": 2},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    monkeypatch.delenv("nnUNet_results", raising=False)
    return folder
