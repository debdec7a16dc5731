"""``lopsided-predict``: nnUNetv2_predict with the same options, and images magnified, too."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial

from nnunet_lopsided.commands._cli import Parser, numbers_of_folds, run
from nnunet_lopsided.commands._options import (
    add_configuration,
    add_dataset,
    add_device,
    add_plans,
    add_trainer,
)


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and predict."""
    argv = sys.argv[1:] if argv is None else argv
    # The words themselves go on to nnU-Net where nothing is magnified: its own command then does all.
    return run(_parser(), partial(_work, argv), argv)


def _parser() -> Parser:
    parser = Parser(
        prog="lopsided-predict",
        description="nnUNetv2_predict with the same options and the same files written. With --magnify the mean of the "
        "probabilities of the image as it is and magnified is predicted: what is smaller than the lesions that a "
        "network learned from becomes as large as they are.",
    )
    parser.add_argument("-i", required=True, metavar="FOLDER", help="images, CASE_0000.nii.gz and so on")
    # As nnUNetv2_predict has it, which reads the same command line.
    parser.add_argument("-o", required=True, metavar="FOLDER", help="where predictions go")
    add_dataset(parser, "that the model learned from")
    add_plans(parser)
    add_trainer(parser, default="nnUNetTrainer")  # nnU-Net's own, as of nnUNetv2_predict
    add_configuration(parser)
    parser.add_argument(
        "-f", nargs="+", default=(0, 1, 2, 3, 4), metavar="FOLD", help="folds, or all (default: 0 1 2 3 4)"
    )
    parser.add_argument(
        "--magnify",
        type=float,
        nargs="+",
        default=(),
        metavar="X",
        help="predict the image magnified so many times, too, without mirroring, such as 1.5 2 (default: do not)",
    )
    _add_nnunet_options(parser)
    return parser


def _add_nnunet_options(parser: Parser) -> None:
    """What nnUNetv2_predict has besides the model and the images, under the same names."""
    parser.add_argument(
        "-step_size", type=float, default=0.5, metavar="X", help="of the sliding window (default: %(default)s)"
    )
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring: faster, less accurate")
    parser.add_argument("--verbose", action="store_true", help="let nnU-Net say what it does")
    parser.add_argument("--save_probabilities", action="store_true", help="write CASE.npz and CASE.pkl, too")
    parser.add_argument("--continue_prediction", action="store_true", help="leave alone what is there already")
    parser.add_argument(
        "-chk", default="checkpoint_final.pth", metavar="FILE", help="checkpoint (default: %(default)s)"
    )
    parser.add_argument(
        "-npp", type=int, default=_processes("nnUNet_npp"), metavar="N", help="preprocessing (default: %(default)s)"
    )
    parser.add_argument(
        "-nps",
        type=int,
        default=_processes("nnUNet_nps"),
        metavar="N",
        help="export (default: %(default)s); with --magnify the larger of -npp and -nps is how many cases are in work "
        "at the same time",
    )
    parser.add_argument("-prev_stage_predictions", metavar="FOLDER", help="of the previous stage of a cascade")
    parser.add_argument("-num_parts", type=int, default=1, metavar="N", help="calls that share the cases (default: 1)")
    parser.add_argument("-part_id", type=int, default=0, metavar="K", help="which of them this is, from 0 (default: 0)")
    add_device(parser, "the networks", "cuda", other_names=False)
    parser.add_argument("--disable_progress_bar", action="store_true", help="for output that goes to a file")
    parser.add_argument("--not_on_device", action="store_true", help="less GPU memory for large images")
    parser.add_argument(
        "--torch-resampling",
        action="store_true",
        help="with --magnify: resample probabilities by PyTorch on -device, not by nnU-Net on the CPU; within 1e-3",
    )


def _processes(variable: str) -> int:
    """What nnU-Net's commands have as default number of processes."""
    try:
        # A number that is none is for nnU-Net to complain about.
        return int(os.environ.get(variable) or 3)
    except ValueError:
        return 3


def _work(argv: list[str], arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.nnunet.magnified import checked_factors
    from nnunet_lopsided.nnunet.predicting import Request, predict, trained_model

    if not 0 < arguments.step_size <= 1:
        raise InputError(f"-step_size must be above 0 and at most 1, got {arguments.step_size:g}")
    if not 0 <= arguments.part_id < arguments.num_parts:
        raise InputError(
            f"-part_id must be from 0 to -num_parts minus 1, got {arguments.part_id} of {arguments.num_parts}"
        )
    # Both 0 is nnU-Net's way to predict without further processes.
    processes = (arguments.npp, arguments.nps)
    if min(processes) < 0 or (min(processes) == 0) != (max(processes) == 0):
        raise InputError(f"-npp and -nps must be at least 1, or both 0, got {arguments.npp} and {arguments.nps}")
    folds = tuple(numbers_of_folds(arguments.f))
    factors = checked_factors(arguments.magnify)
    if arguments.torch_resampling and not factors:
        raise InputError("--torch-resampling needs --magnify: without it nnUNetv2_predict itself predicts")
    n_cases = predict(
        Request(
            images=arguments.i,
            output=arguments.o,
            model=trained_model(arguments.d, arguments.tr, arguments.p, arguments.c),
            configuration=arguments.c,
            folds=folds,
            checkpoint=arguments.chk,
            step_size=arguments.step_size,
            mirroring=not arguments.disable_tta,
            verbose=arguments.verbose,
            save_probabilities=arguments.save_probabilities,
            continue_prediction=arguments.continue_prediction,
            n_preprocessing=arguments.npp,
            n_export=arguments.nps,
            previous_stage=arguments.prev_stage_predictions,
            n_parts=arguments.num_parts,
            part=arguments.part_id,
            device=arguments.device,
            on_device=not arguments.not_on_device,
            progress=not arguments.disable_progress_bar,
            magnify=factors,
            torch_resampling=arguments.torch_resampling,
        ),
        argv,
    )
    if factors:
        times = " and ".join(f"{factor:g}" for factor in factors)
        print(f"{arguments.o}: {n_cases} cases predicted as they are and magnified {times} times")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
