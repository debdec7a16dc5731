"""The mean of several predictions of the same image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def mean_of(predictions: Iterable[NDArray[np.floating]]) -> NDArray[np.float32]:
    """The mean probability of models or magnifications; beside their sum, one of them at a time is held in memory.

    Args:
        predictions: at least one; probabilities within [0, 1] of any shape, all of the same. They are left as they are.

    Returns:
        Summed in their order and divided in float32, same shape.

    Raises:
        ValueError: there is none, or shapes differ.

    Example:
        >>> mean_of(np.array(p) for p in ([0.5, 0.25], [1.0, 0.0])).tolist()
        [0.75, 0.125]
    """
    remaining = iter(predictions)
    first = next(remaining, None)
    if first is None:
        raise ValueError("predictions must be at least one, got none")
    total, n = first.astype(np.float32), 1
    del first
    for prediction in remaining:
        if prediction.shape != total.shape:  # numpy might broadcast them
            raise ValueError(f"predictions must have the same shape, got {total.shape} and {prediction.shape}")
        total += prediction
        n += 1
        del prediction  # while the next one is made
    total /= np.float32(n)
    return total
