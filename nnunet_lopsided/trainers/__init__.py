"""Our nnU-Net trainers, and by name any of them with hyper-parameters.

``from nnunet_lopsided.trainers import nnUNetTrainerLopsided_a10_b0p5`` gives a class that is made on first use and
kept: nnU-Net, pickle and an import all see the same object.
"""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_lopsided.trainers.names import parse_trainer_name

if TYPE_CHECKING:
    from nnunet_lopsided.trainers.base import LesionTrainer

_PREFIX = "nnUNetTrainer"
_CLASS = re.compile(rf"^class ({_PREFIX}\w*)\(", re.MULTILINE)


def __getattr__(name: str) -> "type[LesionTrainer]":
    # Only names of our trainers cost the import of nnU-Net and of all that they use.
    if name.partition("_")[0] not in base_trainers():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        bases = _bases()
    except AttributeError as error:
        # nnU-Net would take it for a name that is not there, whatever was missing in itself or in PyTorch.
        raise ImportError(f"the trainers of nnunet-lopsided cannot be loaded: {error}") from error
    parsed = parse_trainer_name(name, {base: trainer.name_options for base, trainer in bases.items()})
    if name in bases:
        trainer = bases[name]
    elif parsed is not None:
        base, attributes = parsed
        # In this module, where a pickle made in another process looks for it, by its name.
        trainer = type(name, (bases[base],), {"__module__": __name__, **attributes})
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = trainer  # the next look-up finds it without coming here
    return trainer


_MODULES = ("stock", "lopsided", "inverse_weighting", "region_specific", "tversky")


@cache
def base_trainers() -> tuple[str, ...]:
    """Names of our trainers without hyper-parameters, read from the source text: nothing is imported.

    Example:
        >>> base_trainers()[:2]
        ('nnUNetTrainer25D', 'nnUNetTrainerBootstrap')
    """
    sources = (Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8") for module in _MODULES)
    return tuple(sorted(name for source in sources for name in _CLASS.findall(source)))


def _bases() -> "dict[str, type[LesionTrainer]]":
    """Our trainers by name: the classes of these modules whose names nnU-Net would accept."""
    modules = [import_module(f"{__name__}.{module}") for module in _MODULES]
    # A module also holds trainers that it imports: each counts where it is defined.
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if name.startswith(_PREFIX) and value.__module__ == module.__name__
    }
