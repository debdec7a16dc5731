"""Trainers that weight every lesion by the inverse of its volume (Shirokikh et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from torch import nn

from nnunet_lopsided.losses import InverseWeightedLoss
from nnunet_lopsided.losses.dice import DiceTerm
from nnunet_lopsided.trainers.base import LesionTrainer
from nnunet_lopsided.trainers.host_types import AugmentationOptions, Dataset, PerLevel
from nnunet_lopsided.trainers.instances import DatasetAround, SpatialWithInstances, WeightedTarget, WithInstances
from nnunet_lopsided.trainers.lopsided import ALPHA, BETA, UNPASTED_FROM, BootstrapTrainer, nnUNetTrainerLopsided
from nnunet_lopsided.trainers.names import NameFlag

if TYPE_CHECKING:
    from typing_extensions import Unpack


class InverseWeightingData(LesionTrainer):
    """Brings inverse-volume weights to the loss; mixed into a trainer in front of its own base.

    Lesions are the components of the whole preprocessed volume. Their ids are cropped and augmented with the patch by
    nnU-Net's loader, so that a lesion cut by the patch is one lesion; the weights are made in the loader's workers
    after augmentation and reach the loss as a further target channel. The online validation has no weights: its loss
    is the unweighted one.
    """

    def get_tr_and_val_datasets(self) -> tuple[Dataset | DatasetAround, Dataset]:
        training, validation = super().get_tr_and_val_datasets()
        return WithInstances(training, self._n_labels, self.label_manager.ignore_label), validation

    @property
    def _n_labels(self) -> int:
        """One more than the largest label value, the ignore label included."""
        return 1 + int(max([*self.label_manager.all_labels, self.label_manager.ignore_label or 0]))

    def get_training_transforms(
        self,
        patch_size: object,
        rotation: object,
        deep_supervision_scales: list[list[float]] | None,
        *args: object,
        **options: Unpack[AugmentationOptions],
    ) -> ComposeTransforms:
        """nnU-Net's augmentation; the steps that shape the target come last, and keep the weights."""
        # Without regions and resolutions, as these steps come after the weights have been made of the ids.
        of_labels: AugmentationOptions = {**options, "regions": None}
        augmentation = super().get_training_transforms(patch_size, rotation, None, *args, **of_labels)
        regions, ignore_label = options.get("regions"), options.get("ignore_label")
        augmentation.transforms = [
            SpatialWithInstances(step, self._n_labels, ignore_label, self.is_cascaded)
            if isinstance(step, SpatialTransform)
            else step
            for step in augmentation.transforms
        ]
        # As nnU-Net does: the ignore label is the last region.
        if regions is not None and ignore_label is not None:
            regions = [*regions, ignore_label]
        target = WeightedTarget(self._n_labels, regions, deep_supervision_scales, self._is_25d)
        return ComposeTransforms([augmentation, target])

    def _split_target(self, target: PerLevel) -> tuple[PerLevel, dict[str, PerLevel]]:
        if isinstance(target, list):
            return [level[:, :-1] for level in target], {"weight": [level[:, -1:] for level in target]}
        return target[:, :-1], {"weight": target[:, -1:]}


class InverseWeightingTrainer(InverseWeightingData):
    """Base of the four losses of the paper; ``kind`` names the loss that is weighted."""

    kind: Literal["ce", "focal", "dice", "asl"]

    def _build_criterion(self) -> nn.Module:
        return InverseWeightedLoss(self.kind, batch_dice=self._batch_dice, **self._target_format)

    @property
    def _batch_dice(self) -> bool:
        """Whether sums of Dice run over the batch, as nnU-Net plans it: in 2D and 2.5D."""
        return bool(self.configuration_manager.batch_dice)


class OverlapTrainer(InverseWeightingTrainer):
    """Base of Dice and ASL.

    Attributes:
        samplewise: sums run over each sample, the authors' way, whatever nnU-Net has planned. In 2D and 2.5D a sample
            without a lesion then has loss 1 and no gradient.
    """

    name_options: ClassVar = (
        NameFlag("samplewise", "samplewise", "Dice of each sample, not of the batch"),
        *InverseWeightingTrainer.name_options,
    )
    hyperparameters: ClassVar = ("samplewise", *InverseWeightingTrainer.hyperparameters)
    samplewise: bool = False

    @property
    def _batch_dice(self) -> bool:
        return super()._batch_dice and not self.samplewise


class nnUNetTrainerInverseWeightingCE(InverseWeightingTrainer):
    """Cross-entropy, inverse-weighted."""

    kind = "ce"


class nnUNetTrainerInverseWeightingFocal(InverseWeightingTrainer):
    """Focal loss, inverse-weighted."""

    kind = "focal"


class nnUNetTrainerInverseWeightingDice(OverlapTrainer):
    """Dice with squared denominators, inverse-weighted."""

    kind = "dice"


class nnUNetTrainerInverseWeightingASL(OverlapTrainer):
    """Asymmetric similarity loss, inverse-weighted."""

    kind = "asl"


class nnUNetTrainerLopsidedInverseWeighting(InverseWeightingData, nnUNetTrainerLopsided):
    """Eq. 3 alone, with every positive voxel weighted by alpha times the inverse volume of its lesion."""

    name_options: ClassVar = (ALPHA, BETA, *BootstrapTrainer.name_options)
    alpha: float = 3.0
    beta: float = 0.1
    gamma: float = 0.0
    gamma_from: float | None = UNPASTED_FROM
    margin: int | None = 0
    paste: bool | None = False
    dice: DiceTerm = "none"
