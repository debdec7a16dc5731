"""The check of preprocessed labels at the start of a training."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.dataset_json import LabelScheme
from nnunet_lopsided.trainers.instances import WithInstances
from nnunet_lopsided.trainers.training_labels import check_consecutive, count_labels
from tests.trainers.test_trainers import build, one_process  # noqa: F401 - a fixture that is always used

BINARY = LabelScheme({"lesion": (1,)}, None, has_regions=False)


def dataset(folder: Path | str = "", **labels: list[int]) -> Any:
    """Cases of one row of voxels each."""
    arrays = {case: np.array(values, np.int16)[None, None, None] for case, values in labels.items()}
    return SimpleNamespace(
        identifiers=list(arrays), load_case=lambda case: (None, arrays[case], None, {}), source_folder=str(folder)
    )


def test_counts_by_hand() -> None:
    counts = count_labels(dataset(a=[0, 1, 1, -1], b=[0, 0, 0, 0]), BINARY)
    assert counts == {"a": Counter({0: 2, 1: 2}), "b": Counter({0: 4})}
    with_ignore = LabelScheme({"lesion": (1,)}, 2, has_regions=False)
    assert count_labels(dataset(a=[0, 2, 2, 1]), with_ignore) == {"a": Counter({0: 1, 1: 1, 2: 2})}


@pytest.mark.parametrize("value", [2, 255, -1024, 300])
def test_an_undeclared_value_names_case_file_value_and_what_to_do(tmp_path: Path, value: int) -> None:
    (tmp_path / "b_seg.b2nd").touch()
    with pytest.raises(InputError) as caught:
        count_labels(dataset(tmp_path, a=[0, 1], b=[0, value, value, -1]), BINARY)
    message = str(caught.value)
    assert f"case b: {tmp_path / 'b_seg.b2nd'}: unknown label value {value} in 2 voxels, expected 0, 1" in message
    assert "declare the value in dataset.json, and preprocess again" in message


def test_a_fraction_is_no_label() -> None:
    half = SimpleNamespace(identifiers=["a"], load_case=lambda case: (None, np.full((1, 2, 2), 0.5), None, {}))
    with pytest.raises(InputError, match=r"case a: a: unknown label value 0\.5"):
        count_labels(half, BINARY)


@pytest.mark.parametrize("of", ["train", "val"])
@pytest.mark.parametrize("name", ["nnUNetTrainerLopsided", "nnUNetTrainer25D", "nnUNetTrainerInverseWeightingCE"])
def test_a_training_on_an_undeclared_value_does_not_start(
    tiny: Any, name: str, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build(tiny, name)
    trainer.initialize()
    case = trainer.do_split()[of == "val"][0]
    of_nnunet = trainer.dataset_class

    class WithAWrongValue(of_nnunet):  # type: ignore[misc, valid-type]
        def load_case(self, identifier: str) -> Any:
            image, label, *others = super().load_case(identifier)
            label = np.array(label[:])
            if identifier == case:
                label[0, 0, 0, :3] = 2
            return image, label, *others

    trainer.dataset_class = WithAWrongValue
    with pytest.raises(InputError, match=rf"case {case}: .*{case}.*: unknown label value 2 in 3 voxels, expected 0, 1"):
        trainer.on_train_start()
    # No worker was started.
    assert trainer.dataloader_train is None
    monkeypatch.setattr("sys.argv", ["/bin/nnUNetv2_train"])
    with pytest.raises(SystemExit) as ended:
        trainer.on_train_start()
    assert ended.value.code == 2


def test_label_values_with_a_gap_are_not_trained_on() -> None:
    check_consecutive(LabelScheme({"a": (2,), "b": (1,)}, 3, has_regions=False), Path("d"))
    check_consecutive(LabelScheme({"whole": (1, 5), "core": (5,)}, None, has_regions=True), Path("d"))
    with_gaps: list[dict[str, tuple[int, ...]]] = [{"a": (2,)}, {"a": (1,), "b": (4,)}]
    for values in with_gaps:
        with pytest.raises(InputError, match="d: expected label values without a gap to train on, found 0, "):
            check_consecutive(LabelScheme(values, None, has_regions=False), Path("d"))


def test_a_fold_that_leaks_is_not_trained(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(tiny, "nnUNetTrainerLopsided")
    train, val = trainer.do_split()
    file = tiny.preprocessed / "splits_final.json"
    content = file.read_text()
    try:
        for other, message in (
            ([{"train": [*train, val[0]], "val": val}], f"fold 0 trains on case {val[0]} and validates on it"),
            ([{"train": train, "val": [f"{val[0]}.nii.gz"]}], "which is none of the training cases"),
            ([{"train": train, "val": []}], "expected the cases of fold 0, found none"),
            ({"train": train}, "expected a list, found a mapping"),
        ):
            file.write_text(json.dumps(other))
            with pytest.raises(InputError, match=message):
                trainer.do_split()
        monkeypatch.setattr("sys.argv", ["/bin/nnUNetv2_train"])
        with pytest.raises(SystemExit) as ended:
            trainer.do_split()
        assert ended.value.code == 2
    finally:
        file.write_text(content)
    assert trainer.do_split() == (train, val)


@pytest.mark.parametrize("value", [2, 255])
def test_inverse_weighting_takes_no_label_for_another(value: int) -> None:
    with pytest.raises(InputError, match=rf"case a: its preprocessed labels hold {value}, expected at most 1"):
        WithInstances(dataset(a=[0, 1, value]), 2, None).load_case("a")
