"""``lopsided-censor``: a copy of a dataset in which whole lesions are missing from the training labels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import (
    add_dataset,
    add_name,
    add_np,
    add_overwrite,
    add_patients_regex,
    add_seed,
    add_variant,
)
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.variants.choosing import MODES

if TYPE_CHECKING:
    from nnunet_lopsided.variants.planning import MoreOfChoice


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, write the variant, and say what it holds."""
    parser = Parser(
        prog="lopsided-censor",
        description="Write a variant of a raw nnU-Net dataset whose training labels lack some lesions. Images are "
        "referenced, not copied; test labels stay whole.",
    )
    add_dataset(parser, "to leave lesions out of, below nnUNet_raw")
    add_variant(parser, required=False)
    parser.add_argument(
        "--mode",
        choices=(*MODES, "list"),
        help="stochastic: every lesion with the same probability; size: the smallest lesions; reader: as human readers "
        "miss lesions of that diameter; contrast: those that differ least from their surroundings; list: those that "
        "--list names",
    )
    parser.add_argument("--rate", type=float, help="fraction of lesions to delete, 0 to 1; optional for --mode reader")
    add_seed(parser, "stochastic, reader and --patients")
    parser.add_argument(
        "--list", type=Path, metavar="CSV", help="for --mode list: censored_lesions.csv of another variant"
    )
    parser.add_argument(
        "--cases", choices=("train", "all"), default="train", help="all: test labels too (default: train)"
    )
    parser.add_argument(
        "--patients",
        type=int,
        metavar="N",
        help="keep only N training patients; with the same seed, those of a smaller N are among those of a larger",
    )
    add_patients_regex(parser, "cases.csv of the dataset, or else the case")
    parser.add_argument(
        "--ignored", action="store_true", help="give the lesions the ignore label instead of deleting them: an oracle"
    )
    add_name(parser, None, "the source's, followed by Censored")
    parser.add_argument("--dry-run", action="store_true", help="print and draw what would go, and write no dataset")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="for --dry-run: the PNG to write (default: in this folder)"
    )
    add_overwrite(parser, "an earlier variant of the same id and name")
    add_np(parser)
    return run(parser, _work, argv)


def _work(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        return _dry_run(arguments)
    if arguments.o is None:
        raise InputError("the following arguments are required: -o (or --dry-run)")
    if arguments.picture is not None:
        raise InputError("--picture is for --dry-run")
    return _write(arguments)


def _write(arguments: argparse.Namespace) -> int:
    # Imported in functions, as in every command, so that --help does not wait for libraries.
    from nnunet_lopsided.nnunet.paths import names_of_dataset
    from nnunet_lopsided.variants.writing import write_censored_variant

    variant = write_censored_variant(
        arguments.d,
        arguments.o,
        arguments.mode,
        arguments.rate,
        arguments.seed,
        **_more_of_choice(arguments),
        name=arguments.name,
        overwrite=arguments.overwrite,
        n_workers=arguments.np,
    )
    print(f"{variant.folder}: {variant.n_censored} of {variant.n_lesions} lesions censored")
    for note in variant.notes:
        print(f"note: {note}", file=sys.stderr)
    # --overwrite replaces the raw dataset alone; nnU-Net would go on with what it made of the former one.
    if names_of_dataset(arguments.o, ("nnUNet_preprocessed", "nnUNet_results")):
        print(
            f"note: {variant.folder.name} was preprocessed or trained before; those files are of the replaced labels",
            file=sys.stderr,
        )
    return 0


def _dry_run(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.nnunet.raw import raw_dataset
    from nnunet_lopsided.variants.planning import Choice, plan_censoring
    from nnunet_lopsided.variants.summary import is_histogram, summary, write_histogram

    choice = Choice(mode=arguments.mode, rate=arguments.rate, seed=arguments.seed, **_more_of_choice(arguments))
    # What is wrong with the arguments is told before the source is looked for.
    choice.check()
    rate = "" if arguments.rate is None else f"-{arguments.rate:g}"
    default = f"{raw_dataset(arguments.d).name}-{arguments.mode or 'patients'}{rate}.png"
    picture = (arguments.picture or Path(default)).absolute()
    if picture.suffix.lower() != ".png":
        raise InputError(f"--picture must be a .png file, got {picture}")
    if picture.exists() and not arguments.overwrite and not is_histogram(picture):
        raise InputError(f"{picture} exists, and no dry run wrote it; --overwrite replaces it, --picture names another")
    if not picture.parent.is_dir():
        raise InputError(f"--picture: folder not found: {picture.parent}")
    plan = plan_censoring(arguments.d, choice, arguments.np)
    write_histogram(plan, picture)
    print(summary(plan))
    print(f"\npicture: {picture}\nnothing else was written")
    return 0


def _more_of_choice(arguments: argparse.Namespace) -> MoreOfChoice:
    return {
        "cases": arguments.cases,
        "lesion_list": arguments.list,
        "n_patients": arguments.patients,
        "patients_regex": arguments.patients_regex,
        "ignored": arguments.ignored,
    }


if __name__ == "__main__":
    raise SystemExit(main())
