"""Annotated lesions of the training cases, scaled, turned and pasted elsewhere: an idea that `screen.py` tries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lopsided.lesions import find_lesions

Array = NDArray[Any]
GROWN = (1, 3, 3)  # voxels around a lesion, of which its surroundings are read
CLEAR = (0, 2, 2)  # voxels between what is pasted and any label
SOFT = 0.4  # blur of the edge in voxels, as standard deviation
FAINTEST = 0.02  # a share of a lesion that nobody sees
TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A lesion cut out.

    Attributes:
        mask: 1 in the lesion, (z, y, x).
        difference: image minus the median of the surroundings in each channel, (C, z, y, x).
        diameter_mm: of the sphere of equal volume.
    """

    mask: Array
    difference: Array
    diameter_mm: float


def outside(image: Array) -> Array:
    """Voxels outside of the brain, where all channels (C, z, y, x) have their first value."""
    return (image == image[:, :1, :1, :1]).all(0)


def grown(mask: Array) -> Array:
    return ndimage.binary_dilation(mask, np.ones([2 * n + 1 for n in CLEAR]))


def blocked_voxels(image: Array, label: Array) -> Array:
    """Where nothing is pasted: near any label, and outside of the brain."""
    return outside(image) | grown(label != 0)


def cut_out(image: Array, label: Array, spacing_mm: Sequence[float]) -> list[Lesion]:
    """The annotated lesions (label 1) of a case, with a few voxels around; one without surroundings is left out."""
    lesions = find_lesions(label == 1, spacing_mm)
    instances, surroundings = lesions.instances(), (label == 0) & ~outside(image)
    found = []
    for i, box in enumerate(lesions.boxes):
        crop = tuple(slice(max(0, a - g), b + g) for (a, b), g in zip(box, GROWN, strict=True))
        if surroundings[crop].any():
            pixels = image[(slice(None), *crop)]
            background = np.median(pixels[:, surroundings[crop]], axis=1)[:, None, None, None]
            mask = (instances[crop] == i + 1).astype(np.float32)
            found.append(Lesion(mask=mask, difference=pixels - background, diameter_mm=float(lesions.diameter_mm[i])))
    return found


@dataclass(frozen=True, kw_only=True)
class Paster:
    """Pastes lesions of random diameters at random places.

    Attributes:
        lesions: to choose from.
        diameters_mm: the smallest and the largest, between which a diameter is drawn log-uniformly.
        slicewise: what is pasted is one slice through a lesion, and scaled in the plane alone.
    """

    lesions: list[Lesion]
    diameters_mm: tuple[float, float]
    slicewise: bool = True

    @classmethod
    def of_cases(cls, images: Array, labels: Array, spacing_mm: Sequence[float], *, slicewise: bool = True) -> Paster:
        """From half of the smallest annotated diameter, 1.25 voxels of the plane at least, to the largest."""
        lesions = [one for both in zip(images, labels, strict=True) for one in cut_out(*both, spacing_mm)]
        diameters = [lesion.diameter_mm for lesion in lesions]
        low = max(0.5 * min(diameters), 1.25 * spacing_mm[-1])
        return cls(lesions=lesions, diameters_mm=(low, max(low, *diameters)), slicewise=slicewise)

    def paste(self, rng: np.random.Generator, image: Array, label: Array, blocked: Array) -> float | None:
        """Paste one lesion into an image (C, z, y, x) and its label, in place.

        Returns:
            The diameter asked for; None if nothing was pasted, as there was no room or too little of it was left.
        """
        diameter = float(np.exp(rng.uniform(*np.log(self.diameters_mm))))
        # A lesion is shrunk rather than blown up: of the larger ones, if there are any.
        larger = [lesion for lesion in self.lesions if lesion.diameter_mm >= diameter] or self.lesions
        share, added = self._drawn(rng, larger[rng.integers(len(larger))], diameter)
        seen = share > FAINTEST
        room = np.array(label.shape) - share.shape
        if not (share >= 0.5).any() or (room < 0).any():
            return None
        for _ in range(TRIES):
            first = rng.integers(room + 1)
            place = tuple(slice(int(a), int(a) + n) for a, n in zip(first, share.shape, strict=True))
            if not (blocked[place] & seen).any():
                image[(slice(None), *place)] += added
                label[place][share >= 0.5] = 1
                blocked[place] |= grown(seen)
                return diameter
        return None

    def _drawn(self, rng: np.random.Generator, lesion: Lesion, diameter: float) -> tuple[Array, Array]:
        """How much of each voxel is lesion, and what that adds to each channel: scaled, turned, mirrored."""
        factor = diameter / lesion.diameter_mm
        scale = np.array([1.0 if self.slicewise else factor, factor, factor])
        mask, difference = lesion.mask, lesion.difference
        if self.slicewise:
            z = [rng.choice(np.flatnonzero(mask.any((1, 2))))]
            mask, difference = mask[z], difference[:, z]
        along = np.array([0 if self.slicewise else 1, 1, 1])
        blur = SOFT / scale * along
        pad = [(2 * n, 2 * n) for n in along]
        soft = ndimage.gaussian_filter(np.pad(mask, pad), blur, mode="constant")
        weighted = soft * np.pad(difference, [(0, 0), *pad], mode="edge")
        angle, mirrored = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
        cos, sin = np.cos(angle), np.sin(angle)
        to_source = np.array([[1.0, 0, 0], [0, cos, -sin], [0, mirrored * sin, mirrored * cos]]) / scale[:, None]
        inside = np.argwhere(soft > FAINTEST)
        middle = inside.mean(0)
        reach = np.abs((inside - middle) * scale)
        radius = np.array([reach[:, 0].max(), *[np.hypot(reach[:, 1], reach[:, 2]).max()] * 2])
        half = np.ceil(radius).astype(int) * along
        shift = rng.uniform(-0.5, 0.5, 3) * along
        offset = middle - to_source @ (half + shift)
        shape = tuple(2 * half + 1)

        def drawn(array: Array) -> Array:
            return ndimage.affine_transform(array, to_source, offset, shape, order=1, mode="constant")

        return drawn(soft), np.stack([drawn(channel) for channel in weighted])
