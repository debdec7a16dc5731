"""TIFF files, and the files beside them that hold the voxel size, as nnU-Net names them."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.new_files import new_file

if TYPE_CHECKING:
    from tifffile import TiffFile

TIFF_ENDINGS = (".tif", ".tiff")
# Compression makes files at most so many times smaller: none, LZW and the two deflates.
_MOST_COMPRESSED = {1: 1, 5: 2800, 8: 1100, 32946: 1100}
_warned: set[Path] = set()
_warning = Lock()


def read_tiff(path: Path) -> tuple[NDArray[np.generic], tuple[float, ...]]:
    """Voxels and spacing of a 2D or 3D TIFF with one value per voxel.

    Raises:
        InputError: the file is damaged, holds something else, or its spacing file does.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it raises too, in many lines
    try:
        with tifffile.TiffFile(path) as file:
            _check_whole(file, path)
            array: NDArray[np.generic] = file.asarray()
    except InputError:
        raise
    except Exception as error:  # of any kind: tifffile's, its codecs' and Python's, which it does not turn into its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cannot read image {path}: {reason}") from error
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(f"{path}: expected a 2D or 3D image with one value per voxel, found shape {array.shape}")
    return array, _spacing(path) if array.ndim == 3 else (1.0, 1.0)


def write_tiff_spacing(path: Path, spacing_mm: Sequence[float]) -> None:
    """Write the voxel size of a 3D TIFF where nnU-Net looks for it: CASE.json for CASE_0000.tif in a folder of images,
    NAME.json for any other NAME.tif.
    """
    stem = path.stem[:-5] if path.parent.name.startswith("images") and _has_channel(path) else path.stem
    with new_file(path.with_name(f"{stem}.json")) as unfinished:
        unfinished.write_text(json.dumps({"spacing": list(spacing_mm)}), encoding="utf-8")


def _check_whole(file: TiffFile, path: Path) -> None:
    """Refuse a TIFF that lacks voxels, or has colours: tifffile reads them as zeros and slices, and says nothing."""
    size = path.stat().st_size
    if not file.series:
        raise InputError(f"cannot read image {path}: it holds no image")
    series = file.series[0]
    pages = [page for page in series.pages if page is not None]
    # tifffile stores a volume of 3 or 4 slices as that many colour planes, if not told otherwise (nnU-Net does not).
    is_volume = file.is_shaped and series.keyframe.planarconfig == 2
    if series.keyframe.samplesperpixel != 1 and not is_volume:
        colours = f"{series.keyframe.samplesperpixel} (colours)"
        raise InputError(f"{path}: expected a 2D or 3D image with one value per voxel, found {colours}")
    for page in pages:
        for offset, n_bytes in zip(page.dataoffsets, page.databytecounts, strict=True):
            if not n_bytes or offset + n_bytes > size:
                raise InputError(f"cannot read image {path}: incomplete, {size} bytes are too few")
    n_bytes = math.prod(series.shape) * (series.dtype.itemsize if series.dtype is not None else 1)
    most = _MOST_COMPRESSED.get(int(series.keyframe.compression))
    is_packed = series.keyframe.bitspersample % 8 != 0
    if most is not None and n_bytes > (8 if is_packed else 1) * most * size:
        raise InputError(f"cannot read image {path}: {size} bytes are too few for shape {series.shape}")


def _spacing(path: Path) -> tuple[float, ...]:
    file = next((candidate for candidate in _spacing_files(path) if candidate.is_file()), None)
    if file is None:
        _warn_once(path)
        return (1.0, 1.0, 1.0)
    spacing = read_json(file, {"spacing": [float]})["spacing"]
    if len(spacing) != 3 or not all(size > 0 for size in spacing):
        raise InputError(f"{file}: spacing: expected 3 positive numbers, found {str(spacing)[:100]}")
    return tuple(map(float, spacing))


def _spacing_files(path: Path) -> list[Path]:
    """Where to look for the voxel size: beside the file; for nnU-Net's copies of labels, in the raw dataset."""
    names = [f"{path.stem}.json", *([f"{path.stem[:-5]}.json"] if _has_channel(path) else [])]
    files = [path.with_name(name) for name in names]
    root = os.environ.get("nnUNet_raw")
    if root and path.parent.name == "gt_segmentations":
        files += [Path(root) / path.parent.parent.name / kind / names[0] for kind in ("labelsTr", "imagesTr")]
    # A link may lead to the dataset that holds the file.
    return files + ([path.resolve().with_name(name) for name in names] if path.is_symlink() else [])


def _has_channel(path: Path) -> bool:
    return re.search(r"._[0-9]{4}$", path.stem) is not None


def _warn_once(path: Path) -> None:
    """Warn, once for each folder, that a voxel size is missing and 1 mm is taken instead, as nnU-Net does."""
    with _warning:
        if path.parent in _warned:
            return
        _warned.add(path.parent)
    names = " or ".join(dict.fromkeys(file.name for file in _spacing_files(path)))
    print(
        f"nnunet-lopsided: warning: {path} has no voxel size ({names} is missing): 1 mm is taken, as nnU-Net does, for "
        "it and others like it in this folder",
        file=sys.stderr,
    )
