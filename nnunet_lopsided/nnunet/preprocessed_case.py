"""The files of one preprocessed case: its segmentation ``CASE_seg.b2nd`` and properties ``CASE.pkl``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError

Array = NDArray[np.generic]


@dataclass(frozen=True)
class CleanSegmentation:
    """What nnU-Net's preprocessing left of one case in one folder.

    Attributes:
        array: the content of ``CASE_seg.b2nd``, shape (1, z, y, x); -1 outside the nonzero mask. As it was read it is
            a blosc2 array, which is decompressed by ``[:]``.
        properties: the content of ``CASE.pkl``.
    """

    array: Array
    properties: dict[str, Any]


def read_clean(folder: Path, case: str) -> CleanSegmentation:
    """What nnU-Net preprocessed of a case. The pickle is nnU-Net's own file of the user's own dataset.

    Raises:
        InputError: files are missing, of another format, or broken.
    """
    import blosc2
    from batchgenerators.utilities.file_and_folder_operations import load_pickle

    for name in (f"{case}.b2nd", f"{case}_seg.b2nd", f"{case}.pkl"):
        if not (folder / name).is_file():
            if (folder / f"{case}.npz").is_file() or (folder / f"{case}.npy").is_file():
                raise InputError(
                    f"{folder}: holds .npz or .npy files of an older nnU-Net, expected .b2nd; run nnUNetv2_preprocess "
                    "on the source again"
                )
            raise InputError(f"case {case}: expected {folder / name}, found nothing; preprocess the source again")
    try:
        blosc2.set_nthreads(1)
        image = blosc2.open(urlpath=str(folder / f"{case}.b2nd"), mode="r")
        array = blosc2.open(urlpath=str(folder / f"{case}_seg.b2nd"), mode="r", dparams={"nthreads": 1})
        clean = CleanSegmentation(array, load_pickle(str(folder / f"{case}.pkl")))
    except Exception as error:  # broken files fail in many ways
        raise InputError(f"case {case}: cannot read its files in {folder}: {error}") from error
    if image.shape[1:] != array.shape[1:]:
        raise InputError(
            f"case {case}: expected {folder / f'{case}.b2nd'} to have the shape {array.shape[1:]} of its segmentation, "
            f"found {image.shape[1:]}; preprocess the source again"
        )
    return clean


def write_segmentation(folder: Path, case: str, new: CleanSegmentation, like: Path) -> None:
    """Write ``CASE_seg.b2nd`` and ``CASE.pkl``, chunked as the same case in the folder ``like``.

    Compressed by LZ4, not by nnU-Net's LZ4HC: four times as fast, and beside the images the bytes do not count.
    """
    import pickle

    write_chunked(folder / f"{case}_seg.b2nd", new.array, like / f"{case}_seg.b2nd")
    (folder / f"{case}.pkl").write_bytes(pickle.dumps(new.properties))


def write_chunked(path: Path, array: Array, like: Path) -> None:
    """Write an array (c, z, y, x) as blosc2's ``.b2nd``, chunked as the one in ``like``, compressed by LZ4."""
    import blosc2

    model = blosc2.open(urlpath=str(like), mode="r")
    packed = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=model.chunks,
        blocks=model.blocks,
        cparams={"codec": blosc2.Codec.LZ4, "filters": model.cparams.filters, "nthreads": 1},
    )
    # Through Python's own files: a full disk is an error here, not a truncated file.
    path.write_bytes(packed.to_cframe())
