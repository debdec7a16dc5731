"""The page of a completion: the right pictures, the right sizes in the right rows, names that stay text."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from nnunet_lopsided.audit.inputs import AuditedCase, AuditInputs
from nnunet_lopsided.completion.completion_page import (
    CompletedLesion,
    DiameterRow,
    completion_html,
    shown,
    shown_pictures,
)
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.images import Geometry, Image, write_image
from nnunet_lopsided.nnunet.raw import raw_dataset

RECORD = {
    "settings": {"source_dataset": "Dataset007_Some", "threshold": 0.1},
    "n_cases": 3,
    "n_candidates": 5,
    "estimated_missed_lesions": 3.4,
    "not_completed": [],
}


def lesion(number: int, mean: float, n_voxels: int = 4, case: str = "a") -> CompletedLesion:
    return CompletedLesion(
        case=case,
        lesion_class="lesion",
        number=number,
        n_voxels=n_voxels,
        volume_mm3=float(n_voxels),
        diameter_mm=2.5,
        mean=mean,
        highest=mean,
        belief=mean / 2,
    )


def test_most_and_least_believed_by_mean_times_root_of_voxels() -> None:
    lesions = [lesion(1, 0.9, 1), lesion(2, 0.5, 9), lesion(3, 0.2, 16), lesion(4, 0.6, 1), lesion(5, 0.1, 4)]
    # scores 0.9, 1.5, 0.8, 0.6, 0.2
    most, least = shown(lesions, 2)
    assert [one.number for one in most] == [2, 1]
    assert [one.number for one in least] == [5, 4]
    most, least = shown(lesions, 4)
    assert [one.number for one in least] == [5]


def html(**changes: object) -> str:
    rows = [
        DiameterRow(lower_mm=0.0, upper_mm=3.0, n_explained=0, n_candidates=4, believed=0.84),
        DiameterRow(lower_mm=3.0, upper_mm=None, n_explained=8, n_candidates=1, believed=0.71),
    ]
    lesions = [lesion(1, 0.2), lesion(2, 0.7, case="<b>&")]
    record = {**RECORD, **changes}
    return completion_html(
        "Dataset008_SomeCompleted", record=record, by_diameter=rows, lesions=lesions, pictures=([], [])
    )


def rows_of(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]


def test_rows_by_diameter_and_of_candidates() -> None:
    rows = rows_of(html())
    assert ["0\u20133", "0", "4", "", "0.8"] in rows
    assert ["3+", "8", "1", "0.125", "0.7"] in rows
    first, second = (row for row in rows if len(row) == 8)
    assert first == ["&lt;b&gt;&amp;", "lesion", "2", "2.5", "0.700", "0.700", "1.400", "0.350"]
    assert second == ["a", "lesion", "1", "2.5", "0.200", "0.200", "0.400", "0.100"]


@pytest.mark.parametrize(
    ("estimate", "said", "unsaid"),
    [
        (3.4, "about 3.4 of them are missed", "No candidate is believed"),
        (1.0, "a soft target as far as it is believed", "No candidate is believed"),
        (0.9, "No candidate is believed", "a soft target as far as"),
        (0.9, "your labels are whole", "Too few"),
        (None, "Too few annotated lesions", "your labels are whole"),
        (None, "No candidate is believed", "a soft target as far as"),
    ],
)
def test_what_the_estimate_says(estimate: float | None, said: str, unsaid: str) -> None:
    page = html(estimated_missed_lesions=estimate)
    assert said in page
    assert unsaid not in page


def test_cases_left_out_are_named() -> None:
    assert "not in this dataset: case_9, case_x" in html(not_completed=["case_9", "case_x"])


def test_pictures_show_the_candidate_of_that_number_and_the_annotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two candidates in different slices; the annotation lies left of the second."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    folder = tmp_path / "Dataset007_Some"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    settings = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "lesion": 1}}
    write_json(folder / "dataset.json", {**settings, "numTraining": 1, "file_ending": ".nii.gz"})
    geometry = Geometry((30.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    image, label = np.zeros((3, 12, 20), np.float32), np.zeros((3, 12, 20), np.uint8)
    belief = np.zeros((3, 12, 20), np.float32)
    belief[0, 2, 3:5] = 0.4
    belief[2, 7, 11:14] = 0.8
    image[2, 7, 11:14] = 1000
    label[2, 7, 5] = 1
    for path, array in (("imagesTr/c_0000", image), ("labelsTr/c", label)):
        write_image(folder / f"{path}.nii.gz", Image(array, geometry))
    write_image(tmp_path / "c.nii.gz", Image(belief, geometry))
    dataset = raw_dataset("Dataset007_Some")
    inputs = AuditInputs(
        dataset=dataset,
        models=(),
        folds=(0,),
        cases=(AuditedCase(dataset.training_cases()[0], "c", 0, ()),),
        patients="",
        left_out=(),
    )
    lesions = [lesion(1, 0.4, 2, "c"), lesion(2, 0.8, 3, "c")]
    most, least = shown_pictures(inputs, lesions, lambda case, _: tmp_path / f"{case}.nii.gz", 1)
    assert least == []
    assert [picture.caption for picture in most] == [
        "candidate 2, 2.5 mm, believed 0.40, mean probability 0.80, slice 2 (0 to 2)",
        "candidate 1, 2.5 mm, believed 0.20, mean probability 0.40, slice 0 (0 to 2)",
    ]
    first, second = most
    # 22 mm to each side of the middle of the candidate, which is the picture's.
    assert first.shape == (45, 45)
    assert first.candidate == "M21 22h3v1h-3z"
    assert first.reference == "M15 22h1v1h-1z"
    assert second.reference == ""
    grey = np.asarray(PillowImage.open(io.BytesIO(first.png)))
    assert np.argwhere(grey == 255).tolist() == [[22, 21], [22, 22], [22, 23]]
