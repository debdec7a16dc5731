"""The classes of dataset.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.dataset_json import label_scheme


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
    {"lesion": 1, "background": 2},
]
BROKEN_LABELS = [{"labels": {"background": 0, **wrong}} for wrong in WRONG_LABELS]


@pytest.mark.parametrize(
    "content", [{}, [], {"labels": {"0": "background", "1": "lesion"}}, {"labels": [0, 1]}, *BROKEN_LABELS]
)
def test_label_scheme_refuses(content):
    with pytest.raises(InputError, match=r"d\.json: expected .* 'labels'"):
        label_scheme(content, Path("d.json"))
