"""The probability of being a missed lesion, mended by the reading of a random sample; zones by it: pure numerics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.sampling import Stratum, all_sampled, half_width, reading_variance, stratified_variances
from nnunet_lopsided.evaluation.intervals import wilson

# Of what is accepted unread: with less it is rather none.
LEAST_ACCEPTED = 0.5
# Farthest a probability is from 0 and 1 before its logarithm is taken.
_FARTHEST = 1e-3
# How many readings the model as it was is worth, against those of the sample.
_PRIOR_READINGS = 4.0


def recalibrated(
    probability: NDArray[np.float64],
    diameter_mm: NDArray[np.float64],
    strata: Sequence[Stratum],
    reading: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Probabilities that agree with a sample's readings: logit q = a + b logit p + c log diameter.

    Each reading counts as many candidates as it stands for. ``b`` is drawn towards 1 and ``c`` towards 0, as by a few
    readings that agree with the model, and ``b`` is never negative: of two candidates of one size the more probable
    stays so. Then ``a`` is set so that candidates that nobody read add up to what the sample says of them
    (calibration in the large).

    Args:
        probability: by the model, within [0, 1], (N,).
        diameter_mm: above 0, (N,).
        strata: of :func:`~nnunet_lopsided.audit.sampling.draw_sample` over all N.
        reading: 0 to 1 where sampled, (N,).

    Returns:
        Within [0, 1], (N,), of those that were read too, as if nobody had.

    Source:
        Cox (1958), Biometrika 45:562-565 (slope and intercept); Horvitz and Thompson (1952) (weights).

    Example:
        >>> from nnunet_lopsided.audit.sampling import draw_sample
        >>> p, diameter = np.linspace(0, 1, 200), np.full(200, 5.0)
        >>> truth = (p > 0.8).astype(float)  # the model is far too sure of itself
        >>> q = recalibrated(p, diameter, draw_sample(p, diameter, (10,), n=40), truth)
        >>> bool(q[100] < 0.2 < p[100]), bool(q[195] > 0.8)
        (True, True)
    """
    from scipy.optimize import minimize
    from scipy.special import expit, logit

    position = logit(np.clip(probability, _FARTHEST, 1 - _FARTHEST))
    size = np.log(np.maximum(diameter_mm, 1e-6))
    size = size - np.median(size)
    sampled = all_sampled(strata)
    weight = np.concatenate([np.full(len(s.sampled), s.weight) for s in strata])
    weight *= len(weight) / weight.sum()
    x, d, y = position[sampled], size[sampled], reading[sampled]

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        a, b, c = theta
        z = a + b * x + c * d
        error = weight * (expit(z) - y)
        # log(1 + e^z) - y z is the logistic loss, for readings between 0 and 1 too.
        value = (weight * (np.logaddexp(0, z) - y * z)).sum() + _PRIOR_READINGS * ((b - 1) ** 2 + c**2) / 2
        slopes = [error.sum(), (error * x).sum() + _PRIOR_READINGS * (b - 1), (error * d).sum() + _PRIOR_READINGS * c]
        return float(value), np.array(slopes)

    fitted = minimize(loss, np.array([0.0, 1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(-20, 20), (0, 5), (-5, 5)])
    a, b, c = fitted.x
    line = b * position + c * size
    unread = np.ones(len(probability), bool)
    unread[sampled] = False
    # What the strata's samples say of their other members.
    wanted = sum(float(reading[s.sampled].mean()) * (len(s.members) - len(s.sampled)) for s in strata)
    adjusted: NDArray[np.float64] = expit(_shift(line[unread], wanted, a) + line)
    return adjusted


def _shift(line: NDArray[np.float64], wanted: float, fitted: float) -> float:
    """The a at which expit(a + line) adds up to ``wanted``; the fitted one where all or none must be lesions."""
    from scipy.optimize import brentq
    from scipy.special import expit

    def excess(a: float) -> float:
        return float(expit(a + line).sum()) - wanted

    return float(brentq(excess, -40, 40)) if excess(-40) < 0 < excess(40) else fitted


@dataclass(frozen=True, kw_only=True)
class Zones:
    """What to do with candidates, by their probability.

    Attributes:
        accepted: to be added to the labels, (N,); of those that were read, the ones that the reader took for lesions.
        doubtful: to be ignored in training, (N,); of those that were read, the ones that the reader was unsure of.
        n_by_rule: how many are accepted that nobody has read.
        precision: share of lesions among all candidates that the rule would accept, by the sample alone; None where
            none of them was read.
        low, high: its 95% interval.
    """

    accepted: NDArray[np.bool_]
    doubtful: NDArray[np.bool_]
    n_by_rule: int
    precision: float | None
    low: float | None
    high: float | None


def zones(
    probability: NDArray[np.float64],
    strata: Sequence[Stratum],
    reading: NDArray[np.float64],
    *,
    precision: float = 0.8,
    doubtful: float = 0.2,
) -> Zones:
    """Accept as many of the most probable candidates as keep a mean probability of ``precision``, each at least .5.

    Many sure ones would otherwise make up for many that are probably none.

    Args:
        probability: of :func:`recalibrated`, or another one of being a missed lesion, (N,).
        strata: of the sample; none: nobody has read a candidate.
        reading: 1 a lesion, 0 none, between them where the reader was unsure; only where sampled, (N,).
        precision: least mean probability of what is accepted unread, within (0, 1].
        doubtful: other candidates of at least this probability are doubtful, within [0, 1]; the rest is background.

    Example:
        >>> from nnunet_lopsided.audit.sampling import draw_sample
        >>> q = np.linspace(1, 0, 11)
        >>> found = zones(q, draw_sample(q, np.full(11, 5.0), (), n=2), np.zeros(11), precision=0.75)
        >>> found.n_by_rule, bool((found.accepted & found.doubtful).any())
        (6, False)
        >>> zones(np.array([0.9, 0.9, 0.4]), (), np.full(3, np.nan), precision=0.7).accepted.tolist()
        [True, True, False]
    """
    read = np.zeros(len(probability), bool)
    read[all_sampled(strata)] = True
    order = np.argsort(-probability, kind="stable")
    order = order[~read[order]]
    means = np.cumsum(probability[order]) / np.arange(1, len(order) + 1)
    # Means fall along the order, but for the last bits of the sums.
    n = int(((means >= precision) & (probability[order] >= LEAST_ACCEPTED)).sum())
    accepted = read & (reading == 1)
    accepted[order[:n]] = True
    shown = (None, None, None) if not n else _precision(probability >= probability[order[n - 1]], strata, reading)
    return Zones(
        accepted=accepted,
        doubtful=(~accepted & ~read & (probability >= doubtful)) | (read & (reading > 0) & (reading < 1)),
        n_by_rule=n,
        precision=shown[0],
        low=shown[1],
        high=shown[2],
    )


def _precision(
    chosen: NDArray[np.bool_], strata: Sequence[Stratum], reading: NDArray[np.float64]
) -> tuple[float | None, float | None, float | None]:
    """Share of lesions among the chosen, a ratio of two estimated totals, and its interval by linearisation.

    Source:
        Cochran (1977), eq. 5.84 (ratio within strata); with equal readings, which have no variance, Wilson's interval.
    """
    parts = [s for s in strata if chosen[s.sampled].any()]
    if not parts:
        return None, None, None
    n_chosen = sum(s.weight * float(chosen[s.sampled].sum()) for s in parts)
    share = sum(s.weight * float(reading[s.sampled][chosen[s.sampled]].sum()) for s in parts) / n_chosen
    read = np.concatenate([reading[s.sampled][chosen[s.sampled]] for s in parts])
    if read.min() == read.max():
        interval = wilson(round(float(read.sum())), len(read))
        return share, interval.low, interval.high
    variances = []
    for stratum in parts:
        inside, values = chosen[stratum.sampled], reading[stratum.sampled]
        if len(np.unique(values[inside])) > 1:
            variances.append(float(np.where(inside, values - share, 0.0).var(ddof=1)) / n_chosen**2)
        else:  # equal readings do not prove that all are so
            variances.append(reading_variance(values[inside]) * float(inside.mean()) / n_chosen**2)
    n = np.array([len(s.sampled) for s in parts], np.float64)
    half = half_width(stratified_variances(parts, variances), n)
    return share, max(0.0, share - half), min(1.0, share + half)
