"""Inflating ``.gz`` and ``.npz``: by Intel's ISA-L, in half the time or less, or by zlib where there is no ISA-L.

What ISA-L does not take is given to zlib, which either takes it or says what is wrong: messages do not depend on what
is installed.
"""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress
from types import ModuleType

try:
    from isal import isal_zlib
except ImportError:  # no wheel for this machine
    ENGINES: tuple[ModuleType, ...] = (zlib,)
else:
    # Modules with zlib's functions, the faster first; the last speaks of what is damaged.
    ENGINES = (isal_zlib, zlib)


def gunzip(content: bytes) -> bytes:
    """The content of a gzip file of one or several members; every checksum and length is compared.

    Raises:
        OSError, EOFError, zlib.error: as :func:`gzip.decompress`.

    Example:
        >>> gunzip(gzip.compress(b"a") + gzip.compress(b"b"))
        b'ab'
    """
    for engine in ENGINES[:-1]:
        inflater = engine.decompressobj(31)
        with suppress(engine.error):
            inflated: bytes = inflater.decompress(content)
            # One member and nothing after it; more is for gzip, as what is damaged is.
            if inflater.eof and not inflater.unused_data:
                return inflated
    return gzip.decompress(content)
