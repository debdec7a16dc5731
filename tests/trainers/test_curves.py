"""The curves of a training."""

from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.trainers import curves


def test_rows_are_added_and_those_of_an_interrupted_run_replaced(tmp_path: Path) -> None:
    for epoch, loss in enumerate((1.0, 0.5, 0.25)):
        curves.append_row(tmp_path, epoch, {"train_loss": loss, "flipped_background": None, "beta": 0.1})
    rows = curves.append_row(tmp_path, 1, {"train_loss": 0.4, "flipped_background": 0.01, "beta": 0.1})
    assert (tmp_path / curves.FILE).read_text().splitlines() == [
        "epoch,train_loss,flipped_background,beta",
        "0,1,,0.1",
        "1,0.4,0.01,0.1",
    ]
    curves.draw(tmp_path, rows)
    assert (tmp_path / curves.PICTURE).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == [curves.FILE, curves.PICTURE]


def test_every_column_is_drawn_over_the_epochs() -> None:
    rows = [
        {"epoch": "0", "train_loss": "0.9", "lesion_probability": "0.3", "gradient_norm": "7"},
        {"epoch": "3", "train_loss": "0.2", "lesion_probability": "", "gradient_norm": "4"},
        {"epoch": "5", "train_loss": "0.4", "lesion_probability": "0.8", "gradient_norm": ""},
    ]
    panels = curves.curve_figure(rows).axes
    drawn = {axes.get_title(): [np.asarray(line.get_xydata()).tolist() for line in axes.lines] for axes in panels}
    assert drawn == {
        "training loss": [[[0, 0.9], [3, 0.2], [5, 0.4]]],
        "fraction of background voxels the network calls lesion": [[]],
        "mean probability of labelled lesion voxels": [[[0, 0.3], [5, 0.8]]],
        "gradient norm before clipping": [[[0, 7], [3, 4]]],
    }
    assert {axes.get_xlabel() for axes in panels} == {"epoch"}


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"epoch;train_loss\n0;0,5\n1;0,4\n", []),
        (b"epoch,train_loss\n0,0.5\n1,four\n", ["0,0.5"]),
        (b"epoch,train_loss\n0,0.5\n1,0.4,spilled\n", ["0,0.5"]),
        (b"epoch,train_loss\n0.0,0.5\n", []),
        (b"epoch,train_loss\n0,nan\n", []),
        (b"\xff\xfee\x00p\x00o\x00c\x00h\x00", []),
        (b"", []),
        ("epoch,train_loss\n\u00b2,1\n".encode(), []),
    ],
)
def test_a_file_edited_in_a_spreadsheet_does_not_end_a_training(
    tmp_path: Path, content: bytes, kept: list[str]
) -> None:
    (tmp_path / curves.FILE).write_bytes(content)
    (tmp_path / "lopsided_curves.edited1.csv").write_text("an earlier one stays")
    told: list[str] = []
    rows = curves.append_row(tmp_path, 2, {"train_loss": 0.3}, told.append)
    curves.draw(tmp_path, rows)
    assert (tmp_path / curves.FILE).read_text().splitlines() == ["epoch,train_loss", *kept, "2,0.3"]
    assert (tmp_path / "lopsided_curves.edited2.csv").read_bytes() == content
    assert (tmp_path / "lopsided_curves.edited1.csv").read_text() == "an earlier one stays"
    (line,) = told
    assert curves.FILE in line
    assert "renamed to lopsided_curves.edited2.csv" in line


def test_a_byte_order_mark_and_empty_rows_are_read(tmp_path: Path) -> None:
    (tmp_path / curves.FILE).write_bytes(b"\xef\xbb\xbfepoch,train_loss\r\n0,0.5\r\n,\r\n\r\n")
    told: list[str] = []
    curves.append_row(tmp_path, 1, {"train_loss": 0.3}, told.append)
    assert (tmp_path / curves.FILE).read_text().splitlines() == ["epoch,train_loss", "0,0.5", "1,0.3"]
    assert not told
