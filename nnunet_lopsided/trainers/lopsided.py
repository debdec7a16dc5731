"""Trainers of the lopsided bootstrap loss (Yi et al. 2020) and of what the paper compares it with."""

from __future__ import annotations

import math
from collections import Counter
from typing import ClassVar

import torch

from nnunet_lopsided.errors import InputError, refuse
from nnunet_lopsided.losses import BootstrapLoss, LopsidedBootstrapLoss, LopsidedDiceLoss
from nnunet_lopsided.losses.dice import DiceTerm
from nnunet_lopsided.losses.preparation import ScalarReduction
from nnunet_lopsided.trainers.base import LesionTrainer
from nnunet_lopsided.trainers.host_types import PerLevel
from nnunet_lopsided.trainers.looking_back import LOOK_BACK, LookingBack
from nnunet_lopsided.trainers.looking_times import first_epoch
from nnunet_lopsided.trainers.names import NameFlag, NameOption
from nnunet_lopsided.trainers.pasting import PASTE
from nnunet_lopsided.trainers.soft_targets import SOFT_TARGETS
from nnunet_lopsided.trainers.teacher import EmaTeacher

ALPHA = NameOption(attribute="alpha", form="aN", meaning="weight of lesion voxels", low=0, excludes_low=True)
BETA = NameOption(attribute="beta", form="bN", meaning="weight of the label on background voxels", low=0, high=1)
BETA_EVERYWHERE = NameOption(attribute="beta", form="bN", meaning="weight of the label", low=0, high=1)
DICE = (
    NameFlag("dice", "dicefull", "Dice over all voxels", "full"),
    NameFlag("dice", "dicemixed", "Dice against eq. 3's own target", "mixed"),
    NameFlag("dice", "dicemasked", "Dice without background voxels called lesion", "masked"),
    NameFlag("dice", "dicenone", "no Dice term", "none"),
)
CROSS_ENTROPY = (
    NameFlag("cross_entropy", "celesion", "cross-entropy divided by the lesion voxels of the batch", "lesion_mean"),
    NameFlag("cross_entropy", "cemean", "by all voxels", "mean"),
)
GAMMA = NameOption(
    attribute="gamma", form="gN", meaning="how fast trust in a background label fades where lesion is seen", low=0
)
FROM = NameOption(
    attribute="gamma_from",
    form="fromN",
    meaning="percent of the training in which background labels are trusted fully, before gamma",
    low=0,
    high=100,
)
MARGIN = NameOption(
    attribute="margin",
    form="marginN",
    meaning="voxels around annotated lesions in which a background label counts fully",
    low=0,
    integer=True,
)
WARM_UP = NameOption(
    attribute="warm_up_epochs",
    form="wN",
    meaning="epochs over which beta falls from 1",
    low=0,
    integer=True,
)
TEACHER = NameOption(
    attribute="teacher_decay",
    form="emaN",
    meaning="decay of the average network whose argmax is the target",
    low=0,
    high=0.999999,  # with 1 the average would never follow
)
SOFT = NameFlag("soft", "soft", "bootstrap towards probabilities instead of the argmax")


CROWDED_MARGIN = 4  # voxels; lesions that touch are parted by background that the network takes for lesion
PASTED_FROM, UNPASTED_FROM = 70.0, 10.0  # percent of the training
# Cross-entropy by lesion voxels pushes a missing lesion down ten times as hard: what is doubted must count less.
USUAL_GAMMA, GAMMA_BY_LESION_VOXELS = 2.0, 4.0


class nnUNetTrainerClassWeighted(LesionTrainer):
    """Cross-entropy with lesion voxels weighted by alpha: eq. 1 of Yi et al. 2020, the paper's plain arm.

    It starts at the foreground prior too, so that it differs from ``nnUNetTrainerLopsidedDice_dicenone`` in beta alone.
    """

    name_options: ClassVar = (ALPHA, *LesionTrainer.name_options)
    hyperparameters: ClassVar = ("alpha", *LesionTrainer.hyperparameters)
    alpha: float = 3.0
    foreground_prior_bias: bool = True

    def _build_criterion(self) -> LopsidedBootstrapLoss:
        return LopsidedBootstrapLoss(self.alpha, 1.0, **self._target_format)


class BootstrapTrainer(LesionTrainer):
    """What trainers with a bootstrap share: beta with its warm-up, and an average network as an optional teacher.

    With beta below 0.5 every background voxel that starts above 0.5 is pulled towards 1 - beta, and a fresh network
    has about half its voxels there. So the last layer starts at the foreground prior, and beta falls linearly from 1
    to its value over the warm-up epochs.

    Attributes:
        beta: weight of the label once the warm-up is over; 1 - beta goes to the network's own verdict.
        warm_up_epochs: epochs over which beta falls from 1; None: a tenth of the epochs; 0: none.
        soft: bootstrap towards the probabilities instead of the argmax.
        teacher_decay: take the verdict from an exponential moving average of the network with this decay; None: from
            the network itself.
    """

    name_options: ClassVar = (WARM_UP, TEACHER, SOFT, *LesionTrainer.name_options)
    hyperparameters: ClassVar = ("beta", "warm_up_epochs", "soft", "teacher_decay", *LesionTrainer.hyperparameters)
    beta: float = 0.1
    warm_up_epochs: int | None = None
    soft: bool = False
    teacher_decay: float | None = None
    foreground_prior_bias: bool = True
    _teacher: EmaTeacher | None = None
    _teacher_weights: dict[str, torch.Tensor] | None = None

    def _describe_hyperparameters(self) -> dict[str, object]:
        return {**super()._describe_hyperparameters(), "warm_up_epochs": self._warm_up}

    def _describe_epoch(self, epoch: int) -> dict[str, float | None]:
        return {**super()._describe_epoch(epoch), **self._weights_at(epoch)}

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.teacher_decay is not None:
            self._teacher = EmaTeacher(self._bare_network, self.teacher_decay)
            if self._teacher_weights is not None:
                self._teacher.network.load_state_dict(self._teacher_weights)
                self._teacher_weights = None

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        for name, value in self._weights_at(self.current_epoch).items():
            setattr(self.criterion, name, value)
            self.print_to_log_file(f"Current {name}: {value:.4g}")

    def _weights_at(self, epoch: int) -> dict[str, float]:
        """What changes in the criterion from epoch to epoch, by attribute."""
        return {"beta": self._beta_at(epoch)}

    @property
    def _warm_up(self) -> int:
        return math.ceil(self.num_epochs / 10) if self.warm_up_epochs is None else self.warm_up_epochs

    def _beta_at(self, epoch: int) -> float:
        return self.beta if epoch >= self._warm_up else 1.0 - (1.0 - self.beta) * epoch / self._warm_up

    # ---- the teacher

    def _loss_inputs(self, data: torch.Tensor) -> dict[str, PerLevel]:
        inputs = super()._loss_inputs(data)
        return inputs if self._teacher is None else {**inputs, "teacher": self._teacher(data)}

    def _after_step(self) -> None:
        super()._after_step()
        if self._teacher is not None:
            self._teacher.follow(self._bare_network)

    def save_checkpoint(self, filename: str) -> None:
        if self._teacher is None:
            super().save_checkpoint(filename)
            return
        # One file, so that network and teacher are always of the same step.
        self.my_init_kwargs["lopsided"]["teacher_weights"] = self._teacher.network.state_dict()
        super().save_checkpoint(filename)
        del self.my_init_kwargs["lopsided"]["teacher_weights"]

    def load_checkpoint(self, filename_or_checkpoint: dict[str, object] | str) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        # Taken out of the record: later checkpoints bring weights of their own.
        self._teacher_weights = self.my_init_kwargs.get("lopsided", {}).pop("teacher_weights", None)


class nnUNetTrainerBootstrap(BootstrapTrainer):
    """Bootstrap of every voxel, beta CE(y) + (1 - beta) CE(yhat): eq. 2 of Yi et al. 2020, after Reed et al. 2014."""

    name_options: ClassVar = (BETA_EVERYWHERE, *BootstrapTrainer.name_options)

    def _build_criterion(self) -> BootstrapLoss:
        return BootstrapLoss(self._beta_at(self.current_epoch), soft=self.soft, **self._target_format)


class nnUNetTrainerLopsided(LookingBack, BootstrapTrainer):
    """The default recipe: nnU-Net's Dice and cross-entropy with a label "background" that counts the less, the more
    probable a missed lesion is there; stable from a fresh start.

    The best of what we measured (docs/explanation/when-it-helps.md). With ``_g0`` and beta below 1 the same class is
    eq. 3 of Yi et al. 2020 beside Dice (``_dicemixed``: in the Dice term, too); with ``_g0`` alone it is nnU-Net's loss
    with the foreground prior.

    Attributes:
        alpha: weight of lesion voxels.
        dice: ``full``: Dice over all voxels; ``mixed``: against eq. 3's own target, so that beta holds in Dice, too;
            ``masked``: voxels labelled background that the network calls lesion are left out of its sums; ``none``: no
            Dice term.
        cross_entropy: ``mean``: divided by all voxels, as nnU-Net's; ``lesion_mean``: by the lesion voxels of the
            batch, so that Dice does not drown it; None: that where lesions are pasted and it looks back, as this is
            where it was measured, otherwise ``mean``.
        gamma: a voxel labelled background counts (1 - p)^gamma in both terms, p a probability of lesion. None: 4 where
            it looks back and cross-entropy is divided by lesion voxels, otherwise 2.
        gamma_from: how much of the training comes before, in percent. Until then gamma is 0: what looks like a lesion
            and is none must be learned before the network may doubt a label. None: where it looks back after 5
            passes over the training data and 200 steps, before omissions are learned by heart, at the latest 30.
            Otherwise 70 where lesions are pasted, and 10 where none are; where they are crowded not later than the
            first look would be.
        look_back: whose p that is. True: of candidates that the network finds in its training cases then, and again
            later (:class:`~nnunet_lopsided.trainers.looking_back.LookingBack`), 0 elsewhere; False: the network's own,
            at any moment; None: True where lesions are pasted, otherwise as False, but where lesions are crowded and
            nothing seems missing then, nothing is ever doubted.
        margin: voxels around annotated lesions in which it counts fully; None: 4 where lesions are crowded, that is
            more than 5% of the labelled voxels, and 0 where they are sparse.
        paste: see :class:`~nnunet_lopsided.trainers.pasting.LesionPasting`; None is False without gamma, so that
            ``_g0`` takes away all that the recipe adds to a loss.
    """

    name_options: ClassVar = (
        ALPHA, BETA, GAMMA, FROM, *LOOK_BACK, MARGIN, *DICE, *CROSS_ENTROPY, *PASTE, *BootstrapTrainer.name_options,
        SOFT_TARGETS,
    )  # fmt: skip
    hyperparameters: ClassVar = (
        "dice", "cross_entropy", "gamma", "gamma_from", "look_back", "margin", "soft_targets", "paste", "alpha",
        *BootstrapTrainer.hyperparameters,
    )  # fmt: skip
    before_there_was: ClassVar = {
        **LookingBack.before_there_was, "gamma": 0.0, "gamma_from": 10.0, "margin": 0, "cross_entropy": "mean"
    }  # fmt: skip
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float | None = None
    gamma_from: float | None = None
    look_back: bool | None = None
    margin: int | None = None
    paste: bool | None = None
    dice: DiceTerm = "full"
    cross_entropy: ScalarReduction | None = None

    def _adapt_to(self, voxels: Counter[int]) -> None:
        super()._adapt_to(voxels)
        if self.margin is None and self.gamma != 0:
            margin = 0 if self._lesions_are_sparse else CROWDED_MARGIN
            setattr(self.criterion, "margin", margin)  # noqa: B010 - mypy takes a module's attributes for tensors
            self.print_to_log_file(
                f"margin: {margin} voxels, as lesions cover {self._lesion_share:.1%} of the labelled "
                "voxels of the training cases"
            )

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.cross_entropy is None and self._by_lesion_voxels:
            setattr(self.criterion, "reduction", "lesion_mean")  # noqa: B010 - as above
            self.print_to_log_file("cross-entropy: divided by the lesion voxels of the batch; by all with _cemean")

    @property
    def _by_lesion_voxels(self) -> bool:
        """Whether cross-entropy is divided by them; known once the loaders are there."""
        if self.cross_entropy is None:
            return self._looks_back and self._lesions_are_pasted
        return self.cross_entropy == "lesion_mean"

    def _pastes(self) -> bool:
        return super()._pastes() and (self.gamma != 0 or self.paste is True)

    def _weights_at(self, epoch: int) -> dict[str, float]:
        gamma = self.gamma
        if gamma is None:
            gamma = GAMMA_BY_LESION_VOXELS if self._looks_back and self._by_lesion_voxels else USUAL_GAMMA
        doubts = epoch >= self._doubts_at() and not self._nothing_missing
        return {**super()._weights_at(epoch), "gamma": gamma if doubts else 0.0}

    def _doubts_at(self) -> int:
        start = self.gamma_from
        if start is None and self._looks_back:
            return self._knows_lesions_at()
        if start is None:
            start = PASTED_FROM if self._lesions_are_pasted else UNPASTED_FROM
            if self._asks:  # who knows omissions by heart would say that nothing is missing
                return min(first_epoch(start, self.num_epochs), self._knows_lesions_at())
        return first_epoch(start, self.num_epochs)

    @property
    def _why_not_look_back(self) -> str | None:
        if self.gamma == 0:
            return "with gamma 0, which doubts nothing"
        if self.teacher_decay is not None:
            return "together with _emaN, whose network is the judge"
        return super()._why_not_look_back

    def _build_criterion(self) -> LopsidedDiceLoss:
        if self.dice == "mixed" and self.beta == 1:
            refuse(
                InputError(
                    f"{type(self).__name__}: _dicemixed with beta 1 is _dicefull; add a beta below 1, as in _b0p1"
                )
            )
        return LopsidedDiceLoss(
            self.alpha,
            self._beta_at(self.current_epoch),
            dice=self.dice,
            batch_dice=self.configuration_manager.batch_dice,
            reduction=self.cross_entropy or "mean",
            soft=self.soft,
            gamma=0.0,  # until an epoch begins
            margin=self.margin or 0,
            **self._target_format,
        )


class nnUNetTrainerLopsidedPaper(nnUNetTrainerLopsided):
    """Eq. 3 to the letter: no Dice, constant beta, no foreground prior. From a fresh start it can fail."""

    name_options: ClassVar = (ALPHA, BETA, *LesionTrainer.name_options, SOFT_TARGETS)
    alpha: float = 3.0
    beta: float = 0.1
    gamma: float | None = 0.0
    gamma_from: float | None = UNPASTED_FROM
    look_back: bool | None = False
    margin: int | None = 0
    paste: bool | None = False
    cross_entropy: ScalarReduction | None = "mean"
    dice: DiceTerm = "none"
    warm_up_epochs: int | None = 0
    foreground_prior_bias: bool = False


class nnUNetTrainerLopsidedDice(nnUNetTrainerLopsided):
    """The paper's alpha and beta plus soft Dice, with the two stabilisers."""

    alpha: float = 3.0
    beta: float = 0.1
    gamma: float | None = 0.0
    gamma_from: float | None = UNPASTED_FROM
    look_back: bool | None = False
    margin: int | None = 0
    paste: bool | None = False
    cross_entropy: ScalarReduction | None = "mean"
    dice: DiceTerm = "full"
