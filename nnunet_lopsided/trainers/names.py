"""Hyper-parameters in a trainer's name: ``nnUNetTrainerLopsided_a10_b0p5_w5_100epochs_250iters``.

nnU-Net stores nothing of a trainer but its name, so the name is where hyper-parameters must be for a checkpoint to be
continued and predicted with. Pure text: no nnU-Net here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunet_lopsided.errors import InputError

# In the name of a trainer that takes soft targets.
SOFT = "_softtargets"


@dataclass(frozen=True, kw_only=True)
class NameOption:
    """One option a trainer's name may carry.

    Attributes:
        attribute: the class attribute it sets.
        form: how it is written, with N for the number: ``aN`` or ``Nepochs``. A decimal point is written ``p``.
        low: smallest value.
        high: largest value, None for no limit.
        integer: whether only whole numbers are meant.
        excludes_low: whether the value must be above ``low`` rather than at least that.
        meaning: a few words for the error message and the documentation.
    """

    attribute: str
    form: str
    meaning: str
    low: float
    high: float | None = None
    integer: bool = False
    excludes_low: bool = False

    def parse(self, token: str) -> float | int | None:
        """The value in ``token``, or None if the token is not of this form.

        Raises:
            InputError: it is of this form, but its value is out of range.
        """
        prefix, suffix = self.form.split("N")
        match = re.fullmatch(prefix + (r"([0-9]+)" if self.integer else r"([0-9]+)(?:p([0-9]+))?") + suffix, token)
        if match is None:
            return None
        if self.integer:
            value: float | int = int(match[1])
        else:
            value = float(f"{match[1]}.{match[2] or 0}")
        too_low = value <= self.low if self.excludes_low else value < self.low
        if too_low or (self.high is not None and value > self.high):
            raise InputError(f"{self.attribute} must be {self.range}, got {value:g}")
        return value

    @property
    def range(self) -> str:
        """The allowed values in words."""
        if self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        return f"{'above' if self.excludes_low else 'at least'} {self.low:g}"

    def __str__(self) -> str:
        kind = "whole number" if self.integer else "number"
        return f"_{self.form} ({self.meaning}, {kind} {self.range})"


@dataclass(frozen=True)
class NameFlag:
    """A word a trainer's name may carry that sets an attribute to one value.

    Attributes:
        attribute: the class attribute it sets.
        form: the word.
        value: what the attribute becomes.
        meaning: a few words for the error message and the documentation.
    """

    attribute: str
    form: str
    meaning: str
    value: object = True

    def parse(self, token: str) -> object:
        """The value if the token is this word, else None."""
        return self.value if token == self.form else None

    def __str__(self) -> str:
        return f"_{self.form} ({self.meaning})"


Option = NameOption | NameFlag


def with_soft_targets(trainer: str) -> str:
    """The trainer that takes soft targets and is the same otherwise.

    Example:
        >>> with_soft_targets("nnUNetTrainerLopsided_seed1"), with_soft_targets("nnUNetTrainerLopsided_softtargets")
        ('nnUNetTrainerLopsided_seed1_softtargets', 'nnUNetTrainerLopsided_softtargets')
    """
    return trainer if SOFT in trainer else trainer + SOFT


def parse_trainer_name(name: str, options: Mapping[str, tuple[Option, ...]]) -> tuple[str, dict[str, object]] | None:
    """Split a trainer's name into the trainer it builds on and the hyper-parameters it sets.

    Args:
        name: for instance ``nnUNetTrainerLopsided_a10_b0p5``.
        options: for every base name, the options it takes. Options may come in any order, each once.

    Returns:
        The base name and ``{attribute: value}``; None if the name does not start with one of the base names and ``_``.

    Raises:
        InputError: the rest of the name cannot be read; the message shows the grammar.

    Example:
        >>> alpha = NameOption(attribute="alpha", form="aN", meaning="weight", low=0, excludes_low=True)
        >>> parse_trainer_name("T_a2p5", {"T": (alpha,)})
        ('T', {'alpha': 2.5})
    """
    base, separator, rest = name.partition("_")
    if not separator or base not in options:
        return None
    values: dict[str, object] = {}
    for token in rest.split("_"):
        try:
            attribute, value = _read(token, options[base])
            if attribute in values:
                raise InputError(f"{attribute} is given twice")
        except InputError as problem:
            raise InputError(f"trainer name {name}: {problem}. {grammar(base, options[base])}") from None
        values[attribute] = value
    return base, values


def grammar(base: str, options: tuple[Option, ...]) -> str:
    """How a name is written, in one line."""
    forms = "".join(f"[_{option.form}]" for option in options)
    return f"Expected {base}{forms} with {', '.join(map(str, options))}; write p for the decimal point, as in 0p5"


def likely_meant(name: str, bases: Sequence[str]) -> str | None:
    """The one of our trainers that a wrong name means: it begins with it or nearly is it, whatever the case.

    Args:
        name: as given to nnU-Net, with or without hyper-parameters and ``nnUNetTrainer``.
        bases: names of our trainers.

    Example:
        >>> [likely_meant(name, ["nnUNetTrainerLopsided"]) for name in ("lopsided", "nnUNetTrainerMine")]
        ['nnUNetTrainerLopsided', None]
    """
    prefix = "nnunettrainer"
    by_ending = {base.lower().removeprefix(prefix): base for base in bases}
    ending = name.partition("_")[0].lower().removeprefix(prefix)
    begun = [known for known in by_ending if ending.startswith(known)]
    # One or two letters wrong; a looser match would take a user's own trainer for one of ours.
    close = difflib.get_close_matches(ending, by_ending, 1, cutoff=0.8)
    likely = [*close, *sorted(begun, key=len, reverse=True)]
    return by_ending[likely[0]] if likely else None


def _read(token: str, options: tuple[Option, ...]) -> tuple[str, object]:
    for option in options:
        value = option.parse(token)
        if value is not None:
            return option.attribute, value
    raise InputError(f"cannot read '_{token}'")
