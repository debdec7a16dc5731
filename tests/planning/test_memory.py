"""The estimate of training memory, against sums by hand and, where there is a GPU, against what PyTorch counts."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional

from nnunet_lopsided.architectures import DeepLabV3For25D
from nnunet_lopsided.planning.memory import _LiveBytes, _MixedPrecision, training_memory
from nnunet_lopsided.planning.rules_25d import NetworkArguments

SMALL: NetworkArguments = {"encoder": "resnet18", "decoder": "deeplabv3plus", "output_stride": 16}


def test_live_bytes_by_hand() -> None:
    with _LiveBytes() as memory:
        first = torch.zeros(1000)  # 4000 bytes, 8 blocks of 512
        view = first[10:].view(-1, 3)
        assert memory.live == 4096
        second = first + 1
        assert memory.live == memory.peak == 8192
        del second
        assert (memory.live, memory.peak) == (4096, 8192)
        del first
        assert memory.live == 4096, "the view holds it"
        del view
        assert memory.live == 0


def test_mixed_precision_is_that_of_cuda_autocast() -> None:
    image, weight = torch.rand(1, 4, 8, 8), torch.rand(4, 4, 3, 3)
    with _MixedPrecision():
        convolved = functional.conv2d(image, weight)
        assert convolved.dtype == torch.float16
        assert functional.group_norm(convolved, 2).dtype == torch.float32
        assert torch.nn.Conv2d(4, 2, 1)(image).dtype == torch.float16


def test_what_must_be_in_it() -> None:
    weights = sum(4 * p.numel() for p in DeepLabV3For25D(4, 2, **SMALL).parameters())
    memory = training_memory(SMALL, 4, 2, (64, 96))
    # Weights, gradients and momentum; the stacked input in two precisions and the activations of the first block.
    assert memory.fixed_bytes > 2 * weights
    assert memory.bytes_per_patch > 64 * 96 * 20 * 6 + 4 * 64 * 48 * 32


def test_it_grows_with_what_it_should() -> None:
    base = training_memory(SMALL, 4, 2, (64, 64))
    larger = training_memory(SMALL, 4, 2, (128, 64))
    finer = training_memory({**SMALL, "output_stride": 8}, 4, 2, (64, 64))
    assert larger.bytes_per_patch == pytest.approx(2 * base.bytes_per_patch, rel=0.2)
    assert larger.fixed_bytes == pytest.approx(base.fixed_bytes, rel=0.05)
    assert finer.bytes_per_patch > 1.1 * base.bytes_per_patch


def test_a_network_that_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="n_slices must be a positive odd number"):
        training_memory({"n_slices": 4}, 1, 2, (32, 32))


PLANS = [
    ({"encoder": "resnet50"}, (256, 256), 8),
    ({"encoder": "resnet50", "decoder": "deeplabv3plus"}, (256, 256), 16),
    ({"encoder": "resnet50", "output_stride": 16}, (384, 320), 8),
    ({"encoder": "resnet34"}, (512, 512), 4),
    ({"encoder": "resnet18", "decoder": "deeplabv3plus", "output_stride": 16}, (128, 128), 32),
    ({"encoder": "resnet18", "n_slices": 7}, (192, 192), 24),
]


@pytest.mark.gpu
@pytest.mark.parametrize(("network", "patch", "batch_size"), PLANS)
def test_against_a_gpu(
    network: NetworkArguments, patch: tuple[int, int], batch_size: int, device: torch.device
) -> None:
    if device.type != "cuda":
        pytest.skip("what a step allocates is counted on a CUDA device alone")
    measured = memory_of_training_steps(network, patch, batch_size, device)
    estimated = training_memory(network, 4, 2, patch).of_batch(batch_size)
    assert measured <= estimated <= 1.15 * measured


def memory_of_training_steps(
    network: NetworkArguments, patch: tuple[int, int], batch_size: int, device: torch.device
) -> int:
    """Peak bytes of three steps as nnU-Net trains; on a CPU of the tensors of one step."""
    on_gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = True
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with nullcontext() if on_gpu else _LiveBytes() as counted:
        model = DeepLabV3For25D(4, 2, **network).to(device)
        model.centre_slice_only = True
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.99, nesterov=True)
        scaler = torch.amp.GradScaler("cuda", enabled=on_gpu)
        for _ in range(3 if on_gpu else 1):
            image = torch.rand(batch_size, 4, model.n_slices, *patch, device=device)
            target = torch.zeros(batch_size, 1, *patch, dtype=torch.long, device=device)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, enabled=on_gpu):
                logits = model(image)
            scaler.scale(functional.cross_entropy(logits.float(), target)).backward()
            scaler.step(optimizer)
            scaler.update()
    return torch.cuda.max_memory_allocated() - before if on_gpu else counted.peak
