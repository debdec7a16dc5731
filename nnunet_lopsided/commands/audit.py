"""``lopsided-audit``: which lesions the annotators missed; its sub-commands apply decisions and score an audit."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.commands._audit_report import report
from nnunet_lopsided.commands._cli import Parser, not_shown, numbers_of_folds, run
from nnunet_lopsided.commands._options import (
    TRAINER,
    add_audit_of,
    add_bootstrap,
    add_configuration,
    add_dataset,
    add_device,
    add_label,
    add_name,
    add_np,
    add_output,
    add_overwrite,
    add_patients_regex,
    add_plans,
    add_variant,
)
from nnunet_lopsided.commands.audit_agree import agree, agree_parser
from nnunet_lopsided.commands.audit_export import add_audit, export, export_parser, import_, import_parser
from nnunet_lopsided.commands.audit_sample import estimate, estimate_parser, sample, sample_parser

if TYPE_CHECKING:
    from nnunet_lopsided.audit.decisions import Decisions
    from nnunet_lopsided.audit.stored import StoredAudit


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    # Not sub-parsers of argparse: these would demand a sub-command, and the audit itself has none.
    parts = {
        "apply": (_apply_parser, _apply),
        "score": (_score_parser, _score),
        "agree": (agree_parser, agree),
        "sample": (sample_parser, sample),
        "estimate": (estimate_parser, estimate),
        "export": (export_parser, export),
        "import": (import_parser, import_),
    }
    if argv[:1] and argv[0] in parts:
        parser, part = parts[argv[0]]
        return run(parser(), part, argv[1:])
    return run(_parser(), _audit, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="lopsided-audit",
        description="Find lesions that the annotators of a dataset probably missed: components of the out-of-fold "
        "predictions of a cross-validation that no annotated lesion explains, ranked. Writes audit.html to decide on "
        "them, audit.csv, audit.json and label maps. 'lopsided-audit apply DECISIONS' makes the repaired dataset, "
        "'lopsided-audit sample' and 'estimate' read a random few in place of all, "
        "'lopsided-audit export' and 'import' go to another viewer and back, 'lopsided-audit agree A B' compares two "
        "readers, 'lopsided-audit score' compares an audit with the truth.",
    )
    _add_inputs(parser)
    _add_method(parser)
    add_np(parser)
    add_overwrite(parser, "an earlier audit in the output folder")
    return parser


def _add_inputs(parser: Parser) -> None:
    """What is audited, by which models."""
    add_dataset(parser, "that the model learned from")
    parser.add_argument(
        "-tr",
        nargs="+",
        default=[TRAINER],
        metavar="TRAINER",
        help=f"trainer; several: their probabilities are averaged (default: {TRAINER})",
    )
    add_configuration(parser)
    add_plans(parser)
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds (default: all of splits_final.json)")
    add_output(parser, "the audit goes", "'audit' beside the folds of the model")
    add_label(parser)
    parser.add_argument(
        "--magnify",
        type=float,
        nargs="*",
        metavar="X",
        help="predict images magnified so many times, too; none: do not (default: 1.5 2)",
    )
    parser.add_argument(
        "--inject",
        type=int,
        nargs="?",
        const=8,
        metavar="N",
        help="predict every case once more, with N lesions injected (8 without a number): tells what the models see by "
        "size, and estimates from that how many lesions were missed (default: do not)",
    )


def _add_method(parser: Parser) -> None:
    """What a candidate is, what ranks it, and what is told of all."""
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="a candidate's voxels have p >= this (default: 0.03)",
    )
    confidence = parser.add_argument(
        "--confidence",
        "--rank-by",
        dest="rank_by",
        # The word of lopsided-eval; audit.json and earlier command lines have the longer one.
        type=lambda word: "mean-probability" if word == "mean" else word,
        choices=("likeness", "mean-probability", "max", "sum", "sqrt", "learned"),
        default="likeness",
        metavar="{likeness,mean,max,sum,sqrt,learned}",
        help="what ranks candidates: likeness to annotated lesions; mean, max or sum of the probability; mean times "
        "the root of the number of voxels; or learned by lopsided-confidence for the first trainer (default: "
        "likeness)",
    )
    not_shown(confidence, "--rank-by")
    parser.add_argument(
        "--diameter-edges-mm",
        type=float,
        nargs="+",
        metavar="MM",
        help="inner edges of the diameter bins of the miss rate (default: 3 6 10 20)",
    )
    add_patients_regex(parser, "cases.csv of the dataset, or else the case")
    parser.add_argument(
        "--shown", type=int, default=200, metavar="N", help="candidates on the page (default: %(default)s)"
    )
    add_bootstrap(parser, 1000)
    # None, so that a machine without a GPU is no error where nothing must be predicted.
    add_device(parser, "what must still be predicted", None, "cuda where there is one, otherwise cpu")
    parser.add_argument(
        "--torch-resampling",
        action="store_true",
        help="resample probabilities of magnified images by PyTorch on -device, not by nnU-Net on the CPU; within 1e-3",
    )


def _audit(arguments: argparse.Namespace) -> int:
    # Imported in functions, as in every command, so that --help does not wait for libraries.
    from nnunet_lopsided.audit.auditing import THRESHOLD, audit
    from nnunet_lopsided.audit.injected import inject_lesions
    from nnunet_lopsided.audit.inputs import Model, find_inputs
    from nnunet_lopsided.audit.page_size import check_shown
    from nnunet_lopsided.audit.writing import check_audit_folder, write_audit
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.evaluation.learned_confidence import read_model
    from nnunet_lopsided.evaluation.rules import EvaluationRules
    from nnunet_lopsided.nnunet.raw import raw_dataset

    check_shown(arguments.shown)
    for name in ("seed", "bootstrap"):
        if getattr(arguments, name) < 0:
            raise InputError(f"--{name} must be at least 0, got {getattr(arguments, name)}")
    if arguments.inject is not None and arguments.inject < 1:
        raise InputError(f"--inject must be at least 1, got {arguments.inject}")
    rules = EvaluationRules(threshold=THRESHOLD if arguments.threshold is None else arguments.threshold)
    if arguments.diameter_edges_mm is not None:
        rules = replace(rules, diameter_edges_mm=tuple(arguments.diameter_edges_mm))
    models = [Model(trainer, arguments.p, arguments.c) for trainer in arguments.tr]
    if len(set(models)) < len(models):
        raise InputError(f"-tr names a trainer twice: {' '.join(arguments.tr)}")
    dataset = raw_dataset(arguments.d)
    folder = arguments.output or models[0].folder(dataset.name) / "audit"
    check_audit_folder(folder, arguments.overwrite, dataset)  # before the work, not after it
    model = read_model(models[0].folder(dataset.name)) if arguments.rank_by == "learned" else None
    if model is not None:
        # Raises InputError where the model knows no such class, before hours of predictions.
        model.of_class(arguments.label)
        if model.threshold != rules.threshold:
            print(
                f"lopsided-audit: warning: {model.path} was fitted to candidates at {model.threshold:g}, these are at "
                f"{rules.threshold:g}; lopsided-confidence --threshold {rules.threshold:g} fits it to such",
                file=sys.stderr,
            )
    inputs = find_inputs(
        dataset.name,
        models,
        None if arguments.f is None else numbers_of_folds(arguments.f, "numbers of folds"),
        patients_regex=arguments.patients_regex,
        magnify=arguments.magnify,
        device=arguments.device,
        n_workers=arguments.np,
        torch_resampling=arguments.torch_resampling,
        to_inject=arguments.inject is not None,
    )
    injected = None
    if arguments.inject is not None:
        injected = inject_lesions(
            inputs,
            rules=rules,
            label=arguments.label,
            per_case=arguments.inject,
            seed=arguments.seed,
            device=arguments.device,
            n_workers=arguments.np,
            torch_resampling=arguments.torch_resampling,
        )
    audited = audit(
        inputs,
        rules=rules,
        label=arguments.label,
        rank_by=arguments.rank_by,
        confidence_model=model,
        injected=injected,
        n_replicates=arguments.bootstrap,
        seed=arguments.seed,
        n_workers=arguments.np,
    )
    name = write_audit(audited, folder, overwrite=arguments.overwrite, n_shown=arguments.shown, n_workers=arguments.np)
    report(audited, name, folder)
    return 0


def _apply_parser() -> Parser:
    parser = Parser(
        prog="lopsided-audit apply",
        description="Write a variant of the audited dataset with the accepted candidates in its training labels. "
        "Images are referenced, not copied; repair.json and repaired_lesions.csv say what changed.",
    )
    parser.add_argument(
        "decisions",
        nargs="?",
        type=Path,
        metavar="DECISIONS",
        help="CSV with the columns audit, case, candidate, decision (audit.csv with filled decisions too), or the JSON "
        "of the page",
    )
    parser.add_argument(
        "--accept-above",
        type=float,
        metavar="SCORE",
        help="instead of DECISIONS: accept every candidate with at least this score, which no reader has seen",
    )
    parser.add_argument(
        "--truth",
        metavar="DATASET",
        help="instead of DECISIONS, where lesions were deleted on purpose: this dataset, with whole labels, decides",
    )
    parser.add_argument(
        "--first", type=int, metavar="N", help="with --truth: decide on the first N candidates alone (default: all)"
    )
    add_variant(parser)
    add_audit_of(parser, "where the decisions lie")
    parser.add_argument(
        "--unsure",
        choices=("leave", "ignore"),
        default="leave",
        help="ignore: unsure candidates become the ignore label (default: leave as they are)",
    )
    parser.add_argument(
        "--edited-maps",
        action="store_true",
        help="take the candidates of maps/ as edited in a viewer; otherwise maps must be as the audit wrote them",
    )
    parser.add_argument(
        "--maps",
        type=Path,
        metavar="FOLDER",
        help="maps of candidates redrawn in a viewer, as 'lopsided-audit import' writes them, in place of the audit's",
    )
    add_name(parser, None, "the source's, followed by Repaired")
    add_np(parser)
    add_overwrite(parser, "an earlier variant of the same id and name")
    return parser


def _apply(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.audit.repair import write_repaired_variant

    audit, decisions = _decided(arguments)
    repaired = write_repaired_variant(
        audit,
        decisions,
        arguments.o,
        unsure=arguments.unsure,
        edited_maps=arguments.edited_maps,
        maps=arguments.maps,
        name=arguments.name,
        overwrite=arguments.overwrite,
        n_workers=arguments.np,
    )
    print(
        f"{repaired.folder}: {repaired.n_added} candidates added, {repaired.n_rejected} rejected, "
        f"{repaired.n_unsure} unsure{' (now to ignore)' if repaired.ignored else ''}, "
        f"{repaired.n_undecided} not decided on"
    )
    for note in repaired.notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _decided(arguments: argparse.Namespace) -> tuple[StoredAudit, Decisions]:
    """The audit and what a reader, a score or the truth decided on its candidates."""
    from nnunet_lopsided.audit.decisions import audit_and_decisions, decisions_above
    from nnunet_lopsided.audit.score_writing import decisions_of_truth, score_audits
    from nnunet_lopsided.audit.stored import chosen_audit
    from nnunet_lopsided.errors import InputError

    given = [value is not None for value in (arguments.decisions, arguments.accept_above, arguments.truth)]
    if sum(given) != 1:
        raise InputError("expected exactly one of DECISIONS, --accept-above and --truth")
    if arguments.first is not None and (arguments.truth is None or arguments.first < 1):
        raise InputError(f"--first must be at least 1, and needs --truth; got {arguments.first}")
    if arguments.decisions is not None:
        return audit_and_decisions(arguments.decisions, arguments.audit)
    if arguments.accept_above is not None:
        audit = chosen_audit(arguments.audit)
        return audit, decisions_above(audit, arguments.accept_above)
    (scored,) = score_audits(arguments.audit, arguments.truth, n_workers=arguments.np)
    return scored.audit, decisions_of_truth(scored, arguments.truth, arguments.first)


def _score_parser() -> Parser:
    parser = Parser(
        prog="lopsided-audit score",
        description="Compare an audit of a dataset whose lesions were deleted on purpose with the whole labels: which "
        "of its candidates are deleted lesions. Writes audit_score.json, audit_score.csv and audit_score.png.",
    )
    add_audit(parser)
    parser.add_argument("--truth", required=True, metavar="DATASET", help="id or name of the dataset with all lesions")
    parser.add_argument(
        "--against",
        nargs="+",
        default=[],
        type=Path,
        metavar="AUDIT",
        help="audits of the same dataset by other models",
    )
    add_output(parser, "the score goes", "'score' in the audit")
    parser.add_argument(
        "--decisions", type=Path, metavar="FILE", help="write the decisions that the truth would make, as a CSV"
    )
    add_np(parser)
    add_overwrite(parser, "an earlier score in the folder")
    return parser


def _score(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.audit.decisions import write_decisions
    from nnunet_lopsided.audit.score_writing import decisions_of_truth, score_audits, score_table, write_score
    from nnunet_lopsided.errors import InputError

    if arguments.decisions is not None and arguments.decisions.exists():
        # It may hold what a reader decided.
        raise InputError(f"{arguments.decisions} exists, and is never replaced; choose another file")
    if arguments.decisions is not None and not arguments.decisions.absolute().parent.is_dir():
        raise InputError(f"cannot write {arguments.decisions}: no such folder: {arguments.decisions.parent}")
    scored = score_audits(arguments.audit, arguments.truth, arguments.against, arguments.np)
    folder = arguments.output or scored[0].audit.folder / "score"
    write_score(scored, arguments.truth, folder, arguments.overwrite)
    if arguments.decisions is not None:
        write_decisions(decisions_of_truth(scored[0], arguments.truth), arguments.decisions)
    print(score_table(scored))
    print(f"score in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
