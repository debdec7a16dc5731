"""The 2.5D network under nnU-Net's own predictor: what it computes, and how exact that is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from nnunet_lopsided.architectures import DeepLabV3For25D

DEPTH, SIZE = 12, 32
PLANNED, WINDOW = 18, 40  # what the planner makes of a deepest case of 12 and slices of 32 x 32
MIRRORS = [axes for n in range(3) for axes in itertools.combinations((3, 4), n)]  # of (B, C, D, H, W), in the plane


@pytest.fixture(scope="module")
def network() -> DeepLabV3For25D:
    """With probabilities that differ from voxel to voxel, as random weights alone would not give them."""
    torch.manual_seed(0)
    network = DeepLabV3For25D(4, 2, encoder="resnet18", decoder="deeplabv3plus", output_stride=16).eval()
    (head,) = network.last_layers()
    assert isinstance(head, torch.nn.Conv2d)
    assert head.bias is not None
    with torch.no_grad():
        head.weight[0], head.bias[0] = 0, 0
        lesion = network(volume(DEPTH)[None])[:, 1]
        scale = 2 / lesion.std()
        head.bias[1] = scale * (head.bias[1] - lesion.mean())
        head.weight[1] *= scale
    network.skip_padding, network.padding_beyond = True, (SIZE, SIZE)  # as our trainers build it
    return network


@pytest.fixture
def predict(tiny: Any, network: DeepLabV3For25D) -> Callable[[torch.Tensor, bool], NDArray[Any]]:
    """Lesion probability of a preprocessed volume (C, D, H, W), by the predictor of nnUNetv2_predict."""
    plans = tiny.plans()
    plans["configurations"]["2.5d"]["patch_size"] = [PLANNED, WINDOW, WINDOW]
    manager = PlansManager(plans)

    def probability(volume: torch.Tensor, mirror: bool) -> NDArray[Any]:
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


def volume(depth: int, size: int = SIZE) -> torch.Tensor:
    return torch.randn(4, depth, size, size, generator=torch.Generator().manual_seed(depth))


@torch.no_grad()
def slice_by_slice(network: DeepLabV3For25D, image: torch.Tensor, mirror: bool) -> NDArray[Any]:
    """Lesion probability by a loop over frames through the plain 2D network."""

    def strided(stack: torch.Tensor) -> torch.Tensor:
        height, width = stack.shape[2:]
        return network.network(torch.nn.functional.pad(stack, (0, -width % 16, 0, -height % 16)))[..., :height, :width]

    padded = torch.nn.functional.pad(image, (0, 0, 0, 0, 2, 2))
    found = []
    for z in range(image.shape[1]):
        stack = padded[:, z : z + 5].transpose(0, 1).flatten(0, 1)[None]
        logits = [
            torch.flip(strided(torch.flip(stack, axes)), axes)
            for axes in [[axis - 1 for axis in chosen] for chosen in MIRRORS[: None if mirror else 1]]
        ]
        found.append(torch.softmax(torch.stack(logits).mean(0)[0], 0)[1])
    return torch.stack(found).numpy()


@pytest.mark.parametrize("mirror", [False, True])
def test_a_smaller_slice_lies_where_nnunet_would_pad_it_to_the_patch(network: Any, predict: Any, mirror: bool) -> None:
    image = volume(7, 27)
    padded = torch.nn.functional.pad(image, (2, 3, 2, 3))
    expected = slice_by_slice(network, padded, mirror)[:, 2:29, 2:29]
    assert np.abs(predict(image, mirror) - expected).max() < 2e-3


def test_a_larger_slice_is_computed_whole(network: Any, predict: Any) -> None:
    image = volume(7, 36)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    expected = slice_by_slice(network, padded, False)[:, 2:38, 2:38]
    difference = np.abs(predict(image, False) - expected)
    assert difference[:, 3:-3, 3:-3].max() < 2e-3


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("depth", [DEPTH, 7])
def test_one_window_is_exact(network: Any, predict: Any, depth: int, mirror: bool) -> None:
    image = volume(depth)
    expected = slice_by_slice(network, image, mirror)
    difference = np.abs(predict(image, mirror) - expected)
    assert expected.std() > 0.1, "a constant prediction would prove nothing"
    assert difference.max() < 2e-3


def test_several_windows_differ_at_their_ends_alone(network: Any, predict: Any) -> None:
    """A volume deeper than planned: the outermost r slices of a window see zeros instead of their neighbours."""
    image = volume(2 * PLANNED)
    difference = np.abs(predict(image, False) - slice_by_slice(network, image, False))
    centre = difference[:, SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4].reshape(2 * PLANNED, -1).mean(1)
    # Windows start at 0, 9 and 18.
    assert centre[[*range(7), *range(29, 36)]].max() < 2e-3, "seen by the first or the last window only"
    assert 2e-3 < centre.max() < 0.05, "at low weight"


def test_the_background_of_a_masked_image_stays_background(network: Any, predict: Any) -> None:
    """Several windows, whose ends and borders are zero within the image: that is no padding of nnU-Net's."""
    (head,) = network.last_layers()
    image = torch.zeros(4, 2 * PLANNED, WINDOW + 10, WINDOW + 10)
    image[:, :6, 20:28, 20:28] = volume(6, 8)
    image[:, 30:, :8, :8] = volume(6, 8)
    with torch.no_grad():
        head.bias[1] -= 12
        found = predict(image, False)
        head.bias[1] += 12
    assert found.max() < 0.1


@pytest.mark.parametrize(("depth", "mirror"), [(DEPTH, False), (DEPTH, True), (5, True), (PLANNED, False)])
def test_every_slice_is_computed_once_per_mirror(network: Any, predict: Any, depth: int, mirror: bool) -> None:
    passes: list[int] = []
    sizes: set[tuple[int, ...]] = set()

    def note(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        passes.append(len(inputs[0]))
        sizes.add(tuple(inputs[0].shape[-2:]))

    handle = network.network.register_forward_pre_hook(note)
    predict(volume(depth), mirror)
    handle.remove()
    assert sizes == {(SIZE, SIZE)}, "nothing beyond the slice"
    assert sum(passes) == (depth + 1) * (4 if mirror else 1), "and one empty stack stands for all padding"
