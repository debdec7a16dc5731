"""nnU-Net's trainings of a completion: the folds of the cross-validation that are missing, and the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.files.locks import locked
from nnunet_lopsided.nnunet.checkpoints import FINAL, whole_checkpoint
from nnunet_lopsided.nnunet.paths import nnunet_path
from nnunet_lopsided.nnunet.preprocessed import preprocessed_splits
from nnunet_lopsided.nnunet.results import results_folder_name
from nnunet_lopsided.progress import progress_bar
from nnunet_lopsided.running import last_line, run_logged, why_it_failed
from nnunet_lopsided.trainers.names import with_soft_targets

# In the folder of a fold: of which completion it was trained.
NOTE = "lopsided_completion.json"


@dataclass(frozen=True, kw_only=True)
class Training:
    """A call of nnUNetv2_train but for the fold.

    Attributes:
        dataset: folder name of the dataset.
        configuration, trainer, plans: as for nnUNetv2_train.
        options: further ones, such as the device.
        made_of: digest of the completion that it learns from; empty: it learns from a dataset that nobody completed.
    """

    dataset: str
    configuration: str
    trainer: str
    plans: str
    options: tuple[str, ...] = ()
    made_of: str = ""

    def on_soft_targets(self, dataset: str, made_of: str = "") -> Training:
        """The same trainer on the soft targets of another dataset."""
        return replace(self, dataset=dataset, trainer=with_soft_targets(self.trainer), made_of=made_of)

    def command(self, fold: str) -> tuple[str, ...]:
        """The call for a fold."""
        named = (self.dataset, self.configuration, fold, "-tr", self.trainer, "-p", self.plans)
        return ("nnUNetv2_train", *named, *self.options)

    def prediction(self, fold: str) -> tuple[str, ...]:
        """The call of nnUNetv2_predict with that fold; folders are named by what they hold."""
        named = ("-d", self.dataset, "-c", self.configuration, "-tr", self.trainer, "-p", self.plans, "-f", fold)
        return ("nnUNetv2_predict", *named, "-i", "IMAGES", "-o", "PREDICTED", "--save_probabilities", *self.options)

    @property
    def results(self) -> str:
        """Where nnU-Net keeps its folds, below nnUNet_results."""
        return results_folder_name(self.dataset, self.trainer, self.plans, self.configuration)


def train_missing_folds(training: Training, preprocessed: Path) -> None:
    """Train every fold of the cross-validation that has no final checkpoint, through nnU-Net's own command.

    Args:
        training: of the dataset.
        preprocessed: its preprocessed folder, where splits_final.json lies or will lie.

    Raises:
        InputError: a training fails; its log stays beside the results. Or one is there of another completion.
    """
    splits = preprocessed / "splits_final.json"
    if not splits.is_file():  # nnU-Net writes it when it trains fold 0
        _train(training, "0")
    for fold in range(len(preprocessed_splits(preprocessed))):
        _train(training, str(fold))


def train_on_all(training: Training) -> None:
    """Train on every case.

    What completes a case comes from a network that did not train on it, so none need be held out.

    Args:
        training: of a completed dataset.

    Raises:
        InputError: the training fails, or one is there of another completion.
    """
    _train(training, "all", with_probabilities=False)


def _train(training: Training, fold: str, *, with_probabilities: bool = True) -> None:
    folder = nnunet_path("nnUNet_results") / training.results
    own, command = folder / f"fold_{fold}", training.command(fold)
    log = nnunet_path("nnUNet_results") / f"lopsided-complete-{training.dataset}-{folder.name}-fold_{fold}.log"
    own.mkdir(parents=True, exist_ok=True)
    with locked(own):  # two trainings into one folder would spoil each other's checkpoints
        checkpoint = whole_checkpoint(own)
        _check_made_of(own, training, begun=bool(checkpoint))
        if checkpoint == FINAL:
            log.unlink(missing_ok=True)  # of one that was killed when its training was done
            return
        if with_probabilities:
            command = (*command, "--npz")
        if checkpoint:  # goes on where an interrupted one stopped
            command = (*command, "--c")
        _run(command, fold, log)


def _check_made_of(fold: Path, training: Training, begun: bool) -> None:
    """Note which completion a training learns from, and refuse one that has learned from another.

    One without such a note was made by the command that was printed, and is believed.
    """
    if not training.made_of:
        return
    note = fold / NOTE
    if not begun:
        write_json(note, {"tool": "nnunet-lopsided", "trained_on": training.made_of})
    elif note.is_file() and read_json(note, {"trained_on": str})["trained_on"] != training.made_of:
        raise InputError(
            f"{fold} was trained on {training.dataset} as an earlier completion made it; move that folder away, and "
            "the same command trains anew"
        )


def _run(command: Sequence[str], fold: str, log: Path) -> None:
    words = " ".join(command)
    with progress_bar(total=1, title=f"fold {fold}: {words}", unit="fold", bar_format="{desc} {elapsed}") as bar:
        code = run_logged(command, log, {}, bar.refresh)
    if code != 0:
        why = why_it_failed(code, last_line(log), "set nnUNet_n_proc_DA and nnUNet_def_n_proc to fewer processes")
        raise InputError(f"{words} failed: {why} (see {log})")
    # nnU-Net's own log of the training stays in its folder.
    log.unlink()
