"""Which candidate detects which lesion: the one place that decides it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.dilation import grown_voxels
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.lesions import Lesions

# Distances are compared to this precision, so that rounding decides neither the tolerance nor a tie.
RESOLUTION_MM = 1e-6


class Status(IntEnum):
    """What a candidate is; IGNORED: it matches nothing but lesions that do not count."""

    FALSE_POSITIVE = 0
    TRUE_POSITIVE = 1
    DUPLICATE = 2
    IGNORED = 3


@dataclass(frozen=True)
class Shared:
    """Voxels that candidates and lesions share: one row per pair that shares any, ordered by candidate, then lesion."""

    candidate_ids: NDArray[np.int64]
    lesion_ids: NDArray[np.int64]
    n_voxels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Every candidate with every lesion that it matches, one row per pair; ids count from 1.

    Attributes:
        candidate_ids: int64, (P,).
        lesion_ids: int64, (P,).
        n_shared: voxels they share, the lesion not being grown; int64, (P,).
        n_candidates: M, matched or not.
        n_lesions: K, matched or not.
    """

    candidate_ids: NDArray[np.int64]
    lesion_ids: NDArray[np.int64]
    n_shared: NDArray[np.int64]
    n_candidates: int
    n_lesions: int


@dataclass(frozen=True)
class Assignment:
    """Which candidate detects which lesion, and what each candidate therefore is.

    Attributes:
        status: :class:`Status` per candidate; int8, (M,).
        candidate_of_lesion: the candidate that detects a lesion, from 1, 0 when it is missed; int64, (K,).
        detecting: rows of the pairs in which a candidate detects its lesion, ascending by lesion; int64, (D,).
    """

    status: NDArray[np.int8]
    candidate_of_lesion: NDArray[np.int64]
    detecting: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Matches:
    """The outcome of matching M candidates to K lesions; ids count from 1, and 0 means none.

    Attributes:
        status: :class:`Status` per candidate; int8, (M,).
        lesion_of_candidate: the lesion a candidate matches (with ``overlap`` the one it shares most voxels with), also
            for duplicates; int64, (M,).
        distance_mm: distance of a candidate's centroid to that lesion; NaN without one and with ``overlap``; (M,).
        overlap_voxels: reference voxels inside a candidate, of whatever lesion and whatever its status; int64, (M,).
        lesions_touched: lesions a candidate shares a voxel with, whatever its status; int64, (M,).
        candidate_of_lesion: the candidate that detects a lesion, 0 when it is missed; int64, (K,).
        dice: Dice between a lesion and that candidate (rule ``union``: all candidates that match it), within [0, 1];
            NaN when missed; (K,).
        pairs: what matches what, whatever the confidence.
        covering_candidate: the candidate that shares most voxels with a lesion, detected or not (ties: the lower id), 0
            when none shares any; int64, (K,).
        covered_share: share of a lesion's voxels inside candidates, within [0, 1]; (K,).
    """

    status: NDArray[np.int8]
    lesion_of_candidate: NDArray[np.int64]
    distance_mm: NDArray[np.float64]
    overlap_voxels: NDArray[np.int64]
    lesions_touched: NDArray[np.int64]
    candidate_of_lesion: NDArray[np.int64]
    dice: NDArray[np.float64]
    pairs: Pairs
    covering_candidate: NDArray[np.int64]
    covered_share: NDArray[np.float64]


def match(
    lesions: Lesions,
    candidates: Lesions,
    confidence: NDArray[np.float64],
    rules: EvaluationRules | None = None,
    counted: NDArray[np.bool_] | None = None,
) -> Matches:
    """Match candidates to lesions.

    With ``rules.match == "centroid"`` a candidate matches the lesion nearest to its centroid if that is within the
    tolerance (ties: the nearer voxel centre, then the lower lesion id). With ``"overlap"`` it matches every lesion it
    shares a voxel with, the lesions being grown by ``rules.dilation_voxels`` first. Of the candidates of a lesion the
    most confident one detects it (ties: the one sharing more voxels with it, then the lower id). A candidate that
    detects a lesion is a true positive, one that only matches lesions detected by others a duplicate, one without a
    match a false positive; one that only matches lesions that do not count is ignored.

    Args:
        lesions: components of the reference.
        candidates: components of the prediction, of the same shape and spacing.
        confidence: one number per candidate, shape (M,).
        rules: default :class:`EvaluationRules`.
        counted: which lesions count, shape (K,); None: all.

    Returns:
        The matches; empty arrays where there are no candidates or no lesions.

    Raises:
        ValueError: shapes or spacings differ, or ``confidence`` does not fit ``candidates``.

    Source:
        Yi et al. (2020), section 3.4: a component is a true positive when its centroid lies within 1 mm of an
        annotation. Nearest lesion, duplicates and the distance to voxel boxes are this package's rules.

    Example:
        >>> from nnunet_lopsided.lesions import find_lesions
        >>> mask = np.zeros((1, 5, 5), bool)
        >>> mask[0, 1:4, 1:4] = True
        >>> lesions = find_lesions(mask, (1, 1, 1))
        >>> matches = match(lesions, lesions, np.array([0.9]))
        >>> matches.candidate_of_lesion.tolist(), matches.dice.tolist()
        ([1], [1.0])
    """
    rules = rules or EvaluationRules()
    if lesions.shape != candidates.shape or lesions.spacing_mm != candidates.spacing_mm:
        raise ValueError("lesions and candidates must have one shape and spacing")
    if confidence.shape != (len(candidates),):
        raise ValueError(f"confidence must have shape ({len(candidates)},), got {confidence.shape}")
    shared = shared_voxels(lesions, candidates)
    distance: NDArray[np.float64] = np.full(len(candidates), np.nan)
    if rules.match == "centroid":
        nearest, distance = nearest_lesions(lesions, candidates.centroids, rules)
        pair_candidates = np.flatnonzero(nearest) + 1
        pair_lesions = nearest[pair_candidates - 1]
    else:
        touching = shared_voxels(lesions, candidates, rules.dilation_voxels) if rules.dilation_voxels else shared
        touching = _allowed(touching, lesions, candidates, rules)
        pair_candidates, pair_lesions = touching.candidate_ids, touching.lesion_ids
        nearest = _most_shared(touching.candidate_ids, touching.lesion_ids, touching.n_voxels, len(candidates))

    n_shared = _lookup(shared, pair_candidates, pair_lesions, len(lesions))
    pairs = Pairs(
        candidate_ids=pair_candidates,
        lesion_ids=pair_lesions,
        n_shared=n_shared,
        n_candidates=len(candidates),
        n_lesions=len(lesions),
    )
    assigned = assign(pairs, confidence, counted)
    best = assigned.detecting
    detected = pair_lesions[best]
    dice = np.full(len(lesions), np.nan)
    if rules.dice == "best":
        common, sizes = n_shared[best], candidates.n_voxels[pair_candidates[best] - 1]
    else:
        common, sizes = (
            np.bincount(pair_lesions, weights=w, minlength=len(lesions) + 1)[detected].astype(np.int64)
            for w in (n_shared, candidates.n_voxels[pair_candidates - 1])
        )
    dice[detected - 1] = 2 * common / (lesions.n_voxels[detected - 1] + sizes)
    inside = np.bincount(shared.lesion_ids, weights=shared.n_voxels, minlength=len(lesions) + 1)[1:]
    overlap = np.bincount(shared.candidate_ids, weights=shared.n_voxels, minlength=len(candidates) + 1)[1:]
    touched = np.bincount(shared.candidate_ids, minlength=len(candidates) + 1)[1:]
    return Matches(
        status=assigned.status,
        lesion_of_candidate=nearest,
        distance_mm=distance,
        overlap_voxels=overlap.astype(np.int64),
        lesions_touched=touched.astype(np.int64),
        candidate_of_lesion=assigned.candidate_of_lesion,
        dice=dice,
        pairs=pairs,
        covering_candidate=_most_shared(shared.lesion_ids, shared.candidate_ids, shared.n_voxels, len(lesions)),
        covered_share=inside / np.maximum(lesions.n_voxels, 1),
    )


def _allowed(touching: Shared, lesions: Lesions, candidates: Lesions, rules: EvaluationRules) -> Shared:
    """The pairs that overlap enough, and with ``one_to_one`` those among them that are taken."""
    sizes = lesions.n_voxels[touching.lesion_ids - 1] + candidates.n_voxels[touching.candidate_ids - 1]
    dice = 2 * touching.n_voxels / np.maximum(sizes, 1)
    kept: NDArray[np.bool_] = np.ones(len(dice), bool)
    if rules.min_iou:
        # A pair that reaches min_iou exactly must not fail by the rounding of this product.
        kept = touching.n_voxels >= rules.min_iou * (sizes - touching.n_voxels) * (1 - 1e-12)
    if rules.one_to_one:
        kept &= _one_to_one(touching, np.where(kept, dice, 0.0))
    return Shared(touching.candidate_ids[kept], touching.lesion_ids[kept], touching.n_voxels[kept])


def _one_to_one(touching: Shared, dice: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which pairs are taken so that no component is in two of them, and the sum of their Dice is the highest."""
    from scipy.optimize import linear_sum_assignment

    candidates, row = np.unique(touching.candidate_ids, return_inverse=True)
    lesions, column = np.unique(touching.lesion_ids, return_inverse=True)
    table = np.zeros((len(candidates), len(lesions)))
    # Of equal sums the one of more pairs, as the challenge's package takes them.
    table[row, column] = np.where(dice > 0, dice + 1e-6, 0.0)
    taken = np.zeros(table.shape, bool)
    taken[linear_sum_assignment(table, maximize=True)] = True
    chosen: NDArray[np.bool_] = taken[row, column] & (dice > 0)
    return chosen


def assign(pairs: Pairs, confidence: NDArray[np.float64], counted: NDArray[np.bool_] | None = None) -> Assignment:
    """Choose the candidate that detects each lesion: of those that match it the most confident (ties: the one sharing
    more voxels with it, then the lower id).

    Args:
        pairs: what matches what.
        confidence: one number per candidate, (M,); no NaN.
        counted: which lesions count, (K,); None: all.

    Returns:
        The choice, and what each candidate is by it.

    Example:
        >>> both = Pairs(candidate_ids=np.array([1, 2]), lesion_ids=np.array([1, 1]), n_shared=np.array([1, 50]),
        ...              n_candidates=3, n_lesions=1)
        >>> mean, total = np.array([0.9, 0.6, 0.5]), np.array([0.9, 30.0, 0.5])
        >>> [[Status(s).name for s in assign(both, c).status] for c in (mean, total)]
        [['TRUE_POSITIVE', 'DUPLICATE', 'FALSE_POSITIVE'], ['DUPLICATE', 'TRUE_POSITIVE', 'FALSE_POSITIVE']]
    """
    candidates, lesions = pairs.candidate_ids, pairs.lesion_ids
    # lexsort sorts by its last key first: by lesion, then the most confident, and so on.
    order = np.lexsort((candidates, -pairs.n_shared, -confidence[candidates - 1], lesions))
    detected, first = np.unique(lesions[order], return_index=True)
    best = order[first]
    candidate_of_lesion = np.zeros(pairs.n_lesions, np.int64)
    candidate_of_lesion[detected - 1] = candidates[best]
    counts = np.ones(pairs.n_lesions, bool) if counted is None else counted
    # In this order, as the later replaces the earlier: a candidate is the best that it is to any lesion.
    status = np.full(pairs.n_candidates, Status.FALSE_POSITIVE, np.int8)
    status[candidates - 1] = Status.IGNORED
    status[candidates[counts[lesions - 1]] - 1] = Status.DUPLICATE
    status[candidates[best][counts[detected - 1]] - 1] = Status.TRUE_POSITIVE
    return Assignment(status, candidate_of_lesion, best)


def shared_voxels(lesions: Lesions, candidates: Lesions, dilation_voxels: int = 0) -> Shared:
    """Count the voxels of every pair of candidate and lesion, the lesions being grown by ``dilation_voxels``."""
    voxels, ids = grown_voxels(lesions, dilation_voxels)
    if not len(voxels) or not len(candidates.voxels):
        nothing = np.zeros(0, np.int64)
        return Shared(nothing, nothing, nothing)
    if dilation_voxels == 0 and len(candidates.voxels) < len(voxels):  # look the fewer up among the more
        position = _positions(voxels, candidates.voxels)
        common = voxels[position] == candidates.voxels
        lesion, candidate = ids[position[common]], candidates.voxel_ids[common]
    else:
        position = _positions(candidates.voxels, voxels)
        common = candidates.voxels[position] == voxels
        lesion, candidate = ids[common], candidates.voxel_ids[position[common]]
        if dilation_voxels:  # a lesion reaches a voxel from several sides
            n_voxels = len(candidates.voxels)
            once = np.unique(lesion.astype(np.int64) * n_voxels + position[common])
            lesion, candidate = once // n_voxels, candidates.voxel_ids[once % n_voxels]
    # One number per pair, so that one call of unique counts all pairs.
    keys = candidate.astype(np.int64) * (len(lesions) + 1) + lesion
    pairs, n_common = np.unique(keys, return_counts=True)
    return Shared(pairs // (len(lesions) + 1), pairs % (len(lesions) + 1), n_common.astype(np.int64))


def _positions(ascending: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    positions: NDArray[np.int64] = np.searchsorted(ascending, wanted)
    at_most: NDArray[np.int64] = np.minimum(positions, len(ascending) - 1)
    return at_most


def nearest_lesions(
    lesions: Lesions, points: NDArray[np.float64], rules: EvaluationRules
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The lesion nearest to each point, among those within the tolerance.

    A k-d tree over the centres of the reference voxels bounds the search: the distance to a voxel's box is at most the
    one to its centre and at least that minus half the voxel's diagonal, so the nearest box is among the voxels whose
    centre is within (distance to the box of any voxel) + half a diagonal. Box distances of these are computed exactly.

    Args:
        lesions: components of the reference.
        points: in voxel indices, shape (M, ndim).
        rules: distance and tolerance.

    Returns:
        Lesion id per point (0: none within the tolerance) and the distance in mm (NaN: none), both of shape (M,).
    """
    from scipy.spatial import cKDTree

    nearest, distance = np.zeros(len(points), np.int64), np.full(len(points), np.nan)
    if not len(points) or not len(lesions):
        return nearest, distance
    spacing = np.asarray(lesions.spacing_mm)
    # A box without extent is its centre, so that one computation serves both distances.
    half = spacing / 2 if rules.distance == "box" else np.zeros_like(spacing)
    half_diagonal = float(np.linalg.norm(half))
    centers, positions = lesions.voxel_coordinates() * spacing, points * spacing
    # Median splits cost more to build than they save on so few queries.
    tree = cKDTree(centers, balanced_tree=False, compact_nodes=False)
    # The last term is more than rounding can move a distance: what is too much is sorted out exactly below.
    reach = rules.tolerance_mm + half_diagonal + 2 * RESOLUTION_MM
    closest: NDArray[np.int64] = np.asarray(tree.query(positions, distance_upper_bound=reach)[1], np.int64)
    near = np.flatnonzero(closest < len(centers))
    if not len(near):
        return nearest, distance
    bound = _box_distance(positions[near], centers[closest[near]], half)
    radius = np.minimum(bound + half_diagonal + 2 * RESOLUTION_MM, reach)
    balls = tree.query_ball_point(positions[near], radius, return_sorted=False)
    point = np.repeat(near, [len(ball) for ball in balls])
    voxel = np.concatenate([np.asarray(ball, np.int64) for ball in balls])
    to_box = np.round(_box_distance(positions[point], centers[voxel], half) / RESOLUTION_MM)
    to_center = np.round(np.linalg.norm(positions[point] - centers[voxel], axis=1) / RESOLUTION_MM)
    order = np.lexsort((lesions.voxel_ids[voxel], to_center, to_box, point))
    near_points, first = np.unique(point[order], return_index=True)
    best = order[first]
    within = to_box[best] <= np.round(rules.tolerance_mm / RESOLUTION_MM)
    nearest[near_points[within]] = lesions.voxel_ids[voxel[best[within]]]
    distance[near_points[within]] = to_box[best[within]] * RESOLUTION_MM
    return nearest, distance


def _box_distance(
    points: NDArray[np.float64], centers: NDArray[np.float64], half: NDArray[np.float64]
) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = np.linalg.norm(np.maximum(np.abs(points - centers) - half, 0), axis=1)
    return distances


def _most_shared(
    of: NDArray[np.int64], others: NDArray[np.int64], n_voxels: NDArray[np.int64], n: int
) -> NDArray[np.int64]:
    """For each of ``n`` components the other one that it shares most voxels with (ties: the lower id), 0: none."""
    order = np.lexsort((others, -n_voxels, of))
    sharing, first = np.unique(of[order], return_index=True)
    most = np.zeros(n, np.int64)
    most[sharing - 1] = others[order[first]]
    return most


def _lookup(
    shared: Shared, candidate_ids: NDArray[np.int64], lesion_ids: NDArray[np.int64], n_lesions: int
) -> NDArray[np.int64]:
    """Shared voxels of the given pairs, 0 for a pair that shares none."""
    keys = shared.candidate_ids * (n_lesions + 1) + shared.lesion_ids
    wanted = candidate_ids * (n_lesions + 1) + lesion_ids
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    position = _positions(keys, wanted)
    return np.where(keys[position] == wanted, shared.n_voxels[position], 0)
