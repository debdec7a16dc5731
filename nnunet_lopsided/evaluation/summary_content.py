"""The types of what summary.json holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

# Python's own is not enough for pydantic before Python 3.12.
from typing_extensions import TypedDict

# Both ends of a 95% interval; None: undefined.
Ends: TypeAlias = list[float] | None


# ``metrics`` and ``counts``: the fields of ``Metrics`` and ``Counts`` (evaluation.summary) by their names, which stand
# there and nowhere else. An interval is its ends; None: undefined. They are read by the functions of summary_json.
MetricsContent: TypeAlias = Mapping[str, float | Ends | Mapping[str, float | None]]
CountsContent: TypeAlias = Mapping[str, int]


class ShareContent(TypedDict):
    """Lesions of a group, and how many of them were detected."""

    lesions: int
    detected: int
    sensitivity: float | None
    sensitivity_ci95_wilson: Ends
    sensitivity_ci95_bootstrap: Ends


class DiameterBinContent(ShareContent):
    """A row of ``by_diameter``; ``upper_mm`` None: no upper edge."""

    lower_mm: float
    upper_mm: float | None


class VolumeGroupContent(TypedDict):
    """A row of ``by_volume``: see :class:`~nnunet_lopsided.evaluation.by_volume.VolumeGroup`."""

    name: str
    lesions: int
    detected: int
    f1_case_mean: float | None
    sensitivity_case_mean: float | None
    precision_case_mean: float | None
    lesion_wise_dice_case_mean: float | None


class AnnotationGroupContent(ShareContent):
    """A row of ``by_annotation``: ``kept`` or ``censored``."""

    annotation: str


class AverageContent(TypedDict):
    """See :class:`~nnunet_lopsided.evaluation.surface_summary.Average`."""

    mean: float | None
    median: float | None
    mean_ci95_bootstrap: Ends


class SurfaceContent(TypedDict):
    """``surface_distances``: see :class:`~nnunet_lopsided.evaluation.surface_summary.SurfaceSummary`."""

    nsd_tolerance_mm: float
    lesions: int
    missed_lesions: int
    hd95_mm: AverageContent
    nsd: AverageContent


class InstancesContent(TypedDict):
    """``instances``: how many lesions and candidates lie in several pieces and count once; None: not numbered."""

    lesions_in_pieces: int | None
    candidates_in_pieces: int | None


class WithSurface(TypedDict, total=False):
    """What is there only where it was asked for."""

    surface_distances: SurfaceContent


class ThresholdContent(WithSurface):
    """A row of ``by_threshold``."""

    threshold: float
    metrics: MetricsContent
    counts: CountsContent


class FrocPointContent(TypedDict):
    """A row of ``sensitivity_at_fp_per_case``."""

    fp_per_case: float
    sensitivity: float
    threshold: float | None
    sensitivity_ci95_bootstrap: Ends


class SpreadContent(TypedDict):
    """``average_recall_80_percent``."""

    mean: float
    standard_deviation: float


class HistogramContent(TypedDict):
    """``lesion_histogram``: one edge more than counts."""

    edges: list[float]
    counts: list[int]


class PrCurveContent(TypedDict):
    """``curves.pr``: lists of one length, from the strictest threshold; ``recall`` None without lesions."""

    threshold: list[float]
    true_positives: list[int]
    false_positives: list[int]
    recall: list[float | None]
    precision: list[float]


class FrocCurveContent(TypedDict):
    """``curves.froc``: lists of one length, from the strictest threshold; ``sensitivity`` None without lesions."""

    threshold: list[float]
    false_positives_per_case: list[float]
    sensitivity: list[float | None]


class PatientRocContent(TypedDict):
    """``curves.patient_roc``: lists of one length, from the strictest threshold; (0, 0) and (1, 1) are left out."""

    threshold: list[float]
    false_positive_rate: list[float]
    sensitivity: list[float]


class CurvesContent(TypedDict):
    """``curves``; None without a ranking, of patients also where they all have lesions, or none."""

    pr: PrCurveContent | None
    froc: FrocCurveContent | None
    patient_roc: PatientRocContent | None


class SkippedContent(TypedDict):
    """A case that could not be evaluated, and why."""

    case: str
    problem: str


class DetailsContent(TypedDict):
    """``details``: see :class:`~nnunet_lopsided.evaluation.summary.Summary`."""

    patients: int
    patients_with_lesions: int
    patients_without_lesions: int
    cases_with_lesions: int
    false_positives_on_lesions: int
    missed_but_covered: int
    merges: int
    ignored_lesions: int
    ignored_candidates: int
    dropped_candidates: int
    probabilities_look_hard: bool
    probabilities_look_swapped: list[str]
    defined_bootstrap_replicates: int
    missing_predictions: list[str]
    predictions_without_reference: list[str]
    skipped: list[SkippedContent]


class WithInstances(TypedDict, total=False):
    """What is there only where label maps number their lesions."""

    instances: InstancesContent


class SummaryContent(WithSurface, WithInstances):
    """What summary.json holds.

    Files of older versions may lack keys that were added since, without a new ``schema_version``.
    """

    schema_version: int
    metrics: MetricsContent
    undefined: dict[str, str]
    counts: CountsContent
    intervals: dict[str, Ends]
    by_diameter: list[DiameterBinContent]
    by_annotation: list[AnnotationGroupContent] | None
    by_volume: list[VolumeGroupContent] | None
    by_threshold: list[ThresholdContent]
    sensitivity_at_fp_per_case: list[FrocPointContent]
    average_recall_80_percent: SpreadContent | None
    lesion_histogram: HistogramContent | None
    curves: CurvesContent
    details: DetailsContent
    # Any: every rule and option under its name, each of its own type, and others in files of older versions.
    settings: dict[str, Any]
