"""lopsided-env: the explicit way to tell nnU-Net where our trainers are."""

from __future__ import annotations

import argparse
import os
import shlex

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._completion import SHELLS


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(
        prog="lopsided-env",
        description="Print the line that makes nnU-Net find the trainers of nnunet-lopsided, for those who have "
        'switched the automatic way off: eval "$(lopsided-env)"',
    )
    parser.add_argument(
        "--completion",
        choices=SHELLS,
        help="print a script by which this shell completes the options of all commands instead; needs shtab",
    )
    return run(parser, _print_line, argv)


def _print_line(arguments: argparse.Namespace) -> int:
    if arguments.completion is not None:
        from nnunet_lopsided.commands._completion import completion_script

        print(completion_script(arguments.completion))
        return 0
    from nnunet_lopsided.startup import PLUGIN_FOLDER, VARIABLE

    # The user's own folders first: where two trainers have one name, nnU-Net takes the first.
    others = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder not in ("", PLUGIN_FOLDER)]
    print(f"export {VARIABLE}={shlex.quote(os.pathsep.join([*others, PLUGIN_FOLDER]))}")
    return 0
