"""Images of a case that lie otherwise than its label: turned exactly, or interpolated, where options ask for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.dataset_conversion.converters.options import Options
from nnunet_lopsided.dataset_conversion.converters.orientation import (
    FIRST,
    TurnedVolume,
    direction_of,
    orientation_of,
    turning_to,
)
from nnunet_lopsided.dataset_conversion.converters.resampling import (
    INTERPOLATION,
    ResampledVolume,
    inside,
    share_inside,
)
from nnunet_lopsided.dataset_conversion.converters.volumes import Volume
from nnunet_lopsided.images import Geometry, Header, Image, difference

LABEL = "label"


@dataclass(kw_only=True)
class ReadCase:
    """What was read of a case, while it is brought to one orientation and one grid.

    Attributes:
        volumes: its channels.
        headers: of the channels that could be read.
        label_volume: None without a label.
        label: as read; None if there is none or it could not be read.
        changes: what was done, by channel (or ``label``), in words.
    """

    volumes: dict[str, Volume]
    headers: dict[str, Header]
    label_volume: Volume | None
    label: Image | None
    changes: dict[str, str] = field(default_factory=dict)


def reorient(case: ReadCase, options: Options) -> None:
    """Exchange and flip axes so that all images of the case have one orientation; nothing is interpolated."""
    if options.reorient is None or not case.headers:
        return
    first = next(iter(case.headers.values()))
    wanted: NDArray[np.float64]
    if options.reorient == FIRST:
        n = len(first.geometry.spacing_mm)
        wanted = np.array(first.geometry.direction).reshape(n, n)
    else:
        wanted = direction_of(options.reorient)
    for channel, header in case.headers.items():
        if len(header.shape) != len(wanted):  # a flat image has no sides of the patient
            continue
        turning = turning_to(header.geometry, wanted)
        if not turning.changes_nothing:
            case.volumes[channel] = TurnedVolume(case.volumes[channel], turning)
            case.headers[channel] = turning.header(header)
            case.changes[channel] = _turned(header.geometry, case.headers[channel].geometry)
    if case.label is not None and case.label_volume is not None and len(case.label.shape) == len(wanted):
        before = case.label.geometry
        turning = turning_to(before, wanted)
        if not turning.changes_nothing:
            case.label_volume = TurnedVolume(case.label_volume, turning)
            case.label = turning.image(case.label)
            case.changes[LABEL] = _turned(before, case.label.geometry)


def _turned(before: Geometry, after: Geometry) -> str:
    if len(before.spacing_mm) != 3:
        return "axes exchanged or flipped"
    return f"turned from {orientation_of(before)} to {orientation_of(after)}"


def resample_channels(case: ReadCase, target: Geometry | None, problems: list[str]) -> None:
    """Interpolate the channels that lie on another grid than the label, or without one than the first channel.

    Args:
        case: its channels and their headers change.
        target: the geometry that the label is given, where it is not its own.
        problems: a channel that shows nothing of the grid is added.
    """
    if not case.headers:
        return
    first = next(iter(case.headers.values()))
    grid = first if case.label is None else Header(case.label.shape, target or case.label.geometry)
    lesions = None if case.label is None else np.argwhere(case.label.array != 0)
    for channel, header in case.headers.items():
        same_spacing = len(header.shape) == len(grid.shape) and np.allclose(
            header.geometry.spacing_mm, grid.geometry.spacing_mm
        )
        if (same_spacing and difference(header, grid) is None) or len(header.shape) != len(grid.shape):
            continue
        share = share_inside(header, grid)
        if share == 0:
            problems.append(
                f"channel {channel} ({case.volumes[channel].path}) shows no part of what the label covers, so that "
                "--resample-channels has nothing to interpolate"
            )
            continue
        outside = 0 if lesions is None else int((~inside(header, grid, lesions)).sum())
        words = f"resampled ({INTERPOLATION}): {difference(grid, header) or difference(grid, header, 0)}"
        words += f"; {share:.1%} of the grid lies in its field of view" if share < 1 else ""
        words += f"; {outside} labelled voxels lie outside of it" if outside else ""
        case.volumes[channel] = ResampledVolume(case.volumes[channel], grid)
        case.headers[channel] = grid
        case.changes[channel] = f"{case.changes[channel]}; {words}" if channel in case.changes else words


def what_mends(header: Header, expected: Header, label: Header | None) -> str:
    """Which option brings a channel and what it should fit together, in brackets; empty where none does.

    Args:
        header: of the channel.
        expected: what it is compared with.
        label: the label's, if there is one.
    """
    n = len(expected.shape)
    if len(header.shape) != n:
        return ""
    turning = turning_to(header.geometry, np.array(expected.geometry.direction).reshape(n, n))
    if not turning.changes_nothing:
        exact = difference(turning.header(header), expected) is None
        return " (--reorient brings them together)" if exact else " (--reorient and --resample-channels)"
    if label is not None and label.shape == header.shape:
        return " (--fix-geometry label if only the label's header is wrong; --resample-channels if the grids differ)"
    return " (--resample-channels interpolates the channel on the label's grid)"
