"""Synthetic DICOM: MR series written slice by slice with pydicom, as a scanner would, and label maps of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from nnunet_lopsided.commands.dicom import main as export  # noqa: E402
from nnunet_lopsided.dicom.series import series_of  # noqa: E402
from nnunet_lopsided.images import Image, write_image  # noqa: E402

MR = "1.2.840.10008.5.1.4.1.1.4"
# A right-handed rotation by hand: rows of the matrix are orthonormal.
OBLIQUE = np.array([[0.96, -0.28, 0.0], [0.28 * 0.8, 0.96 * 0.8, -0.6], [0.28 * 0.6, 0.96 * 0.6, 0.8]])


class Scanner:
    """Writes series below ``root``; files get names in an order that is not that of the slices."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.n = itertools.count(1)

    def series(
        self,
        patient: str,
        description: str,
        array: NDArray[Any],
        *,
        date: str = "20240101",
        direction: NDArray[Any] | None = None,
        origin: Sequence[float] = (-3.0, 4.0, 5.0),
        spacing: Sequence[float] = (3.0, 2.0, 1.0),
        number: int | None = None,
        uid: str = "",
        change: Callable[[int, Any], bool | None] = lambda i, dataset: None,
    ) -> Path:
        """Write ``array`` (z, y, x); columns of ``direction`` are the directions of x, y and z. ``change`` may alter a
        slice, or leave it out by returning False.
        """
        direction = np.eye(3) if direction is None else direction
        number = next(self.n) if number is None else number
        uid = uid or f"1.2.826.0.1.{number}.{abs(hash((patient, description, date))) % 10**9}"
        folder = self.root / patient / f"{date}_{number}"
        folder.mkdir(parents=True, exist_ok=True)
        for i, plane in enumerate(array):
            dataset = pydicom.Dataset()
            dataset.file_meta = pydicom.dataset.FileMetaDataset()
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MR
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = f"{uid}.{i + 1}"
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = (
                patient,
                "A^B",
                "",
                "O",
            )
            dataset.StudyInstanceUID = f"1.2.826.0.2.{sum(map(ord, patient))}.{date}"
            dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = date, "120000", "1", ""
            dataset.ReferringPhysicianName = ""
            dataset.SeriesInstanceUID, dataset.SeriesNumber, dataset.Modality = uid, number, "MR"
            dataset.SeriesDescription, dataset.FrameOfReferenceUID = description, f"1.2.826.0.3.{date}"
            dataset.PositionReferenceIndicator, dataset.InstanceNumber = "", len(array) - i
            dataset.Rows, dataset.Columns = plane.shape
            dataset.PixelSpacing = [float(spacing[1]), float(spacing[2])]
            dataset.SliceThickness = float(spacing[0])
            dataset.ImageOrientationPatient = [float(x) for x in (*direction[:, 0], *direction[:, 1])]
            place = np.array(origin) + i * spacing[0] * direction[:, 2]
            dataset.ImagePositionPatient = [float(f"{x:.6f}") for x in place]
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
            dataset.BitsAllocated = dataset.BitsStored = 16
            dataset.HighBit, dataset.PixelRepresentation = 15, 1
            dataset.RescaleSlope, dataset.RescaleIntercept = 1, -5
            dataset.PixelData = (plane.astype(np.int16) + 5).tobytes()
            if change(i, dataset) is not False:
                dataset.save_as(folder / f"IM{(i * 7) % 11:03d}_{len(array) - i}", enforce_file_format=True)
        return folder


@pytest.fixture
def scanner(tmp_path: Path) -> Scanner:
    return Scanner(tmp_path / "pacs")


@pytest.fixture
def voxels() -> NDArray[Any]:
    """Values that tell every voxel, of shape (4, 5, 6)."""
    return np.arange(120, dtype=np.int16).reshape(4, 5, 6)


@pytest.fixture
def oblique() -> NDArray[Any]:
    return OBLIQUE


@pytest.fixture
def label(voxels: NDArray[Any]) -> NDArray[np.uint8]:
    array = np.zeros(voxels.shape, np.uint8)
    array[1, 2, 3:6] = 1
    array[3, 4, 0] = 2
    return array


@pytest.fixture
def labelled(
    tmp_path: Path, scanner: Scanner, voxels: NDArray[Any], oblique: NDArray[Any], label: NDArray[np.uint8]
) -> Path:
    """Label maps of P1, with probabilities, and of P2, without."""
    labels = tmp_path / "labels"
    labels.mkdir()
    for patient, origin in (("P1", (-3.0, 4.0, 5.0)), ("P2", (7.0, -8.0, 9.0))):
        series = scanner.series(patient, "t1 post", voxels, direction=oblique, origin=origin)
        found, _ = series_of(sorted(series.iterdir()))
        write_image(labels / f"{patient}.nii.gz", Image(label, found[0].header().geometry))
    lesion = np.full(label.shape, 0.1, np.float32)
    lesion[1, 2, 3:6] = 0.6, 0.7, 0.8
    lesion[3, 4, 0] = 0.9
    np.savez(labels / "P1.npz", probabilities=np.stack([1 - lesion, lesion]))
    return labels


@pytest.fixture
def written(labelled: Path, tmp_path: Path) -> Path:
    """What lopsided-dicom --report makes of them."""
    arguments = ["-i", str(labelled), "--series", str(tmp_path / "pacs"), "-o", str(tmp_path / "out"), "--report"]
    assert export(arguments) == 0
    return tmp_path / "out"
