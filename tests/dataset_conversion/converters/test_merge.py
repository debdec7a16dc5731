"""The union of datasets: shared channels, classes by name, what each source did not annotate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_lopsided.dataset_conversion.converters.merge import merge
from nnunet_lopsided.dataset_conversion.converters.options import Options
from nnunet_lopsided.errors import InputError


def add(
    tree, raw: Path, number: int, name: str, channels: list[str], labels: dict[str, Any], cases: dict[str, Any]
) -> Path:
    """A dataset of cases with label values; a name that starts with t is a test case."""
    folder = raw / f"Dataset{number}_{name}"
    tree = type(tree)(folder)
    for case, values in cases.items():
        side = "Ts" if case.startswith("t") else "Tr"
        for index in range(len(channels)):
            tree.image(f"images{side}/{case}_{index:04d}.nii.gz")
        if values is not None:
            tree.label(f"labels{side}/{case}.nii.gz", *values)
    content = {
        "channel_names": {str(i): c for i, c in enumerate(channels)},
        "labels": labels,
        "numTraining": sum(not c.startswith("t") for c in cases),
        "file_ending": ".nii.gz",
    }
    tree.text("dataset.json", json.dumps(content))
    return folder


@pytest.fixture
def two(tree, raw) -> tuple[Path, Path]:
    mets = add(tree, raw, 501, "Mets", ["t1c", "FLAIR", "T2w"], {"background": 0, "metastasis": 1}, {"a": (1, 1)})
    ms = add(tree, raw, 502, "MS", ["flair", "T1post"], {"background": 0, "edema": 1, "plaque": 2}, {"b": (1, 2)})
    return mets, ms


def test_union(two, raw, a_label, verify) -> None:
    from nnunet_lopsided.images import read_image

    converted = merge([501, "Dataset502_MS"], Options(dataset_id=510, name="Both"), same_channels={"T1post": "t1c"})
    folder = converted.folder
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "t1c", "1": "FLAIR"}
    assert content["labels"] == {"background": 0, "metastasis": 1, "edema": 2, "plaque": 3}
    np.testing.assert_array_equal(read_image(folder / "labelsTr" / "b.nii.gz").array, a_label(2, 3))
    assert (folder / "labelsTr" / "a.nii.gz").readlink() == Path("../../Dataset501_Mets/labelsTr/a.nii.gz")
    assert (folder / "imagesTr" / "b_0000.nii.gz").resolve() == two[1] / "imagesTr" / "b_0001.nii.gz"
    assert json.loads((folder / "not_annotated.json").read_text()) == {
        "meaning": "in the cases of a source, background may hold lesions of the classes it has not annotated",
        "labels": {"metastasis": 1, "edema": 2, "plaque": 3},
        "sources": {
            "Dataset501_Mets": {"annotated": ["metastasis"], "not_annotated": ["edema", "plaque"], "cases": ["a"]},
            "Dataset502_MS": {"annotated": ["edema", "plaque"], "not_annotated": ["metastasis"], "cases": ["b"]},
        },
    }
    assert converted.notes[0] == "Dataset501_Mets: not all have channel T2w, which is left out"
    about = json.loads((folder / "conversion.json").read_text())
    assert about["options"] == {"same": {"T1post": "t1c"}, "classes": {}, "prefix": False}
    verify(folder)


def test_classes_of_one_name_are_one_class_unless_renamed(tree, raw) -> None:
    for number, case in ((501, "a"), (502, "b")):
        add(tree, raw, number, f"D{number}", ["CT"], {"background": 0, "lesion": 1}, {case: (1,)})
    same = merge([501, 502], Options(dataset_id=510, name="Same"))
    assert json.loads((same.folder / "dataset.json").read_text())["labels"] == {"background": 0, "lesion": 1}
    renamed = merge(
        [501, 502],
        Options(dataset_id=511, name="Two"),
        class_names={("501", "lesion"): "cyst", ("502", "lesion"): "node"},
    )
    labels = json.loads((renamed.folder / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "cyst": 1, "node": 2}
    by_name = merge(
        [501, 502], Options(dataset_id=512, name="Three"), class_names={("Dataset502_D502", "lesion"): "node"}
    )
    labels = json.loads((by_name.folder / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "lesion": 1, "node": 2}


def test_the_ignore_label_comes_last(tree, raw, a_label) -> None:
    from nnunet_lopsided.images import read_image

    add(tree, raw, 501, "A", ["CT"], {"background": 0, "x": 1, "ignore": 2}, {"a": (1, 2)})
    add(tree, raw, 502, "B", ["CT"], {"background": 0, "y": 1}, {"b": (1,)})
    converted = merge([501, 502], Options(dataset_id=510, name="Both"))
    labels = json.loads((converted.folder / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "x": 1, "y": 2, "ignore": 3}
    np.testing.assert_array_equal(read_image(converted.folder / "labelsTr" / "a.nii.gz").array, a_label(1, 3))
    assert converted.n_lesions == 2, "what is ignored is no lesion"


def test_test_sets_and_patients_of_the_sources(tree, raw) -> None:
    plain = {"background": 0, "lesion": 1}
    first = add(tree, raw, 501, "A", ["CT"], plain, {"a0": (1,), "a1": (1,), "a2": (1,), "t1": (1,)})
    add(tree, raw, 502, "B", ["CT"], plain, {"b": (1,), "t2": None})
    (first / "cases.csv").write_text("case,patient,time_point\na0,A,0\na1,A,1\na2,C,0\nt1,D,0\n")
    converted = merge([501, 502], Options(dataset_id=510, name="Both"))
    assert sorted(p.name for p in (converted.folder / "imagesTs").iterdir()) == ["t1_0000.nii.gz", "t2_0000.nii.gz"]
    assert sorted(p.name for p in (converted.folder / "labelsTs").iterdir()) == ["t1.nii.gz"]
    folds = json.loads((converted.folder / "splits_final.json").read_text())
    assert sorted(fold["val"] for fold in folds) == [["a0", "a1"], ["a2"], ["b"]]

    (first / "cases.csv").write_text("case,patient,time_point\na0,A,0\na1,A,1\na2,C,0\nt1,C,1\n")
    with pytest.raises(InputError, match=r"patient C is in the training set \(a2\) and in the test set \(t1\)"):
        merge([501, 502], Options(dataset_id=511, name="Clash"))


def test_equal_names_with_a_prefix(tree, raw) -> None:
    for number in (501, 502):
        add(tree, raw, number, f"D{number}", ["CT"], {"background": 0, "lesion": 1}, {"a": (1,), "b": (1,)})
    names = {("501", "lesion"): "cyst"}
    converted = merge([501, 502], Options(dataset_id=510, name="Both"), class_names=names, prefix=True)
    expected = [f"Dataset{number}_D{number}_{case}" for number in (501, 502) for case in "ab"]
    assert sorted(p.name for p in (converted.folder / "labelsTr").iterdir()) == [f"{name}.nii.gz" for name in expected]
    about = json.loads((converted.folder / "conversion.json").read_text())
    assert about["options"] == {"same": {}, "classes": {"501:lesion": "cyst"}, "prefix": True}
    assert len(json.loads((converted.folder / "splits_final.json").read_text())) == 4, "four patients"
    sources = json.loads((converted.folder / "not_annotated.json").read_text())["sources"]
    assert sources["Dataset502_D502"]["cases"] == expected[2:]


@pytest.mark.parametrize(
    ("datasets", "options", "message"),
    [
        ([501], {}, "merge needs at least two datasets, got 1"),
        ([501, "Dataset501_Mets"], {}, "merge needs different datasets"),
        ([501, 777], {}, "dataset 777 not found"),
        ([501, 503], {}, "share no channel: Dataset501_Mets has t1c, flair, t2w; Dataset503_CT has ct"),
        ([501, 504], {}, "^case a: is in Dataset501_Mets and in Dataset504_Same; --prefix puts the dataset's name"),
        ([501, 505], {}, "Dataset505_Regions: expected plain labels, found regions"),
        ([501, 502], {"class_names": {("501", "lesion"): "x"}}, "no class 'lesion' to rename, it has metastasis"),
        ([501, 502], {"class_names": {("503", "x"): "y"}}, "class 'x' is renamed in 503, which is not merged"),
        ([501, 502], {"class_names": {("502", "edema"): "plaque"}}, "two classes would both be named"),
        ([501, 502], {"same_channels": {"T2w": "FLAIR"}}, "Dataset501_Mets: channels 1 and 2 are both FLAIR"),
    ],
)
def test_refused(tree, raw, two, datasets, options, message) -> None:
    add(tree, raw, 503, "CT", ["CT"], {"background": 0, "x": 1}, {"c": (1,)})
    add(tree, raw, 504, "Same", ["FLAIR"], {"background": 0, "x": 1}, {"a": (1,)})
    add(tree, raw, 505, "Regions", ["FLAIR"], {"background": 0, "whole": [1, 2], "core": [2]}, {"d": (1,)})
    before = sorted(raw.iterdir())
    with pytest.raises(InputError, match=message):
        merge(datasets, Options(dataset_id=510, name="Both"), **options)
    assert sorted(raw.iterdir()) == before


def colour_dataset(raw: Path, number: int, case: str, channels: int = 3) -> Path:
    """A dataset of one colour image, of which nnU-Net reads three channels from one file."""
    import PIL.Image

    folder = raw / f"Dataset{number}_Cells"
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    colours = np.random.default_rng(number).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    PIL.Image.fromarray(colours).save(folder / "imagesTr" / f"{case}_0000.png")
    label = np.zeros((6, 8), np.uint8)
    label[2, 3] = 1
    PIL.Image.fromarray(label).save(folder / "labelsTr" / f"{case}.png")
    content = {
        "channel_names": {str(i): "RGB"[i] for i in range(channels)},
        "labels": {"background": 0, "nucleus": 1},
        "numTraining": 1,
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_colour_images_stay_one_file(raw) -> None:
    first, _ = colour_dataset(raw, 501, "a"), colour_dataset(raw, 502, "b")
    merged = merge([501, 502], Options(dataset_id=510, name="Both")).folder
    assert json.loads((merged / "dataset.json").read_text())["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    assert sorted(path.name for path in (merged / "imagesTr").iterdir()) == ["a_0000.png", "b_0000.png"]
    assert (merged / "imagesTr" / "a_0000.png").resolve() == first / "imagesTr" / "a_0000.png"


def test_a_colour_image_has_as_many_channels_as_dataset_json(raw) -> None:
    colour_dataset(raw, 501, "a")
    colour_dataset(raw, 502, "b", channels=2)
    message = r"Dataset502_Cells, case b: expected 2 channel images, found _0000: _0001 \(G\) is missing"
    with pytest.raises(InputError, match=message):
        merge([501, 502], Options(dataset_id=510, name="Both"))


def test_a_case_that_lacks_a_channel_is_not_merged(tree, raw, two) -> None:
    (two[0] / "imagesTr" / "a_0000.nii.gz").unlink()
    with pytest.raises(
        InputError, match=r"Dataset501_Mets, case a: expected 3 channel images, .*_0000 \(t1c\) is missing"
    ):
        merge([501, 502], Options(dataset_id=510, name="Both"), same_channels={"T1post": "t1c"})
