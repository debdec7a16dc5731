"""Small and large lesions scored apart, as the BraTS challenge of metastases does since 2025."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.matching import Status

# A lesion counts as found from this Dice with its candidate on.
LEAST_DICE = 0.1


@dataclass(frozen=True, kw_only=True)
class VolumeGroup:
    """Lesions below or from a volume on; every false positive counts against either group.

    Attributes:
        name: ``small`` or ``large``.
        lesions: of the group, in all cases.
        detected: of these, with a Dice of at least 0.1.
        f1_case_mean: F1 of each case that has such a lesion, averaged; None without such a case.
        sensitivity_case_mean, precision_case_mean: the same of sensitivity and precision.
        lesion_wise_dice_case_mean: mean over a case's lesions of the group and false positives, missed and false ones
            as 0, averaged over these cases.
    """

    name: str
    lesions: int
    detected: int
    f1_case_mean: float | None
    sensitivity_case_mean: float | None
    precision_case_mean: float | None
    lesion_wise_dice_case_mean: float | None


def small_and_large(cases: Sequence[CaseResult], from_mm3: float) -> tuple[VolumeGroup, VolumeGroup]:
    """Score lesions below a volume (2D: area) and from it on.

    Args:
        cases: evaluated.
        from_mm3: least volume of a large lesion.

    Source:
        ``parse_mets_results`` of the package brats-evaluation 0.0.10.
    """
    least = from_mm3 * (1 - 1e-6)  # a rounded spacing must not make a lesion small
    small = [case.lesions.volume_mm3 < least for case in cases]
    return (
        _group("small", list(zip(cases, small, strict=True))),
        _group("large", [(case, ~chosen) for case, chosen in zip(cases, small, strict=True)]),
    )


def _group(name: str, chosen: Sequence[tuple[CaseResult, NDArray[np.bool_]]]) -> VolumeGroup:
    lesions = detected = 0
    per_case = []
    for case, of_group in chosen:
        dice = np.where(case.detected, case.matches.dice, 0.0)[of_group & case.counted]
        if not len(dice):
            continue
        n_true, n_false = int((dice >= LEAST_DICE).sum()), case.count(Status.FALSE_POSITIVE)
        lesions, detected = lesions + len(dice), detected + n_true
        per_case.append(
            (
                2 * n_true / (n_true + n_false + len(dice)),
                n_true / len(dice),
                n_true / (n_true + n_false) if n_true else 0.0,  # also where there is no candidate at all
                dice.sum() / (len(dice) + n_false),
            )
        )
    means = np.mean(per_case, axis=0).tolist() if per_case else [None] * 4
    return VolumeGroup(
        name=name,
        lesions=lesions,
        detected=detected,
        f1_case_mean=means[0],
        sensitivity_case_mean=means[1],
        precision_case_mean=means[2],
        lesion_wise_dice_case_mean=means[3],
    )
