"""The plans of a dataset: read and checked once, resolved as nnU-Net resolves them, and added to under a lock."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import check_shape, read_json, update_json
from nnunet_lopsided.nnunet.paths import check_case_name

# What plans must have, and what the values are that our commands and nnU-Net's PlansManager use of the rest.
_PLANS = {"plans_name": str, "configurations": {str: dict}}
_OF_PLANS: dict[str, Any] = {
    "transpose_forward": [int],
    "transpose_backward": [int],
    "image_reader_writer": str,
    "dataset_name": str,
}
_OF_CONFIGURATION: dict[str, Any] = {
    "inherits_from": str,
    "data_identifier": str,
    "preprocessor_name": str,
    "patch_size": [int],
    "spacing": [float],
    "batch_size": int,
    "normalization_schemes": [str],
    "use_mask_for_norm": [bool],
    "resampling_fn_data": str,
    "resampling_fn_seg": str,
    "resampling_fn_data_kwargs": dict,
    "resampling_fn_seg_kwargs": dict,
    "architecture": {"network_class_name": str, "arch_kwargs": dict},
}


def read_plans(path: Path) -> dict[str, Any]:
    """The content of a plans file.

    Raises:
        InputError: the file is missing, is no plans, or holds what cannot be: a spacing or patch that is not positive,
            axes that are no permutation, a configuration that inherits from one that does not exist or from itself.
    """
    content = read_json(path, _PLANS)
    check_plans(content, path)
    plans: dict[str, Any] = content
    return plans


def plans_in(folder: Path) -> dict[str, dict[str, Any]]:
    """The plans in a preprocessed folder: content by file name, sorted.

    Raises:
        InputError: a JSON file cannot be read, or plans are not in order, see :func:`read_plans`.
    """
    by_name = {}
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):  # what a killed run left
            continue
        content = read_json(path)
        if isinstance(content, dict) and set(_PLANS) <= set(content):
            by_name[path.name] = read_plans(path)
    return by_name


def check_plans(content: Mapping[str, Any], path: Path) -> None:
    """Refuse plans with values that cannot be; see :func:`read_plans`."""
    _check_known(content, _OF_PLANS, path, "")
    forward, backward = content.get("transpose_forward"), content.get("transpose_backward")
    for name, axes in (("transpose_forward", forward), ("transpose_backward", backward)):
        if axes is not None and (sorted(axes) != list(range(len(axes))) or len(axes) not in (2, 3)):
            raise InputError(f"{path}: {name}: expected an order of the axes such as [0, 1, 2], found {axes}")
    if forward is not None and backward is not None and [forward[axis] for axis in backward] != sorted(forward):
        raise InputError(f"{path}: transpose_backward: expected the inverse of {forward}, found {backward}")
    for name, configuration in content["configurations"].items():
        where = f"configurations.{name}"
        _check_known(configuration, _OF_CONFIGURATION, path, where)
        for key in ("patch_size", "spacing"):
            values = configuration.get(key)
            if values is not None and (len(values) not in (2, 3) or min(values) <= 0):
                raise InputError(f"{path}: {where}.{key}: expected 2 or 3 numbers above 0, found {values}")
        if configuration.get("batch_size", 1) < 1:
            raise InputError(f"{path}: {where}.batch_size: expected at least 1, found {configuration['batch_size']}")
        if "data_identifier" in configuration:  # a folder is named after it
            check_case_name(configuration["data_identifier"], f"{path}: {where}.data_identifier")
        _check_stages(configuration, path, where)
        for _ in _ancestors(content["configurations"], name, path):
            pass


def _check_known(content: Mapping[str, Any], shapes: Mapping[str, Any], path: Path, where: str) -> None:
    for key, shape in shapes.items():
        if key in content:
            check_shape(content[key], shape, path, f"{where}.{key}" if where else key)


def _check_stages(configuration: Mapping[str, Any], path: Path, where: str) -> None:
    network = configuration.get("architecture", {}).get("arch_kwargs", {})
    n_stages = network.get("n_stages")
    if n_stages is not None and (type(n_stages) is not int or n_stages < 1):
        raise InputError(
            f"{path}: {where}.architecture.arch_kwargs.n_stages: expected a whole number from 1 on, found {n_stages!r}"
        )


def _ancestors(configurations: Mapping[str, Any], name: str, path: Path) -> Iterator[str]:
    """The configuration and those it inherits from, nearest first."""
    seen: list[str] = []
    parent: str | None = name
    while parent is not None:
        if parent not in configurations:
            raise InputError(
                f"{path}: configurations.{seen[-1]}.inherits_from: expected one of {', '.join(configurations)}, found "
                f"{parent}"
            )
        if parent in seen:
            raise InputError(f"{path}: configurations.{name}: inherits from itself, by {' and '.join(seen)}")
        seen.append(parent)
        yield parent
        parent = configurations[parent].get("inherits_from")


def resolved_configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with all that it inherits.

    Args:
        plans: the content of checked plans.
        name: a configuration of them.

    Raises:
        InputError: the plans do not hold it.

    Source: ``PlansManager._internal_resolve_configuration_inheritance`` of nnU-Net 2.8.1: what a configuration says
        itself counts before what it inherits.

    Example:
        >>> parent = {"patch_size": [64, 64], "batch_size": 9}
        >>> plans = {"configurations": {"2d": parent, "2d_twice": {"inherits_from": "2d", "batch_size": 18}}}
        >>> resolved_configuration(plans, "2d_twice")
        {'patch_size': [64, 64], 'batch_size': 18, 'inherits_from': '2d'}
    """
    configurations = plans["configurations"]
    if name not in configurations:
        there = ", ".join(configurations)
        raise InputError(f"plans {plans.get('plans_name')}: expected the configuration {name}, found {there}")
    resolved: dict[str, Any] = {}
    for ancestor in reversed(list(_ancestors(configurations, name, Path(str(plans.get("plans_name")))))):
        resolved |= configurations[ancestor]
    return resolved


def is_cascade(configurations: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    """Whether a configuration, or one that it inherits from, needs the predictions of a previous stage."""
    seen: set[str] = set()
    while name in configurations and name not in seen:
        if configurations[name].get("previous_stage"):
            return True
        seen.add(name)
        name = configurations[name].get("inherits_from") or ""
    return False


def architecture_of(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The ``architecture`` of a resolved configuration; of plans from before nnU-Net 2.3 as nnU-Net makes it.

    Raises:
        InputError: it has none, and nnU-Net cannot make it.
    """
    if "architecture" in configuration:
        architecture: dict[str, Any] = configuration["architecture"]
        return architecture
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the plans are old
            made: dict[str, Any] = ConfigurationManager(dict(configuration)).configuration["architecture"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"expected an architecture in the plans, found none that nnU-Net knows: {reason}") from error
    return made


def add_to_plans(plans_file: Path, name: str, configuration: dict[str, Any], *, overwrite: bool = False) -> None:
    """Add one configuration to plans, as they are now; another process that adds one too waits its turn.

    Args:
        plans_file: where they lie.
        name: of the configuration.
        configuration: its content.
        overwrite: replace another configuration of this name; the same one is no matter.

    Raises:
        InputError: the plans hold another configuration of this name.
    """

    def add(plans: dict[str, Any]) -> dict[str, Any]:
        if plans["configurations"].get(name) not in (None, configuration) and not overwrite:
            raise InputError(f"{plans_file}: holds another {name} configuration already; --overwrite replaces it")
        return {**plans, "configurations": {**plans["configurations"], name: configuration}}

    update_json(plans_file, add, _PLANS)
