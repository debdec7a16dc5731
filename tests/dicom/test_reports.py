"""Structured reports, read back by pydicom and highdicom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from nnunet_lopsided.commands.dicom import main as export
from nnunet_lopsided.dicom.series import series_of
from nnunet_lopsided.images import Image, write_image

# One voxel is 3 x 2 x 1 = 6 mm3; lesions of 3 and of 1 voxels, of values 1 and 2.
VOLUMES = (18.0, 6.0)
# By hand: (6 V / pi)^(1/3).
DIAMETERS = (3.2517, 2.2545)
MEANS = (0.7, 0.9)


def groups_of(report: Any) -> list[Any]:
    assert isinstance(report.content, highdicom.sr.MeasurementReport)
    return list(report.content.get_volumetric_roi_measurement_groups())


def arguments(labelled: Path, output: Path) -> list[str]:
    return ["-i", str(labelled), "--series", str(labelled.parent / "pacs"), "-o", str(output), "--report"]


def test_a_report_has_the_measurements_of_each_lesion(written: Path, label: NDArray[np.uint8]) -> None:
    assert sorted(path.name for path in written.iterdir()) == ["P1.dcm", "P1_report.dcm", "P2.dcm", "P2_report.dcm"]
    segmentation = highdicom.seg.segread(str(written / "P1.dcm"))
    report = highdicom.sr.srread(str(written / "P1_report.dcm"))
    assert (report.Modality, report.PatientID, report.StudyInstanceUID, report.CompletionFlag) == (
        "SR",
        "P1",
        segmentation.StudyInstanceUID,
        "COMPLETE",
    )
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34"  # Comprehensive 3D SR
    groups = groups_of(report)
    assert len(groups) == 2
    for number, group in enumerate(groups, 1):
        assert group.finding_type == highdicom.sr.CodedConcept("52988006", "SCT", "Lesion")
        segment = segmentation.get_segment_description(number)
        assert (group.tracking_uid, group.tracking_identifier) == (segment.tracking_uid, segment.segment_label)
        reference = group.referenced_segment
        assert reference.referenced_sop_instance_uid == segmentation.SOPInstanceUID
        assert reference.referenced_segment_numbers == [number]
        assert (
            reference.source_series_for_segmentation.value == segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID
        )
        found = {item.name: item for item in group.get_measurements()}
        assert [item.value for item in found.values()] == pytest.approx(
            [VOLUMES[number - 1], DIAMETERS[number - 1], 100 * MEANS[number - 1]], rel=1e-4
        )
        assert [(item.name.value, item.unit.value) for item in found.values()] == [
            ("118565006", "mm3"),
            ("81827009", "mm"),
            ("111012", "%"),
        ]
        assert found[codes.SCT.Diameter].method.meaning == "Diameter of the sphere of equal volume"
        assert found[codes.DCM.CertaintyOfFinding].derivation == codes.SCT.Mean
    assert [group.tracking_identifier for group in groups] == ["lesion 1 (3.3 mm)", "lesion 2 (2.3 mm)"]


def test_the_place_of_a_finding_is_that_of_its_segment(
    written: Path, label: NDArray[np.uint8], oblique: NDArray[Any]
) -> None:
    """The voxels of the second finding, found by pydicom alone, lie where the voxel (x 0, y 4, z 3) lies."""
    report = highdicom.sr.srread(str(written / "P2_report.dcm"))
    group = groups_of(report)[1]
    segmentation = pydicom.dcmread(written / "P2.dcm")
    number = group.referenced_segment.referenced_segment_numbers[0]
    frames = [
        (pixels, frame)
        for pixels, frame in zip(
            segmentation.pixel_array.reshape(-1, 5, 6), segmentation.PerFrameFunctionalGroupsSequence, strict=True
        )
        if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number and pixels.any()
    ]
    ((pixels, frame),) = frames
    assert np.argwhere(pixels).tolist() == [[4, 0]]
    corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
    place = corner + 4 * 2.0 * oblique[:, 1]
    np.testing.assert_allclose(place, np.array([7.0, -8.0, 9.0]) + oblique @ [0 * 1.0, 4 * 2.0, 3 * 3.0], atol=1e-5)
    (source,) = frame.DerivationImageSequence[0].SourceImageSequence
    assert source.ReferencedSOPInstanceUID.endswith(".4")
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    referred = [item.ReferencedSOPInstanceUID for series in evidence for item in series.ReferencedSOPSequence]
    assert len(referred) == 5  # the segmentation and four slices
    assert {segmentation.SOPInstanceUID, source.ReferencedSOPInstanceUID} <= set(referred)


def test_what_is_not_known_is_not_said(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = highdicom.sr.srread(str(written / "P2_report.dcm"))
    for group in groups_of(report):
        assert [item.name.meaning for item in group.get_measurements()] == ["Volume", "Diameter"]


def test_the_command_says_what_it_wrote(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(arguments(labelled, tmp_path / "out")) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'out'}: 2 DICOM SEG files and 2 reports, 4 segments\n"
    assert err == "note: reports without probabilities, because no CASE.npz is there: P2\n"
    first = pydicom.dcmread(tmp_path / "out" / "P1_report.dcm")
    assert export(arguments(labelled, tmp_path / "out")) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert export([*arguments(labelled, tmp_path / "out"), "--overwrite"]) == 0
    assert pydicom.dcmread(tmp_path / "out" / "P1_report.dcm").SOPInstanceUID == first.SOPInstanceUID


def test_wrong_inputs_are_one_line(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert export([*arguments(labelled, output), "--one"]) == 2
    assert capsys.readouterr().err == (
        "lopsided-dicom: error: a report is of lesions, not of values of the label map: --report or --one, not both\n"
    )
    np.savez(labelled / "P2.npz", probabilities=np.zeros((2, 4, 5, 7), np.float32))
    assert export(arguments(labelled, output)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lopsided-dicom: error: case P2: expected shape (channels, 4, 5, 6) of the reference, found")
    (labelled / "P2.npz").unlink()
    (labelled / "P2.nii.gz").rename(labelled / "P1_report.nii.gz")
    assert export(arguments(labelled, output)) == 2
    assert capsys.readouterr().err == (
        f"lopsided-dicom: error: {output / 'P1_report.dcm'} would be a report and the segmentation of case P1_report\n"
    )
    assert not output.exists()


def test_what_dataset_json_calls_ignore_is_no_lesion(labelled: Path, tmp_path: Path) -> None:
    (labelled / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lesion": 1, "ignore": 2}}))
    assert export(arguments(labelled, tmp_path / "out")) == 0
    report = highdicom.sr.srread(str(tmp_path / "out" / "P2_report.dcm"))
    (group,) = groups_of(report)
    assert group.get_measurements()[0].value == 18.0
    assert len(pydicom.dcmread(tmp_path / "out" / "P2.dcm").SegmentSequence) == 1


def test_names_keep_their_letters(scanner, voxels: NDArray[Any], label: NDArray[np.uint8], tmp_path: Path) -> None:
    def name(i: int, dataset: pydicom.Dataset) -> None:
        dataset.SpecificCharacterSet, dataset.PatientName = "ISO_IR 100", "M\u00fcller^J\u00f6rg"

    scanner.series("P1", "t1", voxels, change=name)
    (tmp_path / "labels").mkdir()
    series, _ = series_of(sorted(path for path in scanner.root.rglob("*") if path.is_file()))
    write_image(tmp_path / "labels" / "P1.nii.gz", Image(label, series[0].header().geometry))
    arguments = ["-i", str(tmp_path / "labels"), "--series", str(scanner.root), "-o", str(tmp_path / "out"), "--report"]
    assert export([*arguments, "--description", "L\u00e4sionen \u75c5\u5909"]) == 0
    for name_of_file in ("P1.dcm", "P1_report.dcm"):
        content = (tmp_path / "out" / name_of_file).read_bytes()
        assert "M\u00fcller^J\u00f6rg".encode() in content
        assert "L\u00e4sionen \u75c5\u5909".encode() in content
        assert pydicom.dcmread(tmp_path / "out" / name_of_file).SpecificCharacterSet == "ISO_IR 192"
    assert pydicom.dcmread(tmp_path / "out" / "P1.dcm").ContentCreatorName == ""
