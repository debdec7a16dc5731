"""What a 2.5D network for a dataset should be like: from fingerprints to choices with their reasons, no files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Generic, Literal, TypedDict, TypeVar, cast

from nnunet_lopsided.errors import InputError

Decoder = Literal["deeplabv3", "deeplabv3plus"]
_Value = TypeVar("_Value")

_STEP = 16  # in-plane patch sizes are multiples of the largest output stride
_LARGEST_PATCH = 512
_LARGEST_BATCH, _GOOD_BATCH, _SMALLEST_BATCH = 32, 8, 2
_SLICES = (3, 7)
_ENCODERS = ("resnet50", "resnet34", "resnet18")  # the first that leaves room for a good batch
# In-plane diameter in voxels of a small lesion (first quartile), below which the finer network is chosen.
_TINY, _SMALL = 8, 16
_ITERATIONS, _EPOCHS, _NNUNET_ITERATIONS = (50, 500), (100, 1000), 250_000
# nnU-Net weights its windows by a Gaussian in 16 bits, whose standard deviation is an eighth of the window and its
# maximum 10. Where it is 7.5e-6, 5.3 standard deviations from the centre, a probability has an error of 2e-3. These
# margins put the corners of a volume at 5.25. Padding costs nothing.
_DEPTH_MARGIN, _IN_PLANE_MARGIN = 1.5, 1.25
# An outlier is so many times as large as the size that nine of ten cases have at most: judgement.
_OUTLIER_FACTOR = 1.5
_TRAINING_SHARE = 0.8  # of the cases, in nnU-Net's five folds


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Choices made by the user; None: by the rules.

    Attributes:
        n_slices: slices stacked into channels, odd.
        encoder: encoder of segmentation_models_pytorch.
        decoder: ``deeplabv3`` or ``deeplabv3plus``.
        output_stride: 8 or 16.
        in_plane_patch: patch height and width in voxels.
        batch_size: patches per training step.
        encoder_weights: pretrained weights; None: random ones.
    """

    n_slices: int | None = None
    encoder: str | None = None
    decoder: str | None = None
    output_stride: int | None = None
    in_plane_patch: tuple[int, int] | None = None
    batch_size: int | None = None
    encoder_weights: str | None = None

    def __post_init__(self) -> None:
        if self.n_slices is not None and (not _is_positive(self.n_slices) or self.n_slices % 2 == 0):
            raise InputError(f"slices must be a positive odd number, got {self.n_slices}")
        if self.batch_size is not None and not _is_positive(self.batch_size):
            raise InputError(f"batch size must be at least 1, got {self.batch_size}")
        patch = self.in_plane_patch
        if patch is not None and (len(patch) != 2 or not all(_is_positive(size) for size in patch)):
            raise InputError(f"patch must be two positive numbers, got {patch}")
        if self.decoder not in (None, "deeplabv3", "deeplabv3plus"):
            raise InputError(f"decoder must be deeplabv3 or deeplabv3plus, got {self.decoder}")
        if self.output_stride not in (None, 8, 16):
            raise InputError(f"output stride must be 8 or 16, got {self.output_stride}")


class NetworkArguments(TypedDict, total=False):
    """``arch_kwargs`` of :class:`~nnunet_lopsided.architectures.DeepLabV3For25D`, as far as they are planned."""

    n_slices: int
    encoder: str
    decoder: Decoder
    output_stride: int
    encoder_weights: str


class LesionSizes(TypedDict):
    """What the rules ask of :func:`~nnunet_lopsided.planning.lesion_fingerprint.lesion_fingerprint`."""

    diameter_mm_percentiles: dict[str, float] | None


@dataclass(frozen=True)
class Choice(Generic[_Value]):
    """A value and the reason for it, in one line."""

    value: _Value
    reason: str


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What :func:`choose_25d` decided.

    Attributes:
        slices: slices stacked into channels.
        patch: in-plane patch (height, width) of training in voxels of the resampled images.
        window: height and width of the prediction patch.
        depth: slices of the prediction patch.
        decoder: ``deeplabv3`` or ``deeplabv3plus``.
        output_stride: 8 or 16.
        encoder: encoder of segmentation_models_pytorch.
        encoder_weights: name of pretrained weights or None.
        batch_size: patches per training step.
        iterations_per_epoch: training iterations of one epoch.
        epochs: training epochs.
        memory: estimated peak bytes of training.
    """

    slices: Choice[int]
    patch: Choice[tuple[int, int]]
    window: Choice[tuple[int, int]]
    depth: Choice[int]
    decoder: Choice[Decoder]
    output_stride: Choice[int]
    encoder: Choice[str]
    encoder_weights: Choice[str | None]
    batch_size: Choice[int]
    iterations_per_epoch: Choice[int]
    epochs: Choice[int]
    memory: Choice[int]

    def reasons(self) -> dict[str, str]:
        """Reason by name."""
        return {field.name: getattr(self, field.name).reason for field in fields(self)}

    @property
    def network(self) -> NetworkArguments:
        """``arch_kwargs`` of :class:`~nnunet_lopsided.architectures.DeepLabV3For25D`."""
        return _network(
            slices=self.slices.value,
            encoder=self.encoder.value,
            decoder=self.decoder.value,
            stride=self.output_stride.value,
            weights=self.encoder_weights.value,
        )


@dataclass(frozen=True)
class TrainingMemory:
    """Estimated peak memory of training.

    Attributes:
        fixed_bytes: what does not depend on the batch: weights, gradients, momentum.
        bytes_per_patch: what every patch of the batch adds.
    """

    fixed_bytes: int
    bytes_per_patch: int

    def of_batch(self, batch_size: int) -> int:
        """Bytes with this batch size."""
        return self.fixed_bytes + batch_size * self.bytes_per_patch

    def largest_batch(self, budget_bytes: float) -> int:
        """The largest batch within the budget; 0 if not even one patch fits."""
        return max(0, int((budget_bytes - self.fixed_bytes) // self.bytes_per_patch))


MemoryModel = Callable[[NetworkArguments, tuple[int, int]], TrainingMemory]  # of arch_kwargs and patch


def choose_25d(
    shapes: Sequence[Sequence[int]],
    spacing_mm: Sequence[float],
    lesions: LesionSizes,
    memory: MemoryModel,
    memory_target_gib: float = 8.0,
    overrides: Overrides = Overrides(),
) -> Choices:
    """Choose the network, its patches and its schedule.

    - Slices: as many as a median lesion spans, odd, 3 to 7.
    - Patch and prediction patch go by the largest case, along every axis, that is no outlier: one that is more than 1.5
      times as large as nine of ten cases are. Several windows cover an outlier.
    - Patch: the largest slice, rounded up to multiples of 16, at most 512.
    - Prediction patch: 1.5 times the deepest case, and 1.25 times the patch where that is the whole slice, so that one
      window covers a volume, and that not at its ends.
    - Decoder and output stride: a quarter of the lesions below 8 voxels across: DeepLabv3+ at stride 8; below 16:
      DeepLabv3 at stride 8, the paper's; otherwise DeepLabv3+ at stride 16, which is cheaper.
    - Encoder: resnet50, or the largest smaller one that leaves room for a batch of 8; batch size: what the memory
      holds, at most 32 and no more than there are slices.
    - An epoch shows as many slices as there are to train on; epochs: as many as make nnU-Net's 250 000 iterations.

    Args:
        shapes: shape (z, y, x) of every case after cropping and resampling, z the axis of slices.
        spacing_mm: voxel size (z, y, x) after resampling.
        lesions: see :func:`~nnunet_lopsided.planning.lesion_fingerprint.lesion_fingerprint`.
        memory: estimates training memory.
        memory_target_gib: GPU memory to plan for.
        overrides: choices made by the user.

    Raises:
        InputError: ``memory_target_gib`` is not positive, or an override is out of range.
    """
    check_memory_target(memory_target_gib)
    percentiles = lesions.get("diameter_mm_percentiles")
    slices = _slices(spacing_mm[0], percentiles, overrides.n_slices)
    deepest, *largest = (_largest_but_outliers([shape[axis] for shape in shapes]) for axis in range(3))
    outliers = _outliers(shapes, (deepest, *largest))
    patch = _patch(largest, overrides.in_plane_patch, outliers)
    decoder, output_stride = _decoder_and_stride(max(spacing_mm[1:]), percentiles, overrides)
    weights = Choice(overrides.encoder_weights, "random weights" if overrides.encoder_weights is None else "as given")

    n_slices_total = sum(shape[0] for shape in shapes)
    budget = memory_target_gib * 2**30
    encoders = (overrides.encoder,) if overrides.encoder else _ENCODERS
    for encoder in encoders:
        arguments = _network(
            slices=slices.value,
            encoder=encoder,
            decoder=decoder.value,
            stride=output_stride.value,
            weights=weights.value,
        )
        needed = memory(arguments, patch.value)
        fitting = needed.largest_batch(budget)
        if fitting >= _GOOD_BATCH:
            break
    encoder_choice = Choice(encoder, _reason_for_encoder(encoder, encoders, fitting, memory_target_gib, overrides))
    batch = _batch(fitting, n_slices_total, memory_target_gib, overrides.batch_size)
    iterations, epochs = _schedule(n_slices_total, batch.value)
    return Choices(
        slices=slices,
        patch=patch,
        window=_window(largest, patch.value),
        depth=Choice(
            math.ceil(_DEPTH_MARGIN * deepest),
            f"one window covers the deepest case{outliers}, {deepest} slices, with a margin: near its edge nnU-Net's "
            "window is inexact",
        ),
        decoder=decoder,
        output_stride=output_stride,
        encoder=encoder_choice,
        encoder_weights=weights,
        batch_size=batch,
        iterations_per_epoch=iterations,
        epochs=epochs,
        memory=Choice(
            needed.of_batch(batch.value), "peak of GPU memory in training, estimated without a GPU, not measured"
        ),
    )


def check_memory_target(gib: float) -> None:
    """Raise :class:`InputError` unless there is memory to plan for."""
    if not 0 < gib < math.inf:
        raise InputError(f"GPU memory target must be above 0, got {gib:g}")


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _network(*, slices: int, encoder: str, decoder: Decoder, stride: int, weights: str | None) -> NetworkArguments:
    arguments: NetworkArguments = {
        "n_slices": slices,
        "encoder": encoder,
        "decoder": decoder,
        "output_stride": stride,
    }
    return arguments if weights is None else {**arguments, "encoder_weights": weights}


def _slices(spacing_mm: float, percentiles: Mapping[str, float] | None, given: int | None) -> Choice[int]:
    if given is not None:
        return Choice(given, "as given")
    if percentiles is None:
        return Choice(5, "no lesions to go by: 5, as in Yi et al. 2020")
    spans = percentiles["50"] / spacing_mm
    value = min(max(2 * math.floor(spans / 2) + 1, _SLICES[0]), _SLICES[1])
    return Choice(
        value, f"a median lesion of {percentiles['50']:.1f} mm spans {spans:.1f} slices of {spacing_mm:g} mm (3 to 7)"
    )


def _largest_but_outliers(sizes: Sequence[int]) -> int:
    """The largest size that is not far above nine of ten; of fewer than ten sizes the largest.

    Example:
        >>> [_largest_but_outliers(sizes) for sizes in ([30] * 49 + [900], [100] * 15 + [150], [1, 9])]
        [30, 150, 9]
    """
    # The size of rank 0.9 n, rounded up: // rounds down, so of the negative number up.
    usual = sorted(sizes)[-(-9 * len(sizes) // 10) - 1]
    return max(size for size in sizes if size <= _OUTLIER_FACTOR * usual)


def _outliers(shapes: Sequence[Sequence[int]], limits: Sequence[int]) -> str:
    """In words, which cases do not count; empty where all do."""
    beyond = [shape for shape in shapes if any(size > limit for size, limit in zip(shape, limits, strict=True))]
    if not beyond:
        return ""
    largest = " x ".join(str(max(shape[axis] for shape in beyond)) for axis in range(3))
    cases = f"{len(beyond)} of {len(shapes)} cases"
    return f" but {cases}, of up to {largest}, far larger than nine of ten: several windows cover these"


def _patch(largest: Sequence[int], given: tuple[int, int] | None, outliers: str) -> Choice[tuple[int, int]]:
    size = f"{largest[0]} x {largest[1]}"
    if given is not None:
        wanted, reason = list(given), "as given, in multiples of 16"
    elif max(largest) <= _LARGEST_PATCH:
        wanted, reason = list(largest), f"the whole slice (largest {size}{outliers}), in multiples of 16"
    else:
        wanted = [min(n, _LARGEST_PATCH) for n in largest]
        reason = f"slices (largest {size}{outliers}) do not fit: at most {_LARGEST_PATCH} a side"
    height, width = (math.ceil(n / _STEP) * _STEP for n in wanted)
    return Choice((height, width), reason)


def _window(largest: Sequence[int], patch: tuple[int, int]) -> Choice[tuple[int, int]]:
    if any(size > side for size, side in zip(largest, patch, strict=True)):
        return Choice(patch, "the patch: several windows cover a slice")
    # As much on either side, so that a case lies in the patch as nnU-Net's padding would put it there.
    height, width = (side + 2 * math.ceil((_IN_PLANE_MARGIN - 1) / 2 * side) for side in patch)
    return Choice(
        (height, width), "the patch, with a margin: near its edge nnU-Net's window is inexact; padding costs nothing"
    )


def _decoder_and_stride(
    spacing_mm: float, percentiles: Mapping[str, float] | None, overrides: Overrides
) -> tuple[Choice[Decoder], Choice[int]]:
    decoder: Decoder
    if percentiles is None:
        decoder, stride, reason = "deeplabv3", 8, "no lesions to go by: as in Yi et al. 2020"
    else:
        across = percentiles["25"] / spacing_mm
        if across < _TINY:
            decoder, stride, why = "deeplabv3plus", 8, "tiny: the finest network"
        elif across < _SMALL:
            decoder, stride, why = "deeplabv3", 8, "small: the paper's network"
        else:
            decoder, stride, why = "deeplabv3plus", 16, "large enough for the cheaper stride"
        reason = f"a quarter of the lesions is at most {across:.1f} voxels across, {why}"
    return (
        # Which of the two it is, Overrides has checked.
        Choice(cast(Decoder, overrides.decoder), "as given") if overrides.decoder else Choice(decoder, reason),
        Choice(overrides.output_stride, "as given") if overrides.output_stride else Choice(stride, reason),
    )


def _reason_for_encoder(
    encoder: str, tried: Sequence[str], fitting: int, target_gib: float, overrides: Overrides
) -> str:
    if overrides.encoder:
        return "as given"
    room = f"{target_gib:g} GiB hold batches of {fitting}"
    if encoder == tried[0]:
        return f"the default; {room}"
    if fitting >= _GOOD_BATCH:
        return f"larger encoders leave no room for a batch of {_GOOD_BATCH}; {room}"
    return f"the smallest; even so {room}"


def _batch(fitting: int, n_slices_total: int, target_gib: float, given: int | None) -> Choice[int]:
    room = f"the estimate allows {fitting} in {target_gib:g} GiB"
    if given is not None:
        return Choice(given, f"as given; {room}")
    value = max(min(fitting, _LARGEST_BATCH, n_slices_total), _SMALLEST_BATCH)
    if fitting < _SMALLEST_BATCH:
        return Choice(value, f"the smallest; {room}: it will need more")
    return Choice(value, f"{room}; at most {_LARGEST_BATCH}, and no more than the {n_slices_total} slices there are")


def _schedule(n_slices_total: int, batch_size: int) -> tuple[Choice[int], Choice[int]]:
    n_training = max(1, round(_TRAINING_SHARE * n_slices_total))
    one_pass = math.ceil(n_training / batch_size)
    iterations = min(max(one_pass, _ITERATIONS[0]), _ITERATIONS[1])
    epochs = min(max(round(_NNUNET_ITERATIONS / iterations), _EPOCHS[0]), _EPOCHS[1])
    return (
        Choice(
            iterations,
            f"{one_pass} batches show as many slices as a fold trains on, {n_training} "
            f"({_ITERATIONS[0]} to {_ITERATIONS[1]})",
        ),
        Choice(
            epochs,
            f"{epochs * iterations} iterations in all, nnU-Net's are {_NNUNET_ITERATIONS} "
            f"({_EPOCHS[0]} to {_EPOCHS[1]} epochs)",
        ),
    )
