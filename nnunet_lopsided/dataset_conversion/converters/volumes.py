"""The volumes of a release as they lie on disk: files and stacks of slices, checked before anything trusts them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.completeness import check_complete
from nnunet_lopsided.images import Geometry, Header, Image, read_header, read_image
from nnunet_lopsided.nnunet.paths import IMAGE_ENDINGS


class Volume(Protocol):
    """An image or label map that can be read; ``path`` names it in messages."""

    @property
    def path(self) -> Path: ...

    def header(self) -> Header:
        """Shape and geometry; raises InputError if the volume is missing, broken or incomplete."""

    def read(self) -> Image:
        """The voxels; raises InputError as :meth:`header` does."""


@dataclass(frozen=True)
class VolumeFile:
    """One file that holds a whole 2D or 3D image.

    Attributes:
        path: the file.
        colour: whether it may hold several values per voxel; then its mean is read, and the file itself is linked.
    """

    path: Path
    colour: bool = False

    @property
    def ending(self) -> str:
        """The image ending in lower case, ``.nii.gz`` counted as one."""
        return next((e for e in IMAGE_ENDINGS if self.path.name.lower().endswith(e)), self.path.suffix.lower())

    def header(self) -> Header:
        self._check()
        # Only of these it is known from the header whether the file is complete; others show it when they are read.
        if self.ending not in (".nii", ".nii.gz", ".mhd"):
            image = read_image(self.path, self.colour)
            return Header(image.array.shape, image.geometry)
        return read_header(self.path, self.colour)

    def read(self) -> Image:
        self._check()
        return read_image(self.path, self.colour)

    def _check(self) -> None:
        if self.path.exists() and not self.path.is_file():  # a pipe would be waited for without end
            raise InputError(f"expected a file, found something else: {self.path}")
        check_complete(self.path)


@dataclass(frozen=True)
class PngStack:
    """A folder of slices ``N.png``, in the order of their numbers; the spacing (z, y, x) is not in the files."""

    path: Path
    spacing_mm: tuple[float, float, float]

    def slices(self) -> dict[int, Path]:
        """The files by number, ascending.

        Raises:
            InputError: there are none, a name is no number, or a number is missing or there twice.
        """
        files: dict[int, Path] = {}
        for file in sorted(self.path.iterdir()):
            if file.name.startswith(".") or file.suffix.lower() != ".png":
                continue
            # By number, since as text slice 10 comes before slice 2.
            if not file.stem.isdecimal():
                raise InputError(f"{file}: expected a slice named by its number, such as 12.png")
            if int(file.stem) in files:
                raise InputError(f"{file}: slice {int(file.stem)} is there twice, also as {files[int(file.stem)].name}")
            files[int(file.stem)] = file
        if not files:
            raise InputError(f"{self.path}: no PNG slices")
        missing = sorted(set(range(min(files), max(files) + 1)) - set(files))
        if missing:
            raise InputError(f"{self.path}: slice {missing[0]}.png is missing between {min(files)} and {max(files)}")
        return dict(sorted(files.items()))

    def header(self) -> Header:
        image = self.read()
        return Header(image.array.shape, image.geometry)

    def read(self) -> Image:
        slices = [read_image(file).array for file in self.slices().values()]
        shapes = sorted({array.shape for array in slices})
        if len(shapes) > 1:
            raise InputError(f"{self.path}: expected slices of one shape, found {shapes[0]} and {shapes[1]}")
        identity = tuple(np.eye(3).ravel().tolist())
        return Image(np.stack(slices), Geometry(self.spacing_mm, (0.0, 0.0, 0.0), identity))
