"""How many candidates are missed lesions, from a random sample: by hand, by exact enumeration, by simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from nnunet_lopsided.audit.recalibration import recalibrated, zones
from nnunet_lopsided.audit.sampling import (
    Stratum,
    allocation,
    draw_sample,
    estimate_total,
    half_width,
    probability_by_rank,
    reading_variance,
)


def stratum(members, sampled):
    return Stratum(
        lower_mm=0.0, upper_mm=None, lowest=0.0, highest=1.0, members=np.array(members), sampled=np.array(sampled)
    )


def test_a_total_by_hand():
    """10 candidates, 4 read, 3 lesions: 7.5. And 6, 2 read, 1 lesion: 3. Together 10.5.

    Variances: 100 (1 - 4/10) (1/4) / 4 = 3.75, where 3/4 (1/4) 4/3 = 1/4; 36 (1 - 2/6) (1/2) / 2 = 6. Sum 9.75,
    degrees of freedom 9.75^2 / (3.75^2 / 3 + 6^2 / 1) = 2.335.
    """
    strata = (stratum(range(10), [0, 3, 5, 9]), stratum(range(10, 16), [11, 15]))
    reading = np.full(16, np.nan)
    reading[[0, 3, 5, 9, 11, 15]] = [1, 1, 0, 1, 0, 1]
    total = estimate_total(strata, reading)
    assert (total.n_candidates, total.n_read, total.missed) == (16, 6, 10.5)
    half = stats.t.ppf(0.975, 9.75**2 / (3.75**2 / 3 + 6**2)) * 9.75**0.5
    assert half == pytest.approx(11.74, abs=0.01)
    # 4 are lesions, and 2 of the 16 are none, whatever the width.
    assert (total.low, total.high) == (4, 14)


def test_the_interval_between_the_bounds():
    strata = (stratum(range(1000), range(40)),)
    reading = np.full(1000, np.nan)
    reading[:40] = [1] * 10 + [0] * 30
    total = estimate_total(strata, reading)
    half = stats.t.ppf(0.975, 39) * np.sqrt(1000**2 * 0.96 * (0.25 * 0.75 * 40 / 39) / 40)
    assert (total.missed, total.low, total.high) == pytest.approx((250, 250 - half, 250 + half))


def test_unsure_is_half_a_lesion():
    assert estimate_total((stratum(range(4), range(4)),), np.array([1, 0.5, 0.5, 0])).missed == 2


def test_equal_readings_do_not_prove_that_all_are_so():
    reading = np.full(100, np.nan)
    reading[:3] = 0
    total = estimate_total((stratum(range(100), range(3)),), reading)
    assert (total.missed, total.low) == (0, 0)
    assert 40 < total.high < 97.001
    assert estimate_total((stratum(range(3), range(3)),), np.zeros(3)).high == 0


def test_every_sampled_one_needs_a_reading():
    with pytest.raises(ValueError, match="needs a reading"):
        estimate_total((stratum(range(4), [0, 1]),), np.array([1, np.nan, 0, 0]))


def test_unbiased_over_all_samples():
    """Every sample of 2 of 5 and 2 of 4, once each."""
    truth = np.array([1, 0, 0, 1, 1, 0, 1, 0, 0.0])
    estimates = [
        estimate_total((stratum(range(5), a), stratum(range(5, 9), b)), truth).missed
        for a in itertools.combinations(range(5), 2)
        for b in itertools.combinations(range(5, 9), 2)
    ]
    assert np.mean(estimates) == pytest.approx(truth.sum())


@pytest.mark.parametrize("wrong", [0.0, 0.5, 1.0])
def test_intervals_hold_the_truth_whatever_the_model(wrong):
    """Of 400 candidates; ``wrong``: the share of them to which the model gives the opposite."""
    held = []
    for seed in range(300):
        random = np.random.default_rng(seed)
        p = random.beta(0.4, 0.8, 400)
        truth = (random.random(400) < np.where(random.random(400) < wrong, 1 - p, p)).astype(float)
        strata = draw_sample(p, random.uniform(2, 15, 400), (3, 6, 10, 20), 60, seed)
        total = estimate_total(strata, truth)
        held.append(total.low <= truth.sum() <= total.high)
    assert 0.92 <= np.mean(held) <= 1


def test_a_good_model_pays():
    """Against one stratum of all: less than two thirds of the error."""
    random = np.random.default_rng(0)
    p = random.beta(0.3, 0.6, 600)
    truth = (random.random(600) < p).astype(float)
    errors: dict[str, list[float]] = {"stratified": [], "simple": []}
    for seed in range(200):
        strata = draw_sample(p, np.full(600, 5.0), (), 60, seed)
        errors["stratified"].append(estimate_total(strata, truth).missed - truth.sum())
        simple = (stratum(range(600), np.random.default_rng(seed).choice(600, 60, replace=False)),)
        errors["simple"].append(estimate_total(simple, truth).missed - truth.sum())
    assert np.std(errors["stratified"]) < 0.75 * np.std(errors["simple"])


@given(
    st.lists(st.tuples(st.integers(1, 200), st.floats(0.05, 0.5)), min_size=1, max_size=8),
    st.integers(2, 300),
)
def test_allocations_are_within_bounds(groups, n):
    sizes, spread = zip(*groups, strict=True)
    given_ = allocation(sizes, spread, n)
    assert all(min(2, size) <= got <= size for got, size in zip(given_, sizes, strict=True))
    least = sum(min(2, size) for size in sizes)
    assert sum(given_) == min(max(n, least), sum(sizes))


def test_the_allocation_is_the_best_one():
    """Against every other one: 3 strata, 9 readings."""
    sizes, spread = [30, 10, 20], [0.5, 0.3, 0.1]

    def variance(n):
        return sum((size * s) ** 2 / k for size, s, k in zip(sizes, spread, n, strict=True))

    every = [n for n in itertools.product(range(2, 10), repeat=3) if sum(n) == 9]
    assert variance(allocation(sizes, spread, 9)) == pytest.approx(min(map(variance, every)))


@given(st.integers(1, 300), st.integers(2, 120), st.integers(0, 3), st.sampled_from([(), (3,), (3, 6, 10, 20)]))
def test_strata_hold_every_candidate_once(n, readings, seed, edges):
    random = np.random.default_rng(seed)
    p: NDArray[np.float64] = random.choice([0.1, 0.5, 0.9, random.random()], n).astype(np.float64)
    diameter_mm = random.uniform(0.5, 30, n)
    strata = draw_sample(p, diameter_mm, edges, readings, seed)
    assert sorted(np.concatenate([s.members for s in strata]).tolist()) == list(range(n))
    for s in strata:
        assert set(s.sampled.tolist()) <= set(s.members.tolist())
        assert len(s.sampled) >= min(2, len(s.members))
        assert (diameter_mm[s.members] >= s.lower_mm).all()
        assert s.upper_mm is None or (diameter_mm[s.members] < s.upper_mm).all()
        assert (s.lowest, s.highest) == (p[s.members].min(), p[s.members].max())
    assert sum(len(s.sampled) for s in strata) == min(n, max(readings, sum(min(2, len(s.members)) for s in strata)))
    assert strata[-1].upper_mm is None


def test_the_same_seed_draws_the_same():
    p = np.asarray(np.linspace(0, 1, 50), np.float64)
    diameter_mm = np.full(50, 4.0)
    first, again, other = ([s.sampled.tolist() for s in draw_sample(p, diameter_mm, (3,), 12, k)] for k in (5, 5, 6))
    assert first == again != other


def test_half_widths_by_hand():
    # Equal parts of 4 and 4 with 3 readings each: 8^2 / (16 / 2 + 16 / 2) = 4 degrees of freedom.
    assert half_width(np.array([4.0, 4.0]), np.array([3.0, 3.0])) == pytest.approx(stats.t.ppf(0.975, 4) * 8**0.5)
    assert half_width(np.zeros(2), np.array([3.0, 3.0])) == 0
    assert reading_variance(np.array([1.0])) == pytest.approx(0.75 * 0.25)


def test_recalibrated_probabilities_hold():
    """Probabilities that are far too high; small ones are lesions more seldom than the model says."""
    random = np.random.default_rng(3)
    diameter_mm = np.asarray(np.exp(random.uniform(0.7, 3, 4000)), np.float64)
    p = random.random(4000)
    line = -2 + 0.8 * np.log(p / (1 - p)) + 0.7 * (np.log(diameter_mm) - np.log(diameter_mm).mean())
    q = 1 / (1 + np.exp(-line))
    truth = (random.random(4000) < q).astype(float)
    strata = draw_sample(p, diameter_mm, (3, 6, 10), 400, 1)
    found = recalibrated(p, diameter_mm, strata, truth)
    assert np.abs(found - q).mean() < 0.04 < 0.2 < np.abs(p - q).mean()
    # What nobody read adds up to what the sample says of it.
    unread = np.setdiff1d(np.arange(4000), np.concatenate([s.sampled for s in strata]))
    said = sum(truth[s.sampled].mean() * (len(s.members) - len(s.sampled)) for s in strata)
    assert found[unread].sum() == pytest.approx(said)


def test_nothing_is_missed():
    p = probability_by_rank(200)
    strata = draw_sample(p, np.full(200, 5.0), (), 40)
    none = np.zeros(200)
    found = zones(recalibrated(p, np.full(200, 5.0), strata, none), strata, none)
    assert (found.n_by_rule, int(found.accepted.sum()), found.precision) == (0, 0, None)


def test_zones_by_hand():
    q = np.array([0.95, 0.9, 0.85, 0.5, 0.3, 0.1])
    strata = (stratum([0, 1, 2, 3, 4, 5], [1, 4]),)
    reading = np.array([np.nan, 0, np.nan, np.nan, 0.5, np.nan])
    found = zones(q, strata, reading, precision=0.89, doubtful=0.2)
    # Unread: .95, .85, .5, .1; the first two have a mean of .9. The reader rejected 1 and was unsure of 4.
    assert found.accepted.tolist() == [True, False, True, False, False, False]
    assert found.doubtful.tolist() == [False, False, False, True, True, False]
    # Of the read ones the rule would accept one, which is none: 0 of 1.
    assert (found.n_by_rule, found.precision, found.low) == (2, 0, 0)
    assert found.high == pytest.approx(stats.binomtest(0, 1).proportion_ci(method="wilson").high)


def test_precisions_hold():
    """The interval of the rule's precision holds the truth."""
    random = np.random.default_rng(0)
    p = random.beta(0.5, 0.5, 500)
    truth = (random.random(500) < p).astype(float)
    held = []
    for seed in range(200):
        strata = draw_sample(p, np.full(500, 5.0), (), 60, seed)
        q = recalibrated(p, np.full(500, 5.0), strata, truth)
        found = zones(q, strata, truth, precision=0.7)
        if found.n_by_rule and found.low is not None:
            unread = np.ones(500, bool)
            unread[np.concatenate([s.sampled for s in strata])] = False
            chosen = q >= q[found.accepted & unread].min()
            held.append(found.low <= truth[chosen].mean() <= found.high)
    assert len(held) > 150
    assert np.mean(held) > 0.9
