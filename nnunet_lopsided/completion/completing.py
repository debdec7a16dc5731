"""A dataset completed by networks that did not train on the case: soft targets beside its labels, or zones in them.

**Two rounds.** The networks of the second round learn from labels and the soft targets of the first, and find
candidates anew. Of case c, in fold j, the network of fold j says what it sees. It has never trained on c, nor on the
soft target of c, which is used in the other folds alone: so no belief in a place of c ever confirms itself. What does
reach it is indirect. It trains on the soft target of another case i, in fold k, which the first network of fold k made;
and that one has trained on c. It learned the annotated lesions of c as lesions, which are no candidates, and
everything else in c as background, missed lesions among it. So nothing that is called in c comes from c's own labels:
the detour can make networks doubt a missed lesion of c, as any training on incomplete labels does, and cannot make them
believe in a false one. To close it, every pair of folds would need a network that trained on neither: ten further
trainings for five folds. In a third round soft targets would come from networks that had learned that of c, and its
beliefs would return: so there are two rounds at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_lopsided.audit.inputs import AuditInputs, Model, find_inputs
from nnunet_lopsided.completion.completed_variant import COMPLETION_FILE, PAGE, write_variant
from nnunet_lopsided.completion.preprocessing import share, share_and_soften
from nnunet_lopsided.completion.target import (
    Target,
    digest_of_predictions,
    digest_of_settings,
    final_target,
    first_target,
)
from nnunet_lopsided.completion.training import Training, train_missing_folds, train_on_all
from nnunet_lopsided.completion.zoned_variant import write_zoned_variant
from nnunet_lopsided.completion.zoning import SampleToRead, Zoning, find_zones
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.parallel import check_n_workers
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.nnunet.raw import raw_dataset
from nnunet_lopsided.soft_target import THRESHOLD, believes
from nnunet_lopsided.study.trainer_choice import is_ours
from nnunet_lopsided.trainers.names import SOFT, with_soft_targets


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What :func:`complete` made.

    Attributes:
        folder: the variant's raw folder.
        page: what was believed, with pictures.
        n_candidates: unexplained components; without zones each is a soft target now, as far as it is believed.
        n_accepted: of these are labels now; None without zones.
        n_doubtful: of these are ignored in training; None without zones.
        estimate: how many of the candidates are missed lesions; None where too few annotated lesions tell.
        n_first: candidates of the first of two rounds; None: there was one round, or the first found nothing missing.
        final_command: nnUNetv2_train on the variant; without soft targets where these believe in no lesion.
        prediction: nnUNetv2_predict with what was trained so.
        trained: whether it was run.
        nearly_whole: whether zones changed nothing, as less than a tenth of all lesions seems to be missing.
    """

    folder: Path
    page: Path
    n_candidates: int
    n_accepted: int | None
    n_doubtful: int | None
    estimate: float | None
    n_first: int | None
    final_command: tuple[str, ...]
    prediction: tuple[str, ...]
    trained: bool
    nearly_whole: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether no missed lesion is believed in, so that the last training is on the labels as they were."""
        return self.n_accepted is None and not believes(self.estimate)


def complete(
    source: int | str,
    output_id: int,
    configuration: str,
    trainer: str = "nnUNetTrainerLopsided",
    *,
    plans: str = "nnUNetPlans",
    threshold: float = THRESHOLD,
    zoning: Zoning | None = None,
    rounds: int = 1,
    first_round: int | None = None,
    name: str | None = None,
    train: bool = False,
    device: str | None = None,
    overwrite: bool = False,
    n_workers: int = 2,
) -> Completion | SampleToRead:
    """Train a cross-validation where it is missing, and make a variant with soft targets where it finds missed lesions.

    Every stage is kept: the same call after an interrupt goes on where the last one stopped.

    Args:
        source: id or name of a dataset that nnU-Net has planned and preprocessed.
        output_id: id of the variant.
        configuration: as for nnUNetv2_train.
        trainer: one of ours that takes soft targets; it finds the candidates and learns from them.
        plans: plans identifier.
        threshold: what becomes a soft target is where p is at least this, within (0, 1).
        zoning: change labels by zones in place of soft targets; any trainer will do, unless there are two rounds.
        rounds: 2: a second cross-validation learns from the soft targets, and its networks make those of the variant.
        first_round: with two rounds, the id of the first round's variant; None: ``output_id`` plus 1.
        name: folder name of the variant after ``DatasetXXX_``; default: the source's followed by ``Completed``.
        train: run the last training too.
        device: cpu, cuda or mps; None: nnU-Net's choice.
        overwrite: replace an earlier completion of this id and name.
        n_workers: cases worked on at the same time.

    Returns:
        What was made; or the sample that has to be read first.

    Raises:
        InputError: an argument is out of range, the trainer takes no soft targets, the source is not preprocessed, a
            training fails, or an id is in use (told before anything is trained).
    """
    if not 0 < threshold < 1:
        raise InputError(f"the threshold must be within 0 and 1, got {threshold}")
    if rounds not in (1, 2):
        raise InputError(f"expected 1 or 2 rounds, got {rounds}")
    if first_round is not None and rounds == 1:
        raise InputError("--first-round is of two rounds; expected --rounds 2 with it")
    if zoning is not None:
        zoning.check()
    check_n_workers(n_workers)
    dataset = raw_dataset(source)
    final = final_target(dataset.name, output_id, name)
    first = first_target(dataset.name, final, first_round) if rounds == 2 else None
    for target in (final, first):
        if target is not None:
            target.check(overwrite)
    preprocessed = preprocessed_folder(dataset.name)
    if zoning is None or first is not None:
        _check_trainer(trainer)  # last: it imports PyTorch, for which nobody with a wrong id should wait
    options = () if device is None else ("-device", device)
    training = Training(
        dataset=dataset.name, configuration=configuration, trainer=trainer, plans=plans, options=options
    )
    work = _Work(source=dataset.name, threshold=threshold, device=device, overwrite=overwrite, n_workers=n_workers)
    train_missing_folds(training, preprocessed)
    if first is not None:
        # One that is just this stays, whatever may be overwritten: trainings have learned from it.
        softened = work.complete(first, training, anew=False)
        if believes(read_json(first.folder / COMPLETION_FILE)["estimated_missed_lesions"]):
            training = softened
            train_missing_folds(training, preprocessed_folder(first.folder.name))
        else:  # a second round would learn from the same labels, without looking back
            first = None
    if zoning is None:
        last = work.complete(final, training, first, anew=overwrite)
        if not believes(read_json(final.folder / COMPLETION_FILE)["estimated_missed_lesions"]):
            # Soft targets that say nothing would only keep the trainer from looking back.
            last = replace(last, trainer=trainer)
    else:
        made = work.zone(final, training, zoning, first)
        if isinstance(made, SampleToRead):
            return made
        last = replace(made, trainer=trainer)
    if train:
        train_on_all(last)
    record = read_json(final.folder / COMPLETION_FILE)
    return Completion(
        folder=final.folder,
        page=final.folder / PAGE,
        n_candidates=record["n_candidates"],
        n_accepted=record.get("n_accepted"),
        n_doubtful=record.get("n_doubtful"),
        estimate=record["estimated_missed_lesions"],
        n_first=record["rounds"][0]["n_candidates"] if first is not None else None,
        final_command=last.command("all"),
        prediction=last.prediction("all"),
        trained=train,
        nearly_whole=record.get("nearly_whole", False),
    )


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What all variants of a completion have in common; see :func:`complete`."""

    source: str
    threshold: float
    device: str | None
    overwrite: bool
    n_workers: int

    def complete(self, target: Target, training: Training, first: Target | None = None, *, anew: bool) -> Training:
        """Write a variant of what a cross-validation calls, where it is not there; returns the training on it.

        Args:
            target: the variant.
            training: the cross-validation, all of whose folds are trained.
            first: whose soft targets it has learned from, if it has learned from any.
            anew: write it even where it is there.
        """
        # Not magnified: a soft target is what the network says of the image as it is.
        inputs = self._inputs(training, magnify=())
        # Named, so that one of an earlier version, whose soft target was p itself, is not taken for this.
        settings = {
            **self._settings(training, inputs, first),
            "threshold": self.threshold,
            "soft_target": "q p / max p",
        }
        is_there = target.is_done(settings, self.overwrite)
        if not is_there or anew:
            write_variant(
                inputs,
                output_id=target.id,
                name=target.name,
                settings=settings,
                threshold=self.threshold,
                earlier_rounds=_rounds(first),
                overwrite=self.overwrite,
                n_workers=self.n_workers,
            )
        share_and_soften(
            target.folder,
            self.source,
            configuration=training.configuration,
            plans=training.plans,
            n_workers=self.n_workers,
        )
        return training.on_soft_targets(target.folder.name, digest_of_settings(settings))

    def zone(
        self, target: Target, training: Training, zoning: Zoning, first: Target | None = None
    ) -> Training | SampleToRead:
        """Write a variant with zones in its labels, where it is not there; returns the training on it.

        Args:
            target: the variant.
            training: the cross-validation, all of whose folds are trained.
            zoning: how zones are drawn.
            first: whose soft targets it has learned from, if it has learned from any.
        """
        inputs = self._inputs(training, magnify=None)
        settings = {**self._settings(training, inputs, first), **zoning.settings(), "magnify": list(inputs.magnify)}
        waits = zoning.is_read and zoning.decisions is None and zoning.truth is None
        if waits or self.overwrite or not target.is_done(settings, self.overwrite):
            zoned = find_zones(inputs, zoning, device=self.device, overwrite=self.overwrite, n_workers=self.n_workers)
            if isinstance(zoned, SampleToRead):
                return zoned
            write_zoned_variant(
                zoned,
                target,
                settings=settings,
                rounds=_rounds(first),
                left_out=inputs.left_out,
                overwrite=self.overwrite,
                n_workers=self.n_workers,
            )
        share(target.folder, self.source, self.n_workers)
        return replace(training, dataset=target.folder.name, made_of=digest_of_settings(settings))

    def _inputs(self, training: Training, magnify: Sequence[float] | None) -> AuditInputs:
        """The out-of-fold predictions of a cross-validation."""
        model = Model(training.trainer, training.plans, training.configuration)
        return find_inputs(training.dataset, [model], magnify=magnify, device=self.device, n_workers=self.n_workers)

    def _settings(self, training: Training, inputs: AuditInputs, first: Target | None) -> dict[str, object]:
        """By which a completion is known again, and how it was made."""
        settings: dict[str, object] = {
            "trainer": training.trainer,
            "plans": training.plans,
            "configuration": training.configuration,
            "predictions": digest_of_predictions(inputs),
            "source_dataset": self.source,
        }
        if first is None:
            return settings
        earlier = read_json(first.folder / COMPLETION_FILE, {"settings": {"predictions": str}})["settings"]
        own = {"rounds": 2, "first_round": first.folder.name, "first_predictions": earlier["predictions"]}
        return {**settings, **own}


def _rounds(first: Target | None) -> list[object]:
    """What the first round found, in a list; empty: this is the first."""
    if first is None:
        return []
    rounds: list[object] = read_json(first.folder / COMPLETION_FILE, {"rounds": [dict]})["rounds"]
    return rounds


def _check_trainer(trainer: str) -> None:
    if not is_ours(with_soft_targets(trainer)):
        raise InputError(
            f"trainer {trainer} takes no soft targets; expected nnUNetTrainerLopsided, LopsidedDice or LopsidedPaper, "
            "with options"
        )
    if "lookback" in trainer.split("_"):
        raise InputError(f"trainer {trainer}: soft targets take the place of looking back; leave out _lookback")
    if SOFT in trainer:
        raise InputError(f"trainer {trainer}: {SOFT} is added where something is believed; leave it out")
