"""The probabilities that lie beside predicted label maps, as one number for each lesion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nnunet_lopsided.evaluation.confidence import mean_by_component
from nnunet_lopsided.evaluation.lesion_class import lesion_class
from nnunet_lopsided.evaluation.loading import load_case
from nnunet_lopsided.lesions import Lesions
from nnunet_lopsided.nnunet.results import find_dataset_json, predictions_by_case

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def mean_probabilities(folder: Path) -> Callable[[str, Lesions], list[float] | None]:
    """What tells the mean probability of the lesions of a case, over their voxels.

    Args:
        folder: label maps, with ``CASE.npz`` or ``CASE.npy`` beside them where there are probabilities.

    Returns:
        By the case's name and its lesions, which come from its label map: a mean within [0, 1] for each; None where
        there are no probabilities. It raises InputError where the probabilities do not fit the label map.

    Raises:
        InputError: the folder is missing, or its dataset.json cannot be read.
    """
    files = predictions_by_case(folder)
    target = lesion_class(None, find_dataset_json(folder, folder))

    def of(case: str, lesions: Lesions) -> list[float] | None:
        own = files[case]
        if own.image is None or own.array is None:
            return None
        # Of an array, so these are no labels.
        probability = cast("NDArray[np.floating]", load_case(case, own.image, own, target).prediction)
        means: list[float] = mean_by_component(lesions, probability.reshape(-1)[lesions.voxels]).tolist()
        return means

    return of
