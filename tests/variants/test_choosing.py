"""Choosing lesions to censor: hand-computed choices first, then properties."""

from __future__ import annotations

import csv
import hashlib
import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.variants.choosing import (
    MODES,
    LesionRow,
    ListedLesion,
    choose_lesions,
    choose_patients,
    expected_rate,
    lesion_draw,
    listed_lesions,
)
from nnunet_lopsided.variants.reader_misses import MISS_RATES, miss_rate, scaled_to_mean


def row(case: str, lesion_id: int, volume_mm3: float, diameter_mm: float | None = None) -> LesionRow:
    """A lesion; by default one whose diameter and contrast differ from lesion to lesion, too."""
    diameter = 1.7 * volume_mm3 + 2 if diameter_mm is None else diameter_mm
    return LesionRow(
        case=case,
        id=lesion_id,
        n_voxels=int(volume_mm3),
        volume_mm3=volume_mm3,
        diameter_mm=diameter,
        contrast=abs(volume_mm3 - 3) / 7,
    )


# The machine may be busy: no test here is about time.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

FIVE = [row("b", 1, 8.0), row("a", 1, 3.0), row("a", 2, 8.0), row("b", 2, 1.0), row("a", 3, 40.0)]

rates = st.floats(0, 1)
tables = st.dictionaries(
    st.tuples(st.text(max_size=4), st.integers(1, 50)), st.integers(1, 6).map(float), max_size=30
).map(lambda volumes: [row(case, i, v) for (case, i), v in volumes.items()])


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0, set()),
        (0.09, set()),
        (0.1, {("b", 2)}),  # 0.5 of a lesion: rounded up
        (0.4, {("b", 2), ("a", 1)}),
        (0.6, {("b", 2), ("a", 1), ("a", 2)}),  # of the two lesions of 8 mm3, case a goes first
        (0.7, {("b", 2), ("a", 1), ("a", 2), ("b", 1)}),
        (1, {("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)}),
    ],
)
def test_size_takes_the_smallest_over_all_cases(rate, expected) -> None:
    assert choose_lesions(FIVE, "size", rate) == expected
    assert choose_lesions(FIVE[::-1], "size", rate, seed=9) == expected


@pytest.mark.parametrize(
    ("rate", "n", "expected"),
    [(0.5, 3, 2), (0.5, 5, 3), (0.145, 100, 15), (0.7, 15, 11), (0.1, 4, 0), (1 / 3, 3, 1), (0.29, 100, 29)],
)
def test_size_counts_halves_up_in_decimal(rate, n, expected) -> None:
    # 0.145 * 100 is 14.499999999999998 in binary; as written it is a half.
    assert len(choose_lesions([row("c", i, 1.0) for i in range(1, n + 1)], "size", rate)) == expected


@pytest.mark.parametrize(
    ("seed", "case", "lesion_id", "text"),
    [(0, "a", 1, '[0, "a", 1]'), (-3, 'x"y', 12, '[-3, "x\\"y", 12]'), (7, "é", 2, '[7, "\\u00e9", 2]')],
)
def test_the_draw_is_the_documented_hash(seed, case, lesion_id, text) -> None:
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()
    expected = int(digest[:16], 16) // 2**11 / 2**53
    assert lesion_draw(seed, case, lesion_id) == expected
    assert 0 <= expected < 1


def test_golden_draws() -> None:
    # Written down once: published variants depend on these numbers.
    assert [round(lesion_draw(0, "a", i), 12) for i in (1, 2, 3)] == [0.580343894427, 0.28018481108, 0.156414418767]


def test_stochastic_compares_the_draw_with_the_rate() -> None:
    draws = {r.key: lesion_draw(1, r.case, r.id) for r in FIVE}
    middle = sorted(draws.values())[2]
    assert choose_lesions(FIVE, "stochastic", middle, seed=1) == {k for k, d in draws.items() if d < middle}
    assert len(choose_lesions(FIVE, "stochastic", middle, seed=1)) == 2


def test_stochastic_realises_the_rate_on_average() -> None:
    table = [row(f"case{c}", i, 1.0) for c in range(100) for i in range(1, 51)]
    for seed in (0, 1):
        fraction = len(choose_lesions(table, "stochastic", 0.3, seed)) / len(table)
        assert fraction == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 5000) ** 0.5)
    chosen = [choose_lesions(table, "stochastic", 0.5, seed) for seed in (0, 1)]
    overlap = len(chosen[0] & chosen[1]) / len(table)
    assert overlap == pytest.approx(0.25, abs=0.03), "seeds must be independent"


@given(tables, rates, rates, st.sampled_from(MODES), st.integers())
def test_a_higher_rate_contains_a_lower_one(table, one, other, mode, seed) -> None:
    low, high = sorted((one, other))
    assert choose_lesions(table, mode, low, seed) <= choose_lesions(table, mode, high, seed)


@given(tables, st.sampled_from(MODES), st.integers())
def test_rate_0_and_1(table, mode, seed) -> None:
    assert choose_lesions(table, mode, 0, seed) == set()
    assert choose_lesions(table, mode, 1, seed) == {r.key for r in table}


@given(tables, rates, st.sampled_from(MODES), st.randoms())
def test_the_order_of_the_table_is_irrelevant(table, rate, mode, random) -> None:
    shuffled = list(table)
    random.shuffle(shuffled)
    assert choose_lesions(shuffled, mode, rate) == choose_lesions(table, mode, rate)


@given(tables, tables, rates, st.integers())
def test_stochastic_choice_ignores_other_lesions(table, more, rate, seed) -> None:
    keys = {r.key for r in table}
    joined = table + [r for r in more if r.key not in keys]
    assert choose_lesions(joined, "stochastic", rate, seed) & keys == choose_lesions(table, "stochastic", rate, seed)


@given(tables, rates)
def test_size_never_keeps_a_smaller_lesion_than_it_censors(table, rate) -> None:
    chosen = choose_lesions(table, "size", rate)
    censored = [r.volume_mm3 for r in table if r.key in chosen]
    kept = [r.volume_mm3 for r in table if r.key not in chosen]
    assert max(censored, default=0) <= min(kept, default=float("inf"))
    assert abs(len(censored) - rate * len(table)) <= 0.5 + 1e-9


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rate", [-0.01, 1.01, float("nan"), float("inf")])
def test_rates_outside_0_1_are_refused(mode, rate) -> None:
    with pytest.raises(InputError, match=r"rate must be within \[0, 1\]"):
        choose_lesions(FIVE, mode, rate)


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="mode must be one of stochastic, size, reader, contrast, got 'random'"):
        choose_lesions(FIVE, "random", 0.5)


def test_a_rate_is_needed_but_for_readers() -> None:
    for mode in set(MODES) - {"reader"}:
        with pytest.raises(InputError, match=f"mode {mode} needs a rate"):
            choose_lesions(FIVE, mode, None)
    assert choose_lesions(FIVE, "reader", None) <= {r.key for r in FIVE}


MEASURED = Path(__file__).resolve().parents[3] / "shared" / "data" / "reader_miss_rate.csv"


@pytest.mark.skipif(not MEASURED.is_file(), reason="needs shared/data/reader_miss_rate.csv")
def test_the_rates_are_those_that_were_measured() -> None:
    with MEASURED.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["diameter_def"] == "equiv_sphere_mm"]
    assert [f"{b.low_mm:g}-{b.high_mm:g}" for b in MISS_RATES] == [r["bin_mm"] for r in rows]
    for bin_, r in zip(MISS_RATES, rows, strict=True):
        assert (bin_.n_misses, bin_.n_readings) == (int(r["miss_if_ge2_others"]), int(r["reads_ge2"]))
        assert bin_.rate == pytest.approx(float(r["rate_ge2_PRIMARY"]), abs=5e-5)
        assert bin_.ci95 == (float(r["rate_ge2_ci_lo"]), float(r["rate_ge2_ci_hi"]))


def test_bins_have_no_gaps_and_hold_their_lower_edge() -> None:
    assert all(one.high_mm == other.low_mm for one, other in itertools.pairwise(MISS_RATES))
    for bin_ in MISS_RATES:
        assert miss_rate(bin_.low_mm) == miss_rate(math.nextafter(bin_.high_mm, 0)) == bin_.rate
    assert miss_rate(0.1) == MISS_RATES[0].rate
    assert miss_rate(99.0) == MISS_RATES[-1].rate


def test_readers_miss_by_diameter() -> None:
    table = [row("c", i, 1.0, diameter_mm=3.5) for i in range(1, 2001)]
    table += [row("c", i, 1.0, diameter_mm=12.0) for i in range(2001, 4001)]
    gone = choose_lesions(table, "reader", None, seed=3)
    small = sum(key[1] <= 2000 for key in gone)
    assert small / 2000 == pytest.approx(50 / 90, abs=0.04)
    assert (len(gone) - small) / 2000 == pytest.approx(79 / 944, abs=0.025)
    assert expected_rate(table) == pytest.approx((50 / 90 + 79 / 944) / 2)
    assert gone == {r.key for r in table if lesion_draw(3, "c", r.id) < miss_rate(r.diameter_mm)}


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.6, 0.95])
def test_a_readers_rate_is_realised_and_keeps_the_proportions(rate) -> None:
    table = [row("c", i, 1.0, diameter_mm=3.5 if i % 2 else 12.0) for i in range(1, 6001)]
    gone = choose_lesions(table, "reader", rate, seed=1)
    assert len(gone) / 6000 == pytest.approx(rate, abs=4 * (0.25 / 6000) ** 0.5)
    small, large = (sum(key[1] % 2 == odd for key in gone) / 3000 for odd in (1, 0))
    together = 50 / 90 + 79 / 944
    share_of_small = min(1.0, 2 * rate * (50 / 90) / together)  # cut at 1
    assert small == pytest.approx(share_of_small, abs=4 * (0.25 / 3000) ** 0.5)
    assert large == pytest.approx(2 * rate - share_of_small, abs=4 * (0.25 / 3000) ** 0.5)


@given(st.lists(st.sampled_from([bin_.rate for bin_ in MISS_RATES]), min_size=1, max_size=40), rates, rates)
def test_scaling_hits_the_mean_and_is_monotone_to_the_last_bit(measured, one, other) -> None:
    low, high = sorted((one, other))
    lower, higher = scaled_to_mean(measured, low), scaled_to_mean(measured, high)
    assert math.fsum(lower) / len(lower) == pytest.approx(low, abs=1e-12)
    assert all(0 <= a <= b <= 1 for a, b in zip(lower, higher, strict=True))
    below_one = [(q, p) for q, p in zip(lower, measured, strict=True) if q < 1]
    assert all(math.isclose(q * below_one[0][1], below_one[0][0] * p, abs_tol=1e-12) for q, p in below_one)


def test_the_least_contrast_goes_first() -> None:
    # Contrasts are |volume - 3| / 7: 5, 0, 5, 2 and 37 sevenths.
    assert choose_lesions(FIVE, "contrast", 0.2) == {("a", 1)}
    assert choose_lesions(FIVE, "contrast", 0.6, seed=8) == {("a", 1), ("b", 2), ("a", 2)}
    with pytest.raises(InputError, match="case a, lesion 3: mode contrast needs its contrast"):
        choose_lesions([*FIVE[:4], replace(FIVE[4], contrast=None)], "contrast", 0.5)


def listed(case: str, lesion_id: int, volume_mm3: float, censored: bool = True) -> ListedLesion:
    return ListedLesion(case, lesion_id, volume_mm3, censored)


def test_a_list_is_replayed_after_it_was_checked() -> None:
    entries = [listed("a", 1, 3.0), listed("a", 2, 8.0, False), listed("b", 1, 8.0000001)]
    assert listed_lesions(FIVE, entries) == {("a", 1), ("b", 1)}
    assert listed_lesions(FIVE, []) == frozenset()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (listed("a", 9, 3.0), "case a, lesion 9: is in the list, but the dataset holds no such lesion"),
        (listed("z", 1, 3.0), "case z, lesion 1: is in the list, but the dataset holds no lesion of this case"),
        (listed("a", 3, 41.0, False), "case a, lesion 3: expected the listed volume of 41 mm3, found 40: the labels"),
        (listed("a", 1, 3.0, False), "case a, lesion 1: is in the list twice"),
    ],
)
def test_a_list_of_other_labels_is_refused(entry, message) -> None:
    with pytest.raises(InputError, match=message):
        listed_lesions(FIVE, [listed("a", 1, 3.0), entry])


@given(st.sets(st.text(max_size=5), min_size=1, max_size=30), st.integers(), st.data())
def test_patients_are_nested_and_do_not_depend_on_each_other(patients, seed, data) -> None:
    few, many = sorted(data.draw(st.lists(st.integers(1, len(patients)), min_size=2, max_size=2)))
    chosen = choose_patients(patients, many, seed)
    assert choose_patients(sorted(patients) * 2, few, seed) <= chosen
    assert len(chosen) == many
    without = data.draw(st.sampled_from(sorted(patients)))
    if without not in chosen and len(patients) > many:
        assert choose_patients(patients - {without}, many, seed) == chosen


def test_golden_patients() -> None:
    # Written down once, as the draws: SHA-256 of '[0, "patient", "p1"]' and so on.
    names = [f"p{i}" for i in range(1, 9)]
    draws = {n: hashlib.sha256(f'[0, "patient", "{n}"]'.encode()).hexdigest() for n in names}
    assert choose_patients(names, 3, 0) == set(sorted(names, key=draws.__getitem__)[:3])
    assert choose_patients(names, 3, 0) != choose_patients(names, 3, 1)


@pytest.mark.parametrize("n", [0, -1, 4])
def test_more_patients_than_there_are_are_refused(n) -> None:
    with pytest.raises(InputError, match=f"within 1 to 3, the patients to train on, got {n}"):
        choose_patients(["a", "b", "c"], n)
