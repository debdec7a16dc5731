"""The volumes of a release as they lie on disk: files and stacks of slices, checked before anything trusts them."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Image, read_image
from nnunet_lopsided.nnunet_layout import IMAGE_ENDINGS

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Header:
    """Shape, in array order, and geometry of a volume."""

    shape: tuple[int, ...]
    geometry: Geometry


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
    """One file that holds a whole 2D or 3D image."""

    path: Path

    @property
    def ending(self) -> str:
        """The image ending in lower case, ``.nii.gz`` counted as one."""
        return next((e for e in IMAGE_ENDINGS if self.path.name.lower().endswith(e)), self.path.suffix.lower())

    def header(self) -> Header:
        check_complete(self.path)
        if self.ending not in (".nii", ".nii.gz", ".mhd"):
            image = read_image(self.path)
            return Header(image.array.shape, image.geometry)
        return _header(self.path)

    def read(self) -> Image:
        check_complete(self.path)
        return read_image(self.path)


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
        found: dict[int, Path] = {}
        for file in sorted(self.path.iterdir()):
            if file.name.startswith(".") or file.suffix.lower() != ".png":
                continue
            if not file.stem.isdecimal():
                raise InputError(f"{file}: expected a slice named by its number, such as 12.png")
            if int(file.stem) in found:
                raise InputError(f"{file}: slice {int(file.stem)} is there twice, also as {found[int(file.stem)].name}")
            found[int(file.stem)] = file
        if not found:
            raise InputError(f"{self.path}: no PNG slices")
        missing = sorted(set(range(min(found), max(found) + 1)) - set(found))
        if missing:
            raise InputError(f"{self.path}: slice {missing[0]}.png is missing between {min(found)} and {max(found)}")
        return dict(sorted(found.items()))

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


def check_complete(path: Path) -> None:
    """Refuse a file that lacks voxels. SimpleITK reads the rest as zeros, without a word.

    ``.nii.gz`` is decompressed once for its checksum, ``.nii``, ``.nii.gz`` and ``.mhd`` must hold as many bytes as
    their header announces. Other formats are left to their readers.

    Raises:
        InputError: the file is missing, unreadable, damaged or too short.
    """
    name = path.name.lower()
    try:
        if name.endswith(".nii.gz"):
            start, size = _gunzipped(path)
        elif name.endswith(".nii"):
            with path.open("rb") as file:
                start, size = file.read(_CHUNK), path.stat().st_size
        elif name.endswith(".mhd"):
            _check_raw(path)
            return
        else:
            return
    except FileNotFoundError:
        raise InputError(f"image not found: {path}") from None
    except OSError as error:
        raise InputError(f"cannot read image {path}: {error.strerror or error}") from error
    expected = _announced_size(start)
    if expected is None:
        raise InputError(f"cannot read image {path}: not a NIfTI file")
    if size < expected:
        raise InputError(f"cannot read image {path}: incomplete, expected {expected} bytes of NIfTI, found {size}")


def _gunzipped(path: Path) -> tuple[bytes, int]:
    """First bytes and length of the decompressed file; every member's checksum is checked."""
    start, size = b"", 0
    with path.open("rb") as file:
        stream, data = zlib.decompressobj(31), file.read(_CHUNK)
        if data[:2] != b"\x1f\x8b":
            raise InputError(f"cannot read image {path}: not a gzip file")
        while data:
            try:
                block = stream.decompress(data)
            except zlib.error as error:
                raise InputError(f"cannot read image {path}: broken gzip: {error}") from None
            start, size = start or block, size + len(block)
            data = stream.unused_data if stream.eof else b""
            if stream.eof and data.strip(b"\0"):  # another member follows
                data += file.read(_CHUNK)
                stream = zlib.decompressobj(31)
            else:
                data = b"" if stream.eof else file.read(_CHUNK)
    if not stream.eof:
        raise InputError(f"cannot read image {path}: broken gzip: the file ends too early")
    return start, size


def _announced_size(start: bytes) -> int | None:
    """Bytes that a NIfTI-1 or NIfTI-2 single file must have according to its header; None if it is none."""
    for order in ("<", ">"):
        size = np.frombuffer(start, f"{order}i4", 1)[0] if len(start) >= 4 else 0
        if size == 348 and len(start) >= 348 and start[344:347] == b"n+1":
            dim = np.frombuffer(start, f"{order}i2", 8, 40).astype(np.int64)
            bits = int(np.frombuffer(start, f"{order}i2", 1, 72)[0])
            offset = int(np.frombuffer(start, f"{order}f4", 1, 108)[0])
        elif size == 540 and len(start) >= 540 and start[4:7] == b"n+2":
            dim = np.frombuffer(start, f"{order}i8", 8, 16)
            bits = int(np.frombuffer(start, f"{order}i2", 1, 14)[0])
            offset = int(np.frombuffer(start, f"{order}i8", 1, 168)[0])
        else:
            continue
        n = int(dim[0])
        return offset + math.prod(dim[1 : n + 1].tolist()) * bits // 8 if 1 <= n <= 7 else None
    return None


def _check_raw(path: Path) -> None:
    lines = [line.partition("=") for line in path.read_text("latin-1").splitlines()]
    fields = {key.strip(): value.strip() for key, equals, value in lines if equals}
    data = path.with_name(fields.get("ElementDataFile", ""))
    width = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "FLOAT": 4, "DOUBLE": 8}
    kind = fields.get("ElementType", "").removeprefix("MET_").removeprefix("U")
    if not data.is_file():
        raise InputError(f"cannot read image {path}: its data file {data.name} is missing")
    if kind in width and fields.get("CompressedData", "False").lower() != "true":
        expected = width[kind] * math.prod(int(n) for n in fields.get("DimSize", "0").split())
        if data.stat().st_size < expected:
            found = data.stat().st_size
            raise InputError(f"cannot read image {path}: {data.name} is incomplete, {found} of {expected} bytes")


def _header(path: Path) -> Header:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"cannot read image {path}: {str(error).strip().splitlines()[-1]}") from error
    shape = tuple(reader.GetSize()[::-1])
    if reader.GetNumberOfComponents() != 1 or len(shape) not in (2, 3):
        raise InputError(f"{path}: expected a 2D or 3D image with one value per voxel, found shape {shape}")
    spacing = tuple(reader.GetSpacing()[::-1])
    return Header(shape, Geometry(spacing, tuple(reader.GetOrigin()), tuple(reader.GetDirection())))
