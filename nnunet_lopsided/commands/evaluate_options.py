"""The options of ``lopsided-eval``."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_lopsided.commands._cli import Parser, not_shown
from nnunet_lopsided.commands._options import (
    add_bootstrap,
    add_label,
    add_np,
    add_output,
    add_overwrite,
    add_patients_regex,
)

# Of nnunet_lopsided.evaluation.rules, which takes long to import.
PROFILE_NAMES = ("paper", "paper-letter", "lesions", "brats-mets-2023", "brats-mets-2025")

# Options that are fields of EvaluationRules; without them the profile decides.
RULES = (
    "match",
    "distance",
    "tolerance_mm",
    "dilation_voxels",
    "join_dilated",
    "duplicates",
    "dice",
    "min_lesion_mm3",
    "connectivity",
    "confidence",
    "min_candidate_voxels",
    "candidates",
    "min_iou",
    "one_to_one",
    "small_below_mm3",
    "surface_distances",
    "nsd_tolerance_mm",
    "instances",
    "diameter_edges_mm",
    "fp_per_case",
)


def evaluate_parser() -> Parser:
    """The parser with all options."""
    parser = Parser(
        prog="lopsided-eval",
        description="Evaluate predictions lesion by lesion: average precision, sensitivity, false positives, FROC, "
        "sensitivity by size. Writes report.html, summary.json, cases.csv, patients.csv, lesions.csv, candidates.csv, "
        "curves.png. 'lopsided-eval compare A B' compares such outputs.",
    )
    _add_inputs(parser)
    _add_rules(parser.add_argument_group("rules (defaults: those of the profile; here of 'paper')"))
    _add_cases(parser.add_argument_group("cases"))
    add_bootstrap(parser.add_argument_group("bootstrap"), 2000)
    _add_pictures(parser.add_argument_group("pictures"))
    parser.add_argument(
        "--anonymous",
        action="store_true",
        help="report.html without paths, and with numbers in place of case names; all other files keep the names",
    )
    add_np(parser, former="--np")
    add_overwrite(parser, "an earlier evaluation in the output folder")
    return parser


def _add_inputs(parser: Parser) -> None:
    references = parser.add_argument(
        "-g",
        "--references",
        # Another name of -g, beside --reference-censored.
        "--reference-full",
        type=Path,
        metavar="FOLDER",
        help="reference label maps (default, for predictions in nnU-Net's result folders: gt_segmentations of their "
        "dataset)",
    )
    not_shown(references, "--reference-full")
    predictions = parser.add_mutually_exclusive_group(required=True)
    predictions.add_argument(
        "-p",
        "--predictions",
        type=Path,
        metavar="FOLDER",
        help="CASE.npz of nnUNetv2_predict --save_probabilities, CASE.npy, probability images or label maps",
    )
    predictions.add_argument(
        "--cv",
        type=Path,
        metavar="RESULTS",
        help="evaluate fold_X/validation of all folds of a trainer's result folder together",
    )
    # --folds is what it was called before; nnU-Net writes -f.
    folds = parser.add_argument(
        "-f", "--folds", type=int, nargs="+", metavar="FOLD", help="folds of --cv (default: all)"
    )
    not_shown(folds, "--folds")
    add_output(parser, "the results go", required=True)
    parser.add_argument(
        "--reference-censored",
        type=Path,
        metavar="FOLDER",
        help="label maps that lack some lesions of the references: tells sensitivity on kept and censored lesions",
    )
    add_label(parser, several="each in a folder of its own, and one table of all")
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="default: dataset.json of the predictions, of the references or of the folder above these",
    )


def _add_rules(rules: argparse._ArgumentGroup) -> None:
    # No rule but the profile and the thresholds has a default: None tells what was not given, and the profile decides.
    _add_matching(rules)
    _add_counting(rules)
    _add_further_rules(rules)


def _add_matching(rules: argparse._ArgumentGroup) -> None:
    """What is predicted, and when a candidate detects a lesion."""
    rules.add_argument(
        "--profile",
        default="paper",
        metavar="{" + ",".join(PROFILE_NAMES) + "}",
        help="paper: Yi et al. 2020; paper-letter: the same with --distance center --duplicates tp; lesions: the same "
        "with --confidence sqrt; brats-mets-2023: threshold 0.5, overlap with lesions grown by 1 voxel, lesions that "
        "then meet are one, those of at most 2 mm3 do not count, Dice with all that overlaps; brats-mets-2025: "
        "threshold 0.5, overlap, one to one (default: %(default)s)",
    )
    rules.add_argument(
        "--threshold",
        type=float,
        nargs="+",
        default=[],
        metavar="P",
        help="a voxel is predicted when p >= this; several: a table over all, details of the first (default: 0.1)",
    )
    rules.add_argument(
        "--match",
        choices=("centroid", "overlap"),
        help="a candidate detects the lesion nearest its centroid, or every lesion it touches (default: centroid)",
    )
    rules.add_argument(
        "--distance",
        choices=("box", "center"),
        help="from the centroid to a voxel's box or to its center (default: box)",
    )
    rules.add_argument("--tolerance-mm", type=float, metavar="MM", help="greatest distance of a match (default: 1)")
    rules.add_argument(
        "--dilation-voxels", type=int, metavar="N", help="with overlap: grow lesions by N voxels (default: 0)"
    )
    rules.add_argument(
        "--join-dilated",
        action=argparse.BooleanOptionalAction,
        help="lesions that meet when so grown are one (default: no)",
    )
    rules.add_argument(
        "--duplicates",
        choices=("ignore", "fp", "tp"),
        help="further candidates of a detected lesion: left out, false or true positives (default: ignore)",
    )
    rules.add_argument(
        "--dice",
        choices=("best", "union"),
        help="of a lesion with the candidate that detects it, or with all that match it (default: best)",
    )


def _add_counting(rules: argparse._ArgumentGroup) -> None:
    """Which lesions and candidates count, and what ranks these."""
    rules.add_argument(
        "--min-lesion-mm3", type=float, metavar="MM3", help="lesions of at most this volume do not count (default: 0)"
    )
    rules.add_argument(
        "--connectivity", type=int, choices=(26, 18, 6, 8, 4), help="which voxels touch (default: 26 in 3D, 8 in 2D)"
    )
    rules.add_argument(
        "--confidence",
        choices=("mean", "max", "sum", "sqrt", "learned"),
        help="what ranks candidates: mean, max or sum of the probability, mean times the root of the number of voxels, "
        "or learned by lopsided-confidence (default: mean, the paper's)",
    )
    rules.add_argument(
        "--confidence-model",
        type=Path,
        metavar="PATH",
        help="of learned: a file of lopsided-confidence, or the trainer's result folder with it (default, for "
        "validation cases: that of their folder)",
    )
    rules.add_argument(
        "--min-candidate-voxels",
        type=int,
        metavar="N",
        help="smaller candidates are dropped before matching (default: 1)",
    )
    rules.add_argument(
        "--candidates",
        choices=("threshold", "dynamic"),
        help="connected voxels above the threshold, or those around each peak above the peak over 2.5, which tells "
        "lesions apart that one component joins (default: threshold)",
    )


def _add_further_rules(rules: argparse._ArgumentGroup) -> None:
    """What other benchmarks ask for, and what is told besides."""
    rules.add_argument(
        "--min-iou",
        type=float,
        metavar="SHARE",
        help="with overlap: a candidate matches a lesion from this intersection over union on (default: 0)",
    )
    rules.add_argument(
        "--one-to-one",
        action=argparse.BooleanOptionalAction,
        help="with overlap: a candidate detects at most one lesion, so that the sum of Dice is highest (default: no)",
    )
    rules.add_argument(
        "--small-below-mm3",
        type=float,
        metavar="MM3",
        help="score lesions below this volume and the others apart, too (default: 0, not)",
    )
    rules.add_argument(
        "--instances",
        choices=("reference", "prediction", "both"),
        help="label maps of these number their lesions: every positive value is one, also where they touch (default: "
        "lesions are connected components)",
    )
    rules.add_argument(
        "--surface-distances",
        # Not store_true, whose False would overrule a profile that has them.
        action="store_const",
        const=True,
        help="tell HD95 and normalised surface Dice (NSD) of every lesion found; takes longer",
    )
    rules.add_argument(
        "--nsd-tolerance-mm",
        type=float,
        metavar="MM",
        help="with --surface-distances: surfaces this far apart or nearer agree in the NSD (default: 1)",
    )
    rules.add_argument(
        "--diameter-edges-mm",
        type=float,
        nargs="+",
        metavar="MM",
        help="inner edges of the diameter bins (default: 3 6 10 20)",
    )
    rules.add_argument(
        "--fp-per-case",
        type=float,
        nargs="+",
        metavar="N",
        help="false positives per case at which sensitivity is read off the FROC (default: 1/8 1/4 1/2 1 2 4 8)",
    )


def _add_cases(cases: argparse._ArgumentGroup) -> None:
    cases.add_argument(
        "--cases", type=Path, metavar="FILE", help="evaluate these only: a text file of case names, one a line"
    )
    cases.add_argument(
        "--hard-labels", action="store_true", help="evaluate the label maps even where probabilities lie beside them"
    )
    cases.add_argument(
        "--allow-missing",
        action="store_true",
        help="count the lesions of references without prediction as missed instead of refusing them",
    )
    cases.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out cases that cannot be read or do not fit, and list them, instead of refusing them",
    )
    add_patients_regex(
        cases, "cases.csv of the references' dataset, or else the case", " to resample, e.g. '(.+)_visit'"
    )


def _add_pictures(pictures: argparse._ArgumentGroup) -> None:
    pictures.add_argument(
        "--write-maps", action="store_true", help="write a label map of hits, misses and false positives per case"
    )
    add_images(pictures, "the worst misses and false positives")


def add_images(parser: Parser | argparse._ArgumentGroup, shown: str) -> None:
    """The options of a page's pictures: ``shown`` says of what they are."""
    parser.add_argument("--images", type=Path, metavar="FOLDER", help=f"images: the page shows {shown}")
    parser.add_argument("--image-channel", type=int, default=0, metavar="N", help="of CASE_000N (default: %(default)s)")
    parser.add_argument(
        "--gallery", type=int, default=6, metavar="N", help="pictures of each kind (default: %(default)s)"
    )
