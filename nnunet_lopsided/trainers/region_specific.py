"""Trainer of the adaptive region-specific loss (Chen et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import nn

from nnunet_lopsided.errors import InputError, refuse
from nnunet_lopsided.losses import RegionSpecificLoss
from nnunet_lopsided.trainers.base import LesionTrainer
from nnunet_lopsided.trainers.names import NameFlag, NameOption


class nnUNetTrainerRegionSpecific(LesionTrainer):
    """Adaptive region-specific Tversky loss plus cross-entropy, which sparse lesions need (an empty region saturates).

    Regions are of full-resolution voxels: with deep supervision every level's region shrinks with its resolution.

    Attributes:
        region_size: edge of a region in voxels.
        reduction: mean over regions, or their sum as the paper is reported to do.
        detach_weights: no gradient through the adaptive weights.
        empty_regions: whether regions without reference count.
        bootstrap: leave voxels labelled background that the network calls lesion out of the sums.
        include_background: background is a class like the others; not with regions in dataset.json.
        ce_weight: factor of the cross-entropy beside it.
    """

    name_options: ClassVar = (
        NameOption(attribute="region_size", form="rN", meaning="edge of a region in voxels", low=1, integer=True),
        NameFlag("reduction", "sum", "sum over regions instead of their mean", "sum"),
        NameFlag("detach_weights", "detach", "no gradient through the adaptive weights"),
        NameFlag("empty_regions", "skipempty", "leave regions without reference out", "skip"),
        NameFlag("bootstrap", "bootstrap", "leave background voxels called lesion out"),
        NameFlag("include_background", "background", "background is a class like the others"),
        NameFlag("ce_weight", "noce", "no cross-entropy beside it", 0.0),
        *LesionTrainer.name_options,
    )
    hyperparameters: ClassVar = (
        "region_size",
        "reduction",
        "detach_weights",
        "empty_regions",
        "bootstrap",
        "include_background",
        "ce_weight",
        *LesionTrainer.hyperparameters,
    )
    region_size: int = 16
    reduction: Literal["mean", "sum"] = "mean"
    detach_weights: bool = False
    empty_regions: Literal["include", "skip"] = "include"
    bootstrap: bool = False
    include_background: bool = False
    ce_weight: float = 1.0

    def _build_criterion(self) -> nn.Module:
        if self.include_background and self.label_manager.has_regions:
            refuse(
                InputError(
                    f"{type(self).__name__}: _background needs classes, found regions in dataset.json, which have no "
                    "channel of background"
                )
            )
        return self._criterion_at((1,) * len(self.configuration_manager.patch_size))

    def _criterion_at(self, scale: Sequence[float]) -> nn.Module:
        return RegionSpecificLoss(
            # Coarse voxels are larger: as many millimetres at every level, and at least one voxel.
            region_size=tuple(max(1, round(self.region_size * s)) for s in scale),
            reduction=self.reduction,
            detach_weights=self.detach_weights,
            empty_regions=self.empty_regions,
            bootstrap=self.bootstrap,
            include_background=self.include_background,
            ce_weight=self.ce_weight,
            **self._target_format,
        )
