"""``lopsided-soften``: beliefs that a background voxel is lesion, brought beside the preprocessed cases."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import add_configuration, add_dataset, add_np, add_overwrite, add_plans


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, write the beliefs, and say how many cases have one."""
    parser = Parser(
        prog="lopsided-soften",
        description="Bring soft targets beside the preprocessed cases of a dataset: for every background voxel a "
        "belief within [0, 1] that it is lesion, on the grid of the original images. Trainers with _softtargets in "
        "their name train on them; the labels stay as they are.",
    )
    add_dataset(parser, "whose preprocessed cases get soft targets")
    add_configuration(parser)
    add_plans(parser)
    parser.add_argument(
        "-i",
        metavar="FOLDER",
        required=True,
        type=Path,
        help="beliefs: CASE.nii.gz (or another image, .npy, .npz); of several classes CASE__NAME.nii.gz or CASE.npz",
    )
    add_overwrite(parser, "what this command made before")
    add_np(parser)
    return run(parser, _work, argv)


def _work(arguments: argparse.Namespace) -> int:
    # Imported in functions, as in every command, so that --help does not wait for libraries.
    from nnunet_lopsided.variants.softening import soften

    made = soften(
        arguments.d,
        arguments.c,
        arguments.i,
        plans_name=arguments.p,
        overwrite=arguments.overwrite,
        n_workers=arguments.np,
    )
    n_with = made.n_cases - len(made.without)
    print(f"{made.folder}: beliefs of {n_with} of {made.n_cases} cases, 0 everywhere in {len(made.without)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
