"""CSV files of users: read, or refused with the file and what is wrong with it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.tables import BEYOND, numbered_rows, read_table, write_table


def test_rows_by_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffcase,who\r\na,"x, é"\r\nb\r\n'.encode())
    assert read_table(path, ("case",)) == [{"case": "a", "who": "x, é"}, {"case": "b", "who": ""}]


def test_rows_of_empty_cells_are_none_and_lines_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('case,who\n,\n\n"a\nb",x\nc,y\n,,,\n,,\n')
    assert numbered_rows(path) == [(5, {"case": "a\nb", "who": "x"}), (6, {"case": "c", "who": "y"})]
    assert [row["who"] for row in read_table(path)] == ["x", "y"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"case\n\xe9\n", r"t\.csv: expected CSV in UTF-8, found byte 0xe9"),
        (b"case\na\0\n", r"t\.csv: expected CSV, found a NUL character"),
        (b"case\n" + b"a" * 200_000, r"t\.csv, line \d: expected CSV: field larger than field limit"),
        (b"", r"t\.csv: expected the columns case and patient, found none"),
        (b"case,who\n", r"t\.csv: expected the columns case and patient, found case, who$"),
        (b"case;who\n", r"t\.csv: expected the columns case and patient, found case, who$"),
        (b"case;patient\na;b;c\n", r"line 2: expected 2 cells as in the header, found 'c' after them; .* a semicolon$"),
        (b"case,patient\na,b,c\n", r"line 2: expected 2 cells as in the header, found 'c' after them; quote cells"),
        (b"case,patient,case\na,b,c\n", r"t\.csv: expected the column case once, found it 2 times"),
        (b"sep=;\r\ncase;patient\r\na;b;c\r\n", r"line 3: expected 2 cells as in the header, found 'c' after them"),
    ],
)
def test_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "t.csv", ("case", "patient"))
    with pytest.raises(InputError, match="file not found: "):
        read_table(tmp_path / "none.csv")


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("columns", [(), ("case",), ("case", "score")])
def test_tables_as_spreadsheets_elsewhere_write_them(tmp_path: Path, separator: str, columns: list[str]) -> None:
    rows = 'case;score;said\r\n"a;b";0,5;"x, ""é"""\r\n'.replace(";", separator)
    wanted = [{"case": f"a{separator}b", "score": "0,5", "said": 'x, "é"'}]
    for before in ("", "\ufeff", f"sep={separator}\r\n"):
        (tmp_path / "t.csv").write_bytes((before + rows).encode())
        assert read_table(tmp_path / "t.csv", columns) == wanted


def test_a_comma_table_with_semicolons_in_its_cells(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("case,said;aloud;twice\na,x;y\n")
    assert read_table(tmp_path / "t.csv") == [{"case": "a", "said;aloud;twice": "x;y"}]


def test_cells_beyond_the_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('case,who\na,x,,\nb,"y\nz",1,5\n')
    kept = [{"case": "a", "who": "x", BEYOND: ","}, {"case": "b", "who": "y\nz", BEYOND: "1,5"}]
    assert read_table(path, ("case",), any_length=True) == kept
    path.write_text("case,who\na,x,,\n,,,,\n")
    assert [row["who"] for row in read_table(path)] == ["x"]


def test_a_written_table_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_table(path, ["case", "n"], [["a,b", 1], ["ü", None]])
    assert path.read_bytes() == 'case,n\n"a,b",1\nü,\n'.encode()
    assert read_table(path) == [{"case": "a,b", "n": "1"}, {"case": "ü", "n": ""}]


FORMULAS = ["=cmd|' /C calc'!A0", "+a", "-a", "@SUM(A1)", "'=a", "''-a", "\t=a", "=\n"]


def test_spreadsheets_run_no_cell_and_it_is_read_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [[cell, "-1.5"] for cell in FORMULAS]
    write_table(path, ["=name", "value"], rows)
    with path.open(newline="") as file:
        written = [row[0] for row in csv.reader(file)]
    assert written == [f"'{cell}" for cell in ["=name", *FORMULAS]]
    assert [[row["=name"], row["value"]] for row in read_table(path)] == rows


@given(st.text(st.characters(blacklist_characters="\0\r", blacklist_categories=["Cs"])))
def test_any_text_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, cell: str) -> None:
    path = tmp_path_factory.mktemp("table") / "a.csv"
    write_table(path, ["a", "b"], [[cell, "x"]])
    assert read_table(path) == [{"a": cell, "b": "x"}]


def test_numbers_and_signs_are_written_as_they_are(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", ["a", "b", "c", "d"], [["-", "-1e-5", "+0.5", -3]])
    assert (tmp_path / "a.csv").read_bytes() == b"a,b,c,d\n-,-1e-5,+0.5,-3\n"
