"""Evaluation of one case, from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.dilation import joined_when_grown
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.arrays import ImageLike, as_array, check_same_place, spacing_of
from nnunet_lopsided.evaluation.case_result import CaseResult, Components, VoxelCounts
from nnunet_lopsided.evaluation.confidence import (
    BY_SIZE,
    CONFIDENCE_DECIMALS,
    CandidateScores,
    LearnedConfidence,
    mean_by_component,
)
from nnunet_lopsided.evaluation.dynamic_candidates import dynamic_candidates
from nnunet_lopsided.evaluation.matching import match
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.strata import entropy_by_component, probability_histogram
from nnunet_lopsided.evaluation.surface_distances import surface_distances
from nnunet_lopsided.lesions import Lesions, find_instances, find_lesions, lesions_of_voxels

# Where there is no predicted label map, these voxels are the segmentation: the class with the highest probability.
SEGMENTATION_THRESHOLD = 0.5


@dataclass(frozen=True)
class EvaluatedCase:
    """A result with the voxels it was made from."""

    result: CaseResult
    lesions: Lesions
    candidates: Lesions


def evaluate_case(
    reference: ImageLike,
    prediction: ImageLike | None,
    spacing_mm: Sequence[float] | None = None,
    rules: EvaluationRules | None = None,
    valid: NDArray[np.bool_] | None = None,
    case: str = "",
    patient: str | None = None,
    segmentation: ImageLike | None = None,
    censored_reference: ImageLike | None = None,
    learned: LearnedConfidence | None = None,
) -> CaseResult:
    """Find lesions and candidates of one case and match them.

    A voxel is predicted when ``p >= threshold``, the threshold being cast to the floating-point type of ``p``: a
    float16 or float32 map that says exactly 0.10 in its own precision is included at 0.10.

    Args:
        reference: nonzero where there is lesion, shape (z, y, x) or (y, x); like all images a numpy array, a torch
            tensor, or an image of SimpleITK. How the latter lie in space is not compared. With ``rules.instances``
            ``reference`` or ``both`` every positive value is one lesion.
        prediction: lesion probability (floating point, within [0, 1]) or a hard mask (bool or integer, nonzero is
            lesion), same shape; with ``rules.instances`` ``prediction`` or ``both`` every positive value of an integer
            array is one candidate. None: there is no prediction, and every lesion counts as missed.
        spacing_mm: voxel size along each axis; None: that of ``reference``, an image of SimpleITK.
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
        ValueError: shapes differ, images of SimpleITK lie in different places, the connectivity or spacing does not
            fit their dimension, a voxel of a lesion or candidate holds no probability, or an instance map anything
            but whole numbers of at least 0.
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
    images = {"reference": reference, "prediction": prediction, "segmentation": segmentation}
    check_same_place({**images, "censored_reference": censored_reference}, spacing_mm)
    (evaluated,) = evaluate_thresholds(
        as_array(reference),
        None if prediction is None else as_array(prediction),
        spacing_of(reference, spacing_mm),
        rules,
        (rules.threshold,),
        valid=valid,
        case=case,
        patient=patient,
        segmentation=None if segmentation is None else as_array(segmentation),
        censored_reference=None if censored_reference is None else as_array(censored_reference),
        learned=learned,
    )
    return evaluated.result


def evaluate_thresholds(
    reference: NDArray[np.generic],
    prediction: NDArray[np.generic] | None,
    spacing_mm: Sequence[float],
    rules: EvaluationRules,
    thresholds: Sequence[float],
    *,
    valid: NDArray[np.bool_] | None = None,
    case: str = "",
    patient: str | None = None,
    segmentation: NDArray[np.generic] | None = None,
    censored_reference: NDArray[np.generic] | None = None,
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
    lesions = _components(reference, valid, spacing_mm, rules, rules.reference_instances)
    censored = None if censored_reference is None else _censored(lesions, censored_reference, valid)
    if rules.join_dilated:
        joined = joined_when_grown(lesions, rules.dilation_voxels, rules.connectivity)
        censored = None if censored is None else _all_censored(lesions, joined, censored)
        lesions = joined
    counted = lesions.volume_mm3 > rules.min_lesion_mm3 * (1 + 1e-6)  # room for rounded spacings
    probability = _probability(prediction)
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
        of_any_size, kind = _candidates(lesions, prediction, valid, threshold, rules)
        # Once, at the first threshold: the segmentation has a threshold of its own.
        if segmentation is None and not results:
            # Dynamic candidates leave out voxels above the threshold, so they do not tell the segmentation.
            known = threshold if rules.candidates == "threshold" else None
            overlap = _overlap(lesions, _segmented(of_any_size, probability, valid, known))
        candidates = _large_enough(of_any_size, rules.min_candidate_voxels)
        scores = _scores(candidates, probability, learned)
        confidence = scores.by(rules.confidence)
        matches = match(lesions, candidates, confidence, rules, counted)
        result = CaseResult(
            case=case,
            patient=patient if patient is not None else case,
            kind=kind,
            lesions=Components.of(lesions, reference if rules.reference_instances else None),
            candidates=Components.of(candidates, prediction if rules.predicted_instances else None),
            confidence=confidence,
            counted=counted,
            matches=matches,
            mean_probability=mean_probability,
            entropy_bits=entropy,
            lesion_histogram=histogram,
            candidate_overlap=_overlap(lesions, candidates.voxels),
            segmentation_overlap=overlap,
            scores=scores,
            ranked=kind != "labels" or rules.confidence in BY_SIZE,
            n_dropped=len(of_any_size) - len(candidates),
            censored=censored,
            surface=surface_distances(lesions, candidates, matches, rules) if rules.surface_distances else None,
        )
        results.append(EvaluatedCase(result, lesions, candidates))
    return tuple(results)


def _candidates(
    lesions: Lesions,
    prediction: NDArray[np.generic] | None,
    valid: NDArray[np.bool_] | None,
    threshold: float,
    rules: EvaluationRules,
) -> tuple[Lesions, str]:
    """The predicted components of any size, and the kind of the prediction."""
    if prediction is None:
        none = lesions.voxels[:0]
        return lesions_of_voxels(lesions.shape, lesions.spacing_mm, none, none), "missing"
    probability = _probability(prediction)
    if probability is None:
        return _components(prediction, valid, lesions.spacing_mm, rules, rules.predicted_instances), "labels"
    if rules.predicted_instances:
        raise InputError(f"instances {rules.instances} needs whole numbers as prediction, got {prediction.dtype}")
    least = probability.dtype.type(threshold)
    # Voxels of probability 0 would all be candidates.
    if threshold > 0 and not least > 0:
        raise InputError(f"threshold {threshold} is 0 in {probability.dtype}, the type of the probabilities")
    if rules.candidates == "dynamic":
        _require_probabilities(probability)  # every voxel may be a peak
        candidates = dynamic_candidates(probability, threshold, lesions.spacing_mm, rules.connectivity, valid)
    else:
        candidates = find_lesions(_within(probability >= least, valid), lesions.spacing_mm, rules.connectivity)
        _require_probabilities(probability.reshape(-1)[candidates.voxels])
    return candidates, "probabilities" if len(candidates) or probability.any() else "empty"


def _probability(prediction: NDArray[np.generic] | None) -> NDArray[np.floating] | None:
    """The prediction where it is one of probabilities, which its type alone tells."""
    if prediction is None or not np.issubdtype(prediction.dtype, np.floating):
        return None
    return cast("NDArray[np.floating]", prediction)


def _components(
    labels: NDArray[np.generic],
    valid: NDArray[np.bool_] | None,
    spacing_mm: Sequence[float],
    rules: EvaluationRules,
    numbered: bool,
) -> Lesions:
    """The lesions or candidates of a mask or, where they are ``numbered``, of an instance map."""
    if numbered:
        numbers = cast("NDArray[np.integer]", labels)
        return find_instances(numbers if valid is None else np.where(valid, numbers, 0), spacing_mm)
    return find_lesions(_within(labels, valid), spacing_mm, rules.connectivity)


def _large_enough(components: Lesions, min_voxels: int) -> Lesions:
    """The components of at least so many voxels, in the same order."""
    large = components.n_voxels >= min_voxels
    if large.all():
        return components
    number = np.concatenate([[0], np.where(large, np.cumsum(large), 0)])[components.voxel_ids]
    return lesions_of_voxels(components.shape, components.spacing_mm, components.voxels[number > 0], number[number > 0])


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
    candidates: Lesions,
    probability: NDArray[np.floating] | None,
    valid: NDArray[np.bool_] | None,
    threshold: float | None,
) -> NDArray[np.int64]:
    """The voxels of the segmentation that a prediction without label map implies.

    ``threshold`` is None where the candidates are not all voxels above one.
    """
    if probability is None:
        return candidates.voxels
    least = probability.dtype.type(SEGMENTATION_THRESHOLD)
    if threshold is not None and threshold <= SEGMENTATION_THRESHOLD:
        return candidates.voxels[probability.reshape(-1)[candidates.voxels] >= least]
    return np.flatnonzero(_within(probability >= least, valid))


def _overlap(lesions: Lesions, predicted: NDArray[np.int64]) -> VoxelCounts:
    """Counts from two ascending lists of voxels."""
    # Bisection costs time per voxel that is looked up: a prediction may have a thousand times the reference's, or none.
    few, many = sorted((lesions.voxels, predicted), key=len)
    shared = 0
    if len(few):
        position = np.minimum(np.searchsorted(many, few), len(many) - 1)
        shared = int((many[position] == few).sum())
    return VoxelCounts(len(lesions.voxels), len(predicted), shared)


def _censored(lesions: Lesions, kept: NDArray[np.generic], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Which lesions have no voxel in the incomplete reference."""
    flat = _within(kept, valid).reshape(-1) != 0
    # A lesion that was cut in part still has voxels, and is kept.
    n_kept = np.bincount(lesions.voxel_ids[flat[lesions.voxels]], minlength=len(lesions) + 1)[1:]
    foreign = int(flat.sum()) - int(n_kept.sum())
    if foreign:
        raise InputError(f"the censored reference has {foreign} lesion voxels that the full reference lacks")
    return np.equal(n_kept, 0)


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


def _within(mask: NDArray[np.generic], valid: NDArray[np.bool_] | None) -> NDArray[np.generic]:
    mask = np.asarray(mask)
    return mask if valid is None else (mask != 0) & valid
