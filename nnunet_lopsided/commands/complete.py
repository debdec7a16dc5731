"""``lopsided-complete``: labels completed without a reader, by networks that did not train on the case."""

from __future__ import annotations

import argparse
import shlex

from nnunet_lopsided.commands._cli import Parser, run


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, complete, and say what was believed and how to train on it."""
    parser = Parser(
        prog="lopsided-complete",
        description="Complete labels from which whole lesions may be missing, without a reader. A cross-validation "
        "(trained by nnUNetv2_train where there is none) calls lesions in cases that its networks did not train on. "
        "What no label explains becomes a soft target, as probable as the network says; labels stay as they are. The "
        "last training learns from them. The same command goes on after an interrupt.",
    )
    parser.add_argument("-d", metavar="ID", required=True, help="dataset id or name, planned and preprocessed")
    parser.add_argument("-c", metavar="CONFIGURATION", required=True, help="such as 2d or 3d_fullres")
    parser.add_argument("-o", metavar="ID", required=True, type=int, help="id of the completed variant")
    parser.add_argument(
        "-tr",
        metavar="TRAINER",
        default="nnUNetTrainerLopsided",
        help="trainer that finds candidates and then learns from them (default: %(default)s)",
    )
    parser.add_argument("-p", metavar="PLANS", default="nnUNetPlans", help="plans identifier (default: %(default)s)")
    parser.add_argument("--name", help="name of the variant (default: the source's followed by Completed)")
    parser.add_argument(
        "--threshold", type=float, default=0.1, metavar="P", help="candidates have p of at least this (default: 0.1)"
    )
    parser.add_argument("--train", action="store_true", help="run the last training too; without it it is printed")
    parser.add_argument("-device", choices=("cpu", "cuda", "mps"), help="for trainings (default: nnU-Net's)")
    parser.add_argument("-np", type=int, default=2, metavar="N", help="cases worked on at the same time (default: 2)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier completion of this id and name")
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
    print(f"pictures of them: {made.page}")
    if made.estimate == 0:
        print("no candidate scores as lesions do: the labels may be whole, and then gain nothing; look for small ones")
    # Quoted, to be copied into a shell.
    print(f"{'trained' if made.trained else 'train on them'}: {shlex.join(made.final_command)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
