"""Reading a case: which voxels are lesion in the reference, and with what probability the prediction says so."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Image, read_image
from nnunet_lopsided.nnunet_layout import LabelScheme, Prediction, label_scheme, read_json

# Softmax in float32, and sums of its channels, leave [0, 1] by rounding only; what exceeds this is not a probability.
ROUNDING = 1e-3


@dataclass(frozen=True)
class LesionClass:
    """Which class is evaluated.

    Attributes:
        scheme: the classes of dataset.json; None where there is none: lesion is every label value above 0.
        name: a class or region of the scheme; None: all foreground classes together.
    """

    scheme: LabelScheme | None = None
    name: str | None = None

    @property
    def values(self) -> tuple[int, ...] | None:
        """The label values of the class; None: every value above 0."""
        if self.scheme is None:
            return None
        if self.name is not None:
            return self.scheme.foreground[self.name]
        return tuple(sorted(set().union(*self.scheme.foreground.values())))

    def mask(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """The lesion voxels of a label map, same shape."""
        values = self.values
        if values is None:
            return labels > 0
        mask = np.equal(labels, values[0])
        for value in values[1:]:
            mask |= labels == value
        return mask

    def probability(self, channels: NDArray[np.floating]) -> NDArray[np.floating]:
        """Lesion probability from the channels of a network, shape (C, ...) -> (...).

        Softmax channels of the class are summed (all foreground: 1 minus background); of region channels the class's
        own is taken (all foreground: their maximum). float16 is widened to float32 where arithmetic is needed.

        Raises:
            InputError: the number of channels does not fit the scheme, or, without a scheme, they are not a softmax.
        """
        n = len(channels)
        if self.scheme is None:
            if n == 1:
                return channels[0]
            sample = channels.reshape(n, -1)[:, :: max(1, channels[0].size // 4096)]
            if not np.allclose(sample.sum(axis=0, dtype=np.float32), 1, atol=2e-2, equal_nan=True):
                raise InputError(f"{n} channels that do not sum to 1: the classes must be known; give --dataset-json")
            return channels[1] if n == 2 else 1 - _wide(channels[0])
        if n != self.scheme.n_channels:
            raise InputError(f"expected {self.scheme.n_channels} channels from dataset.json, found {n}")
        if self.name is None and len(self.scheme.foreground) > 1:
            return channels.max(axis=0) if self.scheme.has_regions else 1 - _wide(channels[0])
        chosen = self.scheme.channels_of(self.name or next(iter(self.scheme.foreground)))
        if len(chosen) == 1:
            return channels[chosen[0]]
        return np.sum([_wide(channels[c]) for c in chosen], axis=0)


@dataclass(frozen=True)
class LoadedCase:
    """One case, ready to be evaluated.

    Attributes:
        name: the case.
        reference: lesion voxels of the reference, shape (z, y, x) or (y, x).
        valid: voxels with annotation, same shape; None when all have one.
        prediction: lesion probability (floating, within [0, 1]) or a hard lesion mask (bool), same shape; None when
            the case has no prediction.
        spacing_mm: voxel size along each axis.
    """

    name: str
    reference: NDArray[np.bool_]
    valid: NDArray[np.bool_] | None
    prediction: NDArray[Any] | None
    spacing_mm: tuple[float, ...]


def lesion_class(label: str | None, dataset_json: Path | None) -> LesionClass:
    """The class to evaluate, by its name in dataset.json.

    Args:
        label: name of a class or region; None: all foreground.
        dataset_json: the file that declares the classes; None: there is none, and lesion is every label above 0.

    Raises:
        InputError: the name is not in dataset.json, or a name is given and there is no dataset.json.
    """
    if dataset_json is None:
        if label is not None:
            raise InputError(f"label {label} needs a dataset.json, and none was found: give --dataset-json")
        return LesionClass()
    scheme = label_scheme(read_json(dataset_json), dataset_json)
    if not scheme.foreground:
        raise InputError(f"{dataset_json}: no foreground label")
    if label is not None and label not in scheme.foreground:
        raise InputError(f"label must be one of {', '.join(scheme.foreground)} ({dataset_json}), got {label}")
    return LesionClass(scheme, label)


def load_case(
    name: str, reference: Path, prediction: Prediction | None, target: LesionClass, hard_labels: bool = False
) -> LoadedCase:
    """Read one case and check that its files fit each other.

    Args:
        name: the case, for messages.
        reference: its label map.
        prediction: its prediction; None: there is none.
        target: the class to evaluate.
        hard_labels: use the predicted label map even where probabilities lie beside it.

    Returns:
        The case. Its prediction is a probability when ``CASE.npz``, ``CASE.npy`` or a floating-point image with
        fractional values exists, else a mask.

    Raises:
        InputError: a file is missing, truncated, unreadable or of the wrong kind; shapes or geometries differ;
            probabilities are not finite or not within [0, 1]. The message names the case and the file.
    """
    image = read_image(reference)
    labels = image.array
    _check_reference(name, reference, labels, target)
    ignore = target.scheme.ignore if target.scheme else None
    valid = None if ignore is None else labels != ignore
    mask = target.mask(labels)
    predicted = None
    if prediction is not None:
        try:
            predicted = _load_prediction(prediction, image, target, hard_labels)
        except InputError as error:
            raise InputError(f"case {name}: {error}") from error
    return LoadedCase(name, mask, valid, predicted, image.geometry.spacing_mm)


def _check_reference(name: str, path: Path, labels: NDArray[Any], target: LesionClass) -> None:
    found = labels[labels != 0]
    if np.issubdtype(labels.dtype, np.floating) and not (np.isfinite(found) & (found == np.floor(found))).all():
        raise InputError(f"case {name}: expected a label map as reference, found fractional values in {path}")
    if target.scheme is None or not found.size:
        return
    whole = found.astype(np.int64)
    values = np.flatnonzero(np.bincount(whole)) if whole.min() >= 0 and whole.max() < 1 << 16 else np.unique(whole)
    unknown = sorted({int(v) for v in values} - {*target.scheme.label_values, target.scheme.ignore})
    if unknown:
        raise InputError(f"case {name}: {path} holds label values {unknown[:8]} that dataset.json does not declare")


def _load_prediction(files: Prediction, reference: Image, target: LesionClass, hard_labels: bool) -> NDArray[Any]:
    labels = None
    if files.image is not None:
        image = read_image(files.image)
        _check_fit(files.image, image, reference)
        if _is_probability(files.image, image.array):
            if files.array is None and not hard_labels:
                return _checked_probability(files.image, image.array)
            if hard_labels:
                if image.array.any():
                    raise InputError(f"expected a label map, found fractional values in {files.image}")
                labels = image.array
        else:
            labels = image.array
    if hard_labels and labels is None:
        raise InputError(f"expected a label map beside {files.array}, found none")
    if files.array is None or hard_labels:
        assert labels is not None
        return target.mask(labels)
    probability = _probability_of_array(files.array, reference.array.shape, target)
    if labels is not None:
        _check_agreement(files, target, labels, probability)
    return probability


def _check_fit(path: Path, image: Image, reference: Image) -> None:
    if image.array.shape != reference.array.shape:
        raise InputError(f"expected the reference's shape {reference.array.shape}, found {image.array.shape} in {path}")
    difference = reference.geometry.difference(image.geometry)
    if difference is not None:
        raise InputError(f"reference and prediction differ in geometry: {difference} in {path}")


def _is_probability(path: Path, array: NDArray[Any]) -> bool:
    """Whether an image holds probabilities: floating point with fractional values (some tools save labels as float).

    A floating-point image of zeros is taken for probabilities; among label maps it counts as an empty one.
    """
    if not np.issubdtype(array.dtype, np.floating):
        return False
    found = array[array != 0]
    if not (np.isfinite(found).all() and _finite_on_disk(path)):
        raise InputError(f"expected finite probabilities within [0, 1], found NaN or infinity in {path}")
    return not found.size or bool((found != np.floor(found)).any())


def _finite_on_disk(path: Path) -> bool:
    """Whether a file holds neither NaN nor infinity: ITK silently turns them to 0 when it reads NIfTI."""
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return True
    import nibabel

    return bool(np.isfinite(np.asanyarray(nibabel.Nifti1Image.from_filename(path).dataobj)).all())


def _checked_probability(path: Path, probability: NDArray[Any]) -> NDArray[np.floating]:
    low, high = probability.min(initial=1), probability.max(initial=0)  # both NaN if any value is
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise InputError(f"expected finite probabilities within [0, 1], found {low} to {high} in {path}")
    return probability if low >= 0 and high <= 1 else np.clip(probability, 0, 1)


def _probability_of_array(path: Path, shape: tuple[int, ...], target: LesionClass) -> NDArray[np.floating]:
    array = _read_array(path)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"expected floating-point probabilities, found {array.dtype} in {path}")
    singleton = array.ndim == len(shape) + 2 and array.shape[1] == 1  # nnU-Net's 2D arrays are (C, 1, y, x)
    if singleton:
        array = array[:, 0]
    if array.shape == (1, *shape) and path.suffix == ".npy":
        array = array[0]
    if array.shape == shape and path.suffix == ".npy":
        return _checked_probability(path, array)
    if array.shape[1:] != shape:
        raise InputError(f"expected shape (channels, {str(shape)[1:]} of the reference, found {array.shape} in {path}")
    try:
        probability = target.probability(array)
    except InputError as error:
        raise InputError(f"{error} in {path}") from error
    return _checked_probability(path, probability)


def _read_array(path: Path) -> NDArray[Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            for key in ("probabilities", "softmax"):
                if key in loaded.files:
                    return loaded[key]
            found = ", ".join(loaded.files) or "nothing"
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error or type(error).__name__}") from error
    raise InputError(f"expected an array 'probabilities' (or 'softmax'), found {found} in {path}")


def _check_agreement(
    files: Prediction, target: LesionClass, labels: NDArray[Any], probability: NDArray[np.floating]
) -> None:
    """Catch arrays that are flipped or stale: nnU-Net's reorienting reader writes labels and arrays in two frames."""
    at_labels = probability[target.mask(labels)]
    softmax_channels = target.scheme.n_channels if target.scheme and not target.scheme.has_regions else 2
    agreeing = int((at_labels >= 1 / softmax_channels - ROUNDING).sum())
    if at_labels.size >= 10 and agreeing < 0.1 * at_labels.size:
        raise InputError(
            f"{files.array} does not belong to {files.image}: only {agreeing} of {at_labels.size} voxels labelled "
            "lesion have the probability for it; were they written by different models or in different orientations?"
        )


def _wide(channel: NDArray[np.floating]) -> NDArray[np.floating]:
    return channel.astype(np.float32) if channel.dtype == np.float16 else channel
