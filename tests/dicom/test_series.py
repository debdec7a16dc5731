"""Series of slices as images: sorted by place, and refused where they are no whole stack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_lopsided.dicom.series import series_of
from nnunet_lopsided.dicom.studies import studies_of
from nnunet_lopsided.errors import InputError


def only(folder: Path):
    (series,), others = series_of(sorted(path for path in folder.rglob("*") if path.is_file()))
    assert others == 0
    return series


def test_an_oblique_series_whose_files_are_not_in_order(scanner, voxels, oblique) -> None:
    folder = scanner.series("P1", "t1 post", voxels, direction=oblique)
    series = only(folder)
    image = series.read()
    np.testing.assert_array_equal(image.array, voxels)
    assert series.header().geometry == image.geometry
    np.testing.assert_allclose(image.geometry.spacing_mm, (3.0, 2.0, 1.0), atol=1e-6)
    np.testing.assert_allclose(image.geometry.origin_mm, (-3.0, 4.0, 5.0))
    np.testing.assert_allclose(np.array(image.geometry.direction).reshape(3, 3), oblique, atol=1e-9)
    # Against GDCM's own sorting, as SimpleITK hands it out.
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    theirs = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs), voxels)
    np.testing.assert_allclose(theirs.GetDirection(), image.geometry.direction, atol=1e-6)
    np.testing.assert_allclose(theirs.GetSpacing(), image.geometry.spacing_mm[::-1], atol=1e-5)


def test_slices_stacked_against_their_normal_are_turned_round(scanner, voxels, oblique) -> None:
    left_handed = oblique * [1, 1, -1]
    image = only(scanner.series("P1", "t1", voxels, direction=left_handed)).read()
    np.testing.assert_array_equal(image.array, voxels[::-1])
    np.testing.assert_allclose(image.geometry.origin_mm, np.array([-3.0, 4.0, 5.0]) + 9 * left_handed[:, 2], atol=1e-5)


def shifted(i: int, dataset) -> None:
    dataset.ImagePositionPatient = [float(x) + 0.5 * i for x in dataset.ImagePositionPatient[:1]] + [
        float(x) for x in dataset.ImagePositionPatient[1:]
    ]


def turned(i: int, dataset) -> None:
    if i == 2:
        dataset.ImageOrientationPatient = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]


def again(i: int, dataset) -> None:
    if i == 3:
        dataset.ImagePositionPatient = [-3.0, 4.0, 11.0]


def multi_frame(i: int, dataset) -> None:
    dataset.NumberOfFrames = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, dataset: i != 2, "lie 6 mm apart, others 3: one is missing"),
        (again, "two slices in one place"),
        (turned, "slices differ in size or orientation"),
        (shifted, "slices are shifted against each other by 0.5 mm"),
        (multi_frame, "multi-frame files must be converted"),
        (lambda i, dataset: i == 0, "a single slice is no volume"),
    ],
)
def test_what_is_no_whole_stack(scanner, change, message) -> None:
    voxels = np.arange(150, dtype=np.int16).reshape(5, 5, 6)
    with pytest.raises(InputError, match=message):
        only(scanner.series("P1", "t1", voxels, change=change)).header()


def test_cases_are_studies(scanner, voxels) -> None:
    scanner.series("P1", "t1", voxels, date="20240101")
    scanner.series("P1", "t1", voxels, date="20240601")
    scanner.series("P 2", "t1", voxels)
    (scanner.root / "notes.txt").write_text("no DICOM")
    (scanner.root / "DICOMDIR").write_bytes(b"\0" * 200)
    series, others = series_of(sorted(path for path in scanner.root.rglob("*") if path.is_file()))
    assert others == 2
    assert [(s.case, s.patient, s.date) for s in studies_of(series)] == [
        ("P1_20240101", "P1", "20240101"),
        ("P1_20240601", "P1", "20240601"),
        ("P_2", "P_2", "20240101"),
    ]


def test_patients_that_cannot_be_told(scanner, voxels) -> None:
    scanner.series("P 1", "t1", voxels)
    scanner.series("P_1", "t1", voxels)
    series, _ = series_of(sorted(path for path in scanner.root.rglob("*") if path.is_file()))
    with pytest.raises(InputError, match="'P 1' and 'P_1' would both be called P_1"):
        studies_of(series)
