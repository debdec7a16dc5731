"""nnunet_lopsided.demo.commands: what is run, in which order, and that it is the recipe that audits."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest

from nnunet_lopsided.demo.arms import FOLDS, arms_of, missing_in_words, trainings
from nnunet_lopsided.demo.commands import Commands
from nnunet_lopsided.demo.settings import DemoSettings
from nnunet_lopsided.demo.steps import Step

BUDGET = "3epochs_7iters_seed5"
SETTINGS = DemoSettings(epochs=3, iterations=7, seed=5)


def commands(folder: Path, settings: DemoSettings = SETTINGS, parent: str = "2d") -> Commands:
    """Of a demo whose two datasets are there."""
    for name in ("Dataset901_Full", "Dataset902_Censored"):
        raw = folder / "nnUNet_raw" / name
        raw.mkdir(parents=True)
        content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
        (raw / "dataset.json").write_text(json.dumps({**content, "numTraining": 0}))
    return Commands(
        settings=settings, folder=folder, arms=arms_of(settings), parent=parent, configuration=f"{parent}_small"
    )


def words(step: Step) -> str:
    return " ".join(step.command)


def test_the_recipe_and_nnunets_loss_differ_in_the_trainer_alone(nnunet_paths: Path) -> None:
    demo = commands(nnunet_paths)
    steps = {(arm.name, fold): list(demo.training(arm, fold)) for arm, fold in trainings(demo.arms)}
    assert list(steps) == [("full", 0), *((name, fold) for name in ("censored", "lopsided") for fold in (0, 1))]
    full, plain, recipe = (words(steps[name, 0][0]) for name in ("full", "censored", "lopsided"))
    assert plain == f"nnUNetv2_train 902 2d_small 0 -tr nnUNetTrainer25D_prior_{BUDGET} -device cpu --c"
    assert full == plain.replace("902", "901")
    assert recipe == plain.replace("25D_prior", "Lopsided") + " --npz", "the audit needs probabilities"
    assert [step.name for step in steps["lopsided", 1]] == [
        "train-lopsided-1",
        "predict-lopsided-1",
        "evaluate-lopsided-1",
    ]
    assert "--profile lesions" in words(steps["full", 0][2])


def test_all_steps_are_counted_and_the_audit_follows_its_trainings(nnunet_paths: Path) -> None:
    demo = commands(nnunet_paths)
    lanes = [list(lane) for lane in demo.lanes]
    assert [
        [step.name for step in lane if "evaluate" not in step.name and "predict" not in step.name] for lane in lanes
    ] == [
        ["train-lopsided-0", "train-lopsided-1", "audit", "score"],
        ["train-full-0", "train-censored-0"],
        ["train-censored-1"],
    ]
    steps = [*demo.data, *demo.planning, *chain(*lanes), *(demo.compare(fold) for fold in FOLDS)]
    assert len({step.name for step in steps}) == len(steps) == demo.n_steps
    assert all(step.command[0].startswith(("lopsided-", "nnUNetv2_", "python")) for step in steps)


def test_an_audit_of_both_folds_of_the_recipe_and_a_comparison_of_each(nnunet_paths: Path) -> None:
    demo = commands(nnunet_paths)
    audit, score = demo.audit
    assert f"-d 902 -tr nnUNetTrainerLopsided_{BUDGET} -c 2d_small" in words(audit)
    assert "--truth 901" in words(score)
    of_fold = [words(demo.compare(fold)) for fold in (0, 1)]
    assert [[f"evaluation/{arm.of_fold(i)} " in of_fold[i] for arm in demo.arms] for i in (0, 1)] == [
        [True, True, True],
        [False, True, True],
    ]
    assert "--images" in demo.compare(0).command


def test_a_checkpoint_that_a_kill_left_half_written_is_set_aside(nnunet_paths: Path) -> None:
    demo = commands(nnunet_paths)
    folder = demo.recipe.fold_folder("2d_small", 0)
    folder.mkdir(parents=True)
    (folder / "checkpoint_latest.pth").write_bytes(b"half")
    next(demo.training(demo.recipe, 0))
    assert [path.name for path in folder.iterdir()] == ["checkpoint_latest.pth.damaged"]


def test_own_data_are_neither_drawn_nor_given_another_fingerprint(nnunet_paths: Path) -> None:
    own = commands(nnunet_paths, DemoSettings(data="/scans", device="cuda"), parent="3d_fullres")
    assert [step.name for step in own.data] == ["censor"]
    assert words(own.planning[0]) == "nnUNetv2_plan_and_preprocess -d 901 -c 3d_fullres -np 2 -npfp 2"
    assert next(own.training(own.recipe, 0)).environment == (), "a GPU waits for loading processes"
    assert "--image-channel 0" in words(own.compare(0))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("stochastic", "30% of lesions missing at random"), ("size", "30% of lesions missing by size, the smallest")],
)
def test_what_is_missing(mode: str, expected: str) -> None:
    assert missing_in_words(DemoSettings(mode=mode, rate=0.3)) == expected
