"""The curves of a training."""

from pathlib import Path

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
