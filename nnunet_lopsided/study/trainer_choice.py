"""Which trainers a study may name: ours with hyper-parameters, nnU-Net's own, and those of the user's folders."""

from __future__ import annotations

import os
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from nnunet_lopsided.startup import PLUGIN_FOLDER, VARIABLE

_CLASS = re.compile(r"^class (nnUNetTrainer\w*)\(", re.MULTILINE)
# [0-9], as \d takes digits of other scripts too.
_EPOCHS, _ITERATIONS = re.compile(r"_([0-9]+)epochs(?:_|$)"), re.compile(r"_([0-9]+)iters(?:_|$)")
_SEED = re.compile(r"_seed[0-9]+(?:_|$)")


def other_trainers() -> frozenset[str]:
    """Names of nnU-Net's own trainers, and of those in the folders of ``nnUNet_extTrainer``.

    They are read from the source text: importing every trainer of nnU-Net takes many seconds.
    """
    return _other_trainers(os.environ.get(VARIABLE, ""))


@cache
def _other_trainers(own_folders: str) -> frozenset[str]:
    nnunet = find_spec("nnunetv2")
    folders = [
        Path(place) / "training" / "nnUNetTrainer" for place in (nnunet and nnunet.submodule_search_locations) or ()
    ]
    # The start-up line has put our own folder there, whose module makes classes from names and has none in its text.
    folders += [Path(f) for f in own_folders.split(os.pathsep) if f and f != PLUGIN_FOLDER]
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return frozenset(name for path in files for name in _CLASS.findall(path.read_text(errors="replace")))


def is_ours(name: str) -> bool:
    """Whether a trainer is one of this package, with or without hyper-parameters in its name.

    Raises:
        InputError: it starts like one of ours, but the rest of its name cannot be read.
    """
    from nnunet_lopsided import trainers

    try:
        return name.startswith("nnUNetTrainer") and getattr(trainers, name) is not None
    except AttributeError:
        return False


def known_trainers() -> tuple[str, ...]:
    """All names a study may use, ours without hyper-parameters, sorted."""
    from nnunet_lopsided.trainers import base_trainers

    return tuple(sorted({*base_trainers(), *other_trainers()}))


def with_budget(trainer: str, epochs: int | None, iterations: int | None) -> str:
    """The name of one of our trainers with a budget, where the name sets none itself.

    Example:
        >>> with_budget("nnUNetTrainerLopsided_a3", 5, 50), with_budget("nnUNetTrainer25D_9epochs", 5, 50)
        ('nnUNetTrainerLopsided_a3_5epochs_50iters', 'nnUNetTrainer25D_9epochs_50iters')
    """
    if epochs is not None and not _EPOCHS.search(trainer):
        trainer += f"_{epochs}epochs"
    if iterations is not None and not _ITERATIONS.search(trainer):
        trainer += f"_{iterations}iters"
    return trainer


def with_seed(trainer: str, seed: int) -> str:
    """The name of one of our trainers with a seed, where the name sets none itself; a name that is not ours as it is.

    Example:
        >>> [with_seed(name, 2) for name in ("nnUNetTrainer25D_5epochs", "nnUNetTrainer25D_seed7", "nnUNetTrainer")]
        ['nnUNetTrainer25D_5epochs_seed2', 'nnUNetTrainer25D_seed7', 'nnUNetTrainer']
    """
    has_seed = _SEED.search(trainer) is not None
    return trainer if has_seed or trainer in other_trainers() else f"{trainer}_seed{seed}"


def budget_of(trainer: str) -> tuple[int | None, int | None]:
    """Epochs and iterations per epoch in a trainer's name; None where it has none.

    Example:
        >>> budget_of("nnUNetTrainer25D_5epochs_50iters"), budget_of("nnUNetTrainer_5epochs")
        ((5, 50), (5, None))
    """
    return _number(_EPOCHS.search(trainer)), _number(_ITERATIONS.search(trainer))


def _number(match: re.Match[str] | None) -> int | None:
    return None if match is None else int(match[1])
