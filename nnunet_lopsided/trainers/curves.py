"""What nnU-Net's progress plot does not show: one row per epoch in a CSV of the fold folder, and a picture of it."""

from __future__ import annotations

import csv
from pathlib import Path

from nnunet_lopsided.files.new_files import new_file

FILE, PICTURE = "lopsided_curves.csv", "lopsided_curves.png"
COLUMNS = {
    "train_loss": "training loss",
    "flipped_background": "fraction of background voxels the network calls lesion",
    "lesion_probability": "mean probability of labelled lesion voxels",
    "gradient_norm": "gradient norm before clipping",
}


def append_row(folder: Path, epoch: int, values: dict[str, float | None]) -> list[dict[str, str]]:
    """Write the row of ``epoch``, dropping rows of it and of later epochs that an interrupted run left.

    Args:
        folder: the fold folder.
        epoch: from 0.
        values: by column; None is written as an empty cell.

    Returns:
        All rows, as text.
    """
    path = folder / FILE
    rows: list[dict[str, str]] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]
    row = {"epoch": str(epoch)}
    row |= {name: "" if value is None else f"{value:.6g}" for name, value in values.items()}
    rows.append(row)
    with new_file(path, durable=True) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[-1]), lineterminator="\n", extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def draw(folder: Path, rows: list[dict[str, str]]) -> None:
    """Draw every column of :data:`COLUMNS` over the epochs into :data:`PICTURE`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, COLUMNS.items(), strict=True):
        points = [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
        axes.plot(*zip(*points, strict=True) if points else ((), ()), color="#2563a8", linewidth=1.5, marker=".")
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("epoch")
        axes.grid(color="#e5e7eb")
        axes.spines[["top", "right"]].set_visible(False)
    with new_file(folder / PICTURE) as unfinished:
        figure.savefig(unfinished, dpi=110, metadata={"Software": None}, format="png")
