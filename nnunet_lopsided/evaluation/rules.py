"""The rules of an evaluation: everything that must be fixed before a number means anything."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal, TypeAlias, get_args

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.confidence import Confidence

MatchRule = Literal["centroid", "overlap"]
DistanceRule = Literal["box", "center"]
DuplicatePolicy = Literal["ignore", "fp", "tp"]
DiceRule = Literal["best", "union"]
CandidateRule = Literal["threshold", "dynamic"]
InstanceMaps = Literal["none", "reference", "prediction", "both"]
Profile = Literal["paper", "paper-letter", "lesions", "brats-mets-2023", "brats-mets-2025"]
# Names that profiles had, and what they are called now.
RENAMED_PROFILES = {"brats-mets": "brats-mets-2023"}
MAX_DILATION = 5
# What a field of the rules may hold.
RuleValue: TypeAlias = str | int | float | bool | tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True)
class EvaluationRules:
    """How candidates are formed, matched and counted. The defaults are those of Yi et al. (2020), section 3.4, except
    ``distance``: the paper's letter is ``"center"``.

    Attributes:
        threshold: a voxel belongs to a candidate when its probability is at least this; within (0, 1].
        match: ``centroid``: a candidate matches the lesion nearest to its centroid, within the tolerance;
            ``overlap``: it matches every lesion with which it shares a voxel.
        dilation_voxels: with ``overlap``: lesions are first grown by this many voxels (18 neighbours; 2D: 8).
        join_dilated: lesions that meet when grown by ``dilation_voxels`` are one lesion.
        distance: from a centroid to the nearest point of a lesion's voxel ``box``es, or to a voxel's ``center``.
        tolerance_mm: greatest distance of a match, in mm, inclusive.
        duplicates: what a further candidate of an already detected lesion is: left out, a false or a true positive.
        dice: of a lesion with the candidate that detects it (``best``), or with all that match it (``union``).
        min_lesion_mm3: lesions of at most this volume (2D: area in mm2) do not count, nor do candidates that match
            nothing else; 0: all count.
        connectivity: of lesions and candidates: 26, 18 or 6 in 3D, 8 or 4 in 2D; None: 26 and 8.
        diameter_edges_mm: inner edges of the diameter bins, ascending; the outermost bins are open.
        probability_bins: equal bins over [0, 1] of the histogram behind the lesion entropy.
        fp_per_case: false positives per case at which the FROC is read, ascending.
        confidence: what ranks candidates, and chooses among those of a lesion: ``mean``, ``max`` or ``sum`` of the
            probability, ``sqrt`` (mean times the square root of the number of voxels) or ``learned`` (needs a model).
        min_candidate_voxels: smaller candidates are dropped before anything is matched.
        profile: whose defaults these rules started from; a name only, see :func:`profile_rules`.
        candidates: ``threshold``: the connected components of the voxels above the threshold; ``dynamic``: around each
            peak of the probability the component above the peak over 2.5, so that lesions that one component joins are
            told apart; the threshold is then the least peak. Hard labels have components alone.
        min_iou: with ``overlap``: a candidate matches a lesion only where their intersection is at least this share of
            their union, within [0, 1]; 0: one shared voxel is enough.
        one_to_one: with ``overlap``: a candidate detects at most one lesion; the pairs are taken whose Dice have the
            highest sum, and whatever is left matches nothing.
        small_below_mm3: lesions below this volume (2D: area in mm2) and the others are also scored apart; 0: they are
            not.
        surface_distances: tell HD95 and NSD of every detected lesion.
        nsd_tolerance_mm: greatest distance at which two surfaces agree, in mm, inclusive.
        instances: whose label maps number their lesions: every positive value is one lesion or candidate, whether its
            voxels touch each other or another's; ``none``: lesions are connected components.

    Raises:
        InputError: a value is outside its range.
    """

    threshold: float = 0.1
    match: MatchRule = "centroid"
    distance: DistanceRule = "box"
    tolerance_mm: float = 1.0
    dilation_voxels: int = 0
    join_dilated: bool = False
    duplicates: DuplicatePolicy = "ignore"
    dice: DiceRule = "best"
    min_lesion_mm3: float = 0.0
    connectivity: int | None = None
    diameter_edges_mm: tuple[float, ...] = (3.0, 6.0, 10.0, 20.0)
    probability_bins: int = 100
    # Where LUNA16 reads its FROC (Setio et al. 2017), so that numbers can be compared.
    fp_per_case: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    confidence: Confidence = "mean"
    min_candidate_voxels: int = 1
    profile: Profile = "paper"
    candidates: CandidateRule = "threshold"
    min_iou: float = 0.0
    one_to_one: bool = False
    small_below_mm3: float = 0.0
    surface_distances: bool = False
    nsd_tolerance_mm: float = 1.0
    instances: InstanceMaps = "none"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InputError(f"threshold must be within (0, 1], got {self.threshold}")
        for name, allowed in (
            ("match", MatchRule),
            ("distance", DistanceRule),
            ("duplicates", DuplicatePolicy),
            ("dice", DiceRule),
            ("confidence", Confidence),
            ("profile", Profile),
            ("candidates", CandidateRule),
            ("instances", InstanceMaps),
        ):
            if getattr(self, name) not in get_args(allowed):
                raise InputError(f"{name} must be one of {', '.join(get_args(allowed))}, got {getattr(self, name)!r}")
        for name in ("tolerance_mm", "min_lesion_mm3", "small_below_mm3", "nsd_tolerance_mm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"{name} must be a finite number of at least 0, got {getattr(self, name)}")
        if not (isinstance(self.dilation_voxels, int) and 0 <= self.dilation_voxels <= MAX_DILATION):
            raise InputError(
                f"dilation_voxels must be a whole number within [0, {MAX_DILATION}], got {self.dilation_voxels}"
            )
        if not (isinstance(self.min_candidate_voxels, int) and self.min_candidate_voxels >= 1):
            raise InputError(
                f"min_candidate_voxels must be a whole number of at least 1, got {self.min_candidate_voxels}"
            )
        if self.dilation_voxels and self.match != "overlap" and not self.join_dilated:
            raise InputError(
                "dilation_voxels needs match overlap or join_dilated: a distance is measured to the lesion"
            )
        if not (math.isfinite(self.min_iou) and 0 <= self.min_iou <= 1):
            raise InputError(f"min_iou must be within [0, 1], got {self.min_iou}")
        if (self.min_iou or self.one_to_one) and (self.match != "overlap" or self.dilation_voxels):
            raise InputError("min_iou and one_to_one need match overlap without dilation_voxels")
        if self.join_dilated and not self.dilation_voxels:
            raise InputError("join_dilated needs dilation_voxels of at least 1, got 0")
        # Outputs do not name rules that are off, so that a value given in vain would leave no trace.
        if self.nsd_tolerance_mm != 1 and not self.surface_distances:
            raise InputError(f"nsd_tolerance_mm needs surface_distances, got {self.nsd_tolerance_mm} without")
        self._check_instances()
        if self.connectivity not in (None, 26, 18, 6, 8, 4):
            raise InputError(f"connectivity must be 26, 18 or 6 (2D: 8 or 4), got {self.connectivity}")
        for name in ("diameter_edges_mm", "fp_per_case"):
            values = getattr(self, name)
            if any(not 0 < v < math.inf for v in values) or any(a >= b for a, b in pairwise(values)):
                raise InputError(f"{name} must be positive and ascending, got {values}")
        if self.probability_bins < 2:
            raise InputError(f"probability_bins must be at least 2, got {self.probability_bins}")

    def _check_instances(self) -> None:
        """Refuse rules that make lesions or candidates in another way than by their numbers."""
        if self.reference_instances and self.join_dilated:
            raise InputError(
                f"instances {self.instances} tells touching lesions apart and join_dilated takes them together: give "
                "--no-join-dilated, or another profile"
            )
        if self.predicted_instances and self.candidates == "dynamic":
            raise InputError(f"instances {self.instances} needs candidates threshold: candidates are numbered already")
        if self.instances == "both" and self.connectivity is not None:
            raise InputError(f"connectivity {self.connectivity} has no part in instances both: nothing is connected")

    @property
    def reference_instances(self) -> bool:
        """Whether the values of reference label maps are the numbers of lesions."""
        return self.instances in ("reference", "both")

    @property
    def predicted_instances(self) -> bool:
        """Whether the values of predicted label maps are the numbers of candidates."""
        return self.instances in ("prediction", "both")

    @property
    def unused(self) -> frozenset[str]:
        """Rules of options that are off; outputs do not name them."""
        surface = () if self.surface_distances else ("surface_distances", "nsd_tolerance_mm")
        return frozenset((*surface, *(() if self.instances != "none" else ("instances",))))

    @property
    def match_in_words(self) -> str:
        """When a candidate matches a lesion.

        Example:
            >>> EvaluationRules().match_in_words, EvaluationRules(distance="center", tolerance_mm=2).match_in_words
            ("centroid within 1 mm of a voxel's box", "centroid within 2 mm of a voxel's centre")
        """
        if self.match == "centroid":
            where = "box" if self.distance == "box" else "centre"
            return f"centroid within {self.tolerance_mm:g} mm of a voxel's {where}"
        least = f"overlap of at least {self.min_iou:g} of the union" if self.min_iou else "overlap"
        grown = f" with the lesion grown by {self.dilation_voxels} voxels" if self.dilation_voxels else ""
        return least + grown + (", one to one" if self.one_to_one else "")

    @property
    def changes(self) -> dict[str, RuleValue]:
        """The rules that differ from the defaults of :attr:`profile`, by name."""
        defaults = profile_rules(self.profile)
        return {
            f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(defaults, f.name)
        }


# Any: every change is of its own field's type, which the rules check as they are made.
def profile_rules(profile: str, **changes: Any) -> EvaluationRules:
    """The rules of a profile, with some changed.

    - ``paper``: Yi et al. (2020), section 3.4; what :class:`EvaluationRules` has by default.
    - ``paper-letter``: the same to the letter: the distance is to a voxel's centre, and "a component whose centroid is
      within 1 mm" of an annotation is a true positive, further ones of the same lesion too.
    - ``brats-mets-2023``: the lesion-wise scores of the BraTS 2023 metastases challenge: segmentations (p >= 0.5), a
      lesion is found by whatever overlaps it when grown by one voxel, lesions that then meet are one, those of at most
      2 mm3 do not count, Dice with all that overlaps.
    - ``brats-mets-2025``: the same challenge since 2025: one candidate to one lesion by overlap, lesions below 20 mm3
      apart.
    - ``lesions``: as ``paper``, with candidates ranked by a confidence in which specks of high probability do not come
      first.

    Args:
        profile: its name.
        changes: fields of :class:`EvaluationRules` to set.

    Raises:
        InputError: there is no such profile, or a value is outside its range.

    Example:
        >>> profile_rules("brats-mets-2023", dilation_voxels=2).changes
        {'dilation_voxels': 2}
    """
    if profile in RENAMED_PROFILES:
        raise InputError(f"profile {profile} is now called {RENAMED_PROFILES[profile]}: it is the rule of that year")
    if profile not in PROFILES:
        raise InputError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}")
    return replace(PROFILES[profile], **changes)


PROFILES = {
    "paper": EvaluationRules(),
    "paper-letter": EvaluationRules(distance="center", duplicates="tp", profile="paper-letter"),
    "brats-mets-2023": EvaluationRules(
        threshold=0.5,
        match="overlap",
        dilation_voxels=1,
        join_dilated=True,
        dice="union",
        min_lesion_mm3=2.0,
        profile="brats-mets-2023",
    ),
    "brats-mets-2025": EvaluationRules(
        threshold=0.5, match="overlap", one_to_one=True, small_below_mm3=20.0, profile="brats-mets-2025"
    ),
    "lesions": EvaluationRules(confidence="sqrt", profile="lesions"),
}
