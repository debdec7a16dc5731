"""Choosing lesions to censor: hand-computed choices first, then properties."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_lopsided.dataset_conversion.censoring import MODES, LesionRow, choose_lesions, lesion_draw
from nnunet_lopsided.errors import InputError


def row(case: str, lesion_id: int, volume_mm3: float) -> LesionRow:
    return LesionRow(case, lesion_id, int(volume_mm3), volume_mm3, 2.0)


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
    with pytest.raises(InputError, match="mode must be one of stochastic, size, got 'random'"):
        choose_lesions(FIVE, "random", 0.5)
