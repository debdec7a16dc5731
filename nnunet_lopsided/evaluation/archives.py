"""Probability arrays on disk: .npy, and .npz archives read channel by channel.

nnU-Net's archives hold every channel of a network; an evaluation needs one. numpy inflates them all by zlib, copied in
small pieces. So archives in numpy's usual form (deflated, C order) are read here: at once, which is the fastest, or
where that would take much memory a channel at a time; all others by numpy.
"""

from __future__ import annotations

import math
import struct
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import IO, cast

import numpy as np
from numpy.lib import format as numpy_format
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.inflating import ENGINES, inflate_at_once

ARRAY_KEYS = ("probabilities", "softmax")  # of nnU-Net v2 and v1
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,  # what numpy raises where a header's brackets do not close
    zipfile.BadZipFile,
    zlib.error,
)
_LOCAL_HEADER_BYTES = 30  # of a zip archive's member, before its name
_PIECE_BYTES = 1 << 18
_AT_ONCE_BYTES = 1 << 28  # most that an archive inflated at once may hold: six channels of 150 x 256 x 256 float32
# numpy parses headers by ast.literal_eval, which fails at random in threads of Python 3.11 ("SystemError: AST
# constructor recursion depth mismatch": the depth is counted once for all threads). So nothing here calls numpy.load.
_ONE_HEADER_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class ArrayHeader:
    """What an array says about itself before its values.

    Attributes:
        shape: its shape.
        dtype: its type.
        fortran_order: whether the first axis varies fastest on disk.
        n_bytes: length of the header itself.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran_order: bool
    n_bytes: int


def array_header(path: Path) -> ArrayHeader:
    """The header of the array in a .npy file, or of ``probabilities`` (or ``softmax``) in a .npz archive.

    Raises:
        InputError: the file cannot be read or holds no such array.
    """
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                return _header(file)
        with zipfile.ZipFile(path) as archive, archive.open(_member(path, archive)) as member:
            return _header(member)
    except InputError:
        raise
    except UNREADABLE as error:
        raise _cannot_read(path, error) from error


def read_array(path: Path) -> NDArray[np.floating]:
    """The whole array, of which :func:`array_header` tells shape and type; objects are never unpickled.

    Raises:
        InputError: the file cannot be read or holds no such array.
    """
    try:
        if path.suffix == ".npy":
            with path.open("rb") as file:
                header = _header(file)
                _refuse_objects(path, header)
                values = np.fromfile(file, header.dtype, math.prod(header.shape))
        else:
            with zipfile.ZipFile(path) as archive, archive.open(_member(path, archive)) as member:
                header = _header(member)
                _refuse_objects(path, header)
                values = np.frombuffer(member.read(), header.dtype)
        return cast("NDArray[np.floating]", values.reshape(header.shape, order="F" if header.fortran_order else "C"))
    except InputError:
        raise
    except UNREADABLE as error:
        raise _cannot_read(path, error) from error


def read_channels(path: Path) -> Iterator[NDArray[np.floating]]:
    """The array along its first axis; of a large archive one channel is in memory at a time, if the file allows it.

    All of the archive is read and its checksum compared, however few channels are kept. The channels of a small one
    are parts of the same memory: :func:`alone` frees that of the others.

    Raises:
        InputError: the file cannot be read or holds no such array.
    """
    header = array_header(path)
    if path.suffix == ".npy" or header.fortran_order or header.dtype.hasobject:
        yield from read_array(path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(_member(path, archive))
            # Bit 0 of the flags says that it is encrypted, which zipfile refuses in words of its own.
            deflated = info.compress_type == zipfile.ZIP_DEFLATED and not info.flag_bits & 1
            if deflated:
                yield from _inflated_channels(path, info, header)
    except InputError:
        raise
    except UNREADABLE as error:
        raise _cannot_read(path, error) from error
    if not deflated:
        yield from read_array(path)


def _inflated_channels(path: Path, info: zipfile.ZipInfo, header: ArrayHeader) -> Iterator[NDArray[np.floating]]:
    """The channels by the faster library; if it stumbles, those that are left by the other, which says why."""
    at_once = _at_once(path, info, header)
    if at_once is not None:
        yield from at_once
        return
    n_channels = 0
    for engine in ENGINES[:-1]:
        try:
            for channel in _channels_by(engine, path, info, header):
                yield channel
                n_channels += 1
            return
        except UNREADABLE:
            pass
    yield from islice(_channels_by(ENGINES[-1], path, info, header), n_channels, None)


def _at_once(path: Path, info: zipfile.ZipInfo, header: ArrayHeader) -> NDArray[np.floating] | None:
    """All channels of an archive that is small and sound; None of another."""
    n_bytes = header.n_bytes + math.prod(header.shape) * header.dtype.itemsize
    if n_bytes != info.file_size or max(n_bytes, info.compress_size) > _AT_ONCE_BYTES:
        return None
    packed = np.empty(info.compress_size, np.uint8)
    with path.open("rb") as file:
        _seek_data(file, info)
        if file.readinto(packed.data) != info.compress_size:
            return None
    inflated = inflate_at_once(packed, n_bytes, info.CRC)
    if inflated is None:
        return None
    return cast("NDArray[np.floating]", inflated[header.n_bytes :].view(header.dtype).reshape(header.shape))


def alone(channel: NDArray[np.floating]) -> NDArray[np.floating]:
    """The channel, copied if it is less than half of the array that it is a part of, so that the rest can be freed."""
    whole = channel.base
    return channel.copy() if isinstance(whole, np.ndarray) and whole.nbytes > 2.5 * channel.nbytes else channel


def _channels_by(
    engine: ModuleType, path: Path, info: zipfile.ZipInfo, header: ArrayHeader
) -> Iterator[NDArray[np.floating]]:
    shape = header.shape[1:]
    with path.open("rb") as file:
        inflater = _Inflater(file, info, engine)
        inflater.take(header.n_bytes)  # known already, but part of the checksum
        for _ in range(header.shape[0]):
            channel = inflater.take(math.prod(shape) * header.dtype.itemsize).view(header.dtype).reshape(shape)
            yield cast("NDArray[np.floating]", channel)
        inflater.check()


class _Inflater:
    """The inflated bytes of one member of an archive, in pieces small enough to stay in the processor's cache."""

    def __init__(self, file: IO[bytes], info: zipfile.ZipInfo, engine: ModuleType) -> None:
        _seek_data(file, info)
        self._file, self._info, self._left = file, info, info.compress_size
        self._crc32, self._inflate = engine.crc32, engine.decompressobj(-zlib.MAX_WBITS)
        self._packed, self._checksum = b"", 0

    def take(self, n_bytes: int) -> NDArray[np.uint8]:
        """The next bytes."""
        taken, n = np.empty(n_bytes, np.uint8), 0
        while n < n_bytes:
            if not self._packed:
                self._packed = self._file.read(min(_PIECE_BYTES, self._left))
                self._left -= len(self._packed)
            at_end = not self._packed
            piece = self._inflate.decompress(self._packed, min(_PIECE_BYTES, n_bytes - n))
            # After the end of the deflated data what is left is never consumed: waiting for more would take forever.
            if not piece and (at_end or self._inflate.eof):
                raise EOFError(f"{self._info.filename} ends early")
            self._packed = self._inflate.unconsumed_tail
            self._checksum = self._crc32(piece, self._checksum)
            taken[n : n + len(piece)] = np.frombuffer(piece, np.uint8)
            n += len(piece)
        return taken

    def check(self) -> None:
        """Compare the checksum of all that was taken."""
        if self._checksum != self._info.CRC:
            raise zipfile.BadZipFile(f"bad CRC-32 of {self._info.filename}")


def _seek_data(file: IO[bytes], info: zipfile.ZipInfo) -> None:
    """To where the deflated data of a member begin."""
    file.seek(info.header_offset)
    # The lengths of this place: the extra field of an archive's directory may be of another length.
    local = file.read(_LOCAL_HEADER_BYTES)
    file.seek(sum(struct.unpack("<HH", local[26:30])), 1)  # name and extra field


def _member(path: Path, archive: zipfile.ZipFile) -> str:
    names = archive.namelist()
    for key in ARRAY_KEYS:
        if f"{key}.npy" in names:
            return f"{key}.npy"
    arrays = ", ".join(name.removesuffix(".npy") for name in names) or "nothing"
    raise InputError(f"expected an array 'probabilities' (or 'softmax'), found {arrays} in {path}")


def _header(file: IO[bytes]) -> ArrayHeader:
    version = numpy_format.read_magic(file)  # type: ignore[no-untyped-call]
    read = numpy_format.read_array_header_1_0 if version == (1, 0) else numpy_format.read_array_header_2_0
    with _ONE_HEADER_AT_A_TIME:
        shape, fortran_order, dtype = read(file)  # type: ignore[no-untyped-call]
    return ArrayHeader(shape, dtype, fortran_order, file.tell())


def _refuse_objects(path: Path, header: ArrayHeader) -> None:
    if header.dtype.hasobject:
        raise InputError(f"expected an array of numbers, found objects, which are never unpickled, in {path}")


def _cannot_read(path: Path, error: Exception) -> InputError:
    return InputError(f"cannot read {path}: {error or type(error).__name__}")
