"""Making a folder ready for a study: its jobs, the ids of its datasets, links to the user's data, the folds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.nnunet.dataset_json import label_scheme
from nnunet_lopsided.nnunet.paths import PATH_VARIABLES, names_of_dataset, new_dataset_name
from nnunet_lopsided.nnunet.raw import RawDataset, raw_dataset
from nnunet_lopsided.nnunet.splitting import read_splits
from nnunet_lopsided.study.expansion import expand
from nnunet_lopsided.study.fields import did_you_mean
from nnunet_lopsided.study.folder import Source, StudyFolder
from nnunet_lopsided.study.jobs import Job, same_outcome, trainer_of_command
from nnunet_lopsided.study.runs import choose_ids
from nnunet_lopsided.study.schema import Dataset, Phantom, Study
from nnunet_lopsided.study.study_file import study_name

_DATA_KINDS = ("phantom", "preprocess", "plan", "censor", "share", "apply", "complete")


def plan_jobs(study: Study, folder: StudyFolder, file: str = "study") -> tuple[dict[str, int], tuple[Job, ...]]:
    """Ids and jobs of a study in a folder, which need not exist; nothing is written.

    Args:
        study: the study.
        folder: need not exist.
        file: name of the study's YAML file, for messages.

    Raises:
        InputError: a dataset is missing, broken or not what the study needs, the folder holds something else or another
            study, an id is in use, or data have changed that trainings have used.
    """
    _check_folder(study, folder)
    _check_datasets(study, file)
    ids = choose_ids(study, folder.ids())
    # An earlier version trained without seeds; with them every trainer would have another name, and none be done.
    if study.seeds is None:
        study = replace(study, seeds=not trained_without_seeds(study, folder))
    _check_ids(folder, ids)
    _check_folds(study, folder, ids)
    jobs = expand(study, ids)
    _check_data(folder, jobs)
    return ids, jobs


def trained_without_seeds(study: Study, folder: StudyFolder) -> bool:
    """Whether the folder holds trainings of the study whose trainers got no seed: of an earlier version, or told so.

    With seeds they would all have to be done again.
    """
    ids = choose_ids(study, folder.ids())
    seeded_jobs = {job.name: job for job in expand(replace(study, seeds=True), ids)}
    for plain in expand(replace(study, seeds=False), ids):
        # A job that several arms share in either case has the same name in both.
        seeded = seeded_jobs.get(plain.name, plain)
        if plain.kind == "train" and plain.command != seeded.command:
            begun = folder.all_attempts(plain.name)[-1:]
            done = folder.record(plain.name)
            commands = [attempt["command"] for attempt in begun if "command" in attempt]
            commands += [] if done is None else [done["command"]]
            if any(trainer_of_command(c) == trainer_of_command(plain.command) for c in commands):
                return True
    return False


def prepare(study: Study, text: str, folder: StudyFolder, file: str = "study") -> tuple[Job, ...]:
    """Write the jobs of a study into its folder, link its datasets, and take back markers of jobs that have changed.

    Args:
        study: the study.
        text: of its YAML file.
        folder: need not exist.
        file: see :func:`plan_jobs`.

    Returns:
        The jobs.

    Raises:
        InputError: see :func:`plan_jobs`.
    """
    ids, jobs = plan_jobs(study, folder, file)
    sources = {d.name: (d, _source(d)) for d in study.datasets}
    for variable in PATH_VARIABLES:
        (folder.path / variable).mkdir(parents=True, exist_ok=True)
    # The text as the user wrote it, comments included: the report shows it.
    with new_file(folder.study_file) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    described = {name: _described(dataset) for name, (dataset, _) in sources.items()}
    # Ids of datasets that the study no longer has stay taken: their results lie under these.
    write_json(folder.ids_file, {"ids": {**folder.ids(), **ids}, "sources": {**folder.sources(), **described}})
    with nnunet_paths(folder.path):
        for dataset, raw in sources.values():
            _provide(study, dataset, raw, number=ids[dataset.name], folder=folder)
    stale: set[str] = set()
    for job in jobs:  # each after those it needs
        record = folder.record(job.name)
        differs = record is not None and not same_outcome(record["command"], job.command)
        # Snakemake sees no commands: without its marker a job is run again, and so is what was made from it.
        if differs or not stale.isdisjoint(job.needs):
            stale.add(job.name)
            folder.marker(job.name).unlink(missing_ok=True)
    write_json(folder.jobs_file, [job.as_json() for job in jobs])
    return jobs


@contextmanager
def nnunet_paths(folder: Path) -> Iterator[None]:
    """Inside, the environment variables of nnU-Net's folders name those of a study."""
    before = {variable: os.environ.get(variable) for variable in PATH_VARIABLES}
    os.environ.update({variable: str(folder.absolute() / variable) for variable in PATH_VARIABLES})
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value


def _check_folder(study: Study, folder: StudyFolder) -> None:
    if folder.path.exists() and not folder.path.is_dir():
        raise InputError(f"{folder.path} is not a folder")
    if not folder.jobs_file.is_file() and not folder.study_file.is_file():
        # A first run that was stopped at once may have left its log and a lock.
        if folder.path.is_dir() and any(p.name != "logs" and p.name[0] != "." for p in folder.path.iterdir()):
            raise InputError(f"{folder.path} is not empty and holds no study; choose another folder with -o")
        return
    name = study_name(folder.study_file)
    if name != study.name:
        raise InputError(f"{folder.path} holds the study {name}, not {study.name}; choose another folder with -o")
    for dataset in study.datasets:
        earlier = folder.sources().get(dataset.name)
        if earlier is not None and earlier != _described(dataset):
            raise InputError(
                f"{folder.path} holds a study whose dataset {dataset.name} is {earlier}, now it is "
                f"{_described(dataset)}; choose another folder with -o"
            )


def _check_ids(folder: StudyFolder, ids: Mapping[str, int]) -> None:
    with nnunet_paths(folder.path):
        for variant, number in ids.items():
            others = [name for name in names_of_dataset(number) if name != new_dataset_name(number, variant)]
            if others:
                raise InputError(
                    f"dataset id {number} for {variant} is in use in {folder.path}: {', '.join(others)}; give another "
                    "range by dataset_ids"
                )


def _check_folds(study: Study, folder: StudyFolder, ids: Mapping[str, int]) -> None:
    """Refuse folds that have changed: trainings may have used the earlier ones."""
    for dataset in study.datasets:
        splits = _splits_file(folder, new_dataset_name(ids[dataset.name], dataset.name))
        if splits.is_file() and read_json(splits) != _folds(study, dataset, _source(dataset)):
            raise InputError(f"dataset {dataset.name}: {splits} holds other folds; choose another folder with -o")


def _check_data(folder: StudyFolder, jobs: Sequence[Job]) -> None:
    """Refuse data that have changed: an earlier training would go on from its checkpoint with other data."""
    attempts = folder.attempts("train")  # also those of trainings that the study no longer has
    for job in jobs if attempts.is_dir() and any(attempts.iterdir()) else ():
        record = folder.record(job.name) if job.kind in _DATA_KINDS else None
        if record is not None and not same_outcome(record["command"], job.command):
            raise InputError(
                f"job {job.name} differs from what was run in {folder.path} ({' '.join(record['command'])}), and "
                "trainings have used it; choose another folder with -o"
            )


def _described(dataset: Dataset) -> Source:
    """The source as JSON."""
    if isinstance(dataset.source, Phantom):
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(dataset.source).items()}
    return dataset.source


def _check_datasets(study: Study, file: str) -> None:
    """Say at once, with the key of the study, what jobs would fail for later."""
    for i, dataset in enumerate(study.datasets):
        kind = {Phantom: "phantom", int: "id", str: "folder"}[type(dataset.source)]
        with _at_key(file, f"datasets[{i}].{kind}"):
            raw = _source(dataset)
            training, test = _case_names(dataset, raw)
            if raw is not None:
                _check_source(study, dataset, raw)
        pattern = study.evaluation.patients_regex
        if pattern is not None:
            with _at_key(file, "evaluation.patients_regex"):
                evaluated = test if "test" in study.evaluation.cases else []
                _patients([*training, *evaluated], raw, pattern)
        with _at_key(file, f"datasets[{i}].{kind}"):
            folds = _folds(study, dataset, raw)
        with _at_key(file, "folds"):
            if not folds and study.folds != ("all",):
                raise InputError(f"dataset {dataset.name}: expected training cases of at least 2 patients, found 1")
            beyond = [fold for fold in study.folds if fold != "all" and int(fold) >= len(folds)]
            if beyond:  # nnU-Net would draw a random split, whatever the patients
                raise InputError(
                    f"dataset {dataset.name}: expected folds from 0 to {len(folds) - 1}, found {beyond[0]}"
                )
        with _at_key(file, "evaluation.label"):
            _check_label(study.evaluation.label, dataset, raw)
        for j, n in enumerate(study.patients):
            if n is None:
                continue
            with _at_key(file, f"patients[{j}]"):
                most = len(set(_patients(training, raw, pattern).values()))
                _check_n_patients(study, dataset, n, most)


def _check_n_patients(study: Study, dataset: Dataset, n: int, most: int) -> None:
    if n > most:
        raise InputError(f"dataset {dataset.name}: expected at most its {most} training patients, found {n}")
    # Every fold needs a patient to validate: nnU-Net would draw a random split for one that has none.
    numbered = [int(fold) for fold in study.folds if fold != "all"]
    least = max(2, max(numbered) + 1) if numbered else 1
    if n < least:
        raise InputError(f"dataset {dataset.name}: expected at least {least} for the study's folds, found {n}")


@contextmanager
def _at_key(file: str, key: str) -> Iterator[None]:
    """Name the place in the study's file that led to an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{file}: {key}: {error}") from None


def _source(dataset: Dataset) -> RawDataset | None:
    """The user's dataset; None for a phantom."""
    if isinstance(dataset.source, Phantom):
        return None
    if isinstance(dataset.source, int):
        return raw_dataset(dataset.source)
    if not Path(dataset.source).is_dir():
        raise InputError(f"dataset {dataset.name}: folder not found: {dataset.source}")
    description = Path(dataset.source) / "dataset.json"
    if description.exists() and not description.is_file():  # a pipe would be waited for
        raise InputError(f"dataset {dataset.name}: expected a file, found something else: {description}")
    return RawDataset(Path(dataset.source))


def _case_names(dataset: Dataset, raw: RawDataset | None) -> tuple[list[str], list[str]]:
    """Names of the training cases and of the test cases."""
    from nnunet_lopsided.dataset_conversion.phantom import case_names

    if raw is not None:
        return [case.name for case in raw.training_cases()], [case.name for case in raw.test_cases()]
    assert isinstance(dataset.source, Phantom), "only phantoms have no raw dataset before they are made"
    return case_names("Tr", dataset.source.train), case_names("Ts", dataset.source.test)


def _check_source(study: Study, dataset: Dataset, raw: RawDataset) -> None:
    if not raw.foreground_labels:
        raise InputError(f"dataset {dataset.name}: {raw.folder / 'dataset.json'} has no foreground label")
    test = raw.test_cases()
    without = [case.name for case in test if case.label is None]
    if "test" in study.evaluation.cases and (not test or without):
        what = f"no label for {', '.join(without[:3])}" if test else "no imagesTs"
        raise InputError(
            f"dataset {dataset.name}: expected labels in labelsTs for all of imagesTs of {raw.folder}, found {what}; "
            "or evaluate the validation cases alone (evaluation: cases: [validation])"
        )


def _check_label(label: str | None, dataset: Dataset, raw: RawDataset | None) -> None:
    from nnunet_lopsided.dataset_conversion.phantom import LABELS

    scheme = label_scheme({"labels": LABELS}, Path(dataset.name)) if raw is None else raw.label_scheme
    if label is not None and label not in scheme.foreground:
        names = list(scheme.foreground)
        raise InputError(
            f"dataset {dataset.name}: expected one of {', '.join(names)}, found {label}{did_you_mean(label, names)}"
        )


def _patients(cases: Sequence[str], raw: RawDataset | None, pattern: str | None) -> dict[str, str]:
    """The patient of every case; in a phantom without a pattern each case is a patient."""
    from nnunet_lopsided.nnunet.patients import patients_of

    if raw is None and pattern is None:
        return {name: name for name in cases}
    return patients_of(cases, raw.folder if raw is not None else Path(), pattern)[0]


def _provide(study: Study, dataset: Dataset, raw: RawDataset | None, *, number: int, folder: StudyFolder) -> None:
    """Links to the user's cases, and the folds that all variants share, before anything can make others."""
    name = new_dataset_name(number, dataset.name)
    if raw is not None and not (folder.path / "nnUNet_raw" / name).is_dir():
        from nnunet_lopsided.nnunet.patients import CASES_FILE
        from nnunet_lopsided.variants.linking import link_cases

        # Test cases without a label cannot be evaluated, and nnU-Net predicts whatever lies in imagesTs.
        test = [case for case in raw.test_cases() if case.label is not None]
        linked = link_cases(raw, number, dataset.name, training=raw.training_cases(), test=test)
        if (raw.folder / CASES_FILE).is_file():
            shutil.copyfile(raw.folder / CASES_FILE, linked / CASES_FILE)
    splits = _splits_file(folder, name)
    if not splits.is_file():
        splits.parent.mkdir(parents=True, exist_ok=True)
        write_json(splits, _folds(study, dataset, raw))


def _splits_file(folder: StudyFolder, dataset: str) -> Path:
    return folder.path / "nnUNet_preprocessed" / dataset / "splits_final.json"


def _folds(study: Study, dataset: Dataset, raw: RawDataset | None) -> list[dict[str, list[str]]]:
    """The dataset's own folds, or else as many as the study wants, by patient.

    Raises:
        InputError: its own are not what nnU-Net writes, or hold other cases.
    """
    from nnunet_lopsided.nnunet.splitting import folds_by_patient

    names, _ = _case_names(dataset, raw)
    if raw is not None and os.path.lexists(path := raw.folder / "splits_final.json"):
        if not path.is_file():  # a link to nothing, or a pipe, which would be waited for
            raise InputError(f"{path}: expected a file")
        return [{"train": list(fold.train), "val": list(fold.val)} for fold in read_splits(path, set(names))]
    cases: dict[str, list[str]] = {}
    for case, patient in _patients(names, raw, study.evaluation.patients_regex).items():
        cases.setdefault(patient, []).append(case)
    # Without lesions to stratify by: to count them all labels would have to be read, before anything runs.
    return folds_by_patient(cases, dict.fromkeys(cases, 0), seed=0, n_folds=study.splits)
