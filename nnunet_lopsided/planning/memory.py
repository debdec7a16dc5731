"""GPU memory that training a 2.5D network takes, estimated without a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from nnunet_lopsided.architectures import DeepLabV3For25D
from nnunet_lopsided.planning.rules_25d import NetworkArguments, TrainingMemory

_MARGIN = 1.12  # for what is not simulated: workspaces of cuDNN, which depend on GPU and version
_BLOCK_BYTES = 512  # PyTorch's allocator hands out multiples of it


def training_memory(
    network: NetworkArguments, in_channels: int, n_classes: int, patch: tuple[int, int]
) -> TrainingMemory:
    """Peak memory of one training step under nnU-Net's mixed precision, without torch.compile.

    One step (forward, cross-entropy, backward) runs on tensors without content, while the bytes of every tensor alive
    are added up, the optimiser's momentum among them; convolutions take 16 and normalisations 32 bits, as in CUDA's
    autocast. A margin of 12% for what cuDNN takes comes on top. Batches of 1 and 2 give the fixed part and the part per
    patch.

    Args:
        network: ``arch_kwargs`` of :class:`~nnunet_lopsided.architectures.DeepLabV3For25D`.
        in_channels: image channels per slice.
        n_classes: output channels.
        patch: height and width.

    Raises:
        ValueError: the network cannot be built.

    Example:
        >>> memory = training_memory({"encoder": "resnet18"}, 4, 2, (64, 64))
        >>> 0 < memory.bytes_per_patch < memory.fixed_bytes < memory.of_batch(2) < 2**30
        True
    """
    one, two = (_peak(network, in_channels, n_classes, patch, batch_size) for batch_size in (1, 2))
    return TrainingMemory(int(_MARGIN * (2 * one - two)), int(_MARGIN * (two - one)))


def _peak(network: NetworkArguments, in_channels: int, n_classes: int, patch: tuple[int, int], batch_size: int) -> int:
    with FakeTensorMode(), _LiveBytes() as memory:
        model = DeepLabV3For25D(in_channels, n_classes, **network)
        model.centre_slice_only = True
        momentum = [torch.empty_like(weight) for weight in model.parameters()]
        images = torch.empty(batch_size, in_channels, model.n_slices, *patch)
        target = torch.zeros(batch_size, 1, *patch, dtype=torch.long)
        with _MixedPrecision():
            logits = model(images)
        functional.cross_entropy(logits.float(), target).backward()
        del momentum  # alive until here, as the optimiser keeps it through every step
        peak: int = memory.peak
        return peak


class _MixedPrecision(TorchFunctionMode):
    """What CUDA's autocast does to the operations of our networks, for tensors that are on no GPU."""

    _TYPES: ClassVar[dict[Callable[..., object], torch.dtype]] = {
        torch.conv2d: torch.float16,
        functional.conv2d: torch.float16,
        torch.group_norm: torch.float32,
        functional.group_norm: torch.float32,
    }

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        dtype = self._TYPES.get(function)
        if dtype is not None:
            args = [x.to(dtype) if isinstance(x, torch.Tensor) else x for x in args]
            kwargs = {k: x.to(dtype) if isinstance(x, torch.Tensor) else x for k, x in (kwargs or {}).items()}
        return function(*args, **(kwargs or {}))


class _LiveBytes(TorchDispatchMode):
    """Adds up the bytes of all tensors made while it is active and still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        output = function(*args, **(kwargs or {}))
        for value in tree_iter(output):
            if isinstance(value, torch.Tensor):
                self._add(value.untyped_storage())
        return output

    def _add(self, storage: torch.UntypedStorage) -> None:
        # The address of the storage itself: views and Python objects of it come and go.
        key = storage._cdata
        if key in self._known:
            return
        # Rounded up to whole blocks: // rounds down, so of the negative number up.
        n_bytes = -(-storage.nbytes() // _BLOCK_BYTES) * _BLOCK_BYTES
        self._known.add(key)
        self.live += n_bytes
        self.peak = max(self.peak, self.live)

        def gone() -> None:
            self._known.discard(key)
            self.live -= n_bytes

        weakref.finalize(storage, gone)
