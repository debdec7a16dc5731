"""How far the outlines of found lesions lie off: HD95 and normalised surface Dice, lesion by lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.matching import RESOLUTION_MM, Matches
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.lesions import Lesions


@dataclass(frozen=True)
class SurfaceDistances:
    """Of K lesions; NaN for those that no candidate detects.

    Attributes:
        hd95_mm: 95th percentile of the distances between the two surfaces, the greater of both directions, at least 0;
            (K,).
        nsd: share of both surfaces that lies within the tolerance of the other one, within [0, 1]; (K,).
    """

    hd95_mm: NDArray[np.float64]
    nsd: NDArray[np.float64]


def surface_distances(
    lesions: Lesions, candidates: Lesions, matches: Matches, rules: EvaluationRules
) -> SurfaceDistances:
    """HD95 and NSD of every lesion that a candidate detects.

    A lesion is compared with the voxels that its Dice is of: those of the candidate that detects it, or with
    ``rules.dice == "union"`` those of all candidates that match it. Both masks are cut out with the box around them.

    Args:
        lesions: components of the reference.
        candidates: components of the prediction, of the same shape and spacing.
        matches: which candidates match which lesions.
        rules: which candidates are compared, and the tolerance.

    Returns:
        Both numbers per lesion; NaN where it is not detected.

    Example:
        >>> from nnunet_lopsided.evaluation.matching import match
        >>> from nnunet_lopsided.lesions import find_lesions
        >>> mask = np.zeros((5, 5, 9), bool)
        >>> mask[2, 2, 1] = True
        >>> lesion, candidate = (find_lesions(m, (1, 1, 0.5)) for m in (mask, np.roll(mask, 2, axis=2)))
        >>> rules = EvaluationRules(surface_distances=True, nsd_tolerance_mm=0.5)
        >>> found = surface_distances(lesion, candidate, match(lesion, candidate, np.ones(1), rules), rules)
        >>> found.hd95_mm.tolist(), found.nsd.tolist()
        ([1.0], [0.5])
    """
    hd95, nsd = np.full(len(lesions), np.nan), np.full(len(lesions), np.nan)
    of_lesion, of_candidate = lesions.voxels_by_id(), candidates.voxels_by_id()
    pairs = matches.pairs
    # split wants the pairs of a lesion in a row.
    order = np.argsort(pairs.lesion_ids, kind="stable")
    ends = np.searchsorted(pairs.lesion_ids[order], np.arange(1, len(lesions) + 1), side="right")
    matching = np.split(pairs.candidate_ids[order], ends)
    for k in np.flatnonzero(matches.candidate_of_lesion).tolist():
        compared = matching[k] if rules.dice == "union" else matches.candidate_of_lesion[[k]]
        predicted = np.concatenate([of_candidate[i - 1] for i in compared.tolist()])
        masks = _cut_out(of_lesion[k], predicted, lesions.shape)
        hd95[k], nsd[k] = hd95_and_nsd(*masks, lesions.spacing_mm, rules.nsd_tolerance_mm)
    return SurfaceDistances(hd95, nsd)


def hd95_and_nsd(
    reference: NDArray[np.bool_], predicted: NDArray[np.bool_], spacing_mm: Sequence[float], tolerance_mm: float
) -> tuple[float, float]:
    """HD95 and NSD of two masks.

    A surface is made of elements (2D: of a contour), each at a corner where voxels inside and outside meet, with the
    area that it has in mm2; beyond the edge of the image is outside. HD95 is the distance within which 95% of a
    surface's area lies off the other surface, the greater of both directions. NSD is the area of both surfaces that
    lies within the tolerance (inclusive, to 1e-6 mm) of the other, over the area of both.

    Args:
        reference: at least one voxel, 2D or 3D.
        predicted: the same shape, at least one voxel.
        spacing_mm: voxel size along each axis.
        tolerance_mm: at least 0.

    Returns:
        HD95 in mm and NSD.

    Raises:
        ValueError: a mask is empty: there is no surface to measure from.

    Source:
        Nikolov et al. (2021), "Clinically applicable segmentation of head and neck anatomy for radiotherapy", by its
        authors' package surface-distance, whose HD95 is also that of the BraTS challenges.

    Example:
        >>> a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
        >>> a[1, 1] = b[1, 1:3] = True
        >>> hd95_and_nsd(a, b, (1, 2), tolerance_mm=1)[0]
        2.0
    """
    from surface_distance import (
        compute_robust_hausdorff,
        compute_surface_dice_at_tolerance,
        compute_surface_distances,
    )

    if not (reference.any() and predicted.any()):
        raise ValueError("reference and predicted must each have a voxel: an empty mask has no surface")
    distances = compute_surface_distances(reference, predicted, tuple(spacing_mm))
    nsd = compute_surface_dice_at_tolerance(distances, tolerance_mm + RESOLUTION_MM)
    return float(compute_robust_hausdorff(distances, 95)), float(nsd)


def _cut_out(
    first: NDArray[np.int64], second: NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two lists of voxels as masks of the smallest box that holds both."""
    places = [np.stack(np.unravel_index(voxels, shape)) for voxels in (first, second)]
    both = np.concatenate(places, axis=1)
    low = both.min(axis=1, keepdims=True)
    # Distances cost as much as the masks are large, and the box is a small part of the image.
    masks = []
    for place in places:
        mask = np.zeros((both.max(axis=1) + 1 - low[:, 0]).tolist(), bool)
        mask[tuple(place - low)] = True
        masks.append(mask)
    return masks[0], masks[1]
