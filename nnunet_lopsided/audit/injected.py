"""Injected lesions on disk: images that hold them, their out-of-fold predictions, and what is seen in these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_lopsided.audit.injecting import (
    SEEN,
    Donor,
    SeenInCase,
    as_type,
    case_generator,
    find_donors,
    inject,
    measure_injected,
)
from nnunet_lopsided.audit.inputs import (
    WITHOUT_INJECTED,
    AuditedCase,
    AuditInputs,
    Model,
    check_can_inject,
    patient_numbers,
)
from nnunet_lopsided.audit.measuring import load_predictions
from nnunet_lopsided.audit.missed_by_size import InjectedLesions
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.loading import LesionClass, lesion_class, load_case
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.files.json import file_digest
from nnunet_lopsided.files.locks import locked
from nnunet_lopsided.files.natural import NATURAL_ENDINGS
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import Image, read_header, read_image, write_image
from nnunet_lopsided.nnunet.checkpoints import FINAL
from nnunet_lopsided.nnunet.magnified import OtherImages, begin, is_of, predict_magnified
from nnunet_lopsided.nnunet.raw import Case, case_images
from nnunet_lopsided.nnunet.results import Prediction

PER_CASE = 8
FOLDER, _RECORD, _IMAGES, _LABELS = "validation_injected", "injected.json", "images", "labels"
_NAMES = (_IMAGES, _LABELS, "validation_x*")
_VERSION = 1  # of how lesions are injected; with another one they are injected anew


@dataclass(frozen=True, kw_only=True)
class _Injection:
    """What is injected into the cases that a fold validates.

    Attributes:
        folder: in the fold of the first model.
        cases: whose images.
        made_by: what decides on the injected lesions.
        target: whose lesions.
        rules: of components.
        per_case: how many lesions.
        seed: of them.
        file_ending: of images and labels.
    """

    folder: Path
    cases: tuple[AuditedCase, ...]
    made_by: dict[str, object]
    target: LesionClass
    rules: EvaluationRules
    per_case: int
    seed: int
    file_ending: str

    def mask(self, case: AuditedCase) -> Path:
        """The label map of a case's injected lesions. It is written last: where it is, the images are."""
        return self.folder / _LABELS / (case.name + self.file_ending)

    def image(self, case: AuditedCase, channel: int) -> Path:
        """A channel with these lesions."""
        return self.folder / _IMAGES / f"{case.name}_{channel:04d}{self.file_ending}"

    def lacking(self) -> list[AuditedCase]:
        """The cases that are still to be made."""
        return [case for case in self.cases if not self.mask(case).is_file()]


def inject_lesions(
    inputs: AuditInputs,
    *,
    rules: EvaluationRules,
    label: str | None = None,
    per_case: int = PER_CASE,
    seed: int = 0,
    device: str | None = None,
    n_workers: int = 2,
    torch_resampling: bool = False,
) -> InjectedLesions:
    """Inject lesions into the images of all cases, and measure what the networks see of them.

    A fold's lesions are those annotated in the cases it validates, which its network did not train on; it predicts the
    images as they are and magnified as the audit's. Images and predictions are kept in ``fold_X/validation_injected``
    and used again while checkpoints, labels and settings stay the same.

    Args:
        inputs: of :func:`~nnunet_lopsided.audit.inputs.find_inputs`.
        rules: of components and matches.
        label: class or region by name, whose lesions are injected; None: all foreground.
        per_case: how many are injected into each case, at least 1.
        seed: of diameters and places.
        device: cpu, cuda or mps; None: cuda where there is one, otherwise cpu.
        n_workers: cases worked on at the same time.
        torch_resampling: as for the audit's magnified images.

    Raises:
        InputError: a fold has no checkpoint or is of a cascade, an image has several values per voxel, files cannot be
            read or written, or another process is writing them.
    """
    trained = [(model, fold) for model in inputs.models for fold in inputs.folds]
    check_can_inject(trained, inputs.dataset.name, [case.case for case in inputs.cases])
    target = lesion_class(label, inputs.dataset.folder / "dataset.json")
    seen: list[SeenInCase] = []
    seen_patients: list[str] = []
    for fold in inputs.folds:
        cases = tuple(case for case in inputs.cases if case.fold == fold)
        folders = [_fold_folder(model, inputs, fold) for model in inputs.models]
        injection = _Injection(
            folder=folders[0] / FOLDER,
            cases=cases,
            made_by={
                "version": _VERSION,
                "seed": seed,
                "per_case": per_case,
                "label": label,
                "connectivity": rules.connectivity,
                "magnify": list(inputs.magnify),
                "torch_resampling": torch_resampling,
                "checkpoints": [file_digest(folder / FINAL) for folder in folders],
                "labels": {case.name: file_digest(case.label) for case in cases},
            },
            target=target,
            rules=rules,
            per_case=per_case,
            seed=seed,
            file_ending=inputs.dataset.file_ending,
        )
        _write_images(injection, n_workers)
        arrays = _predict(injection, folders, inputs, device, n_workers, torch_resampling=torch_resampling)
        measure = partial(_measure, injection, arrays)
        with_lesions = [case for case in cases if case.name in arrays]
        seen += for_each(measure, with_lesions, n_workers, f"{folders[0].name}, injected")
        seen_patients += [case.patient for case in with_lesions]
    nothing, number = np.zeros(0), patient_numbers(inputs.cases)
    patients = np.array([number[patient] for patient in seen_patients], np.int64)
    return InjectedLesions(
        per_case=per_case,
        seed=seed,
        diameter_mm=np.concatenate([nothing, *(s.diameter_mm for s in seen)]),
        patient=np.repeat(patients, [len(s.diameter_mm) for s in seen]),
        found_mm=np.concatenate([nothing, *(s.found_mm for s in seen)]),
        found_score=np.concatenate([nothing, *(s.found_score for s in seen)]),
        found_patient=np.repeat(patients, [len(s.found_mm) for s in seen]),
    )


def _fold_folder(model: Model, inputs: AuditInputs, fold: int) -> Path:
    return model.folder(inputs.dataset.name) / f"fold_{fold}"


def _write_images(injection: _Injection, n_workers: int) -> None:
    """Images with lesions and label maps of these, of all cases that lack them."""
    record, fold = injection.folder / _RECORD, injection.folder.parent
    if is_of(record, injection.made_by) and not injection.lacking():
        return
    try:
        with locked(fold):
            if not is_of(record, injection.made_by):
                begin(record, injection.made_by, _NAMES)
            for name in (_IMAGES, _LABELS):
                (injection.folder / name).mkdir(exist_ok=True)
            find = partial(_donors, injection)
            donors = [d for own in for_each(find, injection.cases, n_workers, f"{fold.name}, lesions") for d in own]
            write = partial(_write_case, injection, donors)
            for_each(write, injection.lacking(), n_workers, f"{fold.name}, injecting lesions")
    except OSError as error:
        raise InputError(f"cannot write {injection.folder}: {error.strerror or error}; {WITHOUT_INJECTED}") from error


def _donors(injection: _Injection, case: AuditedCase) -> list[Donor]:
    loaded = load_case(case.name, case.label, None, injection.target)
    if not loaded.reference.any():
        return []
    images = case_images(case.case, loaded.reference.shape)
    return find_donors(images, loaded.reference, loaded.spacing_mm, injection.rules.connectivity)


def _write_case(injection: _Injection, donors: Sequence[Donor], case: AuditedCase) -> None:
    loaded, predictions = load_predictions(case, injection.target)
    blocked = loaded.reference if loaded.valid is None else loaded.reference | ~loaded.valid
    for probability in predictions:
        blocked = blocked | (probability >= SEEN)
    images = case_images(case.case, blocked.shape)
    rng = case_generator(injection.seed, case.name)
    changed, mask = inject(rng, images, blocked, donors, loaded.spacing_mm, injection.per_case)
    if mask.any():
        for channel, (image, before, path) in enumerate(zip(changed, images, case.case.images, strict=True)):
            # Formats of photographs hold whole numbers alone; nnU-Net's readers take float32 of all others.
            of_file = as_type(image, before.dtype) if path.suffix.lower() in NATURAL_ENDINGS else image
            write_image(injection.image(case, channel), Image(of_file, read_header(path).geometry))
    write_image(injection.mask(case), Image(mask.astype(np.uint8), loaded.geometry))


def _predict(
    injection: _Injection,
    folders: Sequence[Path],
    inputs: AuditInputs,
    device: str | None,
    n_workers: int,
    *,
    torch_resampling: bool,
) -> dict[str, list[Path]]:
    """By case with injected lesions, the arrays of all models in the order of the audit's predictions."""
    with_lesions = [case for case in injection.cases if injection.image(case, 0).is_file()]
    changed = [
        Case(case.name, tuple(injection.image(case, i) for i in range(len(case.case.images))), None)
        for case in with_lesions
    ]
    of = OtherImages(folder=FOLDER, title=", injected lesions", what="injected lesions", without=WITHOUT_INJECTED)
    arrays: dict[str, list[Path]] = {case.name: [] for case in changed}
    for folder in folders if changed else ():
        # Only the first model's folder holds the images; predictions of earlier ones go with its record.
        with locked(folder):
            if not is_of(folder / FOLDER / _RECORD, injection.made_by):
                begin(folder / FOLDER / _RECORD, injection.made_by, _NAMES)
        factors = (1.0, *inputs.magnify)
        predicted = predict_magnified(
            folder, FINAL, factors, changed, device, n_workers, torch_resampling=torch_resampling, of=of
        )
        for name, own in predicted.items():
            arrays[name] += own
    if not is_of(injection.folder / _RECORD, injection.made_by):
        raise InputError(
            f"{injection.folder}: another audit has replaced it by other injected lesions; expected one at a time, so "
            "run this command again"
        )
    return arrays


def _measure(injection: _Injection, arrays: dict[str, list[Path]], case: AuditedCase) -> SeenInCase:
    predicted = tuple(
        Prediction(case.name, None, array, original.reader)
        for array, original in zip(arrays[case.name], case.predictions, strict=True)
    )
    loaded, predictions = load_predictions(replace(case, predictions=predicted), injection.target)
    return measure_injected(
        loaded.reference,
        read_image(injection.mask(case)).array != 0,
        predictions=predictions,
        spacing_mm=loaded.spacing_mm,
        rules=injection.rules,
        valid=loaded.valid,
        case=case.name,
    )
