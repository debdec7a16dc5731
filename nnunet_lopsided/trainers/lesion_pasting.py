"""Annotated lesions cut out of images and pasted elsewhere: numerics of an augmentation, on arrays of one patch.

What is pasted is a lesion's difference to its surroundings, so that it looks as it did on the background it gets. Copy
and paste as augmentation: Ghiasi et al. 2021; scaled to sizes that annotations lack, with soft edges: ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lopsided.lesions import Lesions, equivalent_diameter_mm

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]
Mask = NDArray[np.bool_]

GROWN = 3  # voxels around a lesion, of which its surroundings are read
CLEAR = 2  # voxels between what is pasted and any label
SOFT = 0.4  # blur of the edge in voxels, as standard deviation
FAINTEST = 0.02  # a share of a lesion that nobody sees
TRIES = 20  # places, after which the patch counts as full
ALIKE = (0.02, 0.98)  # quantiles of the medians around lesions, within a spread of which a place's must lie


@dataclass(frozen=True, kw_only=True)
class CutLesion:
    """A lesion with a few voxels around.

    Attributes:
        label: label values of the lesion, 0 around it; (z, y, x).
        surroundings: median of what is unlabelled around it in each channel, (C,).
        spread: standard deviation there, (C,).
        difference: image minus the median, (C, z, y, x).
        diameter_mm: of the sphere of equal volume.
    """

    label: NDArray[np.int16]
    surroundings: NDArray[np.float32]
    spread: NDArray[np.float32]
    difference: NDArray[np.float32]
    diameter_mm: float


def box_around(lesions: Lesions, i: int) -> tuple[slice, ...]:
    """The voxels of lesion ``i`` (from 0) and :data:`GROWN` around."""
    return tuple(
        slice(max(0, int(a) - GROWN), min(n, int(b) + GROWN))
        for (a, b), n in zip(lesions.boxes[i], lesions.shape, strict=True)
    )


def cut_lesion(image: Floats, label: Labels, inside: Mask, diameter_mm: float) -> CutLesion | None:
    """One lesion of an image.

    Args:
        image: around the lesion, (C, z, y, x).
        label: label values there, all lesions'; negative outside the image; (z, y, x).
        inside: the lesion, likewise.
        diameter_mm: its.

    Returns:
        None where nothing unlabelled surrounds it.

    Example:
        >>> label = np.array([[[0, 1, 0]]])
        >>> cut = cut_lesion(np.array([[[[3.0, 9, 3]]]]), label, label == 1, diameter_mm=1)
        >>> cut.difference.tolist(), cut.label.tolist()
        ([[[[0.0, 6.0, 0.0]]]], [[[0, 1, 0]]])
    """
    around = label == 0
    if not around.any():
        return None
    median = np.median(image[:, around], axis=1).astype(np.float32)
    return CutLesion(
        label=np.where(inside, label, 0).astype(np.int16),
        surroundings=median,
        spread=image[:, around].std(1).astype(np.float32),
        difference=(image - median[:, None, None, None]).astype(np.float32),
        diameter_mm=diameter_mm,
    )


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where lesions may be pasted into a patch; masks (z, y, x).

    Attributes:
        taken: labelled or pasted: what is pasted keeps two voxels away.
        outside: of the image: nothing is pasted on it.
    """

    taken: Mask
    outside: Mask

    @classmethod
    def of(cls, label: Labels) -> Room:
        """Every label is taken, the ignored one too; negative is outside.

        Example:
            >>> room = Room.of(np.array([[[0, 2, -1]]]))
            >>> room.taken.tolist(), room.outside.tolist()
            ([[[False, True, False]]], [[[False, False, True]]])
        """
        return cls(taken=label > 0, outside=label < 0)


@dataclass(frozen=True, kw_only=True)
class Paster:
    """Pastes lesions of random diameters at random places of a patch.

    Attributes:
        lesions: to choose from, at least one.
        diameters_mm: the smallest and the largest, between which a diameter is drawn log-uniformly.
        background: the lowest and the highest median of each channel, (2, C), that a place may have before something is
            pasted there.
        slicewise: patches are slices: what is pasted is one slice through a lesion, scaled in the plane alone.
    """

    lesions: Sequence[CutLesion] = field(repr=False)  # nnU-Net writes what a trainer holds to debug.json
    diameters_mm: tuple[float, float]
    background: NDArray[np.float32]
    slicewise: bool

    @classmethod
    def of(cls, lesions: Sequence[CutLesion], spacing_mm: Sequence[float], *, slicewise: bool) -> Paster:
        """From half of the smallest annotated diameter, 1.25 voxels of the plane at least, to their upper quartile.

        Up to the largest, a single large lesion would be what is pasted most, and what the network learns. Places must
        look like what surrounds lesions: not like air, bone or a ventricle.

        Args:
            lesions: at least one.
            spacing_mm: of the voxels, the plane's axes last.
            slicewise: see above.
        """
        diameters = [lesion.diameter_mm for lesion in lesions]
        low = max(0.5 * min(diameters), 1.25 * float(spacing_mm[-1]))
        medians = np.quantile([lesion.surroundings for lesion in lesions], ALIKE, axis=0)
        spread = np.median([lesion.spread for lesion in lesions], axis=0)  # of a single lesion there is one median
        return cls(
            lesions=lesions,
            diameters_mm=(low, max(low, float(np.quantile(diameters, 0.75)))),
            background=(medians + np.array([[-1], [1]]) * spread).astype(np.float32),
            slicewise=slicewise,
        )

    def paste(self, rng: np.random.Generator, image: Floats, label: Labels, room: Room) -> float | None:
        """Paste one lesion, in place, where the patch may cut it.

        Args:
            rng: what is drawn from.
            image: (C, z, y, x), changed.
            label: (z, y, x), changed.
            room: what is pasted is added to what is taken.

        Returns:
            The diameter asked for; None if nothing was pasted, as there was no room or too little of it to label.
        """
        diameter = float(np.exp(rng.uniform(*np.log(self.diameters_mm))))
        # A lesion is shrunk rather than blown up: of the larger ones, if there are any.
        larger = [lesion for lesion in self.lesions if lesion.diameter_mm >= diameter] or self.lesions
        share, values, added = self._drawn(rng, larger[int(rng.integers(len(larger)))], diameter)
        if share.max() < 0.5:  # too little of it to label, wherever it is
            return None
        half = np.array(share.shape) // 2
        # The lesion is grown, not the labels of the whole patch: in 3D that took longer than all else.
        clear = np.array([0 if self.slicewise else CLEAR, CLEAR, CLEAR])
        all_seen = share > FAINTEST
        grown = ndimage.binary_dilation(np.pad(all_seen, [(n, n) for n in clear]), np.ones(2 * clear + 1, bool))
        for _ in range(TRIES):
            first = rng.integers(label.shape) - half
            place, part = _cut_by(label.shape, first, share.shape)
            around, of_grown = _cut_by(label.shape, first - clear, grown.shape)
            seen, labelled = all_seen[part], share[part] >= 0.5
            free = not (room.outside[place] & seen).any() and not (room.taken[around] & grown[of_grown]).any()
            if labelled.any() and free and self._looks_like_surroundings(image[(slice(None), *place)][:, seen]):
                image[(slice(None), *place)] += added[(slice(None), *part)]
                label[place][labelled] = values[part][labelled]
                room.taken[place] |= seen
                return diameter
        return None

    def _looks_like_surroundings(self, pixels: Floats) -> bool:
        """Whether a place, (C, voxels), looks like what surrounds lesions."""
        low, high = self.background
        median = np.median(pixels, axis=1)
        return bool(((low <= median) & (median <= high)).all())

    def _drawn(
        self, rng: np.random.Generator, lesion: CutLesion, diameter: float
    ) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.float32]]:
        label, difference = lesion.label, lesion.difference
        if self.slicewise:
            z = [int(rng.choice(np.flatnonzero(label.any((1, 2)))))]
            label, difference = label[z], difference[:, z]
        return scaled_and_turned(
            label,
            difference,
            factor=diameter / lesion.diameter_mm,
            angle=float(rng.uniform(0, 2 * np.pi)),
            mirrored=bool(rng.integers(2)),
            shift=rng.uniform(-0.5, 0.5, 3),
            slicewise=self.slicewise,
        )


def scaled_and_turned(
    label: Labels,
    difference: Floats,
    *,
    factor: float,
    angle: float,
    mirrored: bool,
    shift: Sequence[float] | Floats,
    slicewise: bool,
) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.float32]]:
    """A lesion in another size and position, with soft edges.

    Args:
        label: (z, y, x), 0 outside the lesion.
        difference: (C, z, y, x).
        factor: of the diameter.
        angle: by which it is turned in the plane, in radians, from its last axis to the one before;
            voxels of the plane are taken for squares.
        mirrored: along the last axis, before it is turned.
        shift: of its middle against a voxel's, in voxels of each axis.
        slicewise: scaled and softened in the plane alone.

    Returns:
        How much of each voxel is lesion (0 to 1), label values, and what is to be added to each channel; odd sides. One
        voxel of nothing, if that is what is left of it.
    """
    along = np.array([0 if slicewise else 1, 1, 1])
    scale = np.where(along, factor, 1.0)
    pad = [(2 * n, 2 * n) for n in along]
    mask = np.pad((label != 0).astype(np.float32), pad)
    soft = ndimage.gaussian_filter(mask, SOFT / scale * along, mode="constant")
    weighted = soft * np.pad(difference, [(0, 0), *pad], mode="edge")
    # Beyond the lesion the nearest of its values; where a voxel counts as lesion is decided by its share.
    nearest = ndimage.distance_transform_edt(mask == 0, return_distances=False, return_indices=True)
    values = np.pad(label, pad)[tuple(nearest)]
    cos, sin, side = np.cos(angle), np.sin(angle), -1.0 if mirrored else 1.0
    to_source = np.array([[1.0, 0, 0], [0, cos, -sin], [0, side * sin, side * cos]]) / scale[:, None]
    inside = np.argwhere(soft > FAINTEST)
    if not len(inside):  # the end of a large lesion, a voxel or two, shrunk to less than anybody sees
        nothing = np.zeros((1, 1, 1), np.float32)
        return nothing, nothing.astype(np.int16), np.stack([nothing] * len(difference))
    middle = inside.mean(0)
    # One voxel of the source more: as far does linear interpolation carry its edge.
    reach = np.abs(inside - middle) * scale + scale
    in_plane = np.hypot(reach[:, 1], reach[:, 2]).max()
    half = np.ceil([reach[:, 0].max(), in_plane, in_plane]).astype(int) * along
    offset = middle - to_source @ (half + np.asarray(shift) * along)
    shape = tuple(2 * half + 1)

    def drawn(array: Floats) -> NDArray[np.float32]:
        result: NDArray[np.float32] = ndimage.affine_transform(array, to_source, offset, shape, order=1)
        return result

    drawn_values = ndimage.affine_transform(values, to_source, offset, shape, order=0, mode="nearest")
    return drawn(soft), drawn_values.astype(np.int16), np.stack([drawn(channel) for channel in weighted])


def _cut_by(
    shape: Sequence[int], first: NDArray[np.integer], box: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """A box at ``first`` that a patch may cut: the voxels in the patch, and the same ones in the box."""
    start, last = np.maximum(first, 0), np.minimum(first + np.array(box), shape)
    return (
        tuple(slice(int(a), int(b)) for a, b in zip(start, last, strict=True)),
        tuple(slice(int(a), int(b)) for a, b in zip(start - first, last - first, strict=True)),
    )


def diameter_mm(n_voxels: int, spacing_mm: Sequence[float]) -> float:
    """Of the sphere of equal volume; a slice's spacing has two numbers, then of the circle of equal area."""
    size = np.array([n_voxels * np.prod(spacing_mm)], float)
    return float(equivalent_diameter_mm(size, len(spacing_mm))[0])
