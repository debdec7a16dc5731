"""The 2.5D network under nnU-Net's own predictor: what it computes, and how exact that is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_lopsided.architectures import DeepLabV3For25D

DEPTH, SIZE = 12, 32
MIRRORS = [axes for n in range(3) for axes in itertools.combinations((3, 4), n)]  # of (B, C, D, H, W), in the plane


@pytest.fixture(scope="module")
def network() -> DeepLabV3For25D:
    """With probabilities that differ from voxel to voxel, as random weights alone would not give them."""
    torch.manual_seed(0)
    network = DeepLabV3For25D(4, 2, encoder="resnet18", decoder="deeplabv3plus", output_stride=16).eval()
    (head,) = network.last_layers()
    with torch.no_grad():
        head.weight[0], head.bias[0] = 0, 0
        lesion = network(volume(DEPTH)[None])[:, 1]
        scale = 2 / lesion.std()
        head.bias[1] = scale * (head.bias[1] - lesion.mean())
        head.weight[1] *= scale
    return network


@pytest.fixture
def predict(tiny: Any, network: DeepLabV3For25D) -> Callable[[torch.Tensor, bool], np.ndarray]:
    """Lesion probability of a preprocessed volume (C, D, H, W), by the predictor of nnUNetv2_predict."""
    plans = tiny.plans()
    plans["configurations"]["2.5d"]["patch_size"] = [DEPTH, SIZE, SIZE]
    manager = PlansManager(plans)

    def probability(volume: torch.Tensor, mirror: bool) -> np.ndarray:
        predictor = nnUNetPredictor(
            use_mirroring=mirror, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
        )
        predictor.manual_initialization(
            network,
            manager,
            manager.get_configuration("2.5d"),
            None,
            tiny.dataset_json,
            "nnUNetTrainerLopsided",
            (1, 2),
        )
        logits = predictor.predict_sliding_window_return_logits(volume)
        return torch.softmax(logits.float(), 0)[1].numpy()

    return probability


def volume(depth: int) -> torch.Tensor:
    return torch.randn(4, depth, SIZE, SIZE, generator=torch.Generator().manual_seed(depth))


@torch.no_grad()
def slice_by_slice(network: DeepLabV3For25D, image: torch.Tensor, mirror: bool) -> np.ndarray:
    """Lesion probability by a loop over frames through the plain 2D network."""
    padded = torch.nn.functional.pad(image, (0, 0, 0, 0, 2, 2))
    found = []
    for z in range(image.shape[1]):
        stack = padded[:, z : z + 5].transpose(0, 1).reshape(1, 20, SIZE, SIZE)
        logits = [
            torch.flip(network.network(torch.flip(stack, axes)), axes)
            for axes in [[axis - 1 for axis in chosen] for chosen in MIRRORS[: None if mirror else 1]]
        ]
        found.append(torch.softmax(torch.stack(logits).mean(0)[0], 0)[1])
    return torch.stack(found).numpy()


def precise(depth: int) -> np.ndarray:
    """Where nnU-Net's half-precision window has digits: above 0.1% of its maximum, all but the corners."""
    gaussian = compute_gaussian((DEPTH, SIZE, SIZE), 1 / 8, 10, device=torch.device("cpu")).numpy()
    first = (DEPTH - depth) // 2
    return gaussian[first : first + depth] > 0.01


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("depth", [DEPTH, 7])
def test_one_window_is_exact(network: Any, predict: Any, depth: int, mirror: bool) -> None:
    image = volume(depth)
    expected = slice_by_slice(network, image, mirror)
    difference = np.abs(predict(image, mirror) - expected)
    inside = precise(depth)
    assert inside.mean() > 0.1
    assert expected.std() > 0.1, "a constant prediction would prove nothing"
    assert difference[inside].max() < 2e-3
    # In the corners of the window nnU-Net multiplies by numbers below the precision of its 16 bits.
    assert np.median(difference) < 2e-3


def test_several_windows_differ_at_their_ends_alone(network: Any, predict: Any) -> None:
    """A volume deeper than planned: the outermost r slices of a window see zeros instead of their neighbours."""
    image = volume(2 * DEPTH)
    difference = np.abs(predict(image, False) - slice_by_slice(network, image, False))
    centre = difference[:, SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4].reshape(2 * DEPTH, -1).mean(1)
    # Windows start at 0, 6 and 12; slices 4, 5 and 18, 19 lie well inside of one and outside of the ends of others.
    assert centre[[0, 1, 2, 3, 20, 21, 22, 23]].max() < 2e-3, "seen by one window only"
    assert 2e-3 < centre[4:20].max() < 0.05, "at low weight"


@pytest.mark.parametrize(("depth", "mirror"), [(DEPTH, False), (DEPTH, True), (5, True), (11, False)])
def test_every_slice_is_computed_once_per_mirror(network: Any, predict: Any, depth: int, mirror: bool) -> None:
    passes: list[int] = []
    handle = network.network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    predict(volume(depth), mirror)
    handle.remove()
    # Padding makes slices near the volume that see some of it, and one that stands for those that see nothing.
    seen = min(DEPTH, depth + 4) + (depth + 4 < DEPTH)
    assert sum(passes) == seen * (4 if mirror else 1)
