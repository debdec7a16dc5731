"""A 2.5D DeepLabv3 that nnU-Net sees as a 3D network: slices into channels, a 2D network, slices back."""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, NoReturn, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_lopsided.compilation import uncompiled
from nnunet_lopsided.errors import InputError, refuse

with warnings.catch_warnings():
    # What it imports makes PyTorch warn about itself, on stderr, in every command that looks for a trainer.
    warnings.simplefilter("ignore", FutureWarning)
    from segmentation_models_pytorch import DeepLabV3, DeepLabV3Plus
    from segmentation_models_pytorch.encoders import get_encoder
    from timm.layers.norm_act import BatchNormAct2d, GroupNormAct

NETWORK_CLASS_NAME = "nnunet_lopsided.architectures.deeplabv3_25d.DeepLabV3For25D"

_DECODERS = {"deeplabv3": DeepLabV3, "deeplabv3plus": DeepLabV3Plus}

# Peak memory of a prediction per voxel of a slice, in bytes: the largest of the encoders and decoders we tried.
_BYTES_PER_VOXEL = 800
_CPU_BUDGET = 2**28  # more slices at once are hardly faster there
_LARGEST_PASS = 64


class DeepLabV3For25D(nn.Module):
    """DeepLabv3 that predicts every slice of a volume from the slices around it, stacked into channels.

    Input (B, C, D, H, W), output logits (B, K, D, H, W) for any D: slice z is predicted from slices z - r to z + r with
    r = (n_slices - 1) / 2, where slices beyond the volume are zero. Batch normalisation is replaced by group
    normalisation, so that a prediction depends on its own slices alone, whatever the batch.

    Prediction goes through the 2D network some slices at a time. Stacks that are zero have the same logits: they are
    computed once. Where nnU-Net has padded a volume to its patch, our trainers let nothing be computed at all.

    The constructor is called by nnU-Net with the ``arch_kwargs`` of the plans.

    Args:
        input_channels: C, image channels per slice.
        num_classes: K, output channels.
        n_slices: slices stacked, an odd number; 5 in Yi et al. 2020, 1 is a 2D network.
        encoder: any encoder of segmentation_models_pytorch that can be dilated.
        decoder: ``deeplabv3`` or ``deeplabv3plus``; the latter adds features of stride 4, for finer outlines.
        output_stride: 8 or 16, in-plane stride of the deepest features.
        encoder_weights: name of pretrained weights, such as ``imagenet``, that :meth:`load_pretrained_encoder` loads;
            None: random weights. The constructor itself downloads nothing.
        slices_per_pass: slices that go through the 2D network at once in a prediction, which bounds its memory; None:
            as many as half of the free memory of a GPU holds, on a CPU some 256 MiB.
        deep_supervision: nnU-Net's own trainers ask for it; the network has one output, so true is refused.

    Attributes:
        centre_slice_only: predict only slice (D - 1) / 2, giving (B, K, 1, H, W); set by our trainers for training.
        skip_padding: take leading and trailing slices that are zero in every channel for nnU-Net's padding: they are
            not predicted but get the logits of an empty stack. Set by our trainers; nnU-Net crops volumes to their
            nonzero voxels, so no other slices of one window are meant.
        padding_beyond: take what lies beyond the central (height, width) of an input for nnU-Net's padding if it is
            zero: only the centre is predicted, as if it were the input, and the rest gets the logits in the middle of
            an empty stack. Set by our trainers to the patch they train with; None: nothing.

    Raises:
        ValueError: an argument is unknown or out of its range, or the encoder is unknown or cannot be dilated.
        InputError: deep supervision is asked for; ``nnUNetv2_train`` ends with one line that names our trainers.

    Source:
        Yi et al. 2020, section 3.2 (2.5D DeepLabv3); Chen et al. 2017, "Rethinking Atrous Convolution".

    Example:
        >>> network = DeepLabV3For25D(2, 3, n_slices=5, encoder="resnet18").eval()
        >>> network(torch.zeros(1, 2, 7, 32, 32)).shape
        torch.Size([1, 3, 7, 32, 32])
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        n_slices: int = 5,
        encoder: str = "resnet50",
        decoder: Literal["deeplabv3", "deeplabv3plus"] = "deeplabv3",
        output_stride: int = 8,
        encoder_weights: str | None = None,
        slices_per_pass: int | None = None,
        deep_supervision: bool = False,
        **unknown: object,
    ) -> None:
        super().__init__()
        if deep_supervision:
            _refuse_foreign_trainer()
        if unknown:
            known = [name for name in inspect.signature(type(self)).parameters if name != "unknown"][2:]
            raise ValueError(f"unknown argument {', '.join(unknown)}; expected {', '.join(known)}")
        if not _is_whole(n_slices) or n_slices < 1 or n_slices % 2 == 0:
            raise ValueError(f"n_slices must be a positive odd number, got {n_slices!r}")
        if not isinstance(decoder, str) or decoder not in _DECODERS:
            raise ValueError(f"decoder must be one of {', '.join(_DECODERS)}, got {decoder!r}")
        if not _is_whole(output_stride) or output_stride not in (8, 16):
            raise ValueError(f"output_stride must be 8 or 16, got {output_stride!r}")
        if slices_per_pass is not None and (not _is_whole(slices_per_pass) or slices_per_pass < 1):
            raise ValueError(f"slices_per_pass must be at least 1, got {slices_per_pass!r}")
        if not (encoder_weights is None or isinstance(encoder_weights, str)):
            raise ValueError(f"encoder_weights must be a name or null, got {encoder_weights!r}")
        self.n_slices = n_slices
        self.slices_per_pass = slices_per_pass
        self.output_stride = output_stride
        self.encoder_weights = encoder_weights
        self.centre_slice_only = False
        self.skip_padding = False
        self.padding_beyond: tuple[int, int] | None = None
        self._encoder = (encoder, input_channels * n_slices)
        try:
            network = _DECODERS[decoder](
                encoder_name=encoder,
                encoder_weights=None,
                encoder_output_stride=output_stride,
                in_channels=input_channels * n_slices,
                classes=num_classes,
            )
        except Exception as error:  # encoders that are unknown or cannot be dilated fail in many ways
            reason = "it is unknown" if isinstance(error, KeyError) else " ".join(str(error).split())
            raise ValueError(
                f"encoder must be one of segmentation_models_pytorch that can be dilated, got {encoder!r}: {reason}"
            ) from error
        # nnU-Net's -pretrained_weights leaves out layers of this name: a head is of its own dataset.
        head = zip(("seg_layers", "upsampling", "activation"), network.segmentation_head, strict=True)
        network.segmentation_head = nn.Sequential(OrderedDict(head))
        self.network = _with_group_norm(network)
        # Weights from elsewhere, as of nnU-Net's -pretrained_weights, are not to be replaced by the encoder's.
        after_loading: Callable[[Callable[..., None]], object] = self.register_load_state_dict_post_hook
        after_loading(lambda module, _: setattr(module, "encoder_weights", None))

    def forward(self, volume: Tensor) -> Tensor:
        """Logits (B, K, D, H, W) of a volume (B, C, D, H, W); (B, K, 1, H, W) if ``centre_slice_only``."""
        radius = self.n_slices // 2
        if self.centre_slice_only:
            depth = volume.shape[2]
            centre = (depth - 1) // 2
            first, last = centre - radius, centre + radius + 1
            slices = volume[:, :, max(0, first) : last]
            slices = functional.pad(slices, (0, 0, 0, 0, max(0, -first), max(0, last - depth)))
            return self._predict(slices.transpose(1, 2).flatten(1, 2)).unsqueeze(2)
        return self._predict_volume(functional.pad(volume, (0, 0, 0, 0, radius, radius)))

    # Chunks and empty stacks depend on data and device; the 2D network itself is compiled all the same. Each function
    # on the way to it must say so: what a function left out calls is compiled.
    @uncompiled
    def _predict_volume(self, padded: Tensor) -> Tensor:
        """Logits of a volume that has n_slices // 2 slices of zeros at either end."""
        left, right, top, bottom = self._in_plane_padding(padded)
        if not any((left, right, top, bottom)):
            return self._predict_slices(padded, False)[0]
        inner = (..., slice(top, padded.shape[3] - bottom), slice(left, padded.shape[4] - right))
        computed, empty = self._predict_slices(padded[inner], True)
        height, width = computed.shape[3:]
        logits = computed.new_empty((*computed.shape[:3], *padded.shape[3:]))
        # Not zero: with several windows it may be background of the image, and zero is a probability of one half.
        logits[:] = empty[:, :, None, height // 2 : height // 2 + 1, width // 2 : width // 2 + 1]
        logits[inner] = computed
        return logits

    @uncompiled
    def _in_plane_padding(self, padded: Tensor) -> tuple[int, int, int, int]:
        """Columns left and right, rows above and below that are not computed, as ``functional.pad`` takes them."""
        if self.training or self.padding_beyond is None:
            return (0, 0, 0, 0)
        (top, bottom), (left, right) = (
            ((size - inner) // 2, size - inner - (size - inner) // 2) if size > inner else (0, 0)
            for size, inner in zip(padded.shape[3:], self.padding_beyond, strict=True)
        )
        height, width = padded.shape[3:]
        rows = (padded[..., :top, :], padded[..., height - bottom :, :])
        columns = (padded[..., :left], padded[..., width - right :])
        if any(bool((strip != 0).any()) for strip in (*rows, *columns)):
            return (0, 0, 0, 0)
        return left, right, top, bottom

    @uncompiled
    def _predict_slices(self, padded: Tensor, empty_too: bool) -> tuple[Tensor, Tensor]:
        """:meth:`_predict_volume` of all that it is given, and the logits of the last stack computed, (B, K, H, W): an
        empty one if ``empty_too``.
        """
        # (B, C, D, H, W, n_slices), a view -> one stack of n_slices * C channels per slice.
        stacks = padded.unfold(2, self.n_slices, 1).permute(0, 2, 5, 1, 3, 4)
        depth = stacks.shape[1]
        empty = [False] * depth
        if not self.training:
            empty = self._empty_stacks((padded != 0).any(4).any(3).any(1).any(0).tolist())
        to_compute: list[int | None] = [z for z in range(depth) if not empty[z]]
        position = {z: i for i, z in enumerate(to_compute)}
        source = [len(to_compute) if empty[z] else position[z] for z in range(depth)]
        if any(empty) or empty_too:
            to_compute.append(None)  # one empty stack stands for all

        size = self.slices_per_pass or self._slices_that_fit(padded)
        size = math.ceil(len(to_compute) / math.ceil(len(to_compute) / size))  # passes of equal size
        chunks, start = [], 0
        while start < len(to_compute):
            chosen = to_compute[start : start + size]
            try:
                # Copied slice by slice: indexing would first copy the whole chunk once more.
                of_slices = (torch.zeros_like(stacks[:, 0]) if z is None else stacks[:, z] for z in chosen)
                stack = torch.cat([of_slice.flatten(1, 2) for of_slice in of_slices])
                logits = self._predict(stack)
            except torch.cuda.OutOfMemoryError:
                if self.slices_per_pass or size == 1:
                    raise
                size = -(-size // 2)
                continue
            chunks.append(logits.reshape(len(chosen), -1, *logits.shape[1:]))
            start += size
        logits = torch.cat(chunks)
        last = logits[-1]
        if source != list(range(len(logits))):
            logits = logits[torch.tensor(source, device=logits.device)]
        return logits.permute(1, 2, 0, 3, 4), last

    @uncompiled
    def _empty_stacks(self, filled: list[bool]) -> list[bool]:
        """For every slice whether it gets the logits of an empty stack.

        ``filled`` says of every slice, with ``n_slices // 2`` beyond either end, whether anything in it is not zero.
        """
        radius = self.n_slices // 2
        empty = [not any(filled[z : z + self.n_slices]) for z in range(len(filled) - 2 * radius)]
        if self.skip_padding and any(filled):
            first, last = filled.index(True) - radius, len(filled) - 1 - filled[::-1].index(True) - radius
            empty = [none or not first <= z <= last for z, none in enumerate(empty)]
        return empty

    def _predict(self, stack: Tensor) -> Tensor:
        """The 2D network, (N, n_slices * C, H, W) -> (N, K, H, W), of any in-plane size."""
        height, width = stack.shape[-2:]
        # In-plane sizes that the strides do not divide are padded and cropped back.
        extra = (-height % self.output_stride, -width % self.output_stride)
        if any(extra):
            stack = functional.pad(stack, (0, extra[1], 0, extra[0]))
        if stack.device.type == "cpu":  # about half the time there
            stack = stack.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(stack)
        return logits[..., :height, :width]

    def _slices_that_fit(self, volume: Tensor) -> int:
        budget = _CPU_BUDGET
        if volume.is_cuda:
            free, _ = torch.cuda.mem_get_info(volume.device)
            unused = torch.cuda.memory_reserved(volume.device) - torch.cuda.memory_allocated(volume.device)
            budget = (free + unused) // 2
        per_slice = volume.shape[0] * volume.shape[-2] * volume.shape[-1] * _BYTES_PER_VOXEL
        fitting = int(min(max(budget // per_slice, 1), _LARGEST_PASS))
        return 1 << int(math.log2(fitting))  # the same for every window, though free memory varies a little

    def load_pretrained_encoder(self) -> None:
        """Replace the encoder's random weights by those that ``encoder_weights`` names; without a name do nothing.

        The first convolution is adapted to the stacked channels: its pretrained filters are repeated over them and
        scaled, so that the sum over channels stays. Group normalisation takes over scale and offset of the batch
        normalisation it replaces.

        Raises:
            ValueError: there are no such weights for this encoder, or they are neither stored nor can be downloaded.
        """
        if self.encoder_weights is None:
            return
        name, in_channels = self._encoder
        log = logging.getLogger("huggingface_hub")  # it reports every attempt
        level = log.level
        log.setLevel(logging.CRITICAL)
        try:
            pretrained = get_encoder(
                name, in_channels=in_channels, weights=self.encoder_weights, output_stride=self.output_stride
            )
        except KeyError as error:
            raise ValueError(f"encoder_weights {self.encoder_weights!r} of encoder {name}: {error.args[0]}") from error
        except Exception as error:  # the download fails in as many ways as networks do
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"encoder_weights {self.encoder_weights!r} of encoder {name} are not stored on this machine and could "
                f"not be downloaded ({type(error).__name__}: {reason}); load them once where there is a connection, "
                "or plan without pretrained weights"
            ) from error
        finally:
            log.setLevel(level)
        encoder = cast("_EncoderDecoder", self.network).encoder
        own = encoder.state_dict()
        encoder.load_state_dict({key: value for key, value in pretrained.state_dict().items() if key in own})

    @property
    def decoder(self) -> NoReturn:
        """What nnU-Net's own trainers switch deep supervision by; there is none here.

        Raises:
            InputError: always.
        """
        _refuse_foreign_trainer()

    def last_layers(self) -> list[nn.Module]:
        """The layer whose output are the logits."""
        head = cast("_EncoderDecoder", self.network).segmentation_head
        return [cast(nn.Module, head.seg_layers)]


class _EncoderDecoder(Protocol):
    """What is asked of the networks of segmentation_models_pytorch."""

    encoder: nn.Module
    segmentation_head: nn.Sequential


def centre_slice(target: Tensor | list[Tensor]) -> Tensor:
    """The part of a training target (B, 1, D, H, W) that ``centre_slice_only`` predicts, (B, 1, 1, H, W).

    Raises:
        TypeError: it is a list, as with deep supervision.
    """
    if isinstance(target, list):
        raise TypeError("a 2.5d target must be one tensor: the network has no deep supervision")
    middle = (target.shape[2] - 1) // 2
    return target[:, :, middle : middle + 1]


def _refuse_foreign_trainer() -> NoReturn:
    refuse(
        InputError(
            "the 2.5d network has one output, and nnU-Net's own trainers need deep supervision: train and predict it "
            "with a trainer of nnunet-lopsided, such as -tr nnUNetTrainer25D (nnU-Net's own loss) or "
            "-tr nnUNetTrainerLopsided"
        )
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _with_group_norm(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            n = child.num_features
            groups = next(g for g in (16, 8, 4, 2, 1) if n % g == 0 and n > g)
            if isinstance(child, BatchNormAct2d):  # timm's, which is an activation too
                norm: nn.Module = GroupNormAct(n, groups, apply_act=False)
                norm.drop, norm.act = child.drop, child.act
            else:
                norm = nn.GroupNorm(groups, n)
            setattr(module, name, norm)
        else:
            _with_group_norm(child)
    return module
