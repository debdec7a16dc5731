"""Inflating ``.gz`` and ``.npz``: at once by libdeflate, in pieces by Intel's ISA-L, by zlib where there is neither.

libdeflate takes half of zlib's time or less, but all of the data and room for all of the result; imagecodecs, which
nnU-Net needs, brings it. What one library does not take is given to the next, at last to zlib, which either takes it
or says what is wrong: messages do not depend on what is installed.
"""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

try:
    from isal import isal_zlib
except ImportError:  # no wheel for this machine
    ENGINES: tuple[ModuleType, ...] = (zlib,)
else:
    # Modules with zlib's functions, the faster first; the last speaks of what is damaged.
    ENGINES = (isal_zlib, zlib)

_GZIP_BYTES = 18  # of the shortest gzip file: 10 of its header, 8 of checksum and length
_MOST_TIMES = 1032  # no deflated byte becomes more


def libdeflate() -> ModuleType | None:
    """The module with libdeflate's functions; None where there is none."""
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs if imagecodecs.DEFLATE.available else None


def inflate_at_once(packed: NDArray[np.uint8], n_bytes: int, checksum: int) -> NDArray[np.uint8] | None:
    """Deflated data, without a header, whose length and CRC-32 are known.

    Args:
        packed: the data.
        n_bytes: how many bytes they become.
        checksum: CRC-32 of these.

    Returns:
        The inflated bytes, compared with both; None where libdeflate is missing or finds anything wrong.

    Example:
        >>> deflate = zlib.compressobj(wbits=-15)
        >>> packed = np.frombuffer(deflate.compress(b"abcabc") + deflate.flush(), np.uint8)
        >>> inflate_at_once(packed, 6, zlib.crc32(b"abcabc")).tobytes()
        b'abcabc'
        >>> inflate_at_once(packed, 6, 1) is None
        True
    """
    library = libdeflate()
    # A length that is a lie must not cost the memory it asks for.
    if library is None or not 0 < n_bytes <= _MOST_TIMES * len(packed):
        return None
    inflated = np.empty(n_bytes, np.uint8)
    with suppress(library.DeflateError):
        n_inflated = len(library.deflate_decode(packed, raw=True, out=inflated))
        if n_inflated == n_bytes and library.deflate_crc32(inflated) == checksum:
            return inflated
    return None


def gunzip(content: bytes) -> NDArray[np.uint8]:
    """The content of a gzip file of one or several members; every checksum and length is compared.

    Raises:
        OSError, EOFError, zlib.error: as :func:`gzip.decompress`.

    Example:
        >>> gunzip(gzip.compress(b"a") + gzip.compress(b"b")).tobytes()
        b'ab'
    """
    at_once = _gunzip_at_once(content)
    if at_once is not None:
        return at_once
    for engine in ENGINES[:-1]:
        inflater = engine.decompressobj(31)
        with suppress(engine.error):
            inflated: bytes = inflater.decompress(content)
            # One member and nothing after it; more is for gzip, as what is damaged is.
            if inflater.eof and not inflater.unused_data:
                return np.frombuffer(inflated, np.uint8)
    return np.frombuffer(gzip.decompress(content), np.uint8)


def _gunzip_at_once(content: bytes) -> NDArray[np.uint8] | None:
    """The content of a gzip file of one member, without anything after it; None where libdeflate does not tell."""
    library = libdeflate()
    if library is None or len(content) < _GZIP_BYTES or content[:2] != b"\x1f\x8b":
        return None
    trailer = content[-8:]
    n_bytes = int.from_bytes(trailer[4:], "little")
    # libdeflate stops after the first member, whose data its checksum and length follow. So there is but one member if
    # what it was compared with occurs nowhere before the end.
    if not 0 < n_bytes <= _MOST_TIMES * len(content) or content.find(trailer) != len(content) - 8:
        return None
    inflated = np.empty(n_bytes, np.uint8)
    with suppress(library.DeflateError):
        n_inflated = len(library.gzip_decode(content, out=inflated))
        checksum = library.deflate_crc32(inflated).to_bytes(4, "little")
        if n_inflated == n_bytes and checksum == trailer[:4]:
            return inflated
    return None
