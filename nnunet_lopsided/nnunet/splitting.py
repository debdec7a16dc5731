"""Which patients are held out and how the others are folded; and the one reading of splits_final.json."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

# Python's own is not enough for pydantic before Python 3.12.
from typing_extensions import TypedDict

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.schema import validated
from nnunet_lopsided.nnunet.paths import check_case_name, check_no_twins, nearly


class _Split(TypedDict):
    train: list[str]
    val: list[str]


_SPLITS = TypeAdapter(list[_Split])

# Lesions per case in Yi et al. 2020: 1-3, 4-10 and more; below them, cases without a lesion.
STRATA_FROM = (1, 4, 11)
N_FOLDS = 5


class Fold(NamedTuple):
    """The cases a fold trains on, and those it validates; none is in both."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def stratum(n_lesions: int) -> int:
    """0 for no lesion, 1 for 1 to 3, 2 for 4 to 10, 3 for more than 10.

    Source:
        Yi et al. 2020: the strata by which cases were divided.

    Example:
        >>> [stratum(n) for n in (0, 1, 3, 4, 10, 11)]
        [0, 1, 1, 2, 2, 3]
    """
    return sum(n_lesions >= lowest for lowest in STRATA_FROM)


def choose_test_patients(n_lesions: Mapping[str, int], fraction: float, seed: int) -> frozenset[str]:
    """Patients to hold out, from every stratum of :func:`stratum` in proportion to its size.

    The number is ``fraction`` of all patients, rounded, at least 1 and at most all but one. It is shared out by largest
    remainder; within a stratum those with the lowest draw go, a number that depends on seed and name alone.

    Args:
        n_lesions: by patient: the largest number of lesions of any of its cases.
        fraction: above 0 and below 1.
        seed: any integer.

    Raises:
        InputError: the fraction is out of range, or there are fewer than two patients.

    Example:
        >>> sorted(choose_test_patients({"a": 1, "b": 2, "c": 12, "d": 20}, 0.5, seed=0))
        ['a', 'c']
    """
    check_fraction(fraction)
    if len(n_lesions) < 2:
        raise InputError(f"test fraction needs at least 2 patients with labels, found {len(n_lesions)}")
    # Halves go up. round() takes them to the even number: half of 3 and half of 5 patients would both be 2.
    total = min(max(int(fraction * len(n_lesions) + 0.5), 1), len(n_lesions) - 1)
    strata: dict[int, list[str]] = {}
    for patient in sorted(n_lesions, key=lambda name: _draw(seed, name)):
        strata.setdefault(stratum(n_lesions[patient]), []).append(patient)
    shares = {key: total * len(members) / len(n_lesions) for key, members in strata.items()}
    counts = {key: int(share) for key, share in shares.items()}
    # The largest remainder first; of equal ones the lower stratum's, so that no order of patients plays a part.
    by_remainder = sorted(shares, key=lambda key: (counts[key] - shares[key], key))
    for key in by_remainder[: total - sum(counts.values())]:
        counts[key] += 1
    return frozenset(patient for key, members in strata.items() for patient in members[: counts[key]])


def check_fraction(fraction: float) -> None:
    """Raise :class:`InputError` unless 0 < fraction < 1."""
    if not 0 < fraction < 1:
        raise InputError(f"test fraction must be above 0 and below 1, got {fraction}")


def folds_by_patient(
    cases: Mapping[str, Sequence[str]], n_lesions: Mapping[str, int], seed: int, n_folds: int = N_FOLDS
) -> list[dict[str, list[str]]]:
    """Folds as nnU-Net's ``splits_final.json`` holds them; cases of one patient are never on both sides.

    Patients are dealt out stratum by stratum, each to the fold with the fewest cases of that stratum, then of all.

    Args:
        cases: case names by patient.
        n_lesions: by patient, as in :func:`choose_test_patients`.
        seed: any integer.
        n_folds: fewer are made if there are fewer patients.

    Returns:
        The folds, case names sorted; none if there are fewer than two patients.
    """
    n_folds = min(n_folds, len(cases))
    if n_folds < 2:
        return []
    folds: list[list[str]] = [[] for _ in range(n_folds)]
    for level in sorted({stratum(n_lesions[patient]) for patient in cases}):
        members = [patient for patient in cases if stratum(n_lesions[patient]) == level]
        here = [0] * n_folds
        for patient in sorted(members, key=lambda name: _draw(seed, name)):
            # The fold's number last, so that equal folds are filled in order and nothing is left to chance.
            chosen = min(range(n_folds), key=lambda fold: (here[fold], len(folds[fold]), fold))
            folds[chosen] += cases[patient]
            here[chosen] += len(cases[patient])
    everything = [case for fold in folds for case in fold]
    return [{"train": sorted(set(everything) - set(fold)), "val": sorted(fold)} for fold in folds]


def folds_of_part(
    splits: Iterable[Fold], patients: Mapping[str, str], n_lesions: Mapping[str, int], seed: int
) -> tuple[list[dict[str, list[str]]], str]:
    """The folds of a dataset for a part of its cases.

    They stay what they are, without the cases that are gone. If that leaves nothing to train on or to validate on in
    any fold, which nnU-Net cannot use, all are made anew by :func:`folds_by_patient`.

    Args:
        splits: the folds of the whole dataset, from :func:`read_splits`.
        patients: by case of the part.
        n_lesions: by patient, as in :func:`choose_test_patients`; 0 where a patient is missing.
        seed: of new folds.

    Returns:
        The folds, and what the user must know of them, empty if they are the old ones. No folds if all cases are of one
        patient: nothing is to be written then.

    Example:
        >>> old = [Fold(("a", "b"), ("c",)), Fold(("c",), ("a", "b"))]
        >>> folds_of_part(old, {"a": "a", "c": "c"}, {}, 0)
        ([{'train': ['a'], 'val': ['c']}, {'train': ['c'], 'val': ['a']}], '')
        >>> folds_of_part(old, {"a": "a", "b": "b"}, {}, 0)[1]
        'a fold of the source would be empty on one side: 2 new folds by patient'
    """
    folds = [
        {"train": [case for case in fold.train if case in patients], "val": [c for c in fold.val if c in patients]}
        for fold in splits
    ]
    if folds and all(fold["train"] and fold["val"] for fold in folds):
        return folds, ""
    cases: dict[str, list[str]] = {}
    for case, patient in sorted(patients.items()):
        cases.setdefault(patient, []).append(case)
    folds = folds_by_patient(cases, {patient: n_lesions.get(patient, 0) for patient in cases}, seed)
    if not folds:
        return [], "only one patient to train on: no splits_final.json is written"
    return folds, f"a fold of the source would be empty on one side: {len(folds)} new folds by patient"


def most_lesions(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The largest number of lesions by patient.

    Example:
        >>> most_lesions([("a", 1), ("b", 0), ("a", 3)])
        {'a': 3, 'b': 0}
    """
    largest: dict[str, int] = {}
    for patient, n in counts:
        largest[patient] = max(n, largest.get(patient, 0))
    return largest


def _draw(seed: int, name: str) -> bytes:
    """Sorts names in an order that looks random and depends on nothing but seed and name."""
    return hashlib.sha256(json.dumps([seed, name]).encode()).digest()


def read_splits(path: Path, cases: Collection[str] | None = None) -> list[Fold]:
    """The folds of a splits_final.json, which leak nothing and name cases alone.

    Args:
        path: the file.
        cases: the training cases of the dataset, if they are known; the file may leave some out.

    Raises:
        InputError: the file is missing or is not what nnU-Net writes, there is no fold, or one of them trains on no
            case, validates none, trains on a case and validates on it, names one twice, or names something that is no
            case.
    """
    splits = validated(_SPLITS, read_json(path), path)
    known = None if cases is None else frozenset(cases)
    check_no_twins((case for split in splits for part in ("train", "val") for case in split[part]), path)
    if not splits:
        raise InputError(f"{path}: expected the folds of a cross-validation, found none")
    for i, split in enumerate(splits):
        for part in ("train", "val"):
            if not split[part]:
                raise InputError(f"{path}: [{i}].{part}: expected the cases of fold {i}, found none")
        for case in (*split["train"], *split["val"]):
            check_case_name(case, path)
            if known is not None and case not in known:
                raise InputError(
                    f"{path}: fold {i} names {case}, which is none of the training cases{nearly(case, known)}"
                )
        both = sorted(set(split["train"]) & set(split["val"]))
        if both:
            raise InputError(f"{path}: fold {i} trains on case {both[0]} and validates on it")
        for part, names in (("trains", split["train"]), ("validates", split["val"])):
            if len(set(names)) < len(names):
                twice = next(name for name, n in Counter(names).items() if n > 1)
                raise InputError(f"{path}: fold {i} {part} on case {twice} twice")
    return [Fold(tuple(split["train"]), tuple(split["val"])) for split in splits]
