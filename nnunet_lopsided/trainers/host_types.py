"""What nnU-Net and our trainers hand to each other, as types: nnU-Net's own code declares hardly any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, TypedDict

import torch

from nnunet_lopsided.nnunet.preprocessed_case import Properties, StoredArray

# With deep supervision a list, one tensor per resolution, finest first.
PerLevel: TypeAlias = torch.Tensor | list[torch.Tensor]
# Sample by sample in the loader's workers: image, segmentation, regression_target.
Sample: TypeAlias = dict[str, torch.Tensor]


class Batch(TypedDict):
    """What nnU-Net's loaders give to a step, as far as it is used."""

    data: torch.Tensor
    target: PerLevel


class AugmentationOptions(TypedDict, total=False):
    """What nnU-Net gives by name to ``get_training_transforms``."""

    use_mask_for_norm: Sequence[bool] | None
    is_cascaded: bool
    foreground_labels: Sequence[int] | None
    regions: Sequence[object] | None
    ignore_label: int | None


class Dataset(Protocol):
    """nnU-Net's dataset of preprocessed cases."""

    identifiers: list[str]

    def load_case(self, identifier: str, /) -> tuple[StoredArray, StoredArray, StoredArray | None, Properties]:
        """Image, labels, labels of a cascade's previous stage, properties."""
        ...
