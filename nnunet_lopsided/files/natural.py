"""PNG and BMP files, read as nnU-Net's reader of them does, by Pillow."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError

NATURAL_ENDINGS = (".png", ".bmp")


def read_natural(path: Path) -> NDArray[np.generic]:
    """Values of shape (y, x), or (y, x, colours); those of one bit are 0 and 1.

    Raises:
        InputError: the file is damaged or something else.
    """
    from PIL import Image

    try:
        if path.suffix.lower() == ".png":
            _check_png(path.read_bytes(), path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow takes large images for an attack
            with Image.open(path, formats=("PNG", "BMP")) as picture:
                picture.load()
                array = np.asarray(picture.convert("RGB") if picture.mode in ("P", "PA") else picture)
    except InputError:
        raise
    except Exception as error:  # of any kind: Pillow raises SyntaxError, struct.error and others
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read image {path}: {reason}") from error
    return array.astype(np.uint8) if array.dtype == bool else array.copy()


def _check_png(content: bytes, path: Path) -> None:
    """Refuse a PNG that is cut off or has a wrong checksum, which Pillow does not verify for the voxels."""
    place = 8  # after the signature; then chunks of length, kind, content and checksum follow each other
    while place + 12 <= len(content):
        n_bytes = int.from_bytes(content[place : place + 4], "big")
        end = place + 8 + n_bytes
        if zlib.crc32(content[place + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise InputError(f"cannot read image {path}: broken PNG: wrong checksum")
        if content[place + 4 : place + 8] == b"IEND":
            return
        place = end + 4
    raise InputError(f"cannot read image {path}: not a PNG file, or cut off")
