"""Several classes evaluated one after the other: one table of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_lopsided import __version__
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.rows import Cell
from nnunet_lopsided.evaluation.summary_json import summary_dict
from nnunet_lopsided.evaluation.writing import metric_cells, write_csv
from nnunet_lopsided.files.json import write_json

SCHEMA_VERSION = 1
# Files that every output of several classes holds.
MARKS = ("classes.json", "classes.csv")


def check_class_names(names: Sequence[str]) -> None:
    """Refuse names that cannot be those of folders beside each other.

    Raises:
        InputError: a name is given twice, or is no plain file name.
    """
    # Some file systems do not tell upper from lower case.
    if len({name.lower() for name in names}) < len(names):
        raise InputError(f"--label must name every class once, got {', '.join(names)}")
    for name in names:
        if name in ("", ".", "..", *MARKS) or Path(name).name != name or "\\" in name:
            raise InputError(f"class {name!r} cannot be the name of a folder; evaluate it alone: --label {name!r}")


def class_table(results: Mapping[str, FolderResult]) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    """Header and rows: a class each, with every metric, both ends of the intervals, and the counts."""
    rows = []
    for name, result in results.items():
        summary = summary_dict(result)
        rows.append(
            {"class": name, **metric_cells(summary["metrics"], summary["counts"], summary.get("surface_distances"))}
        )
    # A confidence may be told of some classes only.
    header = tuple(dict.fromkeys(column for row in rows for column in row))
    return header, [tuple(row.get(column) for column in header) for row in rows]


def write_classes(results: Mapping[str, FolderResult], folder: Path) -> None:
    """Write classes.csv and classes.json into an existing folder, in which every class has one of its own."""
    header, rows = class_table(results)
    write_csv(folder / MARKS[1], header, rows)
    content = {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "classes": [dict(zip(header, row, strict=True)) for row in rows],
    }
    write_json(folder / MARKS[0], content)
