"""Which class is evaluated: its voxels in a label map, and its probability among the channels of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.plausibility import (
    UnfitChannels,
    require_probabilities,
    sampled,
    sums_to_one,
    wide,
)
from nnunet_lopsided.nnunet.dataset_json import LabelScheme, label_scheme, read_dataset_json

_Channel = NDArray[np.floating]


@dataclass(frozen=True)
class LesionClass:
    """Which class is evaluated.

    Attributes:
        scheme: the classes of dataset.json; None where there is none: lesion is every label value above 0.
        name: a class or region of the scheme; None: all foreground classes together.
    """

    scheme: LabelScheme | None = None
    name: str | None = None

    @property
    def values(self) -> tuple[int, ...] | None:
        """The label values of the class; None: every value above 0."""
        if self.scheme is None:
            return None
        if self.name is not None:
            return self.scheme.foreground[self.name]
        return tuple(sorted(set().union(*self.scheme.foreground.values())))

    def mask(self, labels: NDArray[np.generic]) -> NDArray[np.bool_]:
        """The lesion voxels of a label map, same shape."""
        values = self.values
        if values is None:
            above_0: NDArray[np.bool_] = np.greater(labels, 0)
            return above_0
        mask: NDArray[np.bool_] = np.equal(labels, values[0])
        for value in values[1:]:
            mask |= labels == value
        return mask

    def probability(self, channels: Iterable[NDArray[np.floating]], n: int) -> NDArray[np.floating]:
        """Lesion probability from the channels of a network.

        Softmax channels of the class are summed (all foreground: 1 minus background); of region channels the class's
        own is taken (all foreground: their maximum). float16 is widened to float32 where arithmetic is needed.

        Args:
            channels: ``n`` arrays of one shape, in order; each is looked at once.
            n: their number.

        Returns:
            Array of the channels' shape.

        Raises:
            UnfitChannels: their number does not fit the scheme, one of them holds anything but probabilities, or they
                do not sum to 1 where they must.
        """
        if self.scheme is not None and n != self.scheme.n_channels:
            raise UnfitChannels(f"expected {self.scheme.n_channels} channels from dataset.json, found {n}")
        chosen, combine = self._combination(n)
        combined: NDArray[np.floating] | None = None
        sums: NDArray[np.float32] = np.zeros(1, np.float32)
        i = -1
        for channel in channels:  # enumerate would hold on to the last one while the next is read
            i += 1
            if i not in chosen:  # the chosen ones are checked when they are combined
                require_probabilities(channel, i)
            sums = sums + sampled(channel)
            if i in chosen:
                combined = channel if combined is None else combine(combined, channel)
            del channel
        regions = self.scheme is not None and self.scheme.has_regions
        if n > 1 and not regions and not sums_to_one(sums):
            hint = "the classes must be known; give --dataset-json" if self.scheme is None else "they are no softmax"
            raise UnfitChannels(f"{n} channels that do not sum to 1: {hint}")
        assert combined is not None
        return 1 - wide(combined) if chosen == (0,) and self._is_background(n) else combined

    def _combination(self, n: int) -> tuple[tuple[int, ...], Callable[[_Channel, _Channel], _Channel]]:
        """The channels that make the probability, and how two of them are taken together."""
        # Without a dataset.json two channels are background and lesion, and of more all but the first are lesion.
        if self.scheme is None:
            return ((1,) if n == 2 else (0,)), np.maximum
        if self._is_background(n):
            return (0,), np.maximum
        if self.name is None and len(self.scheme.foreground) > 1:
            return tuple(range(n)), np.maximum
        chosen = self.scheme.channels_of(self.name or next(iter(self.scheme.foreground)))
        return chosen, lambda a, b: wide(a) + wide(b)

    def _is_background(self, n: int) -> bool:
        """Whether the probability is 1 minus the first of ``n`` channels."""
        if self.scheme is None:
            return n > 2
        return self.name is None and len(self.scheme.foreground) > 1 and not self.scheme.has_regions


def lesion_class(label: str | None, dataset_json: Path | None) -> LesionClass:
    """The class to evaluate, by its name in dataset.json.

    Args:
        label: name of a class or region; None: all foreground.
        dataset_json: the file that declares the classes; None: there is none, and lesion is every label above 0.

    Raises:
        InputError: the name is not in dataset.json, or a name is given and there is no dataset.json.
    """
    if dataset_json is None:
        if label is not None:
            raise InputError(f"label {label} needs a dataset.json, and none was found: give --dataset-json")
        return LesionClass()
    scheme = label_scheme(read_dataset_json(dataset_json), dataset_json)
    if not scheme.foreground:
        raise InputError(f"{dataset_json}: no foreground label")
    if label is not None and label not in scheme.foreground:
        raise InputError(f"label must be one of {', '.join(scheme.foreground)} ({dataset_json}), got {label}")
    return LesionClass(scheme, label)
