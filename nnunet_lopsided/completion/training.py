"""nnU-Net's trainings of a completion: the folds of the cross-validation that are missing, and the last one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nnunet_lopsided.audit.inputs import CHECKPOINT
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.paths import nnunet_path
from nnunet_lopsided.nnunet.results import results_folder_name
from nnunet_lopsided.nnunet.splitting import read_splits
from nnunet_lopsided.running import last_line, run_logged

LATEST = "checkpoint_latest.pth"
SOFT = "_softtargets"


def final_trainer(trainer: str) -> str:
    """The trainer that learns from soft targets.

    Example:
        >>> final_trainer("nnUNetTrainerLopsided_seed1"), final_trainer("nnUNetTrainerLopsided_softtargets")
        ('nnUNetTrainerLopsided_seed1_softtargets', 'nnUNetTrainerLopsided_softtargets')
    """
    return trainer if SOFT in trainer else trainer + SOFT


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
    for fold in range(len(read_splits(splits))):
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
        trainer=final_trainer(trainer),
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
    if (own / CHECKPOINT).is_file():
        return command
    if with_probabilities:
        command = (*command, "--npz")
    if (own / LATEST).is_file():  # goes on where an interrupted one stopped
        command = (*command, "--c")
    log = nnunet_path("nnUNet_results") / f"lopsided-complete-{dataset}-{trainer}-{configuration}-fold_{fold}.log"
    with tqdm(total=1, desc=f"fold {fold}: {' '.join(command)}", bar_format="{desc} {elapsed}", disable=None) as bar:
        if run_logged(command, log, {}, bar.refresh) != 0:
            raise InputError(f"{' '.join(command)} failed: {last_line(log)} (see {log})")
    log.unlink()
    return command
