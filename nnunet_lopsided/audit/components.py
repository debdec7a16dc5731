"""What an audit measures on the components of one case: pure numerics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lopsided.evaluation.case import evaluate_thresholds
from nnunet_lopsided.evaluation.confidence import CONFIDENCE_DECIMALS, highest_by_component, mean_by_component
from nnunet_lopsided.evaluation.matching import Status, match
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.lesion_contrast import channel_contrasts
from nnunet_lopsided.lesions import Lesions, find_lesions, lesions_of_voxels
from nnunet_lopsided.mean_probability import mean_of

# The part of a component that stands for it in the images: where its probability is at least half its highest.
CORE = 0.5
# Shares of a component's highest probability at which it may be cut back to its lesion.
FRACTIONS = (*(i / 10 for i in range(1, 10)), 0.95)
# Probabilities at which a component that reaches an annotated lesion is tried to be divided; softmax saturates.
LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
# Levels below the threshold: a network that learned from incomplete labels gives overlooked lesions low probabilities.
FAINTER = (0.03, 0.01, 0.003, 0.001)
# Voxels of a part for which a component is divided; a saturated probability breaks up into specks.
LEAST_PART = 5


class Kind(IntEnum):
    """Whether a component is an annotated lesion, explained by none, or something else (a duplicate, part of one)."""

    OTHER = -1
    UNEXPLAINED = 0
    ANNOTATED = 1


@dataclass(frozen=True, kw_only=True)
class MeasuredCase:
    """The components of the lesion probability of one case; M of them.

    Attributes:
        components: their voxels.
        probability: of every voxel of ``components``, float32.
        kind: :class:`Kind` of each, (M,).
        mean_probability: (M,).
        max_probability: (M,).
        level: probability that all voxels of the component have at least: the threshold, or one of :data:`FAINTER`;
            (M,).
        any_probability: the highest in any of the predictions, (M,).
        agreement: share of the predictions whose own probability reaches this level in the component, (M,).
        contrasts: of the core in each channel, in robust standard deviations, (M, channels); 0 where nothing surrounds
            it.
        dice: between each annotated component cut back at each of :data:`FRACTIONS` and its lesion, (M, fractions);
            NaN for the others.
        lesions: the annotated ones, K of them.
        lesion_detected: whether a component matches it, (K,).
        lesion_of_component: index of the lesion an annotated component matches, -1 for the others, (M,).
        connectivity: by which the components were found; None: 26 in 3D, 8 in 2D.
    """

    components: Lesions
    probability: NDArray[np.float32]
    kind: NDArray[np.int8]
    mean_probability: NDArray[np.float64]
    max_probability: NDArray[np.float64]
    level: NDArray[np.float64]
    any_probability: NDArray[np.float64]
    agreement: NDArray[np.float64]
    contrasts: NDArray[np.float64]
    dice: NDArray[np.float64]
    lesions: Lesions
    lesion_detected: NDArray[np.bool_]
    lesion_of_component: NDArray[np.int64]
    connectivity: int | None = None

    def cut_back(self, component: int, fraction: float) -> NDArray[np.int64]:
        """Flat voxels of a component whose probability is at least ``fraction`` of its highest: its largest piece,
        with its holes, but for what lies in these of other components.

        Args:
            component: index from 0.
            fraction: within (0, 1]; a component has a voxel that reaches it.

        Returns:
            Ascending indices, at least one. Of pieces of equal size it is the first.
        """
        order, starts = self._by_component
        own = order[starts[component] : starts[component + 1]]
        voxels, values = self.components.voxels[own], self.probability[own]
        # In float32, the type of the values: in float64 a voxel that equals the product could be on either side of it.
        kept = voxels[values >= np.float32(fraction) * values.max()]
        piece = _largest_piece(kept, self.components.shape, self.components.boxes[component], self.connectivity)
        # Filling holes can reach into another component that lies in one; a voxel belongs to one candidate alone.
        at = np.minimum(np.searchsorted(self.components.voxels, piece), len(self.components.voxels) - 1)
        foreign = (self.components.voxels[at] == piece) & (self.components.voxel_ids[at] != component + 1)
        return np.asarray(piece[~foreign])

    @cached_property
    def _by_component(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places of all voxels in ``components.voxels``, component by component, and where each begins."""
        # Stable, so that the voxels of each component stay ascending.
        order = np.argsort(self.components.voxel_ids, kind="stable")
        return order, np.concatenate([[0], np.cumsum(self.components.n_voxels)])

    @property
    def lesion_diameter_mm(self) -> NDArray[np.float64]:
        """Of every annotated lesion, (K,)."""
        return self.lesions.diameter_mm

    @property
    def n_channels(self) -> int:
        """Images per case."""
        return self.contrasts.shape[1]


def measure_case(
    reference: NDArray[np.bool_],
    *,
    predictions: Sequence[NDArray[np.floating]],
    images: Sequence[NDArray[np.generic]],
    spacing_mm: Sequence[float],
    rules: EvaluationRules,
    valid: NDArray[np.bool_] | None = None,
    case: str = "",
) -> MeasuredCase:
    """Find the components of the mean probability of the predictions and measure them.

    Components that run into annotated lesions are divided first, see :func:`divided`; :func:`fainter` ones are added. A
    component is an annotated lesion when it detects one by the rules of the evaluation, unexplained when it matches
    none and shares no voxel with one.

    Args:
        reference: annotated lesions, shape (z, y, x) or (y, x).
        predictions: lesion probabilities of several models or magnifications, within [0, 1], same shape.
        images: one per channel, same shape, finite.
        spacing_mm: voxel size along each axis.
        rules: of components and matches; their threshold makes the components.
        valid: voxels with annotation, same shape; elsewhere there are no components. None: all.
        case: its name, for messages.

    Raises:
        ValueError: shapes differ, or a component holds no probability.
    """
    probability: NDArray[np.floating] = predictions[0] if len(predictions) == 1 else mean_of(predictions)
    # The evaluation's own code: a component of an audit is a candidate of lopsided-eval at this threshold.
    (evaluated,) = evaluate_thresholds(
        reference, probability, spacing_mm, rules, (rules.threshold,), valid=valid, case=case
    )
    flat, lesions = probability.reshape(-1), evaluated.lesions
    levels = [level for level in LEVELS if level > rules.threshold]
    components = divided(evaluated.candidates, flat[evaluated.candidates.voxels], lesions, levels, rules.connectivity)
    components, level = fainter(components, probability, rules.threshold, valid, rules.connectivity)
    # In float32, whatever type an archive has: components are cut back by comparisons in this type.
    values = flat[components.voxels].astype(np.float32)
    by_prediction = np.array([highest_by_component(components, p.reshape(-1)[components.voxels]) for p in predictions])
    confidence = np.round(mean_by_component(components, values), CONFIDENCE_DECIMALS)
    matches = match(lesions, components, confidence, rules, evaluated.result.counted)
    kind = np.full(len(components), Kind.OTHER, np.int8)
    kind[(matches.status == Status.FALSE_POSITIVE) & (matches.overlap_voxels == 0)] = Kind.UNEXPLAINED
    kind[matches.status == Status.TRUE_POSITIVE] = Kind.ANNOTATED
    lesion = np.where(kind == Kind.ANNOTATED, matches.lesion_of_candidate, 0) - 1
    return MeasuredCase(
        components=components,
        probability=values,
        kind=kind,
        mean_probability=confidence,
        max_probability=highest_by_component(components, values),
        level=level,
        any_probability=by_prediction.max(axis=0),
        agreement=_agreement(by_prediction, predictions, level),
        contrasts=_core_contrasts(components, values, images),
        dice=_dice(components, lesions, values, lesion),
        lesions=lesions,
        lesion_detected=matches.candidate_of_lesion > 0,
        lesion_of_component=lesion,
        connectivity=rules.connectivity,
    )


def divided(
    components: Lesions,
    probability: NDArray[np.floating],
    lesions: Lesions,
    levels: Sequence[float],
    connectivity: int | None = None,
) -> Lesions:
    """Divide components that run into annotated lesions, so that what lies beside a lesion can be a candidate.

    At each level, from the lowest, every component that shares a voxel with a lesion is cut back to the voxels that
    reach the level. If one of its parts then shares none and has at least :data:`LEAST_PART` voxels, the parts take its
    place; otherwise it stays as it is.

    Args:
        components: of the lesion probability.
        probability: of every voxel of ``components``.
        lesions: annotated ones.
        levels: ascending, above the threshold that made the components.
        connectivity: of components.

    Returns:
        Components, each with voxels of one of those given.

    Example:
        >>> both = find_lesions(np.array([[1, 1, 1, 1, 1, 1, 1, 1]]), (1, 1))
        >>> annotated = find_lesions(np.array([[1, 0, 0, 0, 0, 0, 0, 0]]), (1, 1))
        >>> divided(both, np.array([0.9, 0.9, 0.2, 0.9, 0.9, 0.9, 0.9, 0.9]), annotated, (0.5,)).n_voxels.tolist()
        [2, 5]
    """
    # Of every voxel: the component that it is in by now (0: it was cut away), and whether it is annotated.
    ids = components.voxel_ids.astype(np.int64)
    labelled = np.isin(components.voxels, lesions.voxels, assume_unique=True)
    last = len(components)
    for level in levels:
        # What reaches the level in the components that still run into a lesion.
        inside = np.flatnonzero(np.isin(ids, ids[labelled & (ids > 0)]) & (ids > 0) & (probability >= level))
        # Higher levels leave even fewer voxels.
        if not len(inside):
            break
        mask = np.zeros(components.shape, bool)
        mask.reshape(-1)[components.voxels[inside]] = True
        parts = find_lesions(mask, components.spacing_mm, connectivity)
        parent = np.zeros(len(parts), np.int64)
        parent[parts.voxel_ids - 1] = ids[inside]
        reaches = np.bincount(parts.voxel_ids[labelled[inside]], minlength=len(parts) + 1)[1:] > 0
        # Those of which a part came free of lesions; only they are divided.
        replaced = np.unique(parent[~reaches & (parts.n_voxels >= LEAST_PART)])
        new = np.isin(parent, replaced)[parts.voxel_ids - 1]
        # What does not reach the level falls away with the component that it joined.
        ids[np.isin(ids, replaced)] = 0
        ids[inside[new]] = last + parts.voxel_ids[new]
        last += len(parts)
    kept = ids > 0
    _, numbers = np.unique(ids[kept], return_inverse=True)
    return lesions_of_voxels(components.shape, components.spacing_mm, components.voxels[kept], numbers + 1)


def fainter(
    components: Lesions,
    probability: NDArray[np.floating],
    threshold: float,
    valid: NDArray[np.bool_] | None = None,
    connectivity: int | None = None,
) -> tuple[Lesions, NDArray[np.float64]]:
    """Add the components that are all below the threshold, so that a missed lesion there can be a candidate.

    At each of :data:`FAINTER`, from the highest, those components are added that reach no higher level.

    Args:
        components: of the voxels that reach the threshold.
        probability: of every voxel, shape (z, y, x) or (y, x).
        threshold: of ``components``; only lower levels are looked at.
        valid: voxels that may be in a component, same shape; None: all.
        connectivity: of components.

    Returns:
        ``components`` and the added ones, and the level that made each.

    Example:
        >>> probability = np.array([[0.9, 0.02, 0, 0.02, 0.004, 0, 0.004]])
        >>> more, level = fainter(find_lesions(probability >= 0.03, (1, 1)), probability, 0.03)
        >>> more.n_voxels.tolist(), level.tolist()
        ([1, 1, 1], [0.03, 0.01, 0.003])
    """
    voxels, ids, reached = [components.voxels], [components.voxel_ids.astype(np.int64)], [threshold] * len(components)
    above = threshold
    for level in (level for level in FAINTER if level < threshold):
        mask = probability >= level if valid is None else (probability >= level) & valid
        parts = find_lesions(mask, components.spacing_mm, connectivity)
        # A part that reaches the level above is a component of that level already.
        higher = probability.reshape(-1)[parts.voxels] >= above
        faint = np.bincount(parts.voxel_ids[higher], minlength=len(parts) + 1) == 0
        # No voxel has the id 0, so that it would count as faint.
        faint[0] = False
        own = faint[parts.voxel_ids]
        voxels.append(parts.voxels[own])
        ids.append(len(reached) + np.cumsum(faint)[parts.voxel_ids[own]])
        reached += [level] * int(faint.sum())
        above = level
    every = np.concatenate(voxels)
    order = np.argsort(every)
    both = lesions_of_voxels(components.shape, components.spacing_mm, every[order], np.concatenate(ids)[order])
    return both, np.array(reached)


def _agreement(
    highest: NDArray[np.float64], predictions: Sequence[NDArray[np.floating]], level: NDArray[np.float64]
) -> NDArray[np.float64]:
    if len(predictions) == 1:
        return np.ones(len(level))
    # The level in the type of the prediction: a voxel of 0.03 must reach it, but as float16 it is 0.029999.
    finding = [own >= level.astype(p.dtype) for own, p in zip(highest, predictions, strict=True)]
    return np.asarray(np.mean(finding, axis=0))


def _part(components: Lesions, values: NDArray[np.float32], fraction: float) -> NDArray[np.bool_]:
    """Which voxels remain when every component is cut back at this share of its highest probability."""
    highest = highest_by_component(components, values).astype(np.float32)
    return values >= np.float32(fraction) * highest[components.voxel_ids - 1]


def _core_contrasts(
    components: Lesions, values: NDArray[np.float32], images: Sequence[NDArray[np.generic]]
) -> NDArray[np.float64]:
    if not len(components):
        return np.zeros((0, len(images)))
    core = _part(components, values, CORE)
    cores = lesions_of_voxels(
        components.shape, components.spacing_mm, components.voxels[core], components.voxel_ids[core]
    )
    # The annotation is not left out: what surrounds a lesion must not depend on whether it is annotated.
    inside = np.zeros(components.shape, bool)
    inside.reshape(-1)[cores.voxels] = True
    # NaN is a core that fills its surroundings; 0, the neutral value, says that nothing is known.
    return np.nan_to_num(channel_contrasts(images, cores, inside))


def _dice(
    components: Lesions, lesions: Lesions, values: NDArray[np.float32], lesion: NDArray[np.int64]
) -> NDArray[np.float64]:
    dice = np.full((len(components), len(FRACTIONS)), np.nan)
    annotated = np.flatnonzero(lesion >= 0)
    if not len(annotated):
        return dice
    of_voxel = np.zeros(int(np.prod(components.shape)), np.int32)
    of_voxel[lesions.voxels] = lesions.voxel_ids
    # Lesions are counted from 0 here, from 1 in the map of voxels, where 0 is no lesion.
    wanted = np.concatenate([[-1], lesion])[components.voxel_ids] + 1
    shared = (of_voxel[components.voxels] == wanted) & (wanted > 0)
    for i, fraction in enumerate(FRACTIONS):
        part = _part(components, values, fraction)
        n = np.bincount(components.voxel_ids[part], minlength=len(components) + 1)[1:]
        common = np.bincount(components.voxel_ids[part & shared], minlength=len(components) + 1)[1:]
        dice[annotated, i] = 2 * common[annotated] / (n[annotated] + lesions.n_voxels[lesion[annotated]])
    return dice


def _largest_piece(
    voxels: NDArray[np.int64], shape: tuple[int, ...], box: NDArray[np.generic], connectivity: int | None
) -> NDArray[np.int64]:
    low = box[:, 0]
    # Only the component's box: an audit has thousands of candidates, and each would cost passes over a whole volume.
    crop = np.zeros(np.ptp(box, axis=1).tolist(), bool)
    crop[tuple(c - a for c, a in zip(np.unravel_index(voxels, shape), low, strict=True))] = True
    pieces = find_lesions(crop, (1.0,) * len(shape), connectivity)
    largest = pieces.instances() == int(np.argmax(pieces.n_voxels)) + 1
    places = np.nonzero(ndimage.binary_fill_holes(largest))
    return np.asarray(np.ravel_multi_index(tuple(c + a for c, a in zip(places, low, strict=True)), shape), np.int64)
