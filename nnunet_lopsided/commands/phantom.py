"""python -m nnunet_lopsided.commands.phantom: a dataset of procedural brains."""

from __future__ import annotations

import argparse

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import add_name, add_new_dataset, add_np, add_overwrite, add_seed
from nnunet_lopsided.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """``python -m nnunet_lopsided.commands.phantom -d 900 --train 12 --test 6``."""
    parser = Parser(
        prog="python -m nnunet_lopsided.commands.phantom",
        description="Write a dataset of procedural brains with lesions below nnUNet_raw.",
    )
    add_new_dataset(parser)
    parser.add_argument("--train", type=int, default=12, help="training cases (default: 12)")
    parser.add_argument("--test", type=int, default=6, help="test cases (default: 6)")
    parser.add_argument("--shape", type=int, nargs=3, default=(24, 64, 64), metavar=("Z", "Y", "X"))
    parser.add_argument("--spacing", type=float, nargs=3, default=(2.0, 2.0, 2.0), metavar=("Z", "Y", "X"), help="mm")
    add_seed(parser, "the brains and lesions")
    parser.add_argument("--lesions", type=float, help="mean lesions per case")
    parser.add_argument("--diameter", type=float, help="median diameter in mm")
    parser.add_argument("--contrast", type=float, help="factor on lesion enhancement")
    add_name(parser, "Phantom", "Phantom")
    add_overwrite(parser, "a raw dataset of the same id and name")
    add_np(parser, default=1)
    return run(parser, _work, argv)


def _work(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.dataset_conversion.phantom import PhantomSettings, write_phantom_dataset

    default = PhantomSettings()
    n_lesions = default.n_lesions_mean if arguments.lesions is None else arguments.lesions
    try:
        settings = PhantomSettings(
            # A mean below the least number would be a contradiction.
            n_lesions_min=min(default.n_lesions_min, int(n_lesions)),
            n_lesions_mean=n_lesions,
            diameter_median_mm=default.diameter_median_mm if arguments.diameter is None else arguments.diameter,
            contrast=default.contrast if arguments.contrast is None else arguments.contrast,
        )
        folder = write_phantom_dataset(
            arguments.d,
            n_train=arguments.train,
            n_test=arguments.test,
            shape=arguments.shape,
            spacing_mm=arguments.spacing,
            seed=arguments.seed,
            settings=settings,
            name=arguments.name,
            overwrite=arguments.overwrite,
            n_workers=arguments.np,
        )
    # The drawing itself knows nothing of commands and their errors.
    except ValueError as error:
        raise InputError(str(error)) from error
    print(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
