"""The metrics as a table: value, interval, and what it means in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from nnunet_lopsided.evaluation.confidence import TITLES
from nnunet_lopsided.pages.html import interval, number, table

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


def intervals_of(summary: Mapping[str, Any], name: str) -> list[tuple[str, Sequence[float] | None, str | None]]:
    """The intervals of a metric: how each was made, its ends (None: undefined) and why it is undefined."""
    found = []
    for kind, method in (("bootstrap", _bootstrap(summary)), ("hanley_mcneil", "Hanley-McNeil"), ("wilson", "Wilson")):
        for group, key in (
            (summary["metrics"], f"{name}_ci95_{kind}"),
            (summary["intervals"], f"{name}_{kind}_ci95"),
        ):
            if key in group:
                found.append((method, group[key], summary["undefined"].get(key)))
    return found


def _bootstrap(summary: Mapping[str, Any]) -> str:
    return f"bootstrap over {summary['settings']['bootstrap_unit']}s"


def metric_table(summary: Mapping[str, Any]) -> str:
    """Every metric with its intervals and its definition."""
    rows = []
    for name, value in summary["metrics"].items():
        if "_ci95" in name or name == "map_by_confidence":
            continue
        intervals = []
        for method, ends, why in intervals_of(summary, name):
            shown = escape(why or "") if ends is None else interval(ends)
            # The reason of an undefined value is said once.
            if ends is not None or value is not None:
                intervals.append(f'{shown} <span class="why">{method}</span>')
        meaning = escape(METRICS.get(name, ("", ""))[1])
        if value is None:
            meaning += f' <span class="why">Undefined: {escape(summary["undefined"].get(name, ""))}.</span>'
        rows.append((escape(title_of(name)), number(value), "<br>".join(intervals), meaning))
    return f'<div class="scroll wide">{table(("metric", "value", "95% interval", "meaning"), rows, right=(1,))}</div>'


def confidence_table(summary: Mapping[str, Any]) -> str:
    """The average precision by every confidence side by side, the chosen one and the paper's named."""
    chosen = summary["settings"]["confidence"]
    rows = []
    for name, value in summary["metrics"]["map_by_confidence"].items():
        marks = [mark for mark, of in (("this page", chosen), ("the paper's", "mean")) if of == name]
        why = summary["undefined"].get(f"map_by_confidence.{name}")
        remark = f'<span class="why">{escape(why)}</span>' if why else ", ".join(marks)
        rows.append((f"<code>{escape(name)}</code>", escape(TITLES[name]), number(value), remark))
    note = "Candidates are matched to lesions anew by each; everything else on this page is of the one marked so."
    header = ("confidence", "of a candidate", "average precision (mAP)", "")
    return (
        "<h3>Average precision by confidence</h3>"
        f'<div class="scroll">{table(header, rows, right=(2,))}</div><p class="why">{note}</p>'
    )


def count_table(summary: Mapping[str, Any]) -> str:
    """Every count with what was counted."""
    meanings = COUNTS | DETAILS
    counts = {**summary["counts"], **{name: summary["details"][name] for name in DETAILS}}
    rows = [(name.replace("_", " "), str(n), escape(meanings.get(name, ""))) for name, n in counts.items()]
    return "<h3>Counts</h3>" + table(("", "number", "of what"), rows, right=(1,))
