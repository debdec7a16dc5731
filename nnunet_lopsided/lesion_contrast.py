"""How much each lesion differs from its surroundings: pure numerics on one case's images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lopsided.lesions import Lesions

SHELL_MM = 3.0
# Makes the median absolute deviation of a normal distribution its standard deviation.
_DEVIATIONS = 1.4826


def lesion_contrast(
    channels: Sequence[NDArray[np.generic]], lesions: Lesions, labelled: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The contrast of every lesion, in robust standard deviations; at least 0, ``inf`` where nothing surrounds it.

    The largest absolute :func:`channel_contrasts`: a lesion is as visible as the channel that shows it best.

    Args:
        channels: one image per channel, each of the lesions' shape, finite.
        lesions: K lesions of one case.
        labelled: voxels with any label, the lesions included: they are no surroundings. The lesions' shape.

    Returns:
        Shape (K,).

    Example:
        >>> import numpy as np
        >>> from nnunet_lopsided.lesions import find_lesions
        >>> image = np.array([[9.0, 9.0, 11.0, 11.0, 20.0, 11.0, 9.0, 9.0]])
        >>> lesions = find_lesions(image == 20, spacing_mm=(1.0, 1.0))
        >>> lesion_contrast([image], lesions, image == 20).round(3).tolist()  # |20 - 10| / (1.4826 x 1)
        [6.745]
    """
    contrasts = np.abs(channel_contrasts(channels, lesions, labelled))
    return np.where(np.isnan(contrasts).all(axis=1), np.inf, contrasts.max(axis=1, initial=0.0))


def channel_contrasts(
    channels: Sequence[NDArray[np.generic]], lesions: Lesions, labelled: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """How much brighter (positive) or darker every lesion is than its surroundings, in robust standard deviations.

    In one channel it is ``(mean inside - mean of the shell) / spread``. The shell are the unlabelled voxels whose
    centre is within 3 mm (or one voxel, where voxels are larger) of a voxel of the lesion; voxels that are 0 in every
    channel (outside the brain, where it was cut out) are left out of it, unless there are no others. The spread is
    1.4826 x the median absolute deviation from the median over all voxels of the case that are not 0 in every channel:
    one number per case and channel, so lesions of different scanners can be compared. Where it is 0 the standard
    deviation stands in, and a channel that is constant has contrast 0.

    Args:
        channels: as for :func:`lesion_contrast`.
        lesions: likewise.
        labelled: likewise.

    Returns:
        Shape (K, channels); NaN where nothing surrounds a lesion.
    """
    if not len(lesions):
        return np.zeros((0, len(channels)))
    tissue = np.zeros(lesions.shape, bool)
    for channel in channels:
        tissue |= channel != 0
    spreads = [_spread(channel[tissue]) for channel in channels]
    contrast = np.full((len(lesions), len(channels)), np.nan)
    for i, inside in enumerate(lesions.voxels_by_id()):
        shell = _shell(inside, lesions, i, labelled)
        # Air around a brain that was cut out would make every lesion look bright.
        shell = shell[tissue.reshape(-1)[shell]] if tissue.reshape(-1)[shell].any() else shell
        if not len(shell):
            continue
        differences = [_mean(channel, inside) - _mean(channel, shell) for channel in channels]
        contrast[i] = [d / s if s > 0 else 0.0 for d, s in zip(differences, spreads, strict=True)]
    return contrast


def _shell(inside: NDArray[np.int64], lesions: Lesions, i: int, labelled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Flat indices of the unlabelled voxels around lesion ``i``."""
    spacing = np.asarray(lesions.spacing_mm)
    radius = max(SHELL_MM, spacing.min())
    # The small terms keep a voxel that lies exactly at the radius, whichever way the division was rounded.
    margin = np.floor(radius / spacing + 1e-9).astype(int)
    low = np.maximum(lesions.boxes[i, :, 0] - margin, 0)
    high = np.minimum(lesions.boxes[i, :, 1] + margin, lesions.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    mask = np.zeros((high - low).tolist(), bool)
    mask[tuple(c - a for c, a in zip(np.unravel_index(inside, lesions.shape), low, strict=True))] = True
    near = ndimage.distance_transform_edt(~mask, sampling=spacing) <= radius + 1e-6
    at = np.nonzero(near & ~labelled[box])
    shell: NDArray[np.int64] = np.ravel_multi_index(tuple(c + a for c, a in zip(at, low, strict=True)), lesions.shape)
    return shell


def _mean(channel: NDArray[np.generic], flat: NDArray[np.int64]) -> float:
    return float(channel.reshape(-1)[flat].mean(dtype=np.float64))


def _spread(values: NDArray[np.generic]) -> float:
    if not len(values):
        return 0.0
    numbers = values.astype(np.float64)
    return float(_DEVIATIONS * np.median(np.abs(numbers - np.median(numbers))) or numbers.std())
