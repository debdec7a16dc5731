"""The ``2.5d`` configuration: what it is (a pure function) and how it gets into a dataset's plans."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet_layout import preprocessed_folder, read_json, write_json

NAME = "2.5d"
_PARENT = "3d_fullres"
_NETWORK = "nnunet_lopsided.architectures.deeplabv3_25d.DeepLabV3For25D"
_MULTIPLE = 16  # in-plane patch sizes are multiples of the largest output stride
_LARGEST_BATCH = 32


def configuration_25d(
    plans: dict[str, Any],
    fingerprint: dict[str, Any],
    *,
    n_slices: int = 5,
    encoder: str = "resnet50",
    decoder: str = "deeplabv3",
    output_stride: int = 8,
    in_plane_patch: tuple[int, int] | None = None,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """The configuration to store as ``plans["configurations"]["2.5d"]``.

    It inherits 3d_fullres, and with it spacing, normalisation and the preprocessed data. The depth of the patch is the
    predictor's: the deepest training case, so that one window covers a volume and every slice is computed once. For
    training, our trainers cut patches of ``n_slices``.

    Args:
        plans: the content of nnUNetPlans.json.
        fingerprint: the content of dataset_fingerprint.json.
        n_slices: slices stacked into channels, odd.
        encoder: encoder of segmentation_models_pytorch.
        decoder: ``deeplabv3`` or ``deeplabv3plus``.
        output_stride: 8 or 16.
        in_plane_patch: patch height and width in voxels; default: that of nnU-Net's 2d configuration.
        batch_size: default: that of nnU-Net's 2d configuration, at most 32.

    Raises:
        InputError: the plans have no 3d_fullres (2D data) or no 2d configuration, or an option is out of range.
    """
    configurations = plans.get("configurations") if isinstance(plans, dict) else None
    if not isinstance(configurations, dict):
        raise InputError("expected nnU-Net plans with 'configurations', found something else")
    if _PARENT not in configurations:
        raise InputError(
            f"plans {plans.get('plans_name')}: {NAME} needs a {_PARENT} configuration, found "
            f"{', '.join(configurations)}; for 2D images use nnU-Net's 2d"
        )
    if "2d" not in configurations:
        raise InputError(
            f"plans {plans.get('plans_name')}: {NAME} takes its in-plane patch from the 2d configuration, "
            f"found {', '.join(configurations)}"
        )
    if n_slices < 1 or n_slices % 2 == 0:
        raise InputError(f"slices must be a positive odd number, got {n_slices}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    if in_plane_patch is not None and any(size < 1 for size in in_plane_patch):
        raise InputError(f"patch must be two positive numbers, got {in_plane_patch}")
    in_plane = in_plane_patch or configurations["2d"]["patch_size"]
    in_plane = [math.ceil(size / _MULTIPLE) * _MULTIPLE for size in in_plane]
    spacing = configurations[_PARENT]["spacing"]
    return {
        "inherits_from": _PARENT,
        "patch_size": [_deepest(fingerprint, plans["transpose_forward"], spacing[0]), *in_plane],
        "batch_size": batch_size or min(configurations["2d"]["batch_size"], _LARGEST_BATCH),
        "batch_dice": True,
        "architecture": {
            "network_class_name": _NETWORK,
            "arch_kwargs": {
                "n_slices": n_slices,
                "encoder": encoder,
                "decoder": decoder,
                "output_stride": output_stride,
            },
            "_kw_requires_import": [],
        },
    }


def add_configuration(
    dataset: int | str, plans_name: str = "nnUNetPlans", *, overwrite: bool = False, **options: Any
) -> tuple[Path, dict[str, Any]]:
    """Add the ``2.5d`` configuration to the plans of a dataset that nnU-Net has planned.

    Args:
        dataset: id or name.
        plans_name: nnU-Net's plans identifier.
        overwrite: replace a ``2.5d`` configuration that differs.
        **options: see :func:`configuration_25d`.

    Returns:
        The plans file and the configuration.

    Raises:
        InputError: no plans, no fingerprint, a different ``2.5d`` without ``overwrite``, or see
            :func:`configuration_25d`, or no network can be built from the options.
    """
    folder = preprocessed_folder(dataset)
    plans_file = folder / f"{plans_name}.json"
    plans = read_json(plans_file)
    configuration = configuration_25d(plans, read_json(folder / "dataset_fingerprint.json"), **options)
    present = plans["configurations"].get(NAME)
    if present not in (None, configuration) and not overwrite:
        raise InputError(f"{plans_file}: holds another {NAME} configuration already; --overwrite replaces it")
    _check_network(configuration["architecture"]["arch_kwargs"])
    plans["configurations"][NAME] = configuration
    write_json(plans_file, plans)
    return plans_file, configuration


def _check_network(arguments: dict[str, Any]) -> None:
    """Build the network once: what cannot be built is found now, not in training."""
    from nnunet_lopsided.architectures import DeepLabV3For25D

    try:
        DeepLabV3For25D(1, 2, **arguments)
    except Exception as error:  # encoders that are unknown or cannot be dilated fail in many ways
        raise InputError(f"encoder {arguments['encoder']} cannot be used: {error}") from error


def _deepest(fingerprint: dict[str, Any], transpose: list[int], target_spacing: float) -> int:
    """Slices of the deepest training case after cropping and resampling."""
    axis = transpose[0]
    shapes, spacings = fingerprint["shapes_after_crop"], fingerprint["spacings"]
    return max(
        max(1, round(shape[axis] * spacing[axis] / target_spacing))
        for shape, spacing in zip(shapes, spacings, strict=True)
    )
