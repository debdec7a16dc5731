"""Plans are checked once, where they are read; then nothing in them can end in a traceback."""

from __future__ import annotations

import copy
import json
import math
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.configurations import data_configurations
from nnunet_lopsided.nnunet.plans import (
    Plans,
    PlansConfiguration,
    add_to_plans,
    architecture_of,
    check_plans,
    plans_in,
    read_plans,
    resolved_configuration,
)
from nnunet_lopsided.planning.small import small_configuration

DATA = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [16, 40, 40],
    "spacing": [1.0, 1.0, 1.0],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "batch_dice": False,
    **{f"resampling_fn_{kind}": "resample_data_or_seg_to_shape" for kind in ("data", "seg")},
    **{f"resampling_fn_{kind}_kwargs": {"order": 1} for kind in ("data", "seg")},
}
STAGES = {"n_stages": 3, "strides": [[1] * 3, [2] * 3, [2] * 3], "kernel_sizes": [[3] * 3] * 3}
ARCHITECTURE = {"network_class_name": "PlainConvUNet", "arch_kwargs": STAGES, "_kw_requires_import": []}
# What nnU-Net wrote before version 2.3.
OLD = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 32,
    "n_conv_per_stage_encoder": [2] * 3,
    "n_conv_per_stage_decoder": [2] * 2,
    "num_pool_per_axis": [2] * 3,
    "pool_op_kernel_sizes": STAGES["strides"],
    "conv_kernel_sizes": STAGES["kernel_sizes"],
    "unet_max_num_features": 320,
}
PLANS: dict[str, Any] = {
    "dataset_name": "Dataset501_Mets",
    "plans_name": "nnUNetPlans",
    "transpose_forward": [1, 2, 0],
    "transpose_backward": [2, 0, 1],
    "image_reader_writer": "SimpleITKIO",
    "configurations": {
        "3d_fullres": {**DATA, "architecture": ARCHITECTURE},
        "2.5d": {"inherits_from": "3d_fullres", "batch_size": 9},
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    plans = copy.deepcopy(PLANS)
    *folders, last = path.split("/")
    place = plans
    for folder in folders:
        place = place[folder]
    place[last] = value
    return plans


def test_inheritance() -> None:
    check_plans(PLANS, Path("plans.json"))
    assert resolved_configuration(cast(Plans, PLANS), "2.5d") == {
        **DATA,
        "architecture": ARCHITECTURE,
        "inherits_from": "3d_fullres",
        "batch_size": 9,
    }
    with pytest.raises(InputError, match=r"expected the configuration 2d, found 3d_fullres, 2\.5d"):
        resolved_configuration(cast(Plans, PLANS), "2d")


def test_as_nnunet_resolves_them() -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    theirs = PlansManager(copy.deepcopy(PLANS)).get_configuration("2.5d").configuration
    assert resolved_configuration(cast(Plans, PLANS), "2.5d") == theirs


def test_plans_from_before_nnunet_2_3() -> None:
    plans = copy.deepcopy(PLANS)
    plans["configurations"] = {"base": {**DATA, **OLD}, "3d_fullres": {"inherits_from": "base", "batch_size": 3}}
    small = small_configuration(cast(Plans, plans), "3d_fullres_small")
    assert small["inherits_from"] == "3d_fullres"
    assert small["architecture"]["arch_kwargs"]["features_per_stage"] == [8, 16, 32]
    assert small["architecture"]["arch_kwargs"]["strides"] == STAGES["strides"]
    with pytest.raises(InputError, match="expected an architecture in the plans, found none that nnU-Net knows"):
        architecture_of(cast(PlansConfiguration, DATA))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("transpose_forward", [0, 0, 0], "transpose_forward: expected an order of the axes"),
        ("transpose_forward", [], "transpose_forward: expected an order of the axes"),
        ("transpose_backward", [1, 2, 0], r"transpose_backward: expected the inverse of \[1, 2, 0\]"),
        ("transpose_forward", "012", "transpose_forward: expected a list"),
        ("plans_name", None, "plans_name: expected text, found null"),
        ("configurations", [], "configurations: expected a mapping"),
        ("configurations/3d_fullres", 7, r"configurations\.3d_fullres: expected a mapping"),
        (
            "configurations/3d_fullres/spacing",
            [0, 1, 1],
            r"spacing\[0\]: expected a number above 0, found 0",
        ),
        ("configurations/3d_fullres/spacing", [1, -1, 1], r"spacing\[1\]: expected a number above 0, found -1"),
        ("configurations/3d_fullres/patch_size", [], r"3d_fullres\.patch_size: expected at least 2 elements"),
        (
            "configurations/3d_fullres/patch_size",
            [16, -4, 4],
            r"patch_size\[1\]: expected a number of at least 1",
        ),
        ("configurations/3d_fullres/patch_size", [1.5, 4, 4], r"patch_size\[0\]: expected a whole number, found 1.5"),
        ("configurations/2.5d/batch_size", 0, r"2\.5d\.batch_size: expected a number of at least 1, found 0"),
        ("configurations/3d_fullres/spacing", [math.nan, 1, 1], r"spacing\[0\]: expected a finite number, found NaN"),
        ("configurations/3d_fullres/spacing", [1, True, 1], r"spacing\[1\]: expected a number, found true"),
        ("configurations/3d_fullres/spacing", "111", r"3d_fullres\.spacing: expected a list, found \"111\""),
        ("configurations/2.5d/patch_size", [40, 40], "2.5d: expected patch_size and spacing of as many axes, found"),
        (
            "configurations/2.5d/lopsided",
            {"epochs": "9"},
            r'lopsided\.epochs: expected a whole number, found "9"',
        ),
        ("configurations/2.5d/lopsided", {"training_patch": [9]}, r"training_patch: expected at least 2 elements"),
        ("configurations/2.5d/inherits_from", "2.5d", r"2\.5d: inherits from itself"),
        ("configurations/2.5d/inherits_from", "3d", r"inherits_from: expected one of 3d_fullres, 2\.5d, found 3d"),
        ("configurations/3d_fullres/data_identifier", "../x", "a case name must be a plain file name"),
        ("configurations/3d_fullres/architecture/arch_kwargs/n_stages", 0, "expected a whole number from 1 on"),
    ],
)
def test_refused(path: str, value: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "nnUNetPlans.json"
    file.write_text(json.dumps(changed(path, value)))
    with pytest.raises(InputError, match=message):
        read_plans(file)


def paths(content: Any, prefix: str = "") -> list[str]:
    if not isinstance(content, dict):
        return []
    return [p for key, value in content.items() for p in (f"{prefix}{key}", *paths(value, f"{prefix}{key}/"))]


NONSENSE: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1.5, 10**400, "", "text", [], [0], [[]], {}, {"a": 1}, [None, 2, 3]]
)


@given(st.sampled_from(paths(PLANS)), NONSENSE)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_nonsense_ends_in_a_traceback(tmp_path: Path, path: str, value: Any) -> None:
    file = tmp_path / "nnUNetPlans.json"
    file.write_text(json.dumps(changed(path, value)))
    with suppress(InputError):
        plans = read_plans(file)
        small_configuration(plans, "3d_fullres_small")
        data_configurations([plans])


def test_statistics_of_an_empty_class_are_nan_and_stay(tmp_path: Path) -> None:
    statistics = {"foreground_intensity_properties_per_channel": {"0": {"mean": math.nan}}}
    file = tmp_path / "nnUNetPlans.json"
    file.write_text(json.dumps(PLANS | statistics))
    add_to_plans(file, "new", {"inherits_from": "2.5d"})
    kept = cast("dict[str, Any]", read_plans(file))
    assert math.isnan(kept["foreground_intensity_properties_per_channel"]["0"]["mean"])
    assert plans_in(tmp_path)["nnUNetPlans.json"]["configurations"]["new"] == {"inherits_from": "2.5d"}


@pytest.mark.parametrize("content", ["{", "[1, NaN]", '"text"', "[" * 100_000, '{"a": 1, "a": 2}', "\ufeff\udc80", "7"])
def test_json_that_is_no_plans_stops_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps(PLANS))
    (tmp_path / "notes.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert list(plans_in(tmp_path)) == ["nnUNetPlans.json"]
    with pytest.raises(InputError, match=r"notes\.json"):
        read_plans(tmp_path / "notes.json")


@pytest.mark.parametrize("name", ["nnUNetResEncUNetLPlans", "mine"])
def test_broken_plans_are_not_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps(PLANS))
    (tmp_path / f"{name}.json").write_text(json.dumps(PLANS)[:-1])
    (tmp_path / "mine_3d_fullres").mkdir()
    with pytest.raises(InputError, match=rf"{name}\.json: not valid JSON"):
        plans_in(tmp_path)


def test_a_dataset_json_is_no_plans(tmp_path: Path) -> None:
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps(PLANS))
    (tmp_path / "dataset.json").write_text("{}")
    (tmp_path / ".unfinished-nnUNetPlans.json").write_text('{"plans_name"')
    assert list(plans_in(tmp_path)) == ["nnUNetPlans.json"]


def test_two_commands_add_to_the_same_plans(tmp_path: Path) -> None:
    file = tmp_path / "nnUNetPlans.json"
    file.write_text(json.dumps(PLANS))
    names = [f"new{i}" for i in range(8)]
    threads = [threading.Thread(target=add_to_plans, args=(file, name, {"inherits_from": "2.5d"})) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {*names} <= set(read_plans(file)["configurations"])
    with pytest.raises(InputError, match="holds another new0 configuration already; --overwrite replaces it"):
        add_to_plans(file, "new0", {"batch_size": 1})
    add_to_plans(file, "new0", {"batch_size": 1}, overwrite=True)
    assert read_plans(file)["configurations"]["new0"] == {"batch_size": 1}
