"""How many lesions of which size were missed: counts by hand, then properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnunet_lopsided.audit.miss_rate import Scored, mixture_share, mixture_threshold
from nnunet_lopsided.audit.missed_by_size import (
    InjectedLesions,
    SizeRange,
    estimate_by_size,
    rising,
    tail,
)

Floats = Sequence[float]
Pairs = Sequence[tuple[float, float]]


def scored(annotated: Floats, found: Pairs, candidates: Pairs) -> Scored:
    """Of lesions found and candidates: diameter and score."""
    found_mm, found_score = np.array(found, float).reshape(-1, 2).T
    candidate_mm, candidate_score = np.array(candidates, float).reshape(-1, 2).T
    return Scored(
        annotated_mm=np.array(annotated),
        annotated_patient=np.zeros(len(annotated), int),
        found_mm=found_mm,
        found_score=found_score,
        found_patient=np.zeros(len(found), int),
        candidate_mm=candidate_mm,
        candidate_score=candidate_score,
        candidate_patient=np.zeros(len(candidates), int),
        n_patients=1,
    )


def injected(diameters: Floats, found: Pairs) -> InjectedLesions:
    found_mm, found_score = np.array(found, float).reshape(-1, 2).T
    return InjectedLesions(
        per_case=8,
        seed=3,
        diameter_mm=np.array(diameters),
        patient=np.zeros(len(diameters), int),
        found_mm=found_mm,
        found_score=found_score,
        found_patient=np.zeros(len(found), int),
    )


def patients(n: int, of: tuple[Scored, InjectedLesions]) -> tuple[Scored, InjectedLesions]:
    """The same lesions n times, each time of another patient."""
    weight = np.array([n])

    def numbered(m: int) -> NDArray[np.int64]:
        return np.tile(np.arange(n), m) if m else np.zeros(0, int)

    scores, given = of[0].drawn(weight), of[1].drawn(weight)
    return (
        replace(
            scores,
            annotated_patient=numbered(len(of[0].annotated_mm)),
            found_patient=numbered(len(of[0].found_mm)),
            candidate_patient=numbered(len(of[0].candidate_mm)),
            n_patients=n,
        ),
        replace(given, patient=numbered(len(of[1].diameter_mm)), found_patient=numbered(len(of[1].found_mm))),
    )


# Small ones (below 6 mm): 2 annotated and not found, 30 injected, of which 20 are found at .4 and .6; candidates are 6
# at .6 and 10 at .2. Large ones: 40 annotated, 30 found at .9 and 6 at .3; 25 injected, all found at .9; candidates 9
# at .9 and 1 at .1.
LESIONS = scored(
    [5.0] * 2 + [8.0] * 40,
    [(8, 0.9)] * 30 + [(8, 0.3)] * 6,
    [(4, 0.6)] * 6 + [(4, 0.2)] * 10 + [(9, 0.9)] * 9 + [(9, 0.1)],
)
INJECTED = injected([4.0] * 30 + [8.0] * 25, [(4, 0.6)] * 10 + [(4, 0.4)] * 10 + [(8, 0.9)] * 25)


def test_a_tail_by_hand() -> None:
    known = np.array([0.6] * 10 + [0.4] * 10)
    # From .4 on: 20 of 40 lesions, 8 unknown. From .6 on: 10, 6 unknown, which would be more.
    assert tail(known, 40, np.array([0.6] * 6 + [0.5] * 2 + [0.2] * 9)) == 8 / 20 * 40
    # From .6 on 10 of 40 lesions and 1 unknown, from .4 on 20 and 25.
    assert tail(known, 40, np.array([0.6] + [0.5] * 24)) == 1 / 10 * 40
    assert tail(known, 40, np.zeros(0)) == 0
    assert tail(known[:9], 40, known) is None


def test_the_threshold_needs_ten_lesions() -> None:
    """Nine that score above every unknown one would say that nothing was missed."""
    known = np.array([0.9] * 9 + [0.5] * 11)
    assert tail(known, 20, np.array([0.6] * 5)) == 5


def test_the_threshold_of_the_share() -> None:
    """Shares from .9 on: 30/36 and 9/26, from .3 on: 1 and 15/26."""
    known, unknown = LESIONS.found_score, LESIONS.candidate_score
    assert mixture_threshold(known, unknown) == 0.9
    assert mixture_share(known, unknown) == pytest.approx((9 / 26) / (30 / 36))
    assert mixture_threshold(known, unknown[:0]) == 0.3


def test_counts_by_hand() -> None:
    found = estimate_by_size(LESIONS, INJECTED, (6,))
    small, large = found.ranges
    assert (small.lower_mm, small.upper_mm, large.lower_mm, large.upper_mm) == (0, 6, 6, None)
    assert (small.n_injected, small.n_found, small.recall) == (30, 20, 20 / 30)
    # From .4 on 20 of 30 injected lesions and 6 candidates. No candidate from .9 on. No annotated lesion is found.
    assert small.by_injected == pytest.approx(6 / 20 * 30)
    assert (small.by_highest_scores, small.by_annotated, small.n_missed) == (0, None, None)
    assert (large.n_injected, large.n_found) == (25, 25)
    assert large.by_injected == 9
    # 30 of all 42 annotated lesions reach .9.
    assert large.by_highest_scores == pytest.approx(9 / (30 / 42))
    # From .3 on 36 of 40 annotated lesions of these diameters, and 9 candidates.
    assert large.by_annotated == pytest.approx(9 / 36 * 40)
    assert large.n_missed == pytest.approx((9 * 12.6 * 10) ** (1 / 3))
    assert found.n_missed == large.n_missed
    assert found.rate == pytest.approx(large.n_missed / (large.n_missed + 42))
    assert (found.n_injected, found.n_annotated, found.per_case, found.seed, found.undefined) == (55, 42, 8, 3, "")


def test_where_no_candidate_is_as_sure_as_annotated_lesions_nothing_is_said() -> None:
    """Small lesions score .4 at most, large ones .9: that no small one reaches .9 does not say that none was missed."""
    lesions = scored([8.0] * 20, [(8, 0.9)] * 20, [(4, 0.4)] * 10 + [(8, 0.9)] * 5)
    found = estimate_by_size(lesions, injected([4.0] * 40 + [8.0] * 20, [(4, 0.4)] * 20 + [(8, 0.9)] * 20), (6,))
    small, large = found.ranges
    assert (small.by_injected, small.by_highest_scores, small.n_missed) == (20, 0, None)
    assert found.n_missed == large.n_missed == pytest.approx(5)
    # Of that range alone there is no estimate, and not one of 0.
    of_small = scored([8.0] * 20, [(8, 0.9)] * 20, [(4, 0.4)] * 10)
    found = estimate_by_size(of_small, injected([4.0] * 40, [(4, 0.4)] * 20), (6,))
    assert (found.rate, [r.n_missed for r in found.ranges]) == (None, [None, None])
    assert found.undefined == "candidates are like injected lesions, but none is as sure as annotated ones are"
    # Where no candidate is like injected ones either, none was missed.
    few = scored([8.0] * 20, [(8, 0.9)] * 20, [(4, 0.1)] * 10 + [(8, 0.9)] * 5)
    found = estimate_by_size(few, injected([4.0] * 40 + [8.0] * 20, [(4, 0.4)] * 20 + [(8, 0.9)] * 20), (6,))
    assert found.ranges[0].n_missed == 0


def test_two_counts_have_a_mean_of_two() -> None:
    lesions = scored([8.0] * 20, [(8, 0.9)] * 20, [(4, 0.95)] * 5)
    (small, large) = estimate_by_size(lesions, injected([4.0] * 40, [(4, 0.95)] * 20), (6,)).ranges
    assert (small.by_injected, small.by_highest_scores, small.by_annotated) == (10, 5, None)
    assert small.n_missed == pytest.approx(sqrt(50))
    assert (large.n_injected, large.recall, large.n_missed) == (0, None, None)


def test_where_hardly_any_was_injected_the_other_counts_speak() -> None:
    """Large lesions are rare: 9 injected ones say nothing, annotated ones do. Of 10 that are not found it is known."""
    lesions = scored([8.0] * 20, [(8, 0.9)] * 20, [(8, 0.9)] * 5)
    for n, expected in ((9, 5), (10, None)):
        small_ones = [4.0] * 20, [(4, 0.95)] * 20
        found = estimate_by_size(lesions, injected(small_ones[0] + [8.0] * n, small_ones[1]), (6,))
        large = found.ranges[1]
        assert (large.by_injected, large.by_highest_scores, large.by_annotated) == (None, 5, 5)
        assert large.n_missed == (None if expected is None else pytest.approx(expected))


def test_a_range_that_is_not_seen_has_no_estimate() -> None:
    """Nine of 30 injected lesions are found; what else is known of the range is not taken for an estimate."""
    lesions = scored([4.0] * 20, [(4, 0.9)] * 20, [(4, 0.9)] * 5)
    found = estimate_by_size(lesions, injected([4.0] * 30, [(4, 0.9)] * 9), (6,))
    small = found.ranges[0]
    assert (small.n_found, small.by_injected, small.by_highest_scores, small.by_annotated) == (9, None, 5, 5)
    assert (small.n_missed, found.n_missed, found.rate) == (None, None, None)
    assert found.undefined == "the models find fewer than 10 injected lesions of every range of diameters"


def test_a_replicate_draws_patients_with_all_that_is_theirs() -> None:
    scores = Scored(
        annotated_mm=np.array([4.0, 5, 6]),
        annotated_patient=np.array([0, 1, 2]),
        found_mm=np.array([5.0, 6]),
        found_score=np.array([0.5, 0.6]),
        found_patient=np.array([1, 2]),
        candidate_mm=np.array([7.0, 8]),
        candidate_score=np.array([0.7, 0.8]),
        candidate_patient=np.array([0, 1]),
        n_patients=3,
    )
    drawn = scores.drawn(np.array([2, 0, 1]))
    assert (drawn.annotated_mm.tolist(), drawn.annotated_patient.tolist()) == ([4, 4, 6], [0, 0, 2])
    assert (drawn.found_mm.tolist(), drawn.found_score.tolist(), drawn.found_patient.tolist()) == ([6], [0.6], [2])
    assert (drawn.candidate_mm.tolist(), drawn.candidate_score.tolist()) == ([7, 7], [0.7, 0.7])
    assert (drawn.candidate_patient.tolist(), drawn.n_patients) == ([0, 0], 3)
    lesions = replace(injected([4.0, 5, 6], [(5, 0.5), (6, 0.6)]), patient=np.arange(3), found_patient=np.array([1, 2]))
    of = lesions.drawn(np.array([2, 0, 1]))
    assert (of.diameter_mm.tolist(), of.patient.tolist()) == ([4, 4, 6], [0, 0, 2])
    assert (of.found_mm.tolist(), of.found_score.tolist(), of.found_patient.tolist()) == ([6], [0.6], [2])
    assert (of.per_case, of.seed) == (8, 3)


def test_patients_who_are_all_alike_leave_no_doubt() -> None:
    """Every replicate then is the data set itself, so that both ends are the estimate."""
    found = estimate_by_size(*patients(10, (LESIONS, INJECTED)), (6,), n_replicates=100)
    small, large = found.ranges
    assert found.rate is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((found.rate, found.rate))
    assert large.seen == pytest.approx(400 / (400 + (large.n_missed or 0)))
    assert (large.seen_interval.low, large.seen_interval.high) == pytest.approx((large.seen, large.seen))
    assert (small.seen, small.seen_interval.low) == (None, None)


def test_the_interval_is_wider_of_fewer_patients_and_the_same_twice() -> None:
    """Half of the patients have no candidates."""
    widths = []
    for n in (10, 40):
        scores, given = patients(n, (LESIONS, INJECTED))
        has = scores.candidate_patient < n // 2
        scores = replace(
            scores,
            candidate_mm=scores.candidate_mm[has],
            candidate_score=scores.candidate_score[has],
            candidate_patient=scores.candidate_patient[has],
        )
        found = estimate_by_size(scores, given, (6,), n_replicates=200, seed=4)
        assert found == estimate_by_size(scores, given, (6,), n_replicates=200, seed=4)
        assert found != estimate_by_size(scores, given, (6,), n_replicates=200, seed=5)
        low, high, rate = found.interval.low, found.interval.high, found.rate
        assert low is not None
        assert high is not None
        assert rate is not None
        assert low < rate < high
        widths.append(high - low)
    assert widths[1] < 0.8 * widths[0]


def test_where_there_is_no_estimate_there_is_no_interval() -> None:
    """In some replicates the nine that are found are ten."""
    found = [(4, 0.5 + i / 50) for i in range(9)]
    lesions = scored([4.0] * 20 + [8.0] * 20, [(4, 0.9)] * 20 + [(8, 0.9)] * 20, [(4, 0.9)] * 5 + [(8, 0.9)] * 5)
    given = injected([4.0] * 12 + [8.0] * 30, [*found, *[(8, 0.9)] * 10])
    scores = replace(
        lesions,
        annotated_patient=np.arange(40) % 20,
        found_patient=np.arange(40) % 20,
        candidate_patient=np.arange(10),
        n_patients=20,
    )
    given = replace(given, patient=np.arange(42) % 20, found_patient=np.arange(19))
    small, large = estimate_by_size(scores, given, (6,), n_replicates=200).ranges
    assert (small.n_missed, small.seen_interval.undefined) == (None, "there is no estimate")
    assert large.n_missed is not None
    # Ten injected lesions are found; in half of the replicates fewer are drawn.
    assert large.seen_interval.undefined == "in too many replicates too few lesions are found"


def test_why_there_is_no_interval() -> None:
    of = patients(10, (LESIONS, INJECTED))
    assert estimate_by_size(*of, (6,), n_replicates=0).interval.undefined == "the bootstrap was switched off"
    assert "at least 100 are needed" in str(estimate_by_size(*of, (6,), n_replicates=99).interval.undefined)
    few = estimate_by_size(*patients(7, (LESIONS, INJECTED)), (6,), n_replicates=100)
    assert "needs at least 8 patients, and there are 7" in str(few.interval.undefined)
    assert [r.seen_interval.undefined for r in few.ranges] == [few.interval.undefined] * 2
    # Without an estimate that is the reason.
    blind = estimate_by_size(scored([4.0] * 20, [(4, 0.9)] * 9, []), INJECTED, (6,))
    assert blind.interval.undefined == blind.undefined


def of_range(annotated: int, missed: float | None) -> SizeRange:
    return SizeRange(
        lower_mm=0,
        upper_mm=None,
        n_annotated=annotated,
        n_injected=0,
        n_found=0,
        by_injected=None,
        by_highest_scores=None,
        by_annotated=None,
        n_missed=missed,
    )


def test_a_rising_curve_by_hand() -> None:
    # Shares .5 and .2 of 10 and 20 lesions have a common one of .3; no lesion at all says nothing.
    assert rising([of_range(5, 5.0), of_range(4, 16.0), of_range(0, 0.0), of_range(9, 1.0), of_range(3, None)]) == [
        pytest.approx(0.3),
        pytest.approx(0.3),
        0.9,
        0.9,
        None,
    ]
    assert rising([of_range(5, None)]) == [None]
    assert of_range(0, 0.0).seen is None
    assert of_range(0, 4.0).seen == 0


def test_without_annotated_lesions_that_are_found() -> None:
    found = estimate_by_size(scored([4.0] * 20, [(4, 0.9)] * 9, [(4, 0.9)] * 5), INJECTED, (6,))
    assert (found.rate, found.undefined) == (None, "the models find 9 annotated lesions; at least 10 are needed")
    assert found.ranges[0].recall == 20 / 30


def test_withheld() -> None:
    found = estimate_by_size(LESIONS, INJECTED, (6,)).withheld("weak")
    assert (found.rate, found.n_missed, found.undefined) == (None, None, "weak")
    assert {found.interval.undefined, *(r.seen_interval.undefined for r in found.ranges)} == {"weak"}
    assert [r.seen for r in found.ranges] == [None, None]
    assert [(r.n_injected, r.n_found, r.by_injected, r.by_highest_scores, r.by_annotated) for r in found.ranges] == [
        (30, 20, None, None, None),
        (25, 25, None, None, None),
    ]


@given(st.lists(st.tuples(st.integers(0, 20), st.none() | st.floats(0, 30)), min_size=1, max_size=6))
def test_a_rising_curve_rises_and_keeps_the_number_of_lesions(counts: list[tuple[int, float | None]]) -> None:
    ranges = [of_range(*count) for count in counts]
    curve = rising(ranges)
    shares = [share for share in curve if share is not None]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    known = [(r, share) for r, share in zip(ranges, curve, strict=True) if r.seen is not None]
    seen = sum((r.n_annotated + (r.n_missed or 0)) * (share or 0) for r, share in known)
    assert seen == pytest.approx(sum(r.n_annotated for r, _ in known))


scores = st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), max_size=30)


@given(known=scores, unknown=scores, more=scores)
def test_more_unknown_components_never_mean_fewer_lesions_at_one_threshold(
    known: list[float], unknown: list[float], more: list[float]
) -> None:
    """With a single score of known lesions there is but one threshold."""
    same = np.full(len(known), 0.5)
    fewer, all_of_them = (tail(same, 50, np.array(u, float)) for u in (unknown, unknown + more))
    assert (fewer is None) == (all_of_them is None) == (len(known) < 10)
    assert fewer is None or all_of_them is None or 0 <= fewer <= all_of_them


@given(found=scores, candidates=scores, given_=scores)
def test_the_estimate_lies_between_its_counts(found: Floats, candidates: Floats, given_: Floats) -> None:
    lesions = scored([5.0] * 30, [(5, s) for s in found], [(5, s) for s in candidates])
    estimate = estimate_by_size(lesions, injected([5.0] * 30, [(5, s) for s in given_]), (3, 10))
    (seen,) = (r for r in estimate.ranges if r.lower_mm == 3)
    without = len(found) < 10 or len(given_) < 10
    assert [r.n_missed for r in estimate.ranges if r is not seen] == [None, None]
    assert (seen.n_missed is None) == (without or bool(seen.by_highest_scores == 0 and seen.by_injected))
    assert bool(estimate.undefined) == (seen.n_missed is None) == (estimate.rate is None)
    if seen.n_missed is not None:
        counts = [c for c in (seen.by_injected, seen.by_highest_scores, seen.by_annotated) if c is not None]
        assert min(counts) - 1e-9 <= seen.n_missed <= max(counts) + 1e-9
        assert estimate.rate is not None
        assert 0 <= estimate.rate < 1
