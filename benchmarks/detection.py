"""What the benchmarks say of probabilities against whole labels: average precision, FROC, small and large lesions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.case import evaluate_case
from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.curves import average_precision, operating_points, sensitivity_at
from nnunet_lopsided.evaluation.matching import Status

FP_PER_CASE = (1.0, 2.0, 4.0, 4.5, 8.0)


def evaluate(
    probability: list[NDArray[np.floating]], labels: list[NDArray[np.bool_]], spacing_mm: tuple[float, ...]
) -> dict[str, Any]:
    """Average precision and FROC by mean p, sum of p and mean p times the root of the size; candidates at 0.1."""
    results = [evaluate_case(y, p, spacing_mm) for p, y in zip(probability, labels, strict=True)]
    n_lesions = sum(len(r.lesions) for r in results)
    numbers: dict[str, Any] = {"lesions": n_lesions}
    for name, power in (("mean", 0.0), ("sqrt", 0.5), ("sum", 1.0)):
        hits, false = [], []
        for r in results:
            confidence = r.confidence * r.candidates.n_voxels**power
            hits.append(confidence[r.matches.candidate_of_lesion[r.detected] - 1])
            false.append(confidence[r.matches.status == Status.FALSE_POSITIVE])
        hit, miss = np.concatenate(hits), np.concatenate(false)
        points = operating_points(
            lesion_confidence=hit,
            true_confidence=hit,
            false_confidence=miss,
            n_lesions=n_lesions,
            n_cases=len(results),
        )
        numbers[f"ap_{name}"] = average_precision(points)
        numbers |= {f"sens_{name}_at_{m.fp_per_case:g}": m.sensitivity for m in sensitivity_at(points, FP_PER_CASE)}
        if name == "sqrt":
            numbers |= sensitivity_by_size(results, hits, miss)
    numbers["sensitivity"] = len(hit) / n_lesions
    numbers["fp_per_case"] = len(miss) / len(results)
    numbers["specks"] = sum(
        int((r.candidates.n_voxels[r.matches.status == Status.FALSE_POSITIVE] <= 2).sum()) for r in results
    ) / max(1, len(miss))
    return numbers


def sensitivity_by_size(
    results: list[CaseResult], hits: list[NDArray[np.float64]], miss: NDArray[np.float64]
) -> dict[str, Any]:
    """Of the lesions below the median diameter of all and of the others, with as many false positives among all.

    Args:
        results: a case each.
        hits: by case, the confidence by which each detected lesion was.
        miss: the confidences of the false positives of all cases.
    """
    median = float(np.median(np.concatenate([r.lesions.diameter_mm for r in results])))
    numbers: dict[str, Any] = {"median_diameter_mm": median}
    for name, is_small in (("small", True), ("large", False)):
        own = [(r.lesions.diameter_mm < median) == is_small for r in results]
        hit = np.concatenate([h[o[r.detected]] for h, o, r in zip(hits, own, results, strict=True)])
        n = sum(int(o.sum()) for o in own)
        points = operating_points(
            lesion_confidence=hit, true_confidence=hit, false_confidence=miss, n_lesions=n, n_cases=len(results)
        )
        at = sensitivity_at(points, FP_PER_CASE)
        numbers |= {f"lesions_{name}": n, **{f"sens_{name}_at_{m.fp_per_case:g}": m.sensitivity for m in at}}
    return numbers
