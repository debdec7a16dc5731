"""nnunet_lopsided.demo.workflow: which configuration, how many processes, which halves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_lopsided.demo import workflow
from nnunet_lopsided.demo.settings import DemoSettings
from nnunet_lopsided.demo.workflow import _configurations, _for_this_machine, _share_folds
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.raw import RawDataset


@pytest.mark.parametrize(
    ("data", "device", "is_flat", "expected"),
    [
        (None, "cpu", False, ("2d", "2d_small")),
        (None, "cuda", False, ("2d", "2d_small")),
        ("/scans", "cpu", True, ("2d", "2d_small")),
        ("/scans", "cpu", False, ("3d_fullres", "3d_fullres_small")),
        ("/scans", "cuda", True, ("2d", "2d")),
        ("/scans", "cuda", False, ("3d_fullres", "3d_fullres")),
    ],
)
def test_what_is_trained(data: str | None, device: str, is_flat: bool, expected: tuple[str, str]) -> None:
    assert _configurations(DemoSettings(data=data, device=device), is_flat) == expected


def test_what_the_user_has_set_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "n_cores", lambda: 16)
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    on_cpu = _for_this_machine(DemoSettings(data="/scans"), 2)
    assert (on_cpu["nnUNet_n_proc_DA"], "OMP_NUM_THREADS" in on_cpu) == ("1", False)
    assert _for_this_machine(DemoSettings(device="cuda"), 1)["nnUNet_n_proc_DA"] == "12"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert _for_this_machine(DemoSettings(), 2)["OMP_NUM_THREADS"] == "1"
    assert _for_this_machine(DemoSettings(data="/scans"), 2)["OMP_NUM_THREADS"] == "4"


def datasets(root: Path, n: int) -> RawDataset:
    """The demo's two datasets of ``n`` cases, of which nothing is preprocessed but the folders."""
    for name in ("Dataset901_Full", "Dataset902_Censored"):
        raw = root / "nnUNet_raw" / name
        content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
        for folder in ("imagesTr", "labelsTr"):
            (raw / folder).mkdir(parents=True)
        (raw / "dataset.json").write_text(json.dumps({**content, "numTraining": n}))
        for i in range(n):
            (raw / "imagesTr" / f"c{i}_0000.nii.gz").touch()
            (raw / "labelsTr" / f"c{i}.nii.gz").touch()
        (root / "nnUNet_preprocessed" / name).mkdir()
    return RawDataset(root / "nnUNet_raw" / "Dataset901_Full")


def halves(root: Path) -> list[list[set[str]]]:
    splits = [
        (root / "nnUNet_preprocessed" / name / "splits_final.json").read_text()
        for name in ("Dataset901_Full", "Dataset902_Censored")
    ]
    assert splits[0] == splits[1]
    return [[set(fold["train"]), set(fold["val"])] for fold in json.loads(splits[0])]


def test_both_datasets_share_two_halves(nnunet_paths: Path) -> None:
    datasets(nnunet_paths, 6)
    _share_folds(None)
    (train, val), other = halves(nnunet_paths)
    assert other == [val, train]
    assert (len(train), len(val), train | val) == (3, 3, {f"c{i}" for i in range(6)})


def test_a_patient_is_in_one_half(nnunet_paths: Path) -> None:
    source = datasets(nnunet_paths, 6)
    rows = "".join(f"c{i},{'p' if i in (0, 3) else i}\n" for i in range(6))
    (source.folder / "cases.csv").write_text("case,patient\n" + rows)
    _share_folds(source)
    assert all(({"c0", "c3"} <= half) or not ({"c0", "c3"} & half) for half in halves(nnunet_paths)[0])


def test_a_single_patient_cannot_be_halved(nnunet_paths: Path) -> None:
    datasets(nnunet_paths, 1)
    with pytest.raises(InputError, match="training cases of at least 2 patients, found 1"):
        _share_folds(None)
