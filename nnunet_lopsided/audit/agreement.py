"""How well readers of the same candidates agree beyond chance: Cohen's and Fleiss' kappa with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.intervals import Interval, patient_weights, percentile_interval, why_no_bootstrap

UNDECIDED = -1


@dataclass(frozen=True, kw_only=True)
class Kappa:
    """Agreement of readers on the candidates that all of them decided on.

    Attributes:
        readers: indices of the readers, two for Cohen's kappa, more for Fleiss'.
        n: candidates.
        observed: share of the pairs of decisions on a candidate that agree, within [0, 1]; None without candidates.
        kappa: at most 1; 0 is what chance would give; None where it is undefined.
        interval: 95%, by a bootstrap over patients.
        undefined: why there is no kappa; empty: there is one.
    """

    readers: tuple[int, ...]
    n: int
    observed: float | None
    kappa: float | None
    interval: Interval
    undefined: str = ""


def cohen_kappa(tables: NDArray[np.number]) -> NDArray[np.float64]:
    """Cohen's kappa of two readers.

    Args:
        tables: how many candidates the first reader put into each category (second last axis) and the second into each
            (last axis), (..., K, K).

    Returns:
        Shape (...); NaN where all decisions of both are the same category, or there are none.

    Source:
        Cohen (1960), Educational and Psychological Measurement 20:37-46.

    Example:
        >>> round(float(cohen_kappa(np.array([[20, 5], [10, 15]]))), 6)  # 0.7 observed, 0.5 by chance
        0.4
    """
    counts = np.asarray(tables, np.float64)
    total = counts.sum(axis=(-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(counts, axis1=-2, axis2=-1) / total
        expected = (counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1) / total**2
    return _beyond_chance(observed, expected)


def fleiss_kappa(agreeing: NDArray[np.number], totals: NDArray[np.number], n_readers: int) -> NDArray[np.float64]:
    """Fleiss' kappa of readers all of whom decided on every candidate.

    Args:
        agreeing: ordered pairs of equal decisions on the same candidate, (...).
        totals: decisions by category, of all readers together, (..., K).
        n_readers: at least 2.

    Returns:
        Shape (...); NaN where all decisions are of one category, or there are none.

    Source:
        Fleiss (1971), Psychological Bulletin 76:378-382.

    Example:
        >>> counts = np.array([[3, 0], [2, 1], [0, 3], [1, 2]])  # decisions of 3 readers on 4 candidates
        >>> round(float(fleiss_kappa(agreeing_pairs(counts).sum(), counts.sum(axis=0), 3)), 4)
        0.3333
    """
    decisions = np.asarray(totals, np.float64).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.asarray(agreeing, np.float64) / (decisions * (n_readers - 1))
        expected = ((np.asarray(totals, np.float64) / decisions[..., None]) ** 2).sum(axis=-1)
    return _beyond_chance(observed, expected)


def agreeing_pairs(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Ordered pairs of equal decisions on each candidate, (N,), from decisions by category, (N, K)."""
    pairs: NDArray[np.int64] = (counts * (counts - 1)).sum(axis=-1)
    return pairs


def _beyond_chance(observed: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    # Expectations of 1 come out as 1 - 1e-16 where thirds are added.
    defined = 1 - expected > 1e-12
    kappa: NDArray[np.float64] = np.full(np.shape(observed), np.nan)
    np.divide(observed - expected, 1 - expected, out=kappa, where=defined & ~np.isnan(observed))
    return kappa


def measure_agreement(
    decisions: NDArray[np.integer], patients: Sequence[str], n_replicates: int = 1000, seed: int = 0
) -> list[Kappa]:
    """Cohen's kappa of every two readers and, with more than two, Fleiss' of all.

    Args:
        decisions: category of each candidate (row) by each reader (column), from 0; :data:`UNDECIDED`: none.
        patients: of each candidate.
        n_replicates: of the bootstrap, 0 for none.
        seed: of the bootstrap.

    Returns:
        The pairs in the order of the readers, then all together.
    """
    n_readers = decisions.shape[1]
    groups = [*combinations(range(n_readers), 2), *([tuple(range(n_readers))] if n_readers > 2 else [])]
    return [_kappa(decisions, np.asarray(patients), group, n_replicates, seed) for group in groups]


def _kappa(
    decisions: NDArray[np.integer], patients: NDArray[np.str_], readers: tuple[int, ...], n_replicates: int, seed: int
) -> Kappa:
    chosen = decisions[:, readers]
    both = (chosen != UNDECIDED).all(axis=1)
    chosen = chosen[both]
    names, patient = np.unique(patients[both], return_inverse=True)
    if not len(chosen):
        reason = "no candidate is decided on by all of these readers"
        return Kappa(
            readers=readers, n=0, observed=None, kappa=None, interval=Interval.without(reason), undefined=reason
        )
    categories = np.arange(int(chosen.max()) + 1)
    counts: NDArray[np.int64] = (chosen[:, :, None] == categories).sum(axis=1)
    pairs = agreeing_pairs(counts)
    observed = float(pairs.sum() / (len(pairs) * len(readers) * (len(readers) - 1)))
    weights: NDArray[np.int64] = np.ones((1, len(names)), np.int64)
    not_drawn = why_no_bootstrap(len(names), n_replicates)
    if not_drawn is None:
        weights = np.concatenate([weights, patient_weights(len(names), n_replicates, seed)])
    values = _weighted(chosen, counts, pairs, patient, weights)
    if np.isnan(values[0]):
        why = "all decisions are the same, and what chance would give is undefined"
        return Kappa(
            readers=readers,
            n=len(chosen),
            observed=observed,
            kappa=None,
            interval=Interval.without(why),
            undefined=why,
        )
    interval = Interval.without(not_drawn) if not_drawn else percentile_interval(values[1:], len(names))
    return Kappa(readers=readers, n=len(chosen), observed=observed, kappa=float(values[0]), interval=interval)


def _weighted(
    chosen: NDArray[np.integer],
    counts: NDArray[np.int64],
    pairs: NDArray[np.int64],
    patient: NDArray[np.integer],
    weights: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Kappa with every patient's candidates counted so often, (B,), for weights (B, patients)."""
    n_categories, n_patients = counts.shape[1], weights.shape[1]
    if chosen.shape[1] == 2:
        tables = np.zeros((n_patients, n_categories, n_categories), np.int64)
        np.add.at(tables, (patient, chosen[:, 0], chosen[:, 1]), 1)
        return cohen_kappa(np.tensordot(weights, tables, axes=1))
    totals, agreeing = np.zeros((n_patients, n_categories), np.int64), np.zeros(n_patients, np.int64)
    np.add.at(totals, patient, counts)
    np.add.at(agreeing, patient, pairs)
    return fleiss_kappa(weights @ agreeing, weights @ totals, chosen.shape[1])
