"""Pictures for a comparison: lesions that one model alone found, and what each calls where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case_result import CaseResult, Components
from nnunet_lopsided.evaluation.checking import load_files
from nnunet_lopsided.evaluation.comparison import Comparison
from nnunet_lopsided.evaluation.inputs import CaseFiles, Inputs, pair
from nnunet_lopsided.evaluation.lesion_class import LesionClass, lesion_class
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.report.gallery import Finding, ImageFolder, picture_of
from nnunet_lopsided.evaluation.saved import SavedEvaluation
from nnunet_lopsided.images import read_image
from nnunet_lopsided.pages.pictures import Picture, finite, window


@dataclass(frozen=True)
class Group:
    """Pictures under one heading."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class _Shown:
    """A finding of one model, and what its picture says besides."""

    finding: Finding
    remark: str = ""


def compared_gallery(comparison: Comparison, images: Path, channel: int = 0, n: int = 6) -> tuple[Group, ...]:
    """For every model the largest lesions that it alone found, and its most confident false positives.

    References and predictions are read again, from where the evaluations say that they lay.

    Args:
        comparison: of ``compare``.
        images: folder of nnU-Net images ``CASE_0000.nii.gz``.
        channel: which of them is shown.
        n: pictures in each group at most.

    Returns:
        Two groups for every model, in the order of the models.

    Raises:
        InputError: references, predictions or images are not there any more, or ``n`` is negative.
    """
    if n < 0:
        raise InputError(f"--gallery must be at least 0, got {n}")
    of_cases = ImageFolder.open(images, channel)
    groups = []
    for i, model in enumerate(comparison.models):
        files, target, inputs = _inputs(model)
        for title, shown in (
            (f"Lesions that only {model.name} found", _found_alone(comparison, i, n)),
            (f"False positives of {model.name}, the most confident first", _false_positives(model.cases, n)),
        ):
            pictures = [_picture(model, one, files, target, inputs, of_cases) for one in shown]
            groups.append(Group(title, tuple(pictures)))
    return tuple(groups)


def _inputs(model: SavedEvaluation) -> tuple[dict[str, CaseFiles], LesionClass, Inputs]:
    """The files of an evaluation's cases, as they were when it was made."""
    settings = model.summary["settings"]
    everything = settings["label"] == "all foreground"
    inputs = Inputs(
        references=Path(settings["references"]),
        predictions=Path(settings["predictions"]),
        label=None if everything else settings["label"],
        dataset_json=None if settings["dataset_json"] is None else Path(settings["dataset_json"]),
        allow_missing=settings["allow_missing"],
        hard_labels=settings["hard_labels"],
        folds=None if settings["folds"] is None else tuple(settings["folds"]),
        instances=model.rules.instances,
    )
    try:
        files = pair(inputs).cases
        missing = sorted({case.case for case in model.cases} - files.keys())
        if missing:
            raise InputError(f"found no case {missing[0]}")
    except InputError as error:
        raise InputError(
            f"{model.folder}: --images draws the references and predictions that were evaluated; {error}. Evaluate "
            "again, or compare without --images"
        ) from error
    return files, lesion_class(inputs.label, inputs.dataset_json), inputs


def _found_alone(comparison: Comparison, i: int, n: int) -> Iterator[_Shown]:
    """Lesions that model ``i`` alone found, the largest first."""
    places = [
        (float(case.lesions.diameter_mm[k]), c, k)
        for c, case in enumerate(comparison.models[0].cases)
        for k in np.flatnonzero(case.counted).tolist()
    ]
    alone = comparison.detected[:, i] & (comparison.detected.sum(axis=1) == 1)
    chosen = [place for place, yes in zip(places, alone.tolist(), strict=True) if yes]
    for _, c, k in sorted(chosen, key=lambda place: (-place[0], place[1:]))[:n]:
        others = [
            f"{model.name} gives it a mean probability of {model.cases[c].mean_probability[k]:.2f}"
            for j, model in enumerate(comparison.models)
            if j != i and not np.isnan(model.cases[c].mean_probability[k])
        ]
        yield _Shown(Finding("missed", c, k), ", ".join(others))


def _false_positives(cases: Sequence[CaseResult], n: int) -> Iterator[_Shown]:
    """Of one model: the most confident first, of equal ones the larger."""
    places = [
        (-float(case.confidence[k]), -float(case.candidates.diameter_mm[k]), c, k)
        for c, case in enumerate(cases)
        for k in np.flatnonzero(case.matches.status == Status.FALSE_POSITIVE).tolist()
    ]
    for _, _, c, k in sorted(places)[:n]:
        yield _Shown(Finding("false positive", c, k))


def _picture(
    model: SavedEvaluation,
    shown: _Shown,
    files: dict[str, CaseFiles],
    target: LesionClass,
    inputs: Inputs,
    images: ImageFolder,
) -> Picture:
    case = model.cases[shown.finding.case]
    loaded = load_files(files[case.case], target, inputs)
    images.check(loaded)
    image = finite(read_image(images.path(case.case), colour=True).array)
    shape, spacing = loaded.reference.shape, loaded.spacing_mm
    with_boxes = replace(
        case,
        lesions=_with_boxes(case.lesions, shape, spacing),
        candidates=_with_boxes(case.candidates, shape, spacing),
    )
    picture = picture_of(shown.finding, with_boxes, loaded, image, window(image), model.rules.threshold)
    return replace(picture, caption=", ".join(filter(None, (picture.caption, shown.remark))))


def _with_boxes(components: Components, shape: tuple[int, ...], spacing_mm: Sequence[float]) -> Components:
    """Components with boxes, which the tables of an evaluation do not hold: those of balls of their diameters."""
    half = components.diameter_mm[:, None] / 2 / np.asarray(spacing_mm)
    low: NDArray[np.int64] = np.floor(components.centroid - half).astype(np.int64).clip(0, np.array(shape) - 1)
    high: NDArray[np.int64] = np.ceil(components.centroid + half).astype(np.int64).clip(0, np.array(shape) - 1) + 1
    return replace(components, boxes=np.stack([low, high], axis=2))
