"""The rules of an evaluation: everything that must be fixed before a number means anything."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from nnunet_lopsided.errors import InputError

MatchRule = Literal["centroid", "overlap"]
DistanceRule = Literal["box", "center"]
DuplicatePolicy = Literal["ignore", "fp", "tp"]


@dataclass(frozen=True)
class EvaluationRules:
    """How candidates are formed, matched and counted. The defaults are those of Yi et al. (2020), section 3.4, except
    ``distance``: the paper's letter is ``"center"``.

    Attributes:
        threshold: a voxel belongs to a candidate when its probability is at least this; within (0, 1].
        match: ``centroid``: a candidate matches the lesion nearest to its centroid, within the tolerance;
            ``overlap``: it matches every lesion with which it shares a voxel.
        distance: from a centroid to the nearest point of a lesion's voxel ``box``es, or to a voxel's ``center``.
        tolerance_mm: greatest distance of a match, in mm, inclusive.
        duplicates: what a further candidate of an already detected lesion is: left out, a false or a true positive.
        connectivity: of lesions and candidates: 26, 18 or 6 in 3D, 8 or 4 in 2D; None: 26 and 8.
        diameter_edges_mm: inner edges of the diameter bins, ascending; the outermost bins are open.
        probability_bins: equal bins over [0, 1] of the histogram behind the lesion entropy.

    Raises:
        InputError: a value is outside its range.
    """

    threshold: float = 0.1
    match: MatchRule = "centroid"
    distance: DistanceRule = "box"
    tolerance_mm: float = 1.0
    duplicates: DuplicatePolicy = "ignore"
    connectivity: int | None = None
    diameter_edges_mm: tuple[float, ...] = (3.0, 6.0, 10.0, 20.0)
    probability_bins: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InputError(f"threshold must be within (0, 1], got {self.threshold}")
        for name, allowed in (("match", MatchRule), ("distance", DistanceRule), ("duplicates", DuplicatePolicy)):
            if getattr(self, name) not in get_args(allowed):
                raise InputError(f"{name} must be one of {', '.join(get_args(allowed))}, got {getattr(self, name)!r}")
        if not (math.isfinite(self.tolerance_mm) and self.tolerance_mm >= 0):
            raise InputError(f"tolerance_mm must be a finite number of at least 0, got {self.tolerance_mm}")
        if self.connectivity not in (None, 26, 18, 6, 8, 4):
            raise InputError(f"connectivity must be 26, 18 or 6 (2D: 8 or 4), got {self.connectivity}")
        edges = self.diameter_edges_mm
        if any(not e > 0 for e in edges) or any(a >= b for a, b in pairwise(edges)):
            raise InputError(f"diameter_edges_mm must be positive and ascending, got {edges}")
        if self.probability_bins < 2:
            raise InputError(f"probability_bins must be at least 2, got {self.probability_bins}")
