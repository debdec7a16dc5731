"""Predictions of a folder by a network that stands in for nnU-Net's. What nnU-Net gives: tests/test_end_to_end.py."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet import predicting
from nnunet_lopsided.nnunet.network import Scan
from nnunet_lopsided.nnunet.predicting import Request, predict, trained_model

MODEL = "Dataset501_Toy/nnUNetTrainer__nnUNetPlans__2d"


class Toy:
    """A network that says 0.1 times the factor, and notes what it was asked."""

    asked: list[tuple[str, float, bool]]
    plans: dict[str, object] = {"plans_name": "toy"}  # noqa: RUF012 (as the other)
    dataset_json: dict[str, object] = {"file_ending": ".nii.gz"}  # noqa: RUF012

    def __init__(self, model: Path, folds: Sequence[int | str], *_: object, **__: object) -> None:
        assert (model.name, folds) == (Path(MODEL).name, (0,))

    def read(self, images: Sequence[Path]) -> Scan:
        if images[0].read_text() == "broken":
            raise RuntimeError("Exception thrown in ReadImage\nITK ERROR: not a gzip file\n")
        return Scan(np.zeros((2, 1, 1, 1)), {"case": images[0].name[:-12]})

    def probabilities(self, scan: Scan, factor: float = 1.0, *, mirrored: bool = False) -> NDArray[Any]:
        self.asked.append((str(scan.properties["case"]), factor, mirrored))
        return np.full((2, 1, 1, 1), 0.125 * factor, np.float32)

    def label_map(self, probabilities: NDArray[Any]) -> NDArray[Any]:
        return (probabilities[1] > 0.2).astype(np.uint8)

    def write_label_map(self, labels: NDArray[Any], path: Path, scan: Scan) -> None:
        path.write_text(f"{scan.properties['case']} {labels.ravel().tolist()}")


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """Three cases to be predicted magnified twice and three times."""
    Toy.asked = []
    monkeypatch.setattr(predicting, "Network", Toy)
    model = tmp_path / "results" / MODEL
    (model / "fold_0").mkdir(parents=True)
    (model / "fold_0" / "checkpoint_final.pth").touch()
    dataset = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "lesion": 1}}
    (model / "dataset.json").write_text(json.dumps(dataset | {"file_ending": ".nii.gz"}))
    (model / "plans.json").write_text(json.dumps({"configurations": {"2d": {}, "late": {"previous_stage": "2d"}}}))
    (tmp_path / "images").mkdir()
    for case in "abc":
        for channel in range(2):
            (tmp_path / "images" / f"{case}_000{channel}.nii.gz").touch()
    return Request(
        images=str(tmp_path / "images"),
        output=str(tmp_path / "out"),
        model=model,
        configuration="2d",
        folds=(0,),
        checkpoint="checkpoint_final.pth",
        step_size=0.5,
        mirroring=True,
        verbose=False,
        save_probabilities=False,
        continue_prediction=False,
        n_preprocessing=1,
        n_export=1,
        previous_stage=None,
        n_parts=1,
        part=0,
        device="cpu",
        on_device=True,
        progress=False,
        magnify=(2.0, 3.0),
    )


def files(request_: Request) -> list[str]:
    return sorted(path.name for path in Path(request_.output).iterdir())


RECORDS = ["dataset.json", "plans.json", "predict_from_raw_data_args.json"]


def test_what_is_written(request_: Request) -> None:
    assert predict(replace(request_, save_probabilities=True), []) == 3
    assert files(request_) == sorted([*(f"{c}.{end}" for c in "abc" for end in ("nii.gz", "npz", "pkl")), *RECORDS])
    # Only the image as it is is mirrored.
    assert Toy.asked == [(case, x, x == 1) for case in "abc" for x in (1.0, 2.0, 3.0)]
    output = Path(request_.output)
    assert (output / "a.nii.gz").read_text() == "a [1]"
    assert np.load(output / "a.npz")["probabilities"].ravel().tolist() == [0.25, 0.25]
    record = json.loads((output / "predict_from_raw_data_args.json").read_text())
    assert (record["magnify"], record["overwrite"], record["num_parts"]) == ([2, 3], True, 1)
    assert json.loads((output / "plans.json").read_text()) == Toy.plans


def test_without_mirroring(request_: Request) -> None:
    predict(replace(request_, mirroring=False), [])
    assert not any(mirrored for _, _, mirrored in Toy.asked)


def test_parts(request_: Request) -> None:
    assert predict(replace(request_, n_parts=2, part=1), []) == 1
    assert files(request_) == ["b.nii.gz", *RECORDS]
    assert predict(replace(request_, n_parts=2, part=0), []) == 2
    assert files(request_) == ["a.nii.gz", "b.nii.gz", "c.nii.gz", *RECORDS]
    assert predict(replace(request_, n_parts=5, part=4), []) == 0


def test_a_continued_prediction_makes_what_is_not_there(request_: Request) -> None:
    request_ = replace(request_, save_probabilities=True)
    predict(request_, [])
    output = Path(request_.output)
    (output / "a.nii.gz").unlink()
    (output / "c.npz").write_bytes((output / "c.npz").read_bytes()[:-40])  # cut off
    Toy.asked = []
    predict(replace(request_, continue_prediction=True), [])
    assert {case for case, _, _ in Toy.asked} == {"a", "c"}


@pytest.mark.parametrize(
    ("before", "after", "found", "expected"),
    [
        ((2.0, 3.0), (2.0,), "with --magnify 2 3", "with --magnify 2"),
        ((2.0,), (), "with --magnify 2", "without --magnify"),
    ],
)
def test_magnifications_are_not_mixed(
    request_: Request, before: tuple[float, ...], after: tuple[float, ...], found: str, expected: str
) -> None:
    predict(replace(request_, magnify=before), [])
    message = f"{request_.output}/a.nii.gz was predicted {found}, expected {expected}; predict into another folder"
    with pytest.raises(InputError, match=f"^--continue_prediction: {re.escape(message)}$"):
        predict(replace(request_, magnify=after, continue_prediction=True), [])


def test_predictions_as_nnunet_left_them_are_not_mixed_with_magnified_ones(request_: Request) -> None:
    Path(request_.output).mkdir()
    (Path(request_.output) / "b.nii.gz").touch()
    with pytest.raises(InputError, match="was predicted without --magnify, expected with --magnify 2 3"):
        predict(replace(request_, continue_prediction=True), [])


@pytest.mark.parametrize("magnify", [(), (3.0,)])
def test_a_part_is_predicted_as_the_others(
    request_: Request, magnify: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is of the folder: a part predicted otherwise would change what it says of all."""
    monkeypatch.setattr(predicting, "_nnunet_predicts", lambda arguments: pytest.fail("it was called"))
    first = replace(request_, n_parts=2, part=0, magnify=(2.0,))
    predict(first, [])
    before = {path: path.read_bytes() for path in Path(request_.output).iterdir()}
    with pytest.raises(InputError, match=r"a\.nii\.gz was predicted with --magnify 2, expected with.*another folder"):
        predict(replace(first, part=1, magnify=magnify), [])
    assert {path: path.read_bytes() for path in Path(request_.output).iterdir()} == before
    for name in ("a", "c"):  # nothing of part 0 is done yet
        (Path(request_.output) / f"{name}.nii.gz").unlink()
    with pytest.raises(InputError, match=r"what .*args\.json is of was predicted with --magnify 2"):
        predict(replace(first, part=1, magnify=magnify), [])
    predict(first, [])
    predict(replace(first, part=1), [])
    assert files(request_) == sorted([*(f"{c}.nii.gz" for c in "abc"), *RECORDS])


def test_other_images_into_one_folder_are_predicted_as_the_first(request_: Request) -> None:
    predict(request_, [])
    for path in Path(request_.images).glob("a_*"):
        path.unlink()
    with pytest.raises(InputError, match=r"a\.nii\.gz was predicted with --magnify 2 3, expected with --magnify 2;"):
        predict(replace(request_, magnify=(2.0,)), [])
    assert predict(request_, []) == 2


def test_an_interrupt_leaves_no_earlier_label_map_among_the_new(request_: Request) -> None:
    predict(replace(request_, magnify=(2.0,)), [])
    (Path(request_.images) / "b_0000.nii.gz").write_text("broken")
    with pytest.raises(InputError, match=r"case b: .*: nnU-Net cannot predict them: ITK ERROR: not a gzip file"):
        predict(request_, [])
    assert not (Path(request_.output) / "b.nii.gz").exists()
    (Path(request_.images) / "b_0000.nii.gz").write_text("")
    Toy.asked = []
    predict(replace(request_, continue_prediction=True), [])
    assert (Path(request_.output) / "b.nii.gz").is_file()
    assert "a" not in {case for case, _, _ in Toy.asked}


@pytest.mark.parametrize(("before", "after"), [((), (2.0,)), ((2.0,), (3.0,)), ((2.0,), ())])
def test_no_earlier_array_stays_beside_a_new_label_map(
    request_: Request, monkeypatch: pytest.MonkeyPatch, before: tuple[float, ...], after: tuple[float, ...]
) -> None:
    """The evaluation would take the array for the prediction."""
    monkeypatch.setattr("nnunetv2.inference.predict_from_raw_data.predict_entry_point", lambda: None)
    predict(replace(request_, magnify=before, save_probabilities=True), [])
    output = Path(request_.output)
    for name in ("a.npz", "a.pkl", "d.npz"):  # d: of another folder of images
        (output / name).touch()
    predict(replace(request_, magnify=after), [])
    assert [name for name in files(request_) if name.endswith((".npz", ".pkl"))] == ["d.npz"]


def test_nothing_half_written_is_left(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Toy, labels: NDArray[Any], path: Path, scan: Scan) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Toy, "write_label_map", full)
    with pytest.raises(OSError, match="No space left"):
        predict(request_, [])
    assert files(request_) == RECORDS


def lacks_a_channel(request_: Request) -> None:
    (Path(request_.images) / "b_0000.nii.gz").unlink()


def lacks_images(request_: Request) -> None:
    for path in Path(request_.images).iterdir():
        path.unlink()


def lacks_its_plans(request_: Request) -> None:
    (request_.model / "plans.json").unlink()


@pytest.mark.parametrize(
    ("changes", "spoil", "message"),
    [
        ({"folds": (0, 3)}, None, r"fold_3/checkpoint_final.pth not found: -f and -chk .* is in fold_0$"),
        ({"checkpoint": "checkpoint_best.pth"}, None, "checkpoint_best.pth is in none$"),
        ({}, lacks_its_plans, "plans.json not found"),
        ({}, lacks_a_channel, r"case b: expected 2 channel images, found _0001: _0000 \(T1\) is missing"),
        ({}, lacks_images, "images: expected images CASE_0000.nii.gz, found none"),
        ({"images": "/nowhere"}, None, "folder not found: /nowhere"),
        ({"configuration": "late"}, None, "^--magnify: late is a cascade, .*; predict it without --magnify"),
        ({"configuration": "late", "magnify": ()}, None, "late is a cascade: -prev_stage_predictions FOLDER says"),
        ({"previous_stage": "/nowhere"}, None, "-prev_stage_predictions: folder not found: /nowhere"),
    ],
)
@pytest.mark.parametrize("magnify", [(), (2.0,)])
def test_bad_input(
    request_: Request,
    changes: dict[str, object],
    spoil: Callable[[Request], None] | None,
    message: str,
    magnify: tuple[float, ...],
) -> None:
    if spoil is not None:
        spoil(request_)
    if changes.get("configuration") != "late":
        request_ = replace(request_, magnify=magnify)
    with pytest.raises(InputError, match=message):
        predict(replace(request_, **changes), [])  # type: ignore[arg-type]
    assert Toy.asked == []


def test_without_magnification_nnunets_command_predicts(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    called, own = [], sys.argv

    def entry_point() -> None:
        called.append(sys.argv)
        if len(called) == 2:
            raise RuntimeError("Background workers died.\nLook further up!")

    monkeypatch.setattr("nnunetv2.inference.predict_from_raw_data.predict_entry_point", entry_point)
    predict(replace(request_, magnify=()), ["-i", "x"])
    with pytest.raises(InputError, match=r"^nnUNetv2_predict: Look further up!$"):
        predict(replace(request_, magnify=()), ["-i", "x"])
    assert called == [["nnUNetv2_predict", "-i", "x"]] * 2
    assert sys.argv is own
    assert Toy.asked == []


def test_the_folder_of_a_model(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    results = request_.model.parents[1]
    monkeypatch.setenv("nnUNet_results", str(results))
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(variable, raising=False)
    for dataset in ("501", "Dataset501_Toy"):
        assert trained_model(dataset, "nnUNetTrainer", "nnUNetPlans", "2d") == request_.model
    with pytest.raises(InputError, match=r"^-d 502: expected one dataset of this id .*, found none$"):
        trained_model("502", "nnUNetTrainer", "nnUNetPlans", "2d")
    (results / "Dataset501_Other").mkdir()
    with pytest.raises(InputError, match=r"found Dataset501_Other, Dataset501_Toy$"):
        trained_model("501", "nnUNetTrainer", "nnUNetPlans", "2d")
    with pytest.raises(InputError, match=r"-tr, -p and -c name it; there are nnUNetTrainer__nnUNetPlans__2d$"):
        trained_model("Dataset501_Toy", "nnUNetTrainer", "nnUNetPlans", "3d_fullres")
