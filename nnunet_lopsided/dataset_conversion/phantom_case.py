"""What a phantom may show, and what one is: settings, planted lesions and the drawn case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.lesions import Lesions

# The four of BrainMetShare, on which Yi et al. 2020 trained.
SEQUENCES = ("T1_pre", "T1_post_BRAVO", "T1_post_spin_echo", "FLAIR")


@dataclass(frozen=True, kw_only=True)
class PhantomSettings:
    """What a phantom shows; the defaults make small lesions hard to find.

    Attributes:
        n_lesions_min: lesions every case has, if there is room.
        n_lesions_mean: mean lesions per case; the rest above the minimum follows a skewed (negative binomial) law.
        diameter_median_mm: median of the lognormal diameter.
        diameter_log_sd: standard deviation of the diameter's natural logarithm.
        diameter_range_mm: diameters are clipped to this range.
        contrast: factor on the enhancement of lesions.
        vessels_per_litre: tubes per litre of brain.
        blobs_per_litre: short thick vessel pieces per litre of brain, each the size of a small lesion.
        noise_sd: noise per voxel in units in which white matter on T1 is 0.8.
        bias: standard deviation of the logarithm of the bias field.
    """

    n_lesions_min: int = 2
    n_lesions_mean: float = 5.0
    diameter_median_mm: float = 6.5
    diameter_log_sd: float = 0.5
    diameter_range_mm: tuple[float, float] = (3.0, 32.0)
    contrast: float = 1.0
    vessels_per_litre: float = 110.0
    blobs_per_litre: float = 35.0
    noise_sd: float = 0.06
    bias: float = 0.12

    def __post_init__(self) -> None:
        low, high = self.diameter_range_mm
        if not 0 < low <= self.diameter_median_mm <= high:
            raise ValueError(f"diameter_range_mm must enclose diameter_median_mm, got {self.diameter_range_mm}")
        if not 0 <= self.n_lesions_min <= self.n_lesions_mean:
            raise ValueError(f"n_lesions_min must be within [0, n_lesions_mean], got {self.n_lesions_min}")
        for name in ("diameter_log_sd", "contrast", "vessels_per_litre", "blobs_per_litre", "noise_sd", "bias"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class PlantedLesion:
    """One lesion as it was drawn.

    Attributes:
        id: its component id in ``Phantom.lesions``.
        diameter_mm: nominal diameter; the labelled voxels follow it up to shape and discretisation.
        enhancement: brightness added on the BRAVO-like sequence, in units in which white matter is 0.8.
        is_ring: whether only the rim enhances.
        has_oedema: whether FLAIR shows a bright halo.
    """

    id: int
    diameter_mm: float
    enhancement: float
    is_ring: bool
    has_oedema: bool


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """One procedural case.

    Attributes:
        images: int16, shape (4, z, y, x), channels as in ``SEQUENCES``; 0 outside the brain, at least 1 inside.
        label: uint8, shape (z, y, x); 1 in lesions.
        lesions: the 26-connected components of ``label``.
        planted: how each was drawn, in the order of the components' ids.
        spacing_mm: voxel size (z, y, x).
    """

    images: NDArray[np.int16]
    label: NDArray[np.uint8]
    lesions: Lesions
    planted: tuple[PlantedLesion, ...]
    spacing_mm: tuple[float, float, float]
