"""Whether an image file is all there: what SimpleITK, and nnU-Net's reader of that name, read as zeros or noise."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.inflating import ENGINES
from nnunet_lopsided.files.nifti import announced_size, nifti_header
from nnunet_lopsided.files.regular import check_regular

_CHUNK = 1 << 20  # bytes read at a time, and more than any NIfTI header


def check_complete(path: Path) -> None:
    """Refuse a file that lacks voxels. SimpleITK reads the rest as zeros, without a word.

    ``.nii.gz`` is decompressed once for its checksum, ``.nii``, ``.nii.gz`` and ``.mhd`` must hold as many bytes as
    their header announces. Other formats are left to their readers.

    Raises:
        InputError: the file is missing, unreadable, damaged or too short.
    """
    name = path.name.lower()
    check_regular(path, "image")
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
    except OSError as error:
        raise InputError(f"cannot read image {path}: {error.strerror or error}") from error
    header = nifti_header(start)
    if header is None:
        raise InputError(f"cannot read image {path}: not a NIfTI file")
    expected = announced_size(header)
    if expected is None:
        raise InputError(f"cannot read image {path}: its NIfTI header is damaged")
    if size < expected:
        raise InputError(f"cannot read image {path}: incomplete, expected {expected} bytes of NIfTI, found {size}")


def _gunzipped(path: Path) -> tuple[bytes, int]:
    """First bytes and length of the decompressed file; every member's checksum is checked."""
    for engine in ENGINES[:-1]:
        with suppress(InputError):
            return _gunzipped_by(engine, path)
    return _gunzipped_by(ENGINES[-1], path)


def _gunzipped_by(engine: ModuleType, path: Path) -> tuple[bytes, int]:
    start, size = b"", 0
    with path.open("rb") as file:
        stream, data = engine.decompressobj(31), file.read(_CHUNK)
        if data[:2] != b"\x1f\x8b":
            raise InputError(f"cannot read image {path}: not a gzip file")
        while data:
            try:
                block = stream.decompress(data)
            except engine.error as error:
                raise InputError(f"cannot read image {path}: broken gzip: {error}") from None
            start, size = start or block, size + len(block)
            data = stream.unused_data if stream.eof else b""
            if stream.eof and data.strip(b"\0"):  # another member follows
                data += file.read(_CHUNK)
                stream = engine.decompressobj(31)
            else:
                data = b"" if stream.eof else file.read(_CHUNK)
    if not stream.eof:
        raise InputError(f"cannot read image {path}: broken gzip: the file ends too early")
    return start, size


def _check_raw(path: Path) -> None:
    lines = [line.partition("=") for line in path.read_text("latin-1").splitlines()]
    fields = {key.strip(): value.strip() for key, equals, value in lines if equals}
    data = path.with_name(fields.get("ElementDataFile", ""))
    width = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "FLOAT": 4, "DOUBLE": 8}
    kind = fields.get("ElementType", "").removeprefix("MET_").removeprefix("U")
    if not data.is_file():
        raise InputError(f"cannot read image {path}: its data file {data.name} is missing")
    if kind in width and fields.get("CompressedData", "False").lower() != "true":
        sizes = fields.get("DimSize", "0").split()
        if not all(size.isdecimal() for size in sizes):
            raise InputError(f"cannot read image {path}: expected whole numbers as DimSize, found {' '.join(sizes)}")
        expected = width[kind] * math.prod(map(int, sizes))
        if data.stat().st_size < expected:
            n_bytes = data.stat().st_size
            raise InputError(f"cannot read image {path}: {data.name} is incomplete, {n_bytes} of {expected} bytes")
