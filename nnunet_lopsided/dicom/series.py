"""Series of DICOM slices: which there are below a folder, and each as an image with its geometry."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Header, Image

if TYPE_CHECKING:
    from pydicom import Dataset

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
_PLACE_MM = 0.01  # how far a slice may lie beside the line of the others
_GAP_SHARE = 0.02  # by how much distances between slices may differ, of the distance
_COSINE = 1e-3
_TAGS = (
    "PatientID", "StudyInstanceUID", "StudyDate", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality",
    "SOPClassUID", "SOPInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows",
    "Columns", "NumberOfFrames", "ReferencedSeriesSequence",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One file.

    Attributes:
        path: where it lies.
        uid: its SOP instance UID.
        position_mm: of the centre of its first pixel, (x, y, z); None: it has none.
        orientation: direction cosines of a row and of a column, six numbers.
        pixel_mm: distance of rows, and of columns.
        shape: rows and columns.
    """

    path: Path
    uid: str
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...]
    pixel_mm: tuple[float, ...]
    shape: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Files of one series.

    Attributes:
        uid: its UID.
        patient: the PatientID.
        study: the UID of its study.
        date: of the study, YYYYMMDD or empty.
        number: the SeriesNumber, or empty.
        description: the SeriesDescription, or empty.
        modality: such as MR, CT or SEG.
        is_segmentation: whether it is a DICOM SEG.
        instances: its files, in any order.
        refers_to: the UIDs of the series that a DICOM SEG was drawn on.
    """

    uid: str
    patient: str
    study: str
    date: str
    number: str
    description: str
    modality: str
    is_segmentation: bool
    instances: tuple[Instance, ...]
    refers_to: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """One of its files, which names it in messages."""
        return self.instances[0].path

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"series {self.number or '?'} {self.description!r} ({len(self.instances)} files in {self.path.parent})"

    def slices(self) -> tuple[Instance, ...]:
        """Its files in the order of their places along the normal of the slices.

        Raises:
            InputError: they are no stack of equal slices at equal distances: one is missing or there twice, they lie
                askew, differ in size or orientation, or have no place.
        """
        first = self.instances[0]
        for instance in self.instances:
            if instance.position_mm is None or len(instance.orientation) != 6 or len(instance.pixel_mm) != 2:
                raise InputError(
                    f"{instance.path}: expected a slice with position, orientation and pixel spacing, found none; "
                    "multi-frame files must be converted to single slices or NIfTI first (dcm2niix)"
                )
            if (
                instance.shape != first.shape
                or not np.allclose(instance.orientation, first.orientation, atol=_COSINE)
                or not np.allclose(instance.pixel_mm, first.pixel_mm, atol=_PLACE_MM)
            ):
                raise InputError(f"{self.name}: slices differ in size or orientation: {first.path} and {instance.path}")
        normal = _normal(first)
        ordered = sorted(self.instances, key=lambda instance: float(np.dot(instance.position_mm or (), normal)))
        _check_distances(self, ordered, normal)
        return tuple(ordered)

    def header(self) -> Header:
        """Shape (z, y, x) and geometry; raises as :meth:`slices`."""
        ordered = self.slices()
        first, last = ordered[0], ordered[-1]
        normal = _normal(first)
        assert first.position_mm is not None
        assert last.position_mm is not None
        way = np.subtract(last.position_mm, first.position_mm)
        gap = float(np.dot(way, normal)) / (len(ordered) - 1)
        row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
        direction = np.column_stack([row, column, normal])
        return Header(
            (len(ordered), *first.shape),
            Geometry(
                (gap, float(first.pixel_mm[0]), float(first.pixel_mm[1])),
                tuple(float(x) for x in first.position_mm),
                tuple(direction.ravel().tolist()),
            ),
        )

    def read(self) -> Image:
        """The voxels, with slope and intercept applied, by SimpleITK; raises as :meth:`slices`."""
        import SimpleITK as sitk

        header = self.header()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(instance.path) for instance in self.slices()])
        try:
            array = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:
            raise InputError(f"{self.name}: cannot be read: {str(error).strip().splitlines()[-1]}") from error
        if array.shape != header.shape:
            raise InputError(f"{self.name}: expected one value per voxel, found shape {array.shape}")
        return Image(array.astype(np.float32) if array.dtype == np.float64 else array, header.geometry)


def _normal(instance: Instance) -> NDArray[np.float64]:
    normal: NDArray[np.float64] = np.cross(instance.orientation[:3], instance.orientation[3:]).astype(np.float64)
    return normal


def _check_distances(series: Series, ordered: Sequence[Instance], normal: NDArray[np.float64]) -> None:
    if len(ordered) < 2:
        raise InputError(f"{series.name}: a single slice is no volume")
    places = np.array([instance.position_mm for instance in ordered])
    steps = np.diff(places, axis=0)
    gaps = steps @ normal
    usual = float(np.median(gaps))
    for i, gap in enumerate(gaps):
        pair = f"{ordered[i].path.name} and {ordered[i + 1].path.name}"
        if gap < _PLACE_MM:
            raise InputError(f"{series.name}: two slices in one place, {pair}: several images in one series?")
        if abs(gap - usual) > max(_GAP_SHARE * usual, _PLACE_MM):
            raise InputError(f"{series.name}: slices {pair} lie {gap:.3g} mm apart, others {usual:.3g}: one is missing")
    askew = np.linalg.norm(steps - gaps[:, None] * normal, axis=1).max()
    if askew > max(_GAP_SHARE * usual, _PLACE_MM):
        raise InputError(f"{series.name}: slices are shifted against each other by {askew:.3g} mm: a tilted gantry?")


def series_of(paths: Iterable[Path]) -> tuple[list[Series], int]:
    """The series that files belong to.

    Args:
        paths: files of any kind.

    Returns:
        Series in the order of patient, date, number and UID; how many files are not of DICOM.

    Raises:
        InputError: pydicom is not installed.
    """
    pydicom = _pydicom()
    found: dict[str, list[tuple[Dataset, Path]]] = {}
    others = 0
    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of values that break a rule of DICOM and are not used here
                dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        except Exception:  # pydicom raises many kinds on what is no DICOM
            others += 1
            continue
        uid = str(dataset.get("SeriesInstanceUID", ""))
        if not uid or "SOPClassUID" not in dataset or ("Rows" not in dataset):
            others += 1  # a DICOMDIR, a report, a presentation state
            continue
        found.setdefault(uid, []).append((dataset, path))
    series = [_series(uid, files) for uid, files in found.items()]
    return sorted(series, key=lambda s: (s.patient, s.date, s.number.zfill(6), s.uid)), others


def _series(uid: str, files: Sequence[tuple[Dataset, Path]]) -> Series:
    first = files[0][0]
    return Series(
        uid=uid,
        patient=_text(first, "PatientID"),
        study=_text(first, "StudyInstanceUID"),
        date=_text(first, "StudyDate"),
        number=_text(first, "SeriesNumber"),
        description=_text(first, "SeriesDescription"),
        modality=_text(first, "Modality"),
        is_segmentation=_text(first, "SOPClassUID") == SEGMENTATION_STORAGE,
        instances=tuple(_instance(dataset, path) for dataset, path in files),
        refers_to=tuple(str(item.SeriesInstanceUID) for item in first.get("ReferencedSeriesSequence") or ()),
    )


def _instance(dataset: Dataset, path: Path) -> Instance:
    position = _numbers(dataset, "ImagePositionPatient")
    return Instance(
        path=path,
        uid=_text(dataset, "SOPInstanceUID"),
        position_mm=position if len(position) == 3 and not dataset.get("NumberOfFrames") else None,
        orientation=_numbers(dataset, "ImageOrientationPatient"),
        pixel_mm=_numbers(dataset, "PixelSpacing"),
        shape=(int(dataset.Rows), int(dataset.Columns)),
    )


def _text(dataset: Dataset, name: str) -> str:
    value = dataset.get(name)
    return "" if value is None else str(value).strip()


def _numbers(dataset: Dataset, name: str) -> tuple[float, ...]:
    value = dataset.get(name)
    return () if value is None else tuple(float(x) for x in value)


def _pydicom() -> ModuleType:
    try:
        import pydicom
    except ImportError:
        raise InputError("DICOM needs pydicom and highdicom: pip install 'nnunet-lopsided[dicom]'") from None
    return pydicom
