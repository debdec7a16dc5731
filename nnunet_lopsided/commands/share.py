"""``lopsided-share``: the preprocessed folder of a variant, sharing the images of its source."""

from __future__ import annotations

import argparse
import sys

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import add_dataset, add_np, add_overwrite


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, make the folder, and say what it shares."""
    parser = Parser(
        prog="lopsided-share",
        description="Make the preprocessed folder of a variant from that of its source: image files are hard links, "
        "plans and splits are the source's, and only what the labels change is written. The result is that of "
        "nnUNetv2_preprocess with the source's plans.",
    )
    add_dataset(parser, "that is preprocessed")
    parser.add_argument(
        "-o", required=True, metavar="DATASET", help="id or name of the variant of it, below nnUNet_raw"
    )
    add_overwrite(parser, "what this command made before")
    add_np(parser)
    return run(parser, _work, argv)


def _work(arguments: argparse.Namespace) -> int:
    # Imported in functions, as in every command, so that --help does not wait for libraries.
    from nnunet_lopsided.variants.sharing import share_preprocessed

    shared = share_preprocessed(arguments.d, arguments.o, overwrite=arguments.overwrite, n_workers=arguments.np)
    print(
        f"{shared.folder}: {shared.n_cases} cases, {', '.join(shared.configurations)}; "
        f"{shared.n_linked} image files linked"
    )
    for note in shared.notes:
        print(f"note: {note}", file=sys.stderr)
    # Copies take the disk space that the user wanted to save.
    if shared.n_copied:
        print(
            f"note: {shared.n_copied} image files could not be linked (another file system or user) and were copied",
            file=sys.stderr,
        )
    if shared.preprocessed_anew:
        print(
            "note: preprocessed anew, because labels outside the nonzero region change the normalisation of the "
            f"images: {', '.join(shared.preprocessed_anew)}",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
