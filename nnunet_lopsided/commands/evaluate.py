"""``lopsided-eval``: lesion-wise evaluation of a folder of predictions; ``lopsided-eval compare``: of several."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.commands._cli import progress_bar, run
from nnunet_lopsided.commands.evaluate_options import RULES, evaluate_parser
from nnunet_lopsided.commands.evaluate_table import report

if TYPE_CHECKING:
    from nnunet_lopsided.evaluation import EvaluationRules, FolderResult
    from nnunet_lopsided.evaluation.folder import LoadedAndEvaluated
    from nnunet_lopsided.evaluation.rules import RuleValue
    from nnunet_lopsided.pages.pictures import Picture


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    # Not a sub-parser of argparse: evaluating itself has no sub-command.
    if argv[:1] == ["compare"]:
        from nnunet_lopsided.commands import compare

        return compare.main(argv[1:])
    return run(evaluate_parser(), _evaluate, argv)


def _evaluate(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.evaluation.several_classes import MARKS, check_class_names, write_classes
    from nnunet_lopsided.evaluation.writing import FILES, write_files
    from nnunet_lopsided.files.folders import new_output_folder

    _check(arguments)
    given = (
        arguments.references,
        arguments.predictions,
        arguments.cv,
        arguments.reference_censored,
        arguments.images,
        arguments.confidence_model,
    )
    # The output folder must contain none of them, as replacing it would remove them.
    inputs = [path for path in given if path is not None]
    labels: list[str | None] = arguments.label or [None]
    results = {}
    if len(labels) == 1:
        with new_output_folder(arguments.output, arguments.overwrite, inputs, holds=FILES) as unfinished:
            result = results[labels[0]] = _of_class(arguments, labels[0], unfinished)
            write_files(result, unfinished, _gallery(arguments, result), arguments.anonymous)
    else:
        check_class_names(arguments.label)
        with new_output_folder(arguments.output, arguments.overwrite, inputs, MARKS) as unfinished:
            for label in arguments.label:
                (unfinished / label).mkdir()
                result = results[label] = _of_class(arguments, label, unfinished / label)
                write_files(result, unfinished / label, _gallery(arguments, result), arguments.anonymous)
            write_classes({label: results[label] for label in arguments.label}, unfinished)
    report(results, arguments.output)
    if arguments.anonymous:
        print("report.html names no case and no folder; all other files do, and tell which case is which")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Refuse before any work what would else be refused after it."""
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.evaluation.intervals import check_replicates, check_seed

    check_replicates(arguments.bootstrap)
    check_seed(arguments.seed)
    if arguments.gallery < 0:
        raise InputError(f"--gallery must be at least 0, got {arguments.gallery}")
    if arguments.instances and len(arguments.label) > 1:
        raise InputError("--instances needs at most one --label: an instance map has no classes")
    if arguments.instances in ("prediction", "both") and arguments.threshold:
        raise InputError(f"--instances {arguments.instances} has no --threshold: candidates are numbered already")
    if arguments.folds and arguments.cv is None:
        raise InputError("-f (or --folds) needs --cv")


def _of_class(arguments: argparse.Namespace, label: str | None, unfinished: Path) -> FolderResult:
    """Evaluate one class; maps go into the folder of its results."""
    from nnunet_lopsided.evaluation import evaluate_folder
    from nnunet_lopsided.evaluation.inputs import read_case_list

    with progress_bar(f"evaluating {label}" if label is not None else "evaluating") as progress:
        return evaluate_folder(
            arguments.references,
            arguments.predictions or arguments.cv,
            rules=_rules(arguments),
            thresholds=arguments.threshold,
            label=label,
            dataset_json=arguments.dataset_json,
            patients_regex=arguments.patients_regex,
            allow_missing=arguments.allow_missing,
            hard_labels=arguments.hard_labels,
            skip_bad=arguments.skip_bad,
            censored_references=arguments.reference_censored,
            cross_validation=arguments.cv is not None,
            folds=arguments.folds,
            confidence_model=arguments.confidence_model,
            cases=None if arguments.cases is None else read_case_list(arguments.cases),
            n_replicates=arguments.bootstrap,
            seed=arguments.seed,
            n_workers=arguments.np,
            progress=progress,
            on_case=_on_case(arguments, unfinished / "maps"),
        )


def _rules(arguments: argparse.Namespace) -> EvaluationRules:
    """The profile's rules with what was given on the command line; with the first threshold."""
    from nnunet_lopsided.evaluation.rules import profile_rules

    # None is an option that was not given: then the profile decides.
    given = {name: getattr(arguments, name) for name in RULES if getattr(arguments, name) is not None}
    changes: dict[str, RuleValue] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    if arguments.threshold:
        # Details are of the first; the table over all thresholds is made elsewhere.
        changes["threshold"] = arguments.threshold[0]
    return profile_rules(arguments.profile, **changes)


def _on_case(arguments: argparse.Namespace, maps: Path) -> Callable[[LoadedAndEvaluated], None] | None:
    """What to do with every case while it is in memory: write its map, and look at once for its image."""
    if not arguments.write_maps and arguments.images is None:
        return None
    from nnunet_lopsided.evaluation.maps import write_descriptions, write_map
    from nnunet_lopsided.evaluation.report.gallery import ImageFolder

    # Opened before the first case: a wrong folder must not show after hours of evaluation.
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


def _gallery(arguments: argparse.Namespace, result: FolderResult) -> tuple[Picture, ...]:
    from nnunet_lopsided.evaluation.report.gallery import gallery

    if arguments.images is None:
        return ()
    return gallery(result, arguments.images, arguments.image_channel, arguments.gallery)


if __name__ == "__main__":
    sys.exit(main())
