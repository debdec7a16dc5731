"""Our trainers on tiny preprocessed data: prior, warm-up, what is logged and stored, continuing, and single steps."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from numpy.typing import NDArray
from torch import nn

import nnunet_lopsided
from nnunet_lopsided import trainers
from nnunet_lopsided.architectures import DeepLabV3For25D
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import read_image
from nnunet_lopsided.losses import LopsidedDiceLoss, lopsided_bootstrap_loss
from nnunet_lopsided.trainers.deep_supervision import PerResolution
from nnunet_lopsided.trainers.foreground_prior import last_layers
from nnunet_lopsided.trainers.slice_patches import training_patch
from tests.conftest import without_progress_pictures

WITHOUT_REGIONS = ("nnUNetTrainerTopk10", "nnUNetTrainerRegionSpecific_background_noce")
SHORT = "nnUNetTrainerLopsided_2epochs_1iters"
CONFIGURATIONS = ("2d", "3d_fullres", "2.5d")


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what nnU-Net's data loader draws from


def build(dataset: Any, name: str = SHORT, configuration: str = "2d", fold: int = 0, **options: Any) -> Any:
    """A trainer as nnUNetv2_train builds it, on the CPU."""
    plans = dataset.plans(options.pop("plans", "nnUNetPlans")) | {"continue_training": options.pop("resume", False)}
    dataset_json = options.pop("dataset_json", dataset.dataset_json)
    edit = options.pop("edit", lambda configurations: None)
    assert not options
    if "2.5d" not in plans["configurations"]:
        plans["configurations"]["2.5d"] = dataset.plans()["configurations"]["2.5d"]
    edit(plans["configurations"])
    return getattr(trainers, name)(plans, configuration, fold, dataset_json, torch.device("cpu"))


def mask_images(masked: bool) -> Callable[[dict[str, Any]], None]:
    """Edits plans: whether images are zero outside a mask (the phantoms' are)."""
    return lambda configurations: configurations["3d_fullres"].update(use_mask_for_norm=[masked] * 4)


def log_of(trainer: Any) -> str:
    return Path(trainer.log_file).read_text()


def run_epoch(trainer: Any) -> None:
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train))])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
    trainer.on_epoch_end()


# ---- the foreground prior


def labels_within_brain(dataset: Any, cases: list[str]) -> list[NDArray[Any]]:
    """What nnU-Net trains on, from the raw files: labels cropped to the box of nonzero image voxels."""
    raw, found = dataset.root / "nnUNet_raw" / dataset.name, []
    for case in cases:
        nonzero = np.any([read_image(p).array != 0 for p in (raw / "imagesTr").glob(f"{case}_*.nii.gz")], axis=0)
        box = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(nonzero))
        found.append(np.asarray(read_image(raw / "labelsTr" / f"{case}.nii.gz").array)[box])
    return found


def training_labels(dataset: Any, fold: int = 0) -> NDArray[Any]:
    split = json.loads((dataset.preprocessed / "splits_final.json").read_text())[fold]
    return np.concatenate([label.ravel() for label in labels_within_brain(dataset, split["train"])])


@pytest.mark.parametrize("name", ["nnUNetTrainerLopsided", "nnUNetTrainerClassWeighted", "nnUNetTrainer25D_prior"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_head_starts_at_the_prior_of_the_training_labels(tiny: Any, name: str, configuration: str) -> None:
    trainer = build(tiny, name, configuration)
    trainer.on_train_start()
    prior = np.mean(training_labels(tiny) == 1)
    layers = last_layers(trainer.network)
    assert len(layers) == (1 if configuration == "2.5d" else 2)  # one per resolution
    for layer in layers:
        np.testing.assert_allclose(layer.bias.detach().numpy(), [0, math.log(prior / (1 - prior))], rtol=1e-6)
    assert trainer.my_init_kwargs["lopsided"]["foreground_prior"] == pytest.approx([prior])
    assert f"foreground prior {prior:.3g} of 4 training labels" in log_of(trainer)


def test_the_prior_is_that_of_the_fold(tiny: Any) -> None:
    priors = []
    for fold in (0, 1):
        trainer = build(tiny, fold=fold)
        trainer.on_train_start()
        priors.append(trainer.my_init_kwargs["lopsided"]["foreground_prior"][0])
        assert priors[-1] == pytest.approx(np.mean(training_labels(tiny, fold) == 1))
    assert priors[0] != priors[1]


def test_the_prior_of_classes_regions_and_annotated_voxels(tiny: Any, tiny_datasets: Callable[[str], Any]) -> None:
    for kind in ("multi-class", "regions", "ignore", "regions with ignore"):
        dataset = tiny_datasets(kind)
        trainer = build(dataset)
        trainer.on_train_start()
        labels = training_labels(dataset)
        labels = labels[labels != 3]
        rim, core = np.mean(labels == 1), np.mean(labels == 2)
        if "regions" in kind:
            expected = [math.log(p / (1 - p)) for p in (rim + core, core)]
        else:
            expected = [0, *(math.log(p / (1 - rim - core)) for p in (rim, core))]
            softmax = np.exp(expected) / np.exp(expected).sum()
            np.testing.assert_allclose(softmax[1:], [rim, core])
        for layer in last_layers(trainer.network):
            np.testing.assert_allclose(layer.bias.detach().numpy(), expected, rtol=1e-5, err_msg=kind)


def test_a_class_without_a_voxel_has_a_finite_bias(tiny_datasets: Callable[[str], Any], tiny: Any) -> None:
    dataset = tiny_datasets("multi-class")
    labels = {**dataset.dataset_json["labels"], "nowhere": 3}
    trainer = build(dataset, dataset_json=dataset.dataset_json | {"labels": labels})
    trainer.on_train_start()
    total = training_labels(dataset).size
    assert trainer.my_init_kwargs["lopsided"]["foreground_prior"][2] == pytest.approx(0.5 / total)
    assert last_layers(trainer.network)[0].bias.isfinite().all()


def test_the_baseline_keeps_its_own_bias(tiny: Any) -> None:
    trainer = build(tiny, "nnUNetTrainer25D_1epochs_1iters")
    trainer.initialize()
    before = [layer.bias.detach().clone() for layer in last_layers(trainer.network)]
    trainer.on_train_start()
    for layer, bias in zip(last_layers(trainer.network), before, strict=True):
        assert torch.equal(layer.bias, bias)


def test_last_layers_of_an_unknown_network() -> None:
    with pytest.raises(ValueError, match=r"needs a network with decoder\.seg_layers or last_layers\(\), got .*Conv2d"):
        last_layers(nn.Conv2d(1, 1, 1))

    class WithoutBias(nn.Module):
        def last_layers(self) -> list[nn.Module]:
            return [nn.Conv2d(1, 1, 1, bias=False)]

    with pytest.raises(ValueError, match="needs a bias in the last layer"):
        last_layers(WithoutBias())


# ---- the warm-up of beta, the start of gamma


@pytest.mark.parametrize(
    ("weight", "name", "expected"),
    [
        ("beta", "nnUNetTrainerLopsided_b0p2_w4_20epochs", [1, 0.8, 0.6, 0.4, 0.2, 0.2]),
        ("beta", "nnUNetTrainerLopsided_b0p2_20epochs", [1, 0.6, 0.2, 0.2]),  # a tenth of the epochs
        ("beta", "nnUNetTrainerLopsided_b0p2_11epochs", [1, 0.6, 0.2, 0.2]),  # rounded up
        ("beta", "nnUNetTrainerLopsided_b0p2_w0", [0.2, 0.2]),
        ("beta", "nnUNetTrainerLopsided_b1_w2", [1, 1, 1]),
        ("beta", "nnUNetTrainerLopsided_b0_w1", [1, 0, 0]),
        ("gamma", "nnUNetTrainerLopsided_nopaste_20epochs", [0, 0, 2, 2]),  # after a tenth
        ("gamma", "nnUNetTrainerLopsided_g3_from50_5epochs", [0, 0, 0, 3, 3]),  # rounded up
        ("gamma", "nnUNetTrainerLopsided_g3_from0", [3, 3]),
        ("gamma", "nnUNetTrainerLopsided_from100_2epochs", [0, 0]),
        ("gamma", "nnUNetTrainerLopsidedDice_from0", [0, 0]),
        ("gamma", "nnUNetTrainerLopsidedPaper_a3", [0, 0]),
    ],
)
def test_warm_up(tiny: Any, weight: str, name: str, expected: list[float]) -> None:
    trainer = build(tiny, name)
    trainer.initialize()
    values = []
    for epoch in range(len(expected)):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        values.append(getattr(trainer.loss.criteria[0], weight))
        assert f"Current {weight}: {values[-1]:.4g} " in log_of(trainer)
    assert values == pytest.approx(expected)


def test_the_default_recipe(tiny: Any) -> None:
    trainer = build(tiny, "nnUNetTrainerLopsided")
    assert (trainer.alpha, trainer.beta, trainer.gamma, trainer.margin, trainer.dice) == (1, 1, None, None, "full")
    assert (trainer._warm_up, trainer.foreground_prior_bias) == (100, True)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (
        1000,
        250,
        50,
    )
    stock = nnUNetTrainer(tiny.plans() | {"continue_training": False}, "2d", 0, tiny.dataset_json, torch.device("cpu"))
    for attribute in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch", "initial_lr"):
        assert getattr(trainer, attribute) == getattr(stock, attribute)


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (9, 1), (40, 4), (499, 49), (500, 50), (1000, 50)])
def test_an_interrupted_training_loses_at_most_a_tenth(tiny: Any, epochs: int, expected: int) -> None:
    assert build(tiny, f"nnUNetTrainer25D_{epochs}epochs").save_every == expected


def test_the_plain_arm_is_beta_of_one(tiny: Any) -> None:
    trainer = build(tiny, "nnUNetTrainerClassWeighted_a10")
    trainer.initialize()
    assert (trainer.criterion.alpha, trainer.criterion.beta) == (10, 1)
    trainer.current_epoch = 500
    trainer.on_train_epoch_start()
    assert trainer.criterion.beta == 1


# ---- what is logged and stored


def test_hyperparameters_are_in_the_log_and_in_the_checkpoint(tiny: Any, tmp_path: Path) -> None:
    name = "nnUNetTrainerLopsided_a10_b0p5_w5_100epochs_20iters"
    trainer = build(tiny, name)
    trainer.on_train_start()
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (100, 20, 4)
    expected = {
        "version": nnunet_lopsided.__version__,
        "trainer": name,
        "dice": "full",
        "cross_entropy": None,
        "alpha": 10.0,
        "gamma": None,
        "gamma_from": None,
        "look_back": None,
        "margin": None,
        "soft_targets": False,
        "paste": None,
        "beta": 0.5,
        "warm_up_epochs": 5,
        "soft": False,
        "teacher_decay": None,
        "epochs": 100,
        "iterations_per_epoch": 20,
        "foreground_prior_bias": True,
        "seed": None,
    }
    for key, value in expected.items():
        assert f"{key}={value}" in log_of(trainer)
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    checkpoint = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    assert checkpoint["trainer_name"] == name
    stored = checkpoint["init_args"]["lopsided"]
    assert stored.pop("foreground_prior") == pytest.approx([np.mean(training_labels(tiny) == 1)])
    assert stored == expected


def test_the_stored_warm_up_is_the_one_used(tiny: Any) -> None:
    assert build(tiny, "nnUNetTrainerLopsided_30epochs").my_init_kwargs["lopsided"]["warm_up_epochs"] == 3


@pytest.mark.parametrize("configuration", ["3d_fullres", "2.5d"])
def test_continuing(empty_results: Any, monkeypatch: pytest.MonkeyPatch, configuration: str) -> None:
    without_progress_pictures(monkeypatch)
    name = "nnUNetTrainerLopsided_b0p5_w4_g3_from30_6epochs_1iters"
    first = build(empty_results, name, configuration)
    first.on_train_start()
    at_start = [layer.bias.detach().clone() for layer in last_layers(first.network)]
    for _ in range(2):
        run_epoch(first)
    first.current_epoch -= 1  # as nnU-Net does when it saves at the end of an epoch
    first.save_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))

    second = build(empty_results, name, configuration, resume=True)
    second.load_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))
    second.on_train_start()
    assert second.current_epoch == 2
    for before, trained, continued in zip(
        at_start, last_layers(first.network), last_layers(second.network), strict=True
    ):
        assert torch.equal(trained.bias, continued.bias)
        if trained is last_layers(first.network)[-1]:
            assert not torch.equal(before, continued.bias)
    second.on_train_epoch_start()
    assert second.criterion.beta == pytest.approx(1 - 0.5 * 2 / 4)
    assert second.criterion.gamma == 3  # from 30% of six epochs on
    assert second.my_init_kwargs["lopsided"]["foreground_prior"] == first.my_init_kwargs["lopsided"]["foreground_prior"]
    run_epoch(second)
    assert second.current_epoch == 3


# ---- one step of everything


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("kind", ["binary", "multi-class", "regions", "ignore", "regions with ignore"])
def test_a_step_on_every_kind_of_label(
    tiny: Any, tiny_datasets: Callable[[str], Any], kind: str, configuration: str
) -> None:
    check_a_step(build(tiny_datasets(kind), configuration=configuration), 1 if kind == "binary" else 2)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainerClassWeighted",
        "nnUNetTrainer25D",
        "nnUNetTrainerBootstrap",
        "nnUNetTrainerLopsided_soft_ema0p9",
        "nnUNetTrainerLopsidedPaper",
        "nnUNetTrainerLopsidedDice_dicemasked",
        "nnUNetTrainerLopsidedDice_dicenone",
        "nnUNetTrainerInverseWeightingCE",
        "nnUNetTrainerInverseWeightingFocal",
        "nnUNetTrainerInverseWeightingDice",
        "nnUNetTrainerInverseWeightingASL",
        "nnUNetTrainerLopsidedInverseWeighting",
        "nnUNetTrainerRegionSpecific_r8_prior",
        "nnUNetTrainerRegionSpecific_sum_detach_skipempty_bootstrap",
        "nnUNetTrainerRegionSpecific_background_noce",
        "nnUNetTrainerInverseWeightingDice_samplewise",
        "nnUNetTrainerTversky",
        "nnUNetTrainerTopk10",
    ],
)
def test_a_step_of_the_other_trainers(
    tiny: Any, tiny_datasets: Callable[[str], Any], name: str, configuration: str
) -> None:
    for kind, n_foreground in (("binary", 1), ("multi-class", 2), ("regions with ignore", 2)):
        # An overlap loss has no gradient at a level without a lesion.
        moved = 0.4 if name.removesuffix("_samplewise").endswith(("WeightingDice", "WeightingASL")) else 0.5
        if name in WITHOUT_REGIONS and kind.startswith("regions"):
            with pytest.raises(InputError, match=f"{name}: .* found regions in dataset.json"):
                build(tiny_datasets(kind), name, configuration).initialize()
            continue
        check_a_step(build(tiny_datasets(kind), name, configuration), n_foreground, moved)


@pytest.mark.parametrize("kind", ["Dice", "ASL"])
def test_inverse_weighted_overlap_over_the_batch_or_each_sample(tiny: Any, kind: str) -> None:
    name = f"nnUNetTrainerInverseWeighting{kind}"
    for configuration, planned in (("2d", True), ("2.5d", True), ("3d_fullres", False)):
        assert build(tiny, name, configuration)._build_criterion().batch_dice is planned
        assert build(tiny, f"{name}_samplewise", configuration)._build_criterion().batch_dice is False


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_a_step_with_residual_encoder_plans(tiny: Any, configuration: str) -> None:
    trainer = build(tiny, configuration=configuration, plans="nnUNetResEncUNetPlans")
    assert trainer.configuration_manager.network_arch_class_name.endswith("ResidualEncoderUNet")
    check_a_step(trainer, 1)


def batch_with_lesion(trainer: Any) -> dict[str, Any]:
    """A training batch with a labelled lesion where it is supervised: overlap losses have no gradient without."""
    for _ in range(50):
        batch = next(trainer.dataloader_train)
        target = trainer._supervised(batch)["target"]
        if ((target[0] if isinstance(target, list) else target)[:, 0] == 1).any():
            return batch
    raise AssertionError("50 batches without a lesion")


def check_a_step(trainer: Any, n_foreground: int, moved: float = 0.5) -> None:
    trainer.on_train_start()
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.on_train_epoch_start()
    loss = trainer.train_step(batch_with_lesion(trainer))["loss"]
    assert np.isfinite(loss)
    assert loss > 0
    after = trainer.network.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    # Not all: nnU-Net leaves the coarsest output unused, and residual blocks start at zero.
    assert len(changed) > len(before) * moved
    assert next(iter(before)) in changed
    head = last_layers(trainer.network)[-1]
    assert any(after[name] is head.bias or torch.equal(after[name], head.bias) for name in changed)
    assert all(value.isfinite().all() for value in after.values())
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        result = trainer.validation_step(next(trainer.dataloader_val))
    assert np.isfinite(result["loss"])
    assert result["tp_hard"].shape == (n_foreground,)


# ---- the 2.5d configuration


def test_25d_trains_on_the_centre_of_n_slices(tiny: Any) -> None:
    trainer = build(tiny, "nnUNetTrainerLopsided_nopaste", configuration="2.5d", edit=mask_images(False))
    trainer.on_train_start()
    assert trainer.configuration_manager.patch_size == [18, 40, 40]  # the predictor's
    trainer.on_train_epoch_start()
    batch = next(trainer.dataloader_train)
    assert batch["data"].shape == (2, 4, 5, 32, 32)
    assert batch["target"].shape == (2, 1, 1, 32, 32), "the target of the other slices is not augmented"
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        logits = trainer.network(batch["data"])
        assert logits.shape == (2, 2, 1, 32, 32)
        expected = LopsidedDiceLoss(trainer.alpha, 1.0, batch_dice=True)(logits, batch["target"])
        assert float(trainer.validation_step(batch)["loss"]) == pytest.approx(float(expected), rel=1e-6)
    assert trainer.inference_allowed_mirroring_axes == (1, 2)


def test_25d_every_slice_can_be_the_centre(tiny: Any) -> None:
    trainer = build(tiny, configuration="2.5d")
    trainer.on_train_start()
    loader = trainer.dataloader_train.data_loader
    for depth in (3, 12):
        np.random.seed(0)  # noqa: NPY002 - what nnU-Net's loader draws from
        first = [loader.get_bbox(np.array([depth, 40, 40]), False, None)[0][0] for _ in range(300 * depth)]
        centres, counts = np.unique(np.array(first) + 2, return_counts=True)
        assert centres.tolist() == list(range(depth))
        assert counts.min() > 220
        # A lesion voxel of the first or the last slice is the centre when it is asked for.
        for z in (0, depth - 1):
            box = loader.get_bbox(np.array([depth, 40, 40]), True, {1: np.array([[0, z, 20, 20]])})
            assert box[0][0] + 2 == z


def test_25d_supervises_the_slice_in_the_middle(tiny: Any) -> None:
    trainer = build(tiny, configuration="2.5d")
    target = torch.arange(5).view(1, 1, 5, 1, 1).expand(2, 1, 5, 3, 3)
    data = torch.zeros(2, 4, 5, 3, 3)
    supervised = trainer._supervised({"data": data, "target": target})
    assert supervised["target"].shape == (2, 1, 1, 3, 3)
    assert torch.all(supervised["target"] == 2)
    assert supervised["data"] is data
    three_d = build(tiny, configuration="3d_fullres")
    assert three_d._supervised({"target": target})["target"] is target


def test_25d_masked_images_keep_the_target_that_holds_the_mask(tiny: Any) -> None:
    trainer = build(tiny, configuration="2.5d", edit=mask_images(True))
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    batch = next(trainer.dataloader_train)
    assert batch["target"].shape == (2, 1, 5, 32, 32)
    assert np.isfinite(trainer.train_step(batch)["loss"])


def test_25d_targets_are_the_centre_of_what_nnunet_would_make(tiny: Any) -> None:
    targets = []
    for early in (True, False):
        trainer = build(tiny, "nnUNetTrainerLopsided_nopaste", configuration="2.5d", edit=mask_images(False))
        trainer.on_train_start()
        augmentation = trainer.dataloader_train.data_loader.transforms
        assert type(augmentation.transforms[0]).__name__ == "CentreSliceOfTarget"
        if not early:
            del augmentation.transforms[0]
        np.random.seed(1)  # noqa: NPY002 - what nnU-Net's loader draws from
        torch.manual_seed(1)
        targets.append([trainer._supervised(next(trainer.dataloader_train)) for _ in range(6)])
    for cut, whole in zip(*targets, strict=True):
        assert torch.equal(cut["data"], whole["data"])
        assert torch.equal(cut["target"], whole["target"])
    assert any(batch["target"].any() for batch in targets[0])


def test_25d_schedule_is_planned_unless_the_name_says_otherwise(tiny: Any) -> None:
    def plan(configurations: dict[str, Any]) -> None:
        configurations["2.5d"]["lopsided"] |= {"epochs": 321, "iterations_per_epoch": 45}

    schedules = {}
    for name, configuration in (
        ("nnUNetTrainerLopsided", "2.5d"),
        ("nnUNetTrainerLopsided_7epochs", "2.5d"),
        ("nnUNetTrainerLopsided_9iters", "2.5d"),
        ("nnUNetTrainerLopsided", "2d"),
    ):
        trainer = build(tiny, name, configuration, edit=plan)
        described = trainer.my_init_kwargs["lopsided"]
        assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (
            described["epochs"],
            described["iterations_per_epoch"],
        )
        schedules[name, configuration] = (described["epochs"], described["iterations_per_epoch"])
    assert list(schedules.values()) == [(321, 45), (7, 45), (321, 9), (1000, 250)]


@pytest.mark.parametrize("value", ["32", 32, None, [32], [32, 32, 32], [32, -1], [32, 0], [32, 1.5], [32, "32"]])
def test_a_training_patch_edited_by_hand(
    value: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration = planned_25d(lopsided={"training_patch": value})
    expected = (
        "lopsided.training_patch of the 2.5d configuration in the plans: expected two whole numbers of at least 1, "
        f"found {value!r}"
    )
    with pytest.raises(InputError) as error:
        training_patch(configuration)
    assert str(error.value) == expected
    monkeypatch.setattr("sys.argv", ["nnUNetv2_train"])
    with pytest.raises(SystemExit) as ending:
        training_patch(configuration)
    assert ending.value.code == 2
    assert capsys.readouterr().err == f"nnunet-lopsided: error: {expected}\n"


def test_a_training_patch_is_at_most_the_window() -> None:
    assert training_patch(planned_25d(lopsided={"training_patch": [64, 16]})) == (40, 16)
    assert training_patch(planned_25d()) == (40, 48)


def planned_25d(**more: Any) -> ConfigurationManager:
    return ConfigurationManager({"architecture": {}, "patch_size": [5, 40, 48], **more})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_slices": 4}, "n_slices must be a positive odd number, got 4"),
        ({"sclices": 5}, "unknown argument sclices; expected n_slices"),
        ({"encoder": "resnet19"}, "encoder must be one of segmentation_models_pytorch"),
        ({"output_stride": "8"}, "output_stride must be 8 or 16, got '8'"),
    ],
)
def test_25d_arguments_edited_by_hand(
    tiny: Any,
    arguments: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def by_hand(configurations: dict[str, Any]) -> None:
        configurations["2.5d"]["architecture"]["arch_kwargs"] |= arguments

    trainer = build(tiny, configuration="2.5d", edit=by_hand)
    with pytest.raises(InputError, match=f"arch_kwargs of the 2.5d configuration in the plans: {message}"):
        trainer.initialize()
    monkeypatch.setattr("sys.argv", ["nnUNetv2_train"])
    with pytest.raises(SystemExit) as ending:
        trainer.initialize()
    assert ending.value.code == 2
    assert message in capsys.readouterr().err


def test_25d_pretrained_weights_are_loaded_at_the_start_alone(
    empty_results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(DeepLabV3For25D, "load_pretrained_encoder", lambda network: loaded.append(network))
    first = build(empty_results, configuration="2.5d")
    first.on_train_start()
    assert loaded == [first.network]
    path = str(Path(first.output_folder) / "checkpoint_latest.pth")
    first.save_checkpoint(path)
    second = build(empty_results, configuration="2.5d", resume=True)
    second.load_checkpoint(path)
    second.on_train_start()
    assert len(loaded) == 1


def test_25d_takes_weights_from_another_training_but_for_the_head(tiny: Any) -> None:
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    source = build(tiny, configuration="2.5d")
    source.on_train_start()
    path = str(Path(source.output_folder) / "pretrained.pth")
    source.save_checkpoint(path)
    trainer = build(tiny, configuration="2.5d")
    trainer.initialize()
    head = last_layers(trainer.network)[0].weight.detach().clone()
    load_pretrained_weights(trainer.network, path)
    assert torch.equal(last_layers(trainer.network)[0].weight, head)
    for name, weight in trainer.network.named_parameters():
        assert ".seg_layers." in name or torch.equal(weight, source.network.get_parameter(name)), name


def test_25d_has_one_output_and_no_deep_supervision(tiny: Any) -> None:
    trainer = build(tiny, configuration="2.5d")
    trainer.initialize()
    assert not trainer.enable_deep_supervision
    assert trainer.loss is trainer.criterion
    assert isinstance(build_loss(tiny, "nnUNetTrainer25D", "2.5d"), DC_and_CE_loss)


def build_loss(tiny: Any, name: str, configuration: str) -> nn.Module:
    return build(tiny, name, configuration)._build_loss()


# ---- deep supervision


@pytest.mark.parametrize("is_ddp", [False, True])
@pytest.mark.parametrize("n_scales", [2, 3, 5])
def test_weights_of_the_resolutions_are_those_of_nnunet(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, is_ddp: bool, n_scales: int
) -> None:
    trainer = build(tiny, configuration="3d_fullres")
    trainer.is_ddp = is_ddp
    monkeypatch.setattr(trainer, "_get_deep_supervision_scales", lambda: [[1.0] * 3] * n_scales)
    ours, stock = trainer._build_loss(), nnUNetTrainer._build_loss(trainer)
    assert isinstance(ours, PerResolution)
    assert all(criterion is trainer.criterion for criterion in ours.criteria)
    assert ours.weights == pytest.approx(stock.weight_factors)
    assert sum(ours.weights) == pytest.approx(1)


def test_one_resolution_still_counts(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(tiny, configuration="3d_fullres")
    monkeypatch.setattr(trainer, "_get_deep_supervision_scales", lambda: [[1.0] * 3])
    assert trainer._build_loss().weights == (1.0,)


def test_loss_of_a_step_is_that_of_the_weighted_resolutions(tiny: Any) -> None:
    trainer = build(tiny, "nnUNetTrainerLopsidedDice_dicenone_w0", "3d_fullres")
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    trainer.loss.weights = (0.75, 0.25)
    batch = next(trainer.dataloader_train)
    with torch.no_grad():
        outputs = trainer.network(batch["data"])
        parts = [lopsided_bootstrap_loss(o, t, 3, 0.1) for o, t in zip(outputs, batch["target"], strict=True)]
    expected = 0.75 * parts[0] + 0.25 * parts[1]
    assert float(trainer.train_step(batch)["loss"]) == pytest.approx(float(expected), rel=1e-5)


# ---- the teacher and the curves


def test_the_teacher_is_continued(empty_results: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "nnUNetTrainerLopsided_ema0p5_from0_4epochs_1iters"
    first = build(empty_results, name)
    first.on_train_start()
    start = deepcopy(first._teacher.network.state_dict())
    run_epoch(first)
    taught = first._teacher.network.state_dict()
    assert any(not torch.equal(start[key], taught[key]) for key in start)
    for key, value in first._bare_network.state_dict().items():
        torch.testing.assert_close(taught[key], 0.5 * start[key] + 0.5 * value)
    path = str(Path(first.output_folder) / "checkpoint_latest.pth")
    first.save_checkpoint(path)
    assert "teacher_weights" not in first.my_init_kwargs["lopsided"]
    second = build(empty_results, name, resume=True)
    second.load_checkpoint(path)
    second.on_train_start()
    for key, value in taught.items():
        assert torch.equal(second._teacher.network.state_dict()[key], value)
    assert "teacher_weights" not in second.my_init_kwargs["lopsided"]


def test_a_training_begun_with_other_defaults_says_so(empty_results: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "nnUNetTrainerLopsided_4epochs_1iters"
    first = build(empty_results, name)
    first.on_train_start()
    path = str(Path(first.output_folder) / "checkpoint_latest.pth")
    first.save_checkpoint(path)
    assert "WARNING" not in log_of(first)
    second = build(empty_results, name, resume=True)
    second.load_checkpoint(path)
    assert "meant something else" not in log_of(second)
    monkeypatch.setattr(type(first), "gamma", 5.0)
    third = build(empty_results, name, resume=True)
    third.load_checkpoint(path)
    assert "meant something else (gamma was None, is 5.0); it goes on with the new values" in log_of(third)
    assert third.my_init_kwargs["lopsided"]["gamma"] == 5.0
    assert third.my_init_kwargs["lopsided"]["foreground_prior"] == first.my_init_kwargs["lopsided"]["foreground_prior"]


def test_a_checkpoint_from_before_gamma_was_trained_without(empty_results: Any) -> None:
    name = "nnUNetTrainerLopsided_b0p1_w0_4epochs_1iters"
    first = build(empty_results, name)
    first.on_train_start()
    for later in ("gamma", "soft_targets", "seed"):
        del first.my_init_kwargs["lopsided"][later]
    path = str(Path(first.output_folder) / "checkpoint_latest.pth")
    first.save_checkpoint(path)
    second = build(empty_results, name, resume=True)
    second.load_checkpoint(path)
    assert "meant something else (gamma was 0.0, is None)" in log_of(second)


def test_mixed_dice_without_a_bootstrap_is_refused(tiny: Any) -> None:
    with pytest.raises(InputError, match="_dicemixed with beta 1 is _dicefull; add a beta below 1, as in _b0p1"):
        build(tiny, "nnUNetTrainerLopsided_dicemixed").initialize()
    build(tiny, "nnUNetTrainerLopsided_dicemixed_b0p1_g0").initialize()


def test_without_gamma_and_bootstrap_it_is_nnunets_loss(tiny: Any) -> None:
    ours, stock = build(tiny, "nnUNetTrainerLopsided_g0"), build(tiny, "nnUNetTrainer25D")
    for trainer in (ours, stock):
        trainer.initialize()
    batch = next(ours.get_dataloaders()[0])
    outputs = [torch.randn(t.shape[0], 2, *t.shape[2:]) for t in batch["target"]]
    torch.testing.assert_close(ours.loss(outputs, batch["target"]), stock.loss(outputs, batch["target"]))


def test_a_continued_25d_teacher_predicts_the_centre_slice(empty_results: Any) -> None:
    name = "nnUNetTrainerLopsided_ema0p5_from0_4epochs_1iters"
    first = build(empty_results, name, "2.5d")
    first.on_train_start()
    path = str(Path(first.output_folder) / "checkpoint_latest.pth")
    first.save_checkpoint(path)
    second = build(empty_results, name, "2.5d", resume=True)
    second.load_checkpoint(path)
    second.on_train_start()
    run_epoch(second)
    assert second._teacher(torch.zeros(1, 4, 5, 32, 32)).shape == (1, 2, 1, 32, 32)


def test_the_loss_takes_the_teachers_verdict(tiny: Any) -> None:
    trainer = build(tiny, "nnUNetTrainerLopsidedDice_dicenone_ema0p9_w0")
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    with torch.no_grad():  # a teacher that calls everything lesion
        for layer in last_layers(trainer._teacher.network):
            layer.bias.copy_(torch.tensor([0.0, 1000.0]))
        batch = next(trainer.dataloader_train)
        logits, target = trainer.network(batch["data"])[0], batch["target"][0]
        live = lopsided_bootstrap_loss(logits, target, 3, 0.1)
        taught = lopsided_bootstrap_loss(
            logits, target, 3, 0.1, teacher=torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand_as(logits)
        )
    trainer.loss.weights = (1.0, 0.0)
    assert float(trainer.train_step(batch)["loss"]) == pytest.approx(float(taught), rel=1e-5)
    assert float(taught) > float(live)


def test_curves_of_an_epoch(empty_results: Any) -> None:
    trainer = build(empty_results, "nnUNetTrainerLopsided_from0_2epochs_1iters")
    trainer.on_train_start()
    run_epoch(trainer)
    folder = Path(trainer.output_folder)
    with (folder / "lopsided_curves.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["epoch"] == "0"
    assert (float(row["beta"]), float(row["gamma"])) == (1, 4)
    assert 0 <= float(row["flipped_background"]) <= 1
    assert float(row["gradient_norm"]) > 0
    assert (folder / "lopsided_curves.png").is_file()


def test_the_described_output(tiny: Any) -> None:
    trainer = build(tiny)
    logits = torch.tensor([[[[0.0, 0, 0, 0]], [[1.0, -1, 2, -3]]]])
    described = trainer._describe_output([logits], [torch.tensor([[[[0, 0, 1, 1]]]])])
    assert float(described["flipped_background"]) == 0.5
    expected = (1 / (1 + math.exp(-2)) + 1 / (1 + math.exp(3))) / 2
    assert float(described["lesion_probability"]) == pytest.approx(expected)
    nothing = trainer._describe_output(logits, torch.zeros(1, 1, 1, 4))
    assert math.isnan(float(nothing["lesion_probability"]))


def test_threads_are_those_of_the_environment(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    for value in ("3", "0", "", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        build(tiny).initialize()
    assert threads == [3]


@pytest.mark.parametrize("kind", ["binary", "multi-class", "regions", "ignore"])
def test_without_bootstrap_the_default_is_the_loss_of_nnunet(
    tiny: Any, tiny_datasets: Callable[[str], Any], kind: str
) -> None:
    ours = build(tiny_datasets(kind), "nnUNetTrainerLopsided_b1_cemean")
    stock = build(tiny_datasets(kind), "nnUNetTrainer25D")
    for trainer in (ours, stock):
        trainer.initialize()
    ours.on_train_start()
    ours.on_train_epoch_start()
    batch = next(ours.dataloader_train)
    with torch.no_grad():
        outputs = ours.network(batch["data"])
        torch.testing.assert_close(ours.loss(outputs, batch["target"]), stock.loss(outputs, batch["target"]))
