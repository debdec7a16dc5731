"""CSV files: reading those that a user gives or a command wrote, and writing them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.regular import check_regular


def read_table(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file, by column: see :func:`numbered_rows`."""
    return [row for _, row in numbered_rows(path, columns)]


def numbered_rows(path: Path, columns: Sequence[str] = ()) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, by column; UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        columns: those it must have; it may have more.

    Returns:
        Every row after the number of its line; a row that is too short has empty cells at its end, and one of empty
        cells alone, as spreadsheets leave them, is left out.

    Raises:
        InputError: the file is missing, is not UTF-8 or no CSV, or lacks a column.
    """
    check_regular(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected CSV in UTF-8, found byte 0x{error.object[error.start]:02x}") from None
    if "\0" in text:
        raise InputError(f"{path}: expected CSV, found a NUL character")
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    try:
        header = reader.fieldnames = [_plain(name) for name in reader.fieldnames or ()]
        # Cells beyond the header's come as one list.
        rows = [
            (reader.line_num, {name: _plain(cell) for name, cell in row.items()})
            for row in reader
            if any(map(any, row.values()))
        ]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: expected CSV: {error}") from None
    if any(column not in header for column in columns):
        expected = " and ".join([", ".join(columns[:-1]), columns[-1]]) if len(columns) > 1 else columns[0]
        marks = {";": "semicolons", "\t": "tabs"}
        separated = next((word for mark, word in marks.items() if mark in "".join(header)), None)
        advice = f"; its cells are separated by {separated}: save it with commas" if separated else ""
        raise InputError(f"{path}: expected the columns {expected}, found {', '.join(header) or 'none'}{advice}")
    return rows


# What spreadsheets take for the beginning of a formula, after any number of our apostrophes.
_FORMULA = re.compile(r"'*[=+\-@\t\r].", re.DOTALL)


def _guarded(cell: Any) -> Any:
    """A text that spreadsheets would run is written with an apostrophe before it, which :func:`_plain` takes away."""
    if not isinstance(cell, str) or not _FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _plain(cell: Any) -> Any:
    return cell[1:] if isinstance(cell, str) and cell[:1] == "'" and _FORMULA.match(cell) else cell


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file with a header, in UTF-8 and with one newline character per row on every system.

    Texts that a spreadsheet would run as a formula, such as a case called ``=cmd``, get an apostrophe before them;
    :func:`read_table` takes it away.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_guarded, columns))
        writer.writerows(map(_guarded, row) for row in rows)
