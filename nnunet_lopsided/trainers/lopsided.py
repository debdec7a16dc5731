"""Trainers of the lopsided bootstrap loss (Yi et al. 2020)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from nnunet_lopsided.losses import LopsidedBootstrapLoss
from nnunet_lopsided.trainers.base import LesionTrainer
from nnunet_lopsided.trainers.names import NameOption

ALPHA = NameOption("alpha", "aN", "weight of lesion voxels", 0, excludes_low=True)
BETA = NameOption("beta", "bN", "weight of the label on background voxels", 0, 1)
WARM_UP = NameOption("warm_up_epochs", "wN", "epochs over which beta falls from 1", 0, integer=True)


class nnUNetTrainerClassWeighted(LesionTrainer):
    """Cross-entropy with lesion voxels weighted by alpha: eq. 1 of Yi et al. 2020, the paper's plain arm.

    It starts at the foreground prior too, so that it differs from :class:`nnUNetTrainerLopsided` in beta alone.
    """

    name_options: ClassVar = (ALPHA, *LesionTrainer.name_options)
    hyperparameters: ClassVar = ("alpha", *LesionTrainer.hyperparameters)
    alpha: float = 3.0
    foreground_prior_bias: bool = True

    def _build_criterion(self) -> LopsidedBootstrapLoss:
        return LopsidedBootstrapLoss(
            self.alpha, 1.0, sigmoid=self.label_manager.has_regions, ignore_label=self.label_manager.ignore_label
        )


class nnUNetTrainerLopsided(nnUNetTrainerClassWeighted):
    """Lopsided bootstrap loss: eq. 3 of Yi et al. 2020 with the two stabilisers it needs from a fresh start.

    With beta below 0.5 every background voxel that starts above 0.5 is pulled towards 1 - beta, and a fresh network
    has about half its voxels there. So the last layer starts at the foreground prior, and beta falls linearly from 1
    to its value over the warm-up epochs.

    Attributes:
        alpha: weight of lesion voxels.
        beta: weight of the label on background voxels once the warm-up is over.
        warm_up_epochs: epochs over which beta falls from 1; None: a tenth of the epochs; 0: none.
    """

    name_options: ClassVar = (ALPHA, BETA, WARM_UP, *LesionTrainer.name_options)
    hyperparameters: ClassVar = ("alpha", "beta", "warm_up_epochs", *LesionTrainer.hyperparameters)
    beta: float = 0.1
    warm_up_epochs: int | None = None

    def _describe_hyperparameters(self) -> dict[str, Any]:
        return {**super()._describe_hyperparameters(), "warm_up_epochs": self._warm_up}

    def _build_criterion(self) -> LopsidedBootstrapLoss:
        criterion = super()._build_criterion()
        criterion.beta = self._beta_at(self.current_epoch)
        return criterion

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.criterion.beta = self._beta_at(self.current_epoch)
        self.print_to_log_file(f"Current beta: {self.criterion.beta:.4g}")

    @property
    def _warm_up(self) -> int:
        return math.ceil(self.num_epochs / 10) if self.warm_up_epochs is None else self.warm_up_epochs

    def _beta_at(self, epoch: int) -> float:
        done = 1.0 if epoch >= self._warm_up else epoch / self._warm_up
        return 1.0 - (1.0 - self.beta) * done
