"""The arms of a demo: which loss learns from which labels, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.demo.settings import DemoSettings
from nnunet_lopsided.nnunet.paths import nnunet_path
from nnunet_lopsided.nnunet.raw import raw_dataset
from nnunet_lopsided.nnunet.results import results_folder_name

# Ids of the two datasets, in folders of the demo's own, so that they are in nobody's way.
FULL, CENSORED = 901, 902
# One half of the training cases each. Both losses are trained on both of them on labels that lack lesions: between the
# two trainings of an arm lies what chance does.
FOLDS = (0, 1)
PLANS = "nnUNetPlans"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A loss that learns from the labels of a dataset.

    Attributes:
        name: in the names of steps and folders.
        title: in the names of models, on pages.
        labels: what the labels hold.
        dataset: id.
        trainer: its name for nnU-Net.
        folds: on which it is trained.
    """

    name: str
    title: str
    labels: str
    dataset: int
    trainer: str
    folds: tuple[int, ...] = FOLDS

    def of_fold(self, fold: int) -> str:
        """The name of one training, in the names of steps and folders."""
        return f"{self.name}-{fold}"

    def fold_folder(self, configuration: str, fold: int) -> Path:
        """Where nnU-Net keeps one training."""
        results = results_folder_name(raw_dataset(self.dataset).name, self.trainer, PLANS, configuration)
        return nnunet_path("nnUNet_results") / results / f"fold_{fold}"


def arms_of(settings: DemoSettings) -> tuple[Arm, Arm, Arm]:
    """nnU-Net's loss on whole labels, the same on labels that lack lesions, and the default recipe there."""
    budget = f"{settings.epochs}epochs_{settings.iterations}iters_seed{settings.seed}"
    # The recipe starts at the foreground prior, so its counterpart does: the arms differ in the loss alone.
    plain, recipe = f"nnUNetTrainer25D_prior_{budget}", f"nnUNetTrainerLopsided_{budget}"
    missing = missing_in_words(settings)
    return (
        # Once: it is there to show the size of the loss, and a second one would take a minute more.
        Arm(name="full", title="nnU-Net on whole labels", labels="whole", dataset=FULL, trainer=plain, folds=FOLDS[:1]),
        Arm(name="censored", title="nnU-Net", labels=missing, dataset=CENSORED, trainer=plain),
        Arm(name="lopsided", title="Lopsided", labels=missing, dataset=CENSORED, trainer=recipe),
    )


def missing_in_words(settings: DemoSettings) -> str:
    """What the censored labels lack.

    Example:
        >>> missing_in_words(DemoSettings())
        '50% of lesions missing at random'
    """
    how = {"stochastic": "at random", "size": "by size, the smallest"}[settings.mode]
    return f"{100 * settings.rate:g}% of lesions missing {how}"


def trainings(arms: Sequence[Arm]) -> list[tuple[Arm, int]]:
    """All trainings, by arm and fold."""
    return [(arm, fold) for arm in arms for fold in arm.folds]
