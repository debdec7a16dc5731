"""The arms of a study.yaml, ways to train, and which lesions their labels lack."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, field_validator, model_serializer, model_validator
from pydantic.config import JsonDict
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.study.fields import (
    NAME,
    FileMapping,
    Listed,
    Number,
    Text,
    Truth,
    Whole,
    check_keys,
    did_you_mean,
    problem,
)
from nnunet_lopsided.study.trainer_choice import is_ours, known_trainers, other_trainers
from nnunet_lopsided.trainers.names import SOFT
from nnunet_lopsided.variants.choosing import MODES, Mode

FULL = "full"
# The modes of censoring that draw: with another seed other lesions are missing.
_SEEDED = ("stochastic", "reader")


def _none_or_mapping(schema: JsonDict) -> None:
    """JSON schema of a censoring."""
    mapping: JsonDict = {**schema, "required": ["mode"]}
    # In place: pydantic ignores what such a function returns.
    schema.clear()
    schema["anyOf"] = [{"const": "none"}, mapping]


@dataclass(frozen=True)
class Censoring(FileMapping):
    """Which lesions the training labels lack; ``mode`` None: none. A file then has the word ``none``, no mapping."""

    __pydantic_config__ = ConfigDict(**FileMapping.__pydantic_config__, json_schema_extra=_none_or_mapping)
    mode: Mode | None = None
    """Which lesions are missed."""
    rate: Annotated[float, Number(0, 1)] | None = None
    """Share of lesions that are missing; mode reader has one of its own."""
    seeds: Annotated[tuple[Annotated[int, Whole()], ...], Listed()] = (0,)
    """Every seed is a set of labels of its own; several for stochastic and reader alone."""

    @property
    def name(self) -> str:
        """What arms and tables call it.

        Example:
            >>> Censoring().name, Censoring("size", 0.5).name, Censoring("reader").name, Censoring("size", 0.125).name
            ('full', 'size50', 'reader', 'size12p5')
        """
        if self.mode is None:
            return FULL
        # The name goes into names of datasets and folders of nnU-Net, where a dot would look like a file ending.
        return self.mode + ("" if self.rate is None else f"{100 * self.rate:g}".replace(".", "p"))

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: object) -> object:
        # Made in Python, not read from a file.
        if isinstance(value, (ArgsKwargs, cls)):
            return value
        keys = ("mode", "rate", "seeds")
        if value == "none":
            return {}
        if not isinstance(value, dict):
            raise problem(f"none or a mapping with the keys {', '.join(keys)}")
        given = check_keys(value, keys, required=("mode",))
        # A YAML key without a value is null, which would else mean that nothing is censored.
        if given["mode"] is None:
            raise problem(f"one of {', '.join(MODES)}", "nothing", "mode")
        return given

    @model_validator(mode="after")
    def _fits_its_mode(self) -> Censoring:
        if self.mode is not None and self.rate is None and self.mode != "reader":
            raise problem(f"a rate for mode {self.mode}", "none")
        if len(self.seeds) > 1 and self.mode not in _SEEDED:
            expected = f"one seed: mode {self.mode} deletes the same lesions with any"
            raise problem(expected, f"a list of {len(self.seeds)}", "seeds")
        return self

    @model_serializer(mode="plain")
    def _as_in_a_file(self) -> object:
        mapping = {"mode": self.mode, "rate": self.rate, "seeds": self.seeds}
        return "none" if self.mode is None else mapping


@dataclass(frozen=True)
class Relabelled(FileMapping):
    """Labels to which candidates of an audit of another arm's cross-validation are added."""

    by: Text
    """Name of that arm."""
    above: Annotated[float, Number(0, 1)] = 0.5
    """The score from which a candidate is added, unread: self-training."""
    read: Annotated[int, Whole(1)] | None = None
    """Instead, how many candidates a reader who knows the truth decides on; nothing: nobody reads them."""

    @model_validator(mode="before")
    @classmethod
    def _above_or_read(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("above") is not None and value.get("read") is not None:
            raise problem("either above or read", "both")
        return value


@dataclass(frozen=True)
class Completed(FileMapping):
    """Labels completed by another arm's cross-validation: ``lopsided-complete``."""

    by: Text
    """Name of that arm."""
    rounds: Annotated[int, Whole(1, 2)] = 1
    """2: a second cross-validation learns from the soft targets of the first, and its networks complete the labels."""
    sample: Annotated[int, Whole(0)] = 0
    """How many random candidates a reader who knows the truth decides on, before zones are drawn; 0: none."""
    way: Literal["soft", "zones"] | None = None
    """Soft targets beside the labels, or zones in them; nothing: zones where a sample is read."""

    @property
    def by_zones(self) -> bool:
        """Whether labels are changed, in place of soft targets beside them."""
        return self.way == "zones" or self.sample > 0

    @property
    def how(self) -> str:
        """What distinguishes it from one round without a reader, in words.

        Example:
            >>> Completed("a").how, Completed("a", rounds=2).how, Completed("a", sample=60).how
            ('', ' in 2 rounds', ' by zones, 60 candidates read')
        """
        zones = " by zones" if self.by_zones else ""
        read = f", {self.sample} candidates read" if self.sample else ""
        return ("" if self.rounds == 1 else f" in {self.rounds} rounds") + zones + read

    @model_validator(mode="after")
    def _sample_makes_zones(self) -> Completed:
        if self.sample == 1:
            raise problem("0 or at least 2", "1", "sample")
        if self.sample and self.way == "soft":
            raise problem("zones where a sample is read", "soft", "way")
        return self


@dataclass(frozen=True, kw_only=True)
class Arm(FileMapping):
    """One way to train."""

    name: Annotated[str, NAME]
    """In the study."""
    trainer: Text
    """Of nnU-Net, of this package with its hyper-parameters in the name, or of your nnUNet_extTrainer."""
    censoring: Annotated[tuple[Text, ...], Listed()] | None = None
    """Names of the censorings it is trained on, such as full or size50; nothing: all."""
    ignored: Truth = False
    """Whether it is told where labels lack lesions, by the ignore label: an oracle."""
    relabelled: Relabelled | None = None
    """How its labels are changed before it is trained; nothing: they are not."""
    completed: Completed | None = None
    """How its labels are completed; for soft targets its trainer has _softtargets in its name. Nothing: not at all."""
    repetitions: Annotated[int, Whole(1, 999)] | None = None
    """How many of the study's repetitions it has; nothing: all."""

    @property
    def own_labels(self) -> str:
        """What was done to the labels before it is trained, in words; empty: nothing. Arms with the same share them."""
        if self.ignored:
            return "with ignored lesions"
        if self.completed is not None:
            return f"completed by {self.completed.by}{self.completed.how}"
        if self.relabelled is None:
            return ""
        return f"{'' if self.relabelled.read is None else 'read and '}relabelled by {self.relabelled.by}"

    @property
    def knows_the_truth(self) -> bool:
        """Whether its labels were completed or marked with the help of the whole labels."""
        read = self.relabelled is not None and self.relabelled.read is not None
        return self.ignored or read or (self.completed is not None and self.completed.sample > 0)

    @field_validator("trainer")
    @classmethod
    def _exists(cls, name: str) -> str:
        if name in other_trainers():
            return name
        try:
            ours = is_ours(name)
        except InputError as error:
            raise InputError(f"{error}; found {name}") from None
        if not ours:
            shown = f"{name}{did_you_mean(name, known_trainers())}"
            raise problem("a trainer of nnU-Net or of this package", shown)
        return name

    @property
    def teacher(self) -> str | None:
        """Name of the arm whose cross-validation changes its labels or completes them; None: no arm."""
        rule = self.relabelled or self.completed
        return None if rule is None else rule.by

    @model_validator(mode="after")
    def _one_change_of_labels(self) -> Arm:
        given = [name for name in ("ignored", "relabelled", "completed") if getattr(self, name)]
        if len(given) > 1:
            raise problem(f"either {' or '.join(given)}", "both" if len(given) == 2 else "all")
        return self

    @model_validator(mode="after")
    def _learns_from_soft_targets(self) -> Arm:
        if self.completed is not None and self.completed.by_zones and SOFT in self.trainer:
            raise problem(f"a trainer without {SOFT} in its name for an arm completed by zones", self.trainer)
        if self.completed is not None and not self.completed.by_zones and SOFT not in self.trainer:
            raise problem(f"a trainer with {SOFT} in its name for a completed arm", self.trainer)
        return self
