"""What was measured of the segments of a DICOM SEG, as a DICOM structured report.

The report is a Comprehensive 3D SR after TID 1500 "Measurement Report", with a group of TID 1411 "Volumetric ROI
Measurements and Qualitative Evaluations" for each segment (DICOM PS3.16, annex A).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from nnunet_lopsided import __version__
from nnunet_lopsided.dicom.segmentations import CATEGORY, EQUIPMENT, LESION, highdicom_module, save, uid_of
from nnunet_lopsided.dicom.series import Series
from nnunet_lopsided.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

_Code = tuple[str, str, str]
# LOINC, of context group 100; SNOMED CT's "imaging procedure" where the modality has no code there.
_PROCEDURES: dict[str, _Code] = {
    "CT": ("25045-6", "LN", "CT unspecified body region"),
    "MR": ("25056-3", "LN", "MRI unspecified body region"),
    "PT": ("44136-0", "LN", "PET unspecified body region"),
}
_PROCEDURE: _Code = ("363679005", "SCT", "Imaging procedure")
# Name, unit and how it is measured.
_VOLUME: tuple[_Code, _Code] = (("118565006", "SCT", "Volume"), ("mm3", "UCUM", "cubic millimeter"))
_OF_VOXELS: _Code = ("126030", "DCM", "Sum of segmented voxel volumes")
_DIAMETER: tuple[_Code, _Code] = (("81827009", "SCT", "Diameter"), ("mm", "UCUM", "mm"))
# DICOM has no code for it: a private one, which every reader shows by its meaning.
_SCHEME = "99LOPSIDED"
_OF_SPHERE: _Code = ("EQUIVALENT_SPHERE", _SCHEME, "Diameter of the sphere of equal volume")
# Decimals of a measurement: more would be those of single precision.
_DECIMALS = 4
# 0 to 100, as PS3.16 defines it.
_CERTAINTY: tuple[_Code, _Code] = (("111012", "DCM", "Certainty of Finding"), ("%", "UCUM", "Percent"))
_MEAN: _Code = ("373098007", "SCT", "Mean")


@dataclass(frozen=True, kw_only=True)
class ReportedLesion:
    """What a report says of a segment.

    Attributes:
        volume_mm3: of its voxels.
        diameter_mm: of the sphere of equal volume.
        mean_probability: that its voxels are lesion, within [0, 1]; None: not known.
    """

    volume_mm3: float
    diameter_mm: float
    mean_probability: float | None


def write_report(
    path: Path, segmentation: Path, series: Series, lesions: Sequence[ReportedLesion], description: str
) -> None:
    """Write a structured report on the segments of a DICOM SEG.

    Each segment is a finding "Lesion" with the segment's tracking identifier and tracking UID, a reference to the
    segment and to the images it was drawn on, volume, diameter and, where it is known, 100 times the mean probability
    as "Certainty of Finding".

    Args:
        path: where; an existing file is replaced.
        segmentation: the SEG, as :func:`~nnunet_lopsided.dicom.segmentations.write_segmentation` writes it.
        series: the images that it belongs to.
        lesions: for each of its segments, in their order.
        description: the SeriesDescription.

    Raises:
        InputError: highdicom is missing, or there is not one lesion for each segment.
    """
    highdicom = highdicom_module()
    import pydicom

    slices = [pydicom.dcmread(instance.path, stop_before_pixels=True) for instance in series.slices()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = highdicom.seg.segread(str(segmentation))
        if len(lesions) != len(drawn.SegmentSequence):
            raise InputError(
                f"{path}: expected measurements of {len(drawn.SegmentSequence)} segments, found {len(lesions)}"
            )
        key = f"{drawn.SOPInstanceUID} {lesions}"
        content = highdicom.sr.MeasurementReport(
            observation_context=_observer(highdicom),
            procedure_reported=highdicom.sr.CodedConcept(*_PROCEDURES.get(series.modality, _PROCEDURE)),
            imaging_measurements=[_group(highdicom, drawn, number, lesion) for number, lesion in enumerate(lesions, 1)],
            referenced_images=slices,
        )
        written = highdicom.sr.Comprehensive3DSR(
            evidence=[drawn, *slices],
            content=content[0],
            series_instance_uid=uid_of(f"report series {key}"),
            series_number=9001,
            sop_instance_uid=uid_of(f"report {key}"),
            instance_number=1,
            **EQUIPMENT,
            is_complete=True,
            coding_schemes=[
                highdicom.coding_schemes.CodingSchemeIdentificationItem(
                    _SCHEME, name="nnunet-lopsided", responsible_organization="nnunet-lopsided"
                )
            ],
            series_description=description[:64],
        )
    save(written, path)


def _observer(highdicom: ModuleType) -> object:
    device = highdicom.sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of(f"device nnunet-lopsided {__version__}"),
        name="nnunet-lopsided",
        manufacturer_name="nnunet-lopsided",
        model_name="nnunet-lopsided",
    )
    context = highdicom.sr.ObserverContext(
        observer_type=highdicom.sr.CodedConcept("121007", "DCM", "Device"), observer_identifying_attributes=device
    )
    return highdicom.sr.ObservationContext(observer_device_context=context)


def _group(highdicom: ModuleType, drawn: Dataset, number: int, lesion: ReportedLesion) -> object:
    """The measurements of a segment."""
    sr = highdicom.sr
    segment = drawn.SegmentSequence[number - 1]

    def measurement(what: tuple[_Code, _Code], value: float, **how: _Code) -> object:
        name, unit = (sr.CodedConcept(*code) for code in what)
        coded = {key: sr.CodedConcept(*code) for key, code in how.items()}
        return sr.Measurement(name=name, value=round(value, _DECIMALS), unit=unit, **coded)

    measurements = [
        measurement(_VOLUME, lesion.volume_mm3, method=_OF_VOXELS),
        measurement(_DIAMETER, lesion.diameter_mm, method=_OF_SPHERE),
    ]
    if lesion.mean_probability is not None:
        measurements.append(measurement(_CERTAINTY, 100 * lesion.mean_probability, derivation=_MEAN))
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
        # Not from_segmentation(): highdicom 0.28 looks for what a SEG of one segment has in another place.
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=drawn.SOPClassUID,
            sop_instance_uid=drawn.SOPInstanceUID,
            segment_number=number,
            source_series=sr.SourceSeriesForSegmentation(drawn.ReferencedSeriesSequence[0].SeriesInstanceUID),
        ),
        finding_type=sr.CodedConcept(*LESION),
        finding_category=sr.CodedConcept(*CATEGORY),
        algorithm_id=sr.AlgorithmIdentification(name="nnunet-lopsided", version=__version__),
        measurements=measurements,
    )
