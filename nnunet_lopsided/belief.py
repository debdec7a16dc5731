"""How much to believe in an unexplained component, one that a network calls and no annotation explains.

Unexplained components of score s are missed lesions and false ones. Annotators who miss lesions at random miss the same
number rho of lesions per annotated one at every score, so of the u(s) unexplained components rho a(s) are lesions, a(s)
being the annotated ones that were called with that score. What rho is, only its upper bound is known: at very high
scores nearly no component is false, so that u/a there is hardly more than rho, and is never less, but for chance. On
complete labels nearly nothing is unexplained at high scores, and rho goes to 0 by itself.

Where annotators miss what is small or faint rather than at random, networks give what was missed lower scores, and rho
is too small: the belief then errs on the side of doubt.

Pure numerics. Components must be of predictions on cases that the network did not train on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A tail of the scores with fewer annotated components says too little.
LEAST_ANNOTATED = 20


def base_score(highest: NDArray[np.float64], total: NDArray[np.float64]) -> NDArray[np.int64]:
    """One number per component by which to order them: their highest probability; ties, as softmax saturates: the sum.

    Args:
        highest: highest probability, (N,).
        total: sum of the probabilities, (N,).

    Returns:
        Ranks from 0; equal components have equal ranks, (N,).

    Example:
        >>> base_score(np.array([0.9, 1, 1, 1]), np.array([50.0, 3, 2, 3])).tolist()
        [0, 2, 1, 2]
    """
    _, ranks = np.unique(np.column_stack([highest, total]), axis=0, return_inverse=True)
    return ranks.reshape(-1).astype(np.int64)


def number_reaching(
    scores: NDArray[np.integer | np.floating], thresholds: NDArray[np.integer | np.floating]
) -> NDArray[np.int64]:
    """How many scores reach each threshold.

    Args:
        scores: (N,).
        thresholds: (T,).

    Returns:
        From 0 to N, (T,).

    Example:
        >>> number_reaching(np.array([0.9, 0.5, 0.5]), np.array([0.2, 0.5, 0.6, 1])).tolist()
        [3, 3, 1, 0]
    """
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left"), np.int64)


def missed_per_annotated(
    annotated: NDArray[np.integer | np.floating],
    unexplained: NDArray[np.integer | np.floating],
    least_annotated: int = LEAST_ANNOTATED,
) -> float | None:
    """An upper bound of rho, the number of missed lesions per annotated one, of those that the network calls.

    It is the least ratio of unexplained to annotated components with a score of at least s, over every s that leaves
    enough annotated ones.

    Args:
        annotated: score of every component that detects an annotated lesion, (A,).
        unexplained: score of every component that touches no annotation, (U,).
        least_annotated: annotated components that a tail must hold.

    Returns:
        At least 0; None when there are fewer annotated components than that.

    Example:
        >>> scores = np.array([0.9, 0.8, 0.7, 0.6])  # half of the lesions are annotated; false ones score lower
        >>> missed_per_annotated(scores, np.concatenate([scores, [0.5, 0.4, 0.3]]), least_annotated=2)
        1.0
    """
    if len(annotated) < max(least_annotated, 1):
        return None
    # The ratio is least at the score of an annotated component: between two of these only unexplained ones are added.
    from_score = np.unique(annotated)
    n_annotated, n_unexplained = (number_reaching(scores, from_score) for scores in (annotated, unexplained))
    enough = n_annotated >= least_annotated
    return float((n_unexplained[enough] / n_annotated[enough]).min())


def candidates_per_annotated(
    annotated: NDArray[np.integer | np.floating], unexplained: NDArray[np.integer | np.floating]
) -> float:
    """Unexplained components for each annotated one, among those of a score of lesions, smaller ones included.

    That is a third of the median annotated one. Of lesions that were missed because they are small many score so, and
    few false ones: unlike :func:`missed_per_annotated` it does not say how many were missed, but whether some were,
    where networks call few false ones.

    Args:
        annotated: score of every component that detects an annotated lesion, above 0, (A,), at least one.
        unexplained: score of every component that touches no annotation, (U,).

    Returns:
        At least 0.

    Example:
        >>> candidates_per_annotated(np.array([9.0, 6.0, 6.0, 1.0]), np.array([7.0, 2.0, 1.9, 0.3]))  # of 2 and more
        0.6666666666666666
    """
    least = np.median(np.asarray(annotated, np.float64)) / 3
    return float((unexplained >= least).sum() / (annotated >= least).sum())


def belief(
    annotated: NDArray[np.integer | np.floating],
    unexplained: NDArray[np.integer | np.floating],
    rho: float,
) -> NDArray[np.float64]:
    """The probability q(s) = rho a(s) / u(s) that an unexplained component of score s is a missed lesion.

    The share of annotated components, a / (a + u), is taken to rise with the score: isotonic regression joins scores to
    bins by itself. The beliefs sum up to at most rho times the annotated components: less, where annotated ones have
    scores that no unexplained one reaches.

    Args:
        annotated: score of every component that detects an annotated lesion, (A,).
        unexplained: score of every component that touches no annotation, (U,).
        rho: missed lesions per annotated one, of :func:`missed_per_annotated`.

    Returns:
        Within [0, 1], not falling with the score, (U,).

    Example:
        >>> annotated, unexplained = np.array([2, 2, 2, 1]), np.array([2, 2, 1, 1, 0])
        >>> belief(annotated, unexplained, rho=0.5).round(6).tolist()  # 3, 1 and 0 annotated for 2, 2 and 1 unexplained
        [0.75, 0.75, 0.25, 0.25, 0.0]
    """
    from sklearn.isotonic import IsotonicRegression

    if not len(unexplained) or not len(annotated) or rho <= 0:
        return np.zeros(len(unexplained))
    scores = np.concatenate([annotated, unexplained]).astype(np.float64)
    known = np.concatenate([np.ones(len(annotated)), np.zeros(len(unexplained))])
    share = IsotonicRegression(y_min=0, y_max=1).fit(scores, known).predict(scores[len(annotated) :])
    # Of n = a + u components the share a / n was fitted, and a / u is asked for.
    # 1 only where nothing of that score is unexplained, so never here but for rounding.
    beliefs: NDArray[np.float64] = np.clip(rho * share / np.maximum(1 - share, 1e-12), 0.0, 1.0)
    return beliefs
