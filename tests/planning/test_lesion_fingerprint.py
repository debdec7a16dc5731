"""The lesion fingerprint: by hand, and from label files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Image, read_image, write_image
from nnunet_lopsided.planning.lesion_fingerprint import lesion_fingerprint, measure_lesions


def test_by_hand() -> None:
    assert lesion_fingerprint([[1.0, 2.0, 3.0, 4.0], [5.0], []], 30, 600) == {
        "n_cases": 3,
        "n_lesions": 5,
        "n_cases_without_lesions": 1,
        "lesions_per_case": {"mean": 1.6667, "median": 1.0, "max": 4},
        "diameter_mm_percentiles": {"5": 1.2, "10": 1.4, "25": 2.0, "50": 3.0, "75": 4.0, "90": 4.6, "95": 4.8},
        "foreground_prior": 0.05,
    }


def test_nothing_there() -> None:
    empty = lesion_fingerprint([[], []], 0, 100)
    assert (empty["n_lesions"], empty["diameter_mm_percentiles"], empty["foreground_prior"]) == (0, None, 0.0)
    assert lesion_fingerprint([], 0, 0)["foreground_prior"] is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A preprocessed dataset with two labels of 2 x 2 x 2 mm voxels; 3 is ignored."""
    (tmp_path / "gt_segmentations").mkdir()
    labels = {"background": 0, "a": 1, "b": 2, "ignore": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    first, second = np.zeros((2, 4, 5, 6), np.uint8)
    first[0, 0, 0] = 1
    first[0, 1, 1] = 2  # touches the corner of the first: one lesion of two classes
    first[3, 4, 5] = 1
    first[:, :, 3] = 3
    geometry = Geometry((2.0, 2.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    for name, label in (("one", first), ("two", second)):
        write_image(tmp_path / "gt_segmentations" / f"{name}.nii.gz", Image(label, geometry))
    return tmp_path


def test_from_label_files(folder: Path) -> None:
    found = measure_lesions(folder)
    assert (found["n_cases"], found["n_lesions"], found["n_cases_without_lesions"]) == (2, 2, 1)
    assert found["foreground_prior"] == 3 / (2 * 4 * 5 * 6 - 4 * 5)
    one_voxel, two_voxels = np.cbrt(6 * 8 / np.pi), np.cbrt(6 * 16 / np.pi)
    assert found["diameter_mm_percentiles"]["50"] == pytest.approx((one_voxel + two_voxels) / 2, abs=1e-4)


def test_a_broken_label_is_named(folder: Path) -> None:
    (folder / "gt_segmentations" / "two.nii.gz").write_bytes(b"no")
    with pytest.raises(InputError, match=r"case two: .*two\.nii\.gz"):
        measure_lesions(folder)


def test_a_value_that_dataset_json_does_not_declare(folder: Path) -> None:
    path = folder / "gt_segmentations" / "two.nii.gz"
    label = read_image(path)
    array = label.array.copy()
    array[0, 0, 1:3] = 255
    write_image(path, Image(array, label.geometry))
    message = r"^case two: .*two\.nii\.gz: unknown label value 255 in 2 voxels, expected 0, 1, 2, 3 \(dataset\.json\)$"
    with pytest.raises(InputError, match=message):
        measure_lesions(folder)


def test_voxels_of_tiff_have_the_size_of_the_raw_dataset(nnunet_paths: Path) -> None:
    raw, folder = (nnunet_paths / kind / "Dataset501_Mets" for kind in ("nnUNet_raw", "nnUNet_preprocessed"))
    label = np.zeros((16, 40, 40), np.uint8)
    label[2:5, 7:10, 7:10] = 1
    geometry = Geometry((4.0, 0.25, 0.25), (0.0,) * 3, (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    for kind, name in (("imagesTr", "a_0000"), ("labelsTr", "a")):
        (raw / kind).mkdir(parents=True)
        write_image(raw / kind / f"{name}.tif", Image(label, geometry))
    (folder / "gt_segmentations").mkdir(parents=True)
    shutil.copy(raw / "labelsTr" / "a.tif", folder / "gt_segmentations")
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".tif"}
    for place in (raw, folder):
        (place / "dataset.json").write_text(json.dumps(content))
    volume_mm3 = 27 * 4 * 0.25 * 0.25
    assert measure_lesions(folder)["diameter_mm_percentiles"]["50"] == pytest.approx(
        np.cbrt(6 * volume_mm3 / np.pi), abs=1e-4
    )
