"""What nnU-Net's preprocessing makes of a label map, where that of the images is known already.

It follows ``DefaultPreprocessor.run_case_npy`` of nnU-Net 2.8.1 step by step and calls its functions; what is left out
is what needs the images. Of these the label map needs one thing: the nonzero mask, outside of which nnU-Net writes -1
over background. Where nothing is resampled, the segmentation that was preprocessed before tells the mask.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.completeness import check_complete
from nnunet_lopsided.files.json import check_shape
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.nnunet.plans import resolved_configuration

Array = NDArray[Any]

# What nnU-Net's managers are asked here.
_PLANS: dict[str, Any] = {
    "plans_name": str,
    "configurations": {str: dict},
    "transpose_forward": [int],
    "transpose_backward": [int],
    "image_reader_writer": str,
}
_PREPROCESSED: dict[str, Any] = {
    "data_identifier": str,
    "preprocessor_name": str,
    "spacing": [float],
    "normalization_schemes": [str],
    "use_mask_for_norm": [bool],
    **{f"resampling_fn_{kind}": str for kind in ("data", "seg")},
    **{f"resampling_fn_{kind}_kwargs": dict for kind in ("data", "seg")},
}


@dataclass(frozen=True)
class Configuration:
    """A folder of preprocessed data and what nnU-Net needs to know to write to it.

    Attributes:
        folder: its name, the ``data_identifier`` in the plans.
        plans: nnU-Net's PlansManager.
        manager: nnU-Net's ConfigurationManager.
    """

    folder: str
    plans: Any
    manager: Any

    @property
    def masks_for_norm(self) -> bool:
        """Whether the normalisation of any channel depends on where the segmentation is -1."""
        return any(self.manager.use_mask_for_norm)

    @property
    def same_data_if_equal(self) -> dict[str, Any]:
        """What determines the preprocessed data."""
        keys = [f"resampling_fn_{kind}{suffix}" for kind in ("data", "seg") for suffix in ("", "_kwargs")]
        keys += ["spacing", "normalization_schemes", "use_mask_for_norm", "preprocessor_name"]
        return {key: self.manager.configuration[key] for key in keys} | {"transpose": self.plans.transpose_forward}


@dataclass(frozen=True)
class CleanSegmentation:
    """What nnU-Net's preprocessing left of one case in one folder.

    Attributes:
        array: the content of ``CASE_seg.b2nd``, shape (1, z, y, x); -1 outside the nonzero mask. As it was read it is
            a blosc2 array, which is decompressed by ``[:]``.
        properties: the content of ``CASE.pkl``.
    """

    array: Array
    properties: dict[str, Any]


def data_configurations(plans_contents: list[dict[str, Any]]) -> dict[str, Configuration]:
    """The folders of preprocessed data that these plans name, each with one of the configurations that use it.

    Raises:
        InputError: something is missing in the plans, configurations that share a folder do not say the same of its
            data, or another preprocessor than nnU-Net's default is needed.
    """
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    by_folder: dict[str, Configuration] = {}
    for content in plans_contents:
        for new, name in _configurations(content):
            plans, manager = new.plans, new.manager
            if manager.preprocessor_class is not DefaultPreprocessor:
                raise InputError(
                    f"plans {plans.plans_name}, configuration {name}: preprocessed by {manager.preprocessor_name}, "
                    "expected DefaultPreprocessor; run nnUNetv2_preprocess on the variant instead"
                )
            known = by_folder.setdefault(new.folder, new)
            for key, value in known.same_data_if_equal.items():
                if new.same_data_if_equal[key] != value:
                    raise InputError(
                        f"plans {plans.plans_name}, configuration {name}: shares the folder {new.folder} with plans "
                        f"{known.plans.plans_name}, but differs from them in {key}"
                    )
    return by_folder


def _configurations(content: dict[str, Any]) -> Iterator[tuple[Configuration, str]]:
    """nnU-Net's managers of all configurations of some plans, which are checked for what they will be asked."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    source = Path(str(content.get("plans_name")))
    check_shape(content, _PLANS, source)
    plans = PlansManager(content)
    for name in plans.available_configurations:
        check_shape(resolved_configuration(content, name), _PREPROCESSED, source, f"configurations.{name}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that plans are old
                manager = plans.get_configuration(name)
            # Looked up by their names, which may be of nothing.
            _ = plans.image_reader_writer_class, manager.resampling_fn_seg, manager.resampling_fn_data
        except (KeyError, TypeError, RuntimeError) as error:
            reason = str(error).strip() or type(error).__name__
            raise InputError(f"plans {source}, configuration {name}: nnU-Net cannot use it: {reason}") from error
        yield Configuration(manager.data_identifier, plans, manager), name


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
        self._cropped: dict[tuple[int, ...], tuple[Array, bool]] = {}
        self._locations: dict[tuple[int, ...], dict[Any, Any]] = {}

    def crop(self, configurations: dict[str, Configuration], clean: dict[str, CleanSegmentation]) -> None:
        """Transpose, crop and mark what is outside the nonzero mask; before :meth:`finish`.

        A folder in which nothing was resampled is used where there is one; otherwise the images are read.

        Raises:
            InputError: the label map does not fit what was preprocessed.
        """
        masks_for_norm = any(configuration.masks_for_norm for configuration in configurations.values())
        for folder in sorted(clean, key=lambda f: is_resampled(configurations[f], clean[f].properties)):
            axes = tuple(configurations[folder].plans.transpose_forward)
            if axes not in self._cropped:
                self._cropped[axes] = self._crop(axes, configurations[folder], clean[folder], masks_for_norm)

    def changes_normalisation(self, configuration: Configuration) -> bool:
        """Whether nnU-Net would normalise the images of this case differently with the new labels."""
        return configuration.masks_for_norm and self._cropped[tuple(configuration.plans.transpose_forward)][1]

    def finish(
        self, configuration: Configuration, clean: CleanSegmentation, dataset_json: dict[str, Any]
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
    ) -> tuple[Array, bool]:
        """The cropped label map, and whether labels came or went outside the nonzero mask."""
        case = Cropping(self._name, axes, clean.properties)
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

    def _decompressed(self, clean: CleanSegmentation, configuration: Configuration) -> Array:
        try:
            return np.asarray(clean.array[:])
        except Exception as error:  # damaged chunks fail in many ways
            raise InputError(
                f"case {self._name}: {self._name}_seg.b2nd in {configuration.folder} is damaged: {error}; preprocess "
                "the source again"
            ) from error

    def _outside(self, case: Cropping) -> Array:
        return ~case.nonzero_mask(np.concatenate([read() for read in self._images]))

    def _removed_outside(self, case: Cropping, background: Array, clean: Array) -> Array | None:
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
        voxels = voxels[background.reshape(-1)[voxels]]
        if not len(voxels):
            return None
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
    properties: dict[str, Any]

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

    def nonzero_mask(self, images: Array) -> Array:
        from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

        mask: Array = create_nonzero_mask(self._transposed(images))[None][self._box]
        return mask

    def _transposed(self, array: Array) -> Array:
        array = array.transpose([0, *(axis + 1 for axis in self.axes)])
        expected = tuple(self.properties["shape_before_cropping"])
        if array.shape[1:] != expected:
            raise InputError(f"case {self.name}: expected shape {expected}, as preprocessed, found {array.shape[1:]}")
        return array


def _class_locations(array: Array, configuration: Configuration, dataset_json: dict[str, Any]) -> dict[Any, Any]:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    labels = configuration.plans.get_label_manager(dataset_json)
    classes = list(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
    if labels.has_ignore_label:
        classes.append([-1, *labels.all_labels])
    # nnU-Net's own sampling with its fixed seed; a static method with an underscore, and nothing else does it.
    locations: dict[Any, Any] = DefaultPreprocessor._sample_foreground_locations(array, classes)
    return locations


def _next_to(mask: Array, coordinates: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each voxel shares a face with the mask or lies at the border; ``coordinates`` has shape (n, 3)."""
    last = np.array(mask.shape) - 1
    beside: NDArray[np.bool_] = ((coordinates == 0) | (coordinates == last)).any(axis=1)
    for step in (*np.eye(3, dtype=int), *-np.eye(3, dtype=int)):
        beside |= mask[tuple(np.clip(coordinates + step, 0, last).T)]
    return beside


def resampling(
    configuration: Configuration, properties: dict[str, Any]
) -> tuple[list[float], list[float], NDArray[np.int64]]:
    """Spacing before and after, and the shape after resampling."""
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    spacing = [properties["spacing"][axis] for axis in configuration.plans.transpose_forward]
    target = list(configuration.manager.spacing)
    if len(target) < len(spacing):  # 2d leaves the spacing between slices
        target = [spacing[0], *target]
    shape = properties["shape_after_cropping_and_before_resampling"]
    return spacing, target, compute_new_shape(shape, spacing, target)


def is_resampled(configuration: Configuration, properties: dict[str, Any]) -> bool:
    """Whether the case has another shape after preprocessing than after cropping."""
    before = properties["shape_after_cropping_and_before_resampling"]
    return bool(list(before) != resampling(configuration, properties)[2].tolist())


def read_clean(folder: Path, case: str) -> CleanSegmentation:
    """What nnU-Net preprocessed of a case. The pickle is nnU-Net's own file of the user's own dataset.

    Raises:
        InputError: files are missing, of another format, or broken.
    """
    import blosc2
    from batchgenerators.utilities.file_and_folder_operations import load_pickle

    for name in (f"{case}.b2nd", f"{case}_seg.b2nd", f"{case}.pkl"):
        if not (folder / name).is_file():
            if (folder / f"{case}.npz").is_file() or (folder / f"{case}.npy").is_file():
                raise InputError(
                    f"{folder}: holds .npz or .npy files of an older nnU-Net, expected .b2nd; run nnUNetv2_preprocess "
                    "on the source again"
                )
            raise InputError(f"case {case}: expected {folder / name}, found nothing; preprocess the source again")
    try:
        blosc2.set_nthreads(1)
        image = blosc2.open(urlpath=str(folder / f"{case}.b2nd"), mode="r")
        array = blosc2.open(urlpath=str(folder / f"{case}_seg.b2nd"), mode="r", dparams={"nthreads": 1})
        clean = CleanSegmentation(array, load_pickle(str(folder / f"{case}.pkl")))
    except Exception as error:  # broken files fail in many ways
        raise InputError(f"case {case}: cannot read its files in {folder}: {error}") from error
    if image.shape[1:] != array.shape[1:]:
        raise InputError(
            f"case {case}: expected {folder / f'{case}.b2nd'} to have the shape {array.shape[1:]} of its segmentation, "
            f"found {image.shape[1:]}; preprocess the source again"
        )
    return clean


def read_by_nnunet(case: str, files: Sequence[Path], read: Callable[[Any], tuple[Array, Any]]) -> Array:
    """What one of nnU-Net's readers makes of complete files, shape (c, z, y, x).

    Args:
        case: for error messages.
        files: the files.
        read: the reader's method, called with their paths as text.

    Raises:
        InputError: a file is missing, damaged or unreadable.
    """
    for file in files:
        check_complete(file)
    try:
        return read([str(file) for file in files])[0]
    except Exception as error:  # each of nnU-Net's readers fails in its own ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(f"{case}: cannot read {files[0]}: {reason}") from error


def write_segmentation(folder: Path, case: str, new: CleanSegmentation, like: Path) -> None:
    """Write ``CASE_seg.b2nd`` and ``CASE.pkl``, chunked as the same case in the folder ``like``.

    Compressed by LZ4, not by nnU-Net's LZ4HC: four times as fast, and beside the images the bytes do not count.
    """
    import pickle

    write_chunked(folder / f"{case}_seg.b2nd", new.array, like / f"{case}_seg.b2nd")
    (folder / f"{case}.pkl").write_bytes(pickle.dumps(new.properties))


def write_chunked(path: Path, array: Array, like: Path) -> None:
    """Write an array (c, z, y, x) as blosc2's ``.b2nd``, chunked as the one in ``like``, compressed by LZ4."""
    import blosc2

    model = blosc2.open(urlpath=str(like), mode="r")
    packed = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=model.chunks,
        blocks=model.blocks,
        cparams={"codec": blosc2.Codec.LZ4, "filters": model.cparams.filters, "nthreads": 1},
    )
    # Through Python's own files: a full disk is an error here, not a truncated file.
    path.write_bytes(packed.to_cframe())
