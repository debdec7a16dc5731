"""report.html: one file with everything inside, to be opened or sent anywhere."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from nnunet_lopsided.evaluation.case import CaseResult
from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.report.figures import figure_svg
from nnunet_lopsided.evaluation.report.html import code, interval, number, page, table

METRIC_NAMES = {
    "map": "average precision (mAP)",
    "max_sensitivity": "max sensitivity",
    "precision_at_max_sensitivity": "precision at max sensitivity",
    "false_positives_per_case": "false positives per case",
    "tp_dice": "Dice of true positives",
    "lesion_entropy_bits": "lesion entropy, bits",
}
_INTERVALS = {
    "map": "bootstrap, over {unit}s",
    "max_sensitivity": "bootstrap, over {unit}s",
    "precision_at_max_sensitivity": "bootstrap, over {unit}s",
    "false_positives_per_case": "bootstrap, over {unit}s",
    "tp_dice": "bootstrap, over {unit}s",
}


def report_html(result: FolderResult, summary: dict[str, Any]) -> str:
    """The page of an evaluation, self-contained: no script, no external file.

    Args:
        result: of ``evaluate_folder``.
        summary: the content of summary.json.

    Returns:
        HTML, the same for the same result.
    """
    counts = summary["counts"]
    subtitle = (
        f"{counts['cases']} cases, {counts['reference_lesions']} reference lesions, {counts['candidates']} candidates"
    )
    body = [
        "<h1>Lesion-wise evaluation</h1>",
        f"<p class=sub>{escape(subtitle)}; references {code(result.inputs.references)}, "
        f"predictions {code(result.inputs.predictions)}</p>",
        _cards(summary),
        figure_svg(result.summary),
        "<h2>Numbers</h2>",
        _numbers(summary),
        _notices(summary),
        "<h2>Cases</h2>",
        _cases(result.cases),
        "<h2>Settings</h2>",
        table(("setting", "value"), [(code(k), code(json.dumps(v))) for k, v in summary["settings"].items()]),
    ]
    return page("Lesion-wise evaluation", body)


def _cards(summary: dict[str, Any]) -> str:
    counts = summary["counts"]
    found = counts["reference_lesions"] - counts["missed_lesions"]
    cards = [
        (number(summary["metrics"]["map"]), "average precision"),
        (number(summary["metrics"]["max_sensitivity"]), "max sensitivity"),
        (f"{found} / {counts['reference_lesions']}", "lesions detected"),
        (number(summary["metrics"]["false_positives_per_case"]), "false positives per case"),
        (number(summary["metrics"]["tp_dice"]), "Dice of true positives"),
    ]
    inner = "".join(f"<div class=card><b>{value}</b><span>{name}</span></div>" for value, name in cards)
    return f"<div class=cards>{inner}</div>"


def _numbers(summary: dict[str, Any]) -> str:
    rows = []
    unit = summary["settings"]["bootstrap_unit"]
    for name, title in METRIC_NAMES.items():
        value = summary["metrics"][name]
        ends = (
            summary["metrics"]["map_ci95_bootstrap"]
            if name == "map"
            else summary["intervals"].get(f"{name}_bootstrap_ci95")
        )
        key = "map_ci95_bootstrap" if name == "map" else f"{name}_bootstrap"
        why = summary["undefined"].get(name) or summary["undefined"].get(key)
        note = _INTERVALS.get(name, "").format(unit=unit) if ends else (why or "")
        rows.append((title, number(value), interval(ends), f"<span class=why>{escape(note)}</span>"))
        if name == "map":
            why = summary["undefined"].get("map_ci95_hanley_mcneil", "Hanley-McNeil, lesions taken as independent")
            formula = interval(summary["metrics"]["map_ci95_hanley_mcneil"])
            rows.append(("", "", formula, f"<span class=why>{escape(why)}</span>"))
    rows += [(name.replace("_", " "), str(value), "", "") for name, value in summary["counts"].items()]
    return table(("", "value", "95% interval", ""), rows, right=(1,))


def _notices(summary: dict[str, Any]) -> str:
    details, lines = summary["details"], []
    if details["false_positives_on_lesions"]:
        lines.append(
            f"{details['false_positives_on_lesions']} false positives share a voxel with a lesion, but their centroid "
            "lies too far from it."
        )
    for key, text in (
        ("missing_predictions", "References without prediction, their lesions counted as missed: "),
        ("predictions_without_reference", "Predictions without reference, not evaluated: "),
    ):
        if details[key]:
            lines.append(text + ", ".join(details[key]) + ".")
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _cases(cases: tuple[CaseResult, ...]) -> str:
    rows = [
        (
            escape(case.case),
            *map(str, (len(case.lesions), int(case.detected.sum()), len(case.candidates))),
            str(case.count(Status.FALSE_POSITIVE)),
            str(case.count(Status.DUPLICATE)),
        )
        for case in cases
    ]
    header = ("case", "lesions", "detected", "candidates", "false positives", "duplicates")
    return f"<div class=scroll>{table(header, rows, right=(1, 2, 3, 4, 5))}</div>"
