"""nnU-Net's trainings of a completion: the folds of the cross-validation that are missing, and the last one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.locks import locked
from nnunet_lopsided.nnunet.checkpoints import FINAL, whole_checkpoint
from nnunet_lopsided.nnunet.paths import nnunet_path
from nnunet_lopsided.nnunet.preprocessed import preprocessed_splits
from nnunet_lopsided.nnunet.results import results_folder_name
from nnunet_lopsided.running import last_line, run_logged, why_it_failed
from nnunet_lopsided.trainers.names import with_soft_targets


def train_missing_folds(
    preprocessed: Path, *, dataset: str, configuration: str, trainer: str, plans: str, options: Sequence[str]
) -> None:
    """Train every fold of the cross-validation that has no final checkpoint, through nnU-Net's own command.

    Args:
        preprocessed: the dataset's preprocessed folder, where splits_final.json lies or will lie.
        dataset: its folder name.
        configuration, trainer, plans: as for nnUNetv2_train.
        options: further options of nnUNetv2_train, such as the device.

    Raises:
        InputError: a training fails; its log stays beside the results.
    """

    def train(fold: str) -> None:
        _train(dataset=dataset, configuration=configuration, fold=fold, trainer=trainer, plans=plans, options=options)

    splits = preprocessed / "splits_final.json"
    if not splits.is_file():  # nnU-Net writes it when it trains fold 0
        train("0")
    for fold in range(len(preprocessed_splits(preprocessed))):
        train(str(fold))


def train_on_soft_targets(
    *, dataset: str, configuration: str, trainer: str, plans: str, options: Sequence[str]
) -> tuple[str, ...]:
    """Train on every case and its soft target; the command.

    Raises:
        InputError: the training fails.
    """
    return _train(
        dataset=dataset,
        configuration=configuration,
        fold="all",
        trainer=with_soft_targets(trainer),
        plans=plans,
        options=options,
        with_probabilities=False,
    )


def command_of(
    *, dataset: str, configuration: str, fold: str, trainer: str, plans: str, options: Sequence[str] = ()
) -> tuple[str, ...]:
    """nnUNetv2_train of a fold."""
    return ("nnUNetv2_train", dataset, configuration, fold, "-tr", trainer, "-p", plans, *options)


def _train(
    *,
    dataset: str,
    configuration: str,
    fold: str,
    trainer: str,
    plans: str,
    options: Sequence[str],
    with_probabilities: bool = True,
) -> tuple[str, ...]:
    folder = nnunet_path("nnUNet_results") / results_folder_name(dataset, trainer, plans, configuration)
    own = folder / f"fold_{fold}"
    command = command_of(
        dataset=dataset, configuration=configuration, fold=fold, trainer=trainer, plans=plans, options=options
    )
    own.mkdir(parents=True, exist_ok=True)
    with locked(own):  # two trainings into one folder would spoil each other's checkpoints
        checkpoint = whole_checkpoint(own)
        if checkpoint == FINAL:
            return command
        if with_probabilities:
            command = (*command, "--npz")
        if checkpoint:  # goes on where an interrupted one stopped
            command = (*command, "--c")
        log = f"lopsided-complete-{dataset}-{folder.name}-fold_{fold}.log"
        _run(command, fold, nnunet_path("nnUNet_results") / log)
    return command


def _run(command: Sequence[str], fold: str, log: Path) -> None:
    words = " ".join(command)
    with tqdm(total=1, desc=f"fold {fold}: {words}", bar_format="{desc} {elapsed}", disable=None) as bar:
        code = run_logged(command, log, {}, bar.refresh)
    if code != 0:
        why = why_it_failed(code, last_line(log), "set nnUNet_n_proc_DA and nnUNet_def_n_proc to fewer processes")
        raise InputError(f"{words} failed: {why} (see {log})")
    log.unlink()
