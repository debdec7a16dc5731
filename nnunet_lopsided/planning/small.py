"""Small versions of nnU-Net's own configurations, which a CPU trains in minutes: for studies and for trying things."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.plans import (
    Architecture,
    Plans,
    add_to_plans,
    architecture_of,
    read_plans,
    resolved_configuration,
)
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.planning.small_names import PARENTS

_FEATURES, _STAGES, _EDGE, _VOXELS = 8, 5, 128, 2**15
_PER_STAGE = ("kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")


class SmallConfiguration(TypedDict):
    """What a small configuration says itself; the rest is inherited."""

    inherits_from: str
    patch_size: list[int]
    batch_size: int
    architecture: Architecture


def small_configuration(plans: Plans, name: str, batch_size: int | None = None) -> SmallConfiguration:
    """A small version of a configuration of nnU-Net's: the same preprocessed data, a patch and a network for a CPU.

    The network keeps its kind, its kernels and strides, but has at most 5 stages, of 8, 16, 32, 64 and 64 features.
    The patch is the planned one, at most 128 voxels a side; the batch is of some 32768 voxels, at least 2 patches.

    Args:
        plans: the content of nnUNetPlans.json.
        name: ``2d_small`` or ``3d_fullres_small``.
        batch_size: patches per training step; None: as above.

    Raises:
        InputError: the plans do not hold the configuration it is made from, nnU-Net does not know its network, or the
            batch size is below 1.

    Example:
        >>> stages = {"n_stages": 2, "features_per_stage": [32, 64], "strides": [[1, 1], [2, 2]]}
        >>> planned = {"patch_size": [256, 192], "architecture": {"arch_kwargs": stages}}
        >>> small = small_configuration({"configurations": {"2d": planned}}, "2d_small")
        >>> small["patch_size"], small["batch_size"], small["architecture"]["arch_kwargs"]["features_per_stage"]
        ([128, 128], 2, [8, 16])
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    parent = PARENTS[name]
    if parent not in plans["configurations"]:
        there = ", ".join(plans["configurations"])
        raise InputError(f"plans {plans.get('plans_name')}: {name} needs {parent}, found {there}")
    planned = resolved_configuration(plans, parent)
    try:
        architecture = architecture_of(planned)
        network = _small_network(architecture["arch_kwargs"])
    except (InputError, KeyError, TypeError) as error:
        reason = str(error) if isinstance(error, InputError) else f"expected arch_kwargs of nnU-Net, found {error!r}"
        raise InputError(f"plans {plans.get('plans_name')}, configuration {parent}: {reason}") from error
    if "patch_size" not in planned:
        raise InputError(f"plans {plans.get('plans_name')}, configuration {parent}: expected a patch_size, found none")
    patch = [min(_EDGE, edge) for edge in planned["patch_size"]]
    return {
        "inherits_from": parent,
        "patch_size": patch,
        "batch_size": max(2, round(_VOXELS / math.prod(patch))) if batch_size is None else batch_size,
        "architecture": {**architecture, "arch_kwargs": network},
    }


def _small_network(planned: Mapping[str, object]) -> dict[str, object]:
    """The ``arch_kwargs`` of the small network, from those of the planned one."""
    network = dict(planned)
    n = network["n_stages"] = min(_STAGES, cast(int, network["n_stages"]))
    network["features_per_stage"] = [_FEATURES * 2 ** min(i, 3) for i in range(n)]
    for key, length in (*((key, n) for key in _PER_STAGE), ("n_conv_per_stage_decoder", n - 1)):
        values = network.get(key)
        if isinstance(values, list):  # a single value is that of every stage
            network[key] = values[:length]
    return network


def add_small_configuration(
    dataset: int | str,
    name: str,
    plans_name: str = "nnUNetPlans",
    *,
    batch_size: int | None = None,
    overwrite: bool = False,
) -> tuple[Path, SmallConfiguration]:
    """Add a small configuration to the plans of a dataset that nnU-Net has planned.

    Args:
        dataset: id or name.
        name: ``2d_small`` or ``3d_fullres_small``.
        plans_name: nnU-Net's plans identifier.
        batch_size: see :func:`small_configuration`.
        overwrite: replace another configuration of this name.

    Returns:
        The plans file and the configuration.

    Raises:
        InputError: no plans, see :func:`small_configuration`, or another configuration without ``overwrite``.
    """
    plans_file = preprocessed_folder(dataset) / f"{plans_name}.json"
    configuration = small_configuration(read_plans(plans_file), name, batch_size)
    add_to_plans(plans_file, name, configuration, overwrite=overwrite)
    return plans_file, configuration
