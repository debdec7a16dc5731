"""CSV files: reading those that a user gives or a command wrote, and writing them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.regular import check_regular

BEYOND = ""  # the column of what stands beyond the header's cells
_Cell = TypeVar("_Cell")


def read_table(path: Path, columns: Sequence[str] = (), *, any_length: bool = False) -> list[dict[str, str]]:
    """The rows of a CSV file, by column: see :func:`numbered_rows`."""
    return [row for _, row in numbered_rows(path, columns, any_length=any_length)]


def numbered_rows(
    path: Path, columns: Sequence[str] = (), *, any_length: bool = False
) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, by column; UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        columns: those it must have, once; it may have more.
        any_length: a row may have more cells than the header; they are put under :data:`BEYOND`.

    Returns:
        Every row after the number of its line; a row that is too short has empty cells at its end, and one of empty
        cells alone, as spreadsheets leave them, is left out.

    Raises:
        InputError: the file is missing, is not UTF-8 or no CSV, lacks a column or has it twice, or a row is too long:
            a comma in a cell without quotes would shift all that follow.
    """
    check_regular(path)
    try:
        # Bytes, not text: csv wants line ends as they are, since a cell in quotes may hold one. Excel writes the mark.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected CSV in UTF-8, found byte 0x{error.object[error.start]:02x}") from None
    if "\0" in text:
        raise InputError(f"{path}: expected CSV, found a NUL character")
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey=None, restval="")
    try:
        header = reader.fieldnames = [_plain(name) for name in reader.fieldnames or ()]
        rows = []
        for row in reader:
            # Popped: csv puts a row's surplus cells, a list, beside its texts. Commas alone are what spreadsheets add.
            beyond = ",".join(row.pop(None, None) or ())
            if beyond.strip(",") and not any_length:
                raise InputError(
                    f"{path}, line {reader.line_num}: expected {len(header)} cells as in the header, found {beyond!r} "
                    "after them; quote cells that hold a comma"
                )
            cells = {name: _plain(cell) for name, cell in row.items()} | ({BEYOND: beyond} if beyond else {})
            if any(cell.strip(",") for cell in cells.values()):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: expected CSV: {error}") from None
    if any(column not in header for column in columns):
        expected = " and ".join([", ".join(columns[:-1]), columns[-1]]) if len(columns) > 1 else columns[0]
        marks = {";": "semicolons", "\t": "tabs"}
        separated = next((word for mark, word in marks.items() if mark in "".join(header)), None)
        advice = f"; its cells are separated by {separated}: save it with commas" if separated else ""
        raise InputError(f"{path}: expected the columns {expected}, found {', '.join(header) or 'none'}{advice}")
    twice = next((column for column in columns if header.count(column) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: expected the column {twice} once, found it {header.count(twice)} times")
    return rows


# What spreadsheets take for the beginning of a formula, after any number of our apostrophes.
_FORMULA = re.compile(r"'*[=+\-@\t\r].", re.DOTALL)


def _guarded(cell: object) -> object:
    """A text that spreadsheets would run is written with an apostrophe before it, which :func:`_plain` takes away."""
    if not isinstance(cell, str) or not _FORMULA.match(cell):
        return cell
    try:
        float(cell)  # -1.5 begins as a formula does, but is a number that others must read
    except ValueError:
        return f"'{cell}"
    return cell


def _plain(cell: _Cell) -> _Cell | str:
    return cell[1:] if isinstance(cell, str) and cell[:1] == "'" and _FORMULA.match(cell) else cell


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file with a header, in UTF-8 and with one newline character per row on every system.

    Texts that a spreadsheet would run as a formula, such as a case called ``=cmd``, get an apostrophe before them;
    :func:`read_table` takes it away.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_guarded, columns))
        writer.writerows(map(_guarded, row) for row in rows)
