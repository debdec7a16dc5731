"""Which of nnU-Net's readers made an array, and the array as its case's file has it.

Most of nnU-Net's readers leave the axes as they are in the file. Two turn every image to the orientation RAS; then the
``CASE.npz`` of a prediction lies in another frame than the ``CASE.nii.gz`` beside it, which is turned back when it is
written. The plans and dataset.json name the reader, so nothing has to be guessed from the content.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import nibabel
import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import check_shape, read_json
from nnunet_lopsided.images import Header, Image

_Voxel = TypeVar("_Voxel", bound=np.generic)
# Those of nnU-Net 2.8.1.
_KEEPING = ("SimpleITKIO", "NibabelIO", "NaturalImage2DIO", "Tiff3DIO")
_REORIENTING = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")


def reader_of(folders: Sequence[Path], dataset_json: Path | None = None) -> str:
    """The name of the reader that made the arrays of predictions; empty where nothing tells.

    The plans say which reader was used, so they come first. Without them ``overwrite_image_reader_writer`` of
    dataset.json counts.

    Args:
        folders: where nnU-Net leaves ``plans.json`` and ``dataset.json`` of these predictions, see
            :func:`~nnunet_lopsided.nnunet.results.predictions_by_case`.
        dataset_json: one that lies elsewhere, asked last.

    Raises:
        InputError: one of these files is not JSON, or its reader no text.
    """
    asked = [(folder / "plans.json", "image_reader_writer") for folder in folders]
    asked += [(folder / "dataset.json", "overwrite_image_reader_writer") for folder in folders]
    if dataset_json is not None:
        asked.append((dataset_json, "overwrite_image_reader_writer"))
    # The first file that names one decides; to nnU-Net, too, the text "None" names none.
    for path, key in asked:
        if not path.is_file():
            continue
        content = read_json(path, dict, any_number=True)
        name = content.get(key)
        check_shape(name, (str, type(None)), path, key)
        if name not in (None, "", "None"):
            return str(name)
    return ""


def reorients(reader: str) -> bool:
    """Whether a reader turns images to RAS; one that is not told, empty, is taken for nnU-Net's default.

    Raises:
        InputError: it is none of nnU-Net's.
    """
    if reader and reader not in (*_KEEPING, *_REORIENTING):
        raise InputError(
            f"plans.json or dataset.json names the reader {reader}, expected one of {', '.join(_KEEPING)} or "
            f"{' or '.join(_REORIENTING)}: its arrays may be turned; --hard-labels takes label maps instead"
        )
    return reader in _REORIENTING


def array_shape(reader: str, header: Header | Image) -> tuple[int, ...]:
    """The shape (z, y, x) or (y, x) that an image has after it was read; its file's, unless axes were exchanged.

    Args:
        reader: see :func:`reader_of`.
        header: of the case's label map or image.

    Example:
        >>> from nnunet_lopsided.images import Geometry
        >>> sagittal = Geometry((3.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
        >>> array_shape("NibabelIOWithReorient", Header((4, 5, 6), sagittal))
        (5, 6, 4)
    """
    if not reorients(reader) or len(header.shape) != 3:
        return header.shape
    return _turned(np.broadcast_to(np.False_, header.shape), _orientation(header)).shape


def to_file_frame(array: NDArray[_Voxel], reader: str, header: Header | Image) -> NDArray[_Voxel]:
    """An array that nnU-Net saved, with its axes as the case's file has them.

    Args:
        array: of shape (..., z, y, x) in the frame of the reader; 2D images are never turned.
        reader: see :func:`reader_of`.
        header: of the case's label map or image.

    Returns:
        The same voxels, of shape (..., *header.shape); a view.

    Example:
        >>> from nnunet_lopsided.images import Geometry
        >>> lps = Header((1, 1, 3), Geometry((1.0,) * 3, (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)))
        >>> saved = np.array([[[1, 2, 3]]])  # from left to right, where the file goes from right to left
        >>> [to_file_frame(saved, reader, lps).tolist() for reader in ("NibabelIOWithReorient", "SimpleITKIO")]
        [[[[3, 2, 1]]], [[[1, 2, 3]]]]
    """
    if not reorients(reader) or len(header.shape) != 3:
        return array
    ras = nibabel.orientations.axcodes2ornt("RAS")
    back = nibabel.orientations.ornt_transform(ras, _orientation(header))
    return _turned(array, back)


def _turned(array: NDArray[_Voxel], orientation: NDArray[np.floating]) -> NDArray[_Voxel]:
    """The last three axes (z, y, x) turned as nibabel turns the first three (x, y, z)."""
    turned: NDArray[_Voxel] = nibabel.orientations.apply_orientation(array.T, orientation).T
    return turned


def _orientation(header: Header | Image) -> NDArray[np.floating]:
    """nibabel's orientation of a 3D file: for each of its axes (x, y, z) the one in RAS, and whether it is flipped."""
    direction = np.array(header.geometry.direction).reshape(3, 3)
    # ITK's axes point to the left and to the back, NIfTI's to the right and to the front.
    affine = np.diag([-1.0, -1.0, 1.0]) @ direction @ np.diag(header.geometry.spacing_mm[::-1])
    orientation: NDArray[np.floating] = nibabel.orientations.io_orientation(
        np.vstack([np.column_stack([affine, header.geometry.origin_mm]), [0.0, 0.0, 0.0, 1.0]])
    )
    return orientation
