"""The types of what audit.json holds."""

from __future__ import annotations

from typing import TypedDict

from nnunet_lopsided.audit.ranking import RankBy


# TypedDicts, as they are what json writes and reads: checked by mypy, and plain dictionaries when the program runs.
class ModelContent(TypedDict):
    """A row of ``models``: see :class:`~nnunet_lopsided.audit.inputs.Model`."""

    trainer: str
    plans: str
    configuration: str


class AuditCountsContent(TypedDict):
    """``counts``; fainter candidates are among the candidates."""

    cases: int
    patients: int
    annotated_lesions: int
    annotated_lesions_found: int
    candidates: int
    fainter_candidates: int


class ReliabilityContent(TypedDict):
    """A row of ``likeness.reliability``: see :class:`~nnunet_lopsided.audit.ranking.ReliabilityBin`."""

    predicted: float
    observed: float
    n: int


class LikenessContent(TypedDict):
    """``likeness``: see :class:`~nnunet_lopsided.audit.ranking.Likeness`."""

    separation_auc: float
    coefficients: dict[str, float]
    reliability: list[ReliabilityContent]


class MissRateContent(TypedDict):
    """``miss_rate`` and its like: see :class:`~nnunet_lopsided.audit.miss_rate.MissRate`; None: undefined."""

    lower_mm: float
    upper_mm: float | None
    annotated_lesions: int
    annotated_lesions_found: int
    candidates: int
    missed_share_of_candidates: float | None
    missed_lesions: float | None
    miss_rate: float | None
    miss_rate_ci95_bootstrap: list[float] | None
    undefined: str | None


class OutsideContent(TypedDict):
    """``outside_miss_rate``: candidates of hardly annotated diameters, and the rate if all were missed lesions."""

    candidates: int
    miss_rate_if_missed: float


class CutBackContent(TypedDict):
    """``cut_back``: where candidates are cut, of their highest probability, and how well annotated lesions fit then."""

    fraction: float
    mean_dice_of_annotated: float | None


class AuditSettingsContent(TypedDict):
    """``settings``: what was asked for."""

    label: str | None
    magnify: list[float]
    threshold: float
    connectivity: int | None
    tolerance_mm: float
    diameter_edges_mm: list[float]
    patients: str
    seed: int
    bootstrap_replicates: int


class AuditedCaseContent(TypedDict):
    """A value of ``cases``."""

    fold: int
    label_sha256: str


class DetectorContent(TypedDict):
    """``detector``: see :class:`~nnunet_lopsided.audit.detector.Detector`; None: undefined."""

    annotated_lesions: int
    annotated_lesions_found: int
    sensitivity: float | None
    false_positives_per_case: float
    average_precision: float | None
    least_sensitivity: float
    least_average_precision: float


class InjectedRangeContent(TypedDict):
    """A row of ``injected.by_diameter``: see :class:`~nnunet_lopsided.audit.missed_by_size.SizeRange`."""

    lower_mm: float
    upper_mm: float | None
    annotated_lesions: int
    injected: int
    found: int
    recall: float | None
    by_injected: float | None
    by_highest_scores: float | None
    by_annotated: float | None
    missed_lesions: float | None
    seen: float | None
    seen_ci95_bootstrap: list[float] | None
    seen_rising: float | None


class InjectedContent(TypedDict):
    """``injected``: see :class:`~nnunet_lopsided.audit.missed_by_size.MissedBySize`; None: undefined."""

    seed: int
    per_case: int
    lesions: int
    by_diameter: list[InjectedRangeContent]
    missed_lesions: float | None
    miss_rate: float | None
    miss_rate_ci95_bootstrap: list[float] | None
    undefined: str | None


class DecidedContent(TypedDict):
    """What decisions depend on, and the audit's id is made from, together with the candidates."""

    schema_version: int
    tool: str
    version: str
    dataset: str
    models: list[ModelContent]
    folds: list[int]
    counts: AuditCountsContent
    ranked_by: RankBy
    likeness: LikenessContent | None
    no_likeness: str
    miss_rate: MissRateContent
    miss_rate_in_any_prediction: MissRateContent | None
    miss_rate_by_diameter: list[MissRateContent]
    outside_miss_rate: OutsideContent | None
    cut_back: CutBackContent
    settings: AuditSettingsContent
    not_audited: list[str]
    not_magnified: str
    cases: dict[str, AuditedCaseContent]


class AuditContent(DecidedContent):
    """What audit.json holds.

    Files of older versions may lack keys that were added since, without a new ``schema_version``; what is needed of
    them is read by :func:`~nnunet_lopsided.audit.stored_record.read_record`.
    """

    # What follows from the rest has no part in the id: it could change with a version while decisions stay valid.
    id: str
    detector: DetectorContent
    withheld: str | None
    injected: InjectedContent | None
    maps: dict[str, str]
