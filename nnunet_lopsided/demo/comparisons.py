"""What lopsided-eval compare has written, as much of it as a demo shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.demo.outcome import Difference
from nnunet_lopsided.files.json import read_json


@dataclass(frozen=True)
class Compared:
    """Two models, the second minus the first.

    Attributes:
        average_precision: its difference.
        sensitivity: the difference of the max sensitivity.
        only_first: lesions that the first alone found.
        only_second: likewise.
    """

    average_precision: Difference
    sensitivity: Difference
    only_first: int
    only_second: int


def read_comparison(file: Path) -> dict[tuple[str, str], Compared]:
    """Every pair of models in a comparison.json, by their names."""
    compared = {}
    for pair in read_json(file)["pairs"]:
        of_map, of_sensitivity = (
            Difference(d["difference"], d["ci95_bootstrap"], d["undefined"])
            for d in (pair["differences"][name] for name in ("map", "max_sensitivity"))
        )
        lesions = pair["lesions"]
        compared[pair["first"], pair["second"]] = Compared(
            of_map, of_sensitivity, lesions["only_first"], lesions["only_second"]
        )
    return compared
