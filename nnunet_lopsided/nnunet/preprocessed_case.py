"""The files of one preprocessed case: its segmentation ``CASE_seg.b2nd`` and properties ``CASE.pkl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from nnunet_lopsided.errors import InputError

Array = NDArray[np.generic]
# Coordinates of some voxels of each label value, or each region; nnU-Net draws the patches it oversamples from them.
ClassLocations = Mapping[int | tuple[int, ...], Sequence[Sequence[int]] | NDArray[np.integer]]


class StoredArray(Protocol):
    """An array (c, z, y, x) of nnU-Net's, in memory or a file of blosc2: what is sliced is decompressed."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[np.generic]: ...

    def __getitem__(self, crop: slice | tuple[slice, ...], /) -> NDArray[np.number]: ...


class Properties(TypedDict, total=False):
    """What this package uses of ``CASE.pkl``; nnU-Net's readers and resampling put more into it.

    Attributes:
        spacing: voxel size in mm, in the axis order of the file's array.
        shape_before_cropping: after transposing.
        bbox_used_for_cropping: first (inclusive) and last (exclusive) index of each axis.
        shape_after_cropping_and_before_resampling: of the box.
        class_locations: see :data:`ClassLocations`.
    """

    spacing: list[float]
    shape_before_cropping: tuple[int, ...]
    bbox_used_for_cropping: list[list[int]]
    shape_after_cropping_and_before_resampling: tuple[int, ...]
    class_locations: ClassLocations


@dataclass(frozen=True)
class CleanSegmentation:
    """What nnU-Net's preprocessing left of one case in one folder.

    Attributes:
        array: the content of ``CASE_seg.b2nd``, shape (1, z, y, x); -1 outside the nonzero mask. As it was read it is
            a blosc2 array, which is decompressed by ``[:]``.
        properties: the content of ``CASE.pkl``.
    """

    array: StoredArray
    properties: Properties


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
        # Cases are read in several threads of ours, and as many of blosc2's for each would only wait for each other.
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

    write_chunked(folder / f"{case}_seg.b2nd", new.array[:], like / f"{case}_seg.b2nd")
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
