"""What the losses share: the arguments that describe a target, labels that are refused, and what an import costs."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import torch

from nnunet_lopsided.losses import (
    BootstrapLoss,
    InverseWeightedLoss,
    LopsidedBootstrapLoss,
    LopsidedDiceLoss,
    RegionSpecificLoss,
    SoftDiceLoss,
    TverskyCrossEntropyLoss,
)
from nnunet_lopsided.losses.base import LesionLoss

LOSSES = pytest.mark.parametrize(
    "loss",
    [
        BootstrapLoss,
        LopsidedBootstrapLoss,
        SoftDiceLoss,
        LopsidedDiceLoss,
        *(partial(InverseWeightedLoss, kind) for kind in ("ce", "focal", "dice", "asl")),
        partial(RegionSpecificLoss, (2, 2, 2)),
        TverskyCrossEntropyLoss,
    ],
)


@LOSSES
def test_every_loss_takes_and_shows_the_format_of_its_targets(loss: type[LesionLoss]) -> None:
    made = loss(sigmoid=True, ignore_label=3, ddp=True)
    assert made.target_format == {"sigmoid": True, "ignore_label": 3, "ddp": True}
    assert "sigmoid=True, ignore_label=3" in repr(made)
    assert loss().target_format == {"sigmoid": False, "ignore_label": None, "ddp": False}
    with pytest.raises(TypeError, match="nonsense"):
        loss(nonsense=1)  # type: ignore[call-arg]


@LOSSES
@pytest.mark.parametrize("value", [2, 255, -2])
def test_every_loss_refuses_a_label_that_is_no_class(loss: type[LesionLoss], value: int) -> None:
    logits = torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(1, 1, 4, 4, 4)
    target[0, 0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=rf"target must hold -1 to 1.*got {min(value, 0)} to {max(value, 0)}"):
        loss()(logits, target)
    if value > 0:  # unless that is what the dataset ignores
        assert torch.isfinite(loss(ignore_label=value)(logits, target))


@LOSSES
def test_a_split_target_is_the_one_given_without_the_mark_of_ignored_voxels(loss: type[LesionLoss]) -> None:
    labels = torch.tensor([[[0, 1, 2, 9]]])
    target, valid = loss(ignore_label=9).split_target(labels)
    assert torch.equal(target, labels)
    assert valid is not None
    assert valid.tolist() == [[[True, True, True, False]]]
    assert loss().split_target(labels) == (labels, None)
    regions = torch.tensor([[[1, 0], [0, 1]]])
    target, valid = loss(sigmoid=True, ignore_label=9).split_target(regions)
    assert valid is not None
    assert (target.tolist(), valid.tolist()) == ([[[1, 0]]], [[[True, False]]])


def test_importing_the_losses_pulls_in_neither_nnunet_nor_network_libraries() -> None:
    heavy = ("segmentation_models_pytorch", "timm", "torchvision", "nnunetv2", "batchgenerators", "batchgeneratorsv2")
    program = f"import sys, nnunet_lopsided.losses; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
