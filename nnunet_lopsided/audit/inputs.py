"""Which predictions an audit may use: those of cases that the model did not train on, and whose labels are the same."""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.files.locks import locked
from nnunet_lopsided.images import n_components, read_image
from nnunet_lopsided.nnunet.checkpoints import FINAL
from nnunet_lopsided.nnunet.magnified import best_device, checked_factors, is_whole, predict_magnified
from nnunet_lopsided.nnunet.paths import nnunet_path
from nnunet_lopsided.nnunet.patients import patients_of
from nnunet_lopsided.nnunet.plans import is_cascade
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.nnunet.raw import Case, RawDataset, raw_dataset
from nnunet_lopsided.nnunet.results import Prediction, predictions_by_case, results_folder_name
from nnunet_lopsided.nnunet.splitting import read_splits
from nnunet_lopsided.progress import progress_bar
from nnunet_lopsided.running import last_line, run_logged, why_it_failed

# How many times images are magnified for further predictions of every model.
# Further factors (1.25, 1.75, 2.5, 3) changed little: docs/explanation/missed-lesions.md.
MAGNIFY = (1.5, 2.0)
WITHOUT_INJECTED = "leave out --inject"


@dataclass(frozen=True)
class Model:
    """One trained cross-validation: the arguments of nnUNetv2_train but the fold."""

    trainer: str
    plans: str
    configuration: str

    def folder(self, dataset: str) -> Path:
        """Where nnU-Net keeps its folds."""
        name = results_folder_name(dataset, self.trainer, self.plans, self.configuration)
        return nnunet_path("nnUNet_results") / name


@dataclass(frozen=True)
class AuditedCase:
    """A case and its out-of-fold predictions.

    Attributes:
        case: its images and label in the raw dataset.
        patient: the patient whose case it is.
        fold: the fold that validates it.
        predictions: of every model one, and one per magnification.
    """

    case: Case
    patient: str
    fold: int
    predictions: tuple[Prediction, ...]

    @property
    def name(self) -> str:
        """The case's name."""
        return self.case.name

    @property
    def label(self) -> Path:
        """Its annotated label map."""
        assert self.case.label is not None, "training_cases() gives labels"
        return self.case.label


def patient_numbers(cases: Iterable[AuditedCase]) -> dict[str, int]:
    """Of every patient by name, from 0, sorted by name."""
    return {name: i for i, name in enumerate(sorted({case.patient for case in cases}))}


@dataclass(frozen=True, kw_only=True)
class AuditInputs:
    """What is audited.

    Attributes:
        dataset: the raw dataset.
        models: whose predictions.
        folds: of the cross-validation.
        cases: sorted by name.
        patients: in words, where the patients come from.
        left_out: training cases that none of the folds validates.
        magnify: how many times images were magnified for further predictions.
        not_magnified: why no images were magnified; empty: they were, or no magnification was asked for.
    """

    dataset: RawDataset
    models: tuple[Model, ...]
    folds: tuple[int, ...]
    cases: tuple[AuditedCase, ...]
    patients: str
    left_out: tuple[str, ...]
    magnify: tuple[float, ...] = ()
    not_magnified: str = ""


def find_inputs(
    dataset: int | str,
    models: Sequence[Model],
    folds: Sequence[int | str] | None = None,
    *,
    patients_regex: str | None = None,
    magnify: Sequence[float] | None = None,
    device: str | None = None,
    n_workers: int = 2,
    torch_resampling: bool = False,
    to_inject: bool = False,
) -> AuditInputs:
    """Find the out-of-fold predictions of a cross-validation, and refuse any that are not.

    Where a fold lacks probabilities and has its checkpoint, ``nnUNetv2_train ... --val --npz`` makes them. Those of
    magnified images are made by :func:`~nnunet_lopsided.nnunet.magnified.predict_magnified`.

    Args:
        dataset: id or name of the dataset the models were trained on.
        models: one, or several with the same folds: other trainers or seeds.
        folds: which; None: all of splits_final.json.
        patients_regex: see :func:`~nnunet_lopsided.nnunet.patients.patients_of`.
        magnify: how many times images are magnified for further predictions, each above 1; None: :data:`MAGNIFY`
            where every fold has its checkpoint, otherwise not at all.
        device: on which missing predictions are made; None: cuda where there is one, otherwise cpu.
        n_workers: cases worked on at the same time.
        torch_resampling: of predictions of magnified images, see
            :func:`~nnunet_lopsided.nnunet.magnified.predict_magnified`.
        to_inject: lesions are to be injected later; refuse what cannot be before anything is predicted.

    Raises:
        InputError: a fold or its probabilities are missing and cannot be made, a prediction is not out of fold, or
            labels have changed since the training; a magnification is impossible.
    """
    factors = checked_factors(MAGNIFY if magnify is None else magnify)
    source = raw_dataset(dataset)
    preprocessed = preprocessed_folder(source.name)
    fold_of, trained_on, chosen = _folds(preprocessed, folds)
    cases = {case.name: case for case in source.training_cases()}
    unknown = sorted(set(fold_of).union(*trained_on.values()) - set(cases))
    if unknown:
        raise InputError(
            f"{source.name} has changed since the training: case {unknown[0]} of "
            f"{preprocessed / 'splits_final.json'} is no longer in it"
        )
    _check_labels([cases[name] for name in sorted(fold_of)], source, preprocessed)
    patients, origin = patients_of(list(cases), source.folder, patients_regex)
    wanted = {fold: sorted(case for case, own in fold_of.items() if own == fold) for fold in chosen}
    trained = [(model, fold) for model in models for fold in chosen]
    for model, fold in trained:
        _check_out_of_fold(_validation(model, source.name, fold), fold, wanted[fold], trained_on[fold])
    if to_inject:
        check_can_inject(trained, source.name, [cases[name] for name in sorted(fold_of)])
    for model, fold in trained:
        _provide_probabilities(source.name, model, fold, wanted=wanted[fold], device=device)
    obstacle = why_not_predicted(trained, source.name) if factors else ""
    # Whoever asked for magnified images must get them; by default they are done without, and the page says so.
    if obstacle and magnify is not None:
        raise InputError(f"cannot predict magnified images: {obstacle}; --magnify without a number audits without them")
    factors = () if obstacle else factors
    predictions: dict[str, list[Prediction]] = {name: [] for name in fold_of}
    for model, fold in trained:
        folder, own = _validation(model, source.name, fold), [cases[name] for name in wanted[fold]]
        by_case = predictions_by_case(folder, dataset_json=source.folder / "dataset.json")
        for case in own:
            predictions[case.name].append(by_case[case.name])
        magnified = predict_magnified(
            folder.parent, FINAL, factors, own, device, n_workers, torch_resampling=torch_resampling
        )
        for name, arrays in magnified.items():
            # Their axes are as nnU-Net's reader turned them: with its name they are turned back, as nnU-Net's own
            # arrays.
            predictions[name] += [Prediction(name, None, array, by_case[name].reader) for array in arrays]
    return AuditInputs(
        dataset=source,
        models=tuple(models),
        folds=chosen,
        cases=tuple(
            AuditedCase(cases[name], patients[name], fold, tuple(predictions[name]))
            for name, fold in sorted(fold_of.items())
        ),
        patients=origin,
        left_out=tuple(name for name in sorted(cases) if name not in fold_of),
        magnify=factors,
        not_magnified=obstacle,
    )


def check_can_inject(trained: Sequence[tuple[Model, int]], dataset: str, cases: Sequence[Case]) -> None:
    """Refuse models that cannot predict changed images, and images that cannot be changed.

    Args:
        trained: models and their folds.
        dataset: its name.
        cases: those that would be changed.

    Raises:
        InputError: a fold has no checkpoint or is of a cascade, or an image has several values per voxel.
    """
    obstacle = _why_not_injected(trained, dataset, cases)
    if obstacle:
        raise InputError(f"{obstacle}; {WITHOUT_INJECTED}")


def why_not_injected(inputs: AuditInputs) -> str:
    """Why :func:`check_can_inject` refuses these inputs; empty: lesions can be injected."""
    trained = [(model, fold) for model in inputs.models for fold in inputs.folds]
    return _why_not_injected(trained, inputs.dataset.name, [case.case for case in inputs.cases])


def _why_not_injected(trained: Sequence[tuple[Model, int]], dataset: str, cases: Sequence[Case]) -> str:
    obstacle = why_not_predicted(trained, dataset)
    if obstacle:
        return f"cannot predict injected lesions: {obstacle}"
    for case in cases:
        for image in case.images:
            if (n := n_components(image)) != 1:
                return (
                    f"case {case.name}: {image} has {n} values per voxel, and lesions are injected into images of one"
                )
    return ""


def why_not_predicted(trained: Sequence[tuple[Model, int]], dataset: str) -> str:
    """Why these folds of models cannot predict other images than nnU-Net's validation did; empty: they can."""
    for model, fold in trained:
        results = model.folder(dataset)
        for needed in (f"fold_{fold}/{FINAL}", "plans.json"):
            if not (results / needed).is_file():
                return f"{results.name} has no {needed}"
        if is_cascade(results / "plans.json", model.configuration):
            return f"{model.configuration} is a cascade, which needs the predictions of its previous stage"
    return ""


def _folds(
    preprocessed: Path, folds: Sequence[int | str] | None
) -> tuple[dict[str, int], dict[int, frozenset[str]], tuple[int, ...]]:
    """The fold that validates each case, the cases each fold trains on, and the folds."""
    path = preprocessed / "splits_final.json"
    # nnU-Net trains and validates fold all on the same cases.
    if folds is not None and "all" in folds:
        raise InputError(
            "fold all trains on every case, so none of its predictions is out of fold; an audit needs the folds of a "
            "cross-validation"
        )
    if not path.is_file():
        raise InputError(
            f"{path} not found: it says which cases a fold trained on; nnUNetv2_train writes it for any fold but all"
        )
    splits = read_splits(path)
    chosen = tuple(range(len(splits))) if folds is None else tuple(sorted({int(fold) for fold in folds}))
    fold_of: dict[str, int] = {}
    for fold in chosen:
        if not 0 <= fold < len(splits):
            raise InputError(f"fold {fold}: {path} has the folds 0 to {len(splits) - 1}")
        for case in splits[fold].val:
            if case in fold_of:
                raise InputError(
                    f"{path}: case {case} is validated by the folds {fold_of[case]} and {fold}; which of its two "
                    "predictions counts? choose folds by -f"
                )
            fold_of[case] = fold
    return fold_of, {fold: frozenset(splits[fold].train) for fold in chosen}, chosen


def _validation(model: Model, dataset: str, fold: int) -> Path:
    return model.folder(dataset) / f"fold_{fold}" / "validation"


def _check_out_of_fold(folder: Path, fold: int, wanted: Sequence[str], trained_on: frozenset[str]) -> None:
    """Refuse predictions of cases that a fold does not validate: before any are made among them."""
    predicted = predictions_by_case(folder) if folder.is_dir() else {}
    for case in sorted(set(predicted) - set(wanted)):
        reason = "trained on it" if case in trained_on else "does not validate it by splits_final.json"
        raise InputError(
            f"{folder} holds case {case}, but fold {fold} {reason}: the folds have changed since, so it is not known "
            "which predictions are out of fold"
        )


def _provide_probabilities(dataset: str, model: Model, fold: int, *, wanted: Sequence[str], device: str | None) -> None:
    """See to it that a fold has the probabilities of all of its cases."""
    folder = _validation(model, dataset, fold)
    lacking = _lacking(folder, wanted)
    if lacking:
        checkpoint = folder.parent / FINAL
        training = ("nnUNetv2_train", dataset, model.configuration, str(fold), "-tr", model.trainer, "-p", model.plans)
        command = (*training, "--val", "--npz", "-device", device or best_device())
        if not checkpoint.is_file():
            what = (
                "no such folder" if not folder.is_dir() else f"no whole CASE.npz of {len(lacking)} cases ({lacking[0]})"
            )
            raise InputError(
                f"fold {fold} has no predictions with probabilities in {folder}: {what}, and no {FINAL} to make "
                f"them with; train it by {' '.join(training)} --npz, or choose folds by -f"
            )
        with locked(folder.parent):
            lacking = _lacking(folder, wanted)  # another process may have made them
            if lacking:
                _make(command, fold, folder)
        if lacking and (lacking := _lacking(folder, wanted)):
            raise InputError(f"fold {fold}: {' '.join(command)} made no {folder / lacking[0]}.npz")


def _lacking(folder: Path, wanted: Sequence[str]) -> list[str]:
    """The cases without probabilities; an archive that was cut off holds none."""
    predicted = predictions_by_case(folder) if folder.is_dir() else {}
    arrays = {case: predicted[case].array for case in wanted if case in predicted}
    return [case for case in wanted if (array := arrays.get(case)) is None or not is_whole(array)]


def _make(command: tuple[str, ...], fold: int, folder: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as logs,
        progress_bar(
            total=1, title=f"fold {fold}: {' '.join(command)}", unit="fold", bar_format="{desc} {elapsed}"
        ) as bar,
    ):
        log = Path(logs) / "validation.log"
        code = run_logged(command, log, {}, bar.refresh)
        if code != 0:
            why = why_it_failed(code, last_line(log), "set nnUNet_n_proc_DA and nnUNet_def_n_proc to fewer processes")
            raise InputError(
                f"fold {fold}: {' '.join(command)} failed, so there are no probabilities in {folder}: {why}"
            )


def _check_labels(cases: Sequence[Case], source: RawDataset, preprocessed: Path) -> None:
    """Refuse labels that are not those the training saw."""
    changed = []
    for case in cases:
        assert case.label is not None, "training_cases() gives labels"
        seen = preprocessed / "gt_segmentations" / (case.name + source.file_ending)
        if not seen.is_file():
            raise InputError(f"case {case.name}: {seen} not found, so it is not known which labels the training saw")
        # Equal bytes need not be decompressed. Others may hold the same labels, saved by another program.
        if filecmp.cmp(case.label, seen, shallow=False):
            continue
        now, then = read_image(case.label).array, read_image(seen).array
        if now.shape != then.shape or not np.array_equal(now, then):
            changed.append(
                f"case {case.name}: {case.label} differs from {seen}: the labels have changed since the training, so "
                "the model is not out of fold for them; preprocess and train again"
            )
    if changed:
        raise InputErrors(changed)
