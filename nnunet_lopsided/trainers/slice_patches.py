"""What is different about patches of the 2.5d configuration, of which one slice is predicted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from unittest.mock import patch

from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet_trainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_lopsided.errors import InputError, refuse


def training_patch(configuration: ConfigurationManager) -> tuple[int, int]:
    """Height and width of the patches a 2.5d configuration is trained with; the predictor's have margins around.

    Raises:
        InputError: the plans hold something else as ``training_patch``; nnU-Net's commands end.
    """
    height, width = configuration.patch_size[1:]
    planned = configuration.configuration.get("lopsided", {}).get("training_patch", (height, width))
    sides = planned if isinstance(planned, (list, tuple)) else ()
    # Its very type: true is an instance of int.
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        refuse(
            InputError(
                "lopsided.training_patch of the 2.5d configuration in the plans: expected two whole numbers of at "
                f"least 1, found {planned!r}"
            )
        )
    return min(sides[0], height), min(sides[1], width)


def with_training_patch(planned: ConfigurationManager, n_slices: int) -> ConfigurationManager:
    """The configuration with patches of exactly the slices that one prediction sees; the plans' is the predictor's."""
    training = deepcopy(planned.configuration)
    training["patch_size"] = [n_slices, *training_patch(planned)]
    return ConfigurationManager(training)


class SliceLoader(nnUNetDataLoader):
    """nnU-Net's loader for patches whose centre slice is supervised: every slice of a case can be the centre.

    nnU-Net lets patches reach beyond the volume only as far as augmentation may turn them; here half a patch of slices
    may, so that the first and the last slice are seen with the zeros beside them that prediction gives them.
    """

    def __init__(
        self, data: object, batch_size: int, patch_size: Sequence[int], *args: object, **kwargs: object
    ) -> None:
        # The loader halves it: (n_slices - 1) / 2 slices beyond either end.
        pad_sides = (int(patch_size[0]) - 1, 0, 0)
        super().__init__(data, batch_size, patch_size, *args, **{**kwargs, "pad_sides": pad_sides})


def slice_loaders() -> AbstractContextManager[object]:
    """Inside, nnU-Net makes :class:`SliceLoader` instead of its own; it has no argument for another loader."""
    return patch.object(nnunet_trainer, "nnUNetDataLoader", SliceLoader)


@contextmanager
def arch_kwargs_of_the_user() -> Iterator[None]:
    """Turns what a 2.5d network refuses into bad input of ours."""
    try:
        yield
    except (ValueError, TypeError) as error:
        refuse(InputError(f"arch_kwargs of the 2.5d configuration in the plans: {error}"))
