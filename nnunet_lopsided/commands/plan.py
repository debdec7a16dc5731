"""lopsided-plan: add the 2.5d configuration, or a small one for a CPU, to a dataset's plans."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, cast

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import add_dataset, add_np, add_overwrite, add_plans
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.planning.small_names import PARENTS as SMALL

if TYPE_CHECKING:
    from nnunet_lopsided.planning.configuration_25d import Configuration25D

_OURS = "2.5d"
_CHOICES = ("slices", "encoder", "decoder", "output_stride", "patch", "pretrained", "gpu_memory")
# As nnU-Net's default planner. The option itself has no default, so that it is noticed where it does not belong.
_GPU_MEMORY = 8.0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(
        prog="lopsided-plan",
        description="Add the 2.5d configuration (slices into channels, DeepLabv3) to the plans of a dataset, fitted to "
        "its images and lesions. Run it after nnUNetv2_plan_and_preprocess; the preprocessed data of 3d_fullres is "
        "used as it is. Every choice is printed with its reason; options overrule it. With -c a small version of one "
        "of nnU-Net's configurations instead, which a CPU trains in minutes.",
    )
    add_dataset(parser, "to plan for")
    add_plans(parser)
    parser.add_argument("-c", choices=(_OURS, *SMALL), default=_OURS, help=f"configuration to add (default: {_OURS})")
    parser.add_argument("--batch-size", type=int, metavar="N", help="patches per training step")
    choices = parser.add_argument_group("choices for 2.5d")
    choices.add_argument("--slices", type=int, help="slices stacked into channels, odd")
    choices.add_argument("--encoder", help="encoder of segmentation_models_pytorch")
    choices.add_argument("--decoder", choices=("deeplabv3", "deeplabv3plus"), help="deeplabv3plus draws finer outlines")
    choices.add_argument("--output-stride", type=int, choices=(8, 16), help="in-plane stride of the deepest features")
    choices.add_argument("--patch", type=int, nargs=2, metavar=("H", "W"), help="in-plane patch in voxels")
    choices.add_argument(
        "--pretrained", metavar="NAME", help="start from these weights of the encoder, such as imagenet; downloads them"
    )
    choices.add_argument(
        "--gpu-memory", type=float, metavar="GIB", help=f"memory to plan for (default: {_GPU_MEMORY:g})"
    )
    add_overwrite(parser, "another configuration of this name")
    add_np(parser)
    return run(parser, _plan, argv)


def _plan(arguments: argparse.Namespace) -> int:
    return _plan_25d(arguments) if arguments.c == _OURS else _plan_small(arguments)


def _plan_small(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.planning.small import add_small_configuration

    # Refused and not passed over: who gives an option believes that it does something.
    given = [name for name in _CHOICES if getattr(arguments, name) is not None]
    if given:
        raise InputError(f"--{given[0].replace('_', '-')} is for -c {_OURS}, got -c {arguments.c}")
    plans_file, small = add_small_configuration(
        arguments.d, arguments.c, arguments.p, batch_size=arguments.batch_size, overwrite=arguments.overwrite
    )
    print(f"{arguments.c} added to {plans_file}")
    print(f"  patch {' x '.join(map(str, small['patch_size']))}, batch size {small['batch_size']}, features", end=" ")
    print(*cast("list[int]", small["architecture"]["arch_kwargs"]["features_per_stage"]))
    return 0


def _plan_25d(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.planning.configuration_25d import NAME, add_configuration
    from nnunet_lopsided.planning.rules_25d import Overrides

    plans_file, configuration = add_configuration(
        arguments.d,
        arguments.p,
        overwrite=arguments.overwrite,
        memory_target_gib=_GPU_MEMORY if arguments.gpu_memory is None else arguments.gpu_memory,
        overrides=Overrides(
            n_slices=arguments.slices,
            encoder=arguments.encoder,
            decoder=arguments.decoder,
            output_stride=arguments.output_stride,
            in_plane_patch=tuple(arguments.patch) if arguments.patch else None,
            batch_size=arguments.batch_size,
            encoder_weights=arguments.pretrained,
        ),
        n_workers=arguments.np,
    )
    print(f"{NAME} added to {plans_file}")
    for name, (value, reason) in _lines(configuration).items():
        print(f"  {name:20} {value:16} {reason}")
    print(
        f"Train with: nnUNetv2_train {arguments.d} {NAME} FOLD -tr nnUNetTrainerLopsided"
        + ("" if arguments.p == "nnUNetPlans" else f" -p {arguments.p}")
    )
    return 0


def _lines(configuration: Configuration25D) -> dict[str, tuple[str, str]]:
    network, ours = configuration["architecture"]["arch_kwargs"], configuration["lopsided"]
    depth, height, width = configuration["patch_size"]
    values = {
        "slices": network["n_slices"],
        "patch": " x ".join(map(str, ours["training_patch"])),
        "window": f"{height} x {width}",
        "depth": depth,
        "decoder": network["decoder"],
        "output_stride": network["output_stride"],
        "encoder": network["encoder"],
        "encoder_weights": network.get("encoder_weights", "none"),
        "batch_size": configuration["batch_size"],
        "iterations_per_epoch": ours["iterations_per_epoch"],
        "epochs": ours["epochs"],
        "memory": f"{ours['estimated_training_memory_bytes'] / 2**30:.1f} GiB",
    }
    return {name.replace("_", " "): (str(value), ours["reasons"][name]) for name, value in values.items()}
