"""Whether an image file is all there: what SimpleITK, and nnU-Net's reader of that name, read as zeros or noise."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np

from nnunet_lopsided.errors import InputError

_CHUNK = 1 << 20


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
