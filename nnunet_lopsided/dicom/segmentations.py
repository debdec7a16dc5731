"""Label maps as DICOM SEG: written for the series they belong to, and read on its grid."""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.dicom.series import Series
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.images import Header, Image, difference

if TYPE_CHECKING:
    from pydicom import Dataset

# SNOMED CT: a lesion, as a morphologically abnormal structure.
CATEGORY = ("49755003", "SCT", "Morphologically Altered Structure")
LESION = ("52988006", "SCT", "Lesion")
# What has made a file, as highdicom asks for it.
EQUIPMENT = {
    "manufacturer": "nnunet-lopsided",
    "manufacturer_model_name": "nnunet-lopsided",
    "software_versions": __version__,
    "device_serial_number": "0",
}
# From a name, so that the same label map of the same series has the same UIDs.
_NAMESPACE = uuid.UUID("8f3f7d8e-2b5c-5f0c-9d2e-6f2b8a1c4e10")


@dataclass(frozen=True)
class SegmentationVolume:
    """A DICOM SEG as a label map on the grid of a series: 1 where any of the chosen segments is.

    Attributes:
        path: of the SEG.
        series: whose grid it lies on.
        segments: patterns of segment labels, upper and lower case being the same; empty: all.
    """

    path: Path
    series: Series
    segments: tuple[str, ...] = ()

    def header(self) -> Header:
        """The grid of the series."""
        return self.series.header()

    def read(self) -> Image:
        """The label map.

        Raises:
            InputError: it cannot be read, has none of the segments, or does not lie on the grid of the series.
        """
        highdicom = highdicom_module()
        header = self.header()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                segmentation = highdicom.seg.segread(str(self.path))
                labels = {
                    n: segmentation.get_segment_description(n).segment_label for n in segmentation.segment_numbers
                }
                chosen = [n for n, label in labels.items() if _is_chosen(label, self.segments)]
                if not chosen:
                    raise InputError(
                        f"{self.path}: no segment is called {' or '.join(self.segments)}, found "
                        f"{', '.join(labels.values())} (--segments)"
                    )
                volume = segmentation.get_volume(
                    segment_numbers=chosen, combine_segments=False, rescale_fractional=False
                )
                grid = highdicom.VolumeGeometry(affine_of(header), header.shape, "PATIENT")
                array = np.asarray(volume.match_geometry(grid, tol=1e-3).array)
        except InputError:
            raise
        except Exception as error:  # highdicom and pydicom raise many kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{self.path}: cannot be read on the grid of {self.series.name}: {reason}") from error
        return Image(np.asarray((array > 0).any(axis=-1), dtype=np.uint8), header.geometry)


def _is_chosen(label: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(label.lower(), pattern.lower()) for pattern in patterns)


def affine_of(header: Header) -> NDArray[np.float64]:
    """From indices (z, y, x) to millimetres in the patient, (x, y, z) as in DICOM; shape (4, 4).

    Example:
        >>> from nnunet_lopsided.images import Geometry
        >>> grid = Geometry((3.0, 2.0, 1.0), (7.0, 8.0, 9.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
        >>> (affine_of(Header((1, 1, 1), grid)) @ [1, 1, 1, 1]).tolist()
        [8.0, 10.0, 12.0, 1.0]
    """
    geometry = header.geometry
    affine = np.eye(4)
    columns = np.array(geometry.direction).reshape(3, 3) * np.array(geometry.spacing_mm[::-1])
    affine[:3, :3] = columns[:, ::-1]
    affine[:3, 3] = geometry.origin_mm
    return affine


def write_segmentation(
    path: Path, label_map: Image, series: Series, segments: Mapping[int, str], description: str
) -> None:
    """Write a DICOM SEG; each value of the label map is a binary segment with a tracking UID of its own.

    Args:
        path: where; an existing file is replaced.
        label_map: on the grid of the series.
        series: the images that it belongs to.
        segments: what each value of the label map is called; values are 1, 2, ... in order.
        description: the SeriesDescription.

    Raises:
        InputError: highdicom is missing, the label map lies on another grid or holds other values, or is empty: DICOM
            has no segmentation without a segment.
    """
    highdicom = highdicom_module()
    import pydicom

    differing = difference(series.header(), label_map)
    if differing:
        raise InputError(f"{path}: the label map does not lie on the grid of {series.name}: {differing}")
    found = set(np.unique(label_map.array).tolist()) - {0}
    if not segments or found - segments.keys() or sorted(segments) != list(range(1, len(segments) + 1)):
        raise InputError(f"{path}: expected segments 1 to {len(segments)} in the label map, found {sorted(found)}")
    slices = [pydicom.dcmread(instance.path, stop_before_pixels=True) for instance in series.slices()]
    key = f"{series.uid} {description} {hash_of(label_map)}"
    codes = [highdicom.sr.CodedConcept(*code) for code in (CATEGORY, LESION)]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="nnunet-lopsided",
        version=__version__,
        family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
    )
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label[:64],
            segmented_property_category=codes[0],
            segmented_property_type=codes[1],
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=uid_of(f"segment {key} {number}"),
            tracking_id=label[:64],
        )
        for number, label in sorted(segments.items())
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = highdicom.seg.Segmentation(
            source_images=slices,
            pixel_array=label_map.array.astype(np.uint16 if len(segments) > 255 else np.uint8),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=descriptions,
            series_instance_uid=uid_of(f"series {key}"),
            series_number=9000,
            sop_instance_uid=uid_of(f"instance {key}"),
            instance_number=1,
            **EQUIPMENT,
            series_description=description[:64],
        )
    if "ContentCreatorName" not in written:  # DICOM wants it there, be it empty; highdicom 0.28 does not write it
        written.ContentCreatorName = ""
    save(written, path)


def save(dataset: Dataset, path: Path) -> None:
    """Write a new DICOM file, which appears when it is complete; its texts, names of patients too, are in UTF-8."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    with new_file(path) as unfinished:
        dataset.save_as(str(unfinished))


def uid_of(name: str) -> str:
    """A DICOM UID made from a name: the same name gives the same UID."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def hash_of(label_map: Image) -> str:
    """A name for the voxels of a label map: their SHA-256."""
    return hashlib.sha256(np.ascontiguousarray(label_map.array, dtype=np.uint16).tobytes()).hexdigest()


def highdicom_module() -> ModuleType:
    """The library; it is asked for here alone, so that its lack has one message.

    Raises:
        InputError: it is not installed.
    """
    try:
        import highdicom
    except ImportError:
        raise InputError("DICOM needs pydicom and highdicom: pip install 'nnunet-lopsided[dicom]'") from None
    module: ModuleType = highdicom
    return module
