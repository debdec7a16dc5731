"""What nnU-Net 2.6 and 2.7 do otherwise than 2.8, in one place: everything else is written for 2.8 and asks here.

- **The look-up of trainers.** Only 2.8 searches the folders of ``nnUNet_extTrainer``. The start-up line
  (:mod:`nnunet_lopsided.startup`) has :func:`look_up` load nnU-Net's module that finds classes; in 2.6 and 2.7 its
  function then searches these folders, too. So nnU-Net's own commands find our trainers, and the user's, in all three.
- **The network of a trainer.** 2.6 hands over what the plans say of the architecture, 2.7 and 2.8 plans and
  configuration: :func:`called_by_nnunet`, :func:`build_network`.
- **The log of a training.** 2.6 has neither the values of a step nor a configuration: :func:`logged`,
  :func:`log_configuration`.

nnU-Net is imported inside of functions: the first of these runs while nnU-Net itself is being imported.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, TypeAlias

from nnunet_lopsided.startup import LOOK_UP, VARIABLE

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
    from torch import nn

# With which the tests have run (make versions), the newest last: that of constraints.txt.
TESTED = ("2.6.4", "2.7.0", "2.8.1")
_TRAINERS = "nnunetv2.training.nnUNetTrainer"
FindClass: TypeAlias = Callable[..., "type | None"]


class _Logger(Protocol):
    """nnU-Net's, of 2.7 and 2.8; that of 2.6 has a dict of lists instead."""

    my_fantastic_logging: dict[str, list[float]]
    get_value: Callable[..., float]
    update_config: Callable[[dict[str, object]], None]


# ---- the look-up of trainers


def look_up(path: list[str] | None = None) -> ModuleSpec | None:
    """nnU-Net's module ``LOOK_UP`` as Python finds it, to be loaded with :func:`searching_external_folders`.

    Args:
        path: where the package that holds it looks for its modules, as an import gives it.

    Returns:
        None where it is not installed.
    """
    spec = PathFinder.find_spec(LOOK_UP, path)
    if spec is None or spec.loader is None:
        return spec
    execute = spec.loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        module.recursive_find_python_class = searching_external_folders(module.recursive_find_python_class)  # type: ignore[attr-defined]

    spec.loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec


def searching_external_folders(find: FindClass) -> FindClass:
    """nnU-Net's function that finds a class; where it knows no other folders than nnU-Net's, for trainers it gets them.

    Args:
        find: of 2.6 and 2.7: (folder, name of the class, name of the folder as a module) -> class or None. That of 2.8
            has further parameters, searches by itself, and is returned as it is.
    """
    if "base_folder" in signature(find).parameters:
        return find

    @wraps(find)
    def with_external_folders(folder: str, class_name: str, current_module: str) -> type | None:
        found = find(folder, class_name, current_module)
        # It calls itself for the folders below: only the whole search has failed.
        return _external_trainer(class_name) if found is None and current_module == _TRAINERS else found

    return with_external_folders


def find_trainer(name: str) -> type:
    """The class that nnU-Net's commands would train, by nnU-Net's own look-up.

    Raises:
        RuntimeError: nnU-Net does not find it.
    """
    try:
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    except ModuleNotFoundError:
        pass
    else:
        found: type = recursive_find_trainer_class_by_name(name)
        return found
    # As run_training.get_trainer_from_args and nnUNetPredictor of 2.6 and 2.7.
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = os.path.join(nnunetv2.__path__[0], "training", "nnUNetTrainer")
    trainer: type | None = recursive_find_python_class(folder, name, _TRAINERS)
    if trainer is None:
        raise RuntimeError(f"Could not find requested nnunet trainer {name} in {_TRAINERS} ({folder})")
    return trainer


def _external_trainer(name: str) -> type | None:
    for folder in os.environ.get(VARIABLE, "").split(os.pathsep):
        if folder.strip() and os.path.isdir(folder):
            with _importable(folder):
                found = _search(folder, name)
            if found is not None:
                return found
    return None


def _search(folder: str, name: str, package: str = "") -> type | None:
    """As nnU-Net 2.8 goes through a folder: the modules in it first, then the packages."""
    modules = sorted(pkgutil.iter_modules([folder]), key=lambda module: module.ispkg)
    for module in modules:
        if module.ispkg:
            found = _search(os.path.join(folder, module.name), name, f"{package}{module.name}.")
        else:
            found = getattr(import_module(f"{package}{module.name}"), name, None)
        if found is not None:
            return found
    return None


@contextmanager
def _importable(folder: str) -> Iterator[None]:
    """Inside, modules of the folder can be imported; afterwards they are forgotten, as another may have their name."""
    before = set(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        place = Path(folder).resolve()
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).resolve().is_relative_to(place):
                del sys.modules[name]


# ---- the network of a trainer


def build_network(
    build: Callable[..., nn.Module],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    num_input_channels: int,
    num_output_channels: int,
    enable_deep_supervision: bool = True,
) -> nn.Module:
    """The network that ``build_network_architecture`` of a trainer makes, called as the installed nnU-Net calls it."""
    if _takes_managers(build):
        of_what: tuple[object, ...] = (plans_manager, configuration_manager)
    else:
        of_what = (
            configuration_manager.network_arch_class_name,
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
        )
    return build(*of_what, num_input_channels, num_output_channels, enable_deep_supervision=enable_deep_supervision)


def called_by_nnunet(stock: Callable[..., nn.Module]) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Makes a ``build_network_architecture`` of 2.8 one that the installed nnU-Net can call.

    That of 2.6 gets no configuration, which the 2.5d network needs: there, what a configuration says of the
    architecture is made to remember the configuration.

    Args:
        stock: that of nnU-Net's own trainer, whose signature tells.

    Returns:
        A decorator; what it makes gets ``plans_manager=None`` in 2.6.
    """
    if _takes_managers(stock):
        return lambda build: build
    _remember_configurations()

    def of_2_6(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        def build_network_architecture(
            architecture_class_name: str,
            arch_init_kwargs: Mapping[str, object],
            arch_init_kwargs_req_import: list[str] | tuple[str, ...],
            num_input_channels: int,
            num_output_channels: int,
            enable_deep_supervision: bool = True,
        ) -> nn.Module:
            configuration = getattr(arch_init_kwargs, "configuration", None) or _configuration_of(
                architecture_class_name, arch_init_kwargs, arch_init_kwargs_req_import
            )
            return build(None, configuration, num_input_channels, num_output_channels, enable_deep_supervision)

        return build_network_architecture

    return of_2_6


def _takes_managers(build: Callable[..., nn.Module]) -> bool:
    return "plans_manager" in signature(build).parameters  # as nnU-Net 2.7 and 2.8 tell


class _ArchKwargs(dict[str, object]):
    """What a configuration says of the architecture, with that configuration."""

    configuration: ConfigurationManager


def _remember_configurations() -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    says: property = ConfigurationManager.network_arch_init_kwargs

    def network_arch_init_kwargs(configuration: ConfigurationManager) -> _ArchKwargs:
        assert says.fget is not None, "a property that is read"
        kwargs = _ArchKwargs(says.fget(configuration))
        kwargs.configuration = configuration
        return kwargs

    ConfigurationManager.network_arch_init_kwargs = property(network_arch_init_kwargs)


def _configuration_of(
    class_name: str, kwargs: Mapping[str, object], to_import: list[str] | tuple[str, ...]
) -> ConfigurationManager:
    """Of what somebody else than nnU-Net hands over; it has no patch, which a 2.5d network needs."""
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    architecture = {"network_class_name": class_name, "arch_kwargs": kwargs, "_kw_requires_import": to_import}
    return ConfigurationManager({"architecture": architecture})


# ---- the log of a training


def logged(logger: _Logger, name: str) -> float:
    """What nnU-Net has logged last under this name."""
    return logger.get_value(name, step=-1) if hasattr(logger, "get_value") else logger.my_fantastic_logging[name][-1]


def log_configuration(logger: _Logger, content: dict[str, object]) -> None:
    """Add to the configuration that a logger keeps; that of 2.6 keeps none."""
    if hasattr(logger, "update_config"):
        logger.update_config(content)
