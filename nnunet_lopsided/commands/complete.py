"""``lopsided-complete``: labels completed without a reader, by networks that did not train on the case."""

from __future__ import annotations

import argparse
import shlex

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import (
    add_configuration,
    add_dataset,
    add_device,
    add_name,
    add_np,
    add_overwrite,
    add_plans,
    add_trainer,
    add_variant,
)


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, complete, and say what was believed and how to train on it."""
    parser = Parser(
        prog="lopsided-complete",
        description="Complete labels from which whole lesions may be missing, without a reader. A cross-validation "
        "(trained by nnUNetv2_train where there is none) calls lesions in cases that its networks did not train on. "
        "What no label explains becomes a soft target, as probable as the network says; labels stay as they are. The "
        "last training learns from them. The same command goes on after an interrupt.",
    )
    add_dataset(parser, "to complete, planned and preprocessed")
    add_configuration(parser)
    add_variant(parser)
    add_trainer(parser, does="that finds candidates and then learns from them")
    add_plans(parser)
    add_name(parser, None, "the source's, followed by Completed")
    parser.add_argument(
        "--threshold", type=float, default=0.1, metavar="P", help="candidates have p of at least this (default: 0.1)"
    )
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
    add_device(parser, "trainings", None, "nnU-Net's")
    add_np(parser)
    add_overwrite(parser, "an earlier variant of the same id and name")
    return run(parser, _work, argv)


def _work(arguments: argparse.Namespace) -> int:
    # Imported in functions, as in every command, so that --help does not wait for libraries.
    from nnunet_lopsided.completion.completing import complete

    made = complete(
        arguments.d,
        arguments.o,
        arguments.c,
        arguments.tr,
        plans=arguments.p,
        threshold=arguments.threshold,
        rounds=arguments.rounds,
        first_round=arguments.first_round,
        name=arguments.name,
        train=arguments.train,
        device=arguments.device,
        overwrite=arguments.overwrite,
        n_workers=arguments.np,
    )
    guess = "too few annotated lesions to say how many are lesions"
    if made.estimate is not None:
        guess = f"about {made.estimate:.0f} of them missed lesions"
    print(f"{made.folder}: {made.n_candidates} candidates that no label explains are soft targets, {guess}")
    if made.n_first is not None:
        print(f"the first round had {made.n_first} candidates")
    print(f"pictures of them: {made.page}")
    if made.estimate == 0:
        print("no candidate scores as lesions do: the labels may be whole, and then gain nothing; look for small ones")
    # Quoted, to be copied into a shell.
    print(f"{'trained' if made.trained else 'train on them'}: {shlex.join(made.final_command)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
