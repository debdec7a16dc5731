"""``lopsided-eval``: lesion-wise evaluation of a folder of predictions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.commands._cli import run

if TYPE_CHECKING:
    from nnunet_lopsided.evaluation import FolderResult
    from nnunet_lopsided.evaluation.intervals import Interval


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run(_parser(), _evaluate, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lopsided-eval",
        description="Evaluate predictions lesion by lesion: average precision, sensitivity, false positives, FROC, "
        "sensitivity by size. Writes report.html, summary.json, cases.csv, lesions.csv, candidates.csv, curves.png.",
    )
    parser.add_argument("-g", "--references", required=True, type=Path, metavar="FOLDER", help="reference label maps")
    parser.add_argument(
        "-p",
        "--predictions",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="CASE.npz of nnUNetv2_predict --save_probabilities, CASE.npy, probability images or label maps",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER", help="where the results go")
    parser.add_argument("--label", metavar="NAME", help="class or region of dataset.json (default: all foreground)")
    parser.add_argument(
        "--dataset-json",
        type=Path,
        metavar="FILE",
        help="default: dataset.json of the predictions, of the references or of the folder above these",
    )
    rules = parser.add_argument_group("rules")
    rules.add_argument(
        "--threshold", type=float, default=0.1, help="a voxel is predicted when p >= this (default: %(default)s)"
    )
    rules.add_argument(
        "--match",
        choices=("centroid", "overlap"),
        default="centroid",
        help="a candidate detects the lesion nearest its centroid, or every lesion it touches (default: %(default)s)",
    )
    rules.add_argument(
        "--distance",
        choices=("box", "center"),
        default="box",
        help="from the centroid to a voxel's box or to its center (default: %(default)s)",
    )
    rules.add_argument(
        "--tolerance-mm", type=float, default=1.0, metavar="MM", help="greatest such distance (default: %(default)s)"
    )
    rules.add_argument(
        "--duplicates",
        choices=("ignore", "fp", "tp"),
        default="ignore",
        help="further candidates of a detected lesion: left out, false or true positives (default: %(default)s)",
    )
    rules.add_argument(
        "--connectivity", type=int, choices=(26, 18, 6, 8, 4), help="of components (default: 26 in 3D, 8 in 2D)"
    )
    rules.add_argument(
        "--diameter-edges-mm",
        type=float,
        nargs="+",
        default=[3.0, 6.0, 10.0, 20.0],
        metavar="MM",
        help="inner edges of the diameter bins (default: 3 6 10 20)",
    )
    rules.add_argument(
        "--hard-labels", action="store_true", help="evaluate the label maps even where probabilities lie beside them"
    )
    rules.add_argument(
        "--allow-missing",
        action="store_true",
        help="count the lesions of references without prediction as missed instead of refusing them",
    )
    bootstrap = parser.add_argument_group("bootstrap")
    bootstrap.add_argument(
        "--bootstrap", type=int, default=2000, metavar="N", help="replicates, 0 for none (default: %(default)s)"
    )
    bootstrap.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    bootstrap.add_argument(
        "--patients-regex",
        metavar="REGEX",
        help="its first group in a case's name is the patient to resample, e.g. '(.+)_visit' (default: the case)",
    )
    parser.add_argument("--np", type=int, default=2, metavar="N", help="threads (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation in the output folder")
    return parser


def _evaluate(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.evaluation import EvaluationRules, evaluate_folder
    from nnunet_lopsided.evaluation.outputs import check_output_folder, write_results

    rules = EvaluationRules(
        threshold=arguments.threshold,
        match=arguments.match,
        distance=arguments.distance,
        tolerance_mm=arguments.tolerance_mm,
        duplicates=arguments.duplicates,
        connectivity=arguments.connectivity,
        diameter_edges_mm=tuple(arguments.diameter_edges_mm),
    )
    if arguments.seed < 0:
        raise InputError(f"--seed must be at least 0, got {arguments.seed}")
    check_output_folder(arguments.output, arguments.overwrite, (arguments.references, arguments.predictions))
    with tqdm(desc="evaluating", unit="case", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = evaluate_folder(
            arguments.references,
            arguments.predictions,
            rules=rules,
            label=arguments.label,
            dataset_json=arguments.dataset_json,
            patients_regex=arguments.patients_regex,
            allow_missing=arguments.allow_missing,
            hard_labels=arguments.hard_labels,
            n_replicates=arguments.bootstrap,
            seed=arguments.seed,
            n_workers=arguments.np,
            progress=progress,
        )
    write_results(result, arguments.output, arguments.overwrite)
    if result.missing_predictions:
        _warn(f"counted as missed, no prediction: {', '.join(result.missing_predictions)}")
    if result.unreferenced_predictions:
        _warn(f"not evaluated, no reference: {', '.join(result.unreferenced_predictions)}")
    print(_table(result))
    print(f"results in {arguments.output}: see report.html")
    return 0


def _warn(text: str) -> None:
    print(f"lopsided-eval: warning: {text}", file=sys.stderr)


def _table(result: FolderResult) -> str:
    summary = result.summary
    metrics, counts, intervals = summary.metrics, summary.counts, summary.intervals
    rows = (
        ("map", metrics.map, metrics.map_ci95_bootstrap, "bootstrap"),
        ("", None, metrics.map_ci95_hanley_mcneil, "Hanley-McNeil"),
        *(
            (name, getattr(metrics, name), intervals[f"{name}_bootstrap"], "bootstrap")
            for name in ("max_sensitivity", "precision_at_max_sensitivity", "false_positives_per_case", "tp_dice")
        ),
        ("lesion_entropy_bits", metrics.lesion_entropy_bits, None, ""),
    )
    lines = [_line(name, value, interval, kind, summary.undefined) for name, value, interval, kind in rows]
    lines += [f"{name:<30}{value:>10}" for name, value in vars(counts).items()]
    return "\n".join(line for line in lines if line)


def _line(name: str, value: float | None, interval: Interval | None, kind: str, undefined: dict[str, str]) -> str:
    if name and value is None:
        return f"{name:<30}{'undefined':>10}  {undefined[name]}"
    shown = "" if value is None else f"{value:.4f}"
    if interval is None or interval.low is None:
        return f"{name:<30}{shown:>10}" if name else ""
    return f"{name:<30}{shown:>10}  {interval.low:.4f} to {interval.high:.4f} ({kind})"


if __name__ == "__main__":
    sys.exit(main())
