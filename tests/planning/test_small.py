"""Small versions of nnU-Net's configurations."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.planning.small import add_small_configuration, small_configuration

NETWORK: dict[str, Any] = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 7,
        "features_per_stage": [32, 64, 128, 256, 512, 512, 512],
        "kernel_sizes": [[3, 3]] * 7,
        "strides": [[1, 1]] + [[2, 2]] * 6,
        "n_conv_per_stage": [2] * 7,
        "n_conv_per_stage_decoder": [2] * 6,
        "conv_bias": True,
    },
    "_kw_requires_import": ["conv_op"],
}
PLANS: Any = {
    "plans_name": "nnUNetPlans",
    "configurations": {"2d": {"patch_size": [256, 64], "batch_size": 12, "architecture": NETWORK, "spacing": [1, 1]}},
}


def test_the_whole_configuration() -> None:
    before = copy.deepcopy(PLANS)
    assert small_configuration(PLANS, "2d_small") == {
        "inherits_from": "2d",
        "patch_size": [128, 64],
        "batch_size": 4,
        "architecture": {
            **NETWORK,
            "arch_kwargs": {
                "n_stages": 5,
                "features_per_stage": [8, 16, 32, 64, 64],
                "kernel_sizes": [[3, 3]] * 5,
                "strides": [[1, 1]] + [[2, 2]] * 4,
                "n_conv_per_stage": [2] * 5,
                "n_conv_per_stage_decoder": [2] * 4,
                "conv_bias": True,
            },
        },
    }
    assert before == PLANS


def test_residual_encoders_and_shallow_networks() -> None:
    plans = copy.deepcopy(PLANS)
    network = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    del network["n_conv_per_stage"]
    network |= {"n_stages": 3, "n_blocks_per_stage": [1, 3, 4], "strides": [[1, 1], [2, 2], [2, 2]]}
    found = small_configuration(plans, "2d_small")["architecture"]["arch_kwargs"]
    assert (found["n_stages"], found["features_per_stage"]) == (3, [8, 16, 32])
    assert (found["n_blocks_per_stage"], found["n_conv_per_stage_decoder"]) == ([1, 3, 4], [2, 2])


def test_without_the_configuration_it_is_made_from() -> None:
    with pytest.raises(InputError, match=r"^plans nnUNetPlans: 3d_fullres_small needs 3d_fullres, found 2d$"):
        small_configuration(PLANS, "3d_fullres_small")


def test_into_the_plans(planned_dataset: Callable[..., Path]) -> None:
    file = planned_dataset(PLANS, {}) / "nnUNetPlans.json"
    assert add_small_configuration(505, "2d_small") == (file, small_configuration(PLANS, "2d_small"))
    stored = json.loads(file.read_text())
    assert stored["configurations"].pop("2d_small") == small_configuration(PLANS, "2d_small")
    assert stored == PLANS
    add_small_configuration(505, "2d_small")  # the same again
    stored["configurations"]["2d_small"] = {"inherits_from": "2d", "batch_size": 3}
    file.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"holds another 2d_small configuration already; --overwrite replaces it$"):
        add_small_configuration(505, "2d_small")
    assert json.loads(file.read_text()) == stored
    add_small_configuration(505, "2d_small", overwrite=True)
    assert json.loads(file.read_text())["configurations"]["2d_small"] == small_configuration(PLANS, "2d_small")


def test_nnunet_builds_it(planned_dataset: Callable[..., Path]) -> None:
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = copy.deepcopy(PLANS)
    arguments = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    arguments |= {"conv_op": "torch.nn.Conv2d", "norm_op": "torch.nn.InstanceNorm2d", "nonlin": "torch.nn.LeakyReLU"}
    plans["configurations"]["2d"]["architecture"]["_kw_requires_import"] = ["conv_op", "norm_op", "nonlin"]
    plans["configurations"]["2d_small"] = small_configuration(plans, "2d_small")
    found = PlansManager(plans).get_configuration("2d_small")
    assert found.configuration["spacing"] == [1, 1]
    network = get_network_from_plans(
        found.network_arch_class_name,
        found.network_arch_init_kwargs,
        found.network_arch_init_kwargs_req_import,
        1,
        2,
        deep_supervision=False,
    )
    assert network(torch.zeros(1, 1, *found.patch_size)).shape == (1, 2, 128, 64)
