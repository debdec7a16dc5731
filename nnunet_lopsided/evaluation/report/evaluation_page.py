"""report.html: one file with everything inside, to be opened or sent anywhere, and to be printed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from nnunet_lopsided.evaluation.confidence import TITLES
from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.report.findings import candidate_table, case_table, lesion_table, shown_names
from nnunet_lopsided.evaluation.report.numbers import (
    AS_INDEPENDENT,
    confidence_table,
    count_table,
    intervals_of,
    metric_rows,
    surface_table,
    title_of,
)
from nnunet_lopsided.evaluation.report.summary_charts import (
    histogram_chart,
    operating_curves,
    roc_charts,
    sensitivity_chart,
)
from nnunet_lopsided.evaluation.summary import Summary
from nnunet_lopsided.evaluation.summary_content import ShareContent, SummaryContent
from nnunet_lopsided.evaluation.summary_json import flat_metrics
from nnunet_lopsided.pages.charts import diameter_range
from nnunet_lopsided.pages.html import Table, TableCell, code, interval_or_reason, number, number_or_empty, page
from nnunet_lopsided.pages.pictures import Kind, Picture
from nnunet_lopsided.pages.versions import library_versions

_CARDS = ("map", "max_sensitivity", "precision_at_max_sensitivity", "false_positives_per_case", "tp_dice")
_GALLERY: tuple[tuple[Kind, str], ...] = (
    ("missed", "Largest missed lesions"),
    ("false positive", "Most confident false positives"),
)
# Settings that hold paths or names of cases; the pattern may tell how patients are named.
NAMING_SETTINGS = (
    "references",
    "censored_references",
    "predictions",
    "dataset_json",
    "confidence_model",
    "confidence_model_has_seen",
    "patients_regex",
    "patients_table",
    "cases",
)


class Card(NamedTuple):
    """A number at the top of the page: its value, its name, and what stands small below."""

    value: str
    name: str
    below: str


def report_html(
    result: FolderResult, summary: SummaryContent, gallery: Sequence[Picture] = (), anonymous: bool = False
) -> str:
    """The page of an evaluation.

    Args:
        result: of ``evaluate_folder``.
        summary: the content of summary.json.
        gallery: pictures of misses and false positives.
        anonymous: without paths, and with numbers in place of the names of cases, which count them by name from 1.

    Returns:
        HTML, the same for the same arguments. It asks for no other file.
    """
    settings = summary["settings"]
    names = shown_names([case.case for case in result.cases], anonymous)
    shown = [replace(picture, title=names[picture.title]) for picture in gallery]
    return page(
        "evaluation/report/evaluation_page.html",
        "Lesion-wise evaluation",
        subtitle=_subtitle(result, summary),
        folders=None if anonymous else (settings["references"], settings["predictions"]),
        version=settings["version"],
        notices=_notices(summary, names, anonymous),
        cards=_cards(summary),
        curves=operating_curves(summary),
        confidence=settings["confidence"],
        at_rates=_at_rates(summary),
        size_charts=[sensitivity_chart({"": summary}), histogram_chart(summary)],
        by_diameter=_by_diameter(summary, result.summary),
        patients=roc_charts({"": summary}),
        n_patients=(summary["details"]["patients_with_lesions"], summary["details"]["patients_without_lesions"]),
        rule=result.rules.match_in_words,
        metrics=metric_rows(summary),
        by_confidence=confidence_table(summary),
        surfaces=surface_table(summary),
        counts=count_table(summary),
        by_threshold=_by_threshold(summary),
        by_annotation=_by_annotation(summary, result.summary),
        galleries=[(title, [p for p in shown if p.kind == kind]) for kind, title in _GALLERY] if shown else [],
        lesions=lesion_table(result.cases, names),
        candidates=candidate_table(result.cases, names),
        cases=case_table(result.cases, names),
        settings=settings_table(settings, anonymous),
        versions=Table(("library", "version"), [(code(k), code(v)) for k, v in library_versions().items()]),
    )


def _subtitle(result: FolderResult, summary: SummaryContent) -> str:
    counts, settings = summary["counts"], summary["settings"]
    hard = settings["hard_labels"] or any(case.kind == "labels" for case in result.cases)
    cut = "hard labels" if hard else f"p of at least {settings['threshold']:g}"
    return (
        f"{counts['cases']} cases, {counts['reference_lesions']} reference lesions, {counts['candidates']} candidates "
        f"(rules: {settings['profile']}{', changed' if settings['profile_changes'] else ''}, "
        f"matched by {result.rules.match_in_words}, confidence: {TITLES[settings['confidence']]}, {cut})"
    )


def _cards(summary: SummaryContent) -> list[Card]:
    counts = summary["counts"]
    n_found = counts["reference_lesions"] - counts["missed_lesions"]
    n_covered = summary["details"]["missed_but_covered"]
    covered = f"{n_covered} of the missed lie at least half under a candidate" if n_covered else ""
    cards = [Card(f"{n_found} / {counts['reference_lesions']}", "lesions detected", covered)]
    for name in _CARDS:
        value = flat_metrics(summary["metrics"])[name]
        cards.append(Card(number(value), title_of(name), "" if value is None else _interval_below(summary, name)))
    return cards


def _interval_below(summary: SummaryContent, name: str) -> str:
    """The first interval that there is, or why there is none."""
    intervals = intervals_of(summary, name)
    for shown in intervals:
        if shown.ends is not None:
            return f"{shown.ends[0]:.2f} to {shown.ends[1]:.2f}"
    return f"no interval: {intervals[0].undefined}" if intervals else ""


def _notices(summary: SummaryContent, names: Mapping[str, str], anonymous: bool) -> list[str]:
    """What a reader must know before any number: cases that are in none, or in another way than expected.

    Of cases that are not on an anonymous page it says how many there are; a problem may name a file.
    """
    details = summary["details"]
    skipped = [entry["case"] if anonymous else f"{entry['case']} ({entry['problem']})" for entry in details["skipped"]]
    lines = []
    for cases, text in (
        (skipped, "Skipped, in none of the numbers: "),
        (
            summary["settings"]["confidence_model_has_seen"],
            "The learned confidence was fitted to these very candidates, and may rank them too well: ",
        ),
        (
            details["probabilities_look_swapped"],
            "Most voxels outside of lesions are called lesion, and fewer inside. Channels in another order than the "
            "classes, or a network that has hardly trained? ",
        ),
        (details["missing_predictions"], "References without prediction, their lesions counted as missed: "),
        (details["predictions_without_reference"], "Predictions without reference, not evaluated: "),
    ):
        if cases:
            known = [names[case] for case in cases if case in names]
            others = [case for case in cases if case not in names]
            if anonymous and others:
                others = [f"{len(others)} cases that are not on this page" if len(others) > 1 else "1 further case"]
            lines.append(text + ", ".join(known + others) + ".")
    instances = summary.get("instances")
    if instances is not None:
        for n, what in ((instances["lesions_in_pieces"], "lesion"), (instances["candidates_in_pieces"], "candidate")):
            if n:
                lines.append(f"{n} instances lie in several pieces; each counts as one {what}.")
    if details["probabilities_look_hard"]:
        lines.append(
            "Every candidate has a probability of 1. Label maps that were saved as floating point? They are ranked as "
            "probabilities here."
        )
    return lines


def _at_rates(summary: SummaryContent) -> Table | None:
    """Sensitivity at fixed numbers of false positives per case: the FROC for paper, and for tables of others."""
    points = summary["sensitivity_at_fp_per_case"]
    if not points:
        return None
    reason = summary["undefined"].get("sensitivity_at_fp_per_case.sensitivity_ci95_bootstrap")
    rows = [
        (
            f"{point['fp_per_case']:g}",
            number(point["sensitivity"]),
            interval_or_reason(point["sensitivity_ci95_bootstrap"], reason),
            "" if point["threshold"] is None else f"{point['threshold']:.3f}",
        )
        for point in points
    ]
    header = (
        "false positives per case, at most",
        "sensitivity",
        "95% interval (bootstrap)",
        f"confidence ({summary['settings']['confidence']}) of at least",
    )
    return Table(header, rows, right=(0, 1, 3))


def _by_threshold(summary: SummaryContent) -> Table | None:
    """The same evaluation at further thresholds; the rest of the page is of the first."""
    if not summary["by_threshold"]:
        return None
    names = (*_CARDS, "f1", "lesion_wise_dice")
    rows = [
        (
            f"{row['threshold']:g}",
            *(number(flat_metrics(row["metrics"])[name]) for name in names),
            str(row["counts"]["true_positives"]),
            str(row["counts"]["false_positives"]),
        )
        for row in summary["by_threshold"]
    ]
    header = ("p of at least", *map(title_of, names), "true positives", "false positives")
    return Table(header, rows, right=range(len(header)))


def _by_diameter(content: SummaryContent, summary: Summary) -> Table:
    rows = [
        (diameter_range(b["lower_mm"], b["upper_mm"]), *_share(b, of_bin.bootstrap.undefined))
        for b, of_bin in zip(content["by_diameter"], summary.by_diameter, strict=True)
    ]
    return _shares("diameter, mm", rows)


def _by_annotation(content: SummaryContent, summary: Summary) -> Table | None:
    """Sensitivity on the lesions that an incomplete reference kept, and on those it lacks."""
    rows = [
        (group["annotation"], *_share(group, of_group.bootstrap.undefined))
        for group, of_group in zip(content["by_annotation"] or [], summary.by_annotation, strict=True)
    ]
    return _shares("in the censored reference", rows) if rows else None


def _shares(title: str, rows: Sequence[Sequence[TableCell]]) -> Table:
    header = (title, "detected", "sensitivity", f"Wilson interval, {AS_INDEPENDENT}", "95% interval (bootstrap)")
    return Table(header, rows, right=(1, 2))


def _share(group: ShareContent, reason: str | None) -> tuple[TableCell, ...]:
    """Detected lesions of a group, and why it has no bootstrap interval; without a lesion there is nothing to say."""
    some = group["lesions"] > 0  # an empty group's row says so already
    return (
        f"{group['detected']} / {group['lesions']}",
        number_or_empty(group["sensitivity"]),
        interval_or_reason(group["sensitivity_ci95_wilson"], None),
        interval_or_reason(group["sensitivity_ci95_bootstrap"], reason if some else None),
    )


def settings_table(settings: Mapping[str, object], anonymous: bool) -> Table:
    """Every rule and option; on an anonymous page without those that hold paths or names."""
    rows = [
        # An option that was not given names nobody, and shows that it was not.
        (code(name), "left out" if anonymous and name in NAMING_SETTINGS and value else code(json.dumps(value)))
        for name, value in settings.items()
    ]
    return Table(("setting", "value"), rows)
