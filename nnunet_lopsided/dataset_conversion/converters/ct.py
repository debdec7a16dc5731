"""CT volumes as Shirokikh et al. 2020 gave them to their networks: clipped, and cropped or masked to one organ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_lopsided.dataset_conversion.converters.volumes import Volume, VolumeFile
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Header, Image, read_image

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Clipped:
    """A CT with values limited to ``low`` to ``high`` HU; outside ``mask``, if there is one, it is ``low``."""

    ct: VolumeFile
    low: int
    high: int
    mask: VolumeFile | None = None

    @property
    def path(self) -> Path:
        return self.ct.path

    def header(self) -> Header:
        header = self.ct.header()
        if self.mask is not None:
            _same_shape(header, self.mask.header(), self.mask.path)
        return header

    def read(self) -> Image:
        image = self.ct.read()
        # NaN becomes what is outside of the body: no whole number stands for it, and clipping leaves it as it is.
        array = np.clip(np.nan_to_num(image.array, nan=self.low), self.low, self.high).astype(np.int16)
        if self.mask is not None:
            mask = self.mask.read().array
            _same_shape(Header(array.shape, image.geometry), Header(mask.shape, image.geometry), self.mask.path)
            array[mask == 0] = self.low
        return Image(array, image.geometry)


@dataclass(frozen=True)
class Cropped:
    """A volume within the bounding box of another one's nonzero voxels and a margin in voxels."""

    volume: Volume
    organ: VolumeFile
    margin: int

    @property
    def path(self) -> Path:
        return self.volume.path

    def header(self) -> Header:
        header = self.volume.header()
        box = self._box(header)
        shape = tuple(s.stop - s.start for s in box)
        return Header(shape, _moved(header.geometry, box))

    def read(self) -> Image:
        image = self.volume.read()
        box = self._box(Header(image.array.shape, image.geometry))
        # A copy, so that the whole volume is not kept in memory for the part.
        return Image(np.ascontiguousarray(image.array[box]), _moved(image.geometry, box))

    def _box(self, header: Header) -> Box:
        self.organ.header()  # refuses a file that is cut off, which read_image would fill with zeros
        organ = read_image(self.organ.path).array
        _same_shape(header, Header(organ.shape, header.geometry), self.organ.path)
        if not organ.any():
            raise InputError(f"{self.organ.path}: nothing to crop to, the segmentation is empty")
        sides = [np.flatnonzero(organ.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        return tuple(
            slice(max(int(where[0]) - self.margin, 0), min(int(where[-1]) + 1 + self.margin, size))
            for where, size in zip(sides, organ.shape, strict=True)
        )


def _same_shape(header: Header, other: Header, path: Path) -> None:
    if header.shape != other.shape:
        raise InputError(f"{path}: expected shape {header.shape}, found {other.shape}")


def _moved(geometry: Geometry, box: Box) -> Geometry:
    """The geometry of what is cut out of a volume."""
    # Slices are in array order (z, y, x), origin and direction in that of the file (x, y, z).
    start_mm = np.array([s.start for s in box[::-1]]) * np.array(geometry.spacing_mm[::-1])
    origin = np.array(geometry.origin_mm) + np.array(geometry.direction).reshape(3, 3) @ start_mm
    return Geometry(geometry.spacing_mm, tuple(origin.tolist()), geometry.direction)
