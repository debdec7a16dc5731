"""nnunet_lopsided.demo.slices: which slice is shown, how it lies, and whose outline is which."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from nnunet_lopsided.demo.slices import slice_figure
from nnunet_lopsided.images import Geometry, Image, write_image
from nnunet_lopsided.nnunet.raw import RawDataset

SHAPE, CENTRE = (4, 10, 12), (2, 2, 8)


def corners(contour: Any) -> list[float]:
    """Left, right, top and bottom of an outline, in voxels of the picture."""
    points = np.concatenate([path.vertices for path in contour.get_paths()])
    return [*np.quantile(points[:, 0], (0, 1)).tolist(), *np.quantile(points[:, 1], (0, 1)).tolist()]


@pytest.mark.parametrize("flipped", [False, True])
def test_the_slice_of_the_lesion_lies_as_radiologists_read_it(tmp_path: Path, flipped: bool) -> None:
    """The same head, stored from left to right and back to front, gives the same picture."""
    sign, step = (-1.0, -1) if flipped else (1.0, 1)
    geometry = Geometry((3.0, 2.0, 1.0), (0.0,) * 3, (sign, 0, 0, 0, sign, 0, 0, 0, 1.0))
    reference, image = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.float32)
    image += 100 * np.arange(SHAPE[0])[:, None, None] + np.arange(SHAPE[1])[:, None]
    reference[2, 1:4, 7:10] = 1
    probability = np.zeros(SHAPE, np.float32)
    probability[2, 2, 8:11] = 0.3
    probability[0] = 0.9  # of another slice
    raw = tmp_path / "Dataset901_Full"
    for name, array in (("imagesTs/a_0000", image), ("labelsTs/a", reference)):
        (raw / name).parent.mkdir(parents=True)
        write_image(raw / f"{name}.nii.gz", Image(array[:, ::step, ::step].copy(), geometry))
    content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps({**content, "numTraining": 0}))
    arms = [SimpleNamespace(name="one", title="One"), SimpleNamespace(name="two", title="Two")]
    for arm, shown, detected in ((arms[0], probability, 1), (arms[1], 0 * probability, 0)):
        for part in ("predictions", "evaluation"):
            (tmp_path / part / arm.name).mkdir(parents=True)
        turned = shown[:, ::step, ::step]
        np.savez(tmp_path / "predictions" / arm.name / "a.npz", probabilities=np.stack([1 - turned, turned]))
        rows = f"case,lesion,diameter_mm,centroid_z,detected\na,1,4.56,2,{detected}\n"
        (tmp_path / "evaluation" / arm.name / "lesions.csv").write_text(rows)
    alone, one, two = slice_figure(arms, tmp_path, RawDataset(raw)).axes
    assert [axes.get_title() for axes in (alone, one, two)] == ["a, 4.6 mm", "One: found", "Two: missed"]
    assert np.asarray(alone.images[0].get_array())[:, 0].tolist() == [200 + i for i in range(10)]
    assert alone.get_aspect() == 2.0  # rows of 2 mm, columns of 1 mm
    outlines = [
        {to_hex(np.asarray(c.get_edgecolor())[0].tolist()): corners(c) for c in axes.collections}
        for axes in (alone, one, two)
    ]
    lesion = {"#56b4e9": [6.5, 9.5, 0.5, 3.5]}
    assert outlines == [lesion, {**lesion, "#ffb000": [7.5, 10.5, 1.5, 2.5]}, lesion]
