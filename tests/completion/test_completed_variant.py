"""Soft targets of several classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.completion.completed_variant import _Completed, _Work
from nnunet_lopsided.completion.completion_page import CompletedLesion
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.images import Geometry, Image, read_image, write_image
from nnunet_lopsided.nnunet.raw import raw_dataset

GEOMETRY = Geometry((2.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def completed(lesion_class: str, belief: float) -> _Completed:
    lesion = CompletedLesion(
        case="c",
        lesion_class=lesion_class,
        number=1,
        n_voxels=2,
        volume_mm3=4.0,
        diameter_mm=2.0,
        mean=0.5,
        highest=0.5,
        belief=belief,
    )
    return _Completed(
        case="c",
        lesion_class=lesion_class,
        lesions=(lesion,),
        explained_scores=np.zeros(0),
        explained_mm=np.zeros(0),
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # At the first voxel .9 and .225 are more than a whole, at the second .7875 and .3.
        ({"background": 0, "a": 1, "b": 2}, [[0.8, 0.7241], [0.2, 0.2759]]),
        ({"background": 0, "a": [1, 2], "b": 2}, [[0.9, 0.7875], [0.225, 0.3]]),
    ],
)
def test_exclusive_classes_are_one_at_most(
    labels: dict[str, object], expected: list[list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As lopsided-soften asks; regions may overlap."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    folder = tmp_path / "Dataset007_Two"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    content: dict[str, object] = {"channel_names": {"0": "T1"}, "labels": labels, "numTraining": 0}
    content |= {"file_ending": ".nii.gz"} | ({"regions_class_order": [1, 2]} if isinstance(labels["a"], list) else {})
    write_json(folder / "dataset.json", content)
    work = _Work(raw_dataset("Dataset007_Two"), tmp_path, 0.1)
    for name, values in (("a", (0.8, 0.7)), ("b", (0.15, 0.2))):
        p = np.zeros((2, 3, 4), np.float32)
        p[1, 2, 1:3] = values
        write_image(work.file_of("c", name), Image(p, GEOMETRY))
    work.believe([completed("a", 0.9), completed("b", 0.3)])
    for name, of_class in zip("ab", expected, strict=True):
        target = np.asarray(read_image(work.file_of("c", name)).array, np.float64)
        np.testing.assert_allclose(target[1, 2, 1:3], of_class, atol=1e-4)
        assert np.count_nonzero(target) == 2
