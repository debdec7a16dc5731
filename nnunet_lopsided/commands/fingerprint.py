"""``python -m nnunet_lopsided.commands.fingerprint``: nnU-Net's fingerprint of a small dataset, for the demo."""

from __future__ import annotations

import argparse

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import add_dataset


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(
        prog="python -m nnunet_lopsided.commands.fingerprint",
        description="Write the fingerprint of a dataset that nnUNetv2_plan_and_preprocess goes on from. nnU-Net's own "
        "step draws 1e8 voxels for its normalisation of CT, however small the dataset is.",
    )
    add_dataset(parser, "to measure")
    parser.add_argument(
        "--voxels", type=int, default=1_000_000, metavar="N", help="foreground voxels to draw (default: %(default)s)"
    )
    return run(parser, _work, argv)


def _work(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.nnunet.fingerprint import write_fingerprint
    from nnunet_lopsided.nnunet.raw import raw_dataset

    if arguments.voxels < 1:
        raise InputError(f"voxels must be at least 1, got {arguments.voxels}")
    print(write_fingerprint(raw_dataset(arguments.d), arguments.voxels))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
