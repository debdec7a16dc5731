"""``lopsided-complete``: labels completed without a reader, by networks that did not train on the case."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import (
    add_configuration,
    add_dataset,
    add_device,
    add_name,
    add_np,
    add_overwrite,
    add_plans,
    add_seed,
    add_trainer,
    add_variant,
)

if TYPE_CHECKING:
    from nnunet_lopsided.completion.zoning import Zoning


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, complete, and say what was believed and how to train on it."""
    parser = Parser(
        prog="lopsided-complete",
        description="Complete labels from which whole lesions may be missing, without a reader. A cross-validation "
        "(trained by nnUNetv2_train where there is none) calls lesions in cases that its networks did not train on. "
        "An audit says of those that no label explains how probably they are missed lesions: the sure are added to the "
        "labels, the doubtful ignored. Labels that are nearly whole stay as they are. The last training learns from "
        "them. The same command goes on after an interrupt.",
    )
    add_dataset(parser, "to complete, planned and preprocessed")
    add_configuration(parser)
    add_variant(parser)
    add_trainer(parser, does="that finds candidates and then learns from them")
    add_plans(parser)
    add_name(parser, None, "the source's, followed by Completed")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="candidates have p of at least this (default: 0.03; of soft targets 0.1)",
    )
    parser.add_argument(
        "--way",
        choices=("soft", "zones"),
        help="zones in the labels, or soft targets beside them (default: zones)",
    )
    parser.add_argument(
        "--precision",
        type=float,
        metavar="SHARE",
        help="so many of what is accepted unread should be lesions, and each of p .5 and more (default: 0.8)",
    )
    parser.add_argument(
        "--doubtful",
        type=float,
        metavar="P",
        help="other candidates of at least this probability are ignored (default: 0.2)",
    )
    parser.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="write a page with N random candidates to read, and stop; --decisions goes on",
    )
    parser.add_argument(
        "--decisions", type=Path, metavar="FILE", help="what was decided on the sample, as its page saves it"
    )
    parser.add_argument(
        "--truth",
        metavar="DATASET",
        help="instead of --decisions, where lesions were deleted on purpose: this dataset, with whole labels, decides",
    )
    add_seed(parser, "the draw of the sample")
    parser.add_argument(
        "--rounds",
        type=int,
        choices=(1, 2),
        default=1,
        help="2: a second cross-validation learns from the soft targets, and finds candidates anew (default: 1)",
    )
    parser.add_argument(
        "--first-round",
        type=int,
        metavar="ID",
        help="with --rounds 2: id of the first round's variant, or of one that was completed already (default: the one "
        "after that of -o)",
    )
    parser.add_argument("--train", action="store_true", help="run the last training too; without it it is printed")
    add_device(parser, "trainings and predictions", None, "nnU-Net's")
    add_np(parser)
    add_overwrite(parser, "an earlier variant of the same id and name")
    return run(parser, _work, argv)


def _work(arguments: argparse.Namespace) -> int:
    # Imported in functions, as in every command, so that --help does not wait for libraries.
    from nnunet_lopsided.completion.completing import complete
    from nnunet_lopsided.completion.zoning import SampleToRead
    from nnunet_lopsided.soft_target import THRESHOLD

    zoning = _zoning(arguments)
    made = complete(
        arguments.d,
        arguments.o,
        arguments.c,
        arguments.tr,
        plans=arguments.p,
        threshold=THRESHOLD if zoning is not None or arguments.threshold is None else arguments.threshold,
        zoning=zoning,
        rounds=arguments.rounds,
        first_round=arguments.first_round,
        name=arguments.name,
        train=arguments.train,
        device=arguments.device,
        overwrite=arguments.overwrite,
        n_workers=arguments.np,
    )
    if isinstance(made, SampleToRead):
        print(f"{made.n} of {made.n_candidates} candidates to read: decide on all of them in {made.page}")
        print("then the same command with --decisions FILE, the file that the page saves, goes on")
        return 0
    guess = "too few annotated lesions to say how many are lesions"
    if made.estimate is not None:
        guess = f"about {made.estimate:.0f} of them missed lesions"
    became = "" if made.changes_nothing else "are soft targets"
    if made.n_accepted is not None:
        became = f"({made.n_accepted} are labels now, {made.n_doubtful} to be ignored)"
    print(f"{made.folder}: {made.n_candidates} candidates that no label explains {became}, {guess}")
    if made.n_first is not None:
        print(f"the first round had {made.n_first} candidates")
    elif arguments.rounds == 2:
        print("the first round believes in no candidate, so there was no second")
    print(f"pictures of them: {made.page}")
    if made.nearly_whole:
        print("less than a tenth of all lesions seems to be missing, so no label was changed: look for small lesions")
    if made.changes_nothing:
        whole = "" if made.estimate is None else ": they may be whole; look for small lesions"
        print(f"no candidate is believed, and the labels stay as they were{whole}")
    # Quoted, to be copied into a shell.
    print(f"{'trained' if made.trained else 'train on them'}: {shlex.join(made.final_command)}")
    print(f"predict with it: {shlex.join(made.prediction)}")
    return 0


def _zoning(arguments: argparse.Namespace) -> Zoning | None:
    """How zones are drawn; None: soft targets are asked for."""
    from nnunet_lopsided.completion.zoning import Zoning
    from nnunet_lopsided.errors import InputError

    given = {
        name: value
        for name in ("precision", "doubtful", "sample", "decisions", "truth")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.way != "soft":
        threshold = {} if arguments.threshold is None else {"threshold": arguments.threshold}
        return Zoning(**given, **threshold, seed=arguments.seed)
    if given:
        raise InputError(f"--{next(iter(given))} is of zones; expected --way zones with it, found --way soft")
    return None


if __name__ == "__main__":
    raise SystemExit(main())
