"""lopsided-demo: the main job, start to end, in minutes."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import add_device, add_output, add_overwrite, add_seed

_FOLDER = "lopsided-demo"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(
        prog="lopsided-demo",
        description="Delete lesions from the labels of a dataset, train three short arms (nnU-Net's loss on whole "
        "labels; the same and the default recipe on what is left, twice each), predict, evaluate, compare and audit, "
        "by public commands alone. Without --data on procedural brains. An interrupted run goes on when repeated.",
    )
    add_output(parser, "everything goes", _FOLDER)
    parser.add_argument("--data", metavar="DIR", help="a dataset in nnU-Net's raw layout, instead of procedural brains")
    parser.add_argument(
        "--mode", choices=("stochastic", "size"), default="stochastic", help="censoring (default: %(default)s)"
    )
    parser.add_argument("--rate", type=float, default=0.5, help="fraction of lesions censored (default: %(default)s)")
    add_seed(parser, "phantoms, censoring, trainings")
    parser.add_argument("--epochs", type=int, default=4, help="per training (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=80, help="per epoch (default: %(default)s)")
    add_device(parser, "trainings and predictions", "cpu")
    add_overwrite(parser, "an earlier demo in the folder: start anew")
    return run(parser, _demo, argv)


def _demo(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.demo.settings import DemoSettings
    from nnunet_lopsided.demo.workflow import run_demo
    from nnunet_lopsided.errors import InputError

    for name in ("epochs", "iterations"):
        if getattr(arguments, name) < 1:
            raise InputError(f"{name} must be at least 1, got {getattr(arguments, name)}")
    settings = DemoSettings(
        # Absolute, since a run that goes on compares it with the settings of the first one.
        data=None if arguments.data is None else str(Path(arguments.data).resolve()),
        mode=arguments.mode,
        rate=arguments.rate,
        seed=arguments.seed,
        epochs=arguments.epochs,
        iterations=arguments.iterations,
        device=arguments.device,
    )
    page = run_demo(settings, arguments.output or Path(_FOLDER), arguments.overwrite)
    print((page.parent / "table.md").read_text())
    print(f"page: {page}")
    return 0
