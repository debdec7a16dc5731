"""Every loss as a GPU trains with it: half precision against float64, loss scaling, weights up to 2e5, torch.compile.

``LOPSIDED_TEST_DEVICE=cpu`` runs the same on a CPU, which rehearses the tests.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nnunet_lopsided.losses import (
    BootstrapLoss,
    CompiledLoss,
    InverseWeightedLoss,
    LopsidedBootstrapLoss,
    LopsidedDiceLoss,
    RegionSpecificLoss,
    SoftDiceLoss,
    TverskyCrossEntropyLoss,
)

SHAPE = (2, 8, 8, 8)
# How often a lesion voxel counts: a lesion of one voxel in a patch of 128 x 128 x 24 weighs about 2e5.
LARGEST_WEIGHT = 2e5

LOSSES: dict[str, Callable[[], nn.Module]] = {
    "recipe": lambda: LopsidedDiceLoss(1, 1, gamma=2, batch_dice=True),
    "mixed Dice": lambda: LopsidedDiceLoss(3, 0.1, dice="mixed"),
    "masked Dice": lambda: LopsidedDiceLoss(3, 0.1, dice="masked"),
    "Dice": lambda: SoftDiceLoss(batch_dice=True),
    "eq. 3": lambda: LopsidedBootstrapLoss(3, 0.1),
    "eq. 3, soft": lambda: LopsidedBootstrapLoss(3, 0.1, soft=True),
    "eq. 3, regions": lambda: LopsidedBootstrapLoss(3, 0.1, sigmoid=True),
    "eq. 3, ignore label": lambda: LopsidedBootstrapLoss(3, 0.1, ignore_label=2),
    "eq. 2": lambda: BootstrapLoss(0.5),
    "region-specific": lambda: RegionSpecificLoss((4, 4, 4)),
    "Tversky": TverskyCrossEntropyLoss,
    "inverse CE": lambda: InverseWeightedLoss("ce"),
    "inverse focal": lambda: InverseWeightedLoss("focal"),
    "inverse Dice": lambda: InverseWeightedLoss("dice"),
    "inverse ASL": lambda: InverseWeightedLoss("asl"),
}
TAKES_WEIGHTS = [name for name in LOSSES if name.startswith("inverse")]
COMPILED = ("recipe", "mixed Dice", "inverse Dice", "region-specific")
EVERY_LOSS = pytest.mark.parametrize("name", LOSSES)
HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])


def case_of(name: str) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """float64 logits, a target with 5% lesions, and the weights of a loss that takes them."""
    random = torch.Generator().manual_seed(len(name))
    logits = 2 * torch.randn(SHAPE[0], 2, *SHAPE[1:], generator=random, dtype=torch.float64)
    n_channels = 2 if "regions" in name else 1
    target = (torch.rand(SHAPE[0], n_channels, *SHAPE[1:], generator=random) < 0.05).to(torch.int16)
    if "ignore" in name:
        target[:, :, :2] = 2
    if name not in TAKES_WEIGHTS:
        return logits, target, ()
    return logits, target, (torch.where(target == 1, 50.0, 1.0),)


def skip_without(device: torch.device, dtype: torch.dtype) -> None:
    """Some CPUs' PyTorch has no convolutions in half precision."""
    try:
        with torch.autocast(device.type, dtype=dtype):
            nn.Conv3d(1, 1, 1).to(device)(torch.zeros(1, 1, 2, 2, 2, device=device)).sum().backward()
    except RuntimeError as error:
        pytest.skip(f"no convolution in {dtype} on {device}: {error}")


@pytest.mark.gpu
@EVERY_LOSS
@HALF
def test_half_precision_against_float64(name: str, dtype: torch.dtype, device: torch.device) -> None:
    logits, target, weight = case_of(name)
    half = logits.to(device, dtype).requires_grad_()
    exact = half.detach().cpu().double().requires_grad_()
    scale = 256.0  # of the loss, so that gradients of a mean over many voxels are no zeros in half precision
    with torch.autocast(device.type, dtype=dtype):
        loss = LOSSES[name]()(half, target.to(device), *[w.to(device) for w in weight])
    expected = LOSSES[name]()(exact, target, *[w.double() for w in weight])
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(expected), rel=2e-5)
    (scale * loss).backward()
    (scale * expected).backward()
    assert half.grad is not None
    assert exact.grad is not None
    assert half.grad.dtype == dtype
    largest = float(exact.grad.abs().max())
    assert largest > 0
    torch.testing.assert_close(
        half.grad.cpu().double(), exact.grad, rtol=2 * torch.finfo(dtype).eps, atol=1e-4 * largest
    )


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["recipe", "eq. 3", *TAKES_WEIGHTS])
def test_scaled_loss_with_the_largest_weights(name: str, device: torch.device) -> None:
    """Gradients that half precision cannot hold are skipped and the scale falls, as AMP has it: then training goes on.

    No weight of the network is ever infinite or no number, and the loss falls.
    """
    skip_without(device, torch.float16)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(8, 2, 1)).to(device)
    start = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.9, nesterov=True)
    scaler = torch.amp.GradScaler(device.type)
    _, target, weight = case_of(name)
    image, target = target.float().to(device) + 0.1, target.to(device)
    weights = [torch.where(w > 1, LARGEST_WEIGHT, 1.0).to(device) for w in weight]
    loss, losses, n_skipped = LOSSES[name](), [], 0
    for _ in range(40):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.float16):
            value = loss(network(image), target, *weights)
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        n_skipped += scaler.get_scale() < before
        losses.append(float(value.detach()))
        assert all(torch.isfinite(p).all() for p in network.parameters())
    assert n_skipped < 35
    assert all(torch.isfinite(torch.tensor(losses)))
    assert any(not torch.equal(a, b) for a, b in zip(start, network.parameters(), strict=True))
    if name != "recipe":  # its trust in negatives is held constant: as it moves, the loss may rise
        assert min(losses[-5:]) < losses[0]


@pytest.mark.gpu
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_network_and_loss(name: str, device: torch.device) -> None:
    backend = "inductor" if device.type == "cuda" else "aot_eager"  # the CPU's compiler takes long
    torch.manual_seed(0)
    torch._dynamo.reset()
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.LeakyReLU(), nn.Conv3d(4, 2, 1))
    network = network.to(device)
    _, target, weight = case_of(name)
    image, target = torch.randn(SHAPE[0], 1, *SHAPE[1:], device=device), target.to(device)
    weight = tuple(w.to(device) for w in weight)
    said: list[str] = []
    gradients, values = [], []
    for compiled in (False, True):
        network.zero_grad()
        net = torch.compile(network, backend=backend) if compiled else network
        loss = CompiledLoss(LOSSES[name](), say=said.append, backend=backend) if compiled else LOSSES[name]()
        value = loss(net(image), target, *weight)
        value.backward()
        values.append(float(value.detach()))
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert said == [], "it was compiled"
    # On a GPU convolutions are of 10 bits (TF32), and a compiled one may be another.
    assert values[1] == pytest.approx(values[0], rel=1e-2 if device.type == "cuda" else 1e-5)
    for compiled_gradient, gradient in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(
            compiled_gradient, gradient, rtol=2e-2, atol=2e-2 * float(gradient.abs().max()) + 1e-6
        )
    torch._dynamo.reset()
