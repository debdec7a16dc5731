"""Predictions and results: folders as nnUNetv2_predict and nnUNetv2_train leave them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.nnunet.frames import reader_of
from nnunet_lopsided.nnunet.paths import (
    ARRAY_ENDINGS,
    IMAGE_ENDINGS,
    check_case_name,
    check_no_twins,
    is_litter,
    nnunet_path,
)
from nnunet_lopsided.nnunet.preprocessed import preprocessed_splits


@dataclass(frozen=True)
class Prediction:
    """The files of one predicted case.

    Attributes:
        name: the case.
        image: label map or probability image ``CASE.nii.gz`` (or another image ending), if there is one.
        array: ``CASE.npz`` or ``CASE.npy`` beside it, if there is one.
        reader: the reader of nnU-Net in whose frame the array lies, see :mod:`~nnunet_lopsided.nnunet.frames`.
    """

    name: str
    image: Path | None
    array: Path | None
    reader: str = ""


def label_maps(folder: Path, problems: dict[str, str] | None = None) -> dict[str, Path]:
    """The images of a folder such as labelsTs, by case name (the file name without its image ending), sorted.

    Args:
        folder: the folder.
        problems: receives, by case, what is wrong: two images, of which the first counts, or a name that is none of a
            case. None: these are errors.

    Raises:
        InputError: the folder does not exist.
        InputErrors: something is wrong, and ``problems`` is None.
    """
    if not folder.is_dir():
        raise InputError(f"folder not found: {folder}")
    return _by_case(folder, IMAGE_ENDINGS, problems)


def predictions_by_case(
    folder: Path, problems: dict[str, str] | None = None, dataset_json: Path | None = None
) -> dict[str, Prediction]:
    """The predicted cases of a folder that nnUNetv2_predict or another tool wrote, sorted by name.

    Args:
        folder: the folder.
        problems: as for :func:`label_maps`, of images and of arrays.
        dataset_json: of the dataset, where none lies beside the predictions; it may name the reader.

    Raises:
        InputError: the folder does not exist.
        InputErrors: cases have two images or two arrays, or their names are no names of cases, and ``problems`` is
            None.
    """
    images, arrays = label_maps(folder, problems), _by_case(folder, ARRAY_ENDINGS, problems)
    check_no_twins({*images, *arrays}, folder)
    reader = reader_of(_model_folders(folder), dataset_json) if arrays else ""
    return {name: Prediction(name, images.get(name), arrays.get(name), reader) for name in sorted({*images, *arrays})}


def _model_folders(predictions: Path) -> list[Path]:
    """Where nnU-Net leaves dataset.json and plans.json of predictions: nnUNetv2_predict beside them, nnUNetv2_train in
    the result folder above ``fold_X/validation``.
    """
    within_results = fold_of_validation(predictions) is not None
    return [predictions, predictions.absolute().parents[1]] if within_results else [predictions]


def find_dataset_json(prediction_folder: Path, reference_folder: Path) -> Path | None:
    """dataset.json of the prediction folder (nnUNetv2_predict copies it there), of the trainer's result folder when
    the predictions are those of ``fold_X/validation`` in it, of the references or their parent.
    """
    for folder in (*_model_folders(prediction_folder), reference_folder, reference_folder.absolute().parent):
        if (folder / "dataset.json").is_file():
            return folder / "dataset.json"
    return None


def fold_of_validation(folder: Path) -> str | None:
    """The fold (``"0"``, ``"1"``, ... or ``"all"``) whose ``fold_X/validation`` this folder is, None if it is none."""
    folder = folder.absolute()
    match = re.fullmatch(r"fold_([0-9]+|all)", folder.parent.name)
    return match[1] if match and folder.name == "validation" else None


def validation_folders(results: Path, folds: Sequence[int] | None = None) -> dict[int, Path]:
    """The ``fold_X/validation`` folders of a trainer's result folder, by fold.

    Args:
        results: ``nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION``.
        folds: which; None: those of splits_final.json of the dataset, or else all that lie there.

    Raises:
        InputError: the folder does not exist, there is no fold, or a fold has no validation folder.
    """
    if not results.is_dir():
        raise InputError(f"folder not found: {results}")
    there = sorted(int(p.name[5:]) for p in results.iterdir() if p.is_dir() and re.fullmatch(r"fold_[0-9]+", p.name))
    if not there:
        raise InputError(f"{results}: expected folders fold_0, fold_1, ... as nnUNetv2_train makes them, found none")
    if folds is None:
        splits = splits_of_results(results)
        folds = there if splits is None else range(len(splits))
    of_fold = {fold: results / f"fold_{fold}" / "validation" for fold in folds}
    missing = [str(fold) for fold, path in of_fold.items() if not path.is_dir()]
    if missing:
        complete = [str(fold) for fold in there if (results / f"fold_{fold}" / "validation").is_dir()]
        raise InputError(
            f"{results}: no validation folder for fold {', '.join(missing)}; finish by nnUNetv2_train ... FOLD --val, "
            f"or choose folds by -f or --folds (with one: {', '.join(complete) or 'none'})"
        )
    return of_fold


def results_folder_name(dataset: str, trainer: str, plans: str, configuration: str) -> str:
    """Where nnU-Net puts a trained model, below nnUNet_results.

    Example:
        >>> results_folder_name("Dataset501_Mets", "nnUNetTrainer", "nnUNetPlans", "2d")
        'Dataset501_Mets/nnUNetTrainer__nnUNetPlans__2d'
    """
    return f"{dataset}/{trainer}__{plans}__{configuration}"


def dataset_of_results(results: Path) -> str | None:
    """Name of the dataset below whose folder (``Dataset501_NAME``) a result folder lies; None if below none."""
    names = [p.name for p in (results.absolute(), *results.absolute().parents)]
    return next((name for name in names if re.fullmatch(r"Dataset[0-9]{3}_.+", name)), None)


def reference_segmentations(results: Path) -> Path:
    """``nnUNet_preprocessed/DATASET/gt_segmentations`` of the dataset a result folder belongs to.

    Raises:
        InputError: the dataset's name is not in the path, or there is no such folder.
    """
    name = dataset_of_results(results)
    if name is None:
        raise InputError(f"{results} lies below no folder DatasetXXX_NAME: which references belong to it? give -g")
    folder = nnunet_path("nnUNet_preprocessed") / name / "gt_segmentations"
    if not folder.is_dir():
        raise InputError(f"no reference segmentations of {name}: folder not found: {folder}; give -g")
    return folder


def splits_of_results(results: Path) -> list[tuple[str, ...]] | None:
    """The validation cases of every fold of the dataset a result folder belongs to, from splits_final.json.

    None when the dataset, its preprocessed folder or the file is not known.

    Raises:
        InputError: the file is not what nnU-Net writes.
    """
    root, name = os.environ.get("nnUNet_preprocessed"), dataset_of_results(results)
    if not root or name is None or not (Path(root) / name / "splits_final.json").is_file():
        return None
    return [val for _, val in preprocessed_splits(Path(root) / name)]


def _by_case(folder: Path, endings: tuple[str, ...], problems: dict[str, str] | None) -> dict[str, Path]:
    by_case: dict[str, Path] = {}
    wrong: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        ending = next((e for e in endings if path.name.lower().endswith(e)), None)
        if ending is None or is_litter(path.name):
            continue
        name = path.name[: -len(ending)]
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "none"
            wrong[name] = f"case {name}: expected a file, found {kind}: {path}"
            continue
        try:
            check_case_name(name, folder)
        except InputError as error:
            wrong[name] = str(error)
        if name in by_case:
            wrong.setdefault(name, f"case {name} has two files in {folder}: {by_case[name].name} and {path.name}")
        else:
            by_case[name] = path
    check_no_twins(by_case, folder)
    if problems is not None:
        for name, problem in wrong.items():
            problems[name] = f"{problems[name]}; {problem}" if name in problems else problem
    elif wrong:
        raise InputErrors(list(wrong.values()))
    return dict(sorted(by_case.items()))
