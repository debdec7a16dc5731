"""The bootstrap of an evaluation: every statistic in every replicate, and the intervals that follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.intervals import (
    Interval,
    patient_weights,
    percentile_interval,
    resampled_curves,
    resampled_ratio,
    subsample_weights,
    why_no_bootstrap,
)
from nnunet_lopsided.evaluation.metrics import AVERAGE_RECALL_MAX_FP, n_contributing, resampled_metrics_and_froc
from nnunet_lopsided.evaluation.pooling import Pooled, lesions_by_patient
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.strata import ANNOTATION_GROUPS, AnnotationGroup, diameter_bin

# The share of patients drawn for the spread of the average recall, of Shirokikh et al. (2020).
SUBSAMPLED_SHARE = 0.8


@dataclass(frozen=True)
class _Share:
    """The sensitivity on a group of lesions in every replicate.

    Attributes:
        n_lesions: in the group.
        n_detected: of these.
        replicates: the detected share, (B,); NaN where no lesion of the group was drawn.
        n_patients: with a lesion in the group.
    """

    n_lesions: int
    n_detected: int
    replicates: NDArray[np.float64]
    n_patients: int


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Every statistic in each of B replicates, or the reason why there is no bootstrap.

    Attributes:
        reason: why there is none; None: there is one.
        pooled: the cases.
        metrics: by name, (B,).
        diameter: sensitivity in every bin of diameters, smallest first.
        annotation: sensitivity on kept and on censored lesions; empty without an incomplete reference.
        froc: sensitivity at every number of false positives per case, (B, F).
    """

    reason: str | None
    pooled: Pooled
    metrics: dict[str, NDArray[np.float64]]
    diameter: tuple[_Share, ...]
    annotation: tuple[_Share, ...]
    froc: NDArray[np.float64]

    @classmethod
    def draw(cls, pooled: Pooled, rules: EvaluationRules, n_replicates: int, seed: int) -> Replicates:
        """Draw patients and compute everything.

        Args:
            pooled: the cases.
            rules: edges of the diameter bins, and where the FROC is read.
            n_replicates: 0: no bootstrap.
            seed: of the draws.
        """
        n_patients = len(pooled.patients)
        reason = why_no_bootstrap(n_patients, n_replicates)
        # Without a bootstrap of no replicate: the arrays are empty, and every interval gives the reason.
        weights = patient_weights(n_patients, 0 if reason else n_replicates, seed)
        bins = diameter_bin(pooled.lesion_diameter_mm, rules.diameter_edges_mm)
        annotation: tuple[_Share, ...] = ()
        if pooled.lesion_censored is not None:
            groups = pooled.lesion_censored.astype(np.int64)
            annotation = _shares(pooled, weights, groups, len(ANNOTATION_GROUPS))
        metrics, froc = resampled_metrics_and_froc(pooled, weights, rules.fp_per_case)
        return cls(
            reason=reason,
            pooled=pooled,
            metrics=metrics,
            diameter=_shares(pooled, weights, bins, len(rules.diameter_edges_mm) + 1),
            annotation=annotation,
            froc=froc,
        )

    def interval(self, name: str) -> Interval:
        """The 95% interval of a metric."""
        return self._interval(self.metrics[name], n_contributing(self.pooled, name))

    def n_defined(self, name: str) -> int:
        """Replicates in which a metric is defined."""
        return int((~np.isnan(self.metrics[name])).sum())

    def by_diameter(self) -> list[Interval]:
        """The 95% interval of the sensitivity in every bin of diameters, smallest first."""
        return [self._interval(share.replicates, share.n_patients) for share in self.diameter]

    def by_annotation(self) -> tuple[AnnotationGroup, ...]:
        """Sensitivity on kept and on censored lesions, with its interval."""
        return tuple(
            AnnotationGroup(
                name=name,
                n_lesions=share.n_lesions,
                n_detected=share.n_detected,
                bootstrap=self._interval(share.replicates, share.n_patients),
            )
            for name, share in zip(ANNOTATION_GROUPS, self.annotation, strict=False)  # () without censored ones
        )

    def at_fp(self, n: int) -> list[Interval]:
        """The 95% intervals of the sensitivity at the first ``n`` numbers of false positives per case."""
        return [self._interval(column, n_contributing(self.pooled, "map")) for column in self.froc.T[:n]]

    def _interval(self, replicates: NDArray[np.float64], n_patients: int) -> Interval:
        if self.reason is not None:
            return Interval.without(self.reason)
        return percentile_interval(replicates, n_patients)


def _shares(pooled: Pooled, weights: NDArray[np.int64], group: NDArray[np.int64], n_groups: int) -> tuple[_Share, ...]:
    lesions, detected = lesions_by_patient(pooled, group, n_groups)
    replicates = resampled_ratio(weights, detected, lesions)
    return tuple(
        _Share(
            n_lesions=int(lesions[:, i].sum()),
            n_detected=int(detected[:, i].sum()),
            replicates=replicates[:, i],
            n_patients=int((lesions[:, i] > 0).sum()),
        )
        for i in range(n_groups)
    )


def subsampled_average_recall(pooled: Pooled, n_replicates: int, seed: int) -> tuple[float, float] | None:
    """Mean and standard deviation of the average recall over draws of 80% of the patients."""
    if not pooled.ranked or not n_replicates or len(pooled.patients) < 2:
        return None
    weights = subsample_weights(len(pooled.patients), SUBSAMPLED_SHARE, n_replicates, seed)
    recall = resampled_curves(pooled.detections, weights, pooled.totals["cases"], AVERAGE_RECALL_MAX_FP).average_recall
    defined = recall[~np.isnan(recall)]
    return (float(defined.mean()), float(defined.std())) if len(defined) else None
