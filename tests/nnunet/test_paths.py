"""Names of cases and ids of datasets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.paths import check_case_name, dataset_id, names_of_dataset
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder


@pytest.mark.parametrize("name", ["case_01", "a.b", "Jürgen", "1.2.840.113", "=cmd", "sub-01 v2"])
def test_names_of_cases(name: str) -> None:
    check_case_name(name, "splits_final.json", ".nii.gz")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        (".", "begins with a dot"),
        ("..", "begins with a dot"),
        (".a", "begins with a dot"),
        ("../a", "holds a path separator"),
        ("/abs/a", "holds a path separator"),
        ("a/b", "holds a path separator"),
        ("..\\a", "holds a path separator"),
        ("a\nb", "holds control characters"),
        ("a\x00", "holds control characters"),
        ("a\x85", "holds control characters"),
        ("caf\udce9", "is not UTF-8"),
        ("a.nii.gz", "ends in the file ending .nii.gz"),
        ("a.NII.GZ", "ends in the file ending .nii.gz"),
    ],
)
def test_what_is_no_name_of_a_case(name: str, reason: str) -> None:
    with pytest.raises(
        InputError, match=rf"^from\.json: a case name must be a plain file name, got .*: it {reason}"[:-1]
    ):
        check_case_name(name, Path("from.json"), ".nii.gz")


@given(st.text(max_size=12))
def test_an_accepted_name_stays_in_its_folder(name: str) -> None:
    try:
        check_case_name(name, "x")
    except InputError as error:
        str(error).encode()  # can be shown
        return
    path = Path("/folder") / f"{name}.nii.gz"
    assert (path.parent, path.name) == (Path("/folder"), f"{name}.nii.gz")


def test_ids_are_ascii_digits(nnunet_paths: Path) -> None:
    assert [dataset_id(text) for text in (5, "005", "²", "٣", "-1", "", "5 ", "9" * 5000)] == [5, 5, *[None] * 6]
    (nnunet_paths / "nnUNet_raw" / "Dataset005_A").mkdir()
    assert names_of_dataset("²") == []
    assert names_of_dataset("5") == names_of_dataset("Dataset005_A") == ["Dataset005_A"]


def test_names_of_dataset_look_below_every_path(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    (tmp_path / "preprocessed" / "Dataset501_Older").mkdir(parents=True)
    assert names_of_dataset(501) == ["Dataset501_Older", "Dataset501_Toy"]
    # Two datasets of one id: what is preprocessed is not that of the raw one; its name leaves no doubt.
    with pytest.raises(InputError, match="dataset 501: expected one dataset of this id, found Dataset501_Older and"):
        preprocessed_folder(501)
    assert preprocessed_folder("Dataset501_Older") == tmp_path / "preprocessed" / "Dataset501_Older"
    with pytest.raises(InputError, match="run nnUNetv2_plan_and_preprocess first"):
        preprocessed_folder(7)
