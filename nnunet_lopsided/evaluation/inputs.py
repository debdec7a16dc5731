"""Which files are evaluated: references and predictions paired by case, from one folder or from all folds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.rules import InstanceMaps
from nnunet_lopsided.files.regular import read_text
from nnunet_lopsided.nnunet.paths import nearly
from nnunet_lopsided.nnunet.patients import CASES_FILE, patients_of
from nnunet_lopsided.nnunet.results import (
    Prediction,
    find_dataset_json,
    fold_of_validation,
    label_maps,
    predictions_by_case,
    reference_segmentations,
    splits_of_results,
    validation_folders,
)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is evaluated.

    Attributes:
        references: folder of reference label maps.
        predictions: folder of predictions, or with ``folds`` a trainer's result folder.
        label: class or region by name; None: all foreground.
        dataset_json: the file that declares the classes; None: none was given or found.
        patients_regex: its first group (or its match) in a case's name is the patient; None: ``cases.csv`` of the
            references' dataset says it, and where there is none a case is a patient.
        allow_missing: count the lesions of references without prediction as missed instead of refusing them.
        hard_labels: ignore probabilities and evaluate the predicted label maps.
        skip_bad: leave out cases that cannot be evaluated, and list them, instead of refusing them all.
        censored_references: folder of label maps that lack some of the lesions; None: there is none.
        folds: the folds whose ``fold_X/validation`` are evaluated together; None: ``predictions`` is one folder.
        cases: names of the only cases to evaluate, each with a reference; None: all.
        instances: whose label maps number their lesions; the rules' own.
    """

    references: Path
    predictions: Path
    label: str | None = None
    dataset_json: Path | None = None
    patients_regex: str | None = None
    allow_missing: bool = False
    hard_labels: bool = False
    skip_bad: bool = False
    censored_references: Path | None = None
    folds: tuple[int, ...] | None = None
    cases: tuple[str, ...] | None = None
    instances: InstanceMaps = "none"


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """The files of one case.

    Attributes:
        name: the case.
        patient: the unit of the bootstrap; the case's own name where every case is a patient.
        reference: its label map.
        prediction: None: there is none.
        censored: its label map that lacks some of the lesions, if there is one.
        fold: of the cross-validation, if it is one.
    """

    name: str
    patient: str
    reference: Path
    prediction: Prediction | None
    censored: Path | None = None
    fold: int | None = None


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """The cases to evaluate, and what has no counterpart.

    Attributes:
        cases: by name, sorted.
        missing: references without prediction.
        unreferenced: predictions without reference.
        problems: why cases cannot be evaluated, by name; cases that splits_final.json names and no folder holds too.
        unknown_fold: whether predictions are of a fold whose own cases no splits_final.json tells.
    """

    cases: dict[str, CaseFiles]
    missing: tuple[str, ...]
    unreferenced: tuple[str, ...]
    problems: dict[str, str]
    unknown_fold: bool = False


def default_references(predictions: Path) -> Path:
    """The references of predictions that lie in nnU-Net's result folders: ``gt_segmentations`` of their dataset.

    Raises:
        InputError: the predictions lie elsewhere, or there are no such references.
    """
    if not predictions.is_dir():
        raise InputError(f"folder not found: {predictions}")
    return reference_segmentations(predictions)


def find_inputs_dataset_json(references: Path, predictions: Path, folds: Sequence[int] | None) -> Path | None:
    """The dataset.json that declares the classes, if one lies where nnU-Net puts it."""
    if folds and not (predictions / "dataset.json").is_file():
        return find_dataset_json(validation_folders(predictions, folds)[folds[0]], references)
    return find_dataset_json(predictions, references)


def read_case_list(path: Path) -> tuple[str, ...]:
    """The names of cases in a text file, one a line; empty lines and those that begin with # are left out.

    Raises:
        InputError: the file cannot be read, names no case, or names one twice.
    """
    names = [
        line.strip() for line in read_text(path).splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    if not names:
        raise InputError(f"{path} names no case")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path} names cases twice: {', '.join(twice)}")
    return tuple(names)


def pair(inputs: Inputs) -> Pairing:
    """Pair references and predictions by case name.

    Of predictions in ``fold_X/validation`` only the fold's own cases are expected, where splits_final.json tells them.

    Raises:
        InputError: a folder is missing or holds no case, no case has a prediction, or the regular expression of
            patients does not fit, or ``cases.csv`` lacks a case.
    """
    problems: dict[str, str] = {}
    references = label_maps(inputs.references, problems)
    if not references:
        raise InputError(f"no label maps in the reference folder {inputs.references}")
    predicted, fold_of = _predictions(inputs, problems)
    folds = _folds(inputs)
    expected = None if folds is None else _of_folds(inputs.predictions, folds)
    if not predicted:
        raise InputError(f"no predictions in {inputs.predictions}")
    if not set(references) & set(predicted):
        raise InputError(
            f"no case of {inputs.references} ({next(iter(references))}, ...) has a prediction in {inputs.predictions} "
            f"({next(iter(predicted))}, ...){nearly(next(iter(references)), predicted)}"
        )
    for name in (expected or frozenset()) - set(references) - set(predicted):
        problems[name] = (
            f"case {name}: splits_final.json names it, found neither its reference in {inputs.references} nor its "
            f"prediction in {inputs.predictions}"
        )
    # gt_segmentations has the labels of all folds: those of other folds are not without a prediction here.
    if expected is not None:
        references = {name: path for name, path in references.items() if name in expected or name in predicted}
    if inputs.cases is not None:
        unknown = sorted(set(inputs.cases) - set(references))
        if unknown:
            raise InputError(f"cases of the list without a reference in {inputs.references}: {', '.join(unknown)}")
        listed = set(inputs.cases)
        references = {name: path for name, path in references.items() if name in listed}
        predicted = {name: files for name, files in predicted.items() if name in listed}
    patients = _patients(tuple(references), inputs)
    censored = {} if inputs.censored_references is None else label_maps(inputs.censored_references, problems)
    if inputs.censored_references is not None:
        for name in references.keys() - censored.keys():
            problems[name] = f"case {name}: no censored reference in {inputs.censored_references}"
    cases = {
        name: CaseFiles(
            name=name,
            patient=patients[name],
            reference=path,
            prediction=predicted.get(name),
            censored=censored.get(name),
            fold=fold_of.get(name),
        )
        for name, path in references.items()
    }
    # Problems with files of cases that are not evaluated here are nobody's concern.
    concerned = cases.keys() | predicted.keys() | (expected or frozenset())
    return Pairing(
        cases=cases,
        missing=tuple(name for name in cases if name not in predicted),
        unreferenced=tuple(name for name in predicted if name not in cases),
        problems={name: problem for name, problem in sorted(problems.items()) if name in concerned},
        unknown_fold=folds is not None and expected is None,
    )


def _predictions(inputs: Inputs, problems: dict[str, str]) -> tuple[dict[str, Prediction], dict[str, int]]:
    """Predictions by case, and the fold of each of a cross-validation."""
    if inputs.folds is not None:
        predicted: dict[str, Prediction] = {}
        fold_of: dict[str, int] = {}
        for fold, folder in validation_folders(inputs.predictions, inputs.folds).items():
            for name, files in predictions_by_case(folder, problems, inputs.dataset_json).items():
                if name in fold_of:
                    problems[name] = (
                        f"case {name} lies in two folds of {inputs.predictions}: {fold_of[name]} and {fold}"
                    )
                predicted[name], fold_of[name] = files, fold
        return dict(sorted(predicted.items())), fold_of
    return predictions_by_case(inputs.predictions, problems, inputs.dataset_json), {}


def _folds(inputs: Inputs) -> Sequence[int] | None:
    """The folds on whose own cases the predictions are; None: on others, or on those of fold all."""
    if inputs.folds is not None:
        return inputs.folds
    fold = fold_of_validation(inputs.predictions)
    return None if fold is None or fold == "all" else (int(fold),)


def _of_folds(results: Path, folds: Iterable[int]) -> frozenset[str] | None:
    """The folds' own cases; None: no splits_final.json tells them."""
    splits = splits_of_results(results)
    if splits is None or any(fold >= len(splits) for fold in folds):
        return None
    return frozenset(name for fold in folds for name in splits[fold])


def patients_table(inputs: Inputs) -> Path | None:
    """The ``cases.csv`` that tells whose the cases are: that of the dataset whose labels the references are.

    It lies beside ``labelsTr`` or ``labelsTs``; for ``gt_segmentations`` of a preprocessed dataset, in its raw folder.

    Returns:
        None where there is none, or a pattern was given in its place.
    """
    if inputs.patients_regex is not None:
        return None
    above, raw = inputs.references.absolute().parent, os.environ.get("nnUNet_raw")
    folders = [above, *([Path(raw) / above.name] if raw and inputs.references.name == "gt_segmentations" else [])]
    return next((folder / CASES_FILE for folder in folders if (folder / CASES_FILE).is_file()), None)


def _patients(names: Sequence[str], inputs: Inputs) -> dict[str, str]:
    pattern, table = inputs.patients_regex, patients_table(inputs)
    if table is not None:
        return patients_of(names, table.parent)[0]
    if pattern is None:
        return {name: name for name in names}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"patients_regex must be a regular expression, got {pattern!r}: {error}") from None
    matches = {name: compiled.search(name) for name in names}
    unmatched = [name for name, hit in matches.items() if hit is None]
    if unmatched:
        raise InputError(f"patients_regex {pattern!r} does not match the cases {', '.join(unmatched)}")
    patients = {name: hit[1] if compiled.groups else hit[0] for name, hit in matches.items() if hit is not None}
    nameless = [name for name, patient in patients.items() if patient is None]
    if nameless:
        raise InputError(
            f"patients_regex {pattern!r} gives the cases {', '.join(nameless)} no patient: its group takes no part"
        )
    return patients
