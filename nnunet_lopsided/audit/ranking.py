"""How probable it is that an unexplained component is a missed lesion: pure numerics.

What is known are annotated components: those that detect an annotated lesion. Of the unexplained ones nothing is known:
they are missed lesions or false positives. Telling the annotated from the unexplained by their features therefore
ranks the unexplained by their likeness to annotated lesions (Elkan and Noto 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.nonnegative_logistic import nonnegative_logistic

RankBy = Literal["likeness", "mean-probability", "max", "sum", "sqrt", "learned"]
# Those that are probabilities, unlike sums.
WITHIN_1: tuple[RankBy, ...] = ("likeness", "mean-probability", "max", "learned")
N_FOLDS = 5
# Below so many annotated or unexplained components no model is fitted.
LEAST_EXAMPLES = 20
_FARTHEST = 1e-6  # from 0 and 1, of probabilities


@dataclass(frozen=True)
class ReliabilityBin:
    """Components to which the model gave about the same probability of being annotated.

    Attributes:
        predicted: mean of these probabilities, out of fold.
        observed: share that is annotated.
        n: components.
    """

    predicted: float
    observed: float
    n: int


@dataclass(frozen=True)
class Likeness:
    """A model that tells annotated from unexplained components.

    Attributes:
        probability: of being annotated, for every component, by a model that saw none of its patient; (N,).
        coefficients: of the standardised features, of the model fitted to all.
        reliability: how well these probabilities hold.
        separation: area under the ROC curve of annotated against unexplained; 0.5: the features tell nothing.
    """

    probability: NDArray[np.float64]
    coefficients: tuple[tuple[str, float], ...]
    reliability: tuple[ReliabilityBin, ...]
    separation: float


def why_no_model(annotated: NDArray[np.bool_], patients: NDArray[np.int64]) -> str:
    """Why no model can be fitted; empty: it can."""
    n, n_annotated = len(annotated), int(annotated.sum())
    if min(n_annotated, n - n_annotated) < LEAST_EXAMPLES:
        return (
            f"there are {n_annotated} annotated lesions that are found and {n - n_annotated} candidates; a model needs "
            f"{LEAST_EXAMPLES} of each"
        )
    if min(len(np.unique(patients[annotated == which])) for which in (True, False)) < N_FOLDS:
        return f"annotated lesions and candidates must lie in at least {N_FOLDS} patients each"
    return ""


def fit_likeness(
    features: NDArray[np.float64],
    names: Sequence[str],
    *,
    annotated: NDArray[np.bool_],
    patients: NDArray[np.int64],
    learned: NDArray[np.bool_] | None = None,
) -> Likeness:
    """Fit a logistic regression with an L2 penalty, cross-fitted by patient, in which no feature counts against.

    Every feature is first given the sign that annotated components have in it (their median), and no weight may be
    negative: what makes a component more like an annotated lesion never lowers its probability. Without that, a model
    of a data set whose small lesions were missed learns that what is surely a lesion, but small, is not annotated.

    Args:
        features: finite, (N, F); 0 is neutral.
        names: of the features.
        annotated: annotated (True) or unexplained component, (N,).
        patients: number of the patient of each, (N,).
        learned: components that the model is fitted to, and its reliability and separation taken from, (N,); the others
            are only judged. None: all.

    Raises:
        ValueError: there is too little to fit, see :func:`why_no_model`.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    learned = np.ones(len(annotated), bool) if learned is None else learned
    known, patient = annotated[learned], patients[learned]
    reason = why_no_model(known, patient)
    if reason:
        raise ValueError(reason)

    whole = _Fit.of(features[learned], known)
    probability = whole.probability(features)  # of patients with nothing to learn from
    # GroupKFold deals out patients by their number of components and draws nothing, so no seed is needed.
    for train, rest in GroupKFold(N_FOLDS).split(patient, known, patient):
        fit = _Fit.of(features[learned][train], known[train])
        of_rest = np.isin(patients, patient[rest])
        probability[of_rest] = fit.probability(features[of_rest])
    return Likeness(
        np.clip(probability, _FARTHEST, 1 - _FARTHEST),
        tuple((name, float(weight)) for name, weight in zip(names, whole.weights, strict=True)),
        reliability(probability[learned], known),
        float(roc_auc_score(known, probability[learned])),
    )


@dataclass(frozen=True)
class _Fit:
    """A fitted regression: weights of standardised features, whose signs are those of annotated components."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    weights: NDArray[np.float64]
    intercept: float

    @classmethod
    def of(cls, features: NDArray[np.float64], annotated: NDArray[np.bool_]) -> _Fit:
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        # A feature that is the same everywhere, such as the contrast of a constant channel, tells nothing and stays 0.
        deviation[deviation == 0] = 1
        # Before the mean is taken off: 0 is neutral in the features as they come, not in standardised ones.
        sign = np.where(np.median(features[annotated], axis=0) < 0, -1.0, 1.0)
        weights, intercept = nonnegative_logistic(sign * (features - mean) / deviation, annotated)
        return cls(mean, deviation, sign * weights, intercept)

    def probability(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-((features - self.mean) / self.deviation @ self.weights + self.intercept)))


def reliability(
    probability: NDArray[np.float64], annotated: NDArray[np.bool_], n_bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Components in the order of their probability, in bins of about equal size.

    Example:
        >>> reliability(np.array([0.1, 0.3, 0.6, 0.8]), np.array([False, False, True, True]), n_bins=2)[0]
        ReliabilityBin(predicted=0.2, observed=0.0, n=2)
    """
    parts = np.array_split(np.argsort(probability, kind="stable"), min(n_bins, len(probability)))
    return tuple(
        ReliabilityBin(float(probability[part].mean()), float(annotated[part].mean()), len(part))
        for part in parts
        if len(part)
    )


def missed_probability(
    probability: NDArray[np.float64], n_annotated: int, n_unexplained: int, missed_share: float
) -> NDArray[np.float64]:
    """The probability that an unexplained component is a missed lesion, from that of being annotated.

    If every lesion, whatever its features, was annotated with the same probability c, an unexplained component with
    the probability g of being annotated is a lesion with probability (1 - c) / c x g / (1 - g).

    Args:
        probability: of being annotated, of unexplained components, within (0, 1).
        n_annotated: annotated components among those the model was fitted to.
        n_unexplained: unexplained ones.
        missed_share: estimated share of these that are missed lesions, which gives c.

    Returns:
        Within [0, 1].

    Source:
        Elkan and Noto (2008), Learning classifiers from only positive and unlabeled data, equation for p(y=1|x, s=0).

    Example:
        >>> missed_probability(np.array([0.25, 0.5]), 100, 100, missed_share=0.5).round(3).tolist()  # c = 2 / 3
        [0.167, 0.5]
    """
    odds = probability / (1 - probability)
    # (1 - c) / c is missed over annotated lesions, and of the unexplained the share missed_share is missed.
    return np.clip(missed_share * n_unexplained / n_annotated * odds, 0.0, 1.0)
