"""The 2.5d configuration: a pure function of plans and fingerprint, and its way into the plans."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_lopsided.architectures.deeplabv3_25d import NETWORK_CLASS_NAME
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.planning import configuration_25d as planning
from nnunet_lopsided.planning.configuration_25d import add_configuration, configuration_25d

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


def plans(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(PLANS) | changes


def test_the_whole_configuration() -> None:
    assert configuration_25d(PLANS, FINGERPRINT) == {
        "inherits_from": "3d_fullres",
        "patch_size": [22, 64, 48],  # 11 slices of 6 mm are 22 of 3 mm; in-plane multiples of 16
        "batch_size": 12,
        "batch_dice": True,
        "architecture": {
            "network_class_name": NETWORK_CLASS_NAME,
            "arch_kwargs": {"n_slices": 5, "encoder": "resnet50", "decoder": "deeplabv3", "output_stride": 8},
            "_kw_requires_import": [],
        },
    }


def test_inputs_are_left_alone() -> None:
    given, fingerprint = plans(), copy.deepcopy(FINGERPRINT)
    configuration_25d(given, fingerprint)["patch_size"][0] = 99
    assert (given, fingerprint) == (PLANS, FINGERPRINT)


def test_options() -> None:
    found = configuration_25d(
        PLANS,
        FINGERPRINT,
        n_slices=3,
        encoder="resnet18",
        decoder="deeplabv3plus",
        output_stride=16,
        in_plane_patch=(33, 160),
        batch_size=40,
    )
    assert found["patch_size"] == [22, 48, 160]
    assert found["batch_size"] == 40
    assert found["architecture"]["arch_kwargs"] == {
        "n_slices": 3,
        "encoder": "resnet18",
        "decoder": "deeplabv3plus",
        "output_stride": 16,
    }


def test_the_batch_is_that_of_2d_up_to_32() -> None:
    large = plans()
    large["configurations"]["2d"]["batch_size"] = 200
    assert configuration_25d(large, FINGERPRINT)["batch_size"] == 32


@pytest.mark.parametrize(
    ("transpose", "depth"),
    [([0, 1, 2], 22), ([1, 0, 2], 20), ([2, 0, 1], 17)],  # 66, 60 and 50 mm at 3 mm
)
def test_depth_is_along_the_axis_that_comes_first(transpose: list[int], depth: int) -> None:
    fingerprint = FINGERPRINT
    assert configuration_25d(plans(transpose_forward=transpose), fingerprint)["patch_size"][0] == depth


def test_depth_is_at_least_one_slice() -> None:
    thin = {"shapes_after_crop": [[1, 60, 50]], "spacings": [[0.5, 1.0, 1.0]]}
    assert configuration_25d(PLANS, thin)["patch_size"][0] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_slices": 4}, "slices must be a positive odd number, got 4"),
        ({"n_slices": 0}, "slices must be a positive odd number, got 0"),
        ({"n_slices": -3}, "slices must be a positive odd number, got -3"),
        ({"batch_size": 0}, "batch size must be at least 1, got 0"),
        ({"in_plane_patch": (0, 32)}, r"patch must be two positive numbers, got \(0, 32\)"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        configuration_25d(PLANS, FINGERPRINT, **options)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("3d_fullres", r"plans nnUNetPlans: 2\.5d needs a 3d_fullres configuration, found 2d; for 2D images use"),
        ("2d", r"plans nnUNetPlans: 2\.5d takes its in-plane patch from the 2d configuration, found 3d_fullres"),
    ],
)
def test_a_missing_configuration(missing: str, message: str) -> None:
    without = plans()
    del without["configurations"][missing]
    with pytest.raises(InputError, match=message):
        configuration_25d(without, FINGERPRINT)


def test_the_name_of_the_network_is_where_the_network_is() -> None:
    # Written here as text, so that planning needs no torch.
    assert planning._NETWORK == NETWORK_CLASS_NAME


# ---- into the plans of a dataset


@pytest.fixture
def folder(nnunet_paths: Path) -> Path:
    """A planned dataset: no preprocessed data is needed."""
    folder = nnunet_paths / "nnUNet_preprocessed" / "Dataset505_Planned"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(PLANS))
    (folder / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT))
    return folder


def test_it_is_added_and_all_else_kept(folder: Path) -> None:
    file, configuration = add_configuration(505)
    assert file == folder / "nnUNetPlans.json"
    written = json.loads(file.read_text())
    assert written["configurations"].pop("2.5d") == configuration == configuration_25d(PLANS, FINGERPRINT)
    assert written == PLANS
    assert list(written) == list(PLANS)
    assert sorted(p.name for p in folder.iterdir()) == ["dataset_fingerprint.json", "nnUNetPlans.json"]


def test_a_second_time_changes_nothing(folder: Path) -> None:
    add_configuration(505)
    before = (folder / "nnUNetPlans.json").read_bytes()
    add_configuration("Dataset505_Planned")
    assert (folder / "nnUNetPlans.json").read_bytes() == before


def test_another_one_needs_overwrite(folder: Path) -> None:
    add_configuration(505)
    before = (folder / "nnUNetPlans.json").read_bytes()
    with pytest.raises(InputError, match=r"nnUNetPlans\.json: holds another 2\.5d configuration.*--overwrite"):
        add_configuration(505, n_slices=3)
    assert (folder / "nnUNetPlans.json").read_bytes() == before
    add_configuration(505, n_slices=3, overwrite=True)
    stored = json.loads((folder / "nnUNetPlans.json").read_text())["configurations"]["2.5d"]
    assert stored["architecture"]["arch_kwargs"]["n_slices"] == 3


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
    assert ours.patch_size == [12, 32, 32]
    assert ours.network_arch_class_name == NETWORK_CLASS_NAME
