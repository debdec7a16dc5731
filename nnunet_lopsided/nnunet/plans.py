"""The plans of a dataset: read and checked once, resolved as nnU-Net resolves them, and added to under a lock."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import Path
from typing import Annotated, cast

from pydantic import Field, TypeAdapter

# Python's own is not enough for pydantic before Python 3.12.
from typing_extensions import TypedDict

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json, update_json
from nnunet_lopsided.files.schema import Positive, PositiveWhole, validated
from nnunet_lopsided.nnunet.paths import check_case_name

# Of each axis; 2d has none across the slices.
_Sizes = Annotated[list[Positive], Field(min_length=2, max_length=3)]


class Architecture(TypedDict):
    """A network: its class, and what nnU-Net calls that with."""

    network_class_name: str
    arch_kwargs: dict[str, object]


class _Lopsided(TypedDict, total=False):
    """What ``lopsided-plan`` adds to a configuration for our trainers."""

    training_patch: Annotated[list[PositiveWhole], Field(min_length=2, max_length=2)]
    epochs: PositiveWhole
    iterations_per_epoch: PositiveWhole


class PlansConfiguration(TypedDict, total=False):
    """What our commands and nnU-Net's managers use of a configuration, which may inherit any of it."""

    inherits_from: str
    data_identifier: str
    preprocessor_name: str
    patch_size: Annotated[list[PositiveWhole], Field(min_length=2, max_length=3)]
    spacing: _Sizes
    batch_size: PositiveWhole
    normalization_schemes: list[str]
    use_mask_for_norm: list[bool]
    resampling_fn_data: str
    resampling_fn_seg: str
    resampling_fn_data_kwargs: dict[str, object]
    resampling_fn_seg_kwargs: dict[str, object]
    architecture: Architecture
    lopsided: _Lopsided


class _NeededOfPlans(TypedDict):
    plans_name: str
    configurations: dict[str, PlansConfiguration]


class Plans(_NeededOfPlans, total=False):
    """What is used of plans; nnU-Net's hold more, which is written again where plans are."""

    dataset_name: str
    image_reader_writer: str
    transpose_forward: list[int]
    transpose_backward: list[int]


_PLANS = TypeAdapter(Plans)
_KEYS = frozenset(_NeededOfPlans.__annotations__)


def read_plans(path: Path) -> Plans:
    """The content of a plans file.

    Raises:
        InputError: the file is missing, is no plans, or holds what cannot be: a spacing or patch that is not positive,
            axes that are no permutation, a configuration that inherits from one that does not exist or from itself.
    """
    # nnU-Net's statistics of an empty class are NaN.
    return check_plans(read_json(path, any_number=True), path)


def plans_in(folder: Path) -> dict[str, Plans]:
    """The plans in a preprocessed folder: content by file name, sorted.

    Other JSON files may lie there, and be of any kind. A file that cannot be read counts as plans where its name or
    folders of preprocessed data that are named after it say so.

    Raises:
        InputError: plans cannot be read or are not in order, see :func:`read_plans`.
    """
    by_name: dict[str, Plans] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):  # what a killed run left
            continue
        try:
            content = read_json(path, any_number=True)
        except InputError:
            if path.stem.endswith("Plans") or any(data.is_dir() for data in folder.glob(f"{escape(path.stem)}_*")):
                raise
            continue
        if isinstance(content, dict) and set(content) >= _KEYS:
            by_name[path.name] = check_plans(content, path)
    return by_name


def check_plans(content: object, path: Path) -> Plans:
    """Refuse plans with values that cannot be, see :func:`read_plans`; returns ``content`` itself."""
    validated(_PLANS, content, path)
    plans = cast(Plans, content)
    forward, backward = plans.get("transpose_forward"), plans.get("transpose_backward")
    for name, axes in (("transpose_forward", forward), ("transpose_backward", backward)):
        if axes is not None and (sorted(axes) != list(range(len(axes))) or len(axes) not in (2, 3)):
            raise InputError(f"{path}: {name}: expected an order of the axes such as [0, 1, 2], found {axes}")
    if forward is not None and backward is not None and [forward[axis] for axis in backward] != sorted(forward):
        raise InputError(f"{path}: transpose_backward: expected the inverse of {forward}, found {backward}")
    configurations = plans["configurations"]
    for name, configuration in configurations.items():
        where = f"configurations.{name}"
        if "data_identifier" in configuration:  # a folder is named after it
            check_case_name(configuration["data_identifier"], f"{path}: {where}.data_identifier")
        _check_stages(configuration, path, where)
        # Either may be inherited, so that only both together tell of a patch that does not fit.
        with_parents = _with_ancestors(configurations, name, path)
        patch, spacing = with_parents.get("patch_size"), with_parents.get("spacing")
        if patch is not None and spacing is not None and len(patch) != len(spacing):
            raise InputError(
                f"{path}: {where}: expected patch_size and spacing of as many axes, found {patch} and {spacing}"
            )
    return plans


def _check_stages(configuration: PlansConfiguration, path: Path, where: str) -> None:
    if "architecture" not in configuration:
        return
    n_stages = configuration["architecture"]["arch_kwargs"].get("n_stages")
    if n_stages is not None and (type(n_stages) is not int or n_stages < 1):
        raise InputError(
            f"{path}: {where}.architecture.arch_kwargs.n_stages: expected a whole number from 1 on, found {n_stages!r}"
        )


def _ancestors(configurations: Mapping[str, PlansConfiguration], name: str, path: Path) -> Iterator[str]:
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


def _with_ancestors(configurations: Mapping[str, PlansConfiguration], name: str, path: Path) -> PlansConfiguration:
    resolved: PlansConfiguration = {}
    # The farthest ancestor first: what is nearer replaces it.
    for ancestor in reversed(list(_ancestors(configurations, name, path))):
        resolved = {**resolved, **configurations[ancestor]}
    return resolved


def resolved_configuration(plans: Plans, name: str) -> PlansConfiguration:
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
    return _with_ancestors(configurations, name, Path(str(plans.get("plans_name"))))


def is_cascade(plans_file: Path, name: str) -> bool:
    """Whether a configuration, or one that it inherits from, needs the predictions of a previous stage.

    Raises:
        InputError: the file cannot be read or has no configurations.
    """
    # Not by check_plans: the plans beside a trained model may be of an older nnU-Net, which predicts with them still.
    configurations = read_json(plans_file, {"configurations": {str: dict}})["configurations"]
    seen: set[str] = set()
    while name in configurations and name not in seen:
        if configurations[name].get("previous_stage"):
            return True
        seen.add(name)
        name = configurations[name].get("inherits_from") or ""
    return False


def architecture_of(configuration: PlansConfiguration) -> Architecture:
    """The ``architecture`` of a resolved configuration; of plans from before nnU-Net 2.3 as nnU-Net makes it.

    Raises:
        InputError: it has none, and nnU-Net cannot make it.
    """
    if "architecture" in configuration:
        return configuration["architecture"]
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the plans are old
            made: Architecture = ConfigurationManager(dict(configuration)).configuration["architecture"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"expected an architecture in the plans, found none that nnU-Net knows: {reason}") from error
    return made


def add_to_plans(plans_file: Path, name: str, configuration: Mapping[str, object], *, overwrite: bool = False) -> None:
    """Add one configuration to plans, as they are now; another process that adds one too waits its turn.

    Args:
        plans_file: where they lie.
        name: of the configuration.
        configuration: its content.
        overwrite: replace another configuration of this name; the same one is no matter.

    Raises:
        InputError: the plans hold another configuration of this name.
    """

    def add(content: object) -> dict[str, object]:
        plans = check_plans(content, plans_file)
        if plans["configurations"].get(name) not in (None, configuration) and not overwrite:
            raise InputError(f"{plans_file}: holds another {name} configuration already; --overwrite replaces it")
        return {**plans, "configurations": {**plans["configurations"], name: configuration}}

    update_json(plans_file, add, any_number=True)
