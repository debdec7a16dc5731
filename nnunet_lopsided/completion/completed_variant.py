"""The raw dataset of a completion: the source's labels and images as links, soft targets, a table, a record, a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.inputs import AuditedCase, AuditInputs
from nnunet_lopsided.belief import belief, missed_per_annotated
from nnunet_lopsided.completion.completion_page import CompletedLesion, DiameterRow, completion_html, shown_pictures
from nnunet_lopsided.evaluation.loading import LesionClass, load_case
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.strata import diameter_bin, diameter_bounds
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.images import Image, read_image, write_image
from nnunet_lopsided.nnunet.beliefs import belief_name, lesion_classes
from nnunet_lopsided.nnunet.dataset_json import read_dataset_json
from nnunet_lopsided.nnunet.paths import new_dataset_name, nnunet_path
from nnunet_lopsided.nnunet.raw import RawDataset, link_file, new_raw_dataset
from nnunet_lopsided.soft_target import Unexplained, believes, soft_target, unexplained_components
from nnunet_lopsided.variants.linking import link_test_files, write_dataset_files

COMPLETION_FILE, LESIONS_FILE, PAGE = "completion.json", "completed_lesions.csv", "completion.html"
BELIEFS = "beliefsTr"
_COLUMNS = (
    "case",
    "class",
    "candidate",
    "n_voxels",
    "volume_mm3",
    "diameter_mm",
    "mean_probability",
    "max_probability",
    "belief",
)
_Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Completed:
    """What is kept of a case and class once its candidates are written.

    Attributes:
        case: its name.
        lesion_class: name of the label.
        lesions: the candidates, in the order of their components.
        explained_scores: mean p times root of voxels of components that touch an annotation, (M,).
        explained_mm: their diameters, (M,).
    """

    case: str
    lesion_class: str
    lesions: tuple[CompletedLesion, ...]
    explained_scores: _Numbers
    explained_mm: _Numbers


def write_variant(
    inputs: AuditInputs,
    *,
    output_id: int,
    name: str,
    settings: Mapping[str, object],
    threshold: float,
    earlier_rounds: Sequence[object] = (),
    overwrite: bool = False,
    n_workers: int = 2,
) -> Path:
    """Write the raw dataset of a completion; it appears when it is whole.

    Args:
        inputs: cases with their out-of-fold predictions.
        output_id: its id.
        name: of its folder after ``DatasetXXX_``.
        settings: what it is made of, for its record.
        threshold: candidates are where p is at least this, within (0, 1).
        earlier_rounds: what completion.json of the round before says under ``rounds``.
        overwrite: replace an earlier completion of this id and name.
        n_workers: cases worked on at the same time.

    Returns:
        Its folder.

    Raises:
        InputError: the id is in use, or a file cannot be read.
    """
    dataset = inputs.dataset
    final = nnunet_path("nnUNet_raw") / new_dataset_name(output_id, name)
    with new_raw_dataset(output_id, name, marker=COMPLETION_FILE, overwrite=overwrite) as folder:
        for made in ("labelsTr", BELIEFS):
            (folder / made).mkdir()
        for audited in inputs.cases:
            # Labels stay as they are, so that they need no copy.
            link_file(folder / "labelsTr" / (audited.name + dataset.file_ending), audited.label, final)
        work = _Work(dataset, folder / BELIEFS, threshold)
        completed = [
            one for of_case in for_each(work.complete, inputs.cases, n_workers, "completing") for one in of_case
        ]
        link_test_files(dataset, folder, final)
        write_dataset_files(dataset, [audited.case for audited in inputs.cases], folder, final)
        # nnU-Net passes over a key that it does not know; whoever finds the dataset later must see what it is.
        completed_by = f"soft targets by nnunet-lopsided {__version__}, without a reader: {COMPLETION_FILE}"
        content = {**read_dataset_json(folder / "dataset.json"), "completed": completed_by}
        write_json(folder / "dataset.json", content)
        explained = _joined([one.explained_scores for one in completed])
        unexplained = np.array([lesion.score for one in completed for lesion in one.lesions])
        rho = missed_per_annotated(explained, unexplained)
        # Of so few annotated lesions nothing is known, and nothing is believed.
        beliefs = np.zeros(len(unexplained)) if rho is None else belief(explained, unexplained, rho)
        estimate = None if rho is None else float(beliefs.sum())
        completed = _with_beliefs(completed, beliefs if believes(estimate) else np.zeros(len(beliefs)))
        lesions = [lesion for one in completed for lesion in one.lesions]
        write_table(folder / LESIONS_FILE, _COLUMNS, [_row(lesion) for lesion in lesions])
        by_diameter = _by_diameter(completed)
        record = _record(inputs, settings, completed, rho, estimate, by_diameter, [*earlier_rounds])
        # Pictures first, while the files hold all candidates: what is not believed in is not in a soft target.
        pictures = shown_pictures(inputs, lesions, work.file_of, n_workers)
        classes_of_cases = [list(classes) for _, classes in groupby(completed, key=lambda one: one.case)]
        for_each(work.believe, classes_of_cases, n_workers, "soft targets")
        page = completion_html(final.name, record=record, by_diameter=by_diameter, lesions=lesions, pictures=pictures)
        (folder / PAGE).write_text(page, encoding="utf-8")
        write_json(folder / COMPLETION_FILE, record)
    return final


def _with_beliefs(completed: Sequence[_Completed], beliefs: _Numbers) -> list[_Completed]:
    """The same, every candidate with its belief; these are in the order of all candidates."""
    ends = np.cumsum([len(one.lesions) for one in completed])
    parts = np.split(beliefs, ends[:-1])
    return [
        replace(
            one, lesions=tuple(replace(lesion, belief=float(q)) for lesion, q in zip(one.lesions, part, strict=True))
        )
        for one, part in zip(completed, parts, strict=True)
    ]


def _record(
    inputs: AuditInputs,
    settings: Mapping[str, object],
    completed: Sequence[_Completed],
    rho: float | None,
    estimate: float | None,
    by_diameter: Sequence[DiameterRow],
    earlier: list[object],
) -> dict[str, object]:
    found = {
        "n_candidates": sum(len(one.lesions) for one in completed),
        "n_explained": sum(len(one.explained_scores) for one in completed),
        "missed_per_annotated": rho,
        "estimated_missed_lesions": estimate,
    }
    return {
        "schema_version": 1,
        "tool": "nnunet-lopsided",
        "version": __version__,
        "settings": settings,
        "n_cases": len(inputs.cases),
        "not_completed": list(inputs.left_out),
        **found,
        # Of every round, which dataset its networks learned from and what they called.
        "rounds": [*earlier, {"trained_on": inputs.dataset.name, **found}],
        "by_diameter": [vars(row) for row in by_diameter],
    }


def _by_diameter(completed: Sequence[_Completed]) -> list[DiameterRow]:
    edges = EvaluationRules().diameter_edges_mm
    explained = _joined([one.explained_mm for one in completed])
    candidates = np.array([lesion.diameter_mm for one in completed for lesion in one.lesions])
    believed = np.array([lesion.belief for one in completed for lesion in one.lesions])
    bins, of_candidate = diameter_bin(explained, edges), diameter_bin(candidates, edges)
    return [
        DiameterRow(
            lower_mm=lower,
            upper_mm=upper,
            n_explained=int((bins == i).sum()),
            n_candidates=int((of_candidate == i).sum()),
            believed=float(believed[of_candidate == i].sum()),
        )
        for i, (lower, upper) in enumerate(diameter_bounds(edges))
    ]


def _joined(arrays: Sequence[_Numbers]) -> _Numbers:
    # Begins with an empty array, since none at all cannot be joined.
    return np.concatenate([np.zeros(0), *arrays])


class _Work:
    """Completes the cases of a dataset, one call each."""

    def __init__(self, dataset: RawDataset, folder: Path, threshold: float) -> None:
        self._scheme = dataset.label_scheme
        self._classes = lesion_classes(self._scheme)
        self._folder = folder
        self._threshold = threshold

    def file_of(self, case: str, lesion_class: str) -> Path:
        """The file of a case and class: of its candidates' probabilities, then of its soft target."""
        name = case if len(self._classes) == 1 else belief_name(case, lesion_class)
        return self._folder / f"{name}.nii.gz"

    def complete(self, audited: AuditedCase) -> list[_Completed]:
        """Write the probabilities of a case's candidates, one file per class; what is kept of each."""
        # Lesions of all classes together: what is annotated as one class is no candidate of another.
        labelled = load_case(audited.name, audited.label, None, LesionClass(self._scheme))
        # Ignored voxels count as annotated: somebody has looked there, and nnU-Net does not train on them.
        known = labelled.reference if labelled.valid is None else labelled.reference | ~labelled.valid
        completed = []
        for name in self._classes:
            loaded = load_case(audited.name, audited.label, audited.predictions[0], LesionClass(self._scheme, name))
            assert loaded.prediction is not None, "every case has a prediction"
            probability = cast("NDArray[np.floating]", loaded.prediction)  # labels alone were refused before
            found = unexplained_components(probability, known, loaded.spacing_mm, self._threshold)
            write_image(self.file_of(audited.name, name), Image(found.probability, labelled.geometry))
            completed.append(_kept(audited.name, name, found))
        return completed

    def believe(self, classes: Sequence[_Completed]) -> None:
        """Make the soft targets of a case of these probabilities, in place."""
        paths = [self.file_of(of.case, of.lesion_class) for of in classes]
        images = [read_image(path) for path in paths]
        targets = [
            soft_target(
                image.array.astype(np.float32),
                image.geometry.spacing_mm,
                np.array([lesion.belief for lesion in of.lesions]),
            )
            for of, image in zip(classes, images, strict=True)
        ]
        if not self._scheme.has_regions:
            # Of exclusive classes a voxel can have but one.
            total = np.maximum(np.sum(targets, axis=0), 1)
            targets = [np.asarray(target / total, np.float32) for target in targets]
        for path, target, image in zip(paths, targets, images, strict=True):
            write_image(path, Image(target, image.geometry))


def _kept(case: str, lesion_class: str, found: Unexplained) -> _Completed:
    components = found.components
    lesions = tuple(
        CompletedLesion(
            case=case,
            lesion_class=lesion_class,
            number=i + 1,
            n_voxels=int(components.n_voxels[i]),
            volume_mm3=float(components.volume_mm3[i]),
            diameter_mm=float(components.diameter_mm[i]),
            mean=float(found.mean[i]),
            highest=float(found.highest[i]),
            belief=0.0,  # it takes all cases to say
        )
        for i in range(len(components))
    )
    return _Completed(
        case=case,
        lesion_class=lesion_class,
        lesions=lesions,
        explained_scores=found.explained_score,
        explained_mm=found.explained_mm,
    )


def _row(lesion: CompletedLesion) -> Sequence[object]:
    numbers = (lesion.volume_mm3, lesion.diameter_mm, lesion.mean, lesion.highest, lesion.belief)
    named = lesion.case, lesion.lesion_class, lesion.number, lesion.n_voxels
    return (*named, *(f"{number:.9g}" for number in numbers))
