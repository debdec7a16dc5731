"""Evaluation of one case, from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.confidence import (
    BY_SIZE,
    CONFIDENCE_DECIMALS,
    CandidateScores,
    LearnedConfidence,
    mean_by_component,
)
from nnunet_lopsided.evaluation.dilation import joined_when_grown
from nnunet_lopsided.evaluation.matching import Matches, Status, match
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.strata import entropy_by_component, probability_histogram
from nnunet_lopsided.lesions import Lesions, find_lesions, lesions_of_voxels

# Where there is no predicted label map, these voxels are the segmentation: the class with the highest probability.
SEGMENTATION_THRESHOLD = 0.5


@dataclass(frozen=True)
class Components:
    """Sizes and places of K components; id i + 1 is row i.

    Attributes:
        n_voxels: int64, (K,).
        volume_mm3: mm2 in 2D; (K,).
        diameter_mm: of the sphere (2D: circle) of equal volume, (K,).
        centroid: mean voxel index, array order, (K, ndim).
        boxes: first (inclusive) and last (exclusive) index along each axis, int64, (K, ndim, 2).
    """

    n_voxels: NDArray[np.int64]
    volume_mm3: NDArray[np.float64]
    diameter_mm: NDArray[np.float64]
    centroid: NDArray[np.float64]
    boxes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.n_voxels)

    @classmethod
    def of(cls, lesions: Lesions) -> Components:
        return cls(lesions.n_voxels, lesions.volume_mm3, lesions.diameter_mm, lesions.centroids, lesions.boxes)


@dataclass(frozen=True)
class VoxelCounts:
    """Voxels of a case that are lesion in the reference, in the prediction, and in both."""

    reference: int
    predicted: int
    shared: int

    @property
    def dice(self) -> float | None:
        """Within [0, 1]; None where both are empty, as in nnU-Net, which leaves such cases out of its mean."""
        total = self.reference + self.predicted
        return 2 * self.shared / total if total else None


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
        confidence: of each candidate, by ``rules.confidence``, (M,).
        counted: lesions above the smallest volume that counts, (K,); the others are neither detected nor missed.
        matches: which candidate detects which lesion.
        mean_probability: over each lesion's voxels, (K,); NaN without probabilities.
        entropy_bits: of the histogram of each lesion's voxels, (K,); NaN without probabilities.
        lesion_histogram: histogram of the probability over the voxels of counted lesions, (bins,); zeros without
            probabilities.
        candidate_overlap: voxels of lesions, of candidates and of both.
        segmentation_overlap: the same with the predicted segmentation in place of the candidates: the predicted label
            map, or where there is none the voxels with p >= 0.5.
        scores: what every confidence of the candidates is made of.
        ranked: whether the confidence ranks: hard labels have one only where size is part of it.
        n_dropped: candidates smaller than ``rules.min_candidate_voxels``; in nothing else here.
        censored: lesions of which an incomplete reference has no voxel, (K,); None without such a reference.
    """

    case: str
    patient: str
    kind: str
    lesions: Components
    candidates: Components
    confidence: NDArray[np.float64]
    counted: NDArray[np.bool_]
    matches: Matches
    mean_probability: NDArray[np.float64]
    entropy_bits: NDArray[np.float64]
    lesion_histogram: NDArray[np.int64]
    candidate_overlap: VoxelCounts
    segmentation_overlap: VoxelCounts
    scores: CandidateScores
    ranked: bool = True
    n_dropped: int = 0
    censored: NDArray[np.bool_] | None = None

    @property
    def detected(self) -> NDArray[np.bool_]:
        """Whether each lesion counts and is detected, (K,)."""
        return self.counted & (self.matches.candidate_of_lesion > 0)

    @property
    def missed(self) -> NDArray[np.bool_]:
        """Whether each lesion counts and is not detected, (K,)."""
        return self.counted & (self.matches.candidate_of_lesion == 0)

    @property
    def n_lesions(self) -> int:
        """Lesions that count."""
        return int(self.counted.sum())

    @property
    def n_merges(self) -> int:
        """Candidates that share voxels with several lesions."""
        return int((self.matches.lesions_touched > 1).sum())

    @property
    def n_false_positives_on_lesions(self) -> int:
        """False positives that share a voxel with a lesion."""
        return int(((self.matches.status == Status.FALSE_POSITIVE) & (self.matches.overlap_voxels > 0)).sum())

    @property
    def shown_confidence(self) -> NDArray[np.float64]:
        """The confidence where it ranks; NaN where every candidate of hard labels would have the same, (M,)."""
        return self.confidence if self.ranked else np.full(len(self.confidence), np.nan)

    @property
    def lesion_confidence(self) -> NDArray[np.float64]:
        """Confidence of the candidate that detects each lesion, (K,); NaN when missed."""
        padded = np.concatenate([[np.nan], self.confidence])
        return padded[self.matches.candidate_of_lesion]

    def count(self, status: Status) -> int:
        """Candidates of this status."""
        return int((self.matches.status == status).sum())


@dataclass(frozen=True)
class EvaluatedCase:
    """A result with the voxels it was made from."""

    result: CaseResult
    lesions: Lesions
    candidates: Lesions


def evaluate_case(
    reference: NDArray[Any],
    prediction: NDArray[Any] | None,
    spacing_mm: Sequence[float],
    rules: EvaluationRules | None = None,
    valid: NDArray[np.bool_] | None = None,
    case: str = "",
    patient: str | None = None,
    segmentation: NDArray[Any] | None = None,
    censored_reference: NDArray[Any] | None = None,
    learned: LearnedConfidence | None = None,
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
        segmentation: the predicted mask for the voxel-wise Dice, same shape; None: the hard mask itself, or p >= 0.5.
        censored_reference: a reference that lacks some of the lesions, same shape; tells kept from censored lesions.
        learned: the model behind the confidence ``learned``, see ``learned_confidence``; None: there is none.

    Returns:
        Tables of lesions and candidates; empty ones where there are none.

    Raises:
        ValueError: shapes differ, the connectivity or spacing does not fit their dimension, or a voxel of a lesion or
            candidate holds no probability.
        InputError: ``censored_reference`` has lesion voxels that ``reference`` lacks, or the confidence is to be
            ``learned`` and there is no model.

    Example:
        >>> reference = np.zeros((3, 8, 8), bool)
        >>> reference[1, 2:4, 2:4] = reference[1, 6, 6] = True
        >>> result = evaluate_case(reference, np.where(reference, 0.75, 0.0) * (np.arange(8) < 5), (1, 1, 1))
        >>> result.detected.tolist(), result.confidence.tolist()
        ([True, False], [0.75])
    """
    rules = rules or EvaluationRules()
    (evaluated,) = evaluate_thresholds(
        reference,
        prediction,
        spacing_mm,
        rules,
        (rules.threshold,),
        valid=valid,
        case=case,
        patient=patient,
        segmentation=segmentation,
        censored_reference=censored_reference,
        learned=learned,
    )
    return evaluated.result


def evaluate_thresholds(
    reference: NDArray[Any],
    prediction: NDArray[Any] | None,
    spacing_mm: Sequence[float],
    rules: EvaluationRules,
    thresholds: Sequence[float],
    *,
    valid: NDArray[np.bool_] | None = None,
    case: str = "",
    patient: str | None = None,
    segmentation: NDArray[Any] | None = None,
    censored_reference: NDArray[Any] | None = None,
    learned: LearnedConfidence | None = None,
) -> tuple[EvaluatedCase, ...]:
    """:func:`evaluate_case` at several thresholds, which take the place of ``rules.threshold``; lesions are found once.

    Returns:
        One result per threshold, in their order, with the voxels.
    """
    if rules.confidence == "learned" and learned is None:
        raise InputError("the confidence learned needs a model, and there is none")
    reference = np.asarray(reference)
    for name, array in (
        ("prediction", prediction),
        ("valid", valid),
        ("segmentation", segmentation),
        ("censored_reference", censored_reference),
    ):
        if array is not None and array.shape != reference.shape:
            raise ValueError(f"{name} must have the reference's shape {reference.shape}, got {array.shape}")
    lesions = find_lesions(_within(reference, valid), spacing_mm, rules.connectivity)
    censored = None if censored_reference is None else _censored(lesions, censored_reference, valid)
    if rules.join_dilated:
        joined = joined_when_grown(lesions, rules.dilation_voxels, rules.connectivity)
        censored = None if censored is None else _all_censored(lesions, joined, censored)
        lesions = joined
    counted = lesions.volume_mm3 > rules.min_lesion_mm3 * (1 + 1e-6)  # rounding of the spacing decides nothing
    probability = prediction if prediction is not None and np.issubdtype(prediction.dtype, np.floating) else None
    mean_probability: NDArray[np.float64] = np.full(len(lesions), np.nan)
    entropy: NDArray[np.float64] = np.full(len(lesions), np.nan)
    histogram: NDArray[np.int64] = np.zeros(rules.probability_bins, np.int64)
    if probability is not None:
        flat = probability.reshape(-1)
        values = flat[lesions.voxels]
        _require_probabilities(values)
        mean_probability = mean_by_component(lesions, values)
        entropy = entropy_by_component(values, lesions.voxel_ids, len(lesions), rules.probability_bins)
        histogram = probability_histogram(values[counted[lesions.voxel_ids - 1]], rules.probability_bins)
    if segmentation is not None:
        overlap = _overlap(lesions, np.flatnonzero(_within(segmentation, valid)))
    results: list[EvaluatedCase] = []
    for threshold in thresholds:
        found, kind = _found(lesions, prediction, valid, threshold, rules)
        if segmentation is None and not results:
            overlap = _overlap(lesions, _segmented(found, probability, valid, threshold))
        candidates = _large_enough(found, rules.min_candidate_voxels)
        scores = _scores(candidates, probability, learned)
        confidence = scores.by(rules.confidence)
        result = CaseResult(
            case,
            patient if patient is not None else case,
            kind,
            Components.of(lesions),
            Components.of(candidates),
            confidence,
            counted,
            match(lesions, candidates, confidence, rules, counted),
            mean_probability,
            entropy,
            histogram,
            _overlap(lesions, candidates.voxels),
            overlap,
            scores,
            kind != "labels" or rules.confidence in BY_SIZE,
            len(found) - len(candidates),
            censored,
        )
        results.append(EvaluatedCase(result, lesions, candidates))
    return tuple(results)


def _found(
    lesions: Lesions,
    prediction: NDArray[Any] | None,
    valid: NDArray[np.bool_] | None,
    threshold: float,
    rules: EvaluationRules,
) -> tuple[Lesions, str]:
    """The predicted components of any size, and the kind of the prediction."""
    if prediction is None:
        return Lesions(lesions.shape, lesions.spacing_mm, *(a[:0] for a in _arrays(lesions))), "missing"
    if not np.issubdtype(prediction.dtype, np.floating):
        return find_lesions(_within(prediction, valid), lesions.spacing_mm, rules.connectivity), "labels"
    cast = prediction.dtype.type(threshold)
    if threshold > 0 and not cast > 0:
        raise InputError(f"threshold {threshold} is 0 in {prediction.dtype}, the type of the probabilities")
    mask = prediction >= cast
    found = find_lesions(_within(mask, valid), lesions.spacing_mm, rules.connectivity)
    _require_probabilities(prediction.reshape(-1)[found.voxels])
    return found, "probabilities" if len(found) or prediction.any() else "empty"


def _large_enough(found: Lesions, min_voxels: int) -> Lesions:
    """The components of at least so many voxels, in the same order."""
    large = found.n_voxels >= min_voxels
    if large.all():
        return found
    number = np.concatenate([[0], np.where(large, np.cumsum(large), 0)])[found.voxel_ids]
    return lesions_of_voxels(found.shape, found.spacing_mm, found.voxels[number > 0], number[number > 0])


def _scores(
    candidates: Lesions, probability: NDArray[np.floating] | None, learned: LearnedConfidence | None
) -> CandidateScores:
    values = None if probability is None else probability.reshape(-1)[candidates.voxels]
    scores = CandidateScores.of(candidates, values)
    if learned is None:
        return scores
    confidence = np.round(learned(candidates.volume_mm3, scores.mean, scores.highest), CONFIDENCE_DECIMALS)
    return replace(scores, learned=confidence)


def _require_probabilities(values: NDArray[np.floating]) -> None:
    """Refuse what is no probability where it would enter a result: in lesions and candidates. Rounding may exceed 1."""
    low, high = values.min(initial=0), values.max(initial=0)  # both NaN if any value is
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(f"prediction must be finite probabilities within [0, 1], got {low} to {high}")


def _segmented(
    candidates: Lesions, probability: NDArray[np.floating] | None, valid: NDArray[np.bool_] | None, threshold: float
) -> NDArray[np.int64]:
    """The voxels of the segmentation that a prediction without label map implies."""
    if probability is None:
        return candidates.voxels
    least = probability.dtype.type(SEGMENTATION_THRESHOLD)
    if threshold <= SEGMENTATION_THRESHOLD:
        return candidates.voxels[probability.reshape(-1)[candidates.voxels] >= least]
    return np.flatnonzero(_within(probability >= least, valid))


def _overlap(lesions: Lesions, predicted: NDArray[np.int64]) -> VoxelCounts:
    """Counts from two ascending lists of voxels."""
    few, many = sorted((lesions.voxels, predicted), key=len)
    shared = 0
    if len(few):
        position = np.minimum(np.searchsorted(many, few), len(many) - 1)
        shared = int((many[position] == few).sum())
    return VoxelCounts(len(lesions.voxels), len(predicted), shared)


def _censored(lesions: Lesions, kept: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Which lesions have no voxel in the incomplete reference."""
    flat = _within(kept, valid).reshape(-1) != 0
    n_kept = np.bincount(lesions.voxel_ids[flat[lesions.voxels]], minlength=len(lesions) + 1)[1:]
    foreign = int(flat.sum()) - int(n_kept.sum())
    if foreign:
        raise InputError(f"the censored reference has {foreign} lesion voxels that the full reference lacks")
    return n_kept == 0


def _all_censored(lesions: Lesions, joined: Lesions, censored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A joined lesion is censored when all its parts are."""
    _, first = np.unique(lesions.voxel_ids, return_index=True)
    kept = np.zeros(len(joined) + 1, bool)
    kept[joined.voxel_ids[first][~censored]] = True
    return ~kept[1:]


def check_connectivity(ndim: int, connectivity: int | None, case: str) -> None:
    """Refuse a connectivity of the other dimension, naming the case.

    Raises:
        InputError: it is not one of 26, 18, 6 (3D) or 8, 4 (2D).
    """
    allowed = (26, 18, 6) if ndim == 3 else (8, 4)
    if connectivity is not None and connectivity not in allowed:
        raise InputError(f"case {case}: connectivity must be one of {allowed} for {ndim}D images, got {connectivity}")


def _within(mask: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    mask = np.asarray(mask)
    return mask if valid is None else (mask != 0) & valid


def _arrays(lesions: Lesions) -> tuple[NDArray[Any], ...]:
    return lesions.voxels, lesions.voxel_ids, lesions.n_voxels, lesions.centroids, lesions.boxes
