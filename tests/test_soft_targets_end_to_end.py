"""Soft targets through the console commands: beliefs of 1 are the labels, beliefs of 0 are none."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_lopsided.dataset_conversion.phantom import write_phantom_dataset
from nnunet_lopsided.images import Image, read_image, write_image
from nnunet_lopsided.nnunet.fingerprint import write_fingerprint
from nnunet_lopsided.nnunet.raw import raw_dataset
from tests.console import run, train

pytestmark = pytest.mark.slow

PLAIN = "nnUNetTrainerLopsided_nopaste_dicefull_from0_seed3_1epochs_2iters"
SOFT = PLAIN.replace("_dicefull", "_dicefull_softtargets")
# Sampling and starting point depend on labels, and turned labels are not what turned beliefs are; here nothing does.
STILL = """
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunet_lopsided.trainers import nnUNetTrainerLopsided


class nnUNetTrainerStill(nnUNetTrainerLopsided):
    foreground_prior_bias = False
    paste = False
    seed, gamma_from, epochs, iterations_per_epoch = 3, 0, 1, 6

    def initialize(self):
        super().initialize()
        self.oversample_foreground_percent = 0



move = SpatialTransform.get_parameters
SpatialTransform.get_parameters = lambda self, **data: move(self, **data) | {"grid": None}


class nnUNetTrainerStillSoft(nnUNetTrainerStill):
    soft_targets = True
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nnUNet_results of four trainings on whole and on censored labels, and of one with beliefs of 0."""
    root = tmp_path_factory.mktemp("soft")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / variable).mkdir()
            patch.setenv(variable, str(root / variable))
        write_phantom_dataset(701, n_train=3, n_test=0, shape=(12, 32, 32), spacing_mm=(5, 4, 4), seed=3)
        # The command would spend its time on drawing nnU-Net's 1e8 voxels.
        write_fingerprint(raw_dataset(701), 10_000)
        run("nnUNetv2_plan_and_preprocess -d 701 -npfp 1 -np 1 -c 2d", root)
        split = {"train": ["phantom_000", "phantom_001"], "val": ["phantom_002"]}
        (root / "nnUNet_preprocessed" / "Dataset701_Phantom" / "splits_final.json").write_text(json.dumps([split]))
        run("lopsided-censor -d 701 -o 711 --mode stochastic --rate 0.7", root)
        run("lopsided-share -d 701 -o 711", root)
        (root / "own").mkdir()
        (root / "own" / "still.py").write_text(STILL)
        write_beliefs(root)
        for dataset, trainer in (
            (701, "nnUNetTrainerStill"),
            (711, "nnUNetTrainerStill"),
            (711, "nnUNetTrainerStillSoft"),
            (701, PLAIN),
            (701, SOFT),
        ):
            if trainer in (SOFT, "nnUNetTrainerStillSoft"):
                run(f"python -m nnunet_lopsided.commands.soften -d {dataset} -c 2d -i beliefs{dataset}", root)
            own = {"nnUNet_extTrainer": str(root / "own")} if "Still" in trainer else {}
            train(f"{dataset} 2d 0 -tr {trainer}", root, nnUNet_n_proc_DA="0", **own)
    return root / "nnUNet_results"


def write_beliefs(root: Path) -> None:
    """Of 711: 1 where the lesions are that it lacks; of 701: 0, and of one case only."""
    for dataset in (701, 711):
        (root / f"beliefs{dataset}").mkdir()
    raw = root / "nnUNet_raw"
    whole = raw / "Dataset701_Phantom" / "labelsTr"
    n_hidden = {}
    for path in sorted(whole.glob("*.nii.gz")):
        label, censored = read_image(path), read_image(raw / "Dataset711_PhantomCensored" / "labelsTr" / path.name)
        hidden = (np.not_equal(label.array, 0) & np.equal(censored.array, 0)).astype(np.float32)
        n_hidden[path.name] = np.count_nonzero(hidden)
        write_image(root / "beliefs711" / path.name, Image(hidden, label.geometry))
    assert all(n_hidden[f"phantom_00{i}.nii.gz"] for i in (0, 1)), "lesions of the training cases"
    write_image(root / "beliefs701" / "phantom_000.nii.gz", Image(np.zeros_like(hidden), label.geometry))


def fold_of(results: Path, dataset: str, trainer: str) -> Path:
    return results / dataset / f"{trainer}__nnUNetPlans__2d" / "fold_0"


def loss(fold: Path) -> float:
    with (fold / "lopsided_curves.csv").open(newline="") as file:
        return float(next(csv.DictReader(file))["train_loss"])


def weights(fold: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(fold / "checkpoint_final.pth", weights_only=False, map_location="cpu")[
        "network_weights"
    ]
    return found


def test_beliefs_of_1_on_hidden_lesions_are_the_whole_labels(trained: Path) -> None:
    whole = fold_of(trained, "Dataset701_Phantom", "nnUNetTrainerStill")
    censored = fold_of(trained, "Dataset711_PhantomCensored", "nnUNetTrainerStill")
    believed = fold_of(trained, "Dataset711_PhantomCensored", "nnUNetTrainerStillSoft")
    assert loss(believed) == pytest.approx(loss(whole), rel=5e-6)
    assert loss(censored) != loss(whole)
    moved = weights(believed)
    for name, value in weights(whole).items():
        torch.testing.assert_close(moved[name], value, rtol=1e-3, atol=1e-5)


def test_beliefs_of_0_are_no_beliefs(trained: Path) -> None:
    plain, soft = (fold_of(trained, "Dataset701_Phantom", trainer) for trainer in (PLAIN, SOFT))
    assert loss(plain) == loss(soft)
    other = weights(soft)
    assert all(torch.equal(value, other[name]) for name, value in weights(plain).items())
    (log,) = soft.glob("training_log*.txt")
    assert "soft targets: beliefs of 1 of 2 training cases" in log.read_text()
