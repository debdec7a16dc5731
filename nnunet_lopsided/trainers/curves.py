"""What nnU-Net's progress plot does not show: one row per epoch in a CSV of the fold folder, and a picture of it."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.files.tables import BEYOND, read_table, write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE, PICTURE = "lopsided_curves.csv", "lopsided_curves.png"
COLUMNS = {
    "train_loss": "training loss",
    "flipped_background": "fraction of background voxels the network calls lesion",
    "lesion_probability": "mean probability of labelled lesion voxels",
    "gradient_norm": "gradient norm before clipping",
}


def append_row(
    folder: Path, epoch: int, values: dict[str, float | None], report: Callable[[str], object] = print
) -> list[dict[str, str]]:
    """Write the row of ``epoch``, dropping rows of it and of later epochs that an interrupted run left.

    A file that holds something else than such rows, as a spreadsheet may leave it, is set aside under another name, and
    what can be read of it goes on: a picture of the training must not end it.

    Args:
        folder: the fold folder.
        epoch: from 0.
        values: by column; None is written as an empty cell.
        report: told in one line what was set aside.

    Returns:
        All rows, as text.

    Raises:
        OSError: the folder cannot be written to.
    """
    path = folder / FILE
    rows, problem = _earlier_rows(path)
    if problem:
        aside = _free_name(path)
        path.rename(aside)
        report(f"WARNING: {path} {problem}: renamed to {aside.name}; the rows that could be read go on in a new file")
    # A training that was interrupted goes on from its last checkpoint, some epochs before its last row.
    rows = [row for row in rows if int(row["epoch"]) < epoch]
    row = {"epoch": str(epoch)}
    row |= {name: "" if value is None else f"{value:.6g}" for name, value in values.items()}
    rows.append(row)
    columns = list(rows[-1])
    with new_file(path, durable=True) as unfinished:
        write_table(unfinished, columns, ([row.get(name, "") for name in columns] for row in rows))
    return rows


def _earlier_rows(path: Path) -> tuple[list[dict[str, str]], str]:
    """The rows of a file that are as :func:`append_row` writes them, and what is wrong with the others, if any is."""
    if not path.exists():
        return [], ""
    try:
        table = read_table(path, ("epoch",), any_length=True)
    except InputError as error:
        return [], f"cannot be read ({error})"
    rows = [row for row in table if _is_row(row)]
    n_others = len(table) - len(rows)
    return rows, f"holds {n_others} rows that no training has written" if n_others else ""


def _is_row(row: Mapping[str, str]) -> bool:
    """Whether a row is an epoch and numbers or empty cells."""
    if BEYOND in row or not (row["epoch"].isascii() and row["epoch"].isdigit()):
        return False
    try:
        return all(not math.isnan(float(cell)) for cell in row.values() if cell)
    except ValueError:
        return False


def _free_name(path: Path) -> Path:
    """A name beside ``path`` that no file has."""
    names = (path.with_name(f"{path.stem}.edited{n}{path.suffix}") for n in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


def draw(folder: Path, rows: list[dict[str, str]]) -> None:
    """Draw every column of :data:`COLUMNS` over the epochs into :data:`PICTURE`."""
    from nnunet_lopsided.pages.rendering import png

    # Drawn before the file is begun, so that an error of the drawing leaves the last picture.
    picture = png(lambda: curve_figure(rows), dpi=110)
    with new_file(folder / PICTURE) as unfinished:
        unfinished.write_bytes(picture)


def curve_figure(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Every column of :data:`COLUMNS` over the epochs, one pair of axes each; empty cells have no point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, COLUMNS.items(), strict=True):
        points = [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
        axes.plot(*zip(*points, strict=True) if points else ((), ()), color="#2563a8", linewidth=1.5, marker=".")
        axes.set(title=title, xlabel="epoch")
    return figure
