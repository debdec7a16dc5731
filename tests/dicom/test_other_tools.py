"""What we write, read by others' tools where they are installed: dicom3tools, DCMTK and dcmqi (Debian, PyPI)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_lopsided.dicom.segmentations import SegmentationVolume
from nnunet_lopsided.dicom.series import series_of

Run = Callable[..., str]


@pytest.fixture
def run() -> Run:
    """Runs a tool, which must succeed, and returns what it printed; the test is skipped where there is none."""

    def run(tool: str, *arguments: object) -> str:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
        done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=True)
        return done.stdout + done.stderr

    return run


@pytest.mark.parametrize(("name", "kind"), [("P1.dcm", "Segmentation"), ("P1_report.dcm", "Comprehensive3DSR")])
def test_dicom3tools_finds_nothing_that_breaks_the_standard(run: Run, written: Path, name: str, kind: str) -> None:
    lines = run("dciodvfy", "-new", written / name).splitlines()
    assert kind in lines
    # A private coding scheme is allowed; the tool knows the public ones.
    assert [line for line in lines if line != kind and "Unrecognized defined term = <99LOPSIDED>" not in line] == []


def test_dcmtk_reads_the_report(run: Run, written: Path) -> None:
    text = run("dsrdump", written / "P1_report.dcm")
    assert "error" not in text.lower()
    for line in (
        '<has obs context TEXT:(,,"Tracking Identifier")="lesion 2 (2.3 mm)">',
        '<contains NUM:(,,"Volume")="6.0" (mm3,UCUM,"cubic millimeter")>',
        '<contains NUM:(,,"Certainty of Finding")="90.0" (%,UCUM,"Percent")>',
    ):
        assert line in text


def test_dcmqi_reads_the_measurements(run: Run, written: Path, tmp_path: Path) -> None:
    run("tid1500reader", "--inputDICOM", written / "P1_report.dcm", "--outputMetadata", tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert [
        (
            group["ReferencedSegment"],
            group["TrackingIdentifier"],
            group["Finding"]["CodeMeaning"],
            [(item["quantity"]["CodeMeaning"], item["units"]["CodeValue"]) for item in group["measurementItems"]],
        )
        for group in read["Measurements"]
    ] == [
        (n, name, "Lesion", [("Volume", "mm3"), ("Diameter", "mm"), ("Certainty of Finding", "%")])
        for n, name in ((1, "lesion 1 (3.3 mm)"), (2, "lesion 2 (2.3 mm)"))
    ]
    values = [[float(item["value"]) for item in group["measurementItems"]] for group in read["Measurements"]]
    np.testing.assert_allclose(values, [[18, 3.2516, 70], [6, 2.2545, 90]], atol=1e-4)


@pytest.mark.parametrize("patient", ["P1", "P2"])
def test_dcmqi_finds_the_voxels_where_they_are(
    run: Run, written: Path, tmp_path: Path, patient: str, label: NDArray[np.uint8], oblique: NDArray[Any]
) -> None:
    """Voxels of both lesions, in millimetres: dcmqi crops, and makes a file for each segment."""
    target = tmp_path / "itk"
    target.mkdir()
    run("segimage2itkimage", "--inputDICOM", written / f"{patient}.dcm", "--outputDirectory", target, "-t", "nrrd")
    origin = np.array({"P1": (-3.0, 4.0, 5.0), "P2": (7.0, -8.0, 9.0)}[patient])
    for number in (1, 2):
        found = _places(sitk.ReadImage(str(target / f"{number}.nrrd")))
        indices = np.argwhere(label == number)[:, ::-1]
        expected = origin + (indices * (1.0, 2.0, 3.0)) @ oblique.T
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_segmentation_of_dcmqi_is_read(
    run: Run, labelled: Path, tmp_path: Path, label: NDArray[np.uint8], oblique: NDArray[Any]
) -> None:
    """Made from a cropped NRRD, as Slicer hands it over, of the second patient."""
    found, _ = series_of(sorted(path for path in (tmp_path / "pacs" / "P2").rglob("*") if path.is_file()))
    part = sitk.GetImageFromArray(np.ascontiguousarray(label[1:, 1:]))
    part.SetSpacing((1.0, 2.0, 3.0))
    part.SetDirection(oblique.ravel().tolist())
    part.SetOrigin((np.array([7.0, -8.0, 9.0]) + oblique @ [0.0, 2.0, 3.0]).tolist())
    sitk.WriteImage(part, str(tmp_path / "label.nrrd"))
    lesion = {
        "SegmentAlgorithmType": "MANUAL",
        "SegmentedPropertyCategoryCodeSequence": _code("49755003", "Morphologically Altered Structure"),
        "SegmentedPropertyTypeCodeSequence": _code("52988006", "Lesion"),
    }
    segments = [{"labelID": n, "SegmentLabel": name, **lesion} for n, name in ((1, "met"), (2, "edema"))]
    about = {"SeriesDescription": "reader", "SeriesNumber": "7", "InstanceNumber": "1", "segmentAttributes": [segments]}
    (tmp_path / "about.json").write_text(json.dumps(about))
    slices = ",".join(str(instance.path) for instance in found[0].slices())
    files = ["--inputImageList", tmp_path / "label.nrrd", "--inputDICOMList", slices]
    metadata = ["--inputMetadata", tmp_path / "about.json", "--outputDICOM", tmp_path / "seg.dcm", "--skip"]
    run("itkimage2segimage", *files, *metadata)
    everything = SegmentationVolume(tmp_path / "seg.dcm", found[0]).read().array
    np.testing.assert_array_equal(everything, label != 0)
    chosen = SegmentationVolume(tmp_path / "seg.dcm", found[0], ("edema",)).read().array
    np.testing.assert_array_equal(chosen, label == 2)


def _code(value: str, meaning: str) -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}


def _places(image: sitk.Image) -> Sequence[Sequence[float]]:
    indices = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1]
    return [image.TransformIndexToPhysicalPoint([int(i) for i in index]) for index in indices]
