"""Trainers as a GPU runs them: one epoch, the average network, continuing, and 2.5d through torch.compile.

``LOPSIDED_TEST_DEVICE=cpu`` runs the same on a CPU, which rehearses the tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_lopsided import trainers
from nnunet_lopsided.architectures import DeepLabV3For25D
from tests.conftest import without_progress_pictures


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_compile", "f")  # what is compiled has tests of its own
    without_progress_pictures(monkeypatch)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what nnU-Net's data loader draws from


def build(dataset: Any, name: str, configuration: str, device: torch.device, resume: bool = False) -> Any:
    plans = dataset.plans() | {"continue_training": resume}
    return getattr(trainers, name)(plans, configuration, 0, dataset.dataset_json, device)


def run_epoch(trainer: Any) -> float:
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    step = trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_epoch_end([step])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
    trainer.on_epoch_end()
    return float(step["loss"])


@pytest.mark.gpu
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres", "2.5d"])
@pytest.mark.parametrize(
    "name", ["nnUNetTrainerLopsided", "nnUNetTrainerInverseWeightingDice", "nnUNetTrainerRegionSpecific"]
)
def test_an_epoch(empty_results: Any, name: str, configuration: str, device: torch.device) -> None:
    trainer = build(empty_results, f"{name}_2epochs_1iters", configuration, device)
    trainer.on_train_start()
    assert np.isfinite(run_epoch(trainer))
    assert all(torch.isfinite(p).all() for p in trainer._bare_network.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("configuration", ["2d", "2.5d"])
def test_the_average_network_follows_and_is_continued(
    empty_results: Any, configuration: str, device: torch.device
) -> None:
    name = "nnUNetTrainerLopsided_ema0p5_from0_4epochs_1iters"
    first = build(empty_results, name, configuration, device)
    first.on_train_start()
    start = {key: value.clone() for key, value in first._teacher.network.state_dict().items()}
    run_epoch(first)
    taught = first._teacher.network.state_dict()
    assert all(value.device.type == device.type for value in taught.values())
    for key, value in first._bare_network.state_dict().items():
        torch.testing.assert_close(taught[key], 0.5 * start[key] + 0.5 * value)
    path = str(Path(first.output_folder) / "checkpoint_latest.pth")
    first.current_epoch -= 1  # as nnU-Net does when it saves at the end of an epoch
    first.save_checkpoint(path)
    second = build(empty_results, name, configuration, device, resume=True)
    second.load_checkpoint(path)
    second.on_train_start()
    assert second.current_epoch == 1
    for key, value in taught.items():
        assert torch.equal(second._teacher.network.state_dict()[key], value)
    scales = [t.grad_scaler and t.grad_scaler.get_scale() for t in (first, second)]
    assert scales[0] == scales[1]
    assert np.isfinite(run_epoch(second))


@pytest.mark.gpu
def test_25d_compiled(device: torch.device) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = DeepLabV3For25D(2, 2, n_slices=3, encoder="resnet18", output_stride=16).to(device)
    compiled = torch.compile(network, backend="inductor" if device.type == "cuda" else "eager")
    volume = torch.randn(1, 2, 6, 64, 64, device=device)
    network.eval()
    network.skip_padding, network.padding_beyond = True, (64, 64)
    with torch.no_grad():
        torch.testing.assert_close(compiled(volume), network(volume), rtol=1e-2, atol=1e-2)
    network.train()
    network.centre_slice_only = True
    with torch.autocast(device.type, dtype=torch.float16 if device.type == "cuda" else torch.bfloat16):
        logits = compiled(volume[:, :, :3])
    assert logits.shape == (1, 2, 1, 64, 64)
    logits.float().square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    torch._dynamo.reset()
