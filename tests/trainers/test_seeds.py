"""The seed in a trainer's name: what it fixes, and how far."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_lopsided import trainers
from nnunet_lopsided.trainers.seeds import derived_seed, seed_everything
from tests.conftest import without_progress_pictures


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    without_progress_pictures(monkeypatch)


@pytest.fixture
def make(empty_results: Any) -> Callable[..., Any]:
    def build(name: str, configuration: str = "2d", resume: bool = False) -> Any:
        plans = empty_results.plans() | {"continue_training": resume}
        return getattr(trainers, name)(plans, configuration, 0, empty_results.dataset_json, torch.device("cpu"))

    return build


class Interrupted(Exception):
    pass


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    path = Path(trainer.output_folder) / "checkpoint_final.pth"
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=False)["network_weights"]
    path.unlink()
    return found


def trained(trainer: Any) -> dict[str, torch.Tensor]:
    # What stands in the generators before must not matter.
    torch.seed()
    np.random.seed()  # noqa: NPY002
    trainer.run_training()
    return weights(trainer)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres", "2.5d"])
def test_a_seed_decides_the_weights(make: Callable[..., Any], configuration: str) -> None:
    name = "nnUNetTrainerLopsided_ema0p9_2epochs_2iters"
    first, again, other = (trained(make(f"{name}_seed{seed}", configuration)) for seed in (3, 3, 4))
    assert same(first, again)
    assert not any(torch.equal(first[n], other[n]) for n in first if first[n].ndim > 1)  # bias may be the prior


def test_without_a_seed_trainings_differ(make: Callable[..., Any]) -> None:
    name = "nnUNetTrainer25D_1epochs_1iters"
    assert not same(trained(make(name)), trained(make(name)))


@pytest.mark.parametrize("configuration", ["2d", "2.5d"])
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(
    make: Callable[..., Any], configuration: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "nnUNetTrainerLopsided_ema0p9_3epochs_2iters_seed0"
    whole = trained(make(name, configuration))
    first = make(name, configuration)
    end_epoch = type(first).on_epoch_end

    def interrupt(self: Any) -> None:
        end_epoch(self)
        if self.current_epoch == 2:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(type(first), "on_epoch_end", interrupt)
        with pytest.raises(Interrupted):
            trained(first)
    second = make(name, configuration, resume=True)
    second.load_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))
    assert second.current_epoch == 2
    assert same(trained(second), whole)


def test_arms_start_from_the_same_network_and_see_the_same_patches(make: Callable[..., Any]) -> None:
    seen = []
    for name in ("nnUNetTrainerLopsidedPaper_seed5", "nnUNetTrainer25D_seed5"):
        trainer = make(name)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        seen.append((trainer.network.state_dict(), next(trainer.dataloader_train)))
    (one, its_batch), (other, other_batch) = seen
    assert same(one, other)
    assert list(its_batch["keys"]) == list(other_batch["keys"])
    assert torch.equal(its_batch["data"], other_batch["data"])


def test_one_worker_gives_the_same_weights_too(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    name = "nnUNetTrainer25D_2epochs_2iters_seed3"
    assert same(trained(make(name)), trained(make(name)))


def test_every_worker_draws_from_a_stream_of_its_own_that_the_seed_decides(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")

    def seeds(name: str, epoch: int = 0, rank: int = 0) -> list[int | None]:
        trainer = make(name)
        trainer.initialize()
        trainer.current_epoch, trainer.local_rank = epoch, rank
        loaders = trainer.get_dataloaders()
        for loader in loaders:
            loader._finish()
        return [seed for loader in loaders for seed in loader.seeds]

    first = seeds("nnUNetTrainer25D_seed1")
    assert len(first) == len(set(first)) == 3  # two for training, one for validation
    assert seeds("nnUNetTrainer25D_seed1") == first
    others = (seeds("nnUNetTrainer25D_seed2"), seeds("nnUNetTrainer25D_seed1", epoch=1))
    for other in (*others, seeds("nnUNetTrainer25D_seed1", rank=1)):
        assert not set(other) & set(first)
    assert seeds("nnUNetTrainer25D") == [None] * 3


def test_derived_seeds() -> None:
    # NumPy keeps SeedSequence the same over versions.
    assert derived_seed(0) == np.random.SeedSequence(0).generate_state(1)[0] == 2968811710
    assert len({derived_seed(seed, *purpose) for seed in (0, 1) for purpose in ((), (0,), (1,), (1, 0), (1, 1))}) == 10


def test_all_generators_are_seeded() -> None:
    drawn = []
    for _ in range(2):
        seed_everything(1, 2)
        drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))  # noqa: NPY002
    assert drawn[0] == drawn[1]


def test_the_seed_is_stored(make: Callable[..., Any]) -> None:
    assert make("nnUNetTrainerLopsided_seed12").my_init_kwargs["lopsided"]["seed"] == 12
    assert make("nnUNetTrainerLopsided").my_init_kwargs["lopsided"]["seed"] is None
