"""A folder of DICOM files: a case per study, channels by what their series are called, labels from DICOM SEG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_lopsided.dataset_conversion.converters.bringing import LABEL
from nnunet_lopsided.dataset_conversion.converters.release import Release, SourceCase, files_below
from nnunet_lopsided.dataset_conversion.converters.volumes import Volume
from nnunet_lopsided.dicom.segmentations import SegmentationVolume
from nnunet_lopsided.dicom.series import Series, series_of
from nnunet_lopsided.dicom.studies import Study, is_called, studies_of
from nnunet_lopsided.errors import InputError

_SHOWN = 8


def find(
    source: Path,
    channels: Mapping[str, str],
    label: str = "*",
    segments: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Release:
    """The studies below ``source``.

    Args:
        source: any folder above the files, which may be called and lie as they like.
        channels: by channel, a pattern of its series' description (``*t1*post*``), or the series' number.
        label: the same of the DICOM SEG with the lesions.
        segments: patterns of the labels of its segments that are lesion; empty: all are.
        ignore: patterns of descriptions, numbers or UIDs of series that are not looked at.

    Raises:
        InputError: pydicom is missing, or a series has no patient.
    """
    everything, others = series_of(files_below(source))
    kept = [series for series in everything if not is_called(series, ignore)]
    problems: list[tuple[str, str]] = []
    cases = [_case(study, channels, label, segments, problems) for study in studies_of(kept)]
    shown = f" (found: {', '.join(_descriptions(kept)) or 'no DICOM series'})"
    return Release(
        channels=tuple(channels),
        cases=tuple(cases),
        problems=tuple(problems),
        patterns={
            **{name: f"--channels {name}={pattern!r} fits no series{shown}" for name, pattern in channels.items()},
            LABEL: f"--labels {label!r} fits no DICOM SEG{shown}",
        },
        notes=(f"{others} files are not images of DICOM and are not looked at",) if others else (),
    )


def _descriptions(series: Sequence[Series]) -> list[str]:
    names = sorted({f"{s.modality} {s.description!r}" for s in series})
    return [*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])]


def _case(
    study: Study, channels: Mapping[str, str], label: str, segments: Sequence[str], problems: list[tuple[str, str]]
) -> SourceCase:
    images: dict[str, Series] = {}
    for channel, pattern in channels.items():
        try:
            series = study.one_of(pattern, segmentations=False)
        except InputError as error:
            problems.append((study.case, f"channel {channel}: {error}"))
            series = None
        if series is not None:
            images[channel] = series
    volume: Volume | None = None
    try:
        segmentation = study.one_of(label, segmentations=True)
        if segmentation is not None and images:
            grid = _grid(segmentation, study, next(iter(images.values())))
            volume = SegmentationVolume(segmentation.path, grid, tuple(segments))
    except InputError as error:
        problems.append((study.case, f"label: {error}"))
    return SourceCase(
        name=study.case,
        patient=study.patient,
        source=study.series[0].study,
        images=dict(images),
        label=volume,
        time_point=study.date,
    )


def _grid(segmentation: Series, study: Study, otherwise: Series) -> Series:
    """The series that a segmentation says it was drawn on, or else the first channel."""
    return next((series for series in study.series if series.uid in segmentation.refers_to), otherwise)
