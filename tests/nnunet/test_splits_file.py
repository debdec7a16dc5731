"""splits_final.json is read in one place, strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.preprocessed import preprocessed_splits
from nnunet_lopsided.nnunet.splitting import Fold, folds_of_part, read_splits


def test_folds(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["a", "b"], "val": ["c"], "more": 1}]))
    assert read_splits(path, {"a", "b", "c", "d"}) == read_splits(path) == [Fold(("a", "b"), ("c",))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected a list, found a mapping"),
        ([{"train": "abc", "val": []}], r'\[0\]\.train: expected a list, found "abc"'),
        ([{"train": ["a"]}], r"\[0\]: expected the key val"),
        ([{"train": ["a", "b"], "val": ["b"]}], "fold 0 trains on case b and validates on it"),
        ([{"train": ["a"], "val": ["b"]}, {"train": ["a", "a"], "val": ["b"]}], "fold 1 trains on case a twice"),
        ([{"train": ["a"], "val": ["b", "b"]}], "fold 0 validates on case b twice"),
        ([{"train": ["a"], "val": ["b.nii.gz"]}], r"fold 0 names b\.nii\.gz, which is none of the training cases"),
        (
            [{"train": ["A"], "val": ["b"]}],
            "fold 0 names A, which is none of the training cases; found 'a', which differs",
        ),
        ([{"train": ["a", "A"], "val": ["b"]}], "the cases 'a' and 'A' differ only in upper and lower case"),
        (
            [{"train": ["a"], "val": ["b"]}, {"train": ["b "], "val": ["a"]}],
            "the cases 'b' and 'b ' differ only in whi",
        ),
        ([{"train": ["a"], "val": ["../b"]}], "a case name must be a plain file name"),
        ([], "expected the folds of a cross-validation, found none"),
        ([{"train": [], "val": ["b"]}], r"\[0\]\.train: expected the cases of fold 0, found none"),
        ([{"train": ["a"], "val": ["b"]}, {"train": ["a"], "val": []}], r"\[1\]\.val: expected the cases of fold 1"),
        ([{"train": ["a"], "val": {"b": 1}}], r"\[0\]\.val: expected a list, found a mapping"),
        ([{"train": ["a"], "val": ["b"]}, None], r"\[1\]: expected a mapping, found null"),
        ([{"train": ["a"], "val": [7]}], r"\[0\]\.val\[0\]: expected text, found 7"),
    ],
)
def test_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"splits_final\.json: {message}"):
        read_splits(path, {"a", "b"})


def test_a_part_of_the_cases() -> None:
    folds = [Fold(("a", "b"), ("c",)), Fold(("b", "c"), ("a",))]
    assert folds_of_part(folds, {"a": "x", "c": "y"}, {}, 0)[0] == [
        {"train": ["a"], "val": ["c"]},
        {"train": ["c"], "val": ["a"]},
    ]
    assert folds_of_part(folds, {"b": "x"}, {}, 0) == (
        [],
        "only one patient to train on: no splits_final.json is written",
    )


def test_folds_of_a_preprocessed_dataset_name_its_cases_alone(tmp_path: Path) -> None:
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["a", "gone"], "val": ["b"]}]))
    assert preprocessed_splits(tmp_path) == [Fold(("a", "gone"), ("b",))]  # its cases are not known
    (tmp_path / "dataset.json").write_text('{"file_ending": ".nii.gz"}')
    (tmp_path / "gt_segmentations").mkdir()
    for name in ("a.nii.gz", "b.nii.gz", "gone.nii"):
        (tmp_path / "gt_segmentations" / name).touch()
    with pytest.raises(InputError, match=r"splits_final\.json: fold 0 names gone, which is none of the training cases"):
        preprocessed_splits(tmp_path)
    (tmp_path / "gt_segmentations" / "gone.nii.gz").touch()
    assert preprocessed_splits(tmp_path) == [Fold(("a", "gone"), ("b",))]
