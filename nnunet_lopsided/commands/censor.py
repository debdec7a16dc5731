"""``lopsided-censor``: a copy of a dataset in which whole lesions are missing from the training labels."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from nnunet_lopsided.commands._cli import run
from nnunet_lopsided.dataset_conversion.censoring import MODES


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, write the variant, and say what it holds."""
    parser = argparse.ArgumentParser(
        prog="lopsided-censor",
        description="Write a variant of a raw nnU-Net dataset whose training labels lack some lesions. Images are "
        "referenced, not copied; test labels stay whole.",
    )
    parser.add_argument("-d", required=True, metavar="SOURCE", help="id or folder name of the source below nnUNet_raw")
    parser.add_argument("-o", required=True, type=int, metavar="ID", help="id of the variant, 1 to 999, not in use")
    parser.add_argument(
        "--mode",
        required=True,
        choices=MODES,
        help="stochastic: every lesion with the same probability; size: the smallest lesions",
    )
    parser.add_argument("--rate", required=True, type=float, help="fraction of lesions to delete, 0 to 1")
    parser.add_argument("--seed", type=int, default=0, help="for --mode stochastic (default: 0)")
    parser.add_argument("--name", help="folder name after DatasetXXX_ (default: the source's, followed by Censored)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier variant of the same id and name")
    parser.add_argument("-np", type=int, default=2, metavar="N", help="cases worked on at the same time (default: 2)")
    return run(parser, _work, argv)


def _work(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.dataset_conversion.variants import write_censored_variant
    from nnunet_lopsided.nnunet_layout import names_of_dataset

    if threading.current_thread() is threading.main_thread():
        # A batch system's SIGTERM cleans up as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    variant = write_censored_variant(
        arguments.d,
        arguments.o,
        arguments.mode,
        arguments.rate,
        arguments.seed,
        name=arguments.name,
        overwrite=arguments.overwrite,
        n_processes=arguments.np,
    )
    print(f"{variant.folder}: {variant.n_censored} of {variant.n_lesions} lesions censored")
    if names_of_dataset(arguments.o, ("nnUNet_preprocessed", "nnUNet_results")):
        print(
            f"note: {variant.folder.name} was preprocessed or trained before; those files are of the replaced labels",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
