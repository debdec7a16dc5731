"""Whether probabilities fit their classes and the label map beside them: channels may be swapped, or files stale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError

# Softmax in float32, and sums of its channels, leave [0, 1] by rounding only; what exceeds this is not a probability.
ROUNDING = 1e-3
# Sums of float16 channels differ from 1 by less.
SUM_TOLERANCE = 2e-2
# A softmax sums to 1 in every voxel, so that few tell; sums of all would be one more array of the volume's size.
_SAMPLED_VOXELS = 4096


class UnfitChannels(InputError):
    """The channels are not those of the classes."""


def require_probabilities(channel: NDArray[np.floating], number: int) -> None:
    """Refuse a channel that holds NaN, infinity, or values beyond [0, 1] by more than rounding.

    Raises:
        UnfitChannels: it does.
    """
    if within_0_and_1(channel):
        return
    low, high = channel.min(initial=1), channel.max(initial=0)  # both NaN if any value is
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise UnfitChannels(f"expected finite probabilities within [0, 1], found {low} to {high} in channel {number}")


def within_0_and_1(values: NDArray[np.floating]) -> bool:
    """Whether one fast pass proves every value to be within [0, 1]; False where it does not tell.

    Read as unsigned integers, the bits of floating-point numbers of at least 0 are in the numbers' own order, and those
    of negative numbers and of NaN are greater.

    Example:
        >>> [within_0_and_1(np.float32(values)) for values in ([0, 1], [0, 1.0001], [-1e-9, 1], [0, np.nan], [-0.0])]
        [True, False, False, False, False]
    """
    kind = values.dtype
    if kind.itemsize not in (2, 4, 8) or not kind.isnative:
        return False
    bits = np.dtype(f"u{kind.itemsize}")
    return bool(values.view(bits).max(initial=0) <= np.ones((), kind).view(bits))


def sampled(channel: NDArray[np.floating]) -> NDArray[np.float32]:
    """Some thousand voxels of a channel, the same of each."""
    return channel.reshape(-1)[:: max(1, channel.size // _SAMPLED_VOXELS)].astype(np.float32)


def wide(channel: NDArray[np.floating]) -> NDArray[np.floating]:
    """The channel in a type to calculate with: float16 becomes float32."""
    return channel.astype(np.float32) if channel.dtype == np.float16 else channel


def sums_to_one(sums: NDArray[np.float32]) -> bool:
    """Whether the channels of a softmax were summed."""
    return bool(np.allclose(sums, 1, atol=SUM_TOLERANCE))


def check_not_swapped(path: Path, probability: NDArray[np.floating], reference: NDArray[np.bool_]) -> bool:
    """Refuse the probability of the background in place of the lesion's where it is proven; else say if it looks so.

    It looks so where most voxels outside of the reference's lesions are called lesion, and those inside less often. A
    network that has hardly trained may do that as well: its probabilities may be anything. The proof is that what is
    *not* called lesion segments the reference's lesions (a Dice of at least 0.5, of at least ten voxels): no network
    learns to find lesions and to spare just them.

    Args:
        path: of the array, for the message.
        probability: of lesion.
        reference: where there is lesion, same shape; without any nothing can be told.

    Returns:
        Whether it looks so.

    Raises:
        InputError: it is proven.
    """
    called = probability >= 0.5
    n_lesion = int(np.count_nonzero(reference))
    n_outside = reference.size - n_lesion
    # Of most arrays this one count is enough: fewer than half of the outside cannot be most of it.
    if np.count_nonzero(called) * 2 <= n_outside or not n_lesion:
        return False
    n_inside = int(np.count_nonzero(called & reference))
    share_inside = n_inside / n_lesion
    share_outside = np.count_nonzero(called & ~reference) / max(n_outside, 1)
    if not (share_outside > 0.5 and share_inside < share_outside):
        return False
    n_spared = called.size - int(np.count_nonzero(called))
    dice = 2 * (n_lesion - n_inside) / (n_spared + n_lesion)
    if n_lesion >= 10 and dice >= 0.5:
        raise InputError(
            f"{path} gives lesion a probability of at least 0.5 in {share_outside:.0%} of the voxels outside of the "
            f"reference's lesions and in {share_inside:.0%} inside, and what it spares are the lesions: are its "
            "channels in another order than the classes?"
        )
    return True


def is_of_another_threshold(probability: NDArray[np.floating], segmentation: NDArray[np.bool_]) -> bool:
    """Whether a label map holds the most probable voxels, so that it was made of these probabilities at some threshold.

    Args:
        probability: of lesion.
        segmentation: the lesion voxels of the label map, same shape, at least one.

    Returns:
        Whether at least half of the labelled voxels are among the as many most probable ones. Of a flipped or foreign
        array few are.
    """
    n_labelled = int(np.count_nonzero(segmentation))
    flat = probability.reshape(-1)
    least = np.partition(flat, flat.size - n_labelled)[flat.size - n_labelled]
    # Where the n-th highest value is that of the background, every voxel is among the highest.
    return bool(least > 0) and int((probability[segmentation] >= least).sum()) * 2 >= n_labelled
