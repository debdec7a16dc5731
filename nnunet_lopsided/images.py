"""Reading and writing label maps and images with their geometry, in the formats of nnU-Net's readers."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.natural import NATURAL_ENDINGS, read_natural
from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.files.nifti import NIFTI_DATA, check_place, nifti_voxels
from nnunet_lopsided.files.regular import check_regular
from nnunet_lopsided.files.tiff import TIFF_ENDINGS, read_tiff, write_tiff_spacing

# From electron microscopes to more than a body: what is beyond is in metres or in other units.
_SMALLEST_MM, _LARGEST_MM = 1e-6, 500.0


class _Placed(Protocol):
    """An image or a reader of SimpleITK."""

    def GetSpacing(self) -> tuple[float, ...]: ...

    def GetOrigin(self) -> tuple[float, ...]: ...

    def GetDirection(self) -> tuple[float, ...]: ...


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
            # Absolutely: files round coordinates to some decimals, wherever in space they are.
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
    """Read one 2D or 3D image with one value per voxel, as nnU-Net's readers do.

    TIFF carries no geometry: as in nnU-Net, a JSON file beside it may hold ``{"spacing": [z, y, x]}`` (CASE.json for
    an image CASE_0000.tif, NAME.json for any other; for nnU-Net's gt_segmentations it is looked for in the raw
    dataset); otherwise the spacing is 1, and a warning says so. It is 1 for PNG and BMP.

    Args:
        path: a file SimpleITK can read (.nii.gz, .nii, .mha, .nrrd), a PNG, BMP or TIFF.
        colour: accept several values per voxel (but in TIFF) and take their mean.

    Returns:
        The image, in array order (z, y, x) or (y, x). Spacings are positive: where the file has a negative one, the
        direction is turned, as SimpleITK does.

    Raises:
        InputError: the file is missing, unreadable, damaged, or not 2D or 3D with one value per voxel.
    """
    path = Path(path)
    check_regular(path, "image")
    check_place(path)
    try:
        array, geometry = _read(path)
    except MemoryError:
        raise InputError(_no_memory(path)) from None
    except RuntimeError as error:
        raise InputError(_reason(path, error)) from error
    except OSError as error:
        raise InputError(f"cannot read image {path}: {error.strerror or error}") from error
    if colour and array.ndim == len(geometry.spacing_mm) + 1:
        array = array.mean(axis=-1, dtype=np.float32)
    if array.ndim == len(geometry.spacing_mm) + 1:
        raise InputError(_several_values(path, array.shape[-1]))
    if array.ndim != len(geometry.spacing_mm) or array.ndim not in (2, 3):
        raise InputError(f"{path}: expected a 2D or 3D image with one value per voxel, found shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected real numbers, found complex ones")
    _check_geometry(geometry, path)
    return Image(array, geometry)


def _read(path: Path) -> tuple[NDArray[np.generic], Geometry]:
    ending = path.suffix.lower()
    if ending in TIFF_ENDINGS:
        array, spacing = read_tiff(path)
        return array, _plain_geometry(spacing)
    if ending in NATURAL_ENDINGS:
        return read_natural(path), _plain_geometry((1.0, 1.0))
    array, itk = _read_with_itk(path)
    return array, _geometry(itk)


def read_header(path: str | Path, colour: bool = False) -> Header:
    """Shape and geometry as :func:`read_image` would find them, without reading the values (TIFF, PNG and BMP: reading
    them).

    Args:
        path: a file :func:`read_image` can read.
        colour: as for :func:`read_image`.

    Raises:
        InputError: the file is missing, its header unreadable, or it is not 2D or 3D with one value per voxel.
    """
    path = Path(path)
    if path.suffix.lower() in (*TIFF_ENDINGS, *NATURAL_ENDINGS):
        image = read_image(path, colour)
        return Header(image.array.shape, image.geometry)
    check_regular(path, "image")
    check_place(path)
    sitk = _simpleitk()
    reader = sitk.ImageFileReader()
    try:
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
    except MemoryError:
        raise InputError(_no_memory(path)) from None
    except RuntimeError as error:
        raise InputError(_reason(path, error)) from error
    if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(f"{path}: expected real numbers, found complex ones")
    shape = tuple(int(n) for n in reader.GetSize()[::-1])
    if reader.GetNumberOfComponents() != 1 and not colour:
        raise InputError(_several_values(path, reader.GetNumberOfComponents()))
    if len(shape) not in (2, 3):
        raise InputError(f"{path}: expected a 2D or 3D image with one value per voxel, found shape {shape}")
    geometry = _geometry(reader)
    _check_geometry(geometry, path)
    return Header(shape, geometry)


def n_components(path: Path) -> int:
    """How many channels nnU-Net reads from one image file: 3 or 4 of a colour image, those of a 4D image, else 1.

    Raises:
        InputError: its header cannot be read.
    """
    check_place(path)
    try:
        if path.suffix.lower() in (".png", ".bmp", ".tif", ".tiff"):
            import PIL.Image

            with PIL.Image.open(path) as picture:
                # A palette of colours is read as these colours.
                return 3 if picture.mode == "P" else len(picture.getbands())
        reader = _simpleitk().ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        return int(reader.GetSize()[3]) if reader.GetDimension() == 4 else 1
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot read image {path}: {str(error).strip().splitlines()[-1]}") from error


def _several_values(path: Path, n: int) -> str:
    return (
        f"{path}: expected a 2D or 3D image with one value per voxel, found {n} values per voxel: colours, or layers "
        "of overlapping segments"
    )


def write_image(path: str | Path, image: Image) -> None:
    """Write an image so that ``path`` either does not exist or is complete.

    The same image always gives the same bytes.

    Args:
        path: target; its ending chooses the format, as in :func:`read_image`. An existing file is replaced.
        image: what to write.

    Raises:
        InputError: the format has no images of so many axes.
        OSError: it could not be written, for example because the disk is full.
    """
    path, ending = Path(path), Path(path).suffix.lower()
    if ending in NATURAL_ENDINGS and image.array.ndim != 2:
        raise InputError(f"cannot write {path}: expected a 2D image for {ending}, found shape {image.array.shape}")
    if ending in TIFF_ENDINGS and image.array.ndim == 3:
        write_tiff_spacing(path, image.geometry.spacing_mm)  # first: no image is ever without it
    with new_file(path) as unfinished:
        if ending in TIFF_ENDINGS:
            import tifffile

            tifffile.imwrite(unfinished, image.array, compression="zlib", photometric="minisblack")
            return
        sitk = _simpleitk()
        itk = sitk.GetImageFromArray(image.array)
        itk.SetSpacing(image.geometry.spacing_mm[::-1])
        itk.SetOrigin(image.geometry.origin_mm)
        itk.SetDirection(image.geometry.direction)
        try:
            sitk.WriteImage(itk, str(unfinished), useCompression=True)
        except RuntimeError as error:
            raise OSError(f"cannot write {path}: {str(error).strip().splitlines()[-1]}") from error
        _check_written(unfinished, path, image.array.nbytes)


def _simpleitk() -> ModuleType:
    """SimpleITK without its warnings, which fill screens; what matters raises, or is checked here."""
    sitk = import_module("SimpleITK")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


def _read_with_itk(path: Path) -> tuple[NDArray[np.generic], _Placed]:
    """Voxels and header; those of NIfTI files are checked."""
    sitk = _simpleitk()
    stored = nifti_voxels(path) if path.name.lower().endswith((".nii", ".nii.gz")) else None
    if stored is None:
        itk = sitk.ReadImage(str(path))
        return sitk.GetArrayFromImage(itk), itk
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return stored, reader


def _geometry(itk: _Placed) -> Geometry:
    """The geometry of an image or a reader of SimpleITK; only a reader can have negative spacings, as in the file."""
    spacing, direction = np.array(itk.GetSpacing()), np.array(itk.GetDirection())
    # A voxel of negative size is one that is mirrored: the same place with the axis turned round.
    signs = np.where(spacing < 0, -1.0, 1.0)
    turned = direction.reshape(len(spacing), -1) * signs if np.any(signs < 0) else direction
    return Geometry(
        tuple((spacing * signs)[::-1].tolist()), tuple(map(float, itk.GetOrigin())), tuple(turned.ravel().tolist())
    )


def _plain_geometry(spacing: tuple[float, ...]) -> Geometry:
    n = len(spacing)
    return Geometry(spacing, (0.0,) * n, tuple(np.eye(n).ravel().tolist()))


def _check_geometry(geometry: Geometry, path: Path) -> None:
    if not all(math.isfinite(size) and size > 0 for size in geometry.spacing_mm):
        raise InputError(f"{path}: expected positive voxel sizes, found {_short(geometry.spacing_mm)}")
    if not all(_SMALLEST_MM <= size <= _LARGEST_MM for size in geometry.spacing_mm):
        raise InputError(
            f"{path}: expected voxel sizes in mm, from {_SMALLEST_MM:g} to {_LARGEST_MM:g}, found "
            f"{_short(geometry.spacing_mm)}; is its unit another one?"
        )
    if not all(map(math.isfinite, (*geometry.origin_mm, *geometry.direction))):
        found = f"{_short(geometry.origin_mm)} and {_short(geometry.direction)}"
        raise InputError(f"{path}: expected a finite origin and direction, found {found}")


def _no_memory(path: Path) -> str:
    return f"cannot read image {path}: not enough memory; work on fewer cases at the same time (-np)"


def _reason(path: Path, error: RuntimeError) -> str:
    text = str(error).strip()
    if "bad_alloc" in text or "allocate memory" in text or "Failed to allocate" in text:
        return _no_memory(path)
    if "orthonormal" in text:
        return (
            f"cannot read image {path}: expected axes at right angles, as SimpleITK and nnU-Net do, "
            "found an affine with shear; resample it, or write an affine without shear"
        )
    if "determinant" in text:
        return f"cannot read image {path}: expected a direction of every axis, found one without (its determinant is 0)"
    if "No such file" in text:  # it is there
        return f"cannot read image {path}: its header is damaged"
    return f"cannot read image {path}: {text.splitlines()[-1] if text else type(error).__name__}"


def _check_written(unfinished: Path, path: Path, n_bytes: int) -> None:
    """Raise OSError where a NIfTI file is too short: on a full disk SimpleITK writes part of it and says nothing."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        with unfinished.open("rb") as file:
            size = file.seek(0, 2)
            if path.suffix.lower() == ".gz" and size > 4:
                file.seek(-4, 2)
                (size,) = struct.unpack("<I", file.read())
        if size != (NIFTI_DATA + n_bytes) % 2**32:
            raise OSError(f"cannot write {path}: the file is not complete; is the disk full?")


def _short(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{v:.6g}" for v in values) + ")"
