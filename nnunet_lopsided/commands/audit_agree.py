"""``lopsided-audit agree``: how well readers of one audit agree, and what they have still to settle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.commands._cli import Parser
from nnunet_lopsided.commands._options import add_audit_of, add_bootstrap, add_np, add_output, add_overwrite

if TYPE_CHECKING:
    from nnunet_lopsided.audit.agreeing import Agreement


def agree_parser() -> Parser:
    """The options of ``lopsided-audit agree``."""
    parser = Parser(
        prog="lopsided-audit agree",
        description="Compare several readers' decisions on the candidates of one audit: Cohen's kappa of every two, "
        "Fleiss' of three and more, a page with the candidates that they have still to settle, and consensus.csv for "
        "'lopsided-audit apply'.",
    )
    parser.add_argument(
        "decisions",
        nargs="+",
        type=Path,
        metavar="DECISIONS",
        help="a file per reader, as the page saves it (CSV or JSON); two or more",
    )
    add_output(parser, "the outputs go", "'agreement' beside the first file")
    add_audit_of(parser, "where the decisions lie")
    parser.add_argument(
        "--shown", type=int, default=200, metavar="N", help="candidates on the page (default: %(default)s)"
    )
    add_bootstrap(parser, 1000)
    add_np(parser)
    add_overwrite(parser, "an earlier output in the folder")
    return parser


def agree(arguments: argparse.Namespace) -> int:
    """Read, compare, write and print."""
    from nnunet_lopsided.audit.agreeing import read_agreement
    from nnunet_lopsided.audit.agreement_writing import PAGE, write_agreement
    from nnunet_lopsided.audit.page_size import check_shown
    from nnunet_lopsided.evaluation.intervals import check_seed

    check_shown(arguments.shown)
    check_seed(arguments.seed)
    found = read_agreement(arguments.decisions, arguments.audit, n_replicates=arguments.bootstrap, seed=arguments.seed)
    folder = arguments.output or arguments.decisions[0].absolute().parent / "agreement"
    write_agreement(found, folder, overwrite=arguments.overwrite, n_shown=arguments.shown, n_workers=arguments.np)
    for line in _lines(found):
        print(line)
    print(f"{folder}: see {PAGE}")
    return 0


def _lines(found: Agreement) -> list[str]:
    lines = []
    for told_apart, kappas in found.kappas.items():
        for kappa in kappas:
            who = " and ".join(found.names[i] for i in kappa.readers)
            what = "Cohen's" if len(kappa.readers) == 2 else "Fleiss'"
            if kappa.kappa is None:
                lines.append(f"{who}, {told_apart}: {what} kappa undefined: {kappa.undefined}")
                continue
            ends = kappa.interval.ends
            interval = f" (95% interval {ends[0]:.2f} to {ends[1]:.2f})" if ends else f" ({kappa.interval.undefined})"
            lines.append(f"{who}, {told_apart}: {what} kappa {kappa.kappa:.2f}{interval}, {kappa.n} candidates")
    lines.append(
        f"{len(found.agreed)} candidates decided alike by all, {len(found.disputed)} differently, "
        f"{len(found.partly_read)} by some only"
    )
    return lines
