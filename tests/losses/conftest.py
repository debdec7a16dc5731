"""The golden volume of the design, for every loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray


class Volume(NamedTuple):
    """4x4x4 voxels with a lesion of one voxel and one of eight, float64, as (1, channels, 4, 4, 4)."""

    probability: torch.Tensor
    logits: torch.Tensor
    label: torch.Tensor
    instances: NDArray[Any]


@pytest.fixture
def golden_volume() -> Volume:
    k = torch.arange(64, dtype=torch.float64)
    probability = (0.25 + 0.5 * ((k % 7) / 7)).view(1, 1, 4, 4, 4)
    instances = np.zeros((4, 4, 4), np.int32)
    instances[0, 0, 0] = 1
    instances[2:4, 2:4, 2:4] = 2
    difference = torch.logit(probability)
    return Volume(
        probability,
        torch.cat([torch.zeros_like(difference), difference], 1),
        torch.from_numpy(instances > 0).to(torch.int16)[None, None],
        instances,
    )
