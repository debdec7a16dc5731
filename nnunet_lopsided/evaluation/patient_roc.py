"""Patients with lesions told from those without, by their most confident candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.intervals import Interval, newcombe, wilson
from nnunet_lopsided.evaluation.matching import Status

NO_PATIENT = "no patient has a lesion that counts"
NO_FREE_PATIENT = "there is no patient without lesions"


@dataclass(frozen=True, kw_only=True)
class PatientScores:
    """The most confident candidate of each of P patients, and whether there is a lesion at all.

    Attributes:
        confidence: the highest of all cases of a patient, (P,); -inf where there is no candidate, below whatever a
            candidate can have. Candidates that match only lesions that do not count are left out.
        with_lesion: whether a lesion counts, (P,).
        without_lesion: whether the references have none at all, (P,). A patient may be neither: one whose lesions are
            all too small to count, or one without lesions of whom a prediction is missing.
    """

    confidence: NDArray[np.float64]
    with_lesion: NDArray[np.bool_]
    without_lesion: NDArray[np.bool_]

    @property
    def called(self) -> NDArray[np.bool_]:
        """Whether a patient has a candidate, (P,)."""
        return self.confidence > -np.inf

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """What each patient adds to sensitivity and specificity, by name, each of shape (P,)."""
        return {
            "patients_with_lesion": self.with_lesion.astype(np.float64),
            "called_patients_with_lesion": (self.with_lesion & self.called).astype(np.float64),
            "patients_without_lesion": self.without_lesion.astype(np.float64),
            "cleared_patients_without_lesion": (self.without_lesion & ~self.called).astype(np.float64),
        }


def patient_scores(cases: Sequence[CaseResult], patient_of_case: NDArray[np.int64], n_patients: int) -> PatientScores:
    """The scores of all patients.

    Args:
        cases: evaluated.
        patient_of_case: index of the patient of each, from 0.
        n_patients: P.
    """
    confidence = np.full(n_patients, -np.inf)
    with_lesion, unsure = np.zeros(n_patients, bool), np.zeros(n_patients, bool)
    for case, patient in zip(cases, patient_of_case.tolist(), strict=True):
        shown = case.confidence[case.matches.status != Status.IGNORED]
        confidence[patient] = max(confidence[patient], shown.max(initial=-np.inf))
        with_lesion[patient] |= case.n_lesions > 0
        unsure[patient] |= len(case.lesions) > 0 or case.kind == "missing"
    return PatientScores(confidence=confidence, with_lesion=with_lesion, without_lesion=~with_lesion & ~unsure)


@dataclass(frozen=True, kw_only=True)
class RocPoints:
    """The ROC curve of patients: a patient is called when a candidate has at least the threshold.

    Attributes:
        threshold: the distinct highest confidences, descending, (n,).
        n_true: called patients with lesions, (n,).
        n_false: called patients without, (n,).
        n_with: patients with lesions, at least one.
        n_without: patients without, at least one.
    """

    threshold: NDArray[np.float64]
    n_true: NDArray[np.int64]
    n_false: NDArray[np.int64]
    n_with: int
    n_without: int

    @property
    def sensitivity(self) -> NDArray[np.float64]:
        """Within [0, 1], (n,)."""
        return self.n_true / self.n_with

    @property
    def false_positive_rate(self) -> NDArray[np.float64]:
        """1 - specificity, within [0, 1], (n,)."""
        return self.n_false / self.n_without

    @property
    def area(self) -> float:
        """Chance that a patient with lesions has a more confident candidate than one without; equal ones count half.

        The area under the curve with straight lines between its points, the last of which is (1, 1): patients without
        candidates are told apart by nothing.
        """
        rise = np.diff(self.n_true, prepend=0, append=self.n_with)
        across = np.diff(self.n_false, prepend=0, append=self.n_without)
        right_of = self.n_without - np.cumsum(across)
        return float((rise * (right_of + across / 2)).sum() / (self.n_with * self.n_without))


def roc_points(scores: PatientScores) -> RocPoints | None:
    """The ROC curve; None where no patient has lesions, or all have.

    Example:
        >>> points = roc_points(PatientScores(
        ...     confidence=np.array([0.9, 0.5, -np.inf, 0.5, -np.inf]),
        ...     with_lesion=np.array([True, True, True, False, False]),
        ...     without_lesion=np.array([False, False, False, True, True]),
        ... ))
        >>> points.threshold.tolist(), points.n_true.tolist(), points.n_false.tolist()
        ([0.9, 0.5], [1, 2], [0, 1])
        >>> points.area  # of 6 pairs 3 are in order, 2 equal
        0.6666666666666666
    """
    n_with, n_without = int(scores.with_lesion.sum()), int(scores.without_lesion.sum())
    if not n_with or not n_without:
        return None
    used = scores.called & (scores.with_lesion | scores.without_lesion)
    # Negated, as unique sorts ascending and the curve begins with the strictest.
    levels, level = np.unique(-scores.confidence[used], return_inverse=True)
    true, false = (
        np.cumsum(np.bincount(level[mask[used]], minlength=len(levels)))
        for mask in (scores.with_lesion, scores.without_lesion)
    )
    return RocPoints(threshold=-levels, n_true=true, n_false=false, n_with=n_with, n_without=n_without)


def patient_intervals(scores: PatientScores, area: float | None) -> dict[str, Interval]:
    """95% intervals over patients, which are independent of each other as lesions of one patient are not.

    Args:
        scores: of the patients.
        area: under their ROC curve; None: there is no curve, and no interval of it.

    Returns:
        By name: of the area, of sensitivity and of specificity, each undefined without patients of its kind.
    """
    n_with, n_without = int(scores.with_lesion.sum()), int(scores.without_lesion.sum())
    n_called = int((scores.with_lesion & scores.called).sum())
    n_cleared = int((scores.without_lesion & ~scores.called).sum())
    intervals = {
        "patient_sensitivity_wilson": wilson(n_called, n_with, NO_PATIENT),
        "patient_specificity_wilson": wilson(n_cleared, n_without, NO_FREE_PATIENT),
    }
    if area is not None:
        intervals["patient_auc_newcombe"] = newcombe(area, n_with, n_without)
    return intervals


def resampled_roc_area(
    scores: PatientScores, weights: NDArray[np.integer], max_cells: int = 2_000_000
) -> NDArray[np.float64]:
    """The area under the ROC curve with every patient counted ``weights`` times.

    Args:
        scores: of P patients.
        weights: one row per replicate, (B, P).
        max_cells: replicates x patients held at a time; bounds memory.

    Returns:
        (B,); NaN where no patient with lesions was drawn, or none without.
    """
    order = np.argsort(scores.confidence, kind="stable")
    levels = scores.confidence[order]
    # Patients of equal confidence are one step of the curve, within which every pair counts half.
    starts = np.flatnonzero(np.r_[True, levels[1:] > levels[:-1]])
    area = np.full(len(weights), np.nan)
    chunk = max(1, max_cells // len(order))
    for first in range(0, len(weights), chunk):
        drawn = weights[first : first + chunk, order]
        true, false = (
            np.add.reduceat(drawn * mask[order], starts, axis=1).astype(np.float64)
            for mask in (scores.with_lesion, scores.without_lesion)
        )
        in_order = (true * (np.cumsum(false, axis=1) - false / 2)).sum(axis=1)
        pairs = true.sum(axis=1) * false.sum(axis=1)
        np.divide(in_order, pairs, out=area[first : first + chunk], where=pairs > 0)
    return area
