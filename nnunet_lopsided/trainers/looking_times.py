"""When a training looks back: after it knows lesions, and before it knows by heart which of them are labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.nnunet.preprocessed_case import ClassLocations

# Omissions are learned by heart after so many passes over the data, however long the training: for nnU-Net's
# networks from here on, for smaller ones later (docs/results/recipe.md). Where few cases fill a batch, so many passes
# are too few steps to learn what a lesion is.
KNOWN_AFTER_PASSES, KNOWN_AFTER_STEPS = 5, 200
LATEST_LOOK, LOOKS_AGAIN = 30.0, (50.0, 70.0)  # percent of the training
CENTRED_ON_LESIONS = 0.33  # nnU-Net's share of patches


def knows_lesions_at(passes_per_epoch: float, steps_per_epoch: int, n_epochs: int) -> int:
    """The first epoch after 5 passes over the training data and 200 steps, whichever is later; at the latest at 30%.

    Example:
        >>> knows_lesions_at(6.875, 80, 10), knows_lesions_at(6.875, 80, 40), knows_lesions_at(20, 80, 40)
        (3, 3, 3)
        >>> knows_lesions_at(1.2, 250, 1000), knows_lesions_at(0.01, 250, 1000)
        (5, 300)
    """
    epochs = max(KNOWN_AFTER_PASSES / passes_per_epoch, KNOWN_AFTER_STEPS / steps_per_epoch)
    # What rounding adds to a whole number is no epoch.
    return min(first_epoch(LATEST_LOOK, n_epochs), math.ceil(epochs - 1e-6))


def looks(first: int, n_epochs: int) -> list[int]:
    """Epochs before which a training looks: the first; twice, four times, ... as late; 50 and 70% of the training.

    What would come shortly before 50% is left out.

    Example:
        >>> looks(3, 10), looks(5, 1000), looks(8, 10)
        ([3, 5, 7], [5, 10, 20, 40, 80, 160, 320, 500, 700], [8])
    """
    later = [first_epoch(percent, n_epochs) for percent in LOOKS_AGAIN]
    found, epoch = [first], 2 * max(1, first)
    while 1.5 * epoch < later[0]:
        found.append(epoch)
        epoch *= 2
    return found + [epoch for epoch in later if epoch > first]


def share_shown(patch: Sequence[int], shape: Sequence[int], extent: Sequence[int] | None) -> float:
    """The probability that a patch of a case shows a lesion that is missing from the labels.

    nnU-Net centres every third patch on an annotated voxel. Missing lesions are taken to lie anywhere in a box as large
    as the one that holds annotated ones.

    Args:
        patch: its shape; in 2D of one slice.
        shape: of the case, (z, y, x).
        extent: of that box, (z, y, x); None where the case has no annotated lesion.

    Example:
        >>> share_shown((10, 20), (4, 10, 40), None)  # one slice of four, half of its width
        0.125
        >>> round(share_shown((10, 20), (4, 10, 40), (2, 1, 10)), 6)  # centred: one of two slices
        0.24875
    """
    sides = [*(1,) * (len(shape) - len(patch)), *patch]
    anywhere = math.prod(min(n, side) / side for n, side in zip(sides, shape, strict=True))
    if extent is None:
        return anywhere
    box = [min(length, side) for length, side in zip(extent, shape, strict=True)]
    centred = math.prod(_of_pairs_near(n, length) for n, length in zip(sides, box, strict=True))
    return CENTRED_ON_LESIONS * centred + (1 - CENTRED_ON_LESIONS) * anywhere


def _of_pairs_near(n: int, length: int) -> float:
    """The share of pairs of places on a line whose second one lies in the n voxels that are centred on the first."""
    total = length
    for reach in (n // 2, n - 1 - n // 2):  # below and above
        within = min(reach, length - 1)
        total += within * length - within * (within + 1) // 2
    return total / length**2


def extent_of_lesions(locations: ClassLocations) -> NDArray[np.int64] | None:
    """Of the box that holds all annotated voxels of nnU-Net's (c, z, y, x), (3,); None without any.

    Example:
        >>> extent_of_lesions({1: [[0, 3, 4, 5], [0, 2, 4, 9]], 2: [], (-1, 0, 1): [[0, 0, 0, 0]]}).tolist()
        [2, 1, 5]
    """
    # Where there is an ignore label, one key stands for all that is annotated, background included.
    voxels = [
        np.asarray(of_class)[:, 1:]
        for key, of_class in locations.items()
        if len(of_class) and min(key if isinstance(key, tuple) else (key,)) > 0
    ]
    return np.ptp(np.concatenate(voxels), axis=0) + 1 if voxels else None


def first_epoch(percent: float, n_epochs: int) -> int:
    """The first epoch that begins after so many percent of the training.

    Example:
        >>> first_epoch(30, 10), first_epoch(10, 25), first_epoch(100, 10)
        (3, 3, 10)
    """
    return math.ceil(percent * n_epochs / 100)
