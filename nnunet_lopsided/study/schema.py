"""What a study is: study.yaml, as pydantic checks it and as the rest of the package uses it.

A field is a key of the file: its kind, its default and what it means stand here, or in :mod:`.arms`, and nowhere else.
``lopsided-study schema`` prints the same for editors.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, field_validator, model_validator
from pydantic.dataclasses import dataclass

from nnunet_lopsided.evaluation.confidence import Confidence
from nnunet_lopsided.evaluation.rules import RENAMED_PROFILES, Profile
from nnunet_lopsided.nnunet.magnified import checked_factors
from nnunet_lopsided.planning.rules_25d import Overrides
from nnunet_lopsided.planning.small_names import PARENTS as SMALL
from nnunet_lopsided.study.arms import Arm, Censoring
from nnunet_lopsided.study.fields import (
    NAME,
    FileMapping,
    Listed,
    Name,
    Number,
    OneOf,
    OrWord,
    Text,
    Truth,
    Whole,
    problem,
)
from nnunet_lopsided.study.trainer_choice import with_seed

# Planner -> the name nnU-Net gives its plans.
PLANNERS = {
    "ExperimentPlanner": "nnUNetPlans",
    "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans",
    "nnUNetPlannerResEncL": "nnUNetResEncUNetLPlans",
    "nnUNetPlannerResEncXL": "nnUNetResEncUNetXLPlans",
}
# Configurations that lopsided-plan adds -> the one of nnU-Net's whose preprocessed data they use.
PARENTS = {"2.5d": "3d_fullres", **SMALL}
_STUDY_NAME = Name(
    r"[A-Za-z0-9][A-Za-z0-9_.-]*", "a name of letters, digits, '.', '_' and '-' that begins with a letter or digit"
)
_CONFIGURATIONS = OneOf(
    ("2d", "3d_fullres", "3d_lowres", *PARENTS), not_text="a configuration such as 2d, 2.5d, 3d_fullres"
)


@dataclass(frozen=True, kw_only=True)
class Phantom(FileMapping):
    """Procedural brains: the options of ``python -m nnunet_lopsided.commands.phantom``."""

    # One to train on and one to validate.
    train: Annotated[int, Whole(2)] = 24
    """Training cases."""
    test: Annotated[int, Whole(0)] = 12
    """Test cases."""
    shape: Annotated[tuple[Annotated[int, Whole(8)], Annotated[int, Whole(8)], Annotated[int, Whole(8)]], Listed()] = (
        32,
        80,
        80,
    )
    """Voxels along z, y and x."""
    spacing: Annotated[
        tuple[Annotated[float, Number(0.01)], Annotated[float, Number(0.01)], Annotated[float, Number(0.01)]], Listed()
    ] = (2.0, 1.6, 1.6)
    """Size of a voxel in mm along z, y and x."""
    seed: Annotated[int, Whole()] = 0
    """Of the brains and their lesions."""
    lesions: Annotated[float, Number(0)] | None = None
    """Mean number of lesions per case; nothing: the command's own."""
    diameter: Annotated[float, Number(0)] | None = None
    """Median diameter of lesions in mm; nothing: the command's own."""
    contrast: Annotated[float, Number(0)] | None = None
    """How much lesions stand out; nothing: the command's own."""


@dataclass(frozen=True)
class Dataset(FileMapping):
    """One dataset under the study's own name for it: exactly one of ``folder``, ``id`` and ``phantom``."""

    __pydantic_config__ = ConfigDict(
        **FileMapping.__pydantic_config__,
        json_schema_extra={"oneOf": [{"required": [source]} for source in ("folder", "id", "phantom")]},
    )
    name: Annotated[str, NAME]
    """In the study."""
    folder: Text | None = None
    """A dataset in nnU-Net's raw layout; relative to where the file lies."""
    # nnU-Net's ids have three digits.
    id: Annotated[int, Whole(1, 999)] | None = None
    """Of a dataset below your nnUNet_raw."""
    phantom: Phantom | None = None
    """Procedural brains."""

    @property
    def source(self) -> str | int | Phantom:
        """The one that is given."""
        (source,) = (s for s in (self.folder, self.id, self.phantom) if s is not None)
        return source

    @model_validator(mode="after")
    def _one_source(self) -> Dataset:
        given = [key for key in ("folder", "id", "phantom") if getattr(self, key) is not None]
        if len(given) != 1:
            raise problem("exactly one of the keys folder, id, phantom", ", ".join(given) or "none of them")
        return self


@dataclass(frozen=True)
class Budget(FileMapping):
    """What the names of our trainers get that do not set it themselves; nnU-Net's own keep theirs."""

    epochs: Annotated[int, Whole(1)] | None = None
    """Of a training; nothing: the trainer's."""
    iterations: Annotated[int, Whole(1)] | None = None
    """Of an epoch; nothing: the trainer's."""


@dataclass(frozen=True, kw_only=True)
class Plan25d(FileMapping):
    """Options of ``lopsided-plan``; it chooses what is not given."""

    slices: Annotated[int, Whole(1)] | None = None
    """Neighbouring slices that the network sees, an odd number."""
    encoder: Text | None = None
    """Of segmentation_models_pytorch."""
    decoder: Text | None = None
    """deeplabv3 or deeplabv3plus."""
    output_stride: Annotated[int, Whole(1)] | None = None
    """8 or 16."""
    patch: Annotated[tuple[Annotated[int, Whole(1)], Annotated[int, Whole(1)]], Listed()] | None = None
    """Height and width in voxels."""
    batch_size: Annotated[int, Whole(1)] | None = None
    """Patches per iteration."""
    gpu_memory: Annotated[float, Number(0.1)] | None = None
    """In GB, of the GPU that is planned for."""
    pretrained: Text | None = None
    """Weights to begin with."""

    @model_validator(mode="after")
    def _can_be_planned(self) -> Plan25d:
        # Made only to be checked: what cannot be planned is refused before anything runs.
        Overrides(n_slices=self.slices, encoder=self.encoder, decoder=self.decoder, output_stride=self.output_stride)
        return self


@dataclass(frozen=True, kw_only=True)
class Evaluation(FileMapping):
    """What is evaluated and how: options of ``lopsided-eval``."""

    cases: Annotated[tuple[Literal["test", "validation"], ...], Listed()] = ("test",)
    """Test cases, those that a fold held out, or both."""
    profile: Profile = "paper"
    """The rules by which lesions are found."""
    label: Text | None = None
    """Class or region; nothing: all foreground."""
    patients_regex: Text | None = None
    """Its first group is the patient in a case's name."""
    confidence: Confidence | None = None
    """What ranks candidates; nothing: as the profile does."""
    magnify: Annotated[tuple[Annotated[float, Number(1)], ...], Listed()] | None = None
    """How many times test images are magnified for further predictions; nothing: they are predicted as they are."""

    @field_validator("magnify")
    @classmethod
    def _can_be_magnified(cls, factors: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if factors is None else checked_factors(factors, "the factors")

    @field_validator("profile", mode="before")
    @classmethod
    def _has_its_name_of_today(cls, profile: object) -> object:
        # Else the name that is most alike would be proposed, which is that of another year's rules.
        if isinstance(profile, str) and profile in RENAMED_PROFILES:
            raise problem(f"{RENAMED_PROFILES[profile]}, as this profile is called now")
        return profile


@dataclass(frozen=True, kw_only=True)
class Resources(FileMapping):
    """What one training may take."""

    cpus: Annotated[int, Whole(1)] = 2
    """Cores."""
    gpus: Annotated[int, Whole(1)] = 1
    """GPUs, when the device is cuda."""
    memory_gb: Annotated[float, Number(0.1)] = 8.0
    """Main memory."""
    hours: Annotated[float, Number(0.01)] = 24.0
    """Time limit."""
    seconds_per_iteration: Annotated[float, Number(0)] | None = None
    """For the estimate; nothing: measured in the study, or else assumed."""


@dataclass(frozen=True, kw_only=True)
class Study(FileMapping):
    """A whole study; docs/reference/study.md says more of every key."""

    name: Annotated[str, _STUDY_NAME]
    """Of the study and its folder."""
    datasets: Annotated[tuple[Dataset, ...], Listed()]
    """What is trained on."""
    censoring: Annotated[tuple[Censoring, ...], Listed()] = (Censoring(),)
    """Which lesions the labels lack, one way after the other."""
    patients: Annotated[tuple[Annotated[int | None, Whole(1), OrWord("all", None)], ...], Listed()] = (None,)
    """Numbers of training patients."""
    configurations: Annotated[tuple[Annotated[str, _CONFIGURATIONS], ...], Listed()] = ("3d_fullres",)
    """Of nnU-Net, and those that lopsided-plan adds."""
    planner: Annotated[str, OneOf(tuple(PLANNERS))] = "ExperimentPlanner"
    """Of nnU-Net."""
    plan_25d: Plan25d = Plan25d()
    """Options of lopsided-plan for 2.5d."""
    arms: Annotated[tuple[Arm, ...], Listed()]
    """Ways to train."""
    baseline: Annotated[str, Name(".+", "the name of an arm")] = ""
    """The arm that, with full labels, everything is compared with; nothing: the first."""
    folds: Annotated[tuple[Annotated[int | str, Whole(0, 99), OrWord("all", "all")], ...], Listed()] = (0,)
    """Numbers of folds, or all: trained on everything, for test cases alone."""
    splits: Annotated[int, Whole(2, 99)] = 5
    """Into how many folds a dataset without folds of its own is cut."""
    repetitions: Annotated[int, Whole(1, 999)] = 1
    """Trainings of everything."""
    seeds: Truth | None = None
    """Whether a repetition of our trainers has its number as seed; nothing: yes, unless the folder has some without."""
    budget: Budget = Budget()
    """Put into the names of our trainers."""
    evaluation: Evaluation = Evaluation()
    """What is evaluated and how."""
    mirroring: Truth = True
    """Test-time mirroring where test cases are predicted."""
    device: Literal["cpu", "cuda", "mps"] = "cuda"
    """Where trainings run."""
    resources: Resources = Resources()
    """Of one training."""
    dataset_ids: Annotated[tuple[Annotated[int, Whole(1)], Annotated[int, Whole(1)]], Listed()] = (800, 999)
    """The first and the last id that the study may use in its own folder."""

    @property
    def plans(self) -> str:
        """Name of the plans."""
        return PLANNERS[self.planner]

    def repetitions_of(self, arm: Arm) -> int:
        """How often an arm is trained on the same labels."""
        return arm.repetitions or self.repetitions

    def trainer_of(self, arm: Arm, repetition: int) -> str:
        """The trainer of a repetition; one of ours has its number as seed, so that arms are compared on the same."""
        return arm.trainer if self.seeds is False else with_seed(arm.trainer, repetition)
