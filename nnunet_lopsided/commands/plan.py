"""lopsided-plan: add the 2.5d configuration to a dataset's plans."""

from __future__ import annotations

import argparse

from nnunet_lopsided.commands._cli import run


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="lopsided-plan",
        description="Add the 2.5d configuration (slices into channels, DeepLabv3) to the plans of a dataset. Run it "
        "after nnUNetv2_plan_and_preprocess; the preprocessed data of 3d_fullres is used as it is.",
    )
    parser.add_argument("-d", metavar="ID", required=True, help="dataset id or name")
    parser.add_argument("-p", metavar="PLANS", default="nnUNetPlans", help="plans identifier (default: %(default)s)")
    parser.add_argument(
        "--slices", type=int, default=5, help="slices stacked into channels, odd (default: %(default)s)"
    )
    parser.add_argument(
        "--encoder", default="resnet50", help="encoder of segmentation_models_pytorch (default: %(default)s)"
    )
    parser.add_argument(
        "--decoder",
        choices=("deeplabv3", "deeplabv3plus"),
        default="deeplabv3",
        help="deeplabv3plus draws finer outlines (default: %(default)s)",
    )
    parser.add_argument("--output-stride", type=int, choices=(8, 16), default=8, help="default: %(default)s")
    parser.add_argument(
        "--patch", type=int, nargs=2, metavar=("H", "W"), help="in-plane patch in voxels (default: that of 2d)"
    )
    parser.add_argument("--batch-size", type=int, help="default: that of 2d, at most 32")
    parser.add_argument("--overwrite", action="store_true", help="replace another 2.5d configuration")
    return run(parser, _plan, argv)


def _plan(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.planning.configuration_25d import NAME, add_configuration

    plans_file, configuration = add_configuration(
        arguments.d,
        arguments.p,
        overwrite=arguments.overwrite,
        n_slices=arguments.slices,
        encoder=arguments.encoder,
        decoder=arguments.decoder,
        output_stride=arguments.output_stride,
        in_plane_patch=tuple(arguments.patch) if arguments.patch else None,
        batch_size=arguments.batch_size,
    )
    network = configuration["architecture"]["arch_kwargs"]
    depth, height, width = configuration["patch_size"]
    print(f"{NAME} added to {plans_file}")
    print(f"  network: {network['decoder']}, encoder {network['encoder']}, output stride {network['output_stride']}")
    print(
        f"  training patch: {network['n_slices']} slices of {height} x {width}, "
        f"batch size {configuration['batch_size']}"
    )
    print(f"  prediction patch: {depth} slices of {height} x {width}")
    print(
        f"Train with: nnUNetv2_train {arguments.d} {NAME} FOLD -tr nnUNetTrainerLopsided"
        + ("" if arguments.p == "nnUNetPlans" else f" -p {arguments.p}")
    )
    return 0
