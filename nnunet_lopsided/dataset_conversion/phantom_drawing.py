"""Procedural brain volumes with metastasis-like lesions and vessels that look like them.

Everything is drawn in mm, so any shape and spacing works: a field of view smaller than a head gives a smaller brain,
a thin stack of slices a slab through it. The pictures resemble contrast-enhanced MR closely enough that a small network
misses faint lesions and takes vessels for lesions; they are not a model of any scanner or patient population.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.dataset_conversion.phantom_case import SEQUENCES, Phantom, PhantomSettings, PlantedLesion
from nnunet_lopsided.lesions import find_lesions

_PRE, _BRAVO, _SPIN_ECHO, _FLAIR = range(4)

# Brightness of CSF, grey and white matter per sequence, in units in which white matter on T1 is 0.8.
_TISSUE = {
    _PRE: (0.25, 0.57, 0.80),
    _BRAVO: (0.22, 0.60, 0.80),
    _SPIN_ECHO: (0.30, 0.60, 0.72),
    _FLAIR: (0.18, 0.72, 0.60),
}
# Whole numbers as of a scanner: fine enough that rounding is far below the noise, and within int16.
_GAIN = 1000.0
# Half-axes (z, y, x) in mm of an adult brain.
_BRAIN_MM = (65.0, 86.0, 68.0)

Float32 = NDArray[np.float32]
Floats = NDArray[np.floating]


def make_phantom(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    seed: int | np.random.SeedSequence,
    settings: PhantomSettings | None = None,
) -> Phantom:
    """Draw one case.

    The same arguments give the same arrays; across processors a value may differ in its last digit.

    Args:
        shape: (z, y, x), each at least 4.
        spacing_mm: voxel size (z, y, x), positive.
        seed: a non-negative integer or a SeedSequence.
        settings: what to draw; defaults to ``PhantomSettings()``.

    Raises:
        ValueError: shape or spacing are not three numbers in range.

    Example:
        >>> phantom = make_phantom((16, 48, 48), (3, 2.5, 2.5), seed=1)
        >>> phantom.images.shape, phantom.images.dtype.name, len(phantom.lesions) >= 2
        ((4, 16, 48, 48), 'int16', True)
    """
    if len(shape) != 3 or any(int(n) != n or n < 4 for n in shape):
        raise ValueError(f"shape must be three integers of at least 4, got {tuple(shape)}")
    if len(spacing_mm) != 3 or not all(0 < s < math.inf for s in spacing_mm):
        raise ValueError(f"spacing_mm must be three positive numbers, got {tuple(spacing_mm)}")
    spacing = (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    return _Painter(tuple(int(n) for n in shape), spacing, seed, settings or PhantomSettings()).paint()


class _Painter:
    """Draws one case step by step onto float32 canvases; positions are in mm from the centre of the volume."""

    def __init__(
        self,
        shape: tuple[int, ...],
        spacing_mm: tuple[float, float, float],
        seed: int | np.random.SeedSequence,
        settings: PhantomSettings,
    ) -> None:
        self.shape = shape
        self.spacing_mm = spacing_mm
        self.spacing = np.array(spacing_mm)
        self.settings = settings
        self.rng = np.random.default_rng(seed)
        # Edges are ramps as wide as a voxel is on average: partial volume, as in an image of that resolution.
        self.pitch = float(np.prod(self.spacing) ** (1 / 3))
        self.axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, self.spacing, strict=True)]
        self.z, self.y, self.x = np.ix_(*(a.astype(np.float32) for a in self.axes))
        extent = np.array(shape) * self.spacing
        # In the plane the brain must fit, with a little air around it; a stack of slices may cut it off above and
        # below.
        self.scale = min(1.0, 0.48 * extent[1] / _BRAIN_MM[1], 0.48 * extent[2] / _BRAIN_MM[2])

    def paint(self) -> Phantom:
        self._anatomy()
        images = self._tissue()
        planted, centres = self._lesions(images)
        self._white_matter_spots(images)
        self._vessels(images)
        acquired = self._acquire(images)
        lesions = find_lesions(self.label, self.spacing_mm)
        ids = [int(lesions.instances()[centre]) for centre in centres]
        # Components are numbered in the order of the array, lesions were drawn from the largest to the smallest.
        ordered = sorted((replace(p, id=i) for p, i in zip(planted, ids, strict=True)), key=lambda p: p.id)
        return Phantom(
            images=acquired, label=self.label, lesions=lesions, planted=tuple(ordered), spacing_mm=self.spacing_mm
        )

    def _field(self, scale_mm: float) -> Float32:
        """A smooth Gaussian random field of mean 0 and variance 1 over the volume."""
        weights = []
        for axis in self.axes:
            nodes = np.arange(axis[0] - 2 * scale_mm, axis[-1] + 3 * scale_mm, scale_mm)
            # Kernels a little narrower than the distance of their nodes, so that neighbours overlap and no grid is
            # seen. Each row has length 1, which makes the variance 1 everywhere.
            w = np.exp(-0.5 * ((axis[:, None] - nodes) / (0.7 * scale_mm)) ** 2)
            weights.append((w / np.sqrt((w**2).sum(1, keepdims=True))).astype(np.float32))
        field = self.rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
        for w in weights:  # contracts the first axis and appends the fine one: after three turns the order is back
            field = np.tensordot(field, w, axes=(0, 1))
        return field

    def _anatomy(self) -> None:
        """Memberships in [0, 1]: ``csf``, ``grey``, ``white`` (they sum to 1), the mask ``brain``, ``depth`` in mm."""
        s, rng = self.scale, self.rng
        half = np.array(_BRAIN_MM) * s * rng.uniform(0.93, 1.0, 3)
        rho = np.sqrt((self.z / half[0]) ** 2 + (self.y / half[1]) ** 2 + (self.x / half[2]) ** 2)
        rho += 0.025 * self._field(28.0 * s)
        self.depth = ((1.0 - rho) * float(half.mean())).astype(np.float32)
        self.brain = self.depth > 0
        ramp = self.pitch

        folds = np.abs(self._field(8.0 * s)) * (7.0 * s)  # about the distance in mm to the nearest fold
        reach = np.clip((20.0 * s - self.depth) / (8.0 * s), 0, 1)  # folds end below the surface
        sulci = np.clip(0.5 + (0.9 * s * reach - folds) / ramp, 0, 1) * (reach > 0)
        sulci = np.maximum(sulci, np.clip(0.5 + (0.8 * s - self.depth) / ramp, 0, 1))
        cortex = np.clip(0.5 + (4.2 * s * reach - folds) / ramp, 0, 1) * (reach > 0)
        cortex = np.maximum(cortex, np.clip(0.5 + (4.0 * s - self.depth) / ramp, 0, 1))

        wiggle = self._field(30.0 * s) * (1.5 * s)
        midline = np.abs(self.x + wiggle)
        above = np.clip((self.z + 0.25 * np.abs(self.y) - 14 * s) / (4 * s), 0, 1)
        fissure = np.clip(0.5 + (1.1 * s * above - midline) / ramp, 0, 1) * (above > 0)
        cortex = np.maximum(cortex, np.clip(0.5 + (4.5 * s * above - midline) / ramp, 0, 1) * (above > 0))

        ventricles, nuclei = self._deep_structures(s, ramp)
        self.near_ventricles = ventricles
        csf = np.maximum(np.maximum(sulci, fissure), np.clip(0.5 + ventricles / ramp, 0, 1))
        grey = np.maximum(cortex, np.clip(0.5 + nuclei / ramp, 0, 1))
        self.csf = np.minimum(csf, 1).astype(np.float32)
        self.grey = np.minimum(grey, 1 - self.csf).astype(np.float32)
        self.white = 1 - self.csf - self.grey

    def _deep_structures(self, s: float, ramp: float) -> tuple[Float32, Float32]:
        """Signed distances in mm (positive inside, approximate) to the ventricles and to the deep grey nuclei."""
        size = self.rng.uniform(0.8, 1.4)
        side = np.abs(self.x + 0.05 * self.y)

        def ellipsoid(
            off_midline: Floats, centre_yz: tuple[float, float], half_xyz: tuple[float, float, float]
        ) -> Floats:
            (y, z), half = centre_yz, half_xyz
            distance: Floats = np.sqrt(
                ((side - off_midline) / (half[0] * s)) ** 2
                + ((self.y - y * s) / (half[1] * s)) ** 2
                + ((self.z - z * s) / (half[2] * s)) ** 2
            )
            return np.asarray(1 - distance)

        horns = ellipsoid(9 * s + 0.0024 / s * self.y**2, (0, 8), (5 * size, 36, 11))
        third = ellipsoid(np.zeros(1), (0, -8), (2.5, 13, 10))
        ventricles = np.maximum(horns * (5 * s * size), third * (2.5 * s))
        caudate = ellipsoid(np.array([15 * s]), (8, -4), (8, 14, 10))
        putamen = ellipsoid(np.array([26 * s]), (-10, -2), (5, 17, 13))
        nuclei = np.maximum(caudate, putamen) * (7 * s)
        return ventricles.astype(np.float32), nuclei.astype(np.float32)

    def _tissue(self) -> list[Float32]:
        texture = 0.02 * self._field(4.0) + 0.03 * self._field(14.0)
        images = []
        for channel in range(len(SEQUENCES)):
            csf, grey, white = (b * self.rng.normal(1, 0.03) for b in _TISSUE[channel])
            image = np.float32(csf) * self.csf + np.float32(grey) * self.grey + np.float32(white) * self.white
            images.append(image + texture * (1 - self.csf))
        # Enhancing dura and veins at the rim.
        rim = np.clip(1 - self.depth / 2.5, 0, 1) * np.clip(self._field(16.0), 0, 2)
        images[_BRAVO] += 0.25 * rim
        images[_SPIN_ECHO] += 0.12 * rim
        return images

    def _box(self, centre_mm: Floats, reach_mm: float) -> tuple[tuple[slice, ...], list[Floats]]:
        """The voxels within ``reach_mm`` of a point: their slices, and their offsets from it along each axis."""
        slices, offsets = [], []
        for axis, c in zip(self.axes, centre_mm, strict=True):
            lo, hi = np.searchsorted(axis, [c - reach_mm, c + reach_mm])
            slices.append(slice(int(lo), int(hi)))
            offsets.append((axis[lo:hi] - c).astype(np.float32))
        return tuple(slices), list(np.ix_(*offsets))

    def _lesions(self, images: list[Float32]) -> tuple[list[PlantedLesion], list[tuple[int, ...]]]:
        self.label = np.zeros(self.shape, np.uint8)
        cfg, rng = self.settings, self.rng
        extra = cfg.n_lesions_mean - cfg.n_lesions_min
        # Two successes: skewed as counts of metastases are, most patients with few and some with many; the mean is
        # `extra`.
        n = cfg.n_lesions_min + int(rng.negative_binomial(2, 2 / (2 + extra)))
        low, high = cfg.diameter_range_mm
        diameters = np.clip(cfg.diameter_median_mm * np.exp(cfg.diameter_log_sd * rng.standard_normal(n)), low, high)
        # From the largest on, while there is room for them; none is larger than the brain is deep.
        diameters = np.sort(np.minimum(diameters, max(low, 0.8 * float(self.depth.max()))))[::-1]
        candidates = np.flatnonzero(self.brain & (self.csf < 0.3) & (self.depth > 2 * self.pitch))
        planted: list[PlantedLesion] = []
        centres: list[tuple[int, ...]] = []
        taken: list[tuple[Floats, float]] = []
        for diameter in diameters.tolist():
            voxel = self._free_place(candidates, taken, diameter)
            if voxel is None:
                continue
            centre = np.array([axis[i] for axis, i in zip(self.axes, voxel, strict=True)])
            taken.append((centre, diameter))
            planted.append(self._draw_lesion(images, centre, voxel, diameter))
            centres.append(voxel)
        return planted, centres

    def _free_place(
        self, candidates: NDArray[np.int64], taken: list[tuple[Floats, float]], diameter: float
    ) -> tuple[int, ...] | None:
        """A voxel at least two voxels clear of the other lesions, at the grey-white border more often than not."""
        if len(candidates) == 0:
            return None
        # Tries, after which the brain counts as full.
        for _ in range(200):
            voxel = np.unravel_index(candidates[self.rng.integers(len(candidates))], self.shape)
            border = float(self.grey[voxel] * self.white[voxel])
            # The product is 1/4 where grey and white meet, which is always taken, and 0 within either, taken in 3 of 10
            # tries.
            if self.rng.uniform() > 0.3 + 4 * border or float(self.depth[voxel]) < 0.35 * diameter:
                continue
            place = np.array([axis[i] for axis, i in zip(self.axes, voxel, strict=True)])
            # 0.8: shapes are not spheres.
            clear = 3 * float(self.spacing.max())
            if all(np.linalg.norm(place - c) > 0.8 * (diameter + d) + clear for c, d in taken):
                return tuple(int(i) for i in voxel)
        return None

    def _draw_lesion(
        self, images: list[Float32], centre: Floats, voxel: tuple[int, ...], diameter: float
    ) -> PlantedLesion:
        rng, radius = self.rng, diameter / 2
        # Small lesions are faint, and ragged edges do not show on them.
        is_large = min(diameter / 14, 1.0)
        enhancement = self.settings.contrast * (0.14 + 0.36 * is_large) * math.exp(0.3 * rng.standard_normal())
        is_ring = bool(diameter > 10 and rng.uniform() < 0.65)
        has_oedema = bool(diameter > 7 and rng.uniform() < 0.4 + 0.4 * is_large)
        if has_oedema:
            self._draw_oedema(images, centre, radius)

        box, offsets = self._box(centre, 1.6 * radius + 2 * float(self.spacing.max()))
        inside_mm = self._lesion_shape(offsets, radius, 0.04 + 0.10 * is_large)
        membership = np.clip(0.5 + inside_mm / self.pitch, 0, 1) * self.brain[box]
        membership *= np.sqrt(sum(o**2 for o in offsets)) <= 0.8 * diameter  # what _free_place kept free
        self._label_lesion(membership >= 0.5, box, voxel)
        core = np.clip(0.5 + (inside_mm - rng.uniform(2.0, 3.5)) / self.pitch, 0, 1) if is_ring else 0 * membership
        solid = membership * (1 - core)
        # One in ten is bright before contrast, as lesions that have bled are.
        pre = 0.15 if rng.uniform() < 0.1 else -0.08
        target = {
            _PRE: (0.75 + pre, 0.45),
            _BRAVO: (0.75 + enhancement, 0.50),
            _SPIN_ECHO: (0.70 + enhancement * rng.uniform(0.9, 1.3), 0.45),
            _FLAIR: (0.70 + 0.2 * rng.uniform(), 0.55 + 0.4 * rng.uniform()),
        }
        for channel, (rim, middle) in target.items():
            image = images[channel][box]
            image += solid * (np.float32(rim) - image) + core * membership * (np.float32(middle) - image)
        return PlantedLesion(
            id=0, diameter_mm=diameter, enhancement=enhancement, is_ring=is_ring, has_oedema=has_oedema
        )

    def _label_lesion(self, mask: NDArray[np.bool_], box: tuple[slice, ...], voxel: tuple[int, ...]) -> None:
        """Label the part of a mask that hangs together with its central voxel, so that one lesion is one component."""
        centre = tuple(i - s.start for i, s in zip(voxel, box, strict=True))
        mask[centre] = True  # a lesion thinner than a slice still has its central voxel
        instances = find_lesions(mask, self.spacing_mm).instances()
        self.label[box][instances == instances[centre]] = 1

    def _lesion_shape(self, offsets: list[Floats], radius: float, roughness: float) -> Float32:
        """Approximate signed distance in mm to the surface of a rough, rotated ellipsoid; positive inside."""
        rng = self.rng
        # The directions of Gaussian vectors are spread evenly, so no axis of the image is preferred.
        rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        stretch = np.exp(0.18 * rng.standard_normal(3))
        # Volume, and with it the equivalent diameter, stays what was asked for.
        stretch /= np.prod(stretch) ** (1 / 3)
        u = [sum(rotation[i, k] * offsets[k] for k in range(3)) / (radius * stretch[i]) for i in range(3)]
        rho = np.sqrt(u[0] ** 2 + u[1] ** 2 + u[2] ** 2)
        waves = sum(
            np.cos(sum(k * c for k, c in zip(3.5 * rng.standard_normal(3), u, strict=True)) + rng.uniform(0, 2 * np.pi))
            for _ in range(3)
        )
        distance: Float32 = ((1 + roughness * waves - rho) * radius).astype(np.float32)
        return distance

    def _draw_oedema(self, images: list[Float32], centre: Floats, radius: float) -> None:
        width = self.rng.uniform(2.5, 4.0 + 0.6 * radius)
        box, offsets = self._box(centre, radius + 2 * width + 4)
        distance = np.sqrt(sum(o**2 for o in offsets))
        rough = 0.5 * width * np.cos(sum(k * o for k, o in zip(self.rng.normal(0, 0.35, 3), offsets, strict=True)))
        halo = np.clip((radius + width + rough - distance) / 4.0, 0, 1) * (0.25 + 0.75 * self.white[box])
        halo *= 1 - self.csf[box]
        for channel, change in ((_PRE, -0.10), (_BRAVO, -0.10), (_SPIN_ECHO, -0.08), (_FLAIR, 0.38)):
            images[channel][box] += np.float32(change) * halo

    def _white_matter_spots(self, images: list[Float32]) -> None:
        """Bright spots on FLAIR that do not enhance, mostly beside the ventricles."""
        candidates = np.flatnonzero((self.white > 0.6) & (self.near_ventricles > -18 * self.scale) & self.brain)
        for _ in range(self.rng.poisson(4) if len(candidates) else 0):
            voxel = np.unravel_index(candidates[self.rng.integers(len(candidates))], self.shape)
            radius = self.rng.uniform(1.5, 4.0)
            box, offsets = self._box(np.array([a[i] for a, i in zip(self.axes, voxel, strict=True)]), 2 * radius + 3)
            spot = np.clip(0.5 + self._lesion_shape(offsets, radius, 0.1) / self.pitch, 0, 1) * self.white[box]
            images[_FLAIR][box] += np.float32(self.rng.uniform(0.1, 0.3)) * spot
            images[_PRE][box] -= np.float32(0.05) * spot

    def _vessels(self, images: list[Float32]) -> None:
        """Contrast-filled tubes and short blobs; spin echo shows most of them fainter."""
        rng, cfg = self.rng, self.settings
        litres = float(self.brain.sum()) * float(np.prod(self.spacing)) * 1e-6
        starts = np.flatnonzero(self.brain)
        if len(starts) == 0:
            return
        # On canvases of their own, by maximum: vessels that cross would add up to a bright spot.
        weight = {_BRAVO: np.zeros(self.brain.size, np.float32), _SPIN_ECHO: np.zeros(self.brain.size, np.float32)}
        for kind, per_litre in (("tube", cfg.vessels_per_litre), ("blob", cfg.blobs_per_litre)):
            for _ in range(rng.poisson(per_litre * litres)):
                voxel = np.unravel_index(starts[rng.integers(len(starts))], self.shape)
                start = np.array([a[i] for a, i in zip(self.axes, voxel, strict=True)])
                # Flowing blood is dark on spin echo, all the more in long vessels.
                if kind == "tube":
                    length, radius, flow_void = rng.uniform(15, 70), rng.uniform(0.5, 1.5), rng.uniform(0.0, 0.7)
                else:
                    length, radius, flow_void = rng.uniform(1, 5), rng.uniform(1.3, 2.4), rng.uniform(0.4, 1.0)
                points = self._walk(start, length * max(self.scale, 0.5))
                radii = radius * np.linspace(1.0, 0.7, len(points))
                brightness = rng.uniform(0.25, 0.8)
                self._stamp(weight, points, radii, {_BRAVO: brightness, _SPIN_ECHO: brightness * flow_void})
        for channel, added in weight.items():
            images[channel] += added.reshape(self.shape)

    def _walk(self, start: Floats, length_mm: float) -> Floats:
        """Points of a smooth random curve; every third curve begins across the slices, round in each of them."""
        rng, step = self.rng, 0.7 * float(self.spacing.min())
        # Steps below the smallest voxel side leave no gaps between the stamped balls.
        n = max(2, int(length_mm / step))
        direction = np.array([1.0, 0.0, 0.0]) if rng.uniform() < 0.33 else rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        turns = np.cumsum(rng.standard_normal((n, 3)), axis=0) * (0.11 * math.sqrt(step))
        directions = direction + turns
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return start + np.cumsum(directions * step, axis=0)

    def _stamp(self, weight: dict[int, Float32], points: Floats, radii: Floats, brightness: dict[int, float]) -> None:
        """Raise each canvas to ``brightness`` times the membership in balls around the points."""
        reach = np.ceil((radii.max() + 0.5 * self.pitch) / self.spacing).astype(int)
        steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 3)
        first = np.array([a[0] for a in self.axes])
        nearest = np.round((points - first) / self.spacing).astype(int)
        voxels = nearest[:, None, :] + steps
        gap = np.linalg.norm(voxels * self.spacing + first - points[:, None, :], axis=-1)
        membership = np.clip(0.5 + (radii[:, None] - gap) / self.pitch, 0, 1)
        valid = ((voxels >= 0) & (voxels < np.array(self.shape))).all(-1) & (membership > 0)
        flat = np.ravel_multi_index(tuple(voxels[valid].T), self.shape)
        for channel, level in brightness.items():
            np.maximum.at(weight[channel], flat, (level * membership[valid]).astype(np.float32))

    def _acquire(self, images: list[Float32]) -> NDArray[np.int16]:
        """Bias field, receiver gain and Rician noise; nothing outside the brain."""
        rng, sd = self.rng, np.float32(self.settings.noise_sd)
        acquired = np.zeros((len(images), *self.shape), np.int16)
        n = int(self.brain.sum())
        for channel, image in enumerate(images):
            bias = np.exp(np.float32(self.settings.bias) * self._field(60.0 * max(self.scale, 0.5))[self.brain])
            signal = np.maximum(image[self.brain], 0.02) * bias
            # MR images are magnitudes of complex signals, so the noise is Rician, and raises what is dark.
            real = signal + sd * rng.standard_normal(n, dtype=np.float32)
            imaginary = sd * rng.standard_normal(n, dtype=np.float32)
            gain = _GAIN * rng.uniform(0.8, 1.25)
            values = np.hypot(real, imaginary) * np.float32(gain)
            # At least 1 within the brain: nnU-Net takes what is 0 in all channels for outside.
            acquired[channel][self.brain] = np.clip(np.rint(values), 1, 32000).astype(np.int16)
        return acquired
