"""A dataset completed without a reader: a variant with the same labels, and soft targets where lesions may lack."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.inputs import AuditedCase, AuditInputs, Model, find_inputs
from nnunet_lopsided.completion.soft_target import THRESHOLD, SoftTarget, soft_target
from nnunet_lopsided.completion.training import command_of, final_trainer, train_missing_folds, train_on_soft_targets
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.belief import belief, missed_per_annotated
from nnunet_lopsided.evaluation.loading import LesionClass, load_case
from nnunet_lopsided.files.json import file_digest, read_json, write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.images import Image, write_image
from nnunet_lopsided.nnunet.beliefs import BELIEFS_FILE, FOLDER, lesion_classes
from nnunet_lopsided.nnunet.dataset_json import read_dataset_json
from nnunet_lopsided.nnunet.paths import new_dataset_name, nnunet_path, plain_name
from nnunet_lopsided.nnunet.plans import read_plans, resolved_configuration
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.nnunet.raw import RawDataset, link_file, new_raw_dataset, raw_dataset
from nnunet_lopsided.variants.linking import link_test_files, write_dataset_files
from nnunet_lopsided.variants.sharing import SHARING_FILE, share_preprocessed
from nnunet_lopsided.variants.softening import soften

COMPLETION_FILE, LESIONS_FILE, BELIEFS = "completion.json", "completed_lesions.csv", "beliefsTr"
_COLUMNS = (
    "case",
    "class",
    "candidate",
    "n_voxels",
    "volume_mm3",
    "diameter_mm",
    "mean_probability",
    "max_probability",
)


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What :func:`complete` made.

    Attributes:
        folder: the variant's raw folder.
        n_candidates: unexplained components, each a soft target now.
        n_explained: components that touch an annotated lesion.
        estimate: how many of the candidates are missed lesions; None where too few annotated lesions tell.
        final_command: nnUNetv2_train on the variant.
        trained: whether it was run.
    """

    folder: Path
    n_candidates: int
    n_explained: int
    estimate: float | None
    final_command: tuple[str, ...]
    trained: bool


def complete(
    source: int | str,
    output_id: int,
    configuration: str,
    trainer: str = "nnUNetTrainerLopsided",
    *,
    plans: str = "nnUNetPlans",
    threshold: float = THRESHOLD,
    name: str | None = None,
    train: bool = False,
    device: str | None = None,
    overwrite: bool = False,
    n_workers: int = 2,
) -> Completion:
    """Train a cross-validation where it is missing, and make a variant whose soft targets are what it calls.

    Every stage is kept: the same call after an interrupt goes on where the last one stopped.

    Args:
        source: id or name of a dataset that nnU-Net has planned and preprocessed.
        output_id: id of the variant.
        configuration: as for nnUNetv2_train.
        trainer: one of ours that takes soft targets; it finds the candidates and learns from them.
        plans: plans identifier.
        threshold: candidates are where p is at least this, within (0, 1).
        name: folder name of the variant after ``DatasetXXX_``; default: the source's followed by ``Completed``.
        train: run the last training too.
        device: cpu, cuda or mps; None: nnU-Net's choice.
        overwrite: replace an earlier completion of this id and name.
        n_workers: cases worked on at the same time.

    Raises:
        InputError: an argument is out of range, the trainer takes no soft targets, the source is not preprocessed, a
            training fails, or the id is in use.
    """
    if not 0 < threshold < 1:
        raise InputError(f"the threshold must be within 0 and 1, got {threshold}")
    _check_trainer(trainer)
    dataset = raw_dataset(source)
    number = re.fullmatch(r"Dataset(\d{3})_(.+)", dataset.name)
    if number is None or int(number[1]) == output_id:
        raise InputError(f"output id {output_id} is the id of the source, {dataset.name}")
    name = name or plain_name(f"{number[2]}Completed")
    preprocessed = preprocessed_folder(dataset.name)
    options = () if device is None else ("-device", device)
    train_missing_folds(dataset.name, configuration, trainer, plans, preprocessed, options)
    inputs = find_inputs(
        dataset.name, [Model(trainer, plans, configuration)], magnify=(), device=device, n_workers=n_workers
    )
    final = nnunet_path("nnUNet_raw") / new_dataset_name(output_id, name)
    settings = {"trainer": trainer, "plans": plans, "configuration": configuration, "threshold": threshold}
    settings |= {"predictions": _digest(inputs), "source_dataset": dataset.name}
    if overwrite or not _is_done(final, settings):
        _write_variant(inputs, output_id, name, final, settings, threshold, overwrite, n_workers)
    _preprocess(dataset.name, final, configuration, plans, n_workers)
    record = read_json(final / COMPLETION_FILE)
    command = command_of(final.name, configuration, "all", final_trainer(trainer), plans, options)
    if train:
        train_on_soft_targets(final.name, configuration, trainer, plans, options)
    return Completion(
        folder=final,
        n_candidates=record["n_candidates"],
        n_explained=record["n_explained"],
        estimate=record["estimated_missed_lesions"],
        final_command=command,
        trained=train,
    )


def _check_trainer(trainer: str) -> None:
    from nnunet_lopsided import trainers

    try:
        getattr(trainers, final_trainer(trainer))
    except AttributeError:
        raise InputError(
            f"trainer {trainer} takes no soft targets; expected nnUNetTrainerLopsided, LopsidedDice or LopsidedPaper, "
            "with options"
        ) from None


def _digest(inputs: AuditInputs) -> str:
    """Changes when any prediction does: a training that was repeated makes another completion."""
    digest = hashlib.sha256()
    for case in inputs.cases:
        array = case.predictions[0].array
        assert array is not None, "probabilities were asked for"
        digest.update(file_digest(array).encode() + file_digest(case.label).encode())
    return digest.hexdigest()


def _is_done(final: Path, settings: dict[str, object]) -> bool:
    """Whether the variant is there and was made of just this."""
    if not (final / COMPLETION_FILE).is_file():
        return False
    record = read_json(final / COMPLETION_FILE, dict)
    if record.get("settings") == settings:
        return True
    raise InputError(f"{final} was completed with other predictions or settings; --overwrite makes it anew")


def _write_variant(
    inputs: AuditInputs,
    output_id: int,
    name: str,
    final: Path,
    settings: dict[str, object],
    threshold: float,
    overwrite: bool,
    n_workers: int,
) -> None:
    dataset = inputs.dataset
    training = [audited.case for audited in inputs.cases]
    with new_raw_dataset(output_id, name, marker=COMPLETION_FILE, overwrite=overwrite) as folder:
        for made in ("labelsTr", BELIEFS):
            (folder / made).mkdir()
        for audited in inputs.cases:
            link_file(folder / "labelsTr" / (audited.name + dataset.file_ending), audited.label, final)
        work = _Work(dataset, folder / BELIEFS, threshold)
        by_case = for_each(work.complete, inputs.cases, n_workers, "completing")
        link_test_files(dataset, folder, final)
        write_dataset_files(dataset, training, folder, final)
        content = read_dataset_json(folder / "dataset.json")
        content["completed"] = f"soft targets by nnunet-lopsided {__version__}, without a reader: {COMPLETION_FILE}"
        write_json(folder / "dataset.json", content)
        write_table(folder / LESIONS_FILE, _COLUMNS, [row for rows, _ in by_case for row in rows])
        explained, unexplained = (
            np.concatenate([np.zeros(0), *(getattr(t, kind) for _, targets in by_case for t in targets)])
            for kind in ("explained_score", "unexplained_score")
        )
        rho = missed_per_annotated(explained, unexplained)
        estimate = None if rho is None else float(belief(explained, unexplained, rho).sum())
        write_json(
            folder / COMPLETION_FILE,
            {
                "schema_version": 1,
                "tool": "nnunet-lopsided",
                "version": __version__,
                "settings": settings,
                "n_cases": len(inputs.cases),
                "not_completed": list(inputs.left_out),
                "n_candidates": len(unexplained),
                "n_explained": len(explained),
                "missed_per_annotated": rho,
                "estimated_missed_lesions": estimate,
            },
        )


class _Work:
    """Completes the cases of a dataset, one call each."""

    def __init__(self, dataset: RawDataset, folder: Path, threshold: float) -> None:
        self._scheme = dataset.label_scheme
        self._folder = folder
        self._threshold = threshold

    def complete(self, audited: AuditedCase) -> tuple[list[Sequence[object]], list[SoftTarget]]:
        """Write the beliefs of a case; rows of the table, and the targets of every class."""
        labelled = load_case(audited.name, audited.label, None, LesionClass(self._scheme))  # of any class
        known = labelled.reference if labelled.valid is None else labelled.reference | ~labelled.valid
        rows: list[Sequence[object]] = []
        targets = []
        names = lesion_classes(self._scheme)
        for name in names:
            loaded = load_case(audited.name, audited.label, audited.predictions[0], LesionClass(self._scheme, name))
            assert loaded.prediction is not None, "every case has a prediction"
            target = soft_target(loaded.prediction, known, loaded.spacing_mm, self._threshold)
            file = audited.name if len(names) == 1 else f"{audited.name}__{name}"
            write_image(self._folder / f"{file}.nii.gz", Image(target.belief, labelled.geometry))
            rows += _rows(audited.name, name, target)
            targets.append(target)
        return rows, targets


def _rows(case: str, name: str, target: SoftTarget) -> Iterator[Sequence[object]]:
    components = target.components
    for i in range(len(components)):
        numbers = (components.volume_mm3[i], components.diameter_mm[i], target.mean[i], target.highest[i])
        yield (case, name, i + 1, int(components.n_voxels[i]), *(f"{number:.9g}" for number in numbers))


def _preprocess(source: str, final: Path, configuration: str, plans: str, n_workers: int) -> None:
    """Preprocessed images and soft targets of the variant, where they are not yet there or of another completion."""
    folder = nnunet_path("nnUNet_preprocessed") / final.name
    if not (folder / SHARING_FILE).is_file():
        share_preprocessed(source, final.name, n_workers=n_workers)
    data = resolved_configuration(read_plans(folder / f"{plans}.json"), configuration)["data_identifier"]
    marker = folder / data / FOLDER / BELIEFS_FILE
    digests = [file_digest(path) for path in sorted((final / BELIEFS).iterdir())]
    if marker.is_file() and sorted(_flat(read_json(marker)["cases"])) == sorted(digests):
        return
    soften(final.name, configuration, final / BELIEFS, plans_name=plans, overwrite=True, n_workers=n_workers)


def _flat(content: object) -> list[str]:
    if isinstance(content, dict):
        return [text for value in content.values() for text in _flat(value)]
    return [str(content)]
