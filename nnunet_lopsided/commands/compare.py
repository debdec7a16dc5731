"""``lopsided-eval compare``: evaluations of several models on the same cases, side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import add_bootstrap, add_output, add_overwrite
from nnunet_lopsided.commands.evaluate_options import add_images

if TYPE_CHECKING:
    from nnunet_lopsided.evaluation.comparison import Comparison
    from nnunet_lopsided.evaluation.report.comparison_gallery import Group


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run(_parser(), _compare, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="lopsided-eval compare",
        description="Compare evaluations of the same cases by the same rules: the difference of every metric with its "
        "paired bootstrap interval, and which lesion was found by which model. Writes compare.html, comparison.json, "
        "lesions.csv.",
    )
    parser.add_argument(
        "evaluations", nargs="+", type=Path, metavar="FOLDER", help="output folders of lopsided-eval, two or more"
    )
    add_output(parser, "the results go", required=True)
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names of the models (default: of the folders)")
    add_bootstrap(parser, 2000)
    add_images(parser, "what only one model found or called")
    parser.add_argument(
        "--anonymous",
        action="store_true",
        help="compare.html without paths, and with numbers in place of case names and, without --names, of models; "
        "comparison.json and lesions.csv keep them",
    )
    add_overwrite(parser, "an earlier comparison in the output folder")
    return parser


def _compare(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.evaluation.comparison import compare
    from nnunet_lopsided.evaluation.comparison_writing import COMMAND, FILES, MARKS, write_comparison
    from nnunet_lopsided.evaluation.saved import read_evaluation
    from nnunet_lopsided.files.folders import check_output_folder

    folders, names = arguments.evaluations, arguments.names
    if len(folders) < 2:
        raise InputError(f"a comparison needs at least two evaluations, got {len(folders)}")
    if names is None:
        # The name of a folder may tell who was scanned where.
        numbered = [f"model {i}" for i in range(1, len(folders) + 1)]
        names = numbered if arguments.anonymous else _names(folders)
    elif len(names) != len(folders):
        raise InputError(f"--names must be {len(folders)} names, one for each evaluation, got {len(names)}")
    # Before the evaluations are read, which takes long where they are large.
    check_output_folder(arguments.output, arguments.overwrite, folders, marks=MARKS, command=COMMAND, holds=FILES)
    models = [read_evaluation(folder, name) for folder, name in zip(folders, names, strict=True)]
    # The same rules by name may have been computed differently; whether that matters is for the user to say.
    versions = {model.summary["settings"]["version"] for model in models}
    if len(versions) > 1:
        print(
            f"lopsided-eval compare: warning: evaluated with different versions: {', '.join(sorted(versions))}",
            file=sys.stderr,
        )
    comparison = compare(models, arguments.bootstrap, arguments.seed)
    galleries: tuple[Group, ...] = ()
    if arguments.images is not None:
        from nnunet_lopsided.evaluation.report.comparison_gallery import compared_gallery

        galleries = compared_gallery(comparison, arguments.images, arguments.image_channel, arguments.gallery)
    write_comparison(comparison, arguments.output, arguments.overwrite, arguments.anonymous, galleries)
    print(_table(comparison))
    print(f"results in {arguments.output}: see compare.html")
    if arguments.anonymous:
        print("compare.html names no case and no folder; all other files do, and tell which case is which")
    return 0


def _names(folders: list[Path]) -> list[str]:
    """The names of the folders, with those above them as far as that is needed to tell them apart."""
    parts = [folder.absolute().parts[1:] for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return names


def _table(comparison: Comparison) -> str:
    from nnunet_lopsided.evaluation.report.numbers import title_of

    lines = []
    for pair in comparison.pairs:
        first, second = (comparison.models[i].name for i in (pair.first, pair.second))
        lines.append(f"{second} minus {first}")
        for name, d in pair.differences.items():
            if d.difference is None:
                continue
            ends = "" if d.interval.low is None else f"  {d.interval.low:+.4f} to {d.interval.high:+.4f}"
            lines.append(f"  {title_of(name):<46}{d.difference:>+12.4f}{ends}")
        lesions = pair.lesions
        lines.append(
            f"  lesions found by both {lesions.both}, only {first} {lesions.only_first}, only {second} "
            f"{lesions.only_second}, neither {lesions.neither}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
