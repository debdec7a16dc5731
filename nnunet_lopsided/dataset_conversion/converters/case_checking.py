"""Reading everything of one case of a release, and refusing what cannot be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from nnunet_lopsided.dataset_conversion.converters.bringing import (
    ReadCase,
    reorient,
    resample_channels,
    what_mends,
)
from nnunet_lopsided.dataset_conversion.converters.options import Options
from nnunet_lopsided.dataset_conversion.converters.release import LabelMap, Release, SourceCase
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Header, Image, difference
from nnunet_lopsided.nnunet.lesion_labels import label_lesions

_FEW = 3  # unknown label values, for which a fix can be proposed


@dataclass(frozen=True, kw_only=True)
class CheckedCase:
    """A case that may be written.

    Attributes:
        case: the case.
        label: its label map with the values and the geometry it is written with; None for a test case without one.
        label_is_as_in_source: whether the file of the source holds exactly that.
        n_lesions: the lesions of the label.
        geometry_fix: how the label's own geometry differed, where it was replaced by that of the images.
        changes: what was turned or resampled, by channel (or ``label``), in words.
    """

    case: SourceCase
    label: Image | None
    label_is_as_in_source: bool
    n_lesions: int | None
    geometry_fix: str | None
    changes: Mapping[str, str] = field(default_factory=dict)


def check_case(case: SourceCase, release: Release, options: Options) -> CheckedCase:
    """Read everything of a case.

    Raises:
        InputError: all that is wrong with it, without its name.
    """
    # Collected, not raised one by one: whoever mends a release wants all that is wrong with a case at once.
    problems: list[str] = []
    headers: dict[str, Header] = {}
    for channel, volume in case.images.items():
        try:
            headers[channel] = volume.header()
        except InputError as error:
            problems.append(f"channel {channel}: {error}")
    label, new_array = None, None
    if case.label is not None:
        try:
            label = case.label.read()
            new_array = _label_map(case, release, options).apply(label.array)
        except InputError as error:
            problems.append(
                f"label {case.label.path}: {error}{_known_values(case, label)}" if label else f"label: {error}"
            )
    read = ReadCase(volumes=dict(case.images), headers=headers, label_volume=case.label, label=label)
    reorient(read, options)
    if read.label is not label and read.label is not None and new_array is not None:
        new_array = _label_map(case, release, options).apply(read.label.array)
    label = read.label
    if options.resample_channels:
        first = next(iter(headers.values()), None)
        fixable = options.fix_geometry and label and first and first.shape == label.shape
        resample_channels(read, first.geometry if first and fixable else None, problems)
    case = replace(case, images=read.volumes, label=read.label_volume)
    target, fix = _common_geometry(headers, label, case, fix_geometry=options.fix_geometry, problems=problems)
    if problems:
        raise InputError("; ".join(problems))
    if label is None or new_array is None or target is None:
        return CheckedCase(
            case=case,
            label=None,
            label_is_as_in_source=False,
            n_lesions=None,
            geometry_fix=None,
            changes=read.changes,
        )
    # Where the images' geometry took its place, even a nearly equal one, the label needs a new file.
    same = np.issubdtype(label.array.dtype, np.integer) and target is label.geometry
    new = Image(new_array, target)
    return CheckedCase(
        case=case,
        label=new,
        label_is_as_in_source=bool(same and np.array_equal(new_array, label.array)),
        n_lesions=len(label_lesions(new, release.labels.get("ignore"))),
        geometry_fix=fix,
        changes=read.changes,
    )


def _known_values(case: SourceCase, label: Image | None) -> str:
    """How a few unknown whole values can be read as others, in brackets."""
    known = case.label_map.values
    if known is None or label is None:
        return ""
    unknown = [value for value in np.unique(label.array).tolist() if value not in {0, *known, *case.label_map.fixes}]
    lesion = next((value for value, meaning in known.items() if meaning), 0)
    if not unknown or len(unknown) > _FEW or any(value != int(value) for value in unknown):
        return ""
    fixes = " ".join(f"{case.name}:{int(value)}={lesion}" for value in unknown)
    return f" (look at it, then --fix-label {fixes}, or =0 for background)"


def _label_map(case: SourceCase, release: Release, options: Options) -> LabelMap:
    return case.label_map.with_fix({**release.label_fixes.get(case.name, {}), **options.label_fixes.get(case.name, {})})


def _common_geometry(
    headers: Mapping[str, Header],
    label: Image | None,
    case: SourceCase,
    *,
    fix_geometry: bool,
    problems: list[str],
) -> tuple[Geometry | None, str | None]:
    """The geometry the label is written with, and how its own differed if that was beyond the tolerance."""
    if not headers:
        return None, None
    first_name, first = next(iter(headers.items()))
    expected, whose = first, f"channel {first_name}"
    fix = None
    if label is not None:
        own = Header(label.array.shape, label.geometry)
        fix = difference(first, own) if fix_geometry and first.shape == own.shape else None
        if fix is None:
            expected, whose = own, "the label"
        elif not _point_the_same_way(first.geometry, own.geometry):
            problems.append(
                f"label {case.label.path if case.label else ''}: its axes point elsewhere than those of the images, so "
                f"--fix-geometry label would flip or turn its lesions; --reorient turns the whole image, or bring it "
                f"to the images' orientation first: {fix}"
            )
    for channel, header in headers.items():
        differing = difference(header, expected)
        if differing is None and not _same_spacing(first.geometry, header.geometry):
            differing = f"nnU-Net refuses channels of different spacing, {difference(header, first, 0)}"
        if differing:
            own_header = None if label is None else Header(label.shape, label.geometry)
            mends = what_mends(header, expected, own_header)
            problems.append(f"channel {channel} ({case.images[channel].path}) versus {whose}: {differing}{mends}")
    if label is None:
        return first.geometry, None
    # nnU-Net's integrity check would refuse a label whose spacing is within our tolerance alone.
    close = _same_spacing(first.geometry, expected.geometry)
    return (label.geometry if fix is None and close else first.geometry), fix


def _same_spacing(mine: Geometry, theirs: Geometry) -> bool:
    """As nnU-Net compares spacings: more strictly than we do. One image may be flat and the other not."""
    n_axes = len(mine.spacing_mm)
    return n_axes == len(theirs.spacing_mm) and np.allclose(mine.spacing_mm, theirs.spacing_mm)


def _point_the_same_way(mine: Geometry, theirs: Geometry) -> bool:
    """Whether each axis of one lies within 45 degrees of the same axis of the other, pointing the same way."""
    n = len(mine.spacing_mm)
    axes, others = (np.array(geometry.direction).reshape(n, n).T for geometry in (mine, theirs))
    # Columns of a direction are unit vectors: their product is the cosine of the angle, at 45 degrees the root of 1/2.
    return bool(((axes * others).sum(axis=1) > np.sqrt(0.5)).all())
