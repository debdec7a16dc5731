"""Pictures for a comparison: lesions that one model alone found, and what each calls where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case_result import CaseResult, Components
from nnunet_lopsided.evaluation.checking import load_files
from nnunet_lopsided.evaluation.comparison import Comparison
from nnunet_lopsided.evaluation.inputs import CaseFiles, Inputs, pair
from nnunet_lopsided.evaluation.lesion_class import lesion_class
from nnunet_lopsided.evaluation.loading import LoadedCase
from nnunet_lopsided.evaluation.report.gallery import Finding, ImageFolder, draw_findings, false_positives
from nnunet_lopsided.evaluation.saved import SavedEvaluation
from nnunet_lopsided.pages.pictures import Picture


@dataclass(frozen=True)
class Group:
    """Pictures under one heading."""

    title: str
    pictures: tuple[Picture, ...]


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
    groups: list[Group] = []
    for i, model in enumerate(comparison.models):
        alone, false = _found_alone(comparison, i, n), false_positives(model.cases, n)
        pictures = draw_findings([*alone, *false], _reader(model), of_cases, model.rules.threshold)
        of_alone = tuple(
            replace(picture, caption=", ".join(filter(None, (picture.caption, remark))))
            for picture, remark in zip(pictures, alone.values(), strict=False)
        )
        groups.append(Group(f"Lesions that only {model.name} found", of_alone))
        groups.append(Group(f"False positives of {model.name}, the most confident first", pictures[len(alone) :]))
    return tuple(groups)


def _reader(model: SavedEvaluation) -> Callable[[int], tuple[CaseResult, LoadedCase]]:
    """What gives the tables of a case of an evaluation, with boxes, and its volumes, by its number."""
    files, inputs = _files(model)
    target = lesion_class(inputs.label, inputs.dataset_json)

    def read(i: int) -> tuple[CaseResult, LoadedCase]:
        case = model.cases[i]
        loaded = load_files(files[case.case], target, inputs)
        shape, spacing = loaded.reference.shape, loaded.spacing_mm
        lesions, candidates = (_with_boxes(c, shape, spacing) for c in (case.lesions, case.candidates))
        return replace(case, lesions=lesions, candidates=candidates), loaded

    return read


def _files(model: SavedEvaluation) -> tuple[dict[str, CaseFiles], Inputs]:
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
    return files, inputs


def _found_alone(comparison: Comparison, i: int, n: int) -> dict[Finding, str]:
    """Lesions that model ``i`` alone found, the largest first, and what the other models made of each."""
    places = [
        (float(case.lesions.diameter_mm[k]), c, k)
        for c, case in enumerate(comparison.models[0].cases)
        for k in np.flatnonzero(case.counted).tolist()
    ]
    alone = comparison.detected[:, i] & (comparison.detected.sum(axis=1) == 1)
    chosen = [place for place, yes in zip(places, alone.tolist(), strict=True) if yes]
    found = {}
    for _, c, k in sorted(chosen, key=lambda place: (-place[0], place[1:]))[:n]:
        others = [
            f"{model.name} gives it a mean probability of {model.cases[c].mean_probability[k]:.2f}"
            for j, model in enumerate(comparison.models)
            if j != i and not np.isnan(model.cases[c].mean_probability[k])
        ]
        found[Finding("missed", c, k)] = ", ".join(others)
    return found


def _with_boxes(components: Components, shape: tuple[int, ...], spacing_mm: Sequence[float]) -> Components:
    """Components with boxes, which the tables of an evaluation do not hold: those of balls of their diameters."""
    half = components.diameter_mm[:, None] / 2 / np.asarray(spacing_mm)
    low: NDArray[np.int64] = np.floor(components.centroid - half).astype(np.int64).clip(0, np.array(shape) - 1)
    high: NDArray[np.int64] = np.ceil(components.centroid + half).astype(np.int64).clip(0, np.array(shape) - 1) + 1
    return replace(components, boxes=np.stack([low, high], axis=2))
