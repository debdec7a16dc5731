"""The 2.5d configuration: a pure function of plans and fingerprint, and its way into the plans."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import pytest

from nnunet_lopsided.architectures.deeplabv3_25d import NETWORK_CLASS_NAME
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.plans import Plans
from nnunet_lopsided.planning import configuration_25d as planning
from nnunet_lopsided.planning.configuration_25d import (
    Configuration25D,
    Fingerprint,
    add_configuration,
    configuration_25d,
)
from nnunet_lopsided.planning.rules_25d import Choices, LesionSizes, Overrides, TrainingMemory

PLANS: dict[str, Any] = {
    "plans_name": "nnUNetPlans",
    "transpose_forward": [0, 1, 2],
    "configurations": {
        "2d": {"patch_size": [56, 40], "batch_size": 12, "spacing": [1.0, 1.0]},
        "3d_fullres": {"patch_size": [16, 64, 64], "batch_size": 2, "spacing": [3.0, 1.0, 1.0]},
    },
    "something_else": {"kept": [1, 2.5, None]},
}
FINGERPRINT: dict[str, Any] = {
    "shapes_after_crop": [[20, 60, 50], [11, 60, 50]],
    "spacings": [[3.0, 1.0, 1.0], [6.0, 1.0, 1.0]],
}


LESIONS: LesionSizes = {"diameter_mm_percentiles": {"25": 9.0, "50": 15.0}}


def plans(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(PLANS) | changes


def memory(network: Any, patch: tuple[int, int]) -> TrainingMemory:
    return TrainingMemory(2**30, 2**28)


def configuration(given: dict[str, Any] = PLANS, fingerprint: dict[str, Any] = FINGERPRINT) -> Configuration25D:
    return configuration_25d(cast(Plans, given), cast(Fingerprint, fingerprint), LESIONS, memory)


def test_the_whole_configuration() -> None:
    found: dict[str, Any] = {**configuration()}
    reasons = found["lopsided"].pop("reasons")
    assert found == {
        "inherits_from": "3d_fullres",
        "patch_size": [33, 80, 80],  # 11 slices of 6 mm are 22 of 3 mm, half as many again; in the plane a quarter more
        "batch_size": 28,  # 7 GiB of a quarter
        "batch_dice": True,
        "architecture": {
            "network_class_name": NETWORK_CLASS_NAME,
            "arch_kwargs": {"n_slices": 5, "encoder": "resnet50", "decoder": "deeplabv3", "output_stride": 8},
            "_kw_requires_import": [],
        },
        "lopsided": {
            "training_patch": [64, 64],  # 60 x 50 in multiples of 16
            "epochs": 1000,
            "iterations_per_epoch": 50,
            "estimated_training_memory_bytes": 8 * 2**30,
        },
    }
    assert set(reasons) == {field.name for field in fields(Choices)}


def test_inputs_are_left_alone() -> None:
    given, fingerprint = plans(), copy.deepcopy(FINGERPRINT)
    configuration(given, fingerprint)["patch_size"][0] = 99
    assert (given, fingerprint) == (PLANS, FINGERPRINT)


@pytest.mark.parametrize(
    ("transpose", "patch"),
    # 20 x 60 x 50 voxels of 3 x 1 x 1 mm and 11 x 60 x 50 of 6 x 1 x 1, at 3 x 1 x 1 mm in the new order
    [([0, 1, 2], [33, 80, 80]), ([1, 0, 2], [30, 100, 80]), ([2, 0, 1], [26, 100, 80])],
)
def test_depth_is_along_the_axis_that_comes_first(transpose: list[int], patch: list[int]) -> None:
    assert configuration(plans(transpose_forward=transpose))["patch_size"] == patch


def test_depth_is_at_least_one_slice() -> None:
    thin = {"shapes_after_crop": [[1, 60, 50]], "spacings": [[0.5, 1.0, 1.0]]}
    assert configuration(PLANS, thin)["patch_size"][0] == 2


def test_no_3d_configuration() -> None:
    without = plans()
    del without["configurations"]["3d_fullres"]
    with pytest.raises(InputError, match=r"plans nnUNetPlans: 2\.5d needs a 3d_fullres configuration, found 2d; for"):
        configuration(without)


@pytest.mark.parametrize("missing", ["spacings", "shapes_after_crop"])
def test_a_broken_fingerprint(missing: str) -> None:
    with pytest.raises(InputError, match="dataset fingerprint are not what nnU-Net writes: KeyError"):
        configuration(PLANS, {key: value for key, value in FINGERPRINT.items() if key != missing})
    with pytest.raises(InputError, match="the dataset fingerprint holds no cases"):
        configuration(PLANS, {"shapes_after_crop": [], "spacings": []})


def test_the_name_of_the_network_is_where_the_network_is() -> None:
    # Written here as text, so that planning needs no torch.
    assert planning._NETWORK == NETWORK_CLASS_NAME


# ---- into the plans of a dataset


@pytest.fixture
def folder(planned_dataset: Callable[..., Path]) -> Path:
    return planned_dataset(PLANS, FINGERPRINT)


def test_it_is_added_and_all_else_kept(folder: Path) -> None:
    file, configuration = add_configuration(505)
    assert file == folder / "nnUNetPlans.json"
    written = json.loads(file.read_text())
    assert written["configurations"].pop("2.5d") == configuration
    assert written == PLANS
    assert list(written) == list(PLANS)
    assert configuration["patch_size"] == [33, 80, 80]
    measured = json.loads((folder / "lesion_fingerprint.json").read_text())
    assert (measured["n_cases"], measured["n_lesions"]) == (1, 1)


def test_a_second_time_changes_nothing(folder: Path) -> None:
    add_configuration(505)
    before = (folder / "nnUNetPlans.json").read_bytes()
    add_configuration("Dataset505_Planned")
    assert (folder / "nnUNetPlans.json").read_bytes() == before


def test_another_one_needs_overwrite(folder: Path) -> None:
    add_configuration(505)
    before = (folder / "nnUNetPlans.json").read_bytes()
    with pytest.raises(InputError, match=r"nnUNetPlans\.json: holds another 2\.5d configuration.*--overwrite"):
        add_configuration(505, overrides=Overrides(n_slices=3))
    assert (folder / "nnUNetPlans.json").read_bytes() == before
    add_configuration(505, overrides=Overrides(n_slices=3), overwrite=True)
    stored = json.loads((folder / "nnUNetPlans.json").read_text())["configurations"]["2.5d"]
    assert stored["architecture"]["arch_kwargs"]["n_slices"] == 3


def test_no_plans_at_all(folder: Path) -> None:
    (folder / "nnUNetPlans.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"nnUNetPlans\.json: expected the key plans_name, found a"):
        add_configuration(505)


def test_spacing_that_is_inherited() -> None:
    inheriting = plans()
    inheriting["configurations"]["base"] = inheriting["configurations"]["3d_fullres"]
    inheriting["configurations"]["3d_fullres"] = {"inherits_from": "base", "batch_size": 3}
    assert configuration(inheriting) == configuration()


@pytest.mark.parametrize("broken", [{"spacings": [[3.0, 0.0, 1.0]] * 2}, {"shapes_after_crop": [[20, 0, 50]] * 2}])
def test_a_fingerprint_that_cannot_be(broken: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected shapes and spacings of as many axes, all above 0, found"):
        configuration(PLANS, FINGERPRINT | broken)


def test_other_plans(folder: Path) -> None:
    (folder / "nnUNetPlans.json").rename(folder / "Mine.json")
    file, _ = add_configuration(505, "Mine")
    assert file.name == "Mine.json"
    with pytest.raises(InputError, match=r"file not found: .*nnUNetPlans\.json"):
        add_configuration(505)


def test_nnunet_reads_it(tiny: Any) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(str(tiny.preprocessed / "nnUNetPlans.json"))
    ours, parent = manager.get_configuration("2.5d"), manager.get_configuration("3d_fullres")
    assert ours.data_identifier == parent.data_identifier == "nnUNetPlans_3d_fullres"
    assert ours.spacing == parent.spacing
    assert ours.normalization_schemes == parent.normalization_schemes
    assert ours.patch_size == [18, 40, 40]
    assert ours.network_arch_class_name == NETWORK_CLASS_NAME
