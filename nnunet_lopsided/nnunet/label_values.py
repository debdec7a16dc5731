"""Which values a label map may hold: asked here by everything that reads labels, and answered in one wording."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.dataset_json import LabelScheme

_LARGEST = 2**31 - 1
_MOST_SHOWN = 5


def check_label_values(scheme: LabelScheme, case: str, file: Path | str, array: NDArray[np.generic]) -> None:
    """Refuse a label map with a value that dataset.json does not declare; nnU-Net's own loss stops there too.

    Args:
        scheme: the classes of dataset.json.
        case: for the message.
        file: where the label map was read, for the message.
        array: a label map of any shape and type, or its nonzero voxels alone.

    Raises:
        InputError: case, file, the values that are not declared, in how many voxels, and those that are.

    Example:
        >>> check_label_values(LabelScheme({"lesion": (1,)}, None, False), "a", "a.nii.gz", np.array([0, 1, 255]))
        Traceback (most recent call last):
        ...
        nnunet_lopsided.errors.InputError: case a: a.nii.gz: unknown label value 255 in 1 voxels, expected 0, 1 \
(dataset.json)
    """
    problem = unknown_label_values(array, scheme.declared_values)
    if problem:
        raise InputError(f"case {case}: {file}: {problem} (dataset.json)")


def unknown_label_values(array: NDArray[np.generic], known: Collection[int] | None) -> str:
    """In words, which values of a label map are not known; empty if all are.

    Values are shown with every digit they have, so that what was found differs from what was expected.

    Args:
        array: a label map of any shape and type; 0 is always known.
        known: the values it may hold; None: every positive whole number of 31 bits; no software numbers lesions beyond.

    Example:
        >>> unknown_label_values(np.array([0, 1.0000001], np.float32), [0, 1])
        'unknown label value 1.0000001 (a fraction) in 1 voxels, expected 0, 1'
        >>> unknown_label_values(np.array([0, 7, -1024], np.int16), None)
        'unknown label value -1024 in 1 voxels, expected 0 or positive whole numbers of at most 2147483647'
        >>> unknown_label_values(np.array([0, 1]), [0, 1])
        ''
    """
    # Without the zeros, which are nearly all of a volume: the rest of the work is on few voxels.
    nonzero = array[array != 0]
    unknown = nonzero[~(_positive_and_whole(nonzero) if known is None else np.isin(nonzero, list(known)))]
    if not unknown.size:
        return ""
    values = np.unique(unknown)
    shown = ", ".join(shown_value(value) for value in values[:_MOST_SHOWN])
    more = f" and {len(values) - _MOST_SHOWN} others" if len(values) > _MOST_SHOWN else ""
    any_number = f"0 or positive whole numbers of at most {_LARGEST}"
    expected = any_number if known is None else ", ".join(map(str, sorted({0, *known})))
    return f"unknown label value {shown}{more} in {unknown.size} voxels, expected {expected}"


def _positive_and_whole(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    in_range = np.asarray(np.greater(values, 0) & np.less_equal(values, _LARGEST))
    if not np.issubdtype(values.dtype, np.floating):
        return in_range
    return np.asarray(in_range & (values == np.floor(values)))


def shown_value(value: np.generic) -> str:
    """A voxel's value with every digit of its own type.

    Args:
        value: a numpy scalar.

    Example:
        >>> shown_value(np.float32(255)), shown_value(np.int32(1000001)), shown_value(np.float64("nan"))
        ('255', '1000001', 'nan')
    """
    if not np.issubdtype(value.dtype, np.floating) or not np.isfinite(value):
        return str(value)
    return str(int(value)) if value == np.floor(value) else f"{value!s} (a fraction)"
