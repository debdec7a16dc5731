"""The metrics as a table: value, interval, and what it means in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nnunet_lopsided.evaluation.confidence import TITLES
from nnunet_lopsided.evaluation.summary_json import SummaryContent, flat_metrics, map_by_confidence, metric_intervals
from nnunet_lopsided.pages.html import Table, code, interval, interval_or_reason, number, why

# Title, and what the number says to someone who has not read the reference.
METRICS: dict[str, tuple[str, str]] = {
    "map": (
        "average precision (mAP)",
        "Area under the precision-recall curve: candidates of all cases are ranked by confidence, and every lesion "
        "found counts with the precision reached there. 1 is perfect; it never exceeds the max sensitivity.",
    ),
    "max_sensitivity": ("max sensitivity", "Share of the reference lesions found when every candidate is accepted."),
    "precision_at_max_sensitivity": ("precision", "True positives among the true and false positives then."),
    "f1": ("F1", "Harmonic mean of max sensitivity and precision."),
    "false_positives_per_case": (
        "false positives per case",
        "Candidates that match no lesion (with duplicates: fp, the duplicates too), per case, those without lesions "
        "included.",
    ),
    "tp_dice": (
        "Dice of true positives",
        "Overlap of a detected lesion with what detects it (1: same voxels), averaged over detected lesions.",
    ),
    "lesion_entropy_bits": (
        "lesion entropy, bits",
        "How spread out the probabilities of lesion voxels are: 0 when all fall into one bin, at most log2 of the "
        "number of bins. A model that is undecided about lesions has a high one.",
    ),
    "lesion_wise_dice": (
        "lesion-wise Dice",
        "Dice of the detected lesions, summed, over the number of lesions and false positives: what is missed or false "
        "counts 0.",
    ),
    "lesion_wise_dice_case_mean": (
        "lesion-wise Dice, mean over cases",
        "Lesion-wise Dice of each case alone, averaged over cases with lesions or false positives.",
    ),
    "average_recall": (
        "average recall",
        "Mean sensitivity over 0 to 5 false positives per case: the area under that part of the FROC curve.",
    ),
    "false_positives_per_lesion_free_case": (
        "false positives per lesion-free case",
        "False positives in cases without any reference lesion: what a healthy patient would be shown.",
    ),
    "false_positive_volume_mm3_per_case": (
        "false-positive volume per case, mm3",
        "Volume of the false positives (2D: area in mm2), per case.",
    ),
    "false_positive_volume_mm3_per_lesion_free_case": (
        "false-positive volume per lesion-free case, mm3",
        "Volume of the false positives in cases without any reference lesion.",
    ),
    "smallest_detected_diameter_mm": (
        "smallest lesion found, mm",
        "Diameter of the sphere (2D: circle) of the volume of the smallest detected lesion.",
    ),
    "voxel_dice": (
        "voxel-wise Dice",
        "Overlap of the segmentation with the reference per case, averaged over cases as nnU-Net does. Large lesions "
        "decide it.",
    ),
    "voxel_dice_pooled": (
        "voxel-wise Dice, pooled",
        "Overlap of segmentation and reference over the voxels of all cases together.",
    ),
    "voxel_dice_at_threshold": (
        "voxel-wise Dice of candidates",
        "As the voxel-wise Dice, of the voxels of the candidates instead of the segmentation.",
    ),
    "patient_auc": (
        "patients: area under the ROC curve",
        "Chance that a patient with lesions has a more confident candidate, right or wrong, than a patient without "
        "(equal ones count half). 0.5 is chance.",
    ),
    "patient_sensitivity": (
        "patients: sensitivity",
        "Share of the patients with lesions who have any candidate, right or wrong.",
    ),
    "patient_specificity": ("patients: specificity", "Share of the patients without lesions who have no candidate."),
}

COUNTS: dict[str, str] = {
    "cases": "cases evaluated, with lesions or without",
    "reference_lesions": "connected components of the references",
    "candidates": "connected components of the predictions",
    "true_positives": "candidates that detect a lesion",
    "false_positives": "candidates that match no lesion",
    "duplicates": "further candidates of a lesion that a more confident one detects",
    "missed_lesions": "reference lesions that no candidate detects",
}

# Further counts, in the details of summary.json.
DETAILS: dict[str, str] = {
    "patients": "units of the bootstrap",
    "patients_with_lesions": "of these with a lesion that counts",
    "patients_without_lesions": "without any reference lesion, and with all predictions",
    "cases_with_lesions": "cases with at least one reference lesion",
    "false_positives_on_lesions": "false positives that share a voxel with a lesion, but lie too far off to match it",
    "missed_but_covered": "missed lesions at least half under a candidate, which joins lesions or lies too far off",
    "merges": "candidates that share voxels with several lesions",
    "ignored_lesions": "lesions too small to count",
    "ignored_candidates": "candidates that match only such lesions",
    "dropped_candidates": "candidates of too few voxels, dropped before matching and in none of the other numbers",
}


def title_of(name: str) -> str:
    """A metric's name for readers."""
    if name.startswith("map_by_"):
        return f"mAP by {name.removeprefix('map_by_')}"
    return METRICS[name][0] if name in METRICS else name.replace("_", " ")


class ShownInterval(NamedTuple):
    """How a 95% interval was made, its ends (None: undefined) and why it is undefined."""

    method: str
    ends: Sequence[float] | None
    undefined: str | None


class MetricRow(NamedTuple):
    """A metric as the table of numbers shows it.

    Attributes:
        title: its name for readers.
        value: with three decimals, or ``undefined``.
        intervals: ends or reason of each, and how it was made.
        meaning: what it says.
        undefined: why it has no value; empty: it has.
    """

    title: str
    value: str
    intervals: list[tuple[str, str]]
    meaning: str
    undefined: str


# What is wrong with an interval by a formula for independent lesions (docs/reference/evaluation.md has the simulation).
AS_INDEPENDENT = "lesions taken as independent"


def intervals_of(content: SummaryContent, name: str) -> list[ShownInterval]:
    """The intervals of a metric."""
    bootstrap = f"bootstrap over {content['settings']['bootstrap_unit']}s"
    intervals = metric_intervals(content["metrics"]) | content["intervals"]
    return [
        ShownInterval(method, intervals[key], content["undefined"].get(key))
        for kind, method in (
            ("bootstrap", bootstrap),
            ("hanley_mcneil", f"Hanley-McNeil, {AS_INDEPENDENT}: held the truth in 80% of simulations"),
            ("newcombe", "Newcombe"),
            # Patients are independent; lesions of one patient are not.
            ("wilson", "Wilson" if name.startswith("patient_") else f"Wilson, {AS_INDEPENDENT}: in 85%"),
        )
        # summary.json names those beside their metric one way, and those under ``intervals`` another.
        for key in (f"{name}_ci95_{kind}", f"{name}_{kind}_ci95")
        if key in intervals
    ]


def metric_rows(content: SummaryContent) -> list[MetricRow]:
    """Every metric with its intervals and its definition."""
    rows = []
    for name, value in flat_metrics(content["metrics"]).items():
        if name.startswith("map_by_"):  # they have a table of their own
            continue
        # The reason of an undefined value is said once.
        intervals = [
            (interval(shown.ends) or shown.undefined or "", shown.method)
            for shown in intervals_of(content, name)
            if shown.ends is not None or value is not None
        ]
        undefined = content["undefined"].get(name, "") if value is None else ""
        rows.append(MetricRow(title_of(name), number(value), intervals, METRICS.get(name, ("", ""))[1], undefined))
    return rows


def confidence_table(content: SummaryContent) -> Table:
    """The average precision by every confidence side by side, the chosen one and the paper's named."""
    chosen = content["settings"]["confidence"]
    rows = []
    for name, value in map_by_confidence(content["metrics"]).items():
        marks = [mark for mark, of in (("this page", chosen), ("the paper's", "mean")) if of == name]
        reason = content["undefined"].get(f"map_by_confidence.{name}")
        rows.append((code(name), TITLES[name], number(value), why(reason) or ", ".join(marks)))
    return Table(("confidence", "of a candidate", "average precision (mAP)", ""), rows, right=(2,))


def surface_table(content: SummaryContent) -> Table | None:
    """HD95 and NSD of the lesions found, and how many have none; None: they were not asked for."""
    surface = content.get("surface_distances")
    if surface is None:
        return None
    named = (
        ("HD95, mm", "hd95_mm", surface["hd95_mm"]),
        (f"NSD at {surface['nsd_tolerance_mm']:g} mm", "nsd", surface["nsd"]),
    )
    rows = []
    for title, name, average in named:
        reason = content["undefined"].get(f"surface_distances.{name}.mean_ci95_bootstrap")
        ends = interval_or_reason(average["mean_ci95_bootstrap"], reason)
        rows.append((title, number(average["mean"]), ends, number(average["median"])))
    caption = f"Of the {surface['lesions']} lesions found; the {surface['missed_lesions']} missed ones have no value."
    header = ("", "mean over lesions", "95% interval (bootstrap)", "median")
    return Table(header, rows, right=(1, 3), caption=caption)


def count_table(content: SummaryContent) -> Table:
    """Every count with what was counted."""
    meanings = COUNTS | DETAILS
    details: Mapping[str, object] = content["details"]
    counts: dict[str, object] = {**content["counts"], **{name: details[name] for name in DETAILS}}
    rows = [(name.replace("_", " "), str(n), meanings.get(name, "")) for name, n in counts.items()]
    return Table(("", "number", "of what"), rows, right=(1,))
