"""What ``lopsided-eval`` prints: warnings on stderr, the table on stdout."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_lopsided.evaluation import FolderResult
    from nnunet_lopsided.evaluation.intervals import Interval
    from nnunet_lopsided.evaluation.surface_summary import SurfaceSummary

_WIDTH = 36  # of the names, the longest of which is that of the area under the patients' ROC curve


def title_of(name: str) -> str:
    """A metric's name as the page has it."""
    from nnunet_lopsided.evaluation.report.numbers import title_of as title

    return title(name)


def report(results: Mapping[str | None, FolderResult], output: Path) -> None:
    """Print what came of every class.

    Args:
        results: by class; None: all foreground.
        output: where the files are.
    """
    for label, result in results.items():
        if label is not None and len(results) > 1:
            print(f"{'class':<{_WIDTH}}{label}")
        _warn_of(result)
        print(_table(result))
    print(f"results in {output}: see {'classes.csv' if len(results) > 1 else 'report.html'}")


def _warn_of(result: FolderResult) -> None:
    if result.missing_predictions:
        _warn(f"counted as missed, no prediction: {', '.join(result.missing_predictions)}")
    if result.unreferenced_predictions:
        _warn(f"not evaluated, no reference: {', '.join(result.unreferenced_predictions)}")
    model = result.confidence_model
    if model is not None and result.rules.threshold != model.threshold:
        _warn(f"the learned confidence was fitted to candidates at a threshold of {model.threshold:g}: {model.path}")
    if result.seen:
        _warn(f"the learned confidence was fitted to the candidates of {len(result.seen)} of these cases, too")
    for n, whose, what in (
        (result.lesions_in_pieces, "references", "lesion"),
        (result.candidates_in_pieces, "predictions", "candidate"),
    ):
        if n:
            _warn(f"{n} instances of the {whose} lie in several pieces; each counts as one {what}")
    if result.look_swapped:
        _warn(
            f"most voxels outside of lesions are called lesion, and fewer inside: {', '.join(result.look_swapped)}: "
            "channels in another order than the classes, or a network that has hardly trained?"
        )
    if result.looks_hard:
        _warn(
            "every candidate has a probability of 1: label maps that were saved as floating point? They are ranked as "
            "probabilities; --hard-labels evaluates them as label maps"
        )
    for skipped in result.skipped:
        _warn(f"skipped: {' '.join(skipped.problem.split())}")


def _warn(text: str) -> None:
    print(f"lopsided-eval: warning: {text}", file=sys.stderr)


def _table(result: FolderResult) -> str:
    summary = result.summary
    metrics, counts, intervals = summary.metrics, summary.counts, summary.intervals
    names = (
        "max_sensitivity",
        "precision_at_max_sensitivity",
        "f1",
        "false_positives_per_case",
        "average_recall",
        "tp_dice",
        "lesion_wise_dice",
        "voxel_dice",
        "lesion_entropy_bits",
    )
    rows = (
        ("map", metrics.map, metrics.map_ci95_bootstrap, "bootstrap"),
        ("", None, metrics.map_ci95_hanley_mcneil, "Hanley-McNeil, lesions taken as independent"),
        *((name, getattr(metrics, name), intervals.get(f"{name}_bootstrap"), "bootstrap") for name in names),
    )
    if summary.n_patients_without_lesions:  # where all have lesions, nothing is to be told apart
        rows += (
            ("patient_auc", metrics.patient_auc, intervals.get("patient_auc_newcombe"), "Newcombe"),
            ("patient_sensitivity", metrics.patient_sensitivity, intervals["patient_sensitivity_wilson"], "Wilson"),
            ("patient_specificity", metrics.patient_specificity, intervals["patient_specificity_wilson"], "Wilson"),
        )
    lines = [
        _line(name, value, interval, kind=kind, undefined=summary.undefined) for name, value, interval, kind in rows
    ]
    # Below the two lines of the average precision.
    lines.insert(2, _by_confidence(result))
    # First of all: a number without its rules says nothing.
    lines.insert(0, f"{'rules':<{_WIDTH}}{result.rules.profile}: {result.rules.match_in_words}")
    lines += [f"{title_of(name):<{_WIDTH}}{value:>10}" for name, value in vars(counts).items()]
    if summary.surface is not None:
        lines += _surface_lines(summary.surface, summary.undefined)
    if summary.n_missed_but_covered:
        lines.append(
            f"{'missed but covered':<{_WIDTH}}{summary.n_missed_but_covered:>10}  at least half under a candidate"
        )
    if result.rules.min_candidate_voxels > 1:
        lines.append(f"{'dropped candidates':<{_WIDTH}}{summary.n_dropped_candidates:>10}")
    if result.skipped:
        lines.append(f"{'skipped':<{_WIDTH}}{len(result.skipped):>10}  {', '.join(s.case for s in result.skipped)}")
    for group in summary.by_volume:
        f1 = "undefined" if group.f1_case_mean is None else f"{group.f1_case_mean:.4f}"
        lines.append(f"{f'{group.name}_f1_case_mean':<{_WIDTH}}{f1:>10}  {group.detected} of {group.lesions} lesions")
    if result.by_threshold:
        lines += ["", *_threshold_lines(result)]
    # None: the second interval of the average precision is undefined, and the line of the first says why.
    return "\n".join(line for line in lines if line is not None)


def _surface_lines(surface: SurfaceSummary, undefined: Mapping[str, str]) -> list[str | None]:
    """HD95 and NSD of the lesions found, with the number of those that have none."""
    without = f", {surface.n_missed} missed without" if surface.n_missed else ""
    lines: list[str | None] = []
    for key, average in (("hd95_mm", surface.hd95_mm), ("nsd", surface.nsd)):
        name = f"NSD at {surface.tolerance_mm:g} mm" if key == "nsd" else "HD95, mm"
        reason = {f"{name}, mean": undefined.get(f"surface_distances.{key}.mean", "")}
        lines.append(_line(f"{name}, mean", average.mean, average.interval, kind="bootstrap", undefined=reason))
        if average.median is not None:
            lines.append(
                f"{f'{name}, median':<{_WIDTH}}{average.median:>10.4f}  of {surface.n_lesions} lesions{without}"
            )
    return lines


def _by_confidence(result: FolderResult) -> str:
    """The average precision by every confidence in one line; the chosen one is named."""
    values = result.summary.metrics.map_by_confidence
    shown = "  ".join(f"{name} {'undefined' if v is None else f'{v:.4f}'}" for name, v in values.items())
    return f"{'mAP by confidence':<{_WIDTH}}{shown}  (here: {result.rules.confidence})"


def _threshold_lines(result: FolderResult) -> list[str]:
    names = ("map", "max_sensitivity", "precision_at_max_sensitivity", "f1", "false_positives_per_case", "tp_dice")
    head = ("threshold", *map(title_of, names))
    widths = [max(10, len(name)) + 2 for name in head]
    lines = ["".join(f"{name:>{width}}" for name, width in zip(head, widths, strict=True))]
    for threshold, summary in result.by_threshold:
        values = [getattr(summary.metrics, name) for name in names]
        shown = [f"{threshold:g}", *("" if value is None else f"{value:.4f}" for value in values)]
        lines.append("".join(f"{cell:>{width}}" for cell, width in zip(shown, widths, strict=True)))
    return lines


def _line(
    name: str, value: float | None, interval: Interval | None, *, kind: str, undefined: dict[str, str]
) -> str | None:
    if name and value is None:
        return f"{title_of(name):<{_WIDTH}}{'undefined':>10}  {undefined[name]}"
    shown = "" if value is None else f"{value:.4f}"
    if interval is None or interval.low is None:
        return f"{title_of(name):<{_WIDTH}}{shown:>10}" if name else None
    return f"{title_of(name):<{_WIDTH}}{shown:>10}  {interval.low:.4f} to {interval.high:.4f} ({kind})"
