"""Reading a case: which voxels are lesion in the reference, and with what probability the prediction says so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.archives import alone, array_header, read_array, read_channels
from nnunet_lopsided.evaluation.instance_maps import check_fit, instance_numbers, load_instances
from nnunet_lopsided.evaluation.lesion_class import LesionClass as LesionClass
from nnunet_lopsided.evaluation.lesion_class import lesion_class as lesion_class
from nnunet_lopsided.evaluation.plausibility import (
    ROUNDING,
    UnfitChannels,
    check_not_swapped,
    is_of_another_threshold,
    within_0_and_1,
)
from nnunet_lopsided.evaluation.rules import InstanceMaps
from nnunet_lopsided.images import Geometry, Image, read_header, read_image
from nnunet_lopsided.nnunet.frames import array_shape, to_file_frame
from nnunet_lopsided.nnunet.label_values import unknown_label_values
from nnunet_lopsided.nnunet.results import Prediction


@dataclass(frozen=True, kw_only=True)
class LoadedCase:
    """One case, ready to be evaluated.

    Attributes:
        name: the case.
        reference: lesion voxels of the reference, shape (z, y, x) or (y, x).
        valid: voxels with annotation, same shape; None when all have one.
        prediction: lesion probability (floating, within [0, 1]), a hard lesion mask (bool), or of an instance map the
            candidate's number, same shape; None when the case has no prediction.
        geometry: where the voxels lie.
        segmentation: the lesion mask of the predicted label map, same shape; None when there is none.
        censored_reference: lesion voxels of a reference that lacks some lesions, same shape; None when none is given.
        numbers: the lesion of every voxel, same shape, where the reference is an instance map; None: it is not.
        looks_swapped: whether the probability looks like the background's, without proof.
    """

    name: str
    reference: NDArray[np.bool_]
    valid: NDArray[np.bool_] | None
    prediction: NDArray[np.generic] | None
    geometry: Geometry
    segmentation: NDArray[np.bool_] | None = None
    censored_reference: NDArray[np.bool_] | None = None
    looks_swapped: bool = False
    numbers: NDArray[np.integer] | None = None

    @property
    def lesions(self) -> NDArray[np.integer] | NDArray[np.bool_]:
        """The lesion of every voxel where lesions are numbered, else the lesion voxels."""
        return self.reference if self.numbers is None else self.numbers

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size along each axis."""
        return self.geometry.spacing_mm


def load_case(
    name: str,
    reference: Path,
    prediction: Prediction | None,
    target: LesionClass,
    hard_labels: bool = False,
    censored_reference: Path | None = None,
    instances: InstanceMaps = "none",
) -> LoadedCase:
    """Read one case and check that its files fit each other.

    Args:
        name: the case, for messages.
        reference: its label map.
        prediction: its prediction; None: there is none.
        target: the class to evaluate.
        hard_labels: use the predicted label map even where probabilities lie beside it.
        censored_reference: a label map that lacks some of the lesions.
        instances: whose label maps number their lesions instead of naming their class.

    Returns:
        The case. Its prediction is a probability when ``CASE.npz``, ``CASE.npy`` or a floating-point image with
        fractional values exists, else a mask.

    Raises:
        InputError: a file is missing, truncated, unreadable or of the wrong kind; shapes or geometries differ;
            probabilities are not finite or not within [0, 1]. The message names the case and the file.
    """
    try:
        image = read_image(reference)
        labels = image.array
        spacing = image.geometry.spacing_mm
        if not all(0 < s < math.inf for s in spacing):
            raise InputError(f"expected a positive voxel size, found {spacing} in {reference}")
        numbers = instance_numbers(reference, labels, target) if instances in ("reference", "both") else None
        mask = _labelled(reference, labels, target, "a label map as reference") if numbers is None else numbers != 0
        ignore = target.scheme.ignore if target.scheme else None
        valid = None if ignore is None else labels != ignore
        censored = segmentation = None
        predicted: NDArray[np.generic] | None = None
        looks_swapped = False
        if censored_reference is not None:
            other = read_image(censored_reference)
            check_fit(censored_reference, other, image)
            if numbers is None:
                censored = _labelled(censored_reference, other.array, target, "a label map as censored reference")
            else:
                censored = instance_numbers(censored_reference, other.array) != 0
        if prediction is not None and instances in ("prediction", "both"):
            predicted = load_instances(prediction, image, hard_labels)
            segmentation = predicted != 0
        elif prediction is not None:
            predicted, segmentation, looks_swapped = _load_prediction(prediction, image, mask, target, hard_labels)
    except InputError as error:
        raise InputError(f"case {name}: {error}") from error
    return LoadedCase(
        name=name,
        reference=mask,
        valid=valid,
        prediction=predicted,
        geometry=image.geometry,
        segmentation=segmentation,
        censored_reference=censored,
        numbers=numbers,
        looks_swapped=looks_swapped,
    )


def check_headers(
    name: str,
    reference: Path,
    prediction: Prediction | None,
    hard_labels: bool = False,
    censored_reference: Path | None = None,
) -> None:
    """What :func:`load_case` would refuse that shows without reading any values: a few milliseconds per case.

    Args:
        name, reference, prediction, hard_labels, censored_reference: as for :func:`load_case`.

    Raises:
        InputError: a header is unreadable, an archive is truncated, or shapes or geometries differ.
    """
    try:
        header = read_header(reference)
        if censored_reference is not None:
            check_fit(censored_reference, read_header(censored_reference), header)
        if prediction is None:
            return
        if prediction.image is not None:
            check_fit(prediction.image, read_header(prediction.image), header)
        if prediction.array is not None and not hard_labels:
            array = array_header(prediction.array)
            _check_array(prediction.array, array.shape, array.dtype, array_shape(prediction.reader, header))
    except InputError as error:
        raise InputError(f"case {name}: {error}") from error


def _labelled(
    path: Path, labels: NDArray[np.generic], target: LesionClass, expected: str = "a label map"
) -> NDArray[np.bool_]:
    """The lesion mask of a label map, of which every value must be known."""
    if not (np.issubdtype(labels.dtype, np.integer) or np.issubdtype(labels.dtype, np.floating)):
        raise InputError(f"expected {expected}, found values of type {labels.dtype} in {path}")
    mask = target.mask(labels)
    if np.issubdtype(labels.dtype, np.integer) and np.count_nonzero(labels) == np.count_nonzero(mask):
        return mask  # all that is not background is lesion: nothing can be unknown
    labelled = labels[labels != 0]
    if (
        np.issubdtype(labels.dtype, np.floating)
        and not (np.isfinite(labelled) & (labelled == np.floor(labelled))).all()
    ):
        raise InputError(f"expected {expected}, found fractional values in {path}")
    if target.scheme is not None:
        problem = unknown_label_values(labelled, target.scheme.declared_values)
        if problem:
            raise InputError(f"{path}: {problem} (dataset.json)")
    return mask


def _load_prediction(
    files: Prediction, reference: Image, lesion: NDArray[np.bool_], target: LesionClass, hard_labels: bool
) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None, bool]:
    """The prediction, the mask of the predicted label map if there is one, and whether channels look swapped."""
    segmentation = None
    if files.image is not None:
        image = read_image(files.image)
        check_fit(files.image, image, reference)
        # A floating-point image of zeros is a label map where one is asked for.
        # One of zeros and ones is taken for probabilities only where nothing else can be them, and 1 is no other class.
        alone = files.array is None and not hard_labels and target.values in (None, (1,))
        soft = _is_probability(files.image, image.array, alone) and not (hard_labels and not image.array.any())
        if soft and files.array is None and not hard_labels:
            return checked_probability(files.image, image.array), None, False
        if hard_labels or not soft:
            segmentation = _labelled(files.image, image.array, target)
    if hard_labels and segmentation is None:
        raise InputError(f"expected a label map beside {files.array}, found none")
    if files.array is None or hard_labels:
        assert segmentation is not None
        return segmentation, segmentation, False
    probability = probability_of_array(files.array, array_shape(files.reader, reference), target)
    probability = to_file_frame(probability, files.reader, reference)
    looks_swapped = check_not_swapped(files.array, probability, lesion)
    if segmentation is not None:
        _check_agreement(files, reference, target, segmentation, probability)
    return probability, segmentation, looks_swapped


def _is_probability(path: Path, array: NDArray[np.generic], binary: bool) -> bool:
    """Whether an image holds probabilities: floating point with fractional values (some tools save labels as float).

    A floating-point image of zeros is taken for probabilities; among label maps it counts as an empty one. One of zeros
    and ones alone holds probabilities if ``binary`` says so: a certain and perfect model writes such maps.
    """
    if not np.issubdtype(array.dtype, np.floating):
        return False
    values = array[array != 0]
    if not (np.isfinite(values).all() and finite_on_disk(path)):
        raise InputError(f"expected finite probabilities within [0, 1], found NaN or infinity in {path}")
    if not values.size or bool((values != np.floor(values)).any()):
        return True
    return binary and bool((values == 1).all())


def finite_on_disk(path: Path) -> bool:
    """Whether an image file holds neither NaN nor infinity: ITK silently turns them to 0 when it reads NIfTI."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return True
    import nibabel

    return bool(np.isfinite(np.asanyarray(nibabel.Nifti1Image.from_filename(path).dataobj)).all())


def checked_probability(path: Path, array: NDArray[np.generic]) -> NDArray[np.floating]:
    """What was read from a file, within [0, 1]; values beyond by more than rounding, or NaN, are refused."""
    probability = cast("NDArray[np.floating]", array)
    if within_0_and_1(probability):
        return probability
    low, high = probability.min(initial=1), probability.max(initial=0)  # both NaN if any value is
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise InputError(f"expected finite probabilities within [0, 1], found {low} to {high} in {path}")
    return probability if low >= 0 and high <= 1 else np.clip(probability, 0, 1)


def probability_of_array(path: Path, shape: tuple[int, ...], target: LesionClass) -> NDArray[np.floating]:
    """The probability of a class in a .npy or .npz file beside a reference of this shape; checked."""
    header = array_header(path)
    _check_array(path, header.shape, header.dtype, shape)
    if path.suffix == ".npy" and header.shape in (shape, (1, *shape)):
        return checked_probability(path, read_array(path).reshape(shape))
    try:
        # nnU-Net's 2D arrays are (C, 1, y, x).
        probability = alone(target.probability(read_channels(path), header.shape[0])).reshape(shape)
    except UnfitChannels as error:
        raise InputError(f"{error} in {path}") from error
    return checked_probability(path, probability)


def _check_array(path: Path, array_shape: tuple[int, ...], dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    """Refuse an array of another type or shape than a reference of this shape can have."""
    if not np.issubdtype(dtype, np.floating):
        raise InputError(f"expected floating-point probabilities, found {dtype} in {path}")
    spatial = array_shape[2:] if len(array_shape) == len(shape) + 2 and array_shape[1] == 1 else array_shape[1:]
    if spatial != shape and not (path.suffix == ".npy" and array_shape == shape):
        raise InputError(f"expected shape (channels, {str(shape)[1:]} of the reference, found {array_shape} in {path}")


def _check_agreement(
    files: Prediction,
    reference: Image,
    target: LesionClass,
    segmentation: NDArray[np.bool_],
    probability: NDArray[np.floating],
) -> None:
    """Catch arrays that are stale, or of a frame that no file names, see :mod:`nnunet_lopsided.nnunet.frames`."""
    labelled = np.flatnonzero(segmentation)
    n_labelled = len(labelled)
    regions = target.scheme is not None and target.scheme.has_regions
    # The most probable of n classes has at least an equal share; regions are cut at one half.
    least = 1 / (target.scheme.n_channels if target.scheme and not regions else 2) - ROUNDING

    def n_agreeing(probability: NDArray[np.floating]) -> int:
        return int(np.count_nonzero(probability.reshape(-1)[labelled] >= least))

    # Of fewer than ten voxels one alone would be a tenth, and decide.
    if n_labelled < 10 or (agreeing := n_agreeing(probability)) >= 0.1 * n_labelled:
        return
    if regions and target.name is not None and files.array is not None:
        # A label of this region may be there because of another region, whose probability need not be the smaller one.
        shape = array_shape(files.reader, reference)
        any_class = probability_of_array(files.array, shape, LesionClass(target.scheme))
        agreeing = n_agreeing(to_file_frame(any_class, files.reader, reference))
    if agreeing < 0.1 * n_labelled and not is_of_another_threshold(probability, segmentation):
        raise InputError(
            f"{files.array} does not belong to {files.image}: only {agreeing} of {n_labelled} voxels labelled lesion "
            "have the probability for it, and no other threshold fits; were they written by different models "
            "or in different orientations?"
        )
