"""Test patients by stratum, folds by patient."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.splitting import choose_test_patients, folds_by_patient, stratum

PATIENTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 20), min_size=2, max_size=40)


def test_every_stratum_gives_its_share() -> None:
    n_lesions = {f"p{i:02d}": n for i, n in enumerate([2] * 20 + [7] * 10 + [15] * 10)}
    chosen = choose_test_patients(n_lesions, 0.2, seed=1)
    assert [sum(stratum(n_lesions[p]) == level for p in chosen) for level in (1, 2, 3)] == [4, 2, 2]
    assert chosen == choose_test_patients(dict(reversed(n_lesions.items())), 0.2, seed=1)
    assert chosen != choose_test_patients(n_lesions, 0.2, seed=2)


@settings(deadline=None)
@given(PATIENTS, st.floats(0.001, 0.999), st.integers(0, 5))
def test_number_and_proportions(n_lesions, fraction, seed) -> None:
    chosen = choose_test_patients(n_lesions, fraction, seed)
    total = len(n_lesions)
    assert 1 <= len(chosen) < total
    assert len(chosen) in (1, total - 1) or abs(len(chosen) - fraction * total) <= 0.5 + 1e-9
    for level in range(4):
        members = [p for p in n_lesions if stratum(n_lesions[p]) == level]
        assert abs(len(chosen & set(members)) - len(chosen) * len(members) / total) < 1 + 1e-9


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_fraction_out_of_range(fraction) -> None:
    with pytest.raises(InputError, match="test fraction must be above 0 and below 1"):
        choose_test_patients({"a": 1, "b": 2}, fraction, 0)


def test_one_patient_cannot_be_split() -> None:
    with pytest.raises(InputError, match="at least 2 patients"):
        choose_test_patients({"a": 1}, 0.5, 0)
    assert folds_by_patient({"a": ["a1", "a2"]}, {"a": 1}, 0) == []


def test_folds_are_stratified() -> None:
    n_lesions = {f"p{i:02d}": n for i, n in enumerate([1] * 10 + [5] * 5 + [30] * 5)}
    folds = folds_by_patient({p: [p] for p in n_lesions}, n_lesions, seed=0)
    assert [[sum(stratum(n_lesions[p]) == s for p in fold["val"]) for s in (1, 2, 3)] for fold in folds] == [
        [2, 1, 1]
    ] * 5


def test_the_seed_decides_the_folds() -> None:
    cases = {f"p{i}": [f"p{i}"] for i in range(20)}
    n_lesions = dict.fromkeys(cases, 1)
    assert folds_by_patient(cases, n_lesions, seed=1) == folds_by_patient(cases, n_lesions, seed=1)
    assert folds_by_patient(cases, n_lesions, seed=1) != folds_by_patient(cases, n_lesions, seed=2)


@settings(deadline=None)
@given(PATIENTS, st.data())
def test_folds_are_a_partition_by_patient(n_lesions, data) -> None:
    cases = {p: [f"{p}-{i}" for i in range(data.draw(st.integers(1, 3)))] for p in n_lesions}
    folds = folds_by_patient(cases, n_lesions, seed=3)
    everything = sorted(case for names in cases.values() for case in names)
    assert len(folds) == min(5, len(n_lesions))
    assert sorted(case for fold in folds for case in fold["val"]) == everything
    for fold in folds:
        assert fold["val"]
        assert sorted(fold["train"] + fold["val"]) == everything
        assert not {c.split("-")[0] for c in fold["train"]} & {c.split("-")[0] for c in fold["val"]}
