"""From a probability out of fold to a soft target: what the network calls and no annotation explains.

Pure numerics. A candidate is believed as much as it is probable to be a missed lesion (q of
:mod:`nnunet_lopsided.belief`), not as much as a network says: on complete labels networks call false lesions with a
high probability, and q is 0; see docs/results/completion.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.lesions import Lesions, find_lesions

# Of p below this nothing is a candidate, as in the evaluation's default.
THRESHOLD = 0.1


@dataclass(frozen=True, kw_only=True)
class Unexplained:
    """What a network calls in one case and class, and no annotation explains.

    Attributes:
        probability: of the unexplained components, 0 elsewhere, within [0, 1], shape of the case.
        components: the unexplained components, in the order of their ids.
        mean: mean probability of each, (N,).
        highest: highest probability of each, (N,).
        explained_score: mean p times root of voxels of every component that touches an annotation, (M,).
        explained_mm: its diameter, (M,).
        unexplained_score: the same of every unexplained one, (N,).
    """

    probability: NDArray[np.float32]
    components: Lesions
    mean: NDArray[np.float64]
    highest: NDArray[np.float64]
    explained_score: NDArray[np.float64]
    explained_mm: NDArray[np.float64]
    unexplained_score: NDArray[np.float64]


def unexplained_components(
    probability: NDArray[np.floating],
    annotated: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
    threshold: float = THRESHOLD,
) -> Unexplained:
    """Every component that touches no annotation, with the probability that the network gives its voxels.

    Args:
        probability: of lesion, by a network that did not train on the case, (z, y, x) or (y, x).
        annotated: voxels that the annotators decided on: lesion, or to be ignored; same shape.
        spacing_mm: voxel size along each axis.
        threshold: a component is where p is at least this, within (0, 1].

    Example:
        >>> p = np.array([[0.9, 0.8, 0.0, 0.05, 0.0, 0.6, 0.2]])
        >>> annotated = np.array([[True, False, False, False, False, False, False]])
        >>> found = unexplained_components(p, annotated, (1.0, 1.0))  # the first component touches a label
        >>> found.probability.round(2).tolist(), len(found.components), found.mean.round(2).tolist()
        ([[0.0, 0.0, 0.0, 0.0, 0.0, 0.6000000238418579, 0.20000000298023224]], 1, [0.4])
    """
    called = called_components(probability, annotated, spacing_mm, threshold)
    flat = probability.reshape(-1)
    own = np.zeros(probability.size, np.float32)
    unexplained = [voxels for voxels, explained in zip(called.voxels, called.explained, strict=True) if not explained]
    for voxels in unexplained:
        own[voxels] = flat[voxels]
    return Unexplained(
        probability=own.reshape(probability.shape),
        components=called.unexplained,
        mean=np.array([flat[voxels].mean(dtype=np.float64) for voxels in unexplained]),
        highest=np.array([flat[voxels].max() for voxels in unexplained], np.float64),
        explained_score=called.score[called.explained],
        explained_mm=called.components.diameter_mm[called.explained],
        unexplained_score=called.score[~called.explained],
    )


def soft_target(
    probability: NDArray[np.float32], spacing_mm: tuple[float, ...], beliefs: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The soft target: every unexplained component as probable as it is believed to be a missed lesion.

    Its most probable voxel has the belief, its others less in proportion to their probability.

    Args:
        probability: of :func:`unexplained_components`, 0 elsewhere, any shape of two or three axes.
        spacing_mm: voxel size along each axis.
        beliefs: of each component in the order of their ids, within [0, 1], (N,).

    Returns:
        Within [0, 1], the same shape.

    Example:
        >>> p = np.array([[0.5, 0.25, 0.0, 0.8]], np.float32)
        >>> soft_target(p, (1.0, 1.0), np.array([0.4, 0.0])).round(2).tolist()
        [[0.4000000059604645, 0.20000000298023224, 0.0, 0.0]]
    """
    components = find_lesions(probability > 0, spacing_mm)
    target = np.zeros(probability.size, np.float32)
    flat = probability.reshape(-1)
    for voxels, belief in zip(components.voxels_by_id(), beliefs, strict=True):
        target[voxels] = flat[voxels] * (belief / flat[voxels].max())
    return target.reshape(probability.shape)


def believes(estimate: object) -> bool:
    """Whether soft targets say anything: they add up to a lesion. None: nothing is known, and nothing believed."""
    return isinstance(estimate, int | float) and estimate >= 1


class Called(NamedTuple):
    """What a network calls in one case.

    Attributes:
        components: of p of at least the threshold, (N).
        voxels: flat indices of each, N arrays.
        score: mean p times the root of its voxels, the confidence "sqrt" of the evaluation, (N,).
        explained: whether it touches an annotation, (N,).
    """

    components: Lesions
    voxels: list[NDArray[np.int64]]
    score: NDArray[np.float64]
    explained: NDArray[np.bool_]

    def touching(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of them have a voxel in ``mask``, (N,)."""
        return _touching(self.voxels, mask)

    @property
    def unexplained(self) -> Lesions:
        """Those that no annotation explains, in the same order."""
        mask = np.zeros(self.components.shape, bool)
        mask.reshape(-1)[self.components.select(np.flatnonzero(~self.explained) + 1)] = True
        return find_lesions(mask, self.components.spacing_mm)


def called_components(
    probability: NDArray[np.floating],
    annotated: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
    threshold: float = THRESHOLD,
) -> Called:
    """The components that a network calls, and which of them an annotation explains.

    Arguments: those of :func:`unexplained_components`.

    Example:
        >>> called = called_components(np.array([[0.9, 0.0, 0.2]]), np.array([[True, False, False]]), (1.0, 1.0))
        >>> called.score.tolist(), called.explained.tolist()
        ([0.9, 0.2], [True, False])
    """
    # The threshold in the type of the probability: a voxel of 0.1 must reach it, but as float16 it is 0.09998.
    components = find_lesions(probability >= np.asarray(threshold, probability.dtype), spacing_mm)
    flat = probability.reshape(-1)
    voxels = components.voxels_by_id()
    # Large and sure candidates come first.
    score = [flat[inside].mean(dtype=np.float64) * np.sqrt(len(inside)) for inside in voxels]
    return Called(components, voxels, np.array(score), _touching(voxels, annotated))


def _touching(voxels: list[NDArray[np.int64]], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    flat = mask.reshape(-1)
    return np.array([flat[inside].any() for inside in voxels], bool)
