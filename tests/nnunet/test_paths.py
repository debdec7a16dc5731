"""Names of cases and ids of datasets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.paths import check_case_name, check_no_twins, dataset_id, names_of_dataset, nearly
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


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_a_path_that_leads_nowhere_hides_no_dataset(nnunet_paths, variable, monkeypatch):
    """An id was taken for free where the variable of the folder that has it was mistyped."""
    folder = nnunet_paths / variable
    (folder / "Dataset501_Toy").mkdir()
    (nnunet_paths / "file").touch()
    (nnunet_paths / "link").symlink_to("gone")
    for value, shown in (
        (f"{folder} ", f"'{folder} ' (mind the white space)"),
        (f"{folder}\n", f"'{folder}\\n' (mind the white space)"),
        (str(nnunet_paths / "file"), str(nnunet_paths / "file")),
        (str(nnunet_paths / "link"), str(nnunet_paths / "link")),
    ):
        monkeypatch.setenv(variable, value)
        with pytest.raises(InputError) as error:
            names_of_dataset(501)
        assert str(error.value) == f"{variable} is set to {shown}, which is not a folder"
    # nnU-Net makes it when it first writes there: there are no datasets in it yet.
    monkeypatch.setenv(variable, str(nnunet_paths / "not yet"))
    assert names_of_dataset(501) == []
    monkeypatch.setenv(variable, "")
    assert names_of_dataset(501) == []
    monkeypatch.chdir(nnunet_paths)
    monkeypatch.setenv(variable, variable)
    assert names_of_dataset(501) == ["Dataset501_Toy"]


COMPOSED, DECOMPOSED = "Ren\u00e9", "Rene\u0301"


@pytest.mark.parametrize(
    ("one", "other", "how"),
    [
        ("case_A", "case_a", "upper and lower case"),
        ("STRASSE", "stra\u00dfe", "upper and lower case"),
        (COMPOSED, DECOMPOSED, "how Unicode spells an accent"),
        (COMPOSED.upper(), DECOMPOSED, "upper and lower case"),
        ("a", "a ", "white space at an end"),
        ("a", "\u00a0a", "white space at an end"),
    ],
)
def test_names_that_other_file_systems_do_not_tell_apart(one: str, other: str, how: str) -> None:
    with pytest.raises(InputError, match=rf"^folder: the cases .* differ only in {how}, which other file systems") as e:
        check_no_twins(["b", one, one, other], "folder")
    assert ascii(one) in str(e.value)
    assert ascii(other) in str(e.value)
    assert nearly(one, ["b", one, other]) == f"; found {other!a}, which differs only in {how}: rename one of them"


def test_names_that_every_file_system_tells_apart() -> None:
    names = ["a", "a.", "a-", "a_1", "a1", COMPOSED, "Rene", "CON", "\u03b1", "a a", "aa"]
    check_no_twins([*names, *names], "folder")
    assert nearly("a", [*names, "b"]) == ""
