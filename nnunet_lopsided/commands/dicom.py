"""``lopsided-dicom``: label maps, such as predictions or repaired labels, as DICOM SEG and structured reports."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import add_output, add_overwrite


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(
        prog="lopsided-dicom",
        description="Write label maps (predictions, repaired labels, an audit's maps) as DICOM SEG, CASE.dcm for "
        "each, and structured reports on their lesions if wanted. The series a label map belongs to is found by the "
        "case's name, as lopsided-convert dicom gives it, and by its grid, which must be the same.",
    )
    parser.add_argument("-i", type=Path, required=True, metavar="FOLDER", help="label maps CASE.nii.gz and so on")
    parser.add_argument("--series", type=Path, required=True, metavar="FOLDER", help="any folder above the DICOM files")
    add_output(parser, "CASE.dcm go; it may exist", required=True)
    parser.add_argument(
        "--report",
        action="store_true",
        help="write a structured report (TID 1500) too, CASE_report.dcm: volume, diameter and, where CASE.npz lies "
        "beside the label map, mean probability of each lesion",
    )
    parser.add_argument(
        "--one", action="store_true", help="one segment for each value of the label map, not one for each lesion"
    )
    parser.add_argument(
        "--description", default="nnunet-lopsided", metavar="TEXT", help="of the new series (default: %(default)s)"
    )
    add_overwrite(parser, "files that are there")
    return run(parser, _work, argv)


def _work(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.dicom.exporting import export_label_maps
    from nnunet_lopsided.evaluation.probabilities_beside import mean_probabilities

    exported = export_label_maps(
        arguments.i,
        arguments.series,
        arguments.output,
        one=arguments.one,
        description=arguments.description,
        mean_probabilities=mean_probabilities(arguments.i) if arguments.report else None,
        overwrite=arguments.overwrite,
    )
    if exported.empty:
        print(
            f"note: without a file, because nothing is labelled in them: {', '.join(exported.empty)}", file=sys.stderr
        )
    if exported.without_probabilities:
        names = ", ".join(exported.without_probabilities)
        print(f"note: reports without probabilities, because no CASE.npz is there: {names}", file=sys.stderr)
    reports = f" and {len(exported.reports)} reports" if arguments.report else ""
    print(f"{arguments.output}: {len(exported.written)} DICOM SEG files{reports}, {exported.n_segments} segments")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
