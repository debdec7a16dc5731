"""``lopsided-confidence``: learn how to rank candidates from the out-of-fold predictions of a cross-validation."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from nnunet_lopsided.commands._cli import Parser, progress_bar, run
from nnunet_lopsided.commands._options import (
    add_configuration,
    add_dataset,
    add_np,
    add_overwrite,
    add_plans,
    add_trainer,
)

if TYPE_CHECKING:
    from nnunet_lopsided.evaluation.confidence_fitting import FittedClass, FittedConfidence


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run(_parser(), _fit, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="lopsided-confidence",
        description="Fit the confidence of candidates for 'lopsided-eval --confidence learned' to the out-of-fold "
        "predictions of a cross-validation (nnUNetv2_train ... --npz) and its labels: a model of size, mean and "
        "highest probability. Writes lopsided_confidence.json beside the folds.",
    )
    add_dataset(parser, "that the model learned from")
    add_configuration(parser)
    add_trainer(parser)
    add_plans(parser)
    parser.add_argument("-f", type=int, nargs="+", metavar="FOLD", help="folds (default: all of splits_final.json)")
    parser.add_argument(
        "--complete",
        action="store_true",
        help="the labels lack no lesion: every candidate that touches none is false (default: how many of them are "
        "missed lesions is estimated)",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.1, metavar="P", help="a candidate's voxels have p >= this (default: 0.1)"
    )
    add_np(parser)
    add_overwrite(parser, "an earlier file")
    return parser


def _fit(arguments: argparse.Namespace) -> int:
    # Imported in functions, as in every command, so that --help does not wait for libraries.
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.evaluation.confidence_fitting import check_target, fit_confidence, write_confidence
    from nnunet_lopsided.nnunet.paths import nnunet_path
    from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
    from nnunet_lopsided.nnunet.results import results_folder_name

    dataset = preprocessed_folder(arguments.d).name
    results = nnunet_path("nnUNet_results") / results_folder_name(dataset, arguments.tr, arguments.p, arguments.c)
    if not results.is_dir():
        raise InputError(f"no trained model: folder not found: {results}; -d, -tr, -p and -c name another")
    check_target(results, arguments.overwrite)  # before the work, not after it
    with progress_bar("finding candidates") as progress:
        fitted = fit_confidence(
            results,
            arguments.f,
            threshold=arguments.threshold,
            complete=arguments.complete,
            n_workers=arguments.np,
            progress=progress,
        )
    path = write_confidence(fitted, arguments.overwrite)
    _report(fitted)
    print(f"{path}: lopsided-eval --confidence learned finds it")
    return 0


def _report(fitted: FittedConfidence) -> None:
    """What could not be fitted on stderr, what was on stdout."""
    for one in fitted.classes:
        # Other classes may have a model: one without is a warning.
        if one.all_folds is None:
            print(f"lopsided-confidence: warning: no model of {one.name}: {one.reason}", file=sys.stderr)
        else:
            print(_line(one))
    lacking = [fold for fold in fitted.folds if fold not in fitted.classes[0].without_fold]
    if lacking:
        print(
            f"lopsided-confidence: warning: too few candidates without fold {', '.join(map(str, lacking))}; "
            "lopsided-eval --cv judges its cases by a model that has seen them",
            file=sys.stderr,
        )


def _line(fitted: FittedClass) -> str:
    from nnunet_lopsided.evaluation.learned_confidence import FEATURES

    whole, evidence = fitted.all_folds, fitted.evidence
    assert whole is not None, "it was fitted"
    n = int(evidence.explained.sum())
    weights = ", ".join(f"{name} {w:.2f}" for name, w in zip(FEATURES, whole.coefficients.weights, strict=True))
    return (
        f"{fitted.name}: {n} candidates on annotated lesions, {len(evidence.explained) - n} on none, of which about "
        f"{whole.expected_missed:.0f} are taken for missed lesions ({whole.missed_per_annotated:.2f} per annotated "
        f"one); {weights}"
    )


if __name__ == "__main__":
    sys.exit(main())
