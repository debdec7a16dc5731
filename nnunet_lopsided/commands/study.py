"""``lopsided-study``: many trainings on censored data, planned, run, watched and reported."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.commands._options import add_output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nnunet_lopsided.study.folder import State, StudyFolder
    from nnunet_lopsided.study.jobs import Job
    from nnunet_lopsided.study.schema import Study


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 if jobs failed, 2 on wrong input."""
    argv = sys.argv[1:] if argv is None else argv
    # What comes after -- is Snakemake's, options too.
    mine = argv[: argv.index("--")] if "--" in argv else argv
    parser = _parser()
    parser.set_defaults(further=argv[len(mine) + 1 :])
    return run(parser, _work, mine)


def _work(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.errors import InputError

    if arguments.further and arguments.work is not _run:
        raise InputError(f"only run takes arguments after --, got {' '.join(arguments.further)}")
    work: Callable[[argparse.Namespace], int] = arguments.work
    return work(arguments)


def _parser() -> Parser:
    from nnunet_lopsided.study.presets import preset_names

    presets = ", ".join(preset_names())
    parser = Parser(
        prog="lopsided-study",
        description="A study: datasets x censoring x arms x repetitions, as jobs of public commands that Snakemake "
        "runs on this machine or on a cluster, and one report about them.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, work: object, text: str, more: str = "") -> Parser:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}")
        command.set_defaults(work=work)
        return command

    plan = add("plan", _plan, "show the jobs of a study and estimate time and disk; nothing is written")
    running = add("run", _run, "run a study, or go on with it")
    for command in (plan, running):
        command.add_argument("study", metavar="STUDY", help=f"a YAML file, or a preset: {presets}")
        add_output(command, "the study goes", "study-NAME")
    _add_where_it_runs(running)
    status = add(
        "status",
        _status,
        "show what is done, running, failed and waiting",
        "Counts the jobs of a study by kind, and names those that run and those that have failed, with the last line "
        "of their log; also while the study runs. Nothing is changed. Exit code 1 if jobs have failed.",
    )
    report = add(
        "report",
        _report,
        "write the page and the tables of what is done so far",
        "Makes FOLDER/report/index.html and CSV and LaTeX tables beside it from the evaluations that are there, and "
        "prints where they are; also while the study runs. An earlier report is replaced.",
    )
    for command in (status, report):
        text = "of the study: what 'run' had as -o, or else study-NAME where it was called"
        command.add_argument("folder", metavar="FOLDER", help=text)
    add(
        "schema",
        _schema,
        "print the JSON schema of a study's YAML file",
        "An editor that knows YAML completes and checks a study by it: lopsided-study schema > study.schema.json, and "
        "as first line of the study '# yaml-language-server: $schema=study.schema.json'.",
    )
    listing = add("presets", _presets, "list the presets, or print one to start from")
    listing.add_argument("name", nargs="?", metavar="NAME", help=presets)
    return parser


def _add_where_it_runs(command: Parser) -> None:
    command.add_argument(
        "--cores", type=int, default=os.cpu_count() or 1, help="cores of this machine to use (default: %(default)s)"
    )
    command.add_argument("--gpus", type=int, default=1, help="GPUs of this machine to use (default: %(default)s)")
    command.add_argument(
        "--profile", metavar="PROFILE", help="slurm, or a folder with a Snakemake profile: run the jobs there"
    )
    command.add_argument(
        "--dry-run", action="store_true", help="write the jobs, and let Snakemake show what it would run"
    )
    command.epilog = "Arguments after -- go to Snakemake, such as -- --retries 1."


def _load(text_or_path: str) -> tuple[Study, str, str]:
    """A study by the path of its file or the name of a preset, its text, and how messages call the file."""
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.files.regular import read_text
    from nnunet_lopsided.study.fields import did_you_mean
    from nnunet_lopsided.study.presets import preset_names, preset_text
    from nnunet_lopsided.study.study_file import read_study, study_of_text

    path = Path(text_or_path)
    if path.exists():
        return read_study(path), read_text(path), str(path)
    if text_or_path in preset_names():
        # A file of that name comes first, so that a preset can be copied and changed under its own name.
        text, name = preset_text(text_or_path), f"preset {text_or_path}"
        return study_of_text(text, name, Path.cwd()), text, name
    raise InputError(
        f"expected a YAML file or one of the presets {', '.join(preset_names())}, found {text_or_path}"
        f"{did_you_mean(text_or_path, preset_names())}"
    )


def _folder(arguments: argparse.Namespace, study: Study) -> StudyFolder:
    from nnunet_lopsided.study.folder import StudyFolder

    return StudyFolder(Path(arguments.output or f"study-{study.name}").absolute())


def _existing(name: str) -> StudyFolder:
    from nnunet_lopsided.study.folder import StudyFolder

    folder = StudyFolder(Path(name).absolute())
    folder.jobs()  # raises InputError where the folder holds no study
    return folder


def _plan(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.study.estimate import estimate
    from nnunet_lopsided.study.preparation import plan_jobs
    from nnunet_lopsided.study.trainer_choice import other_trainers

    study, _, file = _load(arguments.study)
    folder = _folder(arguments, study)
    _, jobs = plan_jobs(study, folder, file)
    print("\n".join(_arm_lines(study)))
    print()
    print("\n".join(_count_lines(folder, jobs)))
    expected = estimate(study, jobs, folder)
    print(
        f"\nestimate of what is left: {expected.training_hours:.2f} h of training, one after the other, and "
        f"{expected.other_hours:.2f} h of everything else; {expected.disk_gb:.0f} GB of disk in {folder.path}"
    )
    print(f"  {expected.seconds_per_iteration:.2f} s per iteration, {expected.basis}; disk is a rule of thumb")
    for arm in study.arms:
        if arm.trainer in other_trainers():
            print(f"note: {arm.name}: {arm.trainer} is nnU-Net's own: its own epochs and iterations, and no seed")
    _note_seeds(study, folder)
    return 0


def _note_seeds(study: Study, folder: StudyFolder) -> None:
    """Say why trainings of an earlier version go on as they were begun."""
    from nnunet_lopsided.study.preparation import trained_without_seeds

    if study.seeds is None and trained_without_seeds(study, folder):
        print(
            f"note: trainings in {folder.path} were begun without seeds and go on so; seeds: true in the study trains "
            "them again"
        )


def _arm_lines(study: Study) -> list[str]:
    from nnunet_lopsided.study.runs import runs_of

    cells = Counter((r.variant.dataset, r.variant.labels, r.configuration, r.arm.name) for r in runs_of(study))
    trainers = {arm.name: arm.trainer for arm in study.arms}
    rows = [("dataset", "labels", "configuration", "arm", "runs", "trainer")]
    rows += [(*cell, str(n), trainers[cell[-1]]) for cell, n in cells.items()]
    return _columns(rows)


def _count_lines(folder: StudyFolder, jobs: Sequence[Job]) -> list[str]:
    from nnunet_lopsided.study.jobs import KINDS

    states = folder.states(jobs)
    shown: tuple[State, ...] = ("done", "running", "failed", "blocked", "waiting")
    rows: list[tuple[str, ...]] = [("jobs", "all", *shown)]
    for kind in KINDS:
        of_kind = Counter(states[job.name] for job in jobs if job.kind == kind)
        if of_kind:
            rows.append((kind, str(sum(of_kind.values())), *(str(of_kind[state] or "") for state in shown)))
    total = Counter(states.values())
    rows.append(("all", str(len(jobs)), *(str(total[state] or "") for state in shown)))
    return _columns(rows)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _run(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.study.engine import check_engine, command_line, run_engine
    from nnunet_lopsided.study.preparation import plan_jobs, prepare

    for name, least in (("cores", 1), ("gpus", 0)):
        if getattr(arguments, name) < least:
            raise InputError(f"--{name} must be at least {least}, got {getattr(arguments, name)}")
    study, text, file = _load(arguments.study)
    folder = _folder(arguments, study)
    # Before anything is written: without Snakemake nothing would run.
    check_engine(arguments.profile)
    further = [*(["--dry-run"] if arguments.dry_run else []), *arguments.further]
    command = command_line(
        folder, cores=arguments.cores, gpus=arguments.gpus, profile=arguments.profile, further=further
    )
    gpus = _gpus(study, arguments)
    plan_jobs(study, folder, file)  # raises InputError before anything is written
    _note_seeds(study, folder)
    with _only_run(folder):
        jobs = prepare(study, text, folder, file)
        if arguments.dry_run:
            import subprocess

            # To the user's terminal, since what it prints is what was asked for.
            return subprocess.run(command, check=False).returncode
        code = run_engine(folder, command, arguments.cores if arguments.profile is None else 0, gpus)
        failed = _summarise(folder, jobs)
        # Also where jobs have failed: what is done may be all that is wanted.
        print(f"report: {_write_report(folder)}")
    return 1 if failed or code else 0


def _gpus(study: Study, arguments: argparse.Namespace) -> list[str]:
    """The GPUs of this machine that jobs are dealt out to.

    A job that needs more than there is would be cut down or wait for ever.
    """
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.study.engine import chosen_gpus

    if arguments.profile is not None or study.device != "cuda":
        return []
    if study.resources.gpus > arguments.gpus:
        raise InputError(
            f"a training needs {study.resources.gpus} GPUs (resources: gpus), and --gpus gives {arguments.gpus}"
        )
    return chosen_gpus(arguments.gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))


@contextmanager
def _only_run(folder: StudyFolder) -> Iterator[None]:
    """One run of a study at a time."""
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.files.locks import locked

    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder.path):
            yield
    except InputError as error:
        # The lock does not know what it is held for.
        if str(error).startswith("another process is writing"):
            raise InputError(f"another lopsided-study run is at work in {folder.path}") from None
        raise


def _summarise(folder: StudyFolder, jobs: Sequence[Job]) -> int:
    """Print what has become of the jobs; returns how many failed."""
    states = folder.states(jobs)
    print("\n".join(_count_lines(folder, jobs)))
    failed = [name for name, state in states.items() if state == "failed"]
    for name in failed:
        print(f"failed: {name}: {folder.failure(name)}")
    blocked = [name for name, state in states.items() if state == "blocked"]
    if blocked:
        print(f"blocked by these: {len(blocked)} jobs")
    return len(failed)


def _status(arguments: argparse.Namespace) -> int:
    folder = _existing(arguments.folder)
    jobs = folder.jobs()
    failed = _summarise(folder, jobs)
    for name, state in folder.states(jobs).items():
        if state == "running":
            print(f"running: {name}")
    return 1 if failed else 0


def _report(arguments: argparse.Namespace) -> int:
    print(_write_report(_existing(arguments.folder)))
    return 0


def _write_report(folder: StudyFolder) -> Path:
    from nnunet_lopsided.study.report import write_report

    return write_report(folder)


def _schema(arguments: argparse.Namespace) -> int:
    import json

    from nnunet_lopsided.study.study_file import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


def _presets(arguments: argparse.Namespace) -> int:
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.study.fields import did_you_mean
    from nnunet_lopsided.study.presets import preset_names, preset_text

    if arguments.name is None:
        for name in preset_names():
            print(f"{name:14}{preset_text(name).splitlines()[0].lstrip('# ')}")
        return 0
    if arguments.name not in preset_names():
        raise InputError(
            f"preset must be one of {', '.join(preset_names())}, got {arguments.name}"
            f"{did_you_mean(arguments.name, preset_names())}"
        )
    print(preset_text(arguments.name), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
