"""Beliefs on their way from the file to the criterion: through loader, augmentation and deep supervision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blosc2
import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from numpy.typing import NDArray

from nnunet_lopsided import trainers
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.beliefs import BELIEFS_FILE, FOLDER, write_belief
from nnunet_lopsided.nnunet.preprocessed import preprocessed_cases
from nnunet_lopsided.nnunet.preprocessed_case import write_chunked
from nnunet_lopsided.trainers.deep_supervision import PerResolution
from nnunet_lopsided.trainers.soft_targets import BeliefApart, BeliefInTarget, ImageWithBelief
from tests.conftest import TinyDataset, set_paths
from tests.trainers.test_trainers import build, one_process  # noqa: F401 - a fixture that is always used

CONFIGURATIONS = ("2d", "3d_fullres", "2.5d")
SOFT = "nnUNetTrainerLopsided_nopaste_softtargets_2epochs_1iters"  # each step is looked at as it is


# ---- loading


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(-3, 7)] * 3), st.tuples(*[st.integers(1, 8)] * 3))
def test_a_crop_is_that_of_the_dense_array(seed: int, start: tuple[int, ...], size: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(2, 7, 6, 8)).astype(np.float32)
    levels = rng.integers(0, 256, (3, 7, 6, 8), np.uint8)
    box = [[a, a + n] for a, n in zip(start, size, strict=True)]
    if any(a >= n or b <= 0 for (a, b), n in zip(box, image.shape[1:], strict=True)):
        return  # nnU-Net's loader never asks for a patch beside the volume
    dense = np.concatenate([image, levels / np.float32(255)])
    lazy = ImageWithBelief(image, levels, 3)
    assert lazy.shape == dense.shape
    np.testing.assert_array_equal(crop_and_pad_nd(lazy, box, 0), crop_and_pad_nd(dense, box, 0))
    dense[2:] = 0
    np.testing.assert_array_equal(
        crop_and_pad_nd(ImageWithBelief(image, None, 3), box, 0), crop_and_pad_nd(dense, box, 0)
    )


# ---- the two steps around nnU-Net's augmentation


def test_apart_and_in_the_target_by_hand() -> None:
    image = torch.arange(3 * 4.0).view(3, 2, 2)
    apart = BeliefApart(2)(image=image, segmentation=torch.zeros(1, 2, 2))
    assert torch.equal(apart["image"], image[:1])
    assert torch.equal(apart["regression_target"], image[1:])
    label = torch.tensor([[[0, 2], [1, 0]]], dtype=torch.int16)
    joined = BeliefInTarget(None)(image=image[:1], segmentation=label, regression_target=image[1:])
    assert joined["segmentation"].tolist() == [[[0, 2], [1, 0]], image[1].tolist(), image[2].tolist()]
    assert joined["segmentation"].dtype == torch.float32
    assert "regression_target" not in joined


def test_the_centre_of_a_stack_by_hand() -> None:
    image = torch.arange(5.0).view(1, 5, 1, 1).expand(3, 5, 2, 2)
    apart = BeliefApart(1, centre_slice_only=True)(image=image, segmentation=image[:1])
    assert apart["image"].shape == (2, 5, 2, 2)
    assert torch.equal(apart["regression_target"], torch.full((1, 1, 2, 2), 2.0))
    joined = BeliefInTarget(None, centre_slice_only=True)(**apart)["segmentation"]
    assert torch.equal(joined, torch.full((2, 1, 2, 2), 2.0))


def test_resolutions_are_those_of_the_label() -> None:
    label = torch.randint(0, 3, (1, 6, 8), dtype=torch.int16)
    scales: list[list[float]] = [[1, 1], [0.5, 0.5], [0.5, 0.25]]
    joined = BeliefInTarget(scales)(image=label, segmentation=label, regression_target=label / 2)["segmentation"]
    for level, expected in zip(
        joined, DownsampleSegForDSTransform(scales)(segmentation=label)["segmentation"], strict=True
    ):
        assert torch.equal(level[:1], expected.float())
        assert torch.equal(level[1:], expected / 2)


# ---- nnU-Net's augmentation between them


def all_steps(transform: Any) -> list[Any]:
    if isinstance(transform, ComposeTransforms):
        return [step for part in transform.transforms for step in all_steps(part)]
    return [transform]


def augment_in_space_alone(loader: Any) -> None:
    """Turns and scales every patch; leaves out what changes intensities."""
    for step in all_steps(loader.transforms):
        if isinstance(step, RandomTransform):
            step.apply_probability = 0
        if isinstance(step, SpatialTransform):
            step.p_rotation = step.p_scaling = 1


class Phantoms:
    """Cases whose images are their beliefs: channel k is belief k, a label is where belief 0 exceeds 1/2."""

    identifiers = ("a", "b")

    def __init__(self, n: int, n_channels: int, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        coarse = rng.random((n_channels, *(-(-side // 4) for side in shape)))
        smooth = coarse.repeat(4, 1).repeat(4, 2).repeat(4, 3)[(slice(None), *(slice(side) for side in shape))]
        self.levels = (smooth * 255).astype(np.uint8)
        self._n = n

    def load_case(self, identifier: str) -> Any:
        image = self.levels / np.float32(255)
        label = (self.levels[:1] > 127).astype(np.int16)
        locations: dict[Any, list[Any]] = {(1, 2): [], 1: [], 2: [], (2,): []}
        return ImageWithBelief(image, self.levels[: self._n], self._n), label, None, {"class_locations": locations}


def unmasked(configurations: dict[str, Any], depth: int | None = None) -> None:
    for name in ("2d", "3d_fullres"):
        configurations[name]["use_mask_for_norm"] = [False] * 4
    if depth is not None:
        configurations["3d_fullres"]["patch_size"] = [depth, 32, 32]


@pytest.mark.parametrize("kind", ["binary", "multi-class", "regions"])
@pytest.mark.parametrize("configuration", [*CONFIGURATIONS, "dummy 2d"])
def test_beliefs_move_with_the_image(
    soft: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: str, configuration: str
) -> None:
    n = 1 if kind == "binary" else 2
    depth = 8 if configuration == "dummy 2d" else None
    name = "3d_fullres" if depth else configuration
    trainer = build(soft(kind, name), SOFT, name, edit=lambda plans: unmasked(plans, depth))
    cases = Phantoms(n, 4, (14, 33, 41))
    monkeypatch.setattr(trainer, "get_tr_and_val_datasets", lambda: (cases, cases))
    trainer.on_train_start()
    loader = trainer.dataloader_train.data_loader
    assert trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[1] == (
        depth is not None or name == "2.5d"
    )
    augment_in_space_alone(loader)
    for _ in range(6):
        batch = next(loader)
        target, inputs = trainer._split_target(trainer._supervised(batch)["target"])
        belief = inputs["belief"]
        finest = belief[0] if isinstance(belief, list) else belief
        data = batch["data"][:, :, 2:3] if name == "2.5d" else batch["data"]
        assert batch["data"].shape[1] == 4
        assert finest.shape == data[:, :n].shape
        np.testing.assert_allclose(finest, data[:, :n], atol=1e-6)
        assert 0 <= finest.min() < 0.2 < 0.8 < finest.max() <= 1 + 1e-6
        if isinstance(belief, list):
            assert [level.shape[2:] for level in belief] == [level.shape[2:] for level in target]
            scales = trainer._get_deep_supervision_scales()
            for i in range(len(finest)):
                for level, expected in zip(
                    belief, DownsampleSegForDSTransform(scales)(segmentation=finest[i])["segmentation"], strict=True
                ):
                    assert torch.equal(level[i], expected)
        labels = target[0] if isinstance(target, list) else target
        assert labels.shape[1] == (2 if kind == "regions" else 1)
        assert set(labels.unique().tolist()) == {0, 1}
        # Where nothing is cut off by interpolation, label and belief say the same.
        assert (labels[:, :1][finest[:, :1] == 0] == 0).all()


def test_intensities_do_not_change_beliefs(soft: Callable[..., Any]) -> None:
    trainer = build(soft("binary", "3d_fullres"), SOFT, "3d_fullres")
    trainer.on_train_start()
    steps = all_steps(trainer.dataloader_train.data_loader.transforms)
    data = {"image": torch.rand(5, 12, 32, 24), "segmentation": torch.zeros(1, 12, 32, 24, dtype=torch.int16)}
    belief = data["image"][-1:].clone()
    for step in steps[:-1]:
        if isinstance(step, SpatialTransform) or type(step).__name__ == "MirrorTransform":
            continue
        if isinstance(step, RandomTransform):
            step.apply_probability = 1
        data = step(**data)
        assert torch.equal(data["regression_target"], belief), step
    assert not torch.equal(steps[-1](**data)["segmentation"][0][1:], data["image"][:1])


def test_beliefs_pass_the_augmentation_of_a_cascade(soft: Callable[..., Any]) -> None:
    trainer = build(soft("binary", "3d_fullres"), SOFT, "3d_fullres")
    rotation, dummy_2d, _, mirror = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    options = {"use_mask_for_norm": [False] * 4, "is_cascaded": True, "foreground_labels": [1]}
    transforms = trainer.get_training_transforms((12, 32, 24), rotation, [[1, 1, 1]], mirror, dummy_2d, **options)
    for step in all_steps(transforms):
        if isinstance(step, RandomTransform):
            step.apply_probability = float("Segmentation" in str(step) or "Binary" in str(step))
    for _ in range(5):
        belief = torch.rand(1, 12, 32, 24)
        previous = torch.randint(0, 2, (2, 12, 32, 24), dtype=torch.int16)
        done = transforms(image=torch.cat((belief.expand(4, -1, -1, -1), belief)), segmentation=previous)
        assert done["image"].shape == (5, 12, 32, 24)
        assert torch.equal(done["segmentation"][0][1:], done["image"][:1])


# ---- training


@pytest.fixture
def soft(
    tiny_datasets: Callable[[str], TinyDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TinyDataset]:
    """A kind of labels and a configuration -> a copy of the tiny dataset with beliefs.

    Also taken: their ``level`` in 255ths, random if None, and the cases ``without`` one.
    """

    def make(kind: str, configuration: str, level: int | None = None, without: tuple[str, ...] = ()) -> TinyDataset:
        tiny = tiny_datasets(kind)
        set_paths(tmp_path, monkeypatch)
        target = tmp_path / "nnUNet_preprocessed" / tiny.name
        shutil.copytree(tiny.preprocessed, target)
        classes = [name for name in tiny.dataset_json["labels"] if name not in ("background", "ignore")]
        data = target / ("nnUNetPlans_2d" if configuration == "2d" else "nnUNetPlans_3d_fullres")
        (data / FOLDER).mkdir()
        cases = [case for case in preprocessed_cases(data) if case not in without]
        for case in cases:
            write_belief(data / FOLDER, case, levels_of(data, case, len(classes), level), data)
        described = {"classes": classes, "cases": {case: {} for case in cases}, "cases_without": list(without)}
        (data / FOLDER / BELIEFS_FILE).write_text(json.dumps(described))
        return TinyDataset(tmp_path, tiny.name, tiny.dataset_json)

    return make


def levels_of(data: Path, case: str, n: int, level: int | None) -> NDArray[Any]:
    shape = (n, *blosc2.open(urlpath=str(data / f"{case}.b2nd"), mode="r").shape[1:])
    if level is not None:
        return np.full(shape, level, np.uint8)
    return np.random.default_rng(0).integers(0, 255 // n + 1, shape, np.uint8)


def spy_on(criterion: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments the criterion is called with."""
    calls: list[Any] = []
    forward = criterion.forward

    def spied(logits: Any, target: Any, **inputs: Any) -> Any:
        calls.append(SimpleNamespace(logits=logits.detach(), target=target, inputs=inputs))
        return forward(logits, target, **inputs)

    monkeypatch.setattr(criterion, "forward", spied)
    return calls


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("kind", ["binary", "multi-class", "regions", "ignore", "regions with ignore"])
def test_a_step(soft: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: str, configuration: str) -> None:
    trainer = build(soft(kind, configuration), SOFT, configuration)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    calls = spy_on(trainer.criterion, monkeypatch)
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    n = 1 if kind == "binary" else 2
    n_target = 1 if "regions" not in kind else 2 + ("ignore" in kind)
    n_counting = 1
    if isinstance(trainer.loss, PerResolution):
        n_counting = sum(weight > 0 for weight in trainer.loss.weights)
    assert len(calls) == n_counting
    for call in calls:
        assert call.inputs.keys() == {"belief"}
        assert call.inputs["belief"].shape == (len(call.logits), n, *call.logits.shape[2:])
        assert call.target.shape == (len(call.logits), n_target, *call.logits.shape[2:])
        assert call.inputs["belief"].max() > 0
    calls.clear()
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(next(trainer.dataloader_val))["loss"])
    assert not any(call.inputs for call in calls), "the loss of the online validation is against the labels"


def first_steps(dataset: Any, name: str, configuration: str, n: int = 2) -> list[float]:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what nnU-Net's data loader draws from
    trainer = build(dataset, name, configuration)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    return [float(trainer.train_step(next(trainer.dataloader_train))["loss"]) for _ in range(n)]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_beliefs_of_0_change_nothing(soft: Callable[..., Any], configuration: str) -> None:
    dataset = soft("binary", configuration, 0, ("phantom_001",))
    assert first_steps(dataset, SOFT, configuration) == first_steps(
        dataset, SOFT.replace("_softtargets", ""), configuration
    )


def test_beliefs_of_1_change_the_loss(soft: Callable[..., Any]) -> None:
    dataset = soft("binary", "2d", 255)
    assert first_steps(dataset, SOFT, "2d") != first_steps(dataset, SOFT.replace("_softtargets", ""), "2d")


def hide_half(data: Path, classes: list[Any]) -> None:
    """Takes every second lesion voxel's label away and believes in it instead."""
    for case in preprocessed_cases(data):
        label = blosc2.open(urlpath=str(data / f"{case}_seg.b2nd"), mode="r")[:]
        hidden = (label > 0) & (label < 3) & (np.indices(label.shape).sum(0) % 2 == 0)  # 3 is the ignore label
        assert hidden.any()
        believed = [np.isin(label[0], values) & hidden[0] for values in classes]
        levels = 255 * np.stack(believed).astype(np.uint8)
        write_belief(data / FOLDER, case, levels, data)
        write_chunked(data / f"{case}_seg.b2nd", np.where(hidden, 0, label), data / f"{case}_seg.b2nd")


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("kind", ["binary", "multi-class", "regions with ignore"])
def test_beliefs_of_1_on_hidden_lesions_are_the_whole_labels(
    soft: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, kind: str, configuration: str
) -> None:
    # Turned labels are not what turned beliefs are, and starting point and sampling go by the labels.
    move = SpatialTransform.get_parameters
    monkeypatch.setattr(SpatialTransform, "get_parameters", lambda self, **data: move(self, **data) | {"grid": None})
    monkeypatch.setattr(trainers.nnUNetTrainerLopsided, "foreground_prior_bias", False)
    monkeypatch.setattr(nnUNetDataLoader, "_oversample_last_XX_percent", lambda *_: False)
    monkeypatch.setattr(nnUNetDataLoader, "get_bbox", with_fixed_draws(nnUNetDataLoader.get_bbox))
    dataset = soft(kind, configuration, 0)
    plain = SOFT.replace("_softtargets", "_w0")
    whole = first_steps(dataset, plain, configuration)
    data = dataset.preprocessed / ("nnUNetPlans_2d" if configuration == "2d" else "nnUNetPlans_3d_fullres")
    hide_half(data, {"binary": [1], "multi-class": [1, 2]}.get(kind, [[1, 2], [2]]))
    assert first_steps(dataset, SOFT + "_w0", configuration) == pytest.approx(whole, rel=1e-5)
    assert first_steps(dataset, plain, configuration) != pytest.approx(whole, rel=1e-4)


def with_fixed_draws(get_bbox: Any) -> Any:
    """Of an ignore label nnU-Net draws a voxel to look at; the same whatever the case's labels."""

    def fixed(self: Any, shape: Any, force: bool, locations: Any, *args: Any, **kwargs: Any) -> Any:
        return get_bbox(self, shape, force, {key: np.array([[0, 5, 15, 15]]) for key in locations}, *args, **kwargs)

    return fixed


def test_what_is_logged_and_stored(soft: Callable[..., Any]) -> None:
    trainer = build(soft("binary", "2d", None, ("phantom_001",)), SOFT)
    trainer.on_train_start()
    assert trainer.my_init_kwargs["lopsided"]["soft_targets"] is True
    log = Path(trainer.log_file).read_text()
    assert "soft_targets=True" in log
    without = int("phantom_001" in trainer.do_split()[0])
    assert f"soft targets: beliefs of {4 - without} of 4 training cases" in log
    plain = build(
        SimpleNamespace(plans=trainer_plans(trainer), dataset_json=trainer.dataset_json), "nnUNetTrainerLopsided"
    )
    assert plain.my_init_kwargs["lopsided"]["soft_targets"] is False


def trainer_plans(trainer: Any) -> Callable[..., Any]:
    return lambda *_: json.loads(json.dumps(trainer.plans_manager.plans))


@pytest.mark.parametrize("missing", ["file", "case", "everything"])
def test_a_training_case_without_a_belief_is_refused(soft: Callable[..., Any], missing: str) -> None:
    dataset = soft("binary", "2d")
    trainer = build(dataset, SOFT)
    case = sorted(trainer.do_split()[0])[0]
    folder = dataset.preprocessed / "nnUNetPlans_2d" / FOLDER
    (folder / f"{case}.b2nd").unlink()
    if missing == "case":
        content = json.loads((folder / BELIEFS_FILE).read_text())
        del content["cases"][case]
        (folder / BELIEFS_FILE).write_text(json.dumps(content))
    if missing == "everything":
        shutil.rmtree(folder)
    with pytest.raises(InputError, match=rf"^case {case}: no belief, expected .*/{case}.b2nd: run lopsided-soften"):
        trainer.on_train_start()


def test_a_validation_case_needs_no_belief(soft: Callable[..., Any]) -> None:
    dataset = soft("binary", "2d")
    trainer = build(dataset, SOFT)
    for case in trainer.do_split()[1]:
        (dataset.preprocessed / "nnUNetPlans_2d" / FOLDER / f"{case}.b2nd").unlink()
    trainer.on_train_start()


@pytest.mark.parametrize("name", ["Lopsided", "LopsidedPaper", "LopsidedDice"])
def test_trainers_that_take_soft_targets(name: str) -> None:
    trainer = getattr(trainers, f"nnUNetTrainer{name}_softtargets")
    assert trainer.soft_targets
    assert "soft_targets" in trainer.hyperparameters
    assert not getattr(trainers, f"nnUNetTrainer{name}").soft_targets


@pytest.mark.parametrize("name", ["LopsidedInverseWeighting", "Bootstrap", "InverseWeightingCE", "25D"])
def test_trainers_that_do_not(name: str) -> None:
    with pytest.raises(InputError, match="cannot read '_softtargets'"):
        getattr(trainers, f"nnUNetTrainer{name}_softtargets")
