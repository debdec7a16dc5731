"""What a seed fixes: every use draws from a stream of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from unittest.mock import patch

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet_trainer


class Purpose(IntEnum):
    """What is drawn from a seed. The numbers are part of what a seed means: they stay."""

    INITIALISATION = 0
    EPOCH = 1
    TRAINING_WORKERS = 2
    VALIDATION_WORKERS = 3


def derived_seed(seed: int, *purpose: int) -> int:
    """A seed below 2**32 for one purpose, independent of those for others.

    Example:
        >>> derived_seed(1, 0) == derived_seed(1, 0), derived_seed(1, 0) == derived_seed(1, 1)
        (True, False)
    """
    # Not seed + purpose: the stream of one purpose would be another's of the next seed.
    return int(np.random.SeedSequence(seed, spawn_key=purpose).generate_state(1)[0])


def seed_everything(seed: int, *purpose: int) -> None:
    """Seed the generators of PyTorch (all devices), NumPy and Python, which nnU-Net and batchgenerators draw from."""
    number = derived_seed(seed, *purpose)
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002 - what nnU-Net's data loader draws from
    random.seed(number)


@contextmanager
def seeded_workers(seed: int | None, *where: int) -> Iterator[None]:
    """Inside, nnU-Net's worker processes are seeded: first those that make training batches, then those of validation.

    Args:
        seed: None: nothing is changed.
        where: numbers that the streams depend on, too. Streams begin anew with ``--c``, so the epoch belongs to them:
            the patches of the first one do not come again.
    """
    if seed is None:
        yield
        return
    purposes = iter((Purpose.TRAINING_WORKERS, Purpose.VALIDATION_WORKERS))
    make = NonDetMultiThreadedAugmenter

    def with_seeds(*args: object, num_processes: int, **kwargs: object) -> NonDetMultiThreadedAugmenter:
        purpose = next(purposes)
        seeds = [derived_seed(seed, purpose, *where, worker) for worker in range(num_processes)]
        return make(*args, **{**kwargs, "num_processes": num_processes, "seeds": seeds})

    # nnU-Net has no argument for seeds.
    with patch.object(nnunet_trainer, "NonDetMultiThreadedAugmenter", with_seeds):
        yield
