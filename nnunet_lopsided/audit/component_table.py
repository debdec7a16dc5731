"""The components of all cases as one table, and what is fitted to its columns: pure numerics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.components import Kind, MeasuredCase
from nnunet_lopsided.audit.inputs import patient_numbers
from nnunet_lopsided.audit.measuring import CaseComponents
from nnunet_lopsided.audit.miss_rate import Scored
from nnunet_lopsided.evaluation.confidence import CandidateScores
from nnunet_lopsided.evaluation.learned_confidence import ConfidenceModel
from nnunet_lopsided.lesions import equivalent_diameter_mm


@dataclass(frozen=True, kw_only=True)
class ComponentTable:
    """The components of all cases, one row each; N of them.

    Attributes:
        case: index of the case, (N,).
        index: of the component in its case, (N,).
        patient: index of the patient in ``patients``, (N,).
        kind: :class:`~nnunet_lopsided.audit.components.Kind`, (N,).
        mean_probability: over the whole component, (N,).
        max_probability: its highest, (N,).
        level: that all its voxels have at least, (N,).
        any_probability: the highest in any prediction, (N,).
        agreement: share of the predictions that find it, (N,).
        contrasts: by channel, (N, channels).
        diameter_mm: of the component cut back, (N,).
        n_voxels: of the whole component, (N,).
        threshold: of the components that are not fainter.
        patients: their names, sorted.
    """

    case: NDArray[np.int64]
    index: NDArray[np.int64]
    patient: NDArray[np.int64]
    kind: NDArray[np.int8]
    mean_probability: NDArray[np.float64]
    max_probability: NDArray[np.float64]
    level: NDArray[np.float64]
    any_probability: NDArray[np.float64]
    agreement: NDArray[np.float64]
    contrasts: NDArray[np.float64]
    diameter_mm: NDArray[np.float64]
    n_voxels: NDArray[np.int64]
    threshold: float
    patients: tuple[str, ...]

    @property
    def annotated(self) -> NDArray[np.bool_]:
        """Whether each component detects an annotated lesion, (N,)."""
        return np.equal(self.kind, Kind.ANNOTATED)

    @property
    def unexplained(self) -> NDArray[np.bool_]:
        """Whether each component is a candidate, (N,)."""
        return np.equal(self.kind, Kind.UNEXPLAINED)

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Whether each component is annotated or a candidate, and not fainter than the threshold, (N,).

        Nothing is fitted to the others: their number depends on how low the lowest level is.
        """
        return np.asarray((self.kind >= 0) & (self.level >= self.threshold))

    @classmethod
    def of(cls, measured: Sequence[CaseComponents], fraction: float, threshold: float) -> ComponentTable:
        """The components of these cases.

        Args:
            measured: all cases.
            fraction: share of its highest probability at which a component is cut back.
            threshold: of the components that are not fainter.
        """
        number = patient_numbers(m.case for m in measured)
        parts = [m.components for m in measured]
        sizes = [len(part.kind) for part in parts]
        diameters = [
            _diameter(part, [len(part.cut_back(i, fraction)) for i in range(len(part.kind))]) for part in parts
        ]
        return cls(
            case=np.repeat(np.arange(len(measured)), sizes),
            index=np.concatenate([np.arange(n) for n in sizes]),
            patient=np.repeat([number[m.case.patient] for m in measured], sizes),
            kind=np.concatenate([part.kind for part in parts]),
            mean_probability=np.concatenate([part.mean_probability for part in parts]),
            max_probability=np.concatenate([part.max_probability for part in parts]),
            level=np.concatenate([part.level for part in parts]),
            any_probability=np.concatenate([part.any_probability for part in parts]),
            agreement=np.concatenate([part.agreement for part in parts]),
            contrasts=np.concatenate([part.contrasts for part in parts]),
            diameter_mm=np.concatenate(diameters),
            n_voxels=np.concatenate([part.components.n_voxels for part in parts]),
            threshold=threshold,
            patients=tuple(number),
        )

    def confidence(self, name: str, learned: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """A confidence of every component, as in the evaluation, (N,).

        Where size is part of it, components that are not ``sure`` have 0: their size depends on how
        low the lowest level is.
        """
        confidence = CandidateScores(self.mean_probability, self.max_probability, self.n_voxels, learned).by(name)
        return confidence if name in ("mean", "max") else np.where(self.sure, confidence, 0.0)

    def learned_confidence(
        self, measured: Sequence[CaseComponents], model: ConfidenceModel, label: str | None
    ) -> NDArray[np.float64]:
        """The learned confidence of every component, by what was fitted without its case where there is that, (N,)."""
        confidence = np.zeros(len(self.kind))
        for i, of_case in enumerate(measured):
            rows = self.case == i
            # A case that the model was fitted with would be judged by its own labels.
            coefficients = model.unseen(label, of_case.case.name) or model.all_folds[model.of_class(label)]
            volume = self.n_voxels[rows] * float(np.prod(of_case.components.components.spacing_mm))
            confidence[rows] = coefficients.confidence(volume, self.mean_probability[rows], self.max_probability[rows])
        return confidence

    def features(self) -> NDArray[np.float64]:
        """The features of the model, 0 being neutral. Size is none of them: small lesions are overlooked more often."""
        # Logits, so that a linear model sees 0.99 and 0.999 as apart; from the threshold on, where a component begins,
        # so that the neutral 0 is no evidence for either side.
        at_threshold = _logit(np.array(self.threshold))
        columns = [_logit(p) - at_threshold for p in (self.mean_probability, self.max_probability)]
        if (self.agreement < 1).any():
            columns.append(self.agreement)
        return np.column_stack([*columns, self.contrasts])

    @property
    def feature_names(self) -> list[str]:
        """Names of the columns of :meth:`features`."""
        names = ["mean probability", "highest probability"]
        if (self.agreement < 1).any():
            names.append("agreement")
        return [*names, *(f"contrast, channel {i}" for i in range(self.contrasts.shape[1]))]

    def scored(self, measured: Sequence[CaseComponents], score: NDArray[np.float64]) -> Scored:
        """What the miss rate is estimated from: a highest probability, in which size has no part.

        Only components that are ``sure`` count.
        """
        number = {name: i for i, name in enumerate(self.patients)}
        lesions = [m.components.lesion_diameter_mm for m in measured]
        annotated, unexplained = self.annotated & self.sure, self.unexplained & self.sure
        detected = [m.components.lesion_of_component[annotated[self.case == i]] for i, m in enumerate(measured)]
        return Scored(
            annotated_mm=np.concatenate(lesions),
            annotated_patient=np.repeat([number[m.case.patient] for m in measured], [len(d) for d in lesions]),
            found_mm=np.concatenate([diameters[which] for diameters, which in zip(lesions, detected, strict=True)]),
            found_score=score[annotated],
            found_patient=self.patient[annotated],
            candidate_mm=self.diameter_mm[unexplained],
            candidate_score=score[unexplained],
            candidate_patient=self.patient[unexplained],
            n_patients=len(self.patients),
        )

    def ranked(self, score: NDArray[np.float64]) -> NDArray[np.int64]:
        """Rows of the candidates, the highest score first; ties: the higher mean, the larger, the earlier."""
        rows = np.flatnonzero(self.unexplained)
        # lexsort takes the last key first. Rounded, so that sums in another order of cases do not swap equal scores.
        keys = (self.index, self.case, -self.diameter_mm, -self.mean_probability, -np.round(score, 9))
        return np.asarray(rows[np.lexsort(tuple(key[rows] for key in keys))])

    def usual_contrasts(self) -> NDArray[np.float64]:
        """The middle half of the contrasts of annotated components, (2, channels); NaN without any."""
        if not self.annotated.any():
            return np.full((2, self.contrasts.shape[1]), np.nan)
        return np.asarray(np.percentile(self.contrasts[self.annotated], (25, 75), axis=0))


def _diameter(part: MeasuredCase, n_voxels: Sequence[int]) -> NDArray[np.float64]:
    """Equivalent diameters in mm of parts of so many voxels."""
    volume = np.asarray(n_voxels, np.float64) * float(np.prod(part.components.spacing_mm))
    return equivalent_diameter_mm(volume, len(part.components.shape))


def _logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    # Softmax in float32 reaches 0 and 1, whose logits are infinite and would outweigh every other feature.
    inside = np.clip(probability, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(inside / (1 - inside)))
