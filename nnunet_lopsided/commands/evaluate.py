"""``lopsided-eval``: lesion-wise evaluation of a folder of predictions; ``lopsided-eval compare``: of several."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_lopsided.commands._cli import Parser, progress_bar, run

if TYPE_CHECKING:
    from nnunet_lopsided.evaluation import EvaluationRules, FolderResult
    from nnunet_lopsided.evaluation.folder import LoadedAndEvaluated
    from nnunet_lopsided.evaluation.intervals import Interval

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
    "diameter_edges_mm",
    "fp_per_case",
)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["compare"]:
        from nnunet_lopsided.commands import compare

        return compare.main(argv[1:])
    return run(_parser(), _evaluate, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="lopsided-eval",
        description="Evaluate predictions lesion by lesion: average precision, sensitivity, false positives, FROC, "
        "sensitivity by size. Writes report.html, summary.json, cases.csv, patients.csv, lesions.csv, candidates.csv, "
        "curves.png. 'lopsided-eval compare A B' compares such outputs.",
    )
    parser.add_argument(
        "-g",
        "--references",
        "--reference-full",
        type=Path,
        metavar="FOLDER",
        help="reference label maps (default, for predictions in nnU-Net's result folders: gt_segmentations of their "
        "dataset)",
    )
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
    parser.add_argument("--folds", type=int, nargs="+", metavar="N", help="with --cv: these only (default: all)")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER", help="where the results go")
    parser.add_argument(
        "--reference-censored",
        type=Path,
        metavar="FOLDER",
        help="label maps that lack some lesions of the references: tells sensitivity on kept and censored lesions",
    )
    parser.add_argument("--label", metavar="NAME", help="class or region of dataset.json (default: all foreground)")
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="default: dataset.json of the predictions, of the references or of the folder above these",
    )
    _add_rules(parser.add_argument_group("rules (defaults: those of the profile; here of 'paper')"))
    cases = parser.add_argument_group("cases")
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
    cases.add_argument(
        "--patients-regex",
        metavar="REGEX",
        help="its first group in a case's name is the patient to resample, e.g. '(.+)_visit' (default: the case)",
    )
    bootstrap = parser.add_argument_group("bootstrap")
    bootstrap.add_argument(
        "--bootstrap", type=int, default=2000, metavar="N", help="replicates, 0 for none (default: %(default)s)"
    )
    bootstrap.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--write-maps", action="store_true", help="write a label map of hits, misses and false positives per case"
    )
    pictures.add_argument(
        "--images", type=Path, metavar="FOLDER", help="images: the page shows the worst misses and false positives"
    )
    pictures.add_argument(
        "--image-channel", type=int, default=0, metavar="N", help="of CASE_000N (default: %(default)s)"
    )
    pictures.add_argument(
        "--gallery", type=int, default=6, metavar="N", help="pictures of each kind (default: %(default)s)"
    )
    # --np is what it was called before; nnU-Net writes -np.
    parser.add_argument("-np", "--np", type=int, default=2, metavar="N", help="threads (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation in the output folder")
    return parser


def _add_rules(rules: argparse._ArgumentGroup) -> None:
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
    rules.add_argument("--tolerance-mm", type=float, metavar="MM", help="greatest such distance (default: 1)")
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
    rules.add_argument(
        "--min-lesion-mm3", type=float, metavar="MM3", help="lesions of at most this volume do not count (default: 0)"
    )
    rules.add_argument(
        "--connectivity", type=int, choices=(26, 18, 6, 8, 4), help="of components (default: 26 in 3D, 8 in 2D)"
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
    rules.add_argument(
        "--min-iou",
        type=float,
        metavar="SHARE",
        help="with overlap: a candidate matches a lesion from this intersection over union on (default: 0)",
    )
    rules.add_argument(
        "--one-to-one",
        action=argparse.BooleanOptionalAction,
        help="with overlap: a candidate detects at most one lesion, the pairs of highest Dice first (default: no)",
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


def _evaluate(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.evaluation import evaluate_folder
    from nnunet_lopsided.evaluation.writing import FILES, write_files
    from nnunet_lopsided.files.folders import new_output_folder

    rules = _rules(arguments)
    if arguments.seed < 0:
        raise InputError(f"--seed must be at least 0, got {arguments.seed}")
    if arguments.gallery < 0:
        raise InputError(f"--gallery must be at least 0, got {arguments.gallery}")
    if arguments.folds and arguments.cv is None:
        raise InputError("--folds needs --cv")
    given = (
        arguments.references,
        arguments.predictions,
        arguments.cv,
        arguments.reference_censored,
        arguments.images,
        arguments.confidence_model,
    )
    inputs = [path for path in given if path is not None]
    with (
        new_output_folder(arguments.output, arguments.overwrite, inputs, holds=FILES) as unfinished,
        progress_bar("evaluating") as progress,
    ):
        result = evaluate_folder(
            arguments.references,
            arguments.predictions or arguments.cv,
            rules=rules,
            thresholds=arguments.threshold,
            label=arguments.label,
            dataset_json=arguments.dataset_json,
            patients_regex=arguments.patients_regex,
            allow_missing=arguments.allow_missing,
            hard_labels=arguments.hard_labels,
            skip_bad=arguments.skip_bad,
            censored_references=arguments.reference_censored,
            cross_validation=arguments.cv is not None,
            folds=arguments.folds,
            confidence_model=arguments.confidence_model,
            n_replicates=arguments.bootstrap,
            seed=arguments.seed,
            n_workers=arguments.np,
            progress=progress,
            on_case=_on_case(arguments, unfinished / "maps"),
        )
        write_files(result, unfinished, _gallery(arguments, result))
    _report(result, arguments.output)
    return 0


def _rules(arguments: argparse.Namespace) -> EvaluationRules:
    """The profile's rules with what was given on the command line; with the first threshold."""
    from nnunet_lopsided.evaluation.rules import profile_rules

    given = {name: getattr(arguments, name) for name in RULES if getattr(arguments, name) is not None}
    changes: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    if arguments.threshold:
        changes["threshold"] = arguments.threshold[0]
    return profile_rules(arguments.profile, **changes)


def _on_case(arguments: argparse.Namespace, maps: Path) -> Callable[[LoadedAndEvaluated], None] | None:
    """What is to be done with every case while it is in memory: write its map; miss its image early, not at the end."""
    if not arguments.write_maps and arguments.images is None:
        return None
    from nnunet_lopsided.evaluation.maps import write_descriptions, write_map
    from nnunet_lopsided.evaluation.report.gallery import ImageFolder

    images = None if arguments.images is None else ImageFolder.open(arguments.images, arguments.image_channel)
    if arguments.write_maps:
        maps.mkdir()
        write_descriptions(maps)

    def on_case(case: LoadedAndEvaluated) -> None:
        if images is not None:
            images.check(case.loaded)
        if arguments.write_maps:
            write_map(maps, case)

    return on_case


def _gallery(arguments: argparse.Namespace, result: FolderResult) -> tuple[Any, ...]:
    from nnunet_lopsided.evaluation.report.gallery import gallery

    if arguments.images is None:
        return ()
    return gallery(result, arguments.images, arguments.image_channel, arguments.gallery)


def _report(result: FolderResult, output: Path) -> None:
    """Warnings on stderr, the table on stdout."""
    if result.missing_predictions:
        _warn(f"counted as missed, no prediction: {', '.join(result.missing_predictions)}")
    if result.unreferenced_predictions:
        _warn(f"not evaluated, no reference: {', '.join(result.unreferenced_predictions)}")
    model = result.confidence_model
    if model is not None and result.rules.threshold != model.threshold:
        _warn(f"the learned confidence was fitted to candidates at a threshold of {model.threshold:g}: {model.path}")
    if result.seen:
        _warn(f"the learned confidence was fitted to the candidates of {len(result.seen)} of these cases, too")
    if result.looks_hard:
        _warn(
            "every candidate has a probability of 1: label maps that were saved as floating point? They are ranked as "
            "probabilities; --hard-labels evaluates them as label maps"
        )
    for skipped in result.skipped:
        _warn(f"skipped: {' '.join(skipped.problem.split())}")
    print(_table(result))
    print(f"results in {output}: see report.html")


def _warn(text: str) -> None:
    print(f"lopsided-eval: warning: {text}", file=sys.stderr)


def _table(result: FolderResult) -> str:
    summary = result.summary
    metrics, counts, intervals = summary.metrics, summary.counts, summary.intervals
    names = (
        "max_sensitivity",
        "precision_at_max_sensitivity",
        "f1",
        "false_positives_per_case",
        "average_recall",
        "tp_dice",
        "lesion_wise_dice",
        "voxel_dice",
        "lesion_entropy_bits",
    )
    rows = (
        ("map", metrics.map, metrics.map_ci95_bootstrap, "bootstrap"),
        ("", None, metrics.map_ci95_hanley_mcneil, "Hanley-McNeil"),
        *((name, getattr(metrics, name), intervals.get(f"{name}_bootstrap"), "bootstrap") for name in names),
    )
    lines = [_line(name, value, interval, kind, summary.undefined) for name, value, interval, kind in rows]
    lines.insert(2, _by_confidence(result))
    lines.insert(0, f"{'rules':<30}{result.rules.profile}: {result.rules.match_in_words}")
    lines += [f"{name:<30}{value:>10}" for name, value in vars(counts).items()]
    if summary.n_missed_but_covered:
        lines.append(f"{'missed_but_covered':<30}{summary.n_missed_but_covered:>10}  at least half under a candidate")
    if result.rules.min_candidate_voxels > 1:
        lines.append(f"{'dropped_candidates':<30}{summary.n_dropped_candidates:>10}")
    if result.skipped:
        lines.append(f"{'skipped':<30}{len(result.skipped):>10}  {', '.join(s.case for s in result.skipped)}")
    if result.by_threshold:
        lines += ["", *_threshold_lines(result)]
    return "\n".join(line for line in lines if line is not None)


def _by_confidence(result: FolderResult) -> str:
    """The average precision by every confidence in one line; the chosen one is named."""
    values = result.summary.metrics.map_by_confidence
    shown = "  ".join(f"{name} {'undefined' if v is None else f'{v:.4f}'}" for name, v in values.items())
    return f"{'map by confidence':<30}{shown}  (here: {result.rules.confidence})"


def _threshold_lines(result: FolderResult) -> list[str]:
    names = ("map", "max_sensitivity", "precision_at_max_sensitivity", "f1", "false_positives_per_case", "tp_dice")
    head = ("threshold", "map", "sensitivity", "precision", "f1", "fp/case", "tp_dice")
    lines = ["".join(f"{name:>12}" for name in head)]
    for threshold, summary in result.by_threshold:
        values = [getattr(summary.metrics, name) for name in names]
        shown = [f"{threshold:g}", *("" if value is None else f"{value:.4f}" for value in values)]
        lines.append("".join(f"{cell:>12}" for cell in shown))
    return lines


def _line(
    name: str, value: float | None, interval: Interval | None, kind: str, undefined: dict[str, str]
) -> str | None:
    if name and value is None:
        return f"{name:<30}{'undefined':>10}  {undefined[name]}"
    shown = "" if value is None else f"{value:.4f}"
    if interval is None or interval.low is None:
        return f"{name:<30}{shown:>10}" if name else None
    return f"{name:<30}{shown:>10}  {interval.low:.4f} to {interval.high:.4f} ({kind})"


if __name__ == "__main__":
    sys.exit(main())
