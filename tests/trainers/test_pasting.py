"""Pasting in nnU-Net's augmentation: where it stands, what it reads, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.trainers import pasting
from nnunet_lopsided.trainers.lesion_pasting import CutLesion, Paster
from nnunet_lopsided.trainers.pasting import PasteLesions, lesions_of
from tests.conftest import TinyDataset
from tests.trainers.test_trainers import build, log_of, one_process  # noqa: F401 - a fixture that is always used

NAME = "nnUNetTrainerLopsided_paste_2epochs_1iters"


def first_loss(dataset: TinyDataset, name: str, configuration: str) -> float:
    trainer = build(dataset, name, configuration)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return float(trainer.train_step(next(trainer.dataloader_train))["loss"])


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres", "2.5d"])
def test_it_is_the_first_step_and_trains(tiny: TinyDataset, configuration: str) -> None:
    trainer = build(tiny, NAME + "_seed1", configuration)
    trainer.on_train_start()
    steps = trainer.dataloader_train.data_loader.transforms.transforms
    assert isinstance(steps[0], PasteLesions)
    assert isinstance(steps[1], ComposeTransforms)
    assert steps[0]._paster.slicewise == (configuration == "2d")
    assert "PasteLesions" not in str(trainer.dataloader_val.data_loader.transforms.transforms)
    trainer.on_train_epoch_start()
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    assert trainer.my_init_kwargs["lopsided"]["paste"] is True


def test_a_seed_fixes_what_is_pasted(tiny: TinyDataset) -> None:
    assert first_loss(tiny, NAME + "_seed3", "2d") == first_loss(tiny, NAME + "_seed3", "2d")


def test_a_patch_by_hand() -> None:
    lesion = CutLesion(
        label=np.pad(np.full((1, 3, 3), 2, np.int16), ((0, 0), (3, 3), (3, 3))),
        surroundings=np.zeros(2, np.float32),
        spread=np.zeros(2, np.float32),
        difference=np.full((2, 1, 9, 9), 5, np.float32),
        diameter_mm=4.0,
    )
    step = PasteLesions(Paster.of([lesion, lesion], (2.0, 2.0), slicewise=True))
    image, label = torch.zeros(2, 30, 30), torch.zeros(1, 30, 30, dtype=torch.int16)
    np.random.seed(0)  # noqa: NPY002 - what nnU-Net's data loader draws from
    pasted = [step(image=image, segmentation=label) for _ in range(20)]
    assert not image.any()  # the loader's own tensors are left alone
    assert not label.any()
    voxels = [int((one["segmentation"] == 2).sum()) for one in pasted]
    assert 0 in voxels
    assert max(voxels) > 9  # two of them
    for one in pasted:
        assert one["segmentation"].dtype == torch.int16
        assert set(one["segmentation"].unique().tolist()) <= {0, 2}
        assert (one["image"][:, one["segmentation"][0] == 2] >= 2.4).all()


class OneCase:
    """A preprocessed dataset of one case with two classes, an ignored voxel and nothing outside."""

    identifiers = ("a",)

    def load_case(self, identifier: str, /) -> Any:
        label = np.zeros((1, 4, 12, 12), np.int16)
        label[0, 1, 2:4, 2:5], label[0, 2, 2, 2], label[0, 1, 9, 9] = 1, 2, 3
        return label.astype(np.float32) * 10 + 1, label, None, {}


def test_lesions_by_hand() -> None:
    (lesion,) = lesions_of("a", OneCase(), [3.0, 2.0, 2.0], 3, slicewise=False)  # type: ignore[arg-type]
    assert np.unique(lesion.label).tolist() == [0, 1, 2]  # one lesion of two classes
    assert lesion.diameter_mm == pytest.approx((6 * 7 * 12 / np.pi) ** (1 / 3))
    assert lesion.difference[0, 1, 2, 2] == 10
    (of_slice,) = lesions_of("a", OneCase(), [2.0, 2.0], 3, slicewise=True)  # type: ignore[arg-type]
    assert of_slice.diameter_mm == pytest.approx(2 * np.sqrt(6 * 4 / np.pi))  # its largest slice
    assert len(lesions_of("a", OneCase(), [3.0, 2.0, 2.0], None, slicewise=False)) == 2  # type: ignore[arg-type]


def test_no_lesion_is_refused_where_pasting_was_asked_for(tiny: TinyDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pasting, "lesions_of", lambda *args, **kwargs: [])
    trainer = build(tiny, NAME)
    trainer.initialize()
    with pytest.raises(
        InputError,
        match=r"expected an annotated lesion of .* patch in the 4 training cases of fold 0 in .* found no",
    ):
        trainer._paster()
    trainer.paste = None
    assert trainer._paster() is None
    assert "pasting: none, as no lesion that could be is annotated in 4 of 4 training cases" in log_of(trainer)


@pytest.mark.parametrize(("share", "sparse"), [(0.05, True), (0.051, False)])
def test_left_to_us_lesions_are_pasted_where_they_are_sparse(
    tiny: TinyDataset, monkeypatch: pytest.MonkeyPatch, share: float, sparse: bool
) -> None:
    """And crowded ones have a margin, in which background counts fully, instead."""
    monkeypatch.setattr(pasting, "lesion_share", lambda voxels: share)
    for name, pasted, margin in (
        ("nnUNetTrainerLopsided_10epochs_1iters", sparse, 0 if sparse else 4),
        ("nnUNetTrainerLopsided_paste_margin3_2epochs_1iters", True, 3),
        ("nnUNetTrainerLopsided_nopaste_margin0_2epochs_1iters", False, 0),
        ("nnUNetTrainerLopsided_g0_2epochs_1iters", False, 0),
        ("nnUNetTrainerLopsidedDice_2epochs_1iters", False, 0),
    ):
        trainer = build(tiny, name)
        trainer.on_train_start()
        steps = trainer.dataloader_train.data_loader.transforms.transforms
        assert isinstance(steps[0], PasteLesions) == pasted, name
        trainer.on_train_epoch_start()
        trainer.train_step(next(trainer.dataloader_train))
        assert (trainer.criterion.margin, trainer.criterion.dice.margin) == (margin, margin), name
        if "10epochs" in name:
            gamma = [trainer._weights_at(epoch)["gamma"] for epoch in range(10)]
            assert gamma == ([0] * 3 + [4] * 7 if pasted else [0] + [2] * 9)
            assert ("pasting: none, as lesions cover 5.1% of the labelled voxels" in log_of(trainer)) != pasted
            assert f"margin: {margin} voxels, as lesions cover 5" in log_of(trainer)


def test_only_as_many_are_read_as_are_used(tiny: TinyDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pasting, "MOST_LESIONS", 1)
    trainer = build(tiny, NAME + "_seed1")
    trainer.initialize()
    trainer._paster()
    assert " annotated lesions of 1 of 4 training cases, in diameters of " in log_of(trainer)


def test_memory_is_bound(tiny: TinyDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(tiny, NAME + "_seed1", "3d_fullres")
    trainer.initialize()
    every = trainer._paster().lesions
    largest = max(lesion.difference.nbytes + lesion.label.nbytes for lesion in every)
    monkeypatch.setattr(pasting, "MEMORY", largest)
    kept = trainer._paster().lesions
    assert 0 < len(kept) < len(every)


def test_what_spans_more_than_half_of_the_patch_is_no_lesion(
    tiny: TinyDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build(tiny, NAME)
    trainer.initialize()
    height, width = trainer.configuration_manager.patch_size

    def one(*sides: int) -> CutLesion:
        return CutLesion(
            label=np.ones((1, *(side + 6 for side in sides)), np.int16),
            surroundings=np.zeros(1, np.float32),
            spread=np.ones(1, np.float32),
            difference=np.ones((1, 1, *(side + 6 for side in sides)), np.float32),
            diameter_mm=float(sides[0]),
        )

    fits, high, wide = one(height // 2, width // 2), one(height // 2 + 1, 2), one(2, width // 2 + 1)
    monkeypatch.setattr(pasting, "lesions_of", lambda *args, **kwargs: [high, fits, wide])
    assert set(map(id, trainer._paster().lesions)) == {id(fits)}


def test_a_cascade_is_refused(tiny: TinyDataset) -> None:
    trainer = build(tiny, NAME, "3d_fullres")
    trainer.initialize()
    rotation, dummy, _, mirror = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    options: Any = {"is_cascaded": True, "foreground_labels": [1]}
    with pytest.raises(InputError, match="_paste cannot be used in a cascade"):
        trainer.get_training_transforms((8, 16, 16), rotation, None, mirror, dummy, **options)
    trainer.paste = None
    augmentation = trainer.get_training_transforms((8, 16, 16), rotation, None, mirror, dummy, **options)
    assert not isinstance(augmentation.transforms[0], PasteLesions)
    assert "pasting: none, in a cascade" in log_of(trainer)
