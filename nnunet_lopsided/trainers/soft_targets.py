"""Soft targets that travel with the patch: from the file beside the preprocessed case to the criterion.

nnU-Net's loader knows an image and a label map. The belief comes to it as further channels of the image, which it crops
and fills with 0 outside; before the first augmentation they are taken off again and become what batchgeneratorsv2 calls
a regression target: moved and mirrored as the image is, never touched by a change of intensities. After the last step
they are appended to the target.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from numpy.typing import NDArray

from nnunet_lopsided.architectures.deeplabv3_25d import centre_slice
from nnunet_lopsided.errors import InputError, refuse
from nnunet_lopsided.nnunet.beliefs import BeliefFolder, from_levels, lesion_classes
from nnunet_lopsided.nnunet.dataset_json import label_scheme
from nnunet_lopsided.nnunet.preprocessed_case import Properties, StoredArray
from nnunet_lopsided.trainers.base import LesionTrainer
from nnunet_lopsided.trainers.host_types import AugmentationOptions, Dataset, PerLevel, Sample
from nnunet_lopsided.trainers.instances import DatasetAround
from nnunet_lopsided.trainers.names import NameFlag

if TYPE_CHECKING:
    from typing_extensions import Unpack

SOFT_TARGETS = NameFlag("soft_targets", "softtargets", "targets of background voxels come from lopsided-soften")


class Cropped(Protocol):
    """An array of whole 255ths, or what gives crops of it."""

    def __getitem__(self, crop: tuple[slice, ...], /) -> NDArray[np.number]: ...


class ImageWithBelief:
    """An image (C, ...) with a belief as K further channels: any crop of both, without decoding the volumes.

    Has what nnU-Net's loader asks of an array: ``shape``, and slicing to a NumPy array.

    Args:
        image: an array or nnU-Net's compressed one.
        belief: (K, ...) in whole 255ths, likewise; None: 0 everywhere.
        n: K, at least 1.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, image: StoredArray, belief: Cropped | None, n: int) -> None:
        self.shape = (image.shape[0] + n, *image.shape[1:])
        self._image = image
        self._belief = belief

    def __getitem__(self, crop: tuple[slice, ...]) -> NDArray[np.float32]:
        """The crop given by one slice per dimension, the first of which takes all channels."""
        image = np.asarray(self._image[crop], self.dtype)
        patch = np.zeros((self.shape[0], *image.shape[1:]), self.dtype)
        patch[: len(image)] = image
        if self._belief is not None:
            patch[len(image) :] = from_levels(np.asarray(self._belief[crop]))
        return patch


class WithBeliefs(DatasetAround):
    """An nnU-Net dataset whose images bring a belief as their last channels.

    Args:
        dataset: nnU-Net's.
        folder: where the beliefs lie.
        classes: names of the classes a belief has a channel for.

    Raises:
        InputError: the belief of a case is missing or does not fit.
    """

    def __init__(self, dataset: Dataset, folder: BeliefFolder, classes: tuple[str, ...]) -> None:
        super().__init__(dataset)
        self._folder = folder
        self._n = len(classes)
        self.with_belief = frozenset(case for case in dataset.identifiers if folder.has(case, classes))

    def load_case(self, identifier: str) -> tuple[ImageWithBelief, StoredArray, StoredArray | None, Properties]:
        """Image with belief, labels, labels of a cascade's previous stage, properties."""
        image, label, previous, properties = self._dataset.load_case(identifier)
        belief = self._folder.open(identifier) if identifier in self.with_belief else None
        return ImageWithBelief(image, belief, self._n), label, previous, properties


class BeliefApart(BasicTransform):
    """The start of the augmentation: the last channels of the image become the regression target.

    Args:
        n: their number.
        centre_slice_only: keep the slice that a 2.5D network predicts; the others' beliefs count nowhere.
    """

    def __init__(self, n: int, centre_slice_only: bool = False) -> None:
        super().__init__()
        self._n = n
        self._centre_slice_only = centre_slice_only

    def apply(self, data_dict: Sample, **params: object) -> Sample:
        image = data_dict["image"]
        belief = image[-self._n :]
        if self._centre_slice_only:
            belief = centre_slice(belief[None])[0]
        return {**data_dict, "image": image[: -self._n], "regression_target": belief}


class BeliefInTarget(BasicTransform):
    """The end of the augmentation: labels or regions -> float32 target with the belief as its last channels.

    Args:
        deep_supervision_scales: as in nnU-Net, which is to leave them to this step; None without deep supervision.
        centre_slice_only: keep the slice that a 2.5D network predicts.
    """

    def __init__(self, deep_supervision_scales: list[list[float]] | None, centre_slice_only: bool = False) -> None:
        super().__init__()
        self._centre_slice_only = centre_slice_only
        self._scale = None
        if deep_supervision_scales is not None:
            self._scale = DownsampleSegForDSTransform(ds_scales=deep_supervision_scales)

    def apply(self, data_dict: Sample, **params: object) -> dict[str, PerLevel]:
        label, belief = data_dict["segmentation"], data_dict.pop("regression_target")
        if self._centre_slice_only:
            label = centre_slice(label[None])[0]
        target = torch.cat((label.float(), belief))
        scaled: PerLevel = target if self._scale is None else self._scale(segmentation=target)["segmentation"]
        return {**data_dict, "segmentation": scaled}


class SoftTargetData(LesionTrainer):
    """Brings beliefs to the criterion as ``belief``; mixed into a trainer in front of its own base.

    The online validation has no beliefs: its loss is against the labels. Nor do they change which patches are drawn or
    the foreground prior.

    Attributes:
        soft_targets: train on the beliefs that lopsided-soften left beside the preprocessed cases.
    """

    before_there_was: ClassVar = {**LesionTrainer.before_there_was, "soft_targets": False}
    soft_targets: bool = False

    @property
    def _belief_classes(self) -> tuple[str, ...]:
        """Names of the classes or regions that the criterion's belief has a channel for, in this order."""
        return lesion_classes(label_scheme(self.dataset_json, Path("dataset.json")))

    @property
    def _travels(self) -> tuple[str, int]:
        """The input of the criterion that travels with a patch, and its channels; 0: nothing does."""
        return "belief", len(self._belief_classes) if self.soft_targets else 0

    def get_tr_and_val_datasets(self) -> tuple[Dataset | DatasetAround, Dataset]:
        training, validation = super().get_tr_and_val_datasets()
        return self._with_what_travels(training), validation

    def _with_what_travels(self, training: Dataset) -> Dataset | DatasetAround:
        if not self.soft_targets:
            return training
        folder = BeliefFolder(Path(self.preprocessed_dataset_folder))
        try:
            softened = WithBeliefs(training, folder, self._belief_classes)
        except InputError as error:
            refuse(error)
        self.print_to_log_file(
            f"soft targets: beliefs of {len(softened.with_belief)} of {len(training.identifiers)} training cases, from "
            f"{folder.content.get('source')}"
        )
        return softened

    def get_training_transforms(
        self,
        patch_size: object,
        rotation: object,
        deep_supervision_scales: list[list[float]] | None,
        *args: object,
        **options: Unpack[AugmentationOptions],
    ) -> ComposeTransforms:
        """nnU-Net's augmentation between two steps: what travels is split off first, and appended to the target."""
        _, n = self._travels
        if not n:
            return super().get_training_transforms(patch_size, rotation, deep_supervision_scales, *args, **options)
        augmentation = super().get_training_transforms(patch_size, rotation, None, *args, **options)
        apart = BeliefApart(n, self._is_25d)
        return ComposeTransforms([apart, augmentation, BeliefInTarget(deep_supervision_scales, self._is_25d)])

    def _split_target(self, target: PerLevel) -> tuple[PerLevel, dict[str, PerLevel]]:
        target, inputs = super()._split_target(target)
        name, n = self._travels
        if not n:
            return target, inputs
        if isinstance(target, list):
            return [level[:, :-n] for level in target], {**inputs, name: [level[:, -n:] for level in target]}
        return target[:, :-n], {**inputs, name: target[:, -n:]}
