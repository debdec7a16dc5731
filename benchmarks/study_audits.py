"""Audits of a study's cross-validations, scored by the truth: benchmarks/results/STUDY-audits.csv.

    python benchmarks/study_audits.py FOLDER [--arms recipe dice_ce] [--together recipe dice_ce]

FOLDER is the ``-o`` of ``lopsided-study run``. For every run on censored labels whose folds are all trained, calls
``lopsided-audit`` and ``lopsided-audit score`` as a user would, in FOLDER/scored_audits; what is there already is only
read. ``--together``: the models of these arms as one audit, too. ``benchmarks/study_tables.py --audits`` prints the
table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.nnunet.paths import PATH_VARIABLES
from nnunet_lopsided.study.expansion import audit_command
from nnunet_lopsided.study.folder import StudyFolder
from nnunet_lopsided.study.runs import Run, runs_of
from nnunet_lopsided.study.schema import Study
from nnunet_lopsided.study.study_file import read_study

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "dataset",
    "labels",
    "configuration",
    "arm",
    "repetition",
    "magnified",
    "missed_lesions",
    "estimated_miss_rate",
    "estimated_miss_rate_in_any_prediction",
    "ranking",
    "candidates",
    "on_missed_lesions",
    "average_precision",
    "precision_at_50",
    "precision_at_n",
    "found_at_n",
    "found_at_2n",
)


Audited = tuple[tuple[Run, ...], str]
"""Runs whose models are audited as one, and their results folder."""


def audited_runs(folder: StudyFolder, study: Study, arms: list[str]) -> Iterator[Audited]:
    """Trained runs on labels that lack lesions and were changed by nothing else, each alone."""
    jobs = folder.jobs()
    for run in runs_of(study):
        if run.variant.is_source or run.arm.own_labels or (arms and run.arm.name not in arms):
            continue
        trainings = [job for job in jobs if job.kind == "train" and job.run == run.name]
        if len(trainings) == len(study.folds) and all(folder.marker(job.name).is_file() for job in trainings):
            yield (run,), trainings[0].results


def together(alone: Sequence[Audited], arms: list[str]) -> Iterator[Audited]:
    """The runs of the given arms that differ in nothing but the arm, in the order of the arms."""
    by_setting: dict[tuple[str, str, str], dict[str, Run]] = {}
    for (run,), results in alone:
        by_setting.setdefault((run.variant.name, run.configuration, results), {})[run.arm.name] = run
    for (*_, results), found in by_setting.items():
        if arms and set(arms) <= set(found):
            yield tuple(found[arm] for arm in arms), results


def scored(folder: StudyFolder, study: Study, runs: Sequence[Run], results: str) -> Mapping[str, Any]:
    """The content of audit_score.json of the models of ``runs``, made if it is not there, and that of audit.json."""
    ids, place, run = folder.ids(), "scored_audits/" + "+".join(run.name for run in runs), runs[0]
    score = folder.path / f"{place}-score"
    if not (score / "audit_score.json").is_file():
        root = folder.path.absolute()
        paths = {name: str(root / name) for name in PATH_VARIABLES} | {"nnUNet_results": str(root / results)}
        (root / "scored_audits").mkdir(exist_ok=True)
        audit = [*audit_command(study, ids, run, place), "--bootstrap", "0"]
        at = audit.index(run.arm.trainer)
        audit[at : at + 1] = [run.arm.trainer for run in runs]
        truth = ("--truth", str(ids[run.variant.dataset]), "-o", f"{place}-score")
        for command in (audit, ("lopsided-audit", "score", place, *truth)):
            subprocess.run(command, cwd=root, env={**os.environ, **paths}, check=True)
    return read_json(score / "audit_score.json") | {"audit": read_json(folder.path / place / "audit.json")}


def rows(runs: Sequence[Run], score: Mapping[str, Any]) -> Iterator[list[Any]]:
    """One row per ranking."""
    run, arm = runs[0], "+".join(run.arm.name for run in runs)
    n, audit = score["missed_lesions"], score["audit"]
    rates = [rate and rate["miss_rate"] for rate in (audit["miss_rate"], audit["miss_rate_in_any_prediction"])]
    for ranking in score["rankings"]:
        after = {entry["asked"]: entry for entry in ranking["reviewed"]}
        yield [
            run.variant.dataset,
            run.variant.labels,
            run.configuration,
            arm,
            run.repetition,
            " ".join(f"{factor:g}" for factor in audit["settings"]["magnify"]),
            n,
            *map(number, rates),
            ranking["name"].split(", ")[-1],
            ranking["candidates"],
            ranking["on_missed_lesions"],
            number(ranking["average_precision"]),
            number(after[50]["precision"]),
            number(after[n]["precision"]),
            number(after[n]["found"]),
            number(after[2 * n]["found"]),
        ]


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the study")
    parser.add_argument("--arms", nargs="+", default=[], help="default: all")
    parser.add_argument("--together", nargs="+", default=[], metavar="ARM", help="their models as one audit, too")
    arguments = parser.parse_args()
    folder = StudyFolder(arguments.folder)
    study = read_study(folder.study_file)
    if unknown := {*arguments.arms, *arguments.together} - {arm.name for arm in study.arms}:
        parser.error(f"no arms of {study.name}: {', '.join(sorted(unknown))}")
    alone = list(audited_runs(folder, study, arguments.arms))
    audited = [*alone, *together(alone, arguments.together)]
    found = [(runs, scored(folder, study, runs, results)) for runs, results in audited]
    path = RESULTS / f"{study.name}-audits.csv"
    write_table(path, COLUMNS, [row for runs, score in found for row in rows(runs, score)])
    print(f"{len(found)} audits in {path}")


if __name__ == "__main__":
    main()
