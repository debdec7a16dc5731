"""Raw datasets."""

from __future__ import annotations

import json
import re

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.raw import RawDataset, raw_dataset


@pytest.mark.parametrize("names", [{}, ["T1"], "T1", {"T1": 0}, {"-1": "T1"}, None])
def test_channels_that_have_no_numbers(raw, names):
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**content, "channel_names": names}))
    with pytest.raises(InputError, match=r"dataset.json: expected channel_names to name channels by number, as in "):
        raw_dataset(501).training_cases()


def test_channels_of_nnu_nets_first_version(raw):
    content = json.loads((raw / "dataset.json").read_text())
    content["modality"] = content.pop("channel_names")
    (raw / "dataset.json").write_text(json.dumps(content))
    assert raw_dataset(501).channel_names == ["T1", "T2"]


def test_raw_dataset_by_id_and_name(raw):
    for dataset in (501, "501", "Dataset501_Toy"):
        found = raw_dataset(dataset)
        assert found.folder == raw
    assert [c.name for c in found.training_cases()] == ["a", "b"]
    assert [p.name for p in found.training_cases()[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert [(c.name, c.label) for c in found.test_cases()] == [("t", None)]
    assert (found.ignore_label, found.foreground_labels, found.has_regions) == (2, {"lesion": (1,)}, False)


def test_raw_dataset_refuses(raw, monkeypatch):
    with pytest.raises(InputError, match="dataset 7 not found"):
        raw_dataset(7)
    (raw.parent / "Dataset501_Other").mkdir()
    with pytest.raises(InputError, match="ambiguous"):
        raw_dataset(501)
    (raw / "labelsTr" / "b.nii.gz").unlink()
    with pytest.raises(InputError, match="case b: label not found"):
        RawDataset(raw).training_cases()
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(InputError, match="nnUNet_raw is not set"):
        raw_dataset(501)


def test_cases_listed_in_dataset_json(raw):
    content = json.loads((raw / "dataset.json").read_text())
    content["dataset"] = {
        "x": {"images": ["imagesTs/t_0000.nii.gz", "imagesTs/t_0001.nii.gz"], "label": "labelsTr/a.nii.gz"}
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    (case,) = RawDataset(raw).training_cases()
    assert (case.name, case.images, case.label) == (
        "x",
        (raw / "imagesTs" / "t_0000.nii.gz", raw / "imagesTs" / "t_0001.nii.gz"),
        raw / "labelsTr" / "a.nii.gz",
    )


@pytest.mark.parametrize(
    ("remove", "add", "message"),
    [
        ("a_0000", None, r"case a: expected 2 channel images, found _0001: _0000 \(T1\) is missing"),
        ("a_0001", "a_0002", r"case a: .* found _0000, _0002: _0001 \(T2\) is missing, _0002 is one too many"),
        (None, "b_0002", r"case b: .* found _0000, _0001, _0002: _0002 is one too many"),
        (None, "b", r"b\.nii\.gz: expected an image named CASE_0000\.nii\.gz by its channel"),
        (None, ".c_0000", r"got '\.c': it begins with a dot"),
    ],
)
@pytest.mark.parametrize("folder", ["imagesTr", "imagesTs"])
def test_images_go_by_the_number_in_their_name(raw, folder, remove, add, message):
    if folder == "imagesTs":
        for path in sorted((raw / "imagesTs").iterdir()):
            path.unlink()
        for path in sorted((raw / "imagesTr").iterdir()):
            (raw / "imagesTs" / path.name).touch()
    if remove:
        (raw / folder / f"{remove}.nii.gz").unlink()
    if add:
        (raw / folder / f"{add}.nii.gz").touch()
    with pytest.raises(InputError, match=message):
        raw_dataset(501).training_cases() if folder == "imagesTr" else raw_dataset(501).test_cases()


def test_what_macos_and_killed_runs_leave_is_no_case(raw):
    for name in ("._a_0000.nii.gz", ".unfinished-x_0000.nii.gz", ".DS_Store"):
        (raw / "imagesTr" / name).touch()
    assert [case.name for case in raw_dataset(501).training_cases()] == ["a", "b"]


@pytest.mark.parametrize("ending", [1, "", "nii.gz", "../x", None])
def test_file_endings(raw, ending):
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**content, "file_ending": ending}))
    with pytest.raises(InputError, match=r"dataset\.json: file_ending: expected (an ending such as|text, found) "):
        raw_dataset(501).training_cases()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("imagesTr/b_0000.nii.gz", "imagesTr/b_0000.NII.GZ", "b_0001"),
            r"imagesTr holds 1 that do not end in \.nii\.gz",
        ),
        (
            ("imagesTr/b_0000.nii.gz", "imagesTr/b_0000.nii", "b_0001"),
            r"not end in \.nii\.gz \(b_0000\.nii\); labelsTr",
        ),
        (("imagesTr/b_0000.nii.gz", "imagesTr/b_0000.mha", "b_0001"), r"labelsTr holds 1 of no case \(b\.nii\.gz\)"),
        ((), ""),
    ],
)
def test_files_that_nnunet_does_not_see_are_named_once(raw, capsys, monkeypatch, change, said):
    monkeypatch.setattr("nnunet_lopsided.nnunet.left_out._said", set())
    if change:
        old, new, other = change
        (raw / old).rename(raw / new)
        (raw / f"imagesTr/{other}.nii.gz").unlink()
    else:
        (raw / "imagesTr/a_0000.nii").touch()  # beside the one that counts: no case is lost
        (raw / "imagesTr/._b_0000.nii.gz").touch()
    for _ in range(2):
        RawDataset(raw).training_cases()
    told = capsys.readouterr().err
    assert len(told.splitlines()) == bool(said)
    assert re.search(said, told)


def test_fewer_cases_than_dataset_json_announces(raw, capsys, monkeypatch):
    monkeypatch.setattr("nnunet_lopsided.nnunet.left_out._said", set())
    content = json.loads((raw / "dataset.json").read_text()) | {"numTraining": 3}
    (raw / "dataset.json").write_text(json.dumps(content))
    RawDataset(raw).training_cases()
    assert "dataset.json announces 3 training cases (numTraining), found 2" in capsys.readouterr().err


def test_one_image_for_two_channels(raw):
    content = json.loads((raw / "dataset.json").read_text())
    images = [f"imagesTr/a_000{i}.nii.gz" for i in (0, 0)]
    content["dataset"] = {"a": {"images": images, "label": "labelsTr/a.nii.gz"}}
    (raw / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(
        InputError, match="case a: expected an image of its own for each channel, found imagesTr/a_0000"
    ):
        raw_dataset(501).training_cases()


def test_cases_that_other_file_systems_take_for_one(raw):
    for image in list((raw / "imagesTr").glob("a_*")):
        (raw / "imagesTr" / image.name.replace("a_", "A_")).hardlink_to(image)
    with pytest.raises(InputError, match="imagesTr: the cases 'A' and 'a' differ only in upper and lower case"):
        raw_dataset(501).training_cases()


def test_a_label_that_only_looks_like_its_images_name(raw):
    (raw / "labelsTr" / "a.nii.gz").rename(raw / "labelsTr" / "A.nii.gz")
    with pytest.raises(
        InputError, match=r"case a: label not found: .*a\.nii\.gz; found 'A\.nii\.gz', which differs only"
    ):
        raw_dataset(501).training_cases()
