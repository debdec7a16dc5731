"""``lopsided-audit sample`` and ``estimate``: read a random few of the candidates, and learn of all."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_lopsided.commands._cli import Parser
from nnunet_lopsided.commands._options import add_audit_of, add_np, add_output, add_overwrite, add_seed
from nnunet_lopsided.commands.audit_export import add_audit


def sample_parser() -> Parser:
    """The options of ``lopsided-audit sample``."""
    parser = Parser(
        prog="lopsided-audit sample",
        description="Draw candidates at random, by score and diameter, and write a page to read them on. From the "
        "decisions 'lopsided-audit estimate' tells how many of all candidates are missed lesions.",
    )
    add_audit(parser)
    parser.add_argument(
        "--n", type=int, default=60, metavar="N", help="candidates to read, at least 2 (default: %(default)s)"
    )
    add_seed(parser, "the draw")
    add_output(parser, "the sample goes", "'sample' in the folder of the audit")
    add_np(parser)
    add_overwrite(parser, "an earlier sample in the folder")
    return parser


def sample(arguments: argparse.Namespace) -> int:
    """Draw, write and say how many."""
    from nnunet_lopsided.audit.sample_writing import write_sample
    from nnunet_lopsided.audit.sampled import PAGE, sample_candidates
    from nnunet_lopsided.audit.stored import chosen_audit

    audit = chosen_audit(arguments.audit, near=[Path()])
    drawn = sample_candidates(audit, arguments.n, arguments.seed)
    folder = arguments.output or audit.folder / "sample"
    write_sample(drawn, folder, overwrite=arguments.overwrite, n_workers=arguments.np)
    print(f"{len(drawn.drawn)} of {len(drawn.population)} candidates drawn from {len(drawn.strata)} strata")
    print(f"{folder}: decide in {PAGE}, then lopsided-audit estimate DECISIONS")
    return 0


def estimate_parser() -> Parser:
    """The options of ``lopsided-audit estimate``."""
    parser = Parser(
        prog="lopsided-audit estimate",
        description="From the decisions on a sample: how many of all candidates are missed lesions, by diameter, with "
        "intervals of the sampling design; mended probabilities of all; and zones.csv, decisions for "
        "'lopsided-audit apply' that accept the probable and leave the doubtful to be ignored.",
    )
    parser.add_argument(
        "decisions", type=Path, metavar="DECISIONS", help="as the page of the sample saves them (CSV or JSON)"
    )
    parser.add_argument(
        "--sample",
        type=Path,
        metavar="FOLDER",
        help="of the sample (default: where the decisions lie, or the only one)",
    )
    add_audit_of(parser, "above the sample")
    parser.add_argument(
        "--precision",
        type=float,
        default=0.8,
        metavar="SHARE",
        help="so many of the candidates accepted unread should be lesions (default: %(default)s)",
    )
    parser.add_argument(
        "--doubtful",
        type=float,
        default=0.2,
        metavar="P",
        help="other candidates of at least this probability are doubtful (default: %(default)s)",
    )
    add_output(parser, "the outputs go", "'estimate' beside the decisions")
    add_overwrite(parser, "an earlier estimate in the folder")
    return parser


def estimate(arguments: argparse.Namespace) -> int:
    """Read, estimate, write and print."""
    from nnunet_lopsided.audit.estimate_writing import PAGE, ZONES, write_estimate
    from nnunet_lopsided.audit.sample_estimate import estimate_from_sample, miss_rate
    from nnunet_lopsided.audit.sampled import chosen_sample, read_sample

    folder = chosen_sample(arguments.sample, arguments.decisions)
    found = estimate_from_sample(
        read_sample(folder, arguments.audit),
        arguments.decisions,
        precision=arguments.precision,
        doubtful=arguments.doubtful,
    )
    output = arguments.output or arguments.decisions.absolute().parent / "estimate"
    write_estimate(found, output, overwrite=arguments.overwrite)
    total, rate = found.total, miss_rate(found.total.missed, found.n_annotated)
    print(
        f"about {total.missed:.0f} (95% interval {total.low:.0f} to {total.high:.0f}) of {total.n_candidates} "
        f"candidates are missed lesions, {total.n_read} were read"
    )
    if rate is not None:
        print(f"the annotators missed {rate:.0%} of the lesions that the models see")
    print(
        f"{int(found.zones.accepted.sum())} accepted, {found.zones.n_by_rule} of them unread, "
        f"{int(found.zones.doubtful.sum())} doubtful: lopsided-audit apply {output / ZONES} -o ID --unsure ignore"
    )
    print(f"{output}: see {PAGE}")
    return 0
