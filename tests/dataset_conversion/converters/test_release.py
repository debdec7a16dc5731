"""Label maps, finding files, sides by folder names."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_lopsided.dataset_conversion.converters.release import (
    BINARY,
    POSITIVE,
    LabelMap,
    files_below,
    split_by_folder,
)
from nnunet_lopsided.errors import InputError


def test_label_map() -> None:
    new = LabelMap({1: 0, 2: 5}).apply(np.array([[0, 1], [2, 2]], np.float32))
    assert new.tolist() == [[0, 0], [5, 5]]
    assert new.dtype == np.uint8
    assert POSITIVE.apply(np.array([0, 3, 700])).tolist() == [0, 1, 1]
    assert BINARY.with_fix({6: 1, 7: 0}).apply(np.array([0, 1, 6, 7])).tolist() == [0, 1, 1, 0]
    assert POSITIVE.with_fix({6: 0, 7: 1}).apply(np.array([0, 1, 6, 7, 8])).tolist() == [0, 1, 0, 1, 1]


def test_a_fix_must_mean_a_known_value() -> None:
    with pytest.raises(InputError, match="label value 6 cannot be read as 9, which is unknown: expected 0, 1"):
        BINARY.with_fix({6: 9})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([0, 1, 6, 6, 9], "unknown label value 6, 9 in 3 voxels, expected 0, 1"),
        ([0.5, 1.0], r"unknown label value 0\.5 \(a fraction\) in 1 voxels"),
        ([-1, 1], "unknown label value -1 in 1 voxels"),
        ([np.nan, 1.0], "unknown label value nan in 1 voxels"),
    ],
)
def test_unknown_values(array, message) -> None:
    with pytest.raises(InputError, match=message):
        BINARY.apply(np.array(array))


def test_nan_is_no_lesion() -> None:
    with pytest.raises(InputError, match="unknown label value nan in 1 voxels"):
        POSITIVE.apply(np.array([0, np.nan]))


def test_files_below(tmp_path) -> None:
    for name in ("b/c/deep.nii", "a.nii", "._a.nii", "__MACOSX/a.nii", ".hidden/a.nii", "b/.DS_Store", "b/x.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "linked.nii").touch()
    (tmp_path / "link").symlink_to(outside)
    assert [str(p.relative_to(tmp_path)) for p in files_below(tmp_path)] == [
        "a.nii",
        "b/c/deep.nii",
        "b/x.nii",
        "link/linked.nii",
    ]


@pytest.mark.parametrize(
    ("folder", "side"),
    [
        ("stanford_release_brainmask/mets_stanford_releaseMask_train/Mets_005", "train"),
        ("mets_stanford_releaseMask_test/Mets_005", "test"),
        ("brainmetshare-3/test1/Mets_005", "test"),
        ("UCSD - Training/BraTS-MET-01000-000", "train"),
        ("ASNR-MICCAI-BraTS2023-MET-Challenge-ValidationData/x", "test"),
        ("train/test/x", "test"),
        ("latest/contest/x", None),
        ("x", None),
    ],
)
def test_split_by_folder(folder, side) -> None:
    assert split_by_folder(folder) == side
