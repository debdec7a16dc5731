"""What nnU-Net 2.6 and 2.7 do otherwise: with stand-ins that have their signatures, whichever version is installed.

With these versions themselves all other tests run: ``make versions``.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from packaging.specifiers import SpecifierSet

from nnunet_lopsided.architectures.deeplabv3_25d import NETWORK_CLASS_NAME, DeepLabV3For25D
from nnunet_lopsided.nnunet import older_versions
from nnunet_lopsided.nnunet.older_versions import (
    TESTED,
    build_network,
    called_by_nnunet,
    log_configuration,
    logged,
    searching_external_folders,
)
from nnunet_lopsided.startup import SWITCH_OFF, VARIABLE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_tested_versions_are_allowed_the_newest_last() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (line,) = (line for line in project["dependencies"] if line.startswith("nnunetv2"))
    assert all(SpecifierSet(line.removeprefix("nnunetv2")).contains(version) for version in TESTED)
    assert list(TESTED) == sorted(TESTED)
    told = (REPOSITORY / "docs/reference/environment.md").read_text()
    assert all(version in told for version in TESTED)


# ---- the look-up of trainers

# nnunetv2/utilities/find_class_by_name.py of nnU-Net 2.6.4 and 2.7.0, but for its comment.
FIND_CLASS = """
import importlib
import pkgutil

from os.path import join


def recursive_find_python_class(folder: str, class_name: str, current_module: str):
    tr = None
    for importer, modname, ispkg in pkgutil.iter_modules([folder]):
        if not ispkg:
            m = importlib.import_module(current_module + "." + modname)
            if hasattr(m, class_name):
                tr = getattr(m, class_name)
                break

    if tr is None:
        for importer, modname, ispkg in pkgutil.iter_modules([folder]):
            if ispkg:
                next_current_module = current_module + "." + modname
                tr = recursive_find_python_class(join(folder, modname), class_name, current_module=next_current_module)
            if tr is not None:
                break
    return tr
"""
# As get_trainer_from_args of 2.6.4 looks for a trainer.
PROGRAM = """
import sys
{line}
before = list(sys.path)
import nnunetv2.utilities.find_class_by_name
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

for name in sys.argv[1:]:
    folder = nnunetv2.__path__[0] + "/training/nnUNetTrainer"
    found = recursive_find_python_class(folder, name, "nnunetv2.training.nnUNetTrainer")
    print(found and found.__module__ + " " + found.__doc__)
elsewhere = recursive_find_python_class(nnunetv2.__path__[0] + "/utilities", "nnUNetTrainerMine", "nnunetv2.utilities")
print(elsewhere, sys.path == before, sorted(name for name in sys.modules if "mine" in name), "torch" in sys.modules)
"""


@pytest.fixture
def old_nnunet(tmp_path: Path) -> Path:
    """A folder with a package nnunetv2 that looks for classes as 2.6 does, and has two trainers."""
    trainers = tmp_path / "old" / "nnunetv2" / "training" / "nnUNetTrainer"
    (trainers / "variants").mkdir(parents=True)
    utilities = tmp_path / "old" / "nnunetv2" / "utilities"
    utilities.mkdir()
    for folder in (trainers, trainers / "variants", trainers.parent, trainers.parents[1], utilities):
        (folder / "__init__.py").touch()
    (utilities / "find_class_by_name.py").write_text(FIND_CLASS)
    (trainers / "nnUNetTrainer.py").write_text("class nnUNetTrainer:\n    'stock'\n")
    (trainers / "variants" / "more.py").write_text("class nnUNetTrainerMore:\n    'stock'\n")
    return tmp_path / "old"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's folder, with a trainer in a package, one in a module, and one of a name that nnU-Net has."""
    (tmp_path / "mine" / "package_of_mine").mkdir(parents=True)
    (tmp_path / "mine" / "package_of_mine" / "__init__.py").touch()
    (tmp_path / "mine" / "package_of_mine" / "deep.py").write_text("class nnUNetTrainerDeep:\n    'own'\n")
    text = "class nnUNetTrainerMine:\n    'own'\nclass nnUNetTrainerMore:\n    'own'\n"
    (tmp_path / "mine" / "module_of_mine.py").write_text(text)
    return tmp_path / "mine"


def lines_of(old_nnunet: Path, *names: str, **environment: str) -> list[str]:
    """What the program above prints in a fresh interpreter in which only the start-up line is ours."""
    inherited = {key: value for key, value in os.environ.items() if key not in (VARIABLE, SWITCH_OFF)}
    path = os.pathsep.join([str(old_nnunet), str(REPOSITORY)])
    program = PROGRAM.format(line=(REPOSITORY / "nnunet_lopsided.pth").read_text())
    done = subprocess.run(
        [sys.executable, "-S", "-c", program, *names],  # -S: without the line of the environment
        capture_output=True,
        text=True,
        cwd=old_nnunet,  # a program's own folder is no place of packages yet when the line runs
        env=inherited | {"PYTHONPATH": path} | environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_an_older_nnunet_searches_the_folders_of_the_variable(old_nnunet: Path, mine: Path) -> None:
    names = ("nnUNetTrainer", "nnUNetTrainerMore", "nnUNetTrainerMine", "nnUNetTrainerDeep", "nnUNetTrainerNobodys")
    assert lines_of(old_nnunet, *names, **{VARIABLE: str(mine)}) == [
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer stock",
        "nnunetv2.training.nnUNetTrainer.variants.more stock",  # nnU-Net's own first
        "module_of_mine own",
        "package_of_mine.deep own",
        "None",
        # Nothing but trainers is looked for there, and the search leaves nothing behind.
        "None True [] False",
    ]


def test_the_switch_leaves_an_older_nnunet_as_it_is(old_nnunet: Path, mine: Path) -> None:
    names = ("nnUNetTrainerMore", "nnUNetTrainerMine")
    switched_off = {VARIABLE: str(mine), SWITCH_OFF: "1"}
    expected = ["nnunetv2.training.nnUNetTrainer.variants.more stock", "None", "None True [] False"]
    assert lines_of(old_nnunet, *names, **switched_off) == expected
    # The explicit way, lopsided-env, names our folder.
    plugin = REPOSITORY / "nnunet_lopsided" / "trainers" / "plugin"
    explicit = {**switched_off, VARIABLE: os.pathsep.join([str(mine), str(plugin)])}
    assert lines_of(old_nnunet, *names, **explicit)[1] == "module_of_mine own"


def test_a_folder_of_the_variable_that_is_not_there(old_nnunet: Path, mine: Path) -> None:
    folders = os.pathsep.join(["/nowhere", "", " ", str(mine)])
    assert lines_of(old_nnunet, "nnUNetTrainerMine", **{VARIABLE: folders})[0] == "module_of_mine own"


def test_a_search_of_2_8_is_left_alone() -> None:
    def recursive_find_python_class(
        folder: str,
        class_name: str,
        current_module: str | None,
        base_folder: str | None = None,
        verbose: bool = False,
        cleanup_imports_from_base_folder: bool = False,
    ) -> None: ...

    assert searching_external_folders(recursive_find_python_class) is recursive_find_python_class


# ---- the network of a trainer


class Of26:
    """nnU-Net 2.6.4's trainer, which returns what it is called with."""

    @staticmethod
    def build_network_architecture(
        architecture_class_name: str,
        arch_init_kwargs: dict[str, Any],
        arch_init_kwargs_req_import: list[str] | tuple[str, ...],
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> Any:
        numbers = (num_input_channels, num_output_channels, enable_deep_supervision)
        return (architecture_class_name, arch_init_kwargs, arch_init_kwargs_req_import, *numbers)


class Of28:
    """That of 2.7.0 and 2.8.1."""

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> Any:
        return (plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision)


def configuration_25d() -> ConfigurationManager:
    """Of a 2.5d network whose predictor sees patches of 48 x 40, trained on 32 x 36."""
    architecture = {
        "network_class_name": NETWORK_CLASS_NAME,
        "arch_kwargs": {"encoder": "resnet18", "n_slices": 3, "output_stride": 16},
        "_kw_requires_import": [],
    }
    content = {"patch_size": [7, 48, 40], "architecture": architecture, "lopsided": {"training_patch": [32, 36]}}
    return ConfigurationManager(content)


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is changed in nnU-Net for 2.6 is changed back."""
    says = ConfigurationManager.network_arch_init_kwargs
    monkeypatch.setattr(ConfigurationManager, "network_arch_init_kwargs", says)


def test_a_network_is_asked_for_as_each_version_takes_it() -> None:
    configuration = configuration_25d()
    assert build_network(Of28.build_network_architecture, "plans", configuration, 4, 2, False) == (
        "plans",
        configuration,
        4,
        2,
        False,
    )
    expected: Any = (NETWORK_CLASS_NAME, {"encoder": "resnet18", "n_slices": 3, "output_stride": 16}, [], 4, 2, True)
    assert build_network(Of26.build_network_architecture, "plans", configuration, 4, 2) == expected


def test_our_own_is_left_as_it_is_where_nnunet_calls_it_so() -> None:
    build = Of28.build_network_architecture
    assert called_by_nnunet(Of28.build_network_architecture)(build) is build


@pytest.mark.usefixtures("remembering")
def test_our_own_gets_the_configuration_from_a_call_of_2_6() -> None:
    configuration = configuration_25d()
    build: Any = called_by_nnunet(Of26.build_network_architecture)(Of28.build_network_architecture)
    said = (
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
    )
    assert said[1] == {"encoder": "resnet18", "n_slices": 3, "output_stride": 16}
    assert build(*said, 4, 2, True) == (None, configuration, 4, 2, True)  # as its trainer calls
    assert build(*said, 4, 2, enable_deep_supervision=False) == (None, configuration, 4, 2, False)  # its predictor
    # Of somebody who has no configuration, what was given.
    _, alone, *_ = build("a.Network", {"width": 3}, ["op"], 4, 2)
    assert (alone.network_arch_class_name, alone.network_arch_init_kwargs) == ("a.Network", {"width": 3})
    assert alone.network_arch_init_kwargs_req_import == ["op"]


@pytest.mark.usefixtures("remembering")
def test_a_network_of_2_6_knows_the_patch_it_is_trained_with() -> None:
    from nnunet_lopsided.trainers.base import LesionTrainer

    configuration = configuration_25d()
    build = LesionTrainer.build_network_architecture
    if "plans_manager" in inspect.signature(build).parameters:  # with 2.6 itself it is so already
        build = called_by_nnunet(Of26.build_network_architecture)(build)
    network = build(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        2,
        enable_deep_supervision=False,
    )
    assert isinstance(network, DeepLabV3For25D)
    assert (network.n_slices, network.padding_beyond, network.skip_padding) == (3, (32, 36), True)


def test_our_trainers_are_called_as_nnunets() -> None:
    from nnunet_lopsided.trainers.base import LesionTrainer

    ours, stock = LesionTrainer.build_network_architecture, nnUNetTrainer.build_network_architecture
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(stock).parameters)


# ---- the log of a training


class LoggerOf26:
    """nnUNetLogger of 2.6.4, as far as it is used."""

    def __init__(self) -> None:
        self.my_fantastic_logging = {"train_losses": [3.0, 2.0], "val_losses": [1.0]}


class LoggerOf28:
    """MetaLogger of 2.7.0 and 2.8.1, as far as it is used."""

    def __init__(self) -> None:
        self.config: dict[str, object] = {}

    def update_config(self, config: dict[str, object]) -> None:
        self.config |= config

    def get_value(self, key: str, step: int) -> float:
        return {"train_losses": [3.0, 2.0], "val_losses": [1.0]}[key][step]


@pytest.mark.parametrize("logger", [LoggerOf26(), LoggerOf28()])
def test_the_last_value_of_a_log(logger: Any) -> None:
    assert (logged(logger, "train_losses"), logged(logger, "val_losses")) == (2, 1)


def test_a_configuration_is_logged_where_there_is_one() -> None:
    new, old = LoggerOf28(), LoggerOf26()
    for logger in (new, old):
        log_configuration(logger, {"lopsided": 1})  # type: ignore[arg-type]
    assert new.config == {"lopsided": 1}
    assert old.__dict__.keys() == {"my_fantastic_logging"}


def test_a_trainer_that_is_nobodys() -> None:
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer nnUNetTrainerNobodys"):
        older_versions.find_trainer("nnUNetTrainerNobodys")
