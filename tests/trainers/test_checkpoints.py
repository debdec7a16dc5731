"""Checkpoints that cannot be read, and what they say about our trainers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_lopsided import trainers
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.trainers.base import LesionTrainer
from nnunet_lopsided.trainers.checkpoints import named_if_damaged
from tests.trainers.test_trainers import build, one_process  # noqa: F401 - a fixture that is always used


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "other", "other network"])
def test_a_damaged_checkpoint_is_named(empty_results: Any, tmp_path: Path, damage: str) -> None:
    trainer = build(empty_results)
    trainer.initialize()
    path = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not a checkpoint")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "other":
        torch.save({"weights": {}}, path)
    else:
        content = torch.load(path, weights_only=False)
        content["network_weights"] = {"layer": torch.zeros(1)}
        torch.save(content, path)
    with pytest.raises(InputError, match=r"checkpoint .*checkpoint_latest\.pth: cannot be continued or predicted with"):
        build(empty_results, resume=True).load_checkpoint(str(path))


def test_a_gpu_that_fails_is_no_damaged_file() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), named_if_damaged("a.pth"):
        raise RuntimeError("CUDA error: out of memory")
    with pytest.raises(pickle.UnpicklingError), named_if_damaged({}):
        raise pickle.UnpicklingError("of a checkpoint in memory")


def test_every_class_says_what_was_before_its_own_hyperparameters() -> None:
    assert LesionTrainer.before_there_was == {"seed": None}
    assert trainers.nnUNetTrainerClassWeighted.before_there_was == {"seed": None}
    expected = {
        "seed": None,
        "soft_targets": False,
        "paste": False,
        "gamma": 0.0,
        "gamma_from": 10.0,
        "look_back": False,
        "margin": 0,
        "cross_entropy": "mean",
    }
    for name in ("nnUNetTrainerLopsided", "nnUNetTrainerLopsidedPaper", "nnUNetTrainerLopsidedInverseWeighting"):
        assert getattr(trainers, name).before_there_was == expected
    for name in trainers.base_trainers():
        trainer = getattr(trainers, name)
        assert set(trainer.before_there_was) <= set(trainer.hyperparameters), name
