"""The confidence of a candidate, by which candidates are ranked and the best one of a lesion is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.lesions import Lesions

Confidence = Literal["mean", "max", "sum", "sqrt", "learned"]
# Those that need nothing but the candidate itself.
PLAIN: tuple[Confidence, ...] = ("mean", "max", "sum", "sqrt")
# Those by which hard labels, whose every probability is 1, can be ranked.
BY_SIZE: tuple[Confidence, ...] = ("sum", "sqrt")
TITLES: dict[str, str] = {
    "mean": "mean probability",
    "max": "highest probability",
    "sum": "sum of probabilities",
    "sqrt": "mean probability times the root of the number of voxels",
    "learned": "learned from size, mean and highest probability",
}
# Means that differ by less than this differ by the order of summation only.
CONFIDENCE_DECIMALS = 9
# A sum is a rounded mean times the number of voxels, so that it is the same when computed from a table.
SUM_DECIMALS = 6

# From volume in mm3 (2D: mm2), mean and highest probability of M candidates to their confidence, all of shape (M,).
LearnedConfidence = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class CandidateScores:
    """What the confidences of M candidates are made of.

    Attributes:
        mean: mean probability, within [0, 1], rounded to 9 decimals; 1 for hard labels; (M,).
        highest: highest probability, likewise; NaN where it is not known (tables of older versions); (M,).
        n_voxels: int64, (M,).
        learned: confidence by a model, (M,); None: there is no model.
    """

    mean: NDArray[np.float64]
    highest: NDArray[np.float64]
    n_voxels: NDArray[np.int64]
    learned: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, components: Lesions, probability: NDArray[np.floating] | None) -> CandidateScores:
        """Measure components.

        Args:
            components: M of them.
            probability: of every voxel of ``components``; None: hard labels.

        Example:
            >>> from nnunet_lopsided.lesions import find_lesions
            >>> pair = find_lesions(np.array([[1, 1, 0, 1]]), (1, 1))
            >>> scores = CandidateScores.of(pair, np.array([0.5, 0.7, 0.9]))
            >>> [scores.by(name).tolist() for name in ("mean", "max", "sum")]
            [[0.6, 0.9], [0.7, 0.9], [1.2, 0.9]]
        """
        # A hard label is a probability of 1: then the sum is the size, by which such candidates can be ranked.
        if probability is None:
            return cls(np.ones(len(components)), np.ones(len(components)), components.n_voxels)
        mean = mean_by_component(components, probability)
        highest = highest_by_component(components, probability)
        mean, highest = (np.round(p, CONFIDENCE_DECIMALS) for p in (mean, highest))
        return cls(mean, highest, components.n_voxels)

    @property
    def names(self) -> tuple[Confidence, ...]:
        """The confidences that can be told: the plain ones, and ``learned`` with a model."""
        return PLAIN if self.learned is None else (*PLAIN, "learned")

    def by(self, name: str) -> NDArray[np.float64]:
        """The confidence of each candidate, (M,).

        Args:
            name: ``mean`` or ``max`` of the probability, within [0, 1]; its ``sum`` over the voxels; ``sqrt``, the mean
                times the square root of the number of voxels; ``learned``, within [0, 1].

        Raises:
            ValueError: there is no such confidence, or no model for ``learned``.

        Source:
            ``mean``: Yi et al. (2020), section 3.4.
        """
        if name == "learned" and self.learned is not None:
            return self.learned
        if name not in PLAIN:
            raise ValueError(f"confidence must be one of {', '.join(self.names)}, got {name!r}")
        if name in ("mean", "max"):
            return self.mean if name == "mean" else self.highest
        size = np.asarray(self.n_voxels, np.float64)
        return np.round(self.mean * (size if name == "sum" else np.sqrt(size)), SUM_DECIMALS)


def mean_by_component(components: Lesions, values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of ``values``, one for every voxel of ``components``, over each of M components, (M,)."""
    sums = np.bincount(components.voxel_ids, weights=values.astype(np.float64), minlength=len(components) + 1)[1:]
    return sums / components.n_voxels


def highest_by_component(components: Lesions, values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Highest of ``values``, at least 0 and one for every voxel of ``components``, in each of M components, (M,)."""
    highest = np.zeros(len(components) + 1)
    np.maximum.at(highest, components.voxel_ids, values)
    return highest[1:]
