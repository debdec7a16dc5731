"""Evaluation of one case, from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.matching import Matches, Status, match
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.strata import probability_histogram
from nnunet_lopsided.lesions import Lesions, find_lesions

# Means that differ by less than this differ by the order of summation only.
CONFIDENCE_DECIMALS = 9


@dataclass(frozen=True)
class Components:
    """Sizes and places of K components; id i + 1 is row i.

    Attributes:
        n_voxels: int64, (K,).
        volume_mm3: mm2 in 2D; (K,).
        diameter_mm: of the sphere (2D: circle) of equal volume, (K,).
        centroid: mean voxel index, array order, (K, ndim).
    """

    n_voxels: NDArray[np.int64]
    volume_mm3: NDArray[np.float64]
    diameter_mm: NDArray[np.float64]
    centroid: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.n_voxels)

    @classmethod
    def of(cls, lesions: Lesions) -> Components:
        return cls(lesions.n_voxels, lesions.volume_mm3, lesions.diameter_mm, lesions.centroids)


@dataclass(frozen=True)
class CaseResult:
    """What one case contributes; tables only, no volumes.

    Attributes:
        case: its name.
        patient: the patient it belongs to, the unit of the bootstrap.
        kind: what the prediction was: ``probabilities``, ``labels``, ``missing``, or ``empty``: probabilities that are
            0 everywhere, which an empty label map saved as floating point looks like too.
        lesions: the K reference lesions.
        candidates: the M predicted components.
        confidence: mean probability of each candidate, (M,); 1 for every candidate of hard labels.
        matches: which candidate detects which lesion.
        mean_probability: over each lesion's voxels, (K,); NaN without probabilities.
        lesion_histogram: histogram of the probability over all lesion voxels, (bins,); zeros without probabilities.
    """

    case: str
    patient: str
    kind: str
    lesions: Components
    candidates: Components
    confidence: NDArray[np.float64]
    matches: Matches
    mean_probability: NDArray[np.float64]
    lesion_histogram: NDArray[np.int64]

    @property
    def detected(self) -> NDArray[np.bool_]:
        """Whether each lesion is detected, (K,)."""
        return self.matches.candidate_of_lesion > 0

    @property
    def lesion_confidence(self) -> NDArray[np.float64]:
        """Confidence of the candidate that detects each lesion, (K,); NaN when missed."""
        padded = np.concatenate([[np.nan], self.confidence])
        return padded[self.matches.candidate_of_lesion]

    def count(self, status: Status) -> int:
        """Candidates of this status."""
        return int((self.matches.status == status).sum())


def evaluate_case(
    reference: NDArray[Any],
    prediction: NDArray[Any] | None,
    spacing_mm: Sequence[float],
    rules: EvaluationRules | None = None,
    valid: NDArray[np.bool_] | None = None,
    case: str = "",
    patient: str | None = None,
) -> CaseResult:
    """Find lesions and candidates of one case and match them.

    A voxel is predicted when ``p >= threshold``, the threshold being cast to the floating-point type of ``p``: a
    float16 or float32 map that says exactly 0.10 in its own precision is included at 0.10.

    Args:
        reference: nonzero where there is lesion, shape (z, y, x) or (y, x).
        prediction: lesion probability (floating point, within [0, 1]) or a hard mask (bool or integer, nonzero is
            lesion), same shape; None: there is no prediction, and every lesion counts as missed.
        spacing_mm: voxel size along each axis.
        rules: default :class:`EvaluationRules`.
        valid: voxels with annotation, same shape; elsewhere neither lesions nor candidates exist. None: all.
        case: name, for the tables.
        patient: default: the case's name.

    Returns:
        Tables of lesions and candidates; empty ones where there are none.

    Raises:
        ValueError: shapes differ, or the connectivity or spacing does not fit their dimension.

    Example:
        >>> reference = np.zeros((3, 8, 8), bool)
        >>> reference[1, 2:4, 2:4] = reference[1, 6, 6] = True
        >>> result = evaluate_case(reference, np.where(reference, 0.75, 0.0) * (np.arange(8) < 5), (1, 1, 1))
        >>> result.detected.tolist(), result.confidence.tolist()
        ([True, False], [0.75])
    """
    rules = rules or EvaluationRules()
    reference = np.asarray(reference)
    for name, array in (("prediction", prediction), ("valid", valid)):
        if array is not None and array.shape != reference.shape:
            raise ValueError(f"{name} must have the reference's shape {reference.shape}, got {array.shape}")
    lesions = find_lesions(_within(reference, valid), spacing_mm, rules.connectivity)
    probability = prediction if prediction is not None and np.issubdtype(prediction.dtype, np.floating) else None
    mean_probability: NDArray[np.float64] = np.full(len(lesions), np.nan)
    histogram: NDArray[np.int64] = np.zeros(rules.probability_bins, np.int64)
    if prediction is None:
        empty = Lesions(lesions.shape, lesions.spacing_mm, *(a[:0] for a in _arrays(lesions)))
        candidates, kind = empty, "missing"
        confidence: NDArray[np.float64] = np.zeros(0)
    elif probability is None:
        candidates, kind = find_lesions(_within(prediction, valid), spacing_mm, rules.connectivity), "labels"
        confidence = np.ones(len(candidates))
    else:
        mask = probability >= probability.dtype.type(rules.threshold)
        candidates = find_lesions(_within(mask, valid), spacing_mm, rules.connectivity)
        kind = "probabilities" if len(candidates) or probability.any() else "empty"
        flat = probability.reshape(-1)
        confidence = np.round(_mean_by_component(candidates, flat), CONFIDENCE_DECIMALS)
        mean_probability = _mean_by_component(lesions, flat)
        histogram = probability_histogram(flat[lesions.voxels], rules.probability_bins)
    return CaseResult(
        case,
        patient if patient is not None else case,
        kind,
        Components.of(lesions),
        Components.of(candidates),
        confidence,
        match(lesions, candidates, confidence, rules),
        mean_probability,
        histogram,
    )


def check_connectivity(ndim: int, connectivity: int | None, case: str) -> None:
    """Refuse a connectivity of the other dimension, naming the case.

    Raises:
        InputError: it is not one of 26, 18, 6 (3D) or 8, 4 (2D).
    """
    allowed = (26, 18, 6) if ndim == 3 else (8, 4)
    if connectivity is not None and connectivity not in allowed:
        raise InputError(f"case {case}: connectivity must be one of {allowed} for {ndim}D images, got {connectivity}")


def _within(mask: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    return mask if valid is None else (mask != 0) & valid


def _arrays(lesions: Lesions) -> tuple[NDArray[Any], ...]:
    return lesions.voxels, lesions.voxel_ids, lesions.n_voxels, lesions.centroids, lesions.boxes


def _mean_by_component(components: Lesions, flat_probability: NDArray[np.floating]) -> NDArray[np.float64]:
    values = flat_probability[components.voxels].astype(np.float64)
    sums = np.bincount(components.voxel_ids, weights=values, minlength=len(components) + 1)[1:]
    return sums / components.n_voxels
