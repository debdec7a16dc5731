"""The candidates and lesions of all cases together, with sums per patient: what metrics and bootstrap are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.intervals import Detections
from nnunet_lopsided.evaluation.matching import Status, assign
from nnunet_lopsided.evaluation.patient_roc import PatientScores, patient_scores
from nnunet_lopsided.evaluation.rules import EvaluationRules


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """The cases, with the policy for duplicates applied and lesions that do not count left out.

    Attributes:
        patients: names, in the order of their first case.
        has_probabilities: whether no prediction is a hard label map.
        ranked: whether the candidates have a confidence that ranks; hard labels may have none.
        detections: confidences and patients of detected lesions, true and false positives.
        totals: sums over each patient's cases by name, each of shape (n_patients,).
        scores: of the patients: their most confident candidates, and whether they have lesions.
        histograms: of the probabilities of each patient's lesion voxels, (n_patients, bins).
        lesion_patient: index of the patient of every lesion, (K,).
        lesion_diameter_mm: (K,).
        lesion_detected: (K,).
        lesion_censored: whether an incomplete reference lacks it, (K,); None without such a reference.
    """

    patients: tuple[str, ...]
    has_probabilities: bool
    ranked: bool
    detections: Detections
    totals: dict[str, NDArray[np.float64]]
    scores: PatientScores
    histograms: NDArray[np.int64]
    lesion_patient: NDArray[np.int64]
    lesion_diameter_mm: NDArray[np.float64]
    lesion_detected: NDArray[np.bool_]
    lesion_censored: NDArray[np.bool_] | None

    @property
    def detected_diameter_mm(self) -> NDArray[np.float64]:
        """Diameters of the detected lesions."""
        return self.lesion_diameter_mm[self.lesion_detected]


def pool(cases: Sequence[CaseResult], rules: EvaluationRules) -> Pooled:
    """Pool at least one case.

    Args:
        cases: evaluated by these rules.
        rules: of them only the policy for duplicates matters here.

    Returns:
        Confidences and sums by patient.
    """
    patients, patient_of_case = _patients(cases)
    lesion_patient = np.repeat(patient_of_case, [case.n_lesions for case in cases])
    detections = _detections(cases, rules, patient_of_case, len(patients))
    sums = [case_sums(case, rules) for case in cases]
    totals: dict[str, NDArray[np.float64]] = {}
    for name in sums[0]:
        values = np.array([s[name] for s in sums], np.float64)
        totals[name] = np.bincount(patient_of_case, weights=values, minlength=len(patients)).astype(np.float64)
    scores = patient_scores(cases, patient_of_case, len(patients))
    histograms = np.zeros((len(patients), len(cases[0].lesion_histogram)), np.int64)
    # Not +=, which keeps only the last of several cases of one patient.
    np.add.at(histograms, patient_of_case, np.stack([case.lesion_histogram for case in cases]))
    marked = [case.censored[case.counted] for case in cases if case.censored is not None]
    return Pooled(
        patients=patients,
        has_probabilities=all(case.kind != "labels" for case in cases),
        ranked=all(case.ranked for case in cases),
        detections=detections,
        totals=totals | scores.sums(),
        scores=scores,
        histograms=histograms,
        lesion_patient=lesion_patient,
        lesion_diameter_mm=np.concatenate([case.lesions.diameter_mm[case.counted] for case in cases]),
        lesion_detected=np.concatenate([case.detected[case.counted] for case in cases]),
        # Some cases without it would be lesions of neither group.
        lesion_censored=np.concatenate(marked) if len(marked) == len(cases) else None,
    )


def _patients(cases: Sequence[CaseResult]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The patients in the order of their first case, and the index of each case's."""
    patients = tuple(dict.fromkeys(case.patient for case in cases))
    index = {patient: i for i, patient in enumerate(patients)}
    return patients, np.array([index[case.patient] for case in cases], np.int64)


def _detections(
    cases: Sequence[CaseResult], rules: EvaluationRules, patient_of_case: NDArray[np.int64], n_patients: int
) -> Detections:
    true, false = (np.concatenate(masks) for masks in zip(*(_policy(case, rules) for case in cases), strict=True))
    confidence = np.concatenate([case.confidence for case in cases])
    candidate_patient = np.repeat(patient_of_case, [len(case.candidates) for case in cases])
    lesion_patient = np.repeat(patient_of_case, [case.n_lesions for case in cases])
    detected = np.concatenate([case.detected[case.counted] for case in cases])
    return Detections(
        lesion_confidence=np.concatenate([case.lesion_confidence[case.counted] for case in cases])[detected],
        lesion_patient=lesion_patient[detected],
        true_confidence=confidence[true],
        true_patient=candidate_patient[true],
        false_confidence=confidence[false],
        false_patient=candidate_patient[false],
        lesions_per_patient=np.bincount(lesion_patient, minlength=n_patients),
    )


def detections_by(cases: Sequence[CaseResult], rules: EvaluationRules, name: str) -> Detections:
    """What is detected when candidates are ranked by another confidence, and matched by it.

    Args:
        cases: at least one, each with this confidence.
        rules: of them only the policy for duplicates matters here.
        name: of the confidence.
    """
    patients, patient_of_case = _patients(cases)
    return _detections([ranked_by(case, name) for case in cases], rules, patient_of_case, len(patients))


def ranked_by(case: CaseResult, name: str) -> CaseResult:
    """A case whose candidates have another confidence, which also chooses the one that detects a lesion.

    Everything else stays as it is: the Dice is still that of the candidates chosen before.
    """
    confidence = case.scores.by(name)
    assigned = assign(case.matches.pairs, confidence, case.counted)
    matches = replace(case.matches, status=assigned.status, candidate_of_lesion=assigned.candidate_of_lesion)
    return replace(case, confidence=confidence, matches=matches)


def lesions_by_patient(
    pooled: Pooled, group: NDArray[np.int64], n_groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lesions and detected lesions of each patient in each group, both of shape (n_patients, n_groups).

    Args:
        pooled: the cases.
        group: of every lesion, from 0, (K,).
        n_groups: their number.
    """
    shape = (len(pooled.patients), n_groups)
    keys = pooled.lesion_patient * n_groups + group
    counts = (np.bincount(k, minlength=shape[0] * n_groups) for k in (keys, keys[pooled.lesion_detected]))
    lesions, detected = (c.reshape(shape).astype(np.float64) for c in counts)
    return lesions, detected


def _policy(case: CaseResult, rules: EvaluationRules) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which candidates count as true and which as false positives."""
    status = case.matches.status
    duplicate = status == Status.DUPLICATE
    true, false = status == Status.TRUE_POSITIVE, status == Status.FALSE_POSITIVE
    return true | (duplicate & (rules.duplicates == "tp")), false | (duplicate & (rules.duplicates == "fp"))


def case_sums(case: CaseResult, rules: EvaluationRules) -> dict[str, float]:
    """What one case adds to the sums behind the metrics."""
    is_true, is_false = _policy(case, rules)
    true, false = int(is_true.sum()), int(is_false.sum())
    n_lesions, n_detected = case.n_lesions, int(case.detected.sum())
    dice = float(case.matches.dice[case.detected].sum())
    false_volume = float(case.candidates.volume_mm3[is_false].sum())
    lesion_free = len(case.lesions) == 0
    voxels, voxel_dice = case.segmentation_overlap, case.segmentation_overlap.dice
    candidate_dice = case.candidate_overlap.dice
    # What is averaged over cases is a share already here; where it is undefined, its denominator counts 0.
    return {
        "cases": 1,
        "lesion_free_cases": lesion_free,
        "lesions": n_lesions,
        "detected": n_detected,
        "true": true,
        "false": false,
        "true_and_false": true + false,
        "lesions_and_false": n_lesions + false,
        "dice": dice,
        "case_lesion_dice": dice / (n_lesions + false) if n_lesions + false else 0.0,
        "cases_with_lesion_dice": n_lesions + false > 0,
        "false_volume": false_volume,
        "false_lesion_free": false * lesion_free,
        "false_volume_lesion_free": false_volume * lesion_free,
        "case_voxel_dice": voxel_dice or 0.0,
        "cases_with_voxel_dice": voxel_dice is not None,
        "twice_shared_voxels": 2 * voxels.shared,
        "voxels_of_both": voxels.reference + voxels.predicted,
        "case_candidate_dice": candidate_dice or 0.0,
        "cases_with_candidate_dice": candidate_dice is not None,
    }
