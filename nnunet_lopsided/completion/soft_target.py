"""From a probability out of fold to a soft target: what the network calls and no annotation explains.

Pure numerics. Why the probability itself: of the rules that were tried (one number for all, a calibrated belief per
component, the probability voxel by voxel) it is the one that needs nothing to be estimated, and it lost nothing; see
docs/explanation/when-it-helps.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.lesions import Lesions, find_lesions

# Of p below this nothing is a candidate, as in the evaluation's default.
THRESHOLD = 0.1


@dataclass(frozen=True, kw_only=True)
class SoftTarget:
    """The soft target of one case and class.

    Attributes:
        belief: within [0, 1], 0 wherever nothing is believed, shape of the case.
        components: the unexplained components, in the order of their ids.
        mean: mean probability of each, (N,).
        highest: highest probability of each, (N,).
        explained_score: mean p times root of voxels of every component that touches an annotation, (M,).
        explained_mm: its diameter, (M,).
        unexplained_score: the same of every unexplained one, (N,).
    """

    belief: NDArray[np.float32]
    components: Lesions
    mean: NDArray[np.float64]
    highest: NDArray[np.float64]
    explained_score: NDArray[np.float64]
    explained_mm: NDArray[np.float64]
    unexplained_score: NDArray[np.float64]


def soft_target(
    probability: NDArray[np.floating],
    annotated: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
    threshold: float = THRESHOLD,
) -> SoftTarget:
    """Believe in every component that touches no annotation as much as the network does, voxel by voxel.

    Args:
        probability: of lesion, by a network that did not train on the case, (z, y, x) or (y, x).
        annotated: voxels that the annotators decided on: lesion, or to be ignored; same shape.
        spacing_mm: voxel size along each axis.
        threshold: a component is where p is at least this, within (0, 1].

    Example:
        >>> p = np.array([[0.9, 0.8, 0.0, 0.05, 0.0, 0.6, 0.2]])
        >>> annotated = np.array([[True, False, False, False, False, False, False]])
        >>> target = soft_target(p, annotated, (1.0, 1.0))  # the first component touches a label
        >>> target.belief.round(2).tolist(), len(target.components), target.mean.round(2).tolist()
        ([[0.0, 0.0, 0.0, 0.0, 0.0, 0.6000000238418579, 0.20000000298023224]], 1, [0.4])
    """
    # The threshold in the type of the probability: a voxel of 0.1 must reach it, but as float16 it is 0.09998.
    components = find_lesions(probability >= np.asarray(threshold, probability.dtype), spacing_mm)
    flat, known = probability.reshape(-1), annotated.reshape(-1)
    belief = np.zeros(probability.size, np.float32)
    unexplained, mean, highest, explained_mm = [], [], [], []
    scores: dict[bool, list[float]] = {True: [], False: []}
    for number in range(1, len(components) + 1):
        voxels = components.select([number])
        values = flat[voxels].astype(np.float64)
        explained = bool(known[voxels].any())
        # The confidence "sqrt" of the evaluation: large and sure candidates come first.
        scores[explained].append(float(values.mean() * np.sqrt(len(values))))
        if explained:
            explained_mm.append(components.diameter_mm[number - 1])
        else:
            belief[voxels] = values
            unexplained.append(voxels)
            mean.append(values.mean())
            highest.append(values.max())
    # Found again from the unexplained voxels alone: still apart from each other, and in the same order as `mean`.
    mask = np.zeros(probability.shape, bool)
    mask.reshape(-1)[np.concatenate(unexplained) if unexplained else np.zeros(0, np.int64)] = True
    return SoftTarget(
        belief=belief.reshape(probability.shape),
        components=find_lesions(mask, spacing_mm),
        mean=np.array(mean),
        highest=np.array(highest),
        explained_score=np.array(scores[True]),
        explained_mm=np.array(explained_mm),
        unexplained_score=np.array(scores[False]),
    )
