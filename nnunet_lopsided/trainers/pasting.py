"""Copy-paste of annotated lesions in nnU-Net's augmentation: its first step, on patches as the loader cuts them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunet_lopsided.errors import InputError, refuse
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.progress import with_progress
from nnunet_lopsided.trainers.base import LesionTrainer
from nnunet_lopsided.trainers.host_types import AugmentationOptions, Dataset, Sample
from nnunet_lopsided.trainers.lesion_pasting import (
    GROWN,
    CutLesion,
    Paster,
    Room,
    box_around,
    cut_lesion,
    diameter_mm,
)
from nnunet_lopsided.trainers.names import NameFlag
from nnunet_lopsided.trainers.seeds import derived_seed
from nnunet_lopsided.trainers.training_labels import lesion_share

if TYPE_CHECKING:
    from typing_extensions import Unpack

PASTE = (
    NameFlag("paste", "paste", "annotated lesions are pasted elsewhere"),
    NameFlag("paste", "nopaste", "none are pasted", False),
)
MOST_PER_PATCH = 2
# More lesions are not read. Memory is taken in each process that makes patches.
MOST_LESIONS, MEMORY = 1000, 64 * 2**20
SPARSE = 0.05  # share of lesion voxels up to which lesions are sparse: they lie apart, and there is room between them
# Which lesions are kept where not all can be; part of what a seed means, like the purposes of seeds.py.
_PURPOSE = 10


class PasteLesions(BasicTransform):
    """Pastes 0, 1 or 2 lesions into a patch (C, z, y, x) or (C, y, x) and its label map.

    Draws from NumPy's global generator, as nnU-Net's loader does, so that the seed of a worker fixes it.

    Args:
        paster: what pastes.
    """

    def __init__(self, paster: Paster) -> None:
        super().__init__()
        self._paster = paster

    def apply(self, data_dict: Sample, **params: object) -> Sample:
        rng = np.random.default_rng(np.random.randint(2**31))  # noqa: NPY002 - what nnU-Net's data loader draws from
        n = int(rng.integers(MOST_PER_PATCH + 1))
        if not n:
            return data_dict
        image, label = data_dict["image"].clone(), data_dict["segmentation"].clone()
        is_slice = image.ndim == 3
        # Views of the tensors, which are changed through them.
        pixels, values = image.numpy(), label.numpy()[0]
        if is_slice:
            pixels, values = pixels[:, None], values[None]
        room = Room.of(values)
        for _ in range(n):
            self._paster.paste(rng, pixels, values, room)
        return {**data_dict, "image": image, "segmentation": label}


class LesionPasting(LesionTrainer):
    """Pastes annotated lesions of the training cases into training patches; mixed in in front of a trainer's base.

    The online validation gets nothing pasted. Nor does pasting change which patches are drawn from where, or the
    foreground prior.

    Attributes:
        paste: whether it does; None: where lesions are sparse, that is at most 5% of the labelled voxels, and not in a
            cascade, whose previous stage lacks what is pasted.
    """

    before_there_was: ClassVar = {**LesionTrainer.before_there_was, "paste": False}
    paste: bool | None = False
    _lesion_share: float = 0.0  # of the labelled voxels of the training cases
    _cut: Paster | None = None  # kept, as loaders may be made more than once

    def get_training_transforms(
        self,
        patch_size: object,
        rotation: object,
        deep_supervision_scales: list[list[float]] | None,
        *args: object,
        **options: Unpack[AugmentationOptions],
    ) -> ComposeTransforms:
        """nnU-Net's augmentation after the pasting, so that what is pasted is turned, scaled and blurred, too."""
        augmentation = super().get_training_transforms(patch_size, rotation, deep_supervision_scales, *args, **options)
        if not self._pastes():
            return augmentation
        if options.get("is_cascaded"):
            self._cannot_paste(
                "in a cascade, whose previous stage lacks what is pasted",
                "_paste cannot be used in a cascade, whose previous stage lacks what is pasted; expected another "
                "configuration, or the trainer with _nopaste",
            )
            return augmentation
        if self.paste is None and not self._lesions_are_sparse:
            self.print_to_log_file(
                f"pasting: none, as lesions cover {self._lesion_share:.1%} of the labelled voxels of the training "
                f"cases, more than {SPARSE:.0%}; _paste does it all the same"
            )
            return augmentation
        if self._cut is None:
            self._cut = self._paster()
        return augmentation if self._cut is None else ComposeTransforms([PasteLesions(self._cut), augmentation])

    def _adapt_to(self, voxels: Counter[int]) -> None:
        super()._adapt_to(voxels)
        self._lesion_share = lesion_share(voxels)

    @property
    def _lesions_are_pasted(self) -> bool:
        """Known once the augmentation of the training is there."""
        return self._cut is not None

    @property
    def _lesions_are_sparse(self) -> bool:
        return self._lesion_share <= SPARSE

    def _pastes(self) -> bool:
        return self.paste is not False

    def _cannot_paste(self, why: str, error: str) -> None:
        """The end of a training that was to paste; otherwise a line in the log.

        Args:
            why: nothing is pasted, for the log.
            error: what the user reads who asked for it.
        """
        if self.paste:
            refuse(InputError(f"{type(self).__name__}: {error}"))
        self.print_to_log_file(f"pasting: none, {why}")

    def _paster(self) -> Paster | None:
        training_cases, _ = self.do_split()
        dataset: Dataset = self.dataset_class(self.preprocessed_dataset_folder, training_cases)
        slicewise = len(self.configuration_manager.patch_size) == 2
        spacing = [float(side) for side in self.configuration_manager.spacing]
        plane = self.configuration_manager.patch_size[-2:]
        rng = np.random.default_rng(None if self.seed is None else derived_seed(self.seed, _PURPOSE))
        cases = [training_cases[i] for i in rng.permutation(len(training_cases))]
        lesions: list[CutLesion] = []
        n_cases = memory = 0
        for case in with_progress(cases, title="lesions to paste", unit="case", show=self.local_rank == 0):
            n_cases += 1
            for lesion in lesions_of(case, dataset, spacing, self.label_manager.ignore_label, slicewise=slicewise):
                # An organ: it would fill the patch.
                if any(
                    2 * (n - 2 * GROWN) > of_patch for n, of_patch in zip(lesion.label.shape[1:], plane, strict=True)
                ):
                    continue
                memory += lesion.difference.nbytes + lesion.label.nbytes
                if memory <= MEMORY:
                    lesions.append(lesion)
            if memory > MEMORY or len(lesions) >= MOST_LESIONS:
                break
        of_cases = f"{n_cases} of {len(cases)} training cases"
        if not lesions:
            self._cannot_paste(
                f"as no lesion that could be is annotated in {of_cases}",
                f"expected an annotated lesion of at most half of the patch in the {len(cases)} training cases of fold "
                f"{self.fold} in {Path(self.preprocessed_dataset_folder)} to paste, found none; train with _nopaste",
            )
            return None
        paster = Paster.of(lesions, spacing, slicewise=slicewise)
        low, high = paster.diameters_mm
        self.print_to_log_file(
            f"pasting: {len(lesions)} annotated lesions of {of_cases}, in diameters of {low:.1f} to {high:.1f} mm"
        )
        return paster


def lesions_of(
    case: str, dataset: Dataset, spacing_mm: list[float], ignore_label: int | None, *, slicewise: bool
) -> list[CutLesion]:
    """The annotated lesions of a preprocessed case: components of all labels but the ignored one.

    Args:
        case: its name.
        dataset: nnU-Net's.
        spacing_mm: of the configuration; two numbers for slices.
        ignore_label: the label value that is no lesion; None if there is none.
        slicewise: a lesion's diameter is that of its largest slice.
    """
    data, stored, _, _ = dataset.load_case(case)
    label = np.asarray(stored[:])[0]
    is_lesion = label > 0
    if ignore_label is not None:
        is_lesion &= label != ignore_label
    lesions = find_lesions(is_lesion, (1.0, 1.0, 1.0))
    instances = lesions.instances()
    found = []
    for i, n_voxels in enumerate(lesions.n_voxels):
        box = box_around(lesions, i)
        inside = instances[box] == i + 1
        size = int(inside.sum((1, 2)).max()) if slicewise else int(n_voxels)
        # The crop alone is decompressed.
        pixels = np.asarray(data[(slice(0, data.shape[0]), *box)], np.float32)
        lesion = cut_lesion(pixels, label[box], inside, diameter_mm(size, spacing_mm))
        if lesion is not None:
            found.append(lesion)
    return found
