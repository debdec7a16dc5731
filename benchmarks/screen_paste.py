"""Annotated lesions of the training cases of `screen.py`, pasted elsewhere as the trainers' `_paste` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.trainers.lesion_pasting import Paster, Room, box_around, cut_lesion, diameter_mm


def _marked(image: NDArray[Any], label: NDArray[Any]) -> NDArray[Any]:
    """The label with nnU-Net's -1 outside of the brain, where all channels have their first value."""
    return np.where((image == image[:, :1, :1, :1]).all(0), -1, label.astype(np.int16))


def paster(images: NDArray[Any], labels: NDArray[Any], spacing_mm: Sequence[float], *, slicewise: bool) -> Paster:
    """Of the lesions (label 1) of some cases; slicewise as a 2D configuration does it, otherwise as a 3D one."""
    cut = []
    for image, label in zip(images, labels, strict=True):
        lesions, marked = find_lesions(label == 1, spacing_mm), _marked(image, label)
        instances = lesions.instances()
        for i, n_voxels in enumerate(lesions.n_voxels):
            box = box_around(lesions, i)
            inside = instances[box] == i + 1
            diameter = (
                diameter_mm(int(inside.sum((1, 2)).max()), spacing_mm[1:])
                if slicewise
                else diameter_mm(int(n_voxels), spacing_mm)
            )
            lesion = cut_lesion(image[(slice(None), *box)], marked[box], inside, diameter)
            if lesion is not None:
                cut.append(lesion)
    return Paster.of(cut, spacing_mm, slicewise=slicewise)


def room_in(image: NDArray[Any], label: NDArray[Any]) -> Room:
    """Where lesions may be pasted."""
    return Room.of(_marked(image, label))
