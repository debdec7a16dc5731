"""Reading and writing label maps and images with their geometry, in the formats of nnU-Net's readers."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.new_files import new_file

_TIFF = (".tif", ".tiff")
_NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_EMPTY_GZ = 18  # bytes of an empty .gz file at least
_HEADER_MAX = 1 << 16  # of a NIfTI file with extensions, that we look at
_NIFTI_DATA = 352  # where the voxels begin in a NIfTI-1 file without extensions


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an image lie.

    Attributes:
        spacing_mm: voxel size in array order, (z, y, x) or (y, x).
        origin_mm: physical position of voxel 0, in the file's own axis order (x, y, z).
        direction: direction cosines, row by row, as SimpleITK gives them.
    """

    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: tuple[float, ...]

    def difference(self, other: Geometry, tolerance: float = 1e-3) -> str | None:
        """All in which ``other`` differs from this geometry by more than ``tolerance``, in words; None: in nothing."""
        differing = []
        for name in ("spacing_mm", "origin_mm", "direction"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if len(mine) != len(theirs) or not np.allclose(mine, theirs, rtol=0, atol=tolerance):
                differing.append(f"{name} {_short(mine)} versus {_short(theirs)}")
        return "; ".join(differing) or None


@dataclass(frozen=True)
class Image:
    """An image and its geometry; ``array`` has shape (z, y, x) or (y, x)."""

    array: NDArray[np.generic]
    geometry: Geometry

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.array.shape


@dataclass(frozen=True)
class Header:
    """What an image file says about itself without its values being read; ``shape`` is (z, y, x) or (y, x)."""

    shape: tuple[int, ...]
    geometry: Geometry


def difference(mine: Image | Header, theirs: Image | Header, tolerance: float = 1e-3) -> str | None:
    """How ``theirs`` differs from ``mine`` in shape, or in geometry by more than ``tolerance``, in words; None if not.

    Example:
        >>> place = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
        >>> difference(Header((2, 3), place), Header((2, 4), place))
        'shape (2, 3) versus (2, 4)'
    """
    if mine.shape != theirs.shape:
        return f"shape {mine.shape} versus {theirs.shape}"
    return mine.geometry.difference(theirs.geometry, tolerance)


def read_image(path: str | Path, colour: bool = False) -> Image:
    """Read one 2D or 3D image with one value per voxel.

    TIFF carries no geometry: as in nnU-Net, ``NAME.json`` beside it may hold ``{"spacing": [z, y, x]}``; otherwise the
    spacing is 1, as it is for PNG and BMP.

    Args:
        path: a file SimpleITK can read (.nii.gz, .nii, .mha, .nrrd, .png, .bmp) or a TIFF.
        colour: accept several values per voxel (but in TIFF) and take their mean.

    Returns:
        The image, in array order (z, y, x) or (y, x).

    Raises:
        InputError: the file is missing, unreadable, damaged, or not 2D or 3D with one value per voxel.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"image not found: {path}")
    if path.suffix.lower() in _TIFF:
        return _read_tiff(path)
    try:
        array, itk = _read_nifti_gz(path) or _read_with_itk(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"cannot read image {path}: {reason}") from error
    if colour and array.ndim == itk.GetDimension() + 1:
        array = array.mean(axis=-1, dtype=np.float32)
    if array.ndim != itk.GetDimension() or array.ndim not in (2, 3):
        raise InputError(f"{path}: expected a 2D or 3D image with one value per voxel, found shape {array.shape}")
    return Image(array, Geometry(tuple(itk.GetSpacing()[::-1]), tuple(itk.GetOrigin()), tuple(itk.GetDirection())))


def read_header(path: str | Path, colour: bool = False) -> Header:
    """Shape and geometry as :func:`read_image` would find them, without reading the values (TIFF: reading them).

    Args:
        path: a file :func:`read_image` can read.
        colour: as for :func:`read_image`.

    Raises:
        InputError: the file is missing, its header unreadable, or it is not 2D or 3D with one value per voxel.
    """
    import SimpleITK as sitk

    path = Path(path)
    if not path.is_file():
        raise InputError(f"image not found: {path}")
    if path.suffix.lower() in _TIFF:
        image = _read_tiff(path)
        return Header(image.array.shape, image.geometry)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"cannot read image {path}: {str(error).strip().splitlines()[-1]}") from error
    shape = tuple(int(n) for n in reader.GetSize()[::-1])
    if (reader.GetNumberOfComponents() != 1 and not colour) or len(shape) not in (2, 3):
        raise InputError(f"{path}: expected a 2D or 3D image with one value per voxel, found shape {shape}")
    geometry = Geometry(tuple(reader.GetSpacing()[::-1]), tuple(reader.GetOrigin()), tuple(reader.GetDirection()))
    return Header(shape, geometry)


def write_image(path: str | Path, image: Image) -> None:
    """Write an image so that ``path`` either does not exist or is complete.

    The same image always gives the same bytes.

    Args:
        path: target; its ending chooses the format, as in :func:`read_image`. An existing file is replaced.
        image: what to write.

    Raises:
        OSError: it could not be written, for example because the disk is full.
    """
    import SimpleITK as sitk

    path = Path(path)
    with new_file(path) as unfinished:
        if path.suffix.lower() in _TIFF:
            import tifffile

            tifffile.imwrite(unfinished, image.array, compression="zlib", photometric="minisblack")
        else:
            itk = sitk.GetImageFromArray(image.array)
            itk.SetSpacing(image.geometry.spacing_mm[::-1])
            itk.SetOrigin(image.geometry.origin_mm)
            itk.SetDirection(image.geometry.direction)
            try:
                sitk.WriteImage(itk, str(unfinished), useCompression=True)
            except RuntimeError as error:
                raise OSError(f"cannot write {path}: {str(error).strip().splitlines()[-1]}") from error
            _check_written(unfinished, path, image.array.nbytes)
    if path.suffix.lower() in _TIFF and image.array.ndim == 3:
        with new_file(_spacing_file(path)) as unfinished:
            unfinished.write_text(json.dumps({"spacing": list(image.geometry.spacing_mm)}))


def _read_nifti_gz(path: Path) -> tuple[NDArray[np.generic], Any] | None:
    """Voxels and header of a .nii.gz whose voxels SimpleITK read as they were written; None: it may be something else.

    SimpleITK decompresses twice as fast as Python, but reads what is missing as zeros and NaN as 0, without a word. The
    checksum at the end of the file tells.
    """
    import SimpleITK as sitk

    if not path.name.lower().endswith(".nii.gz") or path.stat().st_size < _EMPTY_GZ:
        return None
    try:
        itk = sitk.ReadImage(str(path))
    except RuntimeError:
        return None
    array = sitk.GetArrayFromImage(itk)
    with path.open("rb") as file:
        start = file.read(_HEADER_MAX)
        file.seek(-8, 2)
        checksum, size = struct.unpack("<2I", file.read(8))
    n_header = (size - array.nbytes) % 2**32
    if not _NIFTI_DATA <= n_header <= _HEADER_MAX:
        return None
    try:
        header = zlib.decompressobj(31).decompress(start, n_header)
    except zlib.error:  # not compressed, whatever its name
        return None
    intact = len(header) == n_header and zlib.crc32(array, zlib.crc32(header)) == checksum
    return (array, itk) if intact else None


def _read_with_itk(path: Path) -> tuple[NDArray[np.generic], Any]:
    """Voxels and header; those of NIfTI files are checked."""
    import SimpleITK as sitk

    stored = _nifti_voxels(path)
    if stored is None:
        itk = sitk.ReadImage(str(path))
        return sitk.GetArrayFromImage(itk), itk
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return stored, reader


def _decompressed(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read image {path}: the compressed file is damaged: {error}") from error


def _nifti_voxels(path: Path) -> NDArray[np.generic] | None:
    """The voxels of a NIfTI-1 file, checked by its checksum and length; None where SimpleITK has to interpret them."""
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        return None
    content = _decompressed(path) if name.endswith(".gz") else path.read_bytes()
    if len(content) < _NIFTI_DATA:
        raise InputError(f"cannot read image {path}: expected a NIfTI file, found {len(content)} bytes")
    order = next((o for o in "<>" if struct.unpack_from(f"{o}i", content)[0] == 348), None)
    if order is None or content[344:348] != b"n+1\0":
        return None
    n_axes, *sizes = struct.unpack_from(f"{order}8h", content, 40)
    (kind,) = struct.unpack_from(f"{order}h", content, 70)
    begin, slope, intercept = struct.unpack_from(f"{order}3f", content, 108)
    scaled = slope not in (0, 1) or (slope and intercept)
    if kind not in _NIFTI_TYPES or scaled or n_axes not in (2, 3) or min(sizes[:n_axes]) < 1:
        return None
    voxel_type, shape = np.dtype(order + _NIFTI_TYPES[kind]), tuple(sizes[:n_axes])[::-1]
    n_bytes = int(np.prod(shape)) * voxel_type.itemsize
    if len(content) < int(begin) + n_bytes:
        raise InputError(
            f"cannot read image {path}: expected {int(begin) + n_bytes} bytes for shape {shape}, found {len(content)}"
        )
    array = np.frombuffer(content, voxel_type, int(np.prod(shape)), int(begin)).reshape(shape)
    return array.astype(voxel_type.newbyteorder("="))  # a copy that may be written to


def _check_written(unfinished: Path, path: Path, n_bytes: int) -> None:
    """SimpleITK writes part of a NIfTI file to a full disk and says nothing."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        with unfinished.open("rb") as file:
            size = file.seek(0, 2)
            if path.suffix.lower() == ".gz" and size > 4:
                file.seek(-4, 2)
                (size,) = struct.unpack("<I", file.read())
        if size != (_NIFTI_DATA + n_bytes) % 2**32:
            raise OSError(f"cannot write {path}: the file is not complete; is the disk full?")


def _read_tiff(path: Path) -> Image:
    import tifffile

    try:
        array = tifffile.imread(path)
    except (tifffile.TiffFileError, ValueError, OSError) as error:
        raise InputError(f"cannot read image {path}: {error}") from error
    if array.ndim not in (2, 3):
        raise InputError(f"{path}: expected a 2D or 3D image with one value per voxel, found shape {array.shape}")
    spacing = (1.0,) * array.ndim
    if array.ndim == 3 and _spacing_file(path).is_file():
        spacing = _read_spacing(_spacing_file(path))
    return Image(array, Geometry(spacing, (0.0,) * array.ndim, tuple(np.eye(array.ndim).ravel().tolist())))


def _read_spacing(path: Path) -> tuple[float, ...]:
    spacing = read_json(path, {"spacing": [float]})["spacing"]
    if len(spacing) != 3:
        raise InputError(f"{path}: spacing: expected 3 numbers, found {len(spacing)}")
    return tuple(map(float, spacing))


def _spacing_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _short(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.6g}" for v in values) + ")"
