"""The configurations of nnU-Net's plans: what they make of images, and which of them share one folder of data."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import Shape, check_shape
from nnunet_lopsided.nnunet.plans import Plans, resolved_configuration
from nnunet_lopsided.nnunet.preprocessed_case import Properties

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

# What nnU-Net's managers are asked here.
_PLANS: Shape = {
    "plans_name": str,
    "configurations": {str: dict},
    "transpose_forward": [int],
    "transpose_backward": [int],
    "image_reader_writer": str,
}
_PREPROCESSED: Shape = {
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
    plans: PlansManager
    manager: ConfigurationManager

    @property
    def masks_for_norm(self) -> bool:
        """Whether the normalisation of any channel depends on where the segmentation is -1."""
        return any(self.manager.use_mask_for_norm)

    @property
    def same_data_if_equal(self) -> dict[str, object]:
        """What determines the preprocessed data."""
        keys = [f"resampling_fn_{kind}{suffix}" for kind in ("data", "seg") for suffix in ("", "_kwargs")]
        keys += ["spacing", "normalization_schemes", "use_mask_for_norm", "preprocessor_name"]
        return {key: self.manager.configuration[key] for key in keys} | {"transpose": self.plans.transpose_forward}


def data_configurations(plans_contents: list[Plans]) -> dict[str, Configuration]:
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
            # Two plans may write into one folder; whoever preprocessed last has decided what lies there.
            known = by_folder.setdefault(new.folder, new)
            for key, value in known.same_data_if_equal.items():
                if new.same_data_if_equal[key] != value:
                    raise InputError(
                        f"plans {plans.plans_name}, configuration {name}: shares the folder {new.folder} with plans "
                        f"{known.plans.plans_name}, but differs from them in {key}"
                    )
    return by_folder


def _configurations(content: Plans) -> Iterator[tuple[Configuration, str]]:
    """nnU-Net's managers of all configurations of some plans, which are checked for what they will be asked."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    source = Path(str(content.get("plans_name")))
    check_shape(content, _PLANS, source)
    plans = PlansManager(content)
    for name in plans.available_configurations:
        check_shape(resolved_configuration(content, name), _PREPROCESSED, source, f"configurations.{name}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # nnU-Net warns of plans of older versions
                manager = plans.get_configuration(name)
            # nnU-Net finds these by names in the plans: asked for here, a wrong name ends the command now, not later.
            _ = plans.image_reader_writer_class, manager.resampling_fn_seg, manager.resampling_fn_data
        except (KeyError, TypeError, RuntimeError) as error:
            reason = str(error).strip() or type(error).__name__
            raise InputError(f"plans {source}, configuration {name}: nnU-Net cannot use it: {reason}") from error
        yield Configuration(manager.data_identifier, plans, manager), name


def resampling(
    configuration: Configuration, properties: Properties
) -> tuple[list[float], list[float], NDArray[np.int64]]:
    """Spacing before and after, and the shape after resampling."""
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    spacing = [properties["spacing"][axis] for axis in configuration.plans.transpose_forward]
    target = list(configuration.manager.spacing)
    if len(target) < len(spacing):  # 2d leaves the spacing between slices
        target = [spacing[0], *target]
    shape = properties["shape_after_cropping_and_before_resampling"]
    return spacing, target, compute_new_shape(shape, spacing, target)


def is_resampled(configuration: Configuration, properties: Properties) -> bool:
    """Whether the case has another shape after preprocessing than after cropping."""
    before = properties["shape_after_cropping_and_before_resampling"]
    return bool(list(before) != resampling(configuration, properties)[2].tolist())
