"""The classes of dataset.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.dataset_json import channel_names, label_scheme, read_dataset_json


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


WRONG_LABELS: list[dict[str, object]] = [
    {"lesion": 1.7},
    {"lesion": True},
    {"lesion": []},
    {"lesion": [1, 2.5]},
    {"lesion": -1},
    {"lesion": None},
    {"lesion": 1, "ignore": 1},
    {"lesion": 1, "ignore": 0},
    {"lesion": 1, "ignore": [2, 3]},
    {"lesion": 2, "ignore": 1},
    {"lesion": 1, "ignore": 3},
    {"whole": [1, 2], "core": [2], "ignore": 4},
    {"whole": [0, 1]},
    {"lesion": 2**15},
    {"lesion": 2**62},
    {"lesion": [[1]]},
    {"lesion": 1, "background": 2},
    {"lesion": 1, "metastasis": 1},
    {"whole": [1, 2], "core": [2], "tumour": [1, 2]},
]
BROKEN_LABELS = [{"labels": {"background": 0, **wrong}} for wrong in WRONG_LABELS]


@pytest.mark.parametrize(
    "content", [{}, [], {"labels": {"0": "background", "1": "lesion"}}, {"labels": [0, 1]}, *BROKEN_LABELS]
)
def test_label_scheme_refuses(content):
    with pytest.raises(InputError, match=r"d\.json: expected .* 'labels'"):
        label_scheme(content, Path("d.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a mapping, found a list"),
        ({"file_ending": [".nii"]}, "file_ending: expected text, found a list"),
        ({"labels": [0, 1]}, r"labels: expected a mapping, found \[0, 1\]"),
        ({"overwrite_image_reader_writer": 7}, "overwrite_image_reader_writer: expected text, found 7"),
        (
            {"dataset": {"a": {"images": "a.nii.gz", "label": "b.nii.gz"}}},
            r"dataset\.a\.images: expected a list, found",
        ),
        ({"dataset": {"a": {"images": ["a.nii.gz"]}}}, r"dataset\.a: expected the key label, found images"),
        ({"dataset": {"a": {"images": [1], "label": "b"}}}, r"dataset\.a\.images\[0\]: expected text, found 1"),
        ({"dataset": [{"image": "a"}]}, "dataset: expected a mapping, found a list"),
    ],
)
def test_read_dataset_json_refuses(tmp_path: Path, content: object, message: str) -> None:
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"dataset\.json: {message}"):
        read_dataset_json(file)


@pytest.mark.parametrize("names", [["T1"], {"0": None}, {"0": {}}, {"0": 1}, {"one": "T1"}, {"0": "a", "00": "b"}, {}])
@pytest.mark.parametrize("key", ["channel_names", "modality"])
def test_channel_names_refuse(key: str, names: object) -> None:
    with pytest.raises(InputError, match=f"d: expected {key} to name channels by number, as in"):
        channel_names({key: names}, Path("d"))


def test_keys_of_others_and_nothing_are_kept(tmp_path: Path) -> None:
    content = {"labels": {"background": "0"}, "overwrite_image_reader_writer": None, "licence": {"mine": [1.5]}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert read_dataset_json(tmp_path / "dataset.json") == content
