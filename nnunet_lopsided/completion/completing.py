"""A dataset completed without a reader: the same labels, and soft targets where lesions may be missing from them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.audit.inputs import AuditInputs, Model, find_inputs
from nnunet_lopsided.completion.completed_variant import BELIEFS, COMPLETION_FILE, PAGE, write_variant
from nnunet_lopsided.completion.soft_target import THRESHOLD
from nnunet_lopsided.completion.training import Training, train_missing_folds, train_on_all
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import file_digest, read_json
from nnunet_lopsided.files.parallel import check_n_workers
from nnunet_lopsided.nnunet.beliefs import BELIEFS_FILE, FOLDER
from nnunet_lopsided.nnunet.paths import new_dataset_name, nnunet_path, plain_name
from nnunet_lopsided.nnunet.plans import read_plans, resolved_configuration
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.nnunet.raw import check_id_is_free, check_raw_target, raw_dataset
from nnunet_lopsided.study.trainer_choice import is_ours
from nnunet_lopsided.trainers.names import with_soft_targets
from nnunet_lopsided.variants.sharing import SHARING_FILE, share_preprocessed
from nnunet_lopsided.variants.softening import soften


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What :func:`complete` made.

    Attributes:
        folder: the variant's raw folder.
        page: what was believed, with pictures.
        n_candidates: unexplained components, each a soft target now.
        n_explained: components that touch an annotated lesion.
        estimate: how many of the candidates are missed lesions; None where too few annotated lesions tell.
        final_command: nnUNetv2_train on the variant.
        trained: whether it was run.
    """

    folder: Path
    page: Path
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
            training fails, or the id is in use (told before anything is trained).
    """
    if not 0 < threshold < 1:
        raise InputError(f"the threshold must be within 0 and 1, got {threshold}")
    check_n_workers(n_workers)
    dataset = raw_dataset(source)
    name = _name_of_variant(dataset.name, output_id, name)
    final = nnunet_path("nnUNet_raw") / new_dataset_name(output_id, name)
    # Whether an earlier completion is of just this call is told after training; it may be, and is then kept.
    if not overwrite and (final / COMPLETION_FILE).is_file():
        check_id_is_free(output_id, final, overwrite=True)
    else:
        check_raw_target(output_id, name, COMPLETION_FILE, overwrite)
    preprocessed = preprocessed_folder(dataset.name)
    _check_trainer(trainer)  # last: it imports PyTorch, for which nobody with a wrong id should wait
    options = () if device is None else ("-device", device)
    training = Training(
        dataset=dataset.name, configuration=configuration, trainer=trainer, plans=plans, options=options
    )
    train_missing_folds(training, preprocessed)
    inputs = find_inputs(
        # Not magnified: a soft target is what the network says of the image as it is.
        dataset.name,
        [Model(trainer, plans, configuration)],
        magnify=(),
        device=device,
        n_workers=n_workers,
    )
    settings = {"trainer": trainer, "plans": plans, "configuration": configuration, "threshold": threshold}
    settings |= {"predictions": _digest(inputs), "source_dataset": dataset.name}
    if overwrite or not _is_done(final, settings):
        write_variant(
            inputs,
            output_id=output_id,
            name=name,
            settings=settings,
            threshold=threshold,
            overwrite=overwrite,
            n_workers=n_workers,
        )
    _preprocess(final, source=dataset.name, configuration=configuration, plans=plans, n_workers=n_workers)
    last = training.on_soft_targets(final.name)
    if train:
        train_on_all(last)
    record = read_json(final / COMPLETION_FILE)
    return Completion(
        folder=final,
        page=final / PAGE,
        n_candidates=record["n_candidates"],
        n_explained=record["n_explained"],
        estimate=record["estimated_missed_lesions"],
        final_command=last.command("all"),
        trained=train,
    )


def _name_of_variant(source: str, output_id: int, name: str | None) -> str:
    number = re.fullmatch(r"Dataset([0-9]{3})_(.+)", source)
    if number is None or int(number[1]) == output_id:
        raise InputError(f"output id {output_id} is the id of the source, {source}")
    return name or plain_name(f"{number[2]}Completed")


def _check_trainer(trainer: str) -> None:
    if not is_ours(with_soft_targets(trainer)):
        raise InputError(
            f"trainer {trainer} takes no soft targets; expected nnUNetTrainerLopsided, LopsidedDice or LopsidedPaper, "
            "with options"
        )


def _digest(inputs: AuditInputs) -> str:
    """A digest of all predictions and labels, by which a repeated training is noticed: it makes another completion."""
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


def _preprocess(final: Path, *, source: str, configuration: str, plans: str, n_workers: int) -> None:
    """Preprocessed images and soft targets of the variant, where they are not yet there or of another completion."""
    folder = nnunet_path("nnUNet_preprocessed") / final.name
    if not (folder / SHARING_FILE).is_file():
        share_preprocessed(source, final.name, n_workers=n_workers)
    data = resolved_configuration(read_plans(folder / f"{plans}.json"), configuration)["data_identifier"]
    marker = folder / data / FOLDER / BELIEFS_FILE
    # By content: a completion that was made anew has the same file names.
    digests = [file_digest(path) for path in sorted((final / BELIEFS).iterdir())]
    if marker.is_file() and sorted(_flat(read_json(marker)["cases"])) == sorted(digests):
        return
    soften(final.name, configuration, final / BELIEFS, plans_name=plans, overwrite=True, n_workers=n_workers)


def _flat(content: object) -> list[str]:
    if isinstance(content, dict):
        return [text for value in content.values() for text in _flat(value)]
    return [str(content)]
