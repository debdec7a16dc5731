"""DICOM SEG out and in: read back by highdicom and pydicom themselves, and as labels of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from nnunet_lopsided.commands.convert import main as convert
from nnunet_lopsided.commands.dicom import main as export
from nnunet_lopsided.images import Image, read_image, write_image


@pytest.fixture
def pacs(scanner, voxels, oblique, nnunet_paths):
    """Two patients, the first with two studies; T1 and a FLAIR; label maps of all in a folder."""
    for patient, date in (("P1", "20240101"), ("P1", "20240601"), ("P2", "20240101")):
        origin = (-3.0, 4.0, 5.0 + len(date) + ord(patient[1]))
        for description in ("t1 mprage post", "FLAIR"):
            scanner.series(patient, description, voxels, date=date, direction=oblique, origin=origin)
    return scanner.root


CONVERT = ["--channels", "t1c=*T1*post*", "flair=flair"]


def labels_of(folder: Path, nnunet_paths: Path, pacs: Path) -> Mapping[str, NDArray[Any]]:
    """Label maps on the grids of the converted images, as predictions would lie there."""
    names = ("P1_20240101", "P1_20240601", "P2")
    arguments = ["dicom", str(pacs), "-d", "500", "--name", "Plain", *CONVERT, "--test-cases", *names[1:]]
    assert convert([*arguments, "--exclude", "none"]) == 2
    from nnunet_lopsided.dicom.series import series_of
    from nnunet_lopsided.dicom.studies import studies_of

    folder.mkdir()
    series, _ = series_of(sorted(path for path in pacs.rglob("*") if path.is_file()))
    written = {}
    for i, study in enumerate(studies_of(series)):
        array = np.zeros((4, 5, 6), np.uint8)
        array[1, 2, 3:5] = array[3, 4, 0] = 1
        array[0, 0, i] = 2
        write_image(folder / f"{study.case}.nii.gz", Image(array, study.series[0].header().geometry))
        written[study.case] = array
    return written


def test_there_and_back(pacs: Path, tmp_path: Path, nnunet_paths: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = labels_of(tmp_path / "labels", nnunet_paths, pacs)
    assert export(["-i", str(tmp_path / "labels"), "--series", str(pacs), "-o", str(tmp_path / "seg")]) == 0
    assert capsys.readouterr().out.endswith("3 DICOM SEG files, 9 segments\n")
    for case, array in labels.items():
        dataset = pydicom.dcmread(tmp_path / "seg" / f"{case}.dcm")
        assert (dataset.Modality, dataset.PatientID, dataset.SegmentationType) == ("SEG", case[:2], "BINARY")
        names = [item.SegmentLabel for item in dataset.SegmentSequence]
        assert names == ["lesion 1 (2.3 mm)", "lesion 2 (2.8 mm)", "lesion 3 (2.3 mm)"]
        read = highdicom.seg.segread(str(tmp_path / "seg" / f"{case}.dcm"))
        uids = [
            str(item.ReferencedSOPInstanceUID)
            for item in dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        ]
        ordered = sorted(uids, key=lambda uid: int(uid.rsplit(".", 1)[1]))
        pixels = read.get_pixels_by_source_instance(ordered, assert_missing_frames_are_empty=True)
        np.testing.assert_array_equal(pixels.any(-1), array != 0)
        np.testing.assert_array_equal(pixels[..., 1], (array == 1) & (np.arange(4) == 1)[:, None, None])
    # In: as labels beside the series that they refer to.
    (tmp_path / "seg").rename(pacs / "seg")
    assert convert(["dicom", str(pacs), "-d", "501", "--name", "Both", *CONVERT]) == 0
    folder = nnunet_paths / "nnUNet_raw" / "Dataset501_Both"
    for case, array in labels.items():
        label = read_image(folder / "labelsTr" / f"{case}.nii.gz")
        np.testing.assert_array_equal(label.array, array != 0)
        image = read_image(folder / "imagesTr" / f"{case}_0000.nii.gz")
        np.testing.assert_array_equal(image.array, np.arange(120).reshape(4, 5, 6))
        assert image.geometry.difference(label.geometry) is None
    assert [row.split(",")[:3] for row in (folder / "cases.csv").read_text().splitlines()[1:]] == [
        ["P1_20240101", "P1", "20240101"],
        ["P1_20240601", "P1", "20240601"],
        ["P2", "P2", "20240101"],
    ]


def test_segments_may_be_chosen(pacs: Path, tmp_path: Path, nnunet_paths: Path, capsys) -> None:
    labels = labels_of(tmp_path / "labels", nnunet_paths, pacs)
    arguments = ["-i", str(tmp_path / "labels"), "--series", str(pacs), "-o", str(pacs / "seg"), "--one"]
    assert export(arguments) == 0
    assert export(arguments) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    before = (pacs / "seg" / "P2.dcm").read_bytes()
    assert pydicom.dcmread(pacs / "seg" / "P2.dcm").SegmentSequence[1].SegmentLabel == "label 2"
    assert export([*arguments, "--overwrite"]) == 0
    again = pydicom.dcmread(pacs / "seg" / "P2.dcm")
    assert again.SOPInstanceUID == pydicom.dcmread(pydicom.filebase.DicomBytesIO(before)).SOPInstanceUID
    command = ["dicom", str(pacs), "-d", "501", *CONVERT]
    assert convert([*command, "--segments", "LABEL 2"]) == 0
    folder = nnunet_paths / "nnUNet_raw" / "Dataset501_Converted"
    for case, array in labels.items():
        np.testing.assert_array_equal(read_image(folder / "labelsTr" / f"{case}.nii.gz").array, array == 2)
    assert convert([*command, "--overwrite", "--segments", "edema"]) == 2
    assert "no segment is called edema, found label 1, label 2 (--segments)" in capsys.readouterr().err


def test_two_series_of_a_kind_are_asked_for(pacs: Path, scanner, voxels, nnunet_paths: Path, capsys) -> None:
    scanner.series("P2", "flair", voxels, number=77)
    assert convert(["dicom", str(pacs), "-d", "501", *CONVERT]) == 2
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if "several series for 'flair'" in line]
    assert "case P2: channel flair" in line
    assert "series 77 'flair' (4 files in " in line
    assert "--ignore NUMBER" in line
    assert sum("no label found in any case: --labels '*' fits no DICOM SEG" in line for line in lines) == 1
    assert convert(["dicom", str(pacs), "-d", "501", *CONVERT, "--ignore", "77"]) == 2
    assert "several series" not in capsys.readouterr().err


def test_a_gap_is_refused_by_name(scanner, voxels, nnunet_paths: Path, capsys) -> None:
    scanner.series("P1", "t1 post", np.repeat(voxels, 2, 0), change=lambda i, dataset: i != 3)
    assert convert(["dicom", str(scanner.root), "-d", "501", "--channels", "t1=*post", "--test-cases", "P1"]) == 2
    assert "case P1: channel t1: series 1 't1 post'" in capsys.readouterr().err


def test_label_maps_without_their_series(pacs: Path, tmp_path: Path, nnunet_paths: Path, capsys) -> None:
    labels_of(tmp_path / "labels", nnunet_paths, pacs)
    folder = tmp_path / "labels"
    (folder / "P2.nii.gz").rename(folder / "other.nii.gz")  # found by its grid: only P2 has such
    image = read_image(folder / "other.nii.gz")
    assert export(["-i", str(folder), "--series", str(pacs), "-o", str(tmp_path / "a")]) == 0
    write_image(folder / "P2.nii.gz", Image(image.array[:3], image.geometry))
    capsys.readouterr()
    assert export(["-i", str(folder), "--series", str(pacs), "-o", str(tmp_path / "b")]) == 2
    assert capsys.readouterr().err == (
        "lopsided-dicom: error: case P2: no series of the study of P2 lies on the grid of its label map (--series)\n"
    )
    assert not (tmp_path / "b").exists()
