"""Beliefs of a case on the grid of its preprocessed images: how sure one is that a background voxel is lesion.

They lie in a folder inside that of the preprocessed data, not beside the cases: nnU-Net takes every ``.b2nd`` beside
them for a case and refuses files of other endings, but does not look into folders. When nnU-Net preprocesses again it
deletes the data folder, and beliefs on an old grid go with it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import Shape, read_json
from nnunet_lopsided.nnunet.configurations import Configuration, is_resampled, resampling
from nnunet_lopsided.nnunet.dataset_json import LabelScheme
from nnunet_lopsided.nnunet.label_preprocessing import Cropping
from nnunet_lopsided.nnunet.preprocessed_case import CleanSegmentation, StoredArray, write_chunked

FOLDER, BELIEFS_FILE = "lopsided_beliefs", "lopsided_beliefs.json"
# Stored as whole 255ths in one byte: 0 and 1 are exact, the error of any other value is at most 1/510 (of one of
# several exclusive classes below 1/255), below what a belief is known to, and half of float16's bytes before packing.
LEVELS = 255
_SHAPE: Shape = {"classes": [str], "cases": {str: {str: str}}, "cases_without": [str]}


class _NeededOfBeliefs(TypedDict):
    classes: list[str]
    cases: dict[str, dict[str, str]]
    cases_without: list[str]


class BeliefsContent(_NeededOfBeliefs, total=False):
    """What is read again of lopsided_beliefs.json.

    Attributes:
        classes: of which a belief has channels.
        cases: those with a belief; the SHA-256 of each file it was made from.
        cases_without: those that are known to have none.
        source: where the files lay.
    """

    source: str


def lesion_classes(scheme: LabelScheme) -> tuple[str, ...]:
    """Names of the classes a belief has one channel for: by label value, or the regions as dataset.json orders them.

    Example:
        >>> lesion_classes(LabelScheme({"core": (2,), "rim": (1,)}, None, has_regions=False))
        ('rim', 'core')
    """
    names = list(scheme.foreground)
    return tuple(names if scheme.has_regions else sorted(names, key=lambda name: scheme.foreground[name]))


def belief_name(case: str, lesion_class: str) -> str:
    """Name of a file with the belief of one of several classes, without its ending.

    Example:
        >>> belief_name("case_1", "core")
        'case_1__core'
    """
    return f"{case}__{lesion_class}"


def preprocessed_belief(
    case: str, belief: NDArray[np.floating], configuration: Configuration, clean: CleanSegmentation
) -> NDArray[np.float32]:
    """A belief on the grid of the preprocessed images.

    Transposed and cropped as the images were, resampled linearly by the function and on the points that nnU-Net
    resamples segmentations with: where two classes are resampled, a belief of 0 and 1 exceeds 1/2 where the label does.

    Args:
        case: its name, for error messages.
        belief: (K, z, y, x) in [0, 1] as nnU-Net's reader orders the axes.
        configuration: the folder of preprocessed data.
        clean: what is there of the case.

    Returns:
        (K, ...) in [0, 1], never above the largest value that was given.

    Raises:
        InputError: the shape is not that of the images.
    """
    cropped = Cropping(case, tuple(configuration.plans.transpose_forward), clean.properties).apply(belief)
    array = np.ascontiguousarray(cropped, np.float32)
    if is_resampled(configuration, clean.properties):
        spacing, target, shape = resampling(configuration, clean.properties)
        largest = array.max(initial=0)
        # Plans may ask for splines of higher order, which overshoot.
        array = configuration.manager.resampling_fn_seg(array, shape, spacing, target, is_seg=False)
        array = np.clip(array, 0, largest).astype(np.float32, copy=False)
    if array.shape[1:] != clean.array.shape[1:]:
        raise InputError(
            f"case {case}: expected shape {clean.array.shape[1:]} in {configuration.folder}, found {array.shape[1:]} "
            "by its plans; preprocess the dataset again"
        )
    return array


def to_levels(belief: NDArray[np.floating], exclusive: bool) -> NDArray[np.uint8]:
    """A belief (K, ...) in [0, 1] as whole 255ths.

    Args:
        belief: with ``exclusive`` its sum over the classes is at most 1, and so it stays.
        exclusive: a voxel is of one class; otherwise the channels are regions, each rounded by itself.

    Example:
        >>> to_levels(np.array([[0.0, 0.1, 1.0]]), exclusive=True).tolist()
        [[0, 26, 255]]
        >>> to_levels(np.array([[0.5], [0.5]]), exclusive=True).tolist()  # two halves rounded up would be 256
        [[128], [127]]
    """
    if not exclusive:
        apart: NDArray[np.uint8] = np.rint(LEVELS * belief).astype(np.uint8)
        return apart
    # Sums are rounded, and their differences stored: so all levels of a voxel add up to at most 255.
    below = np.rint(LEVELS * np.minimum(np.cumsum(belief, axis=0, dtype=np.float64), 1))
    levels: NDArray[np.uint8] = np.diff(below, axis=0, prepend=0).astype(np.uint8)
    return levels


def from_levels(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The belief in [0, 1] that :func:`to_levels` stored; 255 is exactly 1."""
    return levels.astype(np.float32) / np.float32(LEVELS)


def write_belief(folder: Path, case: str, levels: NDArray[np.uint8], data_folder: Path) -> None:
    """Write ``CASE.b2nd``, chunked as the case's segmentation in ``data_folder``."""
    write_chunked(folder / f"{case}.b2nd", levels, data_folder / f"{case}_seg.b2nd")


@dataclass(frozen=True)
class BeliefFolder:
    """The beliefs of a folder of preprocessed data, as ``lopsided-soften`` left them.

    Attributes:
        data_folder: the folder of preprocessed data, ``nnUNet_preprocessed/DATASET/PLANS_CONFIGURATION``.
    """

    data_folder: Path

    @property
    def description(self) -> Path:
        """The file that says which cases there are."""
        return self.data_folder / FOLDER / BELIEFS_FILE

    def file(self, case: str) -> Path:
        """Where the belief of a case lies, if it has one."""
        return self.data_folder / FOLDER / f"{case}.b2nd"

    @cached_property
    def content(self) -> BeliefsContent:
        """What :attr:`description` says.

        Raises:
            InputError: it is missing or something else.
        """
        if not self.description.is_file():
            raise InputError(f"{self.description}: not found; lopsided-soften makes it")
        content: BeliefsContent = read_json(self.description, _SHAPE)
        return content

    def has(self, case: str, classes: tuple[str, ...]) -> bool:
        """Whether a case has a belief; False: it is known to have none, which is a belief of 0 everywhere.

        Args:
            case: its name.
            classes: see :func:`lesion_classes`; the belief must have a channel for each.

        Raises:
            InputError: nothing is known of the case, its file is missing or damaged, or does not fit the images.
        """
        if not self.description.is_file():
            raise InputError(f"case {case}: no belief, expected {self.file(case)}: run lopsided-soften first")
        if case in self.content["cases_without"]:
            return False
        if case not in self.content["cases"] or not self.file(case).is_file():
            raise InputError(
                f"case {case}: no belief, expected {self.file(case)}: run lopsided-soften with --overwrite again"
            )
        self._check(case, classes)
        return True

    def open(self, case: str) -> StoredArray:
        """The belief of a case, a blosc2 array (K, ...) of whole 255ths; read when sliced."""
        return _opened(self.file(case))

    def _check(self, case: str, classes: tuple[str, ...]) -> None:
        again = "run lopsided-soften with --overwrite again"
        if tuple(self.content["classes"]) != classes:
            raise InputError(
                f"case {case}: expected beliefs of {', '.join(classes)}, found {', '.join(self.content['classes'])} in "
                f"{self.description}: {again}"
            )
        try:
            stored, image = self.open(case), _opened(self.data_folder / f"{case}.b2nd")
        except Exception as error:  # damaged files fail in many ways
            raise InputError(f"case {case}: cannot read {self.file(case)}: {error}: {again}") from error
        expected = (len(classes), *image.shape[1:])
        if stored.shape != expected or stored.dtype != np.uint8:
            raise InputError(
                f"case {case}: expected shape {expected} of bytes in {self.file(case)}, found {stored.shape} of "
                f"{stored.dtype}: {again}"
            )


def _opened(path: Path) -> StoredArray:
    import blosc2

    # As nnU-Net opens its own; memory maps do not work on Windows.
    maps = {} if os.name == "nt" else {"mmap_mode": "r"}
    opened: StoredArray = blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1}, **maps)
    return opened
