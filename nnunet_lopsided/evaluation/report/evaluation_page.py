"""report.html: one file with everything inside, to be opened or sent anywhere, and to be printed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from nnunet_lopsided.evaluation.confidence import TITLES
from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.report.findings import candidate_table, case_table, lesion_table
from nnunet_lopsided.evaluation.report.numbers import (
    confidence_table,
    count_table,
    intervals_of,
    metric_table,
    title_of,
)
from nnunet_lopsided.pages.charts import (
    diameter_range,
    figures,
    operating_curves,
    probability_histogram,
    sensitivity_by_diameter,
)
from nnunet_lopsided.pages.html import code, interval, number, page, table
from nnunet_lopsided.pages.pictures import Kind, Picture
from nnunet_lopsided.pages.versions import library_versions

_CARDS = ("map", "max_sensitivity", "precision_at_max_sensitivity", "false_positives_per_case", "tp_dice")
_OUTLINE = '<path class="outline casing" d="M0 5h40"/><path class="outline {0}" d="M0 5h40"/>'
_KEY = "".join(
    f'<span class="key"><svg viewBox="0 0 40 10" aria-hidden="true">{_OUTLINE.format(kind)}</svg></span>{name}'
    for kind, name in (("reference", "reference (solid)"), ("candidate", "prediction (dashed)"))
)


def report_html(result: FolderResult, summary: Mapping[str, Any], gallery: Sequence[Picture] = ()) -> str:
    """The page of an evaluation.

    Args:
        result: of ``evaluate_folder``.
        summary: the content of summary.json.
        gallery: pictures of misses and false positives.

    Returns:
        HTML, the same for the same arguments. It asks for no other file.
    """
    counts, settings = summary["counts"], summary["settings"]
    hard = settings["hard_labels"] or any(case.kind == "labels" for case in result.cases)
    cut = "hard labels" if hard else f"p of at least {settings['threshold']:g}"
    subtitle = (
        f"{counts['cases']} cases, {counts['reference_lesions']} reference lesions, {counts['candidates']} candidates "
        f"(rules: {settings['profile']}{', changed' if settings['profile_changes'] else ''}, "
        f"{settings['match_rule']}, confidence: {TITLES[settings['confidence']]}, {cut})"
    )
    sections = [
        ("Curves", operating_curves(summary) + _at_rates(summary)),
        ("Size and certainty", _size_and_certainty(summary)),
        ("Numbers", metric_table(summary) + confidence_table(summary) + count_table(summary)),
        ("Thresholds", _by_threshold(summary)),
        ("Kept and censored lesions", _by_annotation(summary)),
        ("Misses and false positives", _gallery(gallery)),
        ("Lesions", lesion_table(result.cases)),
        ("Candidates that detect nothing", candidate_table(result.cases)),
        ("Cases", case_table(result.cases)),
        ("Settings", _settings(settings)),
    ]
    shown = [(title, content) for title, content in sections if content]
    body = [
        "<h1>Lesion-wise evaluation</h1>",
        f'<p class="sub">{escape(subtitle)}; references {code(settings["references"])}, '
        f"predictions {code(settings['predictions'])}; nnunet-lopsided {escape(str(settings['version']))}</p>",
        _notices(summary),
        _cards(summary),
        "<nav>" + "".join(f'<a href="#s{i}">{title}</a>' for i, (title, _) in enumerate(shown)) + "</nav>",
        *(f'<section><h2 id="s{i}">{title}</h2>\n{content}</section>' for i, (title, content) in enumerate(shown)),
    ]
    return page("Lesion-wise evaluation", body)


def _cards(summary: Mapping[str, Any]) -> str:
    counts = summary["counts"]
    found = counts["reference_lesions"] - counts["missed_lesions"]
    cards = [(f"{found} / {counts['reference_lesions']}", "lesions detected", "")]
    for name in _CARDS:
        ends = next((ends for _, ends, _ in intervals_of(summary, name) if ends is not None), None)
        between = "" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"
        cards.append((number(summary["metrics"][name]), title_of(name), between))
    inner = "".join(
        f'<div class="card"><b>{value}</b><span>{name}</span><small>{between}</small></div>'
        for value, name, between in cards
    )
    return f'<div class="cards">{inner}</div>'


def _notices(summary: Mapping[str, Any]) -> str:
    details, lines = summary["details"], []
    skipped = [f"{entry['case']} ({entry['problem']})" for entry in details.get("skipped", ())]
    for names, text in (
        (skipped, "Skipped, in none of the numbers: "),
        (
            summary["settings"]["confidence_model_has_seen"],
            "The learned confidence was fitted to these very candidates, and may rank them too well: ",
        ),
        (details["missing_predictions"], "References without prediction, their lesions counted as missed: "),
        (details["predictions_without_reference"], "Predictions without reference, not evaluated: "),
    ):
        if names:
            lines.append(text + ", ".join(names) + ".")
    if details["probabilities_look_hard"]:
        lines.append(
            "Every candidate has a probability of 1. Label maps that were saved as floating point? They are ranked as "
            "probabilities here."
        )
    return "".join(f'<p class="notice">{escape(line)}</p>' for line in lines)


def _gallery(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    parts = [
        f"<p>{_KEY}</p>",
        '<p class="only-script"><label><input type="checkbox" data-bare checked> show outlines</label></p>',
    ]
    kinds: tuple[tuple[Kind, str], ...] = (
        ("missed", "Largest missed lesions"),
        ("false positive", "Most confident false positives"),
    )
    for kind, title in kinds:
        shown = "".join(picture.figure() for picture in pictures if picture.kind == kind)
        parts.append(f"<h3>{title}</h3>" + (f'<div class="gallery">{shown}</div>' if shown else "<p>none</p>"))
    parts.append(
        '<p class="why">The finding is in the middle of its picture; every lesion and candidate is outlined.</p>'
    )
    return "".join(parts)


def _at_rates(summary: Mapping[str, Any]) -> str:
    """Sensitivity at fixed numbers of false positives per case: the FROC for paper, and for tables of others."""
    if not summary["sensitivity_at_fp_per_case"]:
        return ""
    rows = [
        (
            f"{row['fp_per_case']:g}",
            number(row["sensitivity"]),
            interval(row["sensitivity_ci95_bootstrap"]),
            "" if row["threshold"] is None else f"{row['threshold']:.3f}",
        )
        for row in summary["sensitivity_at_fp_per_case"]
    ]
    header = (
        "false positives per case, at most",
        "sensitivity",
        "95% interval (bootstrap)",
        f"confidence ({escape(summary['settings']['confidence'])}) of at least",
    )
    return f'<div class="scroll">{table(header, rows, right=(0, 1, 3))}</div>'


def _by_threshold(summary: Mapping[str, Any]) -> str:
    """The same evaluation at further thresholds; the rest of the page is of the first."""
    rows = summary["by_threshold"]
    if not rows:
        return ""
    names = (*_CARDS, "f1", "lesion_wise_dice")
    cells = [
        (
            f"{row['threshold']:g}",
            *(number(row["metrics"][name]) for name in names),
            str(row["counts"]["true_positives"]),
            str(row["counts"]["false_positives"]),
        )
        for row in rows
    ]
    header = ("p of at least", *map(title_of, names), "true positives", "false positives")
    note = '<p class="why">Everything else on this page is of the first threshold.</p>'
    return f'<div class="scroll">{table(header, cells, right=range(len(header)))}</div>{note}'


def _size_and_certainty(summary: Mapping[str, Any]) -> str:
    charts = figures([sensitivity_by_diameter({"": summary}), probability_histogram(summary)])
    bins = [(diameter_range(b["lower_mm"], b["upper_mm"]), b) for b in summary["by_diameter"]]
    return charts + _shares("diameter, mm", bins)


def _by_annotation(summary: Mapping[str, Any]) -> str:
    """Sensitivity on the lesions that an incomplete reference kept, and on those it lacks."""
    groups = [(escape(group["annotation"]), group) for group in summary["by_annotation"] or ()]
    return _shares("in the censored reference", groups) if groups else ""


def _shares(title: str, groups: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    rows = [
        (
            name,
            f"{group['detected']} / {group['lesions']}",
            "" if group["sensitivity"] is None else number(group["sensitivity"]),
            interval(group["sensitivity_ci95_wilson"]),
            interval(group["sensitivity_ci95_bootstrap"]),
        )
        for name, group in groups
    ]
    header = (title, "detected", "sensitivity", "95% interval (Wilson)", "95% interval (bootstrap)")
    return f'<div class="scroll">{table(header, rows, right=(1, 2))}</div>'


def _settings(settings: Mapping[str, Any]) -> str:
    rows = [(code(name), code(json.dumps(value))) for name, value in settings.items()]
    versions = [(code(name), code(version)) for name, version in library_versions().items()]
    return table(("setting", "value"), rows) + "<h3>Versions</h3>" + table(("library", "version"), versions)
