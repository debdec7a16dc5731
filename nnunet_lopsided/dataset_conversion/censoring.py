"""Which lesions an imagined annotator missed: pure choices from a table of lesions, no files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal, get_args

from nnunet_lopsided.errors import InputError

Mode = Literal["stochastic", "size"]
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True)
class LesionRow:
    """One lesion of a dataset.

    Attributes:
        case: name of its case.
        id: its component id (from 1) within the case, as ``find_lesions`` numbers them.
        n_voxels: its size in voxels.
        volume_mm3: its volume (2D: area in mm2).
        diameter_mm: diameter of the sphere (2D: the circle) of equal volume.
    """

    case: str
    id: int
    n_voxels: int
    volume_mm3: float
    diameter_mm: float

    @property
    def key(self) -> tuple[str, int]:
        """What names the lesion within its dataset: (case, id)."""
        return self.case, self.id


def choose_lesions(lesions: Iterable[LesionRow], mode: str, rate: float, seed: int = 0) -> frozenset[tuple[str, int]]:
    """The lesions to delete from the labels.

    - ``stochastic``: each lesion goes with probability ``rate``, independently of every other one: it goes if and only
      if its :func:`lesion_draw` is below ``rate``. So the choice for a lesion does not depend on which other cases or
      lesions there are, and what goes at one rate also goes at every higher rate with the same seed.
    - ``size``: the smallest lesions of the whole table go, exactly ``rate`` times their number, halves rounded up.
      Lesions of equal volume go in the order of case name, then id. The seed has no effect.

    Args:
        lesions: the table; (case, id) must be unique.
        mode: "stochastic" or "size".
        rate: fraction of lesions, within [0, 1].
        seed: any integer.

    Returns:
        The (case, id) of each chosen lesion; the empty set for an empty table.

    Raises:
        InputError: ``rate`` is outside [0, 1] or NaN, or the mode does not exist.

    Source:
        The two censoring modes are those of Yi et al. 2020, "Brain Metastasis Segmentation Network Trained with
        Robustness to Annotations with Multiple False Negatives".

    Example:
        >>> rows = [LesionRow("a", 1, 9, 9.0, 2.6), LesionRow("a", 2, 4, 4.0, 2.0), LesionRow("b", 1, 5, 5.0, 2.1)]
        >>> sorted(choose_lesions(rows, "size", 0.5))
        [('a', 2), ('b', 1)]
        >>> sorted(choose_lesions(rows, "stochastic", 0.5, seed=0))
        [('a', 2)]
    """
    check_rate(rate)
    rows = list(lesions)
    assert len({row.key for row in rows}) == len(rows), "(case, id) must be unique"
    if mode == "stochastic":
        return frozenset(row.key for row in rows if lesion_draw(seed, row.case, row.id) < rate)
    if mode == "size":
        smallest_first = sorted(rows, key=lambda row: (row.volume_mm3, row.case, row.id))
        return frozenset(row.key for row in smallest_first[: _count(rate, len(rows))])
    raise InputError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")


def check_rate(rate: float) -> None:
    """Raise :class:`InputError` unless 0 <= rate <= 1."""
    if not 0 <= rate <= 1:
        raise InputError(f"rate must be within [0, 1], got {rate}")


def lesion_draw(seed: int, case: str, lesion_id: int) -> float:
    """A number in [0, 1), uniform over lesions and fixed for ever by its arguments, on every platform.

    It is the first 53 bits of the SHA-256 of the JSON text ``[seed, "case", id]``, divided by 2**53.

    Example:
        >>> round(lesion_draw(0, "a", 1), 6)
        0.580344
    """
    text = json.dumps([int(seed), case, int(lesion_id)])
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) / 2**53


def _count(rate: float, n: int) -> int:
    """``rate`` times ``n``, halves rounded up, with the rate taken as the decimal number it is written as."""
    return int((Decimal(repr(float(rate))) * n).to_integral_value(ROUND_HALF_UP))
