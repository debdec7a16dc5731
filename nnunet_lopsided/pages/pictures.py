"""Slices of images with outlines, as self-contained pictures of a page."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.images import Geometry

Voxel = TypeVar("Voxel", bound=np.generic)
Kind = Literal["missed", "false positive", "candidate"]
# Half the side of a picture, unless the finding needs more; and the side in pixels beyond which images are shrunk.
_HALF_MM = 22.0
_MAX_PIXELS = 160
# Where the axes of LPS coordinates grow, and the opposite; and the least cosine of an axis that goes by their names.
_AXES = (("L", "R"), ("P", "A"), ("S", "I"))
_ALIGNED = 0.87


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One slice of an image around a finding, ready to be shown.

    Attributes:
        kind: ``missed`` or ``false positive``; ``candidate`` of an audit.
        title: the case.
        caption: what the finding is, plain text.
        png: the slice, 8-bit grey.
        shape: of the shown part in voxels, (h, w); outlines are drawn in these.
        spacing_mm: of the slice, (y, x).
        reference: outline of all lesions in it, as SVG path data.
        candidate: outline of all candidates in it.
        edges: what lies at the left, right, top and bottom: ``R L A P`` ..., or the array's axes.
    """

    kind: Kind
    title: str
    caption: str
    png: bytes
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    reference: str
    candidate: str
    edges: tuple[str, str, str, str] = ("", "", "", "")

    @property
    def aspect_ratio(self) -> str:
        """Width over height in mm: voxels need not be square."""
        return f"{self.shape[1] * self.spacing_mm[1]:g}/{self.shape[0] * self.spacing_mm[0]:g}"

    @property
    def base64(self) -> str:
        """The slice for an address that holds it."""
        return b64encode(self.png).decode()

    @property
    def outlines(self) -> list[tuple[str, str]]:
        """What is outlined, and its path; the reference is drawn first."""
        both = ("reference", self.reference), ("candidate", self.candidate)
        return [(kind, path) for kind, path in both if path]

    @property
    def letters(self) -> list[tuple[str, str]]:
        """The sides of the picture that have a letter, and the letter."""
        sides = zip(("left", "right", "top", "bottom"), self.edges, strict=True)
        return [(side, letter) for side, letter in sides if letter]


def finite(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """The image with the lowest of its values in place of NaN and infinity."""
    known = np.isfinite(image)
    return image if known.all() else np.where(known, image, image[known].min() if known.any() else 0)


def nearest_voxel(
    voxels: NDArray[np.integer], centroid: Sequence[float] | NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.int64]:
    """The voxel of a component that is nearest to its centroid: a ring's centroid lies outside of it.

    Args:
        voxels: flat indices.
        centroid: mean index along each axis.
        shape: of the volume.
    """
    places: NDArray[np.int64] = np.stack(np.unravel_index(voxels, shape), axis=1).astype(np.int64)
    voxel: NDArray[np.int64] = places[int(np.square(places - np.asarray(centroid)).sum(axis=1).argmin())]
    return voxel


def window(image: NDArray[np.generic]) -> tuple[float, float]:
    """Grey values shown as black and white."""
    # A few voxels are much darker or brighter than all others; as black and white they would leave these one grey.
    low, high = np.percentile(cast("NDArray[np.floating]", image), (0.5, 99.8))
    # An image of one value would be divided by 0.
    return float(low), max(float(high), float(low) + 1e-6)


@dataclass(frozen=True)
class Slice:
    """What of a volume is shown around a place: one slice, cut to a square, turned as radiologists read it.

    Attributes:
        geometry: of the volume.
        centre: the place, in voxels; its element ``axis`` chooses the slice.
        box: first (inclusive) and last (exclusive) index along each axis of what must fit.
        axis: of the array, across which the slice lies; without meaning in 2D.
    """

    geometry: Geometry
    centre: NDArray[np.integer]
    box: NDArray[np.int64]
    axis: int = 0

    @property
    def _axes(self) -> tuple[int, int]:
        """The array's axes that are rows and columns."""
        rest = [a for a in range(len(self.centre)) if len(self.centre) == 2 or a != self.axis]
        return rest[0], rest[1]

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Size in mm of a pixel of the slice along rows and columns."""
        rows, columns = self._axes
        return self.geometry.spacing_mm[rows], self.geometry.spacing_mm[columns]

    @property
    def edges(self) -> tuple[str, str, str, str]:
        """What lies at the left, right, top and bottom."""
        return orientation(self.geometry.direction, self.axis)[0]

    def of(self, volume: NDArray[Voxel]) -> NDArray[Voxel]:
        """The whole slice of a volume; a 2D image as it is."""
        return volume if volume.ndim == 2 else np.asarray(volume.take(int(self.centre[self.axis]), axis=self.axis))

    def around(self, volume: NDArray[Voxel], beyond: object) -> NDArray[Voxel]:
        """The part of a volume that is shown; ``beyond`` is the value outside of it."""
        return self.around_slice(self.of(volume), beyond)

    def picture(
        self,
        image: NDArray[np.generic],
        limits: tuple[float, float],
        *,
        kind: Kind,
        title: str,
        caption: str,
        reference: str,
        candidate: str,
    ) -> Picture:
        """The shown part of an image with its outlines.

        Args:
            image: the volume.
            limits: grey values shown as black and white.
            kind: what is found there.
            title: the case or channel.
            caption: plain text.
            reference: outline of what is annotated in that part, as SVG path data.
            candidate: outline of what is predicted.
        """
        part = self.around(image, image.min())
        return Picture(
            kind=kind,
            title=title,
            caption=caption,
            png=grey_png(part, limits),
            shape=(part.shape[0], part.shape[1]),
            spacing_mm=self.spacing_mm,
            reference=reference,
            candidate=candidate,
            edges=self.edges,
        )

    def around_slice(self, whole: NDArray[Voxel], beyond: object) -> NDArray[Voxel]:
        """The part of a whole slice that is shown."""
        axes = list(self._axes)
        half_mm = max([_HALF_MM, *(0.75 * np.ptp(self.box[axes], axis=1) * self.spacing_mm)])
        half = ceil(half_mm / self.spacing_mm[0]), ceil(half_mm / self.spacing_mm[1])
        middle = int(self.centre[axes[0]]), int(self.centre[axes[1]])
        return around(whole, middle, half, beyond)[orientation(self.geometry.direction, self.axis)[1]]


def orientation(direction: Sequence[float], axis: int = 0) -> tuple[tuple[str, str, str, str], tuple[slice, slice]]:
    """How a slice is turned to be read as radiologists do.

    The patient's right is at the left of the picture, or else the front; the front, or else the head, is at the top.

    Args:
        direction: cosines, row by row, as in ``Geometry``.
        axis: of the array, at one index of which the slice lies.

    Returns:
        What lies at the left, right, top and bottom of the picture, and the slices that flip rows and columns. Where
        an axis of the array is more than about 30 degrees off the patient's, and in 2D, nothing is flipped, and the
        right and the bottom are named ``+x`` and ``+y``, where the array's axes grow.

    Example:
        >>> orientation((-1, 0, 0, 0, 1, 0, 0, 0, 1))  # columns grow to the patient's right
        (('R', 'L', 'A', 'P'), (slice(None, None, 1), slice(None, None, -1)))
    """
    # The file's axes go x, y, z, the array's the other way round; columns of the slice first.
    in_slice = [i for i in range(3) if i != 2 - axis]
    cosines = np.reshape(direction, (3, 3)).T[in_slice] if len(direction) == 9 else np.zeros((2, 3))
    named = [_AXES[int(np.abs(row).argmax())] for row in cosines]
    if (np.abs(cosines).max(axis=1) < _ALIGNED).any() or named[0] == named[1]:
        return ("", "+x", "", "+y"), (slice(None), slice(None))
    edges, flips = [], []
    for row, (towards, away), last in zip(cosines, named, ("LPS", "PIL"), strict=True):
        grows = row[np.abs(row).argmax()] > 0
        end, start = (towards, away) if towards in last else (away, towards)
        edges += [start, end]
        flips.append(slice(None, None, 1 if grows == (end == towards) else -1))
    return (edges[0], edges[1], edges[2], edges[3]), (flips[1], flips[0])


def around(array: NDArray[Voxel], centre: tuple[int, int], half: tuple[int, int], beyond: object) -> NDArray[Voxel]:
    """The part of a slice around a pixel, the pixel in its middle; ``beyond`` is the value outside of the slice."""
    part = np.full((2 * half[0] + 1, 2 * half[1] + 1), beyond, array.dtype)
    source, target = [], []
    for middle, reach, size in zip(centre, half, array.shape, strict=True):
        low, high = max(0, middle - reach), min(size, middle + reach + 1)
        source.append(slice(low, high))
        target.append(slice(low - middle + reach, high - middle + reach))
    part[tuple(target)] = array[tuple(source)]
    return part


def grey_png(part: NDArray[np.generic], limits: tuple[float, float]) -> bytes:
    from PIL import Image

    low, high = limits
    grey = np.clip((part.astype(np.float64) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    picture = Image.fromarray(grey)
    if max(picture.size) > _MAX_PIXELS:
        picture.thumbnail((_MAX_PIXELS, _MAX_PIXELS))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()
