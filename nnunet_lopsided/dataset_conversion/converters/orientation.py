"""Images whose axes are exchanged or flipped, brought to one orientation: every voxel stays where it is in the patient.

No value is interpolated and none is lost: an array is transposed and flipped, and its geometry follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.dataset_conversion.converters.volumes import Volume
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Header, Image

FIRST = "first"  # the orientation of a case's first channel
# Where ITK's axes point to, and where they come from.
_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))


@dataclass(frozen=True)
class Turning:
    """Which old axis every new axis is, and whether it is flipped; axes in the order of the file, (x, y, z).

    Attributes:
        axes: of every new axis, the old one.
        flipped: of every new axis, whether it points the other way.

    Example:
        >>> Turning((1, 0), (False, True)).image(
        ...     Image(np.array([[1, 2, 3], [4, 5, 6]]), Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0)))
        ... ).array.tolist()
        [[3, 6], [2, 5], [1, 4]]
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]

    @property
    def changes_nothing(self) -> bool:
        """Whether all axes stay as they are."""
        return self.axes == tuple(range(len(self.axes))) and not any(self.flipped)

    def header(self, header: Header) -> Header:
        """Shape and geometry after it."""
        geometry = header.geometry
        n = len(self.axes)
        old = np.array(geometry.direction).reshape(n, n)
        size, spacing = header.shape[::-1], geometry.spacing_mm[::-1]
        new, origin = old[:, list(self.axes)], np.array(geometry.origin_mm)
        for axis, (source, flipped) in enumerate(zip(self.axes, self.flipped, strict=True)):
            if flipped:
                new[:, axis] *= -1
                origin = origin + old[:, source] * spacing[source] * (size[source] - 1)
        return Header(
            tuple(size[axis] for axis in reversed(self.axes)),
            Geometry(
                tuple(spacing[axis] for axis in reversed(self.axes)),
                tuple(origin.tolist()),
                tuple((new + 0.0).ravel().tolist()),  # no -0.0
            ),
        )

    def image(self, image: Image) -> Image:
        """The image after it; the voxels are a view."""
        turned = image.array.T.transpose(self.axes)
        turned = np.flip(turned, [axis for axis, flipped in enumerate(self.flipped) if flipped])
        return Image(turned.T, self.header(Header(image.shape, image.geometry)).geometry)


def turning_to(geometry: Geometry, direction: NDArray[np.float64]) -> Turning:
    """The turning that brings an image nearest to an orientation.

    Args:
        geometry: the image's.
        direction: the direction cosines wanted, a column for each axis (x, y, z).

    Returns:
        Of all exchanges of axes the one after which they lie closest to the wanted ones; then every axis points less
        than 90 degrees from the wanted one. An oblique image stays oblique.
    """
    n = len(geometry.spacing_mm)
    cosines = direction.T @ np.array(geometry.direction).reshape(n, n)  # of every wanted axis with every one there is
    # The first of equal ones is the one that exchanges the fewest.
    axes = max(permutations(range(n)), key=lambda order: round(sum(abs(cosines[i, order[i]]) for i in range(n)), 6))
    return Turning(axes, tuple(bool(cosines[i, axes[i]] < 0) for i in range(n)))


def direction_of(orientation: str) -> NDArray[np.float64]:
    """The direction cosines of an orientation such as ``RAS``: the first axis points to the patient's right, and so on.

    Raises:
        InputError: it does not name each of the three directions once.

    Example:
        >>> direction_of("LAS").tolist()
        [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    columns = []
    for letter in orientation:
        for axis, (towards, from_) in enumerate(_LETTERS):
            if letter in (towards, from_):
                columns.append(np.eye(3)[axis] * (1.0 if letter == towards else -1.0))
    if len(columns) != 3 or len(orientation) != 3 or np.linalg.matrix_rank(np.array(columns)) < 3:
        raise InputError(f"--reorient must be {FIRST} or three letters as in RAS or LPS, got {orientation!r}")
    return np.column_stack(columns) + 0.0


def orientation_of(geometry: Geometry) -> str:
    """The letters of the orientation that a 3D image is nearest to, as nibabel writes them.

    Example:
        >>> orientation_of(Geometry((1.0,) * 3, (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)))
        'LPS'
    """
    direction = np.array(geometry.direction).reshape(3, 3)
    order = turning_to(geometry, np.eye(3)).axes
    letters = {axis: _LETTERS[place][int(direction[place, axis] < 0)] for place, axis in enumerate(order)}
    return "".join(letters[axis] for axis in range(3))


@dataclass(frozen=True)
class TurnedVolume:
    """A volume that is turned when it is read.

    Attributes:
        volume: as it lies on disk.
        turning: what happens to it.
    """

    volume: Volume
    turning: Turning

    @property
    def path(self) -> Path:
        """The file, for messages."""
        return self.volume.path

    def header(self) -> Header:
        """Shape and geometry after the turning."""
        return self.turning.header(self.volume.header())

    def read(self) -> Image:
        """The turned image."""
        return self.turning.image(self.volume.read())
