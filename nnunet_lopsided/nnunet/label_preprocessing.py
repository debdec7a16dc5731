"""What nnU-Net's preprocessing makes of a label map, where that of the images is known already.

It follows ``DefaultPreprocessor.run_case_npy`` of nnU-Net 2.8.1 step by step and calls its functions; what is left out
is what needs the images. Of these the label map needs one thing: the nonzero mask, outside of which nnU-Net writes -1
over background. Where nothing is resampled, the segmentation that was preprocessed before tells the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.nnunet.configurations import Configuration, is_resampled, resampling
from nnunet_lopsided.nnunet.preprocessed_case import ClassLocations, CleanSegmentation, Properties

Array = NDArray[np.generic]


class LabelPreprocessing:
    """The label map of one case on its way through nnU-Net's preprocessing, for all folders of one set of plans.

    Args:
        name: of the case, for error messages.
        segmentation: the new label map as nnU-Net's reader gives it, shape (1, z, y, x).
        images: each gives one image file of the case as nnU-Net's reader does, shape (c, z, y, x); called only when
            it is needed.
        read_clean_label: gives the label map that was preprocessed before, like ``segmentation``; only when needed.
    """

    def __init__(
        self,
        name: str,
        segmentation: Array,
        images: Sequence[Callable[[], Array]],
        read_clean_label: Callable[[], Array],
    ) -> None:
        self._name = name
        self._segmentation = segmentation
        self._images = images
        self._read_clean_label = read_clean_label
        self._cropped: dict[tuple[int, ...], tuple[NDArray[np.int16], bool]] = {}
        self._locations: dict[tuple[int, ...], ClassLocations] = {}

    def crop(self, configurations: dict[str, Configuration], clean: dict[str, CleanSegmentation]) -> None:
        """Transpose, crop and mark what is outside the nonzero mask; before :meth:`finish`.

        A folder in which nothing was resampled is used where there is one; otherwise the images are read.

        Raises:
            InputError: the label map does not fit what was preprocessed.
        """
        masks_for_norm = any(configuration.masks_for_norm for configuration in configurations.values())
        # Folders without resampling first: what they hold tells the mask, and the images need not be read.
        for folder in sorted(clean, key=lambda f: is_resampled(configurations[f], clean[f].properties)):
            axes = tuple(configurations[folder].plans.transpose_forward)
            if axes not in self._cropped:
                self._cropped[axes] = self._crop(axes, configurations[folder], clean[folder], masks_for_norm)

    def changes_normalisation(self, configuration: Configuration) -> bool:
        """Whether nnU-Net would normalise the images of this case differently with the new labels."""
        return configuration.masks_for_norm and self._cropped[tuple(configuration.plans.transpose_forward)][1]

    def finish(
        self, configuration: Configuration, clean: CleanSegmentation, dataset_json: Mapping[str, object]
    ) -> CleanSegmentation:
        """Resample and collect the locations of classes: the new segmentation and properties of one folder."""
        axes = tuple(configuration.plans.transpose_forward)
        array = self._cropped[axes][0]
        if is_resampled(configuration, clean.properties):
            spacing, target, shape = resampling(configuration, clean.properties)
            # In float32, as nnU-Net's readers give it: the resampling works in that type.
            array = configuration.manager.resampling_fn_seg(array.astype(np.float32), shape, spacing, target)
            locations = _class_locations(array, configuration, dataset_json)
        else:  # the same in every such folder
            if axes not in self._locations:
                self._locations[axes] = _class_locations(array, configuration, dataset_json)
            locations = self._locations[axes]
        if array.shape != clean.array.shape:
            raise InputError(
                f"case {self._name}: expected shape {clean.array.shape} in {configuration.folder}, found "
                f"{array.shape} by its plans; preprocess the source again"
            )
        return CleanSegmentation(array.astype(np.int16, copy=False), {**clean.properties, "class_locations": locations})

    def _crop(
        self, axes: tuple[int, ...], configuration: Configuration, clean: CleanSegmentation, masks_for_norm: bool
    ) -> tuple[NDArray[np.int16], bool]:
        """The cropped label map, and whether labels came or went outside the nonzero mask."""
        case = Cropping(self._name, axes, clean.properties)
        # A type that holds -1 and every label: nnU-Net stores none above 16 bits.
        label = case.apply(self._segmentation).astype(np.int16)
        background = label == 0
        if is_resampled(configuration, clean.properties):
            outside = self._outside(case)
            changed = False
            if masks_for_norm:
                changed = bool((outside & (background != (case.apply(self._read_clean_label()) == 0))).any())
        else:
            if clean.array.shape != label.shape:
                raise InputError(
                    f"case {self._name}: expected shape {label.shape} in {configuration.folder} by its plans, found "
                    f"{clean.array.shape}; preprocess the source again"
                )
            before = self._decompressed(clean, configuration)
            outside = before == -1
            changed = bool((outside & ~background).any())
            removed = self._removed_outside(case, background, before)
            if removed is not None:
                outside |= removed
                changed = True
        label[background & outside] = -1
        return label, changed

    def _decompressed(self, clean: CleanSegmentation, configuration: Configuration) -> NDArray[np.number]:
        try:
            return np.asarray(clean.array[:])
        except Exception as error:  # damaged chunks fail in many ways
            raise InputError(
                f"case {self._name}: {self._name}_seg.b2nd in {configuration.folder} is damaged: {error}; preprocess "
                "the source again"
            ) from error

    def _outside(self, case: Cropping) -> NDArray[np.bool_]:
        return ~case.nonzero_mask(np.concatenate([read() for read in self._images]))

    def _removed_outside(
        self, case: Cropping, background: NDArray[np.bool_], clean: NDArray[np.number]
    ) -> NDArray[np.bool_] | None:
        """Voxels that lost their label and lie outside the nonzero mask; None if there are none.

        The clean segmentation does not tell where it has a label. But the mask has no holes: what is outside of it is
        connected with the border of the image through voxels that are outside too. So a label that neither touches -1
        nor the border is inside, and so is every voxel that is nonzero in any channel.
        """
        if not (background & (clean > 0)).any():
            return None
        # Along faces only, as holes are filled.
        labelled = find_lesions(clean[0] > 0, (1.0,) * 3, connectivity=6)
        at_edge = _next_to(clean[0] == -1, labelled.voxel_coordinates())
        doubtful = np.unique(labelled.voxel_ids[at_edge])
        voxels = labelled.select(doubtful)
        # What still has a label is not looked at: nnU-Net writes -1 over background alone.
        voxels = voxels[background.reshape(-1)[voxels]]
        if not len(voxels):
            return None
        # One image after the other: as a rule the first leaves no voxel, and the whole mask is not needed.
        for read in self._images:
            if len(voxels):
                image = read()
                voxels = voxels[(case.apply(image).reshape(len(image), -1)[:, voxels] == 0).all(0)]
        if not len(voxels):
            return None
        outside = self._outside(case)
        removed = np.zeros(clean.shape, bool)
        removed.reshape(-1)[voxels] = outside.reshape(-1)[voxels]
        return removed if removed.any() else None


@dataclass(frozen=True)
class Cropping:
    """Transposing and cropping as it was done with the images.

    Attributes:
        name: of the case, for error messages.
        axes: ``transpose_forward`` of the plans.
        properties: the content of ``CASE.pkl``.
    """

    name: str
    axes: tuple[int, ...]
    properties: Properties

    @cached_property
    def _box(self) -> tuple[slice, ...]:
        from acvl_utils.cropping_and_padding.bounding_boxes import bounding_box_to_slice

        return (slice(None), *bounding_box_to_slice(self.properties["bbox_used_for_cropping"]))

    def apply(self, array: Array) -> Array:
        """An array (c, z, y, x) as nnU-Net's reader gives it, transposed and cropped; a view.

        Raises:
            InputError: its shape is not that of the images.
        """
        return self._transposed(array)[self._box]

    def nonzero_mask(self, images: Array) -> NDArray[np.bool_]:
        from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

        mask: NDArray[np.bool_] = create_nonzero_mask(self._transposed(images))[None][self._box]
        return mask

    def _transposed(self, array: Array) -> Array:
        array = array.transpose([0, *(axis + 1 for axis in self.axes)])
        expected = tuple(self.properties["shape_before_cropping"])
        if array.shape[1:] != expected:
            raise InputError(f"case {self.name}: expected shape {expected}, as preprocessed, found {array.shape[1:]}")
        return array


def _class_locations(array: Array, configuration: Configuration, dataset_json: Mapping[str, object]) -> ClassLocations:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    labels = configuration.plans.get_label_manager(dataset_json)
    classes = list(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
    if labels.has_ignore_label:
        # As run_case_npy does: patches are drawn from annotated voxels alone, background's and the outside's too.
        classes.append([-1, *labels.all_labels])
    # nnU-Net's own sampling with its fixed seed; a static method with an underscore, and nothing else does it.
    locations: ClassLocations = DefaultPreprocessor._sample_foreground_locations(array, classes)
    return locations


def _next_to(mask: NDArray[np.bool_], coordinates: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each voxel shares a face with the mask or lies at the border; ``coordinates`` has shape (n, 3)."""
    last = np.array(mask.shape) - 1
    beside: NDArray[np.bool_] = ((coordinates == 0) | (coordinates == last)).any(axis=1)
    for step in (*np.eye(3, dtype=int), *-np.eye(3, dtype=int)):
        beside |= mask[tuple(np.clip(coordinates + step, 0, last).T)]
    return beside
