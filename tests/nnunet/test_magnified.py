"""Predictions of magnified images: what is kept, made and made again. What nnU-Net gives: tests/test_end_to_end.py."""

import json
import re
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.locks import locked
from nnunet_lopsided.nnunet import magnified
from nnunet_lopsided.nnunet import network as network_module
from nnunet_lopsided.nnunet.magnified import predict_magnified
from nnunet_lopsided.nnunet.raw import Case

HINT = "; --magnify without a number audits without them"
CASES = [Case(name, (), None) for name in ("a", "b")]


@pytest.fixture
def fold(tmp_path, monkeypatch):
    """A fold folder, and the predictions made in it."""
    folder = tmp_path / "fold_3"
    folder.mkdir()
    (folder / "checkpoint.pth").write_bytes(b"weights")
    made = []

    class Network:
        def __init__(self, fold_folder, checkpoint, device, *, torch_resampling, of):
            self.torch_resampling = torch_resampling
            assert (fold_folder, checkpoint, device) == (folder, "checkpoint.pth", "cpu")

        def predict(self, case, factor, array):
            made.append(
                (case.name, factor, "by torch") if getattr(self, "torch_resampling", False) else (case.name, factor)
            )
            np.savez_compressed(array, probabilities=np.zeros((2, 1, 1, 1)))

    monkeypatch.setattr(magnified, "_Network", Network)
    return folder, made


def predict(folder, factor, cases=CASES):
    found = predict_magnified(folder, "checkpoint.pth", [factor], cases, "cpu", n_workers=1)
    return {name: array for name, (array,) in found.items()}


def test_what_is_there_is_not_made_again(fold):
    folder, made = fold
    arrays = predict(folder, 1.5)
    assert arrays == {name: folder / "validation_x1.5" / f"{name}.npz" for name in "ab"}
    assert made == [("a", 1.5), ("b", 1.5)]
    arrays["b"].unlink()  # where it was interrupted
    assert predict(folder, 1.5) == arrays
    assert made == [("a", 1.5), ("b", 1.5), ("b", 1.5)]
    predict(folder, 2, CASES[:1])
    assert made[3:] == [("a", 2)]
    assert (folder / "validation_x2" / "a.npz").is_file()


def test_a_network_is_read_once(fold, monkeypatch):
    folder, made = fold
    read = []
    monkeypatch.setattr(magnified._Network, "__init__", lambda *arguments, **_: read.append(arguments[1:]))
    found = predict_magnified(folder, "checkpoint.pth", [1.5, 2], CASES, "cpu", n_workers=1)
    assert found == {name: [folder / f"validation_x{x}" / f"{name}.npz" for x in ("1.5", "2")] for name in "ab"}
    assert made == [("a", 1.5), ("b", 1.5), ("a", 2), ("b", 2)]
    assert read == [(folder, "checkpoint.pth", "cpu")]
    predict_magnified(folder, "checkpoint.pth", [1.5, 2], CASES, "cpu", n_workers=1)
    assert len(read) == 1


def test_a_model_that_was_trained_again_predicts_again(fold):
    folder, made = fold
    predict(folder, 1.5)
    (folder / "validation_x1.5" / "c.npz").write_bytes(b"of the earlier model")
    (folder / "checkpoint.pth").write_bytes(b"other weights")
    predict(folder, 1.5)
    assert made == [("a", 1.5), ("b", 1.5)] * 2
    assert sorted(path.name for path in (folder / "validation_x1.5").iterdir()) == ["a.npz", "b.npz", "magnified.json"]
    digest = json.loads((folder / "validation_x1.5" / "magnified.json").read_text())["checkpoint_sha256"]
    assert digest == "53959fa102f31e51d8d1ee12fe89c2fd7cd556dbaf2c6102046d195a504850a0"


def test_what_was_resampled_otherwise_is_made_again(fold):
    folder, made = fold
    predict(folder, 1.5, CASES[:1])
    for _ in range(2):
        predict_magnified(folder, "checkpoint.pth", [1.5], CASES[:1], "cpu", n_workers=1, torch_resampling=True)
    assert made == [("a", 1.5), ("a", 1.5, "by torch")]
    assert json.loads((folder / "validation_x1.5" / "magnified.json").read_text())["torch_resampling"] is True
    predict(folder, 1.5, CASES[:1])
    assert made[2:] == [("a", 1.5)]
    assert "torch_resampling" not in json.loads((folder / "validation_x1.5" / "magnified.json").read_text())


def test_a_folder_of_unknown_origin_is_left_alone(fold):
    folder, made = fold
    (folder / "validation_x1.5").mkdir()
    (folder / "validation_x1.5" / "a.npz").write_bytes(b"somebody's")
    with pytest.raises(InputError, match=r"found other files and no magnified\.json"):
        predict(folder, 1.5)
    assert (folder / "validation_x1.5" / "a.npz").read_bytes() == b"somebody's"
    assert made == []
    (folder / "validation_x1.5" / "a.npz").unlink()  # an empty one is what an interrupted audit may leave
    predict(folder, 1.5)
    assert made == [("a", 1.5), ("b", 1.5)]


def test_an_archive_that_was_cut_off_is_made_again(fold):
    folder, made = fold
    path = predict(folder, 2)["b"]
    path.write_bytes(path.read_bytes()[:-40])
    predict(folder, 2)
    assert made == [("a", 2), ("b", 2), ("b", 2)]


def test_two_at_once(fold):
    folder, made = fold
    with locked(folder), pytest.raises(InputError, match="another process is writing"):
        predict(folder, 2)
    assert made == []


def test_a_folder_that_cannot_be_written(fold, monkeypatch):
    folder, _ = fold

    def refuses(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(magnified, "write_json", refuses)
    message = f"{folder / 'validation_x2'}: cannot predict magnified images: [Errno 13] Permission denied{HINT}"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        predict(folder, 2)


@pytest.fixture
def network():
    """One whose predictor says what SimpleITK says of a damaged file."""

    class Predictor:
        class plans_manager:
            @staticmethod
            def image_reader_writer_class():
                raise RuntimeError("Exception thrown in ReadImage: file.cxx:99:\nITK ERROR: not a gzip file\n")

    found = magnified._Network.__new__(magnified._Network)
    found._predictor, found._of = Predictor(), magnified.OtherImages()
    return found


def test_what_nnunet_says_of_a_case_is_one_line(network, tmp_path):
    message = f"case a: x_0000.png: cannot predict magnified images: ITK ERROR: not a gzip file{HINT}"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        network.predict(Case("a", (Path("x_0000.png"),), None), 2, tmp_path / "a.npz")


def test_nothing_is_left_of_an_array_that_cannot_be_written(network, tmp_path, monkeypatch):
    def full(path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(network, "read", lambda _: None)
    monkeypatch.setattr(network, "probabilities", lambda *_, **__: np.zeros(1))
    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        network.predict(CASES[0], 2, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_checkpoint(tmp_path):
    folder = tmp_path / "fold_3"
    folder.mkdir()
    (folder / "checkpoint.pth").write_bytes(b"weights")
    for name in ("dataset.json", "plans.json"):
        (tmp_path / name).write_text("{}")
    message = f"^{re.escape(str(folder / 'checkpoint.pth'))}: cannot predict magnified images: "
    with pytest.raises(InputError, match=message):
        predict(folder, 2)


def test_a_checkpoint_as_nnunet_writes_it_needs_no_pickle_of_objects(tmp_path):
    import torch

    path, numbers = tmp_path / "c.pth", {"loss": [np.float64(0.5), np.float32(2)], "best": np.float64(1)}
    torch.save({"network_weights": {"w": torch.ones(2)}, "init_args": {"device": torch.device("cpu")}, **numbers}, path)
    with network_module._tensors_and_numbers_only():
        loaded = torch.load(path, weights_only=False)
    assert (loaded["loss"], loaded["best"]) == ([0.5, 2], 1)
    torch.save({"where": Path("x")}, path)
    with network_module._tensors_and_numbers_only(), pytest.raises(UnpicklingError):
        torch.load(path, weights_only=False)
    assert torch.load(path, weights_only=False) == {"where": Path("x")}
