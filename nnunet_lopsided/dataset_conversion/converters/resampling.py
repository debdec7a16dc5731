"""Channels on another grid than the label's, brought onto it by interpolation; the label itself is never resampled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_lopsided.dataset_conversion.converters.volumes import Volume
from nnunet_lopsided.images import Geometry, Header, Image

INTERPOLATION = "linear, 32-bit float; outside of the channel its smallest value"
_MOST_POINTS = 100_000


@dataclass(frozen=True)
class ResampledVolume:
    """A volume that is interpolated onto a grid when it is read.

    Attributes:
        volume: as it lies on disk.
        grid: shape and geometry of the result.
    """

    volume: Volume
    grid: Header

    @property
    def path(self) -> Path:
        """The file, for messages."""
        return self.volume.path

    def header(self) -> Header:
        """The grid."""
        return self.grid

    def read(self) -> Image:
        """The interpolated image, as 32-bit floats: linear, as SimpleITK does it, see :data:`INTERPOLATION`."""
        image = self.volume.read()
        reference = sitk.Image([int(n) for n in self.grid.shape[::-1]], sitk.sitkUInt8)
        _place(reference, self.grid.geometry)
        source = sitk.GetImageFromArray(image.array.astype(np.float32))
        _place(source, image.geometry)
        new = sitk.Resample(
            source, reference, sitk.Transform(), sitk.sitkLinear, float(image.array.min()), sitk.sitkFloat32
        )
        return Image(sitk.GetArrayFromImage(new), self.grid.geometry)


def _place(image: sitk.Image, geometry: Geometry) -> None:
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(geometry.direction)


def share_inside(channel: Header, grid: Header) -> float:
    """Which share of a grid's voxels lies in a channel's field of view, 0 to 1; of at most 100,000 of them."""
    step = max(1, int(np.ceil((np.prod(grid.shape) / _MOST_POINTS) ** (1 / len(grid.shape)))))
    voxels = np.stack(np.meshgrid(*(np.arange(0, n, step) for n in grid.shape), indexing="ij"), -1)
    return float(inside(channel, grid, voxels.reshape(-1, len(grid.shape))).mean())


def inside(channel: Header, grid: Header, voxels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which voxels of a grid have their centre in a channel's field of view, its outer voxels' halves included.

    Args:
        channel: its shape and geometry.
        grid: of the voxels.
        voxels: their places, of shape (n, axes), in array order.

    Example:
        >>> narrow = Header((2, 2), Geometry((1.0, 1.0), (1.0, 0.0), (1.0, 0.0, 0.0, 1.0)))
        >>> grid = Header((2, 4), Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0)))
        >>> inside(narrow, grid, np.array([[0, 0], [0, 1], [1, 2], [1, 3]])).tolist()
        [False, True, True, False]
    """
    points = voxels[:, ::-1] @ _matrix(grid.geometry).T + np.array(grid.geometry.origin_mm)
    places = (points - np.array(channel.geometry.origin_mm)) @ np.linalg.inv(_matrix(channel.geometry)).T
    ends = np.array(channel.shape[::-1]) - 0.5
    within: NDArray[np.bool_] = ((places > -0.5 - 1e-6) & (places < ends - 1e-6)).all(axis=1)  # half-open, as in ITK
    return within


def _matrix(geometry: Geometry) -> NDArray[np.float64]:
    """From indices (x, y, z) to millimetres, without the origin."""
    n = len(geometry.spacing_mm)
    return np.asarray(np.array(geometry.direction).reshape(n, n) * np.array(geometry.spacing_mm[::-1]))
