"""What one case contributes to an evaluation: tables of its lesions and candidates, no volumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.confidence import CandidateScores
from nnunet_lopsided.evaluation.matching import Matches, Status
from nnunet_lopsided.evaluation.surface_distances import SurfaceDistances
from nnunet_lopsided.lesions import Lesions, pieces_of

# A missed lesion counts as covered by candidates from this share of its voxels on.
COVERED_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Components:
    """Sizes and places of K components; id i + 1 is row i.

    Attributes:
        n_voxels: int64, (K,).
        volume_mm3: mm2 in 2D; (K,).
        diameter_mm: of the sphere (2D: circle) of equal volume, (K,).
        centroid: mean voxel index, array order, (K, ndim).
        boxes: first (inclusive) and last (exclusive) index along each axis, int64, (K, ndim, 2).
        instance: the number of each in its instance map, (K,); None: they are connected components.
        n_pieces: in how many pieces that do not touch each lies, (K,); None likewise.
    """

    n_voxels: NDArray[np.int64]
    volume_mm3: NDArray[np.float64]
    diameter_mm: NDArray[np.float64]
    centroid: NDArray[np.float64]
    boxes: NDArray[np.int64]
    instance: NDArray[np.int64] | None = None
    n_pieces: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.n_voxels)

    @classmethod
    def of(cls, lesions: Lesions, numbers: NDArray[np.generic] | None = None) -> Components:
        """Of lesions, and where these have numbers of their own, of the map that holds them."""
        instance = None
        if numbers is not None:
            _, first = np.unique(lesions.voxel_ids, return_index=True)
            instance = numbers.reshape(-1)[lesions.voxels[first]].astype(np.int64)
        return cls(
            n_voxels=lesions.n_voxels,
            volume_mm3=lesions.volume_mm3,
            diameter_mm=lesions.diameter_mm,
            centroid=lesions.centroids,
            boxes=lesions.boxes,
            instance=instance,
            n_pieces=None if numbers is None else pieces_of(lesions),
        )

    @property
    def n_in_pieces(self) -> int:
        """Instances in several pieces, each of which is one lesion or candidate nevertheless."""
        return 0 if self.n_pieces is None else int((self.n_pieces > 1).sum())


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


@dataclass(frozen=True, kw_only=True)
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
        surface: how far the outlines of matched lesions lie off; None: it was not asked for.
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
    surface: SurfaceDistances | None = None

    @property
    def detected(self) -> NDArray[np.bool_]:
        """Whether each lesion counts and is detected, (K,)."""
        return self.counted & (self.matches.candidate_of_lesion > 0)

    @property
    def missed(self) -> NDArray[np.bool_]:
        """Whether each lesion counts and is not detected, (K,)."""
        return self.counted & ~(self.matches.candidate_of_lesion > 0)

    @property
    def looks_hard(self) -> bool:
        """Whether the probabilities are those of a label map that was saved as floating point: 1 in every candidate."""
        return self.kind == "probabilities" and bool((self.scores.mean == 1).all())

    @property
    def covered_share(self) -> NDArray[np.float64]:
        """Share of each lesion's voxels inside candidates, whatever these detect; within [0, 1], (K,)."""
        return self.matches.covered_share

    @property
    def covered_by(self) -> NDArray[np.int64]:
        """The candidate under which a missed lesion lies, (K,); 0: it is not missed, or less than half is covered.

        To the eye such a lesion is found: the candidate joins it to another one, or its centroid lies too far off.
        """
        covered = self.missed & (self.covered_share >= COVERED_SHARE)
        return np.where(covered, self.matches.covering_candidate, 0)

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
        # Candidates count from 1, so that 0, no candidate, finds NaN.
        padded = np.concatenate([[np.nan], self.confidence])
        return padded[self.matches.candidate_of_lesion]

    def count(self, status: Status) -> int:
        """Candidates of this status."""
        return int((self.matches.status == status).sum())
