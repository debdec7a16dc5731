"""The estimate of how many lesions were missed."""

from dataclasses import replace
from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.audit.miss_rate import Scored, estimate_miss_rates, mixture_share, outside_estimate

SCORES = st.lists(st.integers(0, 6).map(lambda i: i / 6), min_size=1, max_size=15)


def brute_force(positive, unknown):
    """Best bin estimation, written threshold by threshold."""
    slack = 1.01 * (sqrt(log(40) / (2 * len(positive))) + sqrt(log(40) / (2 * len(unknown))))
    best = None
    for threshold in sorted(set(positive)):
        share_p = sum(p >= threshold for p in positive) / len(positive)
        share_u = sum(u >= threshold for u in unknown) / len(unknown)
        bound = (share_u + slack) / share_p
        if best is None or bound < best[0] - 1e-12:
            best = bound, share_u / share_p
    return min(1.0, best[1])


@settings(deadline=None)
@given(SCORES, SCORES)
def test_against_brute_force(positive, unknown):
    assert mixture_share(np.array(positive), np.array(unknown)) == pytest.approx(brute_force(positive, unknown))


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 3)), min_size=1, max_size=8), SCORES)
def test_weights_are_repetitions(weighted, unknown):
    scores, weights = (np.array(column, float) for column in zip(*weighted, strict=True))
    once = mixture_share(scores, np.array(unknown), weights, np.ones(len(unknown)))
    assert once == pytest.approx(mixture_share(np.repeat(scores, weights.astype(int)), np.array(unknown)))


def test_a_known_mixture_and_the_ends():
    rng = np.random.default_rng(0)
    positive = rng.normal(2, 1, 4000)
    for share in (0.1, 0.5, 0.9):
        unknown = np.where(rng.random(4000) < share, rng.normal(2, 1, 4000), rng.normal(-2, 1, 4000))
        assert mixture_share(positive, unknown) == pytest.approx(share, abs=0.05)
    assert mixture_share(positive, np.zeros(0)) == 0
    assert mixture_share(positive, rng.normal(9, 1, 100)) == 1
    assert mixture_share(np.ones(50), np.zeros(50)) == 0


def scored(n=400, missed=0.5, seed=1):
    """``n`` lesions of 20 patients, those of 2 mm missed twice as often as those of 8; and ``n`` false positives."""
    rng = np.random.default_rng(seed)
    small = rng.random(n) < 0.5
    gone = rng.random(n) < np.where(small, missed * 4 / 3, missed * 2 / 3)
    diameter, score = np.where(small, 2.0, 8.0), rng.normal(3, 1, n)
    patient = rng.integers(0, 20, n)
    false = rng.normal(-2, 1, n), np.where(rng.random(n) < 0.5, 2.0, 8.0), rng.integers(0, 20, n)
    return Scored(
        annotated_mm=diameter[~gone],
        annotated_patient=patient[~gone],
        found_mm=diameter[~gone],
        found_score=score[~gone],
        found_patient=patient[~gone],
        candidate_mm=np.concatenate([diameter[gone], false[1]]),
        candidate_score=np.concatenate([score[gone], false[0]]),
        candidate_patient=np.concatenate([patient[gone], false[2]]),
        n_patients=20,
    ), (gone, small)


def test_the_rate_overall_and_by_diameter():
    data, (gone, small) = scored()
    whole, low, high = estimate_miss_rates(data, (5.0,), n_replicates=200, seed=0)
    assert (low.lower_mm, low.upper_mm, high.lower_mm, high.upper_mm) == (0, 5, 5, None)
    assert whole.rate == pytest.approx(gone.mean(), abs=0.06)
    assert low.rate == pytest.approx(gone[small].mean(), abs=0.08)
    assert high.rate == pytest.approx(gone[~small].mean(), abs=0.08)
    assert low.rate > high.rate + 0.15
    assert whole.interval.low < whole.rate < whole.interval.high
    assert whole.n_missed == pytest.approx(gone.sum(), rel=0.15)
    assert whole.n_annotated == whole.n_found == (~gone).sum()


def test_lesions_that_the_models_do_not_find_are_counted_in():
    data, _ = scored()
    twice = replace(
        data, annotated_mm=np.repeat(data.annotated_mm, 2), annotated_patient=np.repeat(data.annotated_patient, 2)
    )
    (one,), (two,) = (estimate_miss_rates(d, (), 0)[:1] for d in (data, twice))
    assert two.rate == one.rate
    assert two.n_missed == pytest.approx(2 * one.n_missed)


def test_undefined_is_said():
    data, _ = scored()
    whole, _, empty = estimate_miss_rates(data, (100.0,), n_replicates=0)
    assert whole.interval.undefined == "the bootstrap was switched off"
    assert empty.rate is None
    assert empty.undefined == "the models find 0 annotated lesions of these diameters; at least 10 are needed"


def test_ends_of_few_replicates_are_not_printed():
    data, _ = scored()
    interval = estimate_miss_rates(data, (), n_replicates=99)[0].interval
    assert interval.undefined == "with 99 replicates the ends of an interval are chance; at least 100 are needed"


def test_few_patients_have_no_interval():
    data, _ = scored()
    of_patients = ("annotated_patient", "found_patient", "candidate_patient")
    few = replace(data, **{name: getattr(data, name) % 5 for name in of_patients})
    interval = estimate_miss_rates(replace(few, n_patients=5), (), n_replicates=100)[0].interval
    assert interval.low is None
    assert interval.undefined.startswith("a bootstrap needs at least 8 patients, and there are 5")


def test_a_withheld_rate_keeps_its_counts():
    data, _ = scored()
    rate = estimate_miss_rates(data, (), n_replicates=0)[0]
    withheld = rate.withheld("weak")
    assert (withheld.rate, withheld.missed_share, withheld.n_missed, withheld.undefined) == (None, None, None, "weak")
    assert (withheld.n_found, withheld.n_candidates) == (rate.n_found, rate.n_candidates)


def test_what_the_estimate_leaves_out():
    """No lesion below 5 mm is annotated: the small candidates, half of all, are told apart by nothing."""
    data, _ = scored()
    large = data.annotated_mm > 5
    of_annotated = ("annotated_mm", "annotated_patient", "found_mm", "found_score", "found_patient")
    censored = replace(data, **{name: getattr(data, name)[large] for name in of_annotated})
    rates = estimate_miss_rates(censored, (5.0,), n_replicates=0)
    n_small = int((data.candidate_mm < 5).sum())
    missed = n_small + rates[2].n_missed
    assert outside_estimate(rates) == (n_small, pytest.approx(missed / (missed + large.sum())))
    assert outside_estimate(rates)[1] > rates[0].rate + 0.1
    assert outside_estimate(estimate_miss_rates(data, (5.0,), n_replicates=0)) is None


def test_the_seed_decides_the_interval():
    data, _ = scored()
    first, again, other = (estimate_miss_rates(data, (), 100, seed)[0].interval for seed in (0, 0, 1))
    assert first == again != other
