"""Label maps whose values are the numbers of lesions, so that lesions that touch each other are told apart."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.lesion_class import LesionClass
from nnunet_lopsided.images import Header, Image, difference, read_image
from nnunet_lopsided.nnunet.label_values import unknown_label_values
from nnunet_lopsided.nnunet.results import Prediction


def instance_numbers(path: Path, labels: NDArray[np.generic], target: LesionClass | None = None) -> NDArray[np.integer]:
    """The lesion of every voxel, 0 for background; dataset.json need not declare the values.

    Args:
        path: where the map was read, for messages.
        labels: its values; whole numbers that were saved as floating point are taken.
        target: the classes, which have no place in such a map.

    Raises:
        InputError: a value is negative or no whole number, or dataset.json declares an ignore label, which would be a
            lesion here.

    Example:
        >>> instance_numbers(Path("a.png"), np.array([0.0, 300.0])).tolist()
        [0, 300]
    """
    if target is not None and target.scheme is not None and target.scheme.ignore is not None:
        raise InputError(
            f"{path}: dataset.json declares the ignore label {target.scheme.ignore}, which in an instance map is the "
            "number of a lesion; evaluate without --instances, or give a --dataset-json without it"
        )
    if not (np.issubdtype(labels.dtype, np.integer) or np.issubdtype(labels.dtype, np.floating)):
        raise InputError(f"{path}: expected an instance map, found values of type {labels.dtype}")
    problem = unknown_label_values(labels, None)
    if problem:
        raise InputError(f"{path}: expected an instance map: {problem} (--instances)")
    if np.issubdtype(labels.dtype, np.integer):
        return cast("NDArray[np.integer]", labels)
    return labels.astype(np.int64)


def load_instances(files: Prediction, reference: Image, hard_labels: bool) -> NDArray[np.integer]:
    """The candidate of every voxel, from the label map of a prediction.

    Args:
        files: of the prediction.
        reference: what it must fit.
        hard_labels: leave probabilities beside the label map aside.

    Raises:
        InputError: there are probabilities, which tell no candidates apart, or there is no label map; it does not lie
            where the reference does, or holds something else.
    """
    if files.array is not None and not hard_labels:
        raise InputError(
            f"--instances of predictions reads label maps, found probabilities {files.array}; --hard-labels leaves "
            "them aside"
        )
    if files.image is None:
        raise InputError(f"expected an instance map beside {files.array}, found none")
    image = read_image(files.image)
    check_fit(files.image, image, reference)
    return instance_numbers(files.image, image.array)


def check_fit(path: Path, image: Image | Header, reference: Image | Header) -> None:
    """Refuse an image that does not lie where the reference does.

    Raises:
        InputError: it says what differs.
    """
    differing = difference(reference, image)
    if differing is not None:
        raise InputError(f"reference and prediction {path} differ: {differing}")
