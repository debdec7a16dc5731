"""The miss rate by injected lesions, read again from a written audit."""

from __future__ import annotations

from pathlib import Path

from nnunet_lopsided.audit.stored import RECORD
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import check_shape, read_json


def injected_rate(folder: Path) -> float | None:
    """The estimated miss rate, within [0, 1]; None: undefined, withheld, or nothing was injected.

    Raises:
        InputError: audit.json is damaged.
    """
    path = folder / RECORD
    injected = read_json(path, dict).get("injected")
    if injected is None:  # as in audits from before there was such a thing
        return None
    check_shape(injected, {"miss_rate": (float, type(None))}, path, "injected")
    rate: float | None = injected["miss_rate"]
    if rate is not None and not 0 <= rate <= 1:
        raise InputError(f"{path}: injected.miss_rate: expected a number from 0 to 1, or null, found {rate}")
    return rate
