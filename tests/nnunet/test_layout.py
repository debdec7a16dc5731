"""nnunet_lopsided.nnunet and files: nnU-Net's layouts, JSON, and folders that appear when complete."""

import json
import re
from pathlib import Path

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.nnunet.dataset_json import label_scheme
from nnunet_lopsided.nnunet.paths import names_of_dataset
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.nnunet.raw import RawDataset, raw_dataset
from nnunet_lopsided.nnunet.results import find_dataset_json, label_maps, predictions_by_case


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


def test_softmax_channels_follow_sorted_label_values():
    scheme = label_scheme({"labels": {"background": 0, "core": 2, "edema": 1, "ignore": 3}}, Path("d"))
    assert (scheme.ignore, scheme.has_regions, scheme.n_channels) == (3, False, 3)
    assert scheme.label_values == (0, 1, 2)
    assert (scheme.channels_of("core"), scheme.channels_of("edema")) == ((2,), (1,))
    sparse = label_scheme({"labels": {"background": 0, "lesion": 2}}, Path("d"))
    assert (sparse.n_channels, sparse.channels_of("lesion")) == (2, (1,))


def test_region_channels_follow_dataset_json_without_background():
    scheme = label_scheme({"labels": {"background": 0, "whole": [1, 2, 3], "enhancing": 3, "core": [2, 3]}}, Path("d"))
    assert (scheme.has_regions, scheme.n_channels) == (True, 3)
    assert [scheme.channels_of(name) for name in ("whole", "enhancing", "core")] == [(0,), (1,), (2,)]
    assert scheme.foreground["core"] == (2, 3)


def test_channels_agree_with_nnunet():
    label_handling = pytest.importorskip("nnunetv2.utilities.label_handling.label_handling")
    labels = {"background": 0, "whole": (1, 2, 3), "enhancing": 3, "core": (2, 3), "ignore": 4}
    theirs = label_handling.LabelManager(labels, regions_class_order=[1, 2, 3])
    mine = label_scheme({"labels": labels}, Path("d"))
    assert mine.n_channels == theirs.num_segmentation_heads
    assert [v if len(v) > 1 else v[0] for v in mine.foreground.values()] == theirs.foreground_regions
    labels = {"background": 0, "b": 2, "a": 1, "ignore": 3}
    theirs = label_handling.LabelManager(labels, regions_class_order=None)
    mine = label_scheme({"labels": labels}, Path("d"))
    assert (mine.n_channels, list(mine.label_values)) == (theirs.num_segmentation_heads, theirs.all_labels)


BROKEN_LABELS = [
    {"labels": {"background": 0, **wrong}}
    for wrong in (
        {"lesion": 1.7},
        {"lesion": True},
        {"lesion": []},
        {"lesion": [1, 2.5]},
        {"lesion": -1},
        {"lesion": None},
        {"lesion": 1, "ignore": 1},
        {"lesion": 1, "ignore": 0},
        {"lesion": 1, "ignore": [2, 3]},
        {"lesion": 1, "background": 2},
    )
]


@pytest.mark.parametrize(
    "content", [{}, [], {"labels": {"0": "background", "1": "lesion"}}, {"labels": [0, 1]}, *BROKEN_LABELS]
)
def test_label_scheme_refuses(content):
    with pytest.raises(InputError, match=r"d\.json: expected .* 'labels'"):
        label_scheme(content, Path("d.json"))


def test_predictions_pair_images_and_arrays(tmp_path):
    for name in ("b.nii.gz", "b.npz", "a.npy", "c.d.png", "dataset.json", "b.pkl", "._b.nii.gz"):
        (tmp_path / name).touch()
    (tmp_path / "dataset.json").write_text("{}")
    found = predictions_by_case(tmp_path)
    assert list(found) == ["a", "b", "c.d"]
    assert (found["b"].image, found["b"].array) == (tmp_path / "b.nii.gz", tmp_path / "b.npz")
    assert (found["a"].image, found["a"].array) == (None, tmp_path / "a.npy")
    assert list(label_maps(tmp_path)) == ["b", "c.d"]


def test_two_files_of_one_case_are_refused(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "a.mha").touch()
    with pytest.raises(InputError, match=r"case a has two files in .*a\.mha and a\.nii\.gz"):
        label_maps(tmp_path)
    with pytest.raises(InputError, match="folder not found"):
        label_maps(tmp_path / "none")


def test_find_dataset_json_prefers_the_predictions(tmp_path):
    predictions, references = tmp_path / "predictions", tmp_path / "dataset" / "labelsTs"
    predictions.mkdir()
    references.mkdir(parents=True)
    assert find_dataset_json(predictions, references) is None
    expected = [references.parent / "dataset.json", references / "dataset.json", predictions / "dataset.json"]
    for path in expected:
        path.touch()
        assert find_dataset_json(predictions, references) == path


def test_json_round_trip_and_errors(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1]})
    assert read_json(tmp_path / "a.json") == {"a": [1]}
    with pytest.raises(InputError, match="file not found"):
        read_json(tmp_path / "b.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON: Expecting value"),
        (b"[" * 100_000, "not valid JSON: nested too deeply"),
        (b'{"a": 1e999}', "not valid JSON: expected finite numbers, found 1e999"),
        (b'{"a": -Infinity}', "not valid JSON: expected finite numbers, found -Infinity"),
        (b"[NaN]", "not valid JSON: expected finite numbers, found NaN"),
        (b"[" + b"1" * 5000 + b"]", "not valid JSON: Exceeds the limit"),
        (b'{"a": "\xe9"}', "not valid JSON: 'utf-8' codec can't decode byte 0xe9"),
    ],
)
def test_what_is_no_json(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'a.json'}: {message}")):
        read_json(tmp_path / "a.json")


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "a.json").write_bytes('\ufeff{"ä": [1.5]}'.encode())
    assert read_json(tmp_path / "a.json") == {"ä": [1.5]}


SHAPE = {"id": str, "rates": [float], "cases": {str: {"fold": (int, type(None))}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a mapping, found a list"),
        ({"id": "x", "rates": []}, "expected the key cases, found id, rates"),
        ({}, "expected the key id, found none"),
        ({"id": 3}, "id: expected text, found 3"),
        ({"id": None}, "id: expected text, found null"),
        ({"id": "x", "rates": {}}, "rates: expected a list, found a mapping"),
        ({"id": "x", "rates": [1, 2.5, "3"]}, 'rates[2]: expected a number, found "3"'),
        ({"id": "x", "rates": [True]}, "rates[0]: expected a number, found true"),
        ({"id": "x", "rates": [], "cases": ["a"]}, "cases: expected a mapping, found a list"),
        ({"id": "x", "rates": [], "cases": {"a": 1}}, "cases.a: expected a mapping, found 1"),
        (
            {"id": "x", "rates": [], "cases": {"a": {"fold": 0}, "b": {"fold": 0.5}}},
            "cases.b.fold: expected a whole number or null, found 0.5",
        ),
    ],
)
def test_json_of_another_shape(tmp_path, content, message):
    write_json(tmp_path / "a.json", content)
    with pytest.raises(InputError) as error:
        read_json(tmp_path / "a.json", SHAPE)
    assert str(error.value) == f"{tmp_path / 'a.json'}: {message}"


def test_json_of_the_expected_shape_may_hold_more(tmp_path):
    content = {"id": "x", "rates": [1, 2.5], "cases": {"a": {"fold": None, "more": 1}, "b": {"fold": 2}}, "more": []}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json", SHAPE) == content


def test_names_of_dataset_look_below_every_path(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    (tmp_path / "preprocessed" / "Dataset501_Older").mkdir(parents=True)
    assert names_of_dataset(501) == ["Dataset501_Older", "Dataset501_Toy"]
    assert preprocessed_folder(501) == tmp_path / "preprocessed" / "Dataset501_Older"
    with pytest.raises(InputError, match="run nnUNetv2_plan_and_preprocess first"):
        preprocessed_folder(7)


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
    with pytest.raises(InputError, match=r"dataset\.json: file_ending: expected an ending such as \.nii\.gz, found "):
        raw_dataset(501).training_cases()


def test_a_folder_named_like_an_image_is_not_passed_over(tmp_path):
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(InputError, match=r"case a: expected a file, found a folder: .*a\.nii\.gz"):
        label_maps(tmp_path)
