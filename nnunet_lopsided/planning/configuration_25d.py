"""The ``2.5d`` configuration: what it is (a pure function) and how it gets into a dataset's plans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

# Python's own is not enough for pydantic before Python 3.12.
from typing_extensions import TypedDict

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.files.schema import Positive, PositiveWhole, validated
from nnunet_lopsided.nnunet.dataset_json import channel_names, label_scheme, read_dataset_json
from nnunet_lopsided.nnunet.plans import Plans, add_to_plans, read_plans, resolved_configuration
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.planning.lesion_fingerprint import FILE, measure_lesions
from nnunet_lopsided.planning.rules_25d import (
    LesionSizes,
    MemoryModel,
    NetworkArguments,
    Overrides,
    TrainingMemory,
    check_memory_target,
    choose_25d,
)

NAME = "2.5d"
_PARENT = "3d_fullres"
_NETWORK = "nnunet_lopsided.architectures.deeplabv3_25d.DeepLabV3For25D"


class Architecture25D(TypedDict):
    """The network, as nnU-Net's plans name one."""

    network_class_name: str
    arch_kwargs: NetworkArguments
    _kw_requires_import: list[str]


class Lopsided25D(TypedDict):
    """What our trainers read of the configuration, and why it is as it is."""

    training_patch: list[int]
    epochs: int
    iterations_per_epoch: int
    estimated_training_memory_bytes: int
    reasons: dict[str, str]


class Configuration25D(TypedDict):
    """``plans["configurations"]["2.5d"]``."""

    inherits_from: str
    patch_size: list[int]
    batch_size: int
    batch_dice: bool
    architecture: Architecture25D
    lopsided: Lopsided25D


class Fingerprint(TypedDict):
    """What planning reads of nnU-Net's dataset_fingerprint.json: the cases, in one order."""

    shapes_after_crop: list[Annotated[list[PositiveWhole], Field(min_length=2, max_length=3)]]
    spacings: list[Annotated[list[Positive], Field(min_length=2, max_length=3)]]


_FINGERPRINT = TypeAdapter(Fingerprint)


def configuration_25d(
    plans: Plans,
    fingerprint: Fingerprint,
    lesions: LesionSizes,
    memory: MemoryModel,
    memory_target_gib: float = 8.0,
    overrides: Overrides = Overrides(),  # noqa: B008 - frozen
) -> Configuration25D:
    """The configuration to store as ``plans["configurations"]["2.5d"]``; ``lopsided`` in it holds every reason.

    It inherits 3d_fullres, and with it spacing, normalisation and the preprocessed data. Its patch is the predictor's;
    for training, our trainers cut patches of ``n_slices`` and ``training_patch``.

    Args:
        plans: the content of nnUNetPlans.json, see :func:`~nnunet_lopsided.nnunet.plans.read_plans`.
        fingerprint: the content of dataset_fingerprint.json.
        lesions: see :func:`~nnunet_lopsided.planning.lesion_fingerprint.lesion_fingerprint`.
        memory: estimates training memory, see :func:`~nnunet_lopsided.planning.memory.training_memory`.
        memory_target_gib: GPU memory to plan for.
        overrides: choices made by the user; what they leave open, :func:`.choose_25d` decides.

    Raises:
        InputError: the plans have no 3d_fullres configuration (2D data), or an option is out of range.
    """
    configurations = plans["configurations"]
    if _PARENT not in configurations:
        raise InputError(
            f"plans {plans.get('plans_name')}: {NAME} needs a {_PARENT} configuration, found "
            f"{', '.join(configurations)}; for 2D images use nnU-Net's 2d"
        )
    try:
        spacing = resolved_configuration(plans, _PARENT)["spacing"]
        shapes = _resampled_shapes(fingerprint, plans["transpose_forward"], spacing)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"plans or dataset fingerprint are not what nnU-Net writes: {reason}") from error
    if not shapes:
        raise InputError("the dataset fingerprint holds no cases")
    choices = choose_25d(shapes, spacing, lesions, memory, memory_target_gib, overrides)
    return {
        "inherits_from": _PARENT,
        "patch_size": [choices.depth.value, *choices.window.value],
        "batch_size": choices.batch_size.value,
        "batch_dice": True,
        "architecture": {"network_class_name": _NETWORK, "arch_kwargs": choices.network, "_kw_requires_import": []},
        "lopsided": {
            "training_patch": list(choices.patch.value),
            "epochs": choices.epochs.value,
            "iterations_per_epoch": choices.iterations_per_epoch.value,
            "estimated_training_memory_bytes": choices.memory.value,
            "reasons": choices.reasons(),
        },
    }


def add_configuration(
    dataset: int | str,
    plans_name: str = "nnUNetPlans",
    *,
    overwrite: bool = False,
    memory_target_gib: float = 8.0,
    overrides: Overrides = Overrides(),  # noqa: B008 - frozen
    n_workers: int = 2,
) -> tuple[Path, Configuration25D]:
    """Add the ``2.5d`` configuration to the plans of a dataset that nnU-Net has planned.

    The lesion fingerprint it goes by is written beside nnU-Net's, as ``lesion_fingerprint.json``.

    Args:
        dataset: id or name.
        plans_name: nnU-Net's plans identifier.
        overwrite: replace a ``2.5d`` configuration that differs.
        memory_target_gib: GPU memory to plan for.
        overrides: choices made by the user.
        n_workers: labels read at the same time.

    Returns:
        The plans file and the configuration.

    Raises:
        InputError: no plans, fingerprint or labels, a different ``2.5d`` without ``overwrite``, see
            :func:`configuration_25d`, or no network can be built from the options.
    """
    folder = preprocessed_folder(dataset)
    plans_file = folder / f"{plans_name}.json"
    plans = read_plans(plans_file)
    # nnU-Net's statistics of an empty class are NaN.
    fingerprint: Fingerprint = read_json(folder / "dataset_fingerprint.json", any_number=True)
    validated(_FINGERPRINT, fingerprint, folder / "dataset_fingerprint.json")
    dataset_json = read_dataset_json(folder / "dataset.json")
    n_classes = label_scheme(dataset_json, folder / "dataset.json").n_channels
    n_channels = len(channel_names(dataset_json, folder / "dataset.json"))

    def memory(network: NetworkArguments, patch: tuple[int, int]) -> TrainingMemory:
        from nnunet_lopsided.planning.memory import training_memory

        try:
            return training_memory(network, n_channels, n_classes, patch)
        except ValueError as error:
            raise InputError(str(error)) from error

    check_memory_target(memory_target_gib)
    if overrides.encoder is not None:  # before anything long
        _check_network({"encoder": overrides.encoder}, n_channels, n_classes)
    lesions = measure_lesions(folder, n_workers)
    configuration = configuration_25d(plans, fingerprint, lesions, memory, memory_target_gib, overrides)
    if overrides.encoder_weights is not None:  # the network itself was built for the estimate
        _check_network(configuration["architecture"]["arch_kwargs"], n_channels, n_classes)
    add_to_plans(plans_file, NAME, configuration, overwrite=overwrite)
    write_json(folder / FILE, lesions)
    return plans_file, configuration


def _check_network(arguments: NetworkArguments, n_channels: int, n_classes: int) -> None:
    """Build the network and load its weights: what cannot be had is found now, not in training."""
    from nnunet_lopsided.architectures import DeepLabV3For25D

    try:
        DeepLabV3For25D(n_channels, n_classes, **arguments).load_pretrained_encoder()
    except ValueError as error:
        raise InputError(str(error)) from error


def _resampled_shapes(
    fingerprint: Fingerprint, transpose: list[int], target_spacing: list[float]
) -> list[tuple[int, ...]]:
    """Shape of every training case after cropping, transposing and resampling, as nnU-Net computes it."""
    cases = list(zip(fingerprint["shapes_after_crop"], fingerprint["spacings"], strict=True))
    for shape, spacing in cases:
        if len(shape) != len(spacing) or min(*shape, *spacing) <= 0:
            raise InputError(
                f"dataset fingerprint: expected shapes and spacings of as many axes, all above 0, found {shape} and "
                f"{spacing}"
            )
    # The plans have their spacing in the order of transpose_forward, the fingerprint all in that of the files.
    return [
        tuple(max(1, round(shape[a] * spacing[a] / t)) for a, t in zip(transpose, target_spacing, strict=True))
        for shape, spacing in cases
    ]
