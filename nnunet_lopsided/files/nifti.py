"""NIfTI files: how much they announce, and their voxels as they were written."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.inflating import gunzip

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

NIFTI_DATA = 352  # where the voxels begin in a NIfTI-1 file without extensions
# What check_place looks at in the first 348 bytes of a NIfTI-1 file.
_HEADER = np.dtype(
    {
        "names": ["sizeof_hdr", "sform_code", "srow"],
        "formats": ["i4", "i2", ("f4", 12)],
        "offsets": [0, 254, 280],
        "itemsize": 348,
    }
)
# Kinds of voxels that SimpleITK reads as they are.
_PLAIN = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def nifti_header(start: bytes) -> Nifti1Header | None:
    """The header of a single file of NIfTI-1 or NIfTI-2, by its first bytes; None if it is none.

    ``check=False``: nibabel would mend what it finds, and SimpleITK, as nnU-Net uses it, does not.
    """
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    for kind, n_bytes, magic in ((Nifti1Header, 348, b"n+1"), (Nifti2Header, 540, b"n+2")):
        if len(start) >= n_bytes and kind.may_contain_header(start[:n_bytes]):  # type: ignore[no-untyped-call]
            header = kind(start[:n_bytes], check=False)  # type: ignore[no-untyped-call]
            if header["magic"].item()[:3] == magic:
                return header
    return None


def announced_size(header: Nifti1Header) -> int | None:
    """Bytes that a file with this header must have; None if the header announces no image."""
    n_axes, *sizes = (int(n) for n in header["dim"])
    offset = float(header["vox_offset"])
    if not 1 <= n_axes <= 7 or min(sizes[:n_axes]) < 1 or not math.isfinite(offset) or offset < 0:
        return None
    return int(offset) + math.prod(sizes[:n_axes]) * int(header["bitpix"]) // 8


def check_place(path: Path) -> None:
    """Refuse a NIfTI-1 file whose sform, which says where its voxels lie, holds NaN or infinity.

    SimpleITK would make a direction of it, after a page of complaints on stderr.

    Raises:
        InputError: it does.
    """
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        return
    try:
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
            start = file.read(_HEADER.itemsize)
    except (OSError, EOFError, zlib.error):  # damaged: for whoever reads the voxels to say
        return
    for dtype in (_HEADER.newbyteorder("<"), _HEADER.newbyteorder(">")):
        header = np.frombuffer(start, dtype)[:1] if len(start) == _HEADER.itemsize else ()
        for size, code, rows in header:
            if size == _HEADER.itemsize and code > 0 and not np.isfinite(rows).all():
                raise InputError(f"{path}: expected finite numbers in the sform of its NIfTI header, found {rows}")


def nifti_voxels(path: Path) -> NDArray[np.generic] | None:
    """The voxels of a NIfTI file, checked by its checksum and length; None where SimpleITK has to interpret them.

    Raises:
        InputError: it is damaged, or too short.
    """
    content = _decompressed(path) if path.name.lower().endswith(".gz") else np.frombuffer(path.read_bytes(), np.uint8)
    header = nifti_header(content[:540].tobytes())
    if header is None:
        if len(content) < NIFTI_DATA:
            raise InputError(f"cannot read image {path}: expected a NIfTI file, found {len(content)} bytes")
        return None
    expected = announced_size(header)
    if expected is None:
        raise InputError(f"cannot read image {path}: its NIfTI header is damaged")
    shape = tuple(int(n) for n in header["dim"][1 : int(header["dim"][0]) + 1])[::-1]
    if len(content) < expected:
        raise InputError(f"cannot read image {path}: expected {expected} bytes for shape {shape}, found {len(content)}")
    voxel_type = _voxel_type(header)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # Slope 0 means 1, and SimpleITK adds the intercept even then.
    if voxel_type is None or slope not in (0, 1) or intercept != 0 or len(shape) not in (2, 3):
        return None
    array = np.frombuffer(content, voxel_type, math.prod(shape), int(header["vox_offset"])).reshape(shape)
    # Callers may write to it: a copy where the bytes are not its own already.
    return np.require(array.astype(voxel_type.newbyteorder("="), copy=False), requirements=["W", "A"])


def _voxel_type(header: Nifti1Header) -> np.dtype[np.generic] | None:
    from nibabel.spatialimages import HeaderDataError

    try:
        voxel_type = np.dtype(header.get_data_dtype())  # type: ignore[no-untyped-call]
    except (HeaderDataError, KeyError):
        return None
    if voxel_type.str[1:] not in _PLAIN or voxel_type.itemsize * 8 != int(header["bitpix"]):
        return None
    return voxel_type


def _decompressed(path: Path) -> NDArray[np.uint8]:
    try:
        return gunzip(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read image {path}: the compressed file is damaged: {error}") from error
