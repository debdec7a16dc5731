"""Which missed lesion each candidate of an audit lies on, where the whole labels are known: reading and matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.stored import StoredAudit
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case import check_connectivity
from nnunet_lopsided.evaluation.loading import LesionClass, lesion_class
from nnunet_lopsided.evaluation.matching import match
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.images import Image, difference, read_image
from nnunet_lopsided.lesions import Lesions, find_lesions, lesions_of_voxels
from nnunet_lopsided.nnunet.label_values import check_label_values
from nnunet_lopsided.nnunet.raw import Case, RawDataset


class MatchedCase(NamedTuple):
    """A case against the truth.

    Attributes:
        n_in_truth: its lesions in the truth.
        n_missed: those of them of which no voxel is annotated.
        n_disputed: annotated lesions of which no voxel is lesion in the truth.
        lesion_of_candidate: number of the missed lesion of each of its candidates, from 1; 0: none.
    """

    n_in_truth: int
    n_missed: int
    n_disputed: int
    lesion_of_candidate: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TruthMatching:
    """Matches the cases of an audit to the truth, one call each.

    Attributes:
        audit: the audit.
        dataset: that was audited.
        truth: the dataset with the whole labels.
        annotated: the cases of ``dataset``, by name.
        whole: those of ``truth``.
        places: of the candidates of a case among those of the audit.
    """

    audit: StoredAudit
    dataset: RawDataset
    truth: RawDataset
    annotated: Mapping[str, Case]
    whole: Mapping[str, Case]
    places: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, audit: StoredAudit, dataset: RawDataset, truth: RawDataset) -> TruthMatching:
        """The matching of an audit of ``dataset``."""
        places: dict[str, list[int]] = {}
        for place, candidate in enumerate(audit.candidates):
            places.setdefault(candidate.case, []).append(place)
        annotated, whole = ({case.name: case for case in of.training_cases()} for of in (dataset, truth))
        return cls(audit=audit, dataset=dataset, truth=truth, annotated=annotated, whole=whole, places=places)

    @property
    def rules(self) -> EvaluationRules:
        """Of matches, as the audit had them."""
        return self.audit.record.rules

    @cached_property
    def target(self) -> LesionClass:
        """The audited class."""
        return lesion_class(self.audit.record.label, self.dataset.folder / "dataset.json")

    def match(self, case: str) -> MatchedCase:
        """Match a case.

        Raises:
            InputError: the truth lacks it, or has other values or another geometry; or the map of candidates does not
                fit.
        """
        label = _label(self.annotated[case])
        full, part = self._read_truth(case), read_image(label)
        check_connectivity(len(part.shape), self.rules.connectivity, case)
        differing = difference(full, part)
        if differing is not None:
            raise InputError(f"case {case}: {_label(self.whole[case])} and {label} differ: {differing}")
        masks, spacing_mm = (self.target.mask(full.array), self.target.mask(part.array)), full.geometry.spacing_mm
        # What only the truth has is missed; what only the annotators have is disputed.
        missed, disputed = (_without(*both, spacing_mm, self.rules) for both in (masks, masks[::-1]))
        return MatchedCase(
            n_in_truth=len(find_lesions(masks[0], spacing_mm, self.rules.connectivity)),
            n_missed=len(missed),
            n_disputed=len(disputed),
            lesion_of_candidate=self._lesion_of_candidate(case, part, missed),
        )

    def _read_truth(self, case: str) -> Image:
        if case not in self.whole:
            raise InputError(f"case {case} of audit {self.audit.id} is not in the truth, {self.truth.name}")
        path = _label(self.whole[case])
        full = read_image(path)
        check_label_values(self.truth.label_scheme, case, path, full.array)
        return full

    def _lesion_of_candidate(self, case: str, annotated: Image, missed: Lesions) -> NDArray[np.int64]:
        places = self.places.get(case, [])
        if not places:
            return np.zeros(0, np.int64)
        ending = self.dataset.file_ending
        flat = self.audit.read_map(case, _label(self.annotated[case]), annotated, ending).array.reshape(-1)
        voxels = np.flatnonzero(flat)
        # By value in the map: the place of a candidate among those of its case, from 1.
        number_of_value = np.zeros(int(flat.max()) + 1, np.int64)
        for i, place in enumerate(places, 1):
            value = self.audit.candidates[place].number
            if value >= len(number_of_value) or not (flat[voxels] == value).any():
                raise InputError(f"case {case}: {self.audit.map_of(case, ending)} has no voxel of candidate {value}")
            number_of_value[value] = i
        own = voxels[number_of_value[flat[voxels]] > 0]
        candidates = lesions_of_voxels(annotated.shape, missed.spacing_mm, own, number_of_value[flat[own]])
        rank = np.array([self.audit.candidates[place].rank for place in places], np.float64)
        # Rank as confidence: of two candidates on one lesion the better placed one gets it.
        return match(missed, candidates, -rank, self.rules).lesion_of_candidate


def _label(case: Case) -> Path:
    assert case.label is not None, "training_cases() gives labels"
    return case.label


def _without(
    full: NDArray[np.bool_], part: NDArray[np.bool_], spacing_mm: tuple[float, ...], rules: EvaluationRules
) -> Lesions:
    """The lesions of one mask of which no voxel is in another."""
    lesions = find_lesions(full, spacing_mm, rules.connectivity)
    shared = np.bincount(lesions.voxel_ids[part.reshape(-1)[lesions.voxels]], minlength=len(lesions) + 1) > 0
    gone = ~shared[lesions.voxel_ids]
    # Numbered anew, without gaps where lesions were left out.
    _, ids = np.unique(lesions.voxel_ids[gone], return_inverse=True)
    return lesions_of_voxels(lesions.shape, lesions.spacing_mm, lesions.voxels[gone], ids + 1)
