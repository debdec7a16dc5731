"""Which label value a candidate would have been given: pure numerics."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.confidence import mean_by_component
from nnunet_lopsided.lesions import Lesions
from nnunet_lopsided.nnunet.dataset_json import LabelScheme


def channel_means(components: Lesions, channels: Iterable[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Mean of each channel of a network over each component.

    Args:
        components: M of them.
        channels: C arrays with as many voxels as the components' shape; each is looked at once.

    Returns:
        Shape (M, C).
    """
    means = [mean_by_component(components, channel.reshape(-1)[components.voxels]) for channel in channels]
    return np.stack(means, axis=1)


def label_values(
    scheme: LabelScheme, means: NDArray[np.float64] | None, allowed: tuple[int, ...], n: int
) -> NDArray[np.int64]:
    """The most probable label value of each of ``n`` components.

    With softmax channels it is the value whose channel has the highest mean. With region channels, which are
    independent, a value is as probable as the product over all regions of the mean of those that hold it and 1 minus
    the mean of those that do not.

    Args:
        scheme: the classes of dataset.json.
        means: of :func:`channel_means`, (n, channels); None where only one value is allowed.
        allowed: the values to choose from.
        n: how many components.

    Returns:
        Shape (n,).

    Example:
        >>> scheme = LabelScheme({"rim": (1,), "core": (2,)}, None, has_regions=False)
        >>> label_values(scheme, np.array([[0.5, 0.2, 0.3]]), (1, 2), 1).tolist()
        [2]
        >>> regions = LabelScheme({"whole": (1, 2), "core": (2,)}, None, has_regions=True)
        >>> label_values(regions, np.array([[0.9, 0.3], [0.4, 0.3]]), (1, 2), 2).tolist()
        [1, 1]
    """
    if len(allowed) == 1 or means is None:
        return np.full(n, allowed[0], np.int64)
    if scheme.has_regions:
        holds = np.array([[value in values for values in scheme.foreground.values()] for value in allowed])
        # (values, 1, regions) against (n, regions), multiplied over the regions.
        probable = np.where(holds[:, None], means, 1 - means).prod(axis=-1).T
    else:
        probable = means[:, [scheme.label_values.index(value) for value in allowed]]
    return np.asarray(np.asarray(allowed, np.int64)[probable.argmax(axis=1)])
