"""``lopsided-audit export`` and ``import``: candidates into other viewers, and back as decisions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_lopsided.commands._cli import Parser
from nnunet_lopsided.commands._options import add_audit_of, add_np, add_output, add_overwrite


def add_audit(parser: Parser) -> None:
    """The audit that a sub-command is about."""
    parser.add_argument(
        "audit",
        nargs="?",
        type=Path,
        metavar="AUDIT",
        help="folder of the audit (default: this folder, or the only audit)",
    )


def export_parser() -> Parser:
    """The options of ``lopsided-audit export``."""
    parser = Parser(
        prog="lopsided-audit export",
        description="Write the best candidates for 3D Slicer (points by tier of score, named segments, a script that "
        "opens a case), ITK-SNAP (label maps with descriptions), as COCO (slices with boxes and outlines, for CVAT "
        "and FiftyOne) or as DICOM (SEG and structured report). 'lopsided-audit import' reads back what was done in "
        "Slicer and ITK-SNAP.",
    )
    add_audit(parser)
    parser.add_argument("--to", required=True, choices=("slicer", "itk-snap", "coco", "dicom"), help="the viewer")
    add_output(parser, "the files go", required=True)
    parser.add_argument(
        "--shown", type=int, default=200, metavar="N", help="so many of the best candidates (default: %(default)s)"
    )
    parser.add_argument("--cases", nargs="+", default=[], metavar="CASE", help="candidates of these cases alone")
    parser.add_argument(
        "--accepted", type=Path, metavar="DECISIONS", help="all candidates that this file accepts, not the best ones"
    )
    parser.add_argument(
        "--series", type=Path, metavar="FOLDER", help="for DICOM: any folder above the files that cases came from"
    )
    parser.add_argument(
        "--channel", type=int, default=0, metavar="N", help="of the slices of COCO, from 0 (default: %(default)s)"
    )
    add_np(parser)
    add_overwrite(parser, "an earlier export in the folder")
    return parser


def export(arguments: argparse.Namespace) -> int:
    """Write and say what was written."""
    from nnunet_lopsided.audit.stored import chosen_audit
    from nnunet_lopsided.audit.viewers.exporting import SCRIPT, export_audit
    from nnunet_lopsided.errors import InputError

    if arguments.shown < 1:
        raise InputError(f"--shown must be at least 1, got {arguments.shown}")
    audit = chosen_audit(arguments.audit, near=[Path()])
    shown = export_audit(
        audit,
        arguments.output,
        arguments.to,
        n_shown=arguments.shown,
        cases=arguments.cases,
        decisions=arguments.accepted,
        channel=arguments.channel,
        dicom=arguments.series,
        overwrite=arguments.overwrite,
        n_workers=arguments.np,
    )
    cases = list(dict.fromkeys(c.case for c in shown))
    print(f"{len(shown)} of {len(audit.candidates)} candidates, in {len(cases)} cases, in {arguments.output}")
    if arguments.to == "slicer":
        print(f"Slicer --python-script {arguments.output / SCRIPT} {cases[0]}")
    return 0


def import_parser() -> Parser:
    """The options of ``lopsided-audit import``."""
    parser = Parser(
        prog="lopsided-audit import",
        description="Read an export back after a reader worked on it in 3D Slicer or ITK-SNAP: texts that begin with "
        "accept, reject or unsure, deleted or unselected points and emptied segments (reject), redrawn segments "
        "(accept, as drawn). Writes decisions.csv for 'lopsided-audit apply', and maps of redrawn candidates.",
    )
    parser.add_argument("export", type=Path, metavar="EXPORT", help="folder of lopsided-audit export")
    add_output(parser, "the decisions go", "EXPORT with -decisions behind it")
    add_audit_of(parser, "beside the export")
    parser.add_argument("--reader", default="", metavar="NAME", help="who decided, for the decisions")
    parser.add_argument(
        "--rest",
        choices=("undecided", "accept"),
        default="undecided",
        help="candidates that were left as they were, in cases whose files were saved (default: undecided)",
    )
    add_overwrite(parser, "an earlier import in the folder")
    return parser


def import_(arguments: argparse.Namespace) -> int:
    """Read, write and say what was decided."""
    from nnunet_lopsided.audit.viewers.importing import DECISIONS, MAPS, import_decisions

    folder = arguments.output or arguments.export.with_name(f"{arguments.export.absolute().name}-decisions")
    found = import_decisions(
        arguments.export,
        folder,
        arguments.audit,
        reader=arguments.reader,
        rest=arguments.rest,
        overwrite=arguments.overwrite,
    )
    for note in found.notes:
        print(f"lopsided-audit import: warning: {note}", file=sys.stderr)
    counts = ", ".join(f"{found.decisions.count(word)} {word}" for word in ("accept", "reject", "unsure"))
    print(f"{len(found.saved_cases)} cases were saved since the export: {counts}")
    maps = f" --maps {folder / MAPS}" if found.redrawn else ""
    print(f"lopsided-audit apply {folder / DECISIONS}{maps} -o ID")
    return 0
