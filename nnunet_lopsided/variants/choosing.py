"""Which lesions an imagined annotator missed: pure choices from a table of lesions, no files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal, get_args

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.variants.reader_misses import miss_rate, scaled_to_mean

Mode = Literal["stochastic", "size", "reader", "contrast"]
# The command line and study files are checked against the same names as the type.
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True, kw_only=True)
class LesionRow:
    """One lesion of a dataset.

    Attributes:
        case: name of its case.
        id: its component id (from 1) within the case, as ``find_lesions`` numbers them.
        n_voxels: its size in voxels.
        volume_mm3: its volume (2D: area in mm2).
        diameter_mm: diameter of the sphere (2D: the circle) of equal volume.
        contrast: how much its intensities differ from its surroundings', at least 0; None where it was not measured.
    """

    case: str
    id: int
    n_voxels: int
    volume_mm3: float
    diameter_mm: float
    contrast: float | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What names the lesion within its dataset: (case, id)."""
        return self.case, self.id


@dataclass(frozen=True)
class ListedLesion:
    """One row of another study's list of lesions: which lesion, its volume there, and whether it was deleted."""

    case: str
    id: int
    volume_mm3: float
    censored: bool


def choose_lesions(
    lesions: Iterable[LesionRow], mode: str, rate: float | None, seed: int = 0
) -> frozenset[tuple[str, int]]:
    """The lesions to delete from the labels.

    - ``stochastic``: each lesion goes with probability ``rate``, independently of every other one: it goes if and only
      if its :func:`lesion_draw` is below ``rate``. So the choice for a lesion does not depend on which other cases or
      lesions there are, and what goes at one rate also goes at every higher rate with the same seed.
    - ``size``: the smallest lesions of the whole table go, exactly ``rate`` times their number, halves rounded up.
      Lesions of equal volume go in the order of case name, then id. The seed has no effect.
    - ``contrast``: as ``size``, but those of the least contrast go.
    - ``reader``: each lesion goes with the probability that one human reader misses a lesion of its diameter
      (:mod:`~nnunet_lopsided.variants.reader_misses`), by the same draws as ``stochastic``. With a rate, all
      probabilities are multiplied by the one factor, and cut at 1, that makes their mean over the table that rate; what
      goes at one rate also goes at every higher rate with the same seed.

    Args:
        lesions: the table; (case, id) must be unique.
        mode: one of ``MODES``.
        rate: fraction of lesions, within [0, 1]; None (reader only): the probabilities as they were measured.
        seed: any integer.

    Returns:
        The (case, id) of each chosen lesion; the empty set for an empty table.

    Raises:
        InputError: ``rate`` is outside [0, 1], NaN or missing, the mode does not exist, or a lesion has no contrast.

    Source:
        Stochastic and size are the two modes of Yi et al. 2020, "Brain Metastasis Segmentation Network Trained with
        Robustness to Annotations with Multiple False Negatives".

    Example:
        >>> sizes = {("a", 1): (9, 2.6), ("a", 2): (4, 2.0), ("b", 1): (5, 2.1)}
        >>> rows = [
        ...     LesionRow(case=case, id=i, n_voxels=n, volume_mm3=float(n), diameter_mm=diameter)
        ...     for (case, i), (n, diameter) in sizes.items()
        ... ]
        >>> sorted(choose_lesions(rows, "size", 0.5))
        [('a', 2), ('b', 1)]
        >>> sorted(choose_lesions(rows, "stochastic", 0.5, seed=0))
        [('a', 2)]
    """
    check_mode(mode, rate)
    rows = list(lesions)
    assert len({row.key for row in rows}) == len(rows), "(case, id) must be unique"
    if mode == "reader":
        measured = [miss_rate(row.diameter_mm) for row in rows]
        probabilities = measured if rate is None else scaled_to_mean(measured, rate)
        return frozenset(r.key for r, p in zip(rows, probabilities, strict=True) if lesion_draw(seed, *r.key) < p)
    assert rate is not None, "checked above"
    if mode == "stochastic":
        return frozenset(row.key for row in rows if lesion_draw(seed, *row.key) < rate)
    ranked = [(row.volume_mm3 if mode == "size" else _contrast(row), row.key) for row in rows]
    return frozenset(key for _, key in sorted(ranked)[: _count(rate, len(rows))])


def listed_lesions(lesions: Iterable[LesionRow], listed: Iterable[ListedLesion]) -> frozenset[tuple[str, int]]:
    """The lesions that a list says were deleted, after checking that the list is of these lesions.

    Args:
        lesions: the table.
        listed: the list; it need not name every lesion of the table.

    Raises:
        InputError: a listed lesion is not in the table, has another volume there, or is listed twice.

    Example:
        >>> rows = [
        ...     LesionRow(case="a", id=1, n_voxels=9, volume_mm3=9.0, diameter_mm=2.6),
        ...     LesionRow(case="a", id=2, n_voxels=4, volume_mm3=4.0, diameter_mm=2.0),
        ... ]
        >>> sorted(listed_lesions(rows, [ListedLesion("a", 1, 9.0, False), ListedLesion("a", 2, 4.0, True)]))
        [('a', 2)]
    """
    table = {row.key: row for row in lesions}
    cases = {row.case for row in table.values()}
    seen: dict[tuple[str, int], bool] = {}
    for entry in listed:
        key = entry.case, entry.id
        name = f"case {entry.case}, lesion {entry.id}"
        if key not in table:
            missing = "no such lesion" if entry.case in cases else "no lesion of this case"
            raise InputError(f"{name}: is in the list, but the dataset holds {missing}")
        if key in seen:
            raise InputError(f"{name}: is in the list twice")
        # Lists hold 9 digits, and NIfTI gives spacings as float32. One voxel more is a larger difference than 1e-6 in
        # any lesion of fewer than a million voxels.
        if not math.isclose(entry.volume_mm3, table[key].volume_mm3, rel_tol=1e-6):
            raise InputError(
                f"{name}: expected the listed volume of {entry.volume_mm3:.9g} mm3, found {table[key].volume_mm3:.9g}: "
                "the labels are not those the list was made from"
            )
        seen[key] = entry.censored
    return frozenset(key for key, censored in seen.items() if censored)


def choose_patients(patients: Iterable[str], n: int, seed: int = 0) -> frozenset[str]:
    """Keep ``n`` patients at random; with the same seed, those of a smaller ``n`` are among those of a larger.

    The patients with the smallest draws stay: the draw is that of a lesion (:func:`lesion_draw`), but of the JSON text
    ``[seed, "patient", "name"]``. So a patient's draw does not depend on which other patients there are.

    Raises:
        InputError: there are fewer than ``n`` patients, or ``n`` is below 1.

    Example:
        >>> sorted(choose_patients(["a", "b", "c", "d"], 2)) < sorted(choose_patients(["a", "b", "c", "d"], 3))
        True
    """
    names = set(patients)
    if not 1 <= n <= len(names):
        raise InputError(f"number of patients must be within 1 to {len(names)}, the patients to train on, got {n}")
    # The first n of one order that n does not change: a learning curve adds patients and exchanges none.
    return frozenset(sorted(names, key=lambda name: (_draw([int(seed), "patient", name]), name))[:n])


def check_mode(mode: str, rate: float | None) -> None:
    """Raise :class:`InputError` unless the mode exists and has the rate it needs, within [0, 1]."""
    if mode not in MODES:
        raise InputError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if rate is not None:
        check_rate(rate)
    elif mode != "reader":
        raise InputError(f"mode {mode} needs a rate within [0, 1]")


def check_rate(rate: float) -> None:
    """Raise :class:`InputError` unless 0 <= rate <= 1."""
    if not 0 <= rate <= 1:
        raise InputError(f"rate must be within [0, 1], got {rate}")


def expected_rate(lesions: Iterable[LesionRow]) -> float:
    """Fraction of these lesions, of which there must be one, that ``reader`` takes on average over seeds."""
    probabilities = [miss_rate(row.diameter_mm) for row in lesions]
    return math.fsum(probabilities) / len(probabilities)


def lesion_draw(seed: int, case: str, lesion_id: int) -> float:
    """A number in [0, 1), uniform over lesions and fixed for ever by its arguments, on every platform.

    It is the first 53 bits of the SHA-256 of the JSON text ``[seed, "case", id]``, divided by 2**53.

    Example:
        >>> round(lesion_draw(0, "a", 1), 6)
        0.580344
    """
    # NumPy's whole numbers, as from a table, are none to the json module.
    return _draw([int(seed), case, int(lesion_id)])


# A hash instead of a random generator: a generator's n-th number would go to another lesion as soon as one case is
# added, and NumPy does not promise the same stream in its next version. Python's hash() differs from run to run.
def _draw(what: list[int | str]) -> float:
    text = json.dumps(what)
    # JSON has one spelling for a name, with its quotes: no two (case, id) become the same text.
    # 53 bits are what a float holds exactly, so every platform divides to the same number.
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) / 2**53


def _contrast(row: LesionRow) -> float:
    if row.contrast is None:
        raise InputError(f"case {row.case}, lesion {row.id}: mode contrast needs its contrast")
    return row.contrast


def _count(rate: float, n: int) -> int:
    """``rate`` times ``n``, halves rounded up, with the rate taken as the decimal number it is written as."""
    # In binary 0.145 * 100 is below 14.5, and would be rounded down.
    return int((Decimal(repr(float(rate))) * n).to_integral_value(ROUND_HALF_UP))
