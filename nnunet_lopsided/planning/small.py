"""Small versions of nnU-Net's own configurations, which a CPU trains in minutes: for studies and for trying things."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.nnunet.preprocessed import add_to_plans, preprocessed_folder

# Small configuration -> the one of nnU-Net's that it is made from.
PARENTS = {f"{parent}_small": parent for parent in ("2d", "3d_fullres")}
_FEATURES, _STAGES, _EDGE, _VOXELS = 8, 5, 128, 2**15
_PER_STAGE = ("kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")


def small_configuration(plans: dict[str, Any], name: str) -> dict[str, Any]:
    """A small version of a configuration of nnU-Net's: the same preprocessed data, a patch and a network for a CPU.

    The network keeps its kind, its kernels and strides, but has at most 5 stages, of 8, 16, 32, 64 and 64 features.
    The patch is the planned one, at most 128 voxels a side; the batch is of some 32768 voxels, at least 2 patches.

    Args:
        plans: the content of nnUNetPlans.json.
        name: ``2d_small`` or ``3d_fullres_small``.

    Raises:
        InputError: the plans do not hold the configuration it is made from.

    Example:
        >>> stages = {"n_stages": 2, "features_per_stage": [32, 64], "strides": [[1, 1], [2, 2]]}
        >>> planned = {"patch_size": [256, 192], "architecture": {"arch_kwargs": stages}}
        >>> small = small_configuration({"configurations": {"2d": planned}}, "2d_small")
        >>> small["patch_size"], small["batch_size"], small["architecture"]["arch_kwargs"]["features_per_stage"]
        ([128, 128], 2, [8, 16])
    """
    parent = PARENTS[name]
    configurations = plans.get("configurations", {})
    if parent not in configurations:
        raise InputError(f"plans {plans.get('plans_name')}: {name} needs {parent}, found {', '.join(configurations)}")
    planned = configurations[parent]
    network = dict(planned["architecture"]["arch_kwargs"])
    n = network["n_stages"] = min(_STAGES, network["n_stages"])
    network["features_per_stage"] = [_FEATURES * 2 ** min(i, 3) for i in range(n)]
    network |= {key: network[key][:n] for key in _PER_STAGE if key in network}
    if "n_conv_per_stage_decoder" in network:
        network["n_conv_per_stage_decoder"] = network["n_conv_per_stage_decoder"][: n - 1]
    patch = [min(_EDGE, edge) for edge in planned["patch_size"]]
    return {
        "inherits_from": parent,
        "patch_size": patch,
        "batch_size": max(2, round(_VOXELS / math.prod(patch))),
        "architecture": {**planned["architecture"], "arch_kwargs": network},
    }


def add_small_configuration(
    dataset: int | str, name: str, plans_name: str = "nnUNetPlans", *, overwrite: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Add a small configuration to the plans of a dataset that nnU-Net has planned.

    Args:
        dataset: id or name.
        name: ``2d_small`` or ``3d_fullres_small``.
        plans_name: nnU-Net's plans identifier.
        overwrite: replace another configuration of this name.

    Returns:
        The plans file and the configuration.

    Raises:
        InputError: no plans, see :func:`small_configuration`, or another configuration without ``overwrite``.
    """
    plans_file = preprocessed_folder(dataset) / f"{plans_name}.json"
    plans = read_json(plans_file)
    configuration = small_configuration(plans, name)
    add_to_plans(plans_file, plans, name, configuration, overwrite=overwrite)
    return plans_file, configuration
