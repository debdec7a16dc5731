"""Lesions injected into images where nothing is seen, and what networks see of them: pure numerics.

Annotated lesions, shrunk, tell with what probability a network shows lesions of a size that annotators left out. What
is added to an image is a lesion's difference to its surroundings, in the image's own units.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lopsided.audit.components import measure_case
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.lesions import equivalent_diameter_mm, find_lesions

Mask = NDArray[np.bool_]
Image = NDArray[np.float32]

SEEN = 0.01  # a probability from which on a network sees something, so that nothing is injected there
SMALLEST_MM = 2.5
CLEAR_MM = 3.0  # between an injected lesion and whatever is seen or annotated
_LARGEST = 90  # percentile of the annotated diameters; a single large lesion would be most of what is injected
_ALIKE = (2.5, 97.5)  # percentiles of the surroundings of lesions, between which those of a place lie
_AROUND = 4  # voxels around a lesion that are cut out with it
_LEAST_RING = 8  # voxels, of which a median says something
_NEAREST = 10  # donors of about the diameter that is asked for, to choose from


@dataclass(frozen=True, kw_only=True)
class Donor:
    """An annotated lesion, cut out to be injected elsewhere.

    Attributes:
        difference: image minus ``surroundings`` in the lesion and one voxel around it, 0 beyond; (C, z, y, x) or
            (C, y, x).
        inside: 1 in the lesion, 0 around it; (z, y, x) or (y, x).
        surroundings: median around the lesion in each channel, (C,).
        spread: standard deviation there, (C,).
        diameter_mm: of the sphere (2D: circle) of equal volume.
    """

    difference: Image
    inside: Image
    surroundings: Image
    spread: Image
    diameter_mm: float


def case_generator(seed: int, case: str) -> np.random.Generator:
    """Random numbers of one case, which depend neither on other cases nor on their order.

    Example:
        >>> case_generator(0, "a").random() == case_generator(0, "a").random() != case_generator(0, "b").random()
        True
    """
    digest = hashlib.sha256(json.dumps([int(seed), case]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def find_donors(
    images: Sequence[NDArray[np.generic]],
    label: Mask,
    spacing_mm: Sequence[float],
    connectivity: int | None = None,
) -> list[Donor]:
    """The annotated lesions of a case, but for those that other lesions surround.

    Args:
        images: one per channel, (z, y, x) or (y, x).
        label: annotated lesions, same shape.
        spacing_mm: voxel size along each axis.
        connectivity: of lesions.

    Example:
        >>> label = np.zeros((9, 9), bool)
        >>> label[4, 4] = True
        >>> (donor,) = find_donors([np.where(label, 7, 2)], label, (1, 1))
        >>> donor.surroundings.tolist(), float(donor.difference.max()), int(np.count_nonzero(donor.difference))
        ([2.0], 5.0, 1)
    """
    lesions = find_lesions(label, spacing_mm, connectivity)
    of_voxel, cross = lesions.instances(), ndimage.generate_binary_structure(label.ndim, 1)
    found = []
    for i, box in enumerate(lesions.boxes.tolist()):
        part = tuple(
            slice(max(0, a - _AROUND), min(n, b + _AROUND)) for (a, b), n in zip(box, label.shape, strict=True)
        )
        own = of_voxel[part] == i + 1
        others = (of_voxel[part] > 0) & ~own
        edge = ndimage.binary_dilation(own, cross)
        ring = ndimage.binary_dilation(edge, cross, 2) & ~edge & ~ndimage.binary_dilation(others, cross)
        if ring.sum() < _LEAST_RING:
            continue
        patch = np.stack([channel[part] for channel in images]).astype(np.float32)
        median = np.median(patch[:, ring], axis=1).astype(np.float32)
        # One voxel more than the lesion: its partial volumes, which annotators leave out.
        difference = (patch - median.reshape(-1, *[1] * label.ndim)) * (edge & ~others)
        found.append(
            Donor(
                difference=difference,
                inside=own.astype(np.float32),
                surroundings=median,
                spread=patch[:, ring].std(axis=1),
                diameter_mm=float(lesions.diameter_mm[i]),
            )
        )
    return found


def injected_diameters_mm(donors: Sequence[Donor], spacing_mm: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest diameter that is injected, in mm.

    From 2.5 mm, the diameter of one voxel at least, to nearly the largest annotated one; from half of that, where
    annotated lesions are smaller than usual in medicine.

    Args:
        donors: at least one.
        spacing_mm: voxel size along each axis.

    Example:
        >>> nothing = np.zeros(1, np.float32)
        >>> def of(mm):
        ...     return Donor(difference=nothing, inside=nothing, surroundings=nothing, spread=nothing, diameter_mm=mm)
        >>> injected_diameters_mm([of(8.0)], (1, 1, 1)), injected_diameters_mm([of(3.0)], (1, 1, 1))
        ((2.5, 8.0), (1.5, 3.0))
    """
    largest = float(np.percentile([donor.diameter_mm for donor in donors], _LARGEST))
    voxel = float(equivalent_diameter_mm(np.array([np.prod(spacing_mm)]), len(spacing_mm))[0])
    low = max(voxel, min(SMALLEST_MM, largest / 2))
    return low, max(low, largest)


def inject(
    rng: np.random.Generator,
    images: Sequence[NDArray[np.generic]],
    blocked: Mask,
    donors: Sequence[Donor],
    spacing_mm: Sequence[float],
    n: int,
) -> tuple[list[Image], Mask]:
    """Inject lesions into a case, where nothing blocks them and the surroundings are like those of annotated lesions.

    Diameters are drawn log-uniformly. A lesion is made of one that is as large or larger, shrunk; where there is no
    room for it, it is left out.

    Args:
        rng: what is drawn from.
        images: one per channel, (z, y, x) or (y, x).
        blocked: what is annotated, seen or unknown, same shape; 3 mm around it stay free, and one voxel.
        donors: of cases with the same channels and voxel size; without any, nothing is injected.
        spacing_mm: voxel size along each axis.
        n: how many.

    Returns:
        The images as float32, and the voxels of the injected lesions.
    """
    changed, mask = [image.astype(np.float32) for image in images], np.zeros(blocked.shape, bool)
    if not donors:
        return changed, mask
    low, high = np.log(injected_diameters_mm(donors, spacing_mm))
    places = np.flatnonzero(_alike(changed, donors))
    at_mm = [(c * s).astype(np.float32) for c, s in zip(np.unravel_index(places, mask.shape), spacing_mm, strict=True)]
    # Of every place, how far it is from what is blocked or was injected before.
    room = _distance_mm(blocked, spacing_mm).reshape(-1)[places]
    for _ in range(n):
        diameter = float(np.exp(rng.uniform(low, high)))
        share, difference = _shrunk_donor(rng, donors, diameter)
        free = np.flatnonzero(room > diameter / 2 + CLEAR_MM)
        if not len(free):
            continue
        centre = int(free[rng.integers(len(free))])
        first = np.array(np.unravel_index(places[centre], mask.shape)) - np.array(share.shape) // 2
        to, of = _overlapping(first, share.shape, mask.shape)
        inside = share >= min(0.5, float(share.max()))
        # Where voxels are large, 3 mm are less than one: a lesion that touches another would be one with it.
        grown = ndimage.binary_dilation(inside, np.ones([3] * mask.ndim, bool))
        if not inside[of].any() or (grown[of] & (blocked[to] | mask[to])).any():
            continue
        for channel, added in zip(changed, difference, strict=True):
            channel[to] += added[of]
        mask[to] |= inside[of]
        away = np.sqrt(sum((axis - axis[centre]) ** 2 for axis in at_mm))
        room = np.minimum(room, away - diameter / 2 - 2 * min(spacing_mm))
    return changed, mask


def _alike(images: Sequence[Image], donors: Sequence[Donor]) -> Mask:
    """Where all channels are, in the mean of some voxels, as around annotated lesions: not air or a ventricle."""
    lows, highs = np.percentile([donor.surroundings for donor in donors], _ALIKE, axis=0)
    # Wider by twice what a mean of so many voxels is off by noise: of few lesions the medians hardly differ.
    noise = 2 * np.median([donor.spread for donor in donors], axis=0) / 3 ** (images[0].ndim / 2)
    alike = np.ones(images[0].shape, bool)
    for channel, low, high in zip(images, lows - noise, highs + noise, strict=True):
        usual = ndimage.uniform_filter(channel, 3)
        alike &= (usual >= low) & (usual <= high)
    return alike


def _distance_mm(blocked: Mask, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    if not blocked.any():  # scipy measures to a place outside the image then
        return np.full(blocked.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~blocked, sampling=spacing_mm))


def _shrunk_donor(rng: np.random.Generator, donors: Sequence[Donor], diameter_mm: float) -> tuple[Image, Image]:
    """How much of each voxel is lesion, and what is to be added, of a lesion of this diameter; odd sides."""
    enough = sorted((d for d in donors if d.diameter_mm >= 0.9 * diameter_mm), key=lambda d: d.diameter_mm)
    nearest = enough[: max(_NEAREST, len(enough) // 2)] or donors
    donor = nearest[int(rng.integers(len(nearest)))]
    scale = diameter_mm / donor.diameter_mm
    # A voxel more, in which the lesion can be grown.
    return np.pad(shrunk(donor.inside, scale), 1), np.stack([np.pad(shrunk(c, scale), 1) for c in donor.difference])


def shrunk(array: Image, scale: float) -> Image:
    """The array in ``scale`` times as many voxels along each axis, an odd number, its middle where it was.

    It is smoothed first, so that small lesions have partial volumes.

    Example:
        >>> shrunk(np.ones((1, 9)), 1 / 3).round(1).tolist()
        [[0.4, 0.4, 0.4]]
    """
    smooth = ndimage.gaussian_filter(array, 0.5 * max(0.0, 1 / scale - 1), mode="constant")
    shape = [max(1, math.ceil(n * scale) | 1) for n in array.shape]
    offset = [(n - 1) / 2 - (k - 1) / 2 / scale for n, k in zip(array.shape, shape, strict=True)]
    matrix = np.eye(array.ndim) / scale
    return np.asarray(ndimage.affine_transform(smooth, matrix, offset, tuple(shape), order=1, mode="constant"))


def _overlapping(
    first: NDArray[np.integer], box: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The voxels of an image that a box covers which begins at ``first``, and the same voxels in the box."""
    last = first + np.array(box)
    to = tuple(slice(max(0, int(a)), min(n, int(b))) for a, b, n in zip(first, last, shape, strict=True))
    return to, tuple(slice(t.start - int(a), t.stop - int(a)) for t, a in zip(to, first, strict=True))


def as_type(image: Image, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """An image in a type of whole numbers, rounded and within its range; of any other type it stays float32.

    Example:
        >>> as_type(np.array([-3, 1.6, 300], np.float32), np.dtype(np.uint8)).tolist()
        [0, 2, 255]
    """
    if not np.issubdtype(dtype, np.integer):
        return image
    ends = np.iinfo(np.dtype(dtype).name)
    return np.clip(np.rint(image.astype(np.float64)), ends.min, ends.max).astype(dtype)


@dataclass(frozen=True, kw_only=True)
class SeenInCase:
    """What the networks see of the lesions injected into one case.

    Attributes:
        diameter_mm: of every injected lesion, (N,).
        found_mm: of those that a component matches, (F,).
        found_score: highest probability of this component, within [0, 1], (F,).
    """

    diameter_mm: NDArray[np.float64]
    found_mm: NDArray[np.float64]
    found_score: NDArray[np.float64]


def measure_injected(
    annotated: Mask,
    injected: Mask,
    *,
    predictions: Sequence[NDArray[np.floating]],
    spacing_mm: Sequence[float],
    rules: EvaluationRules,
    valid: Mask | None = None,
    case: str = "",
) -> SeenInCase:
    """Find the components that injected lesions make, as the audit finds those of its candidates.

    Args:
        annotated: lesions, shape (z, y, x) or (y, x).
        injected: lesions that touch none of these, same shape.
        predictions: lesion probabilities of the changed images, same shape.
        spacing_mm: voxel size along each axis.
        rules: of components and matches; components below their threshold count as not found.
        valid: voxels with annotation, same shape; None: all.
        case: its name, for messages.
    """
    measured = measure_case(
        annotated | injected,
        predictions=predictions,
        images=[],
        spacing_mm=spacing_mm,
        rules=rules,
        valid=valid,
        case=case,
    )
    lesions = measured.lesions
    n_injected = np.bincount(lesions.voxel_ids[injected.reshape(-1)[lesions.voxels]], minlength=len(lesions) + 1)[1:]
    own, of_component = n_injected > 0, measured.lesion_of_component
    found = (of_component >= 0) & (measured.level >= rules.threshold)
    found[found] = own[of_component[found]]
    return SeenInCase(
        diameter_mm=measured.lesion_diameter_mm[own],
        found_mm=measured.lesion_diameter_mm[of_component[found]],
        found_score=measured.max_probability[found],
    )
