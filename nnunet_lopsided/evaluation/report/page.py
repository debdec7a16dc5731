"""report.html: one file with everything inside, to be opened or sent anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from nnunet_lopsided.evaluation.case import CaseResult
from nnunet_lopsided.evaluation.folder import FolderResult
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.report.figures import figure_svg

STYLE = """
body {
  font: 15px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 1120px; margin: 2.5rem auto; padding: 0 1.5rem;
}
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
.sub, .why { color: #6b7280; } .why { font-size: .88em; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.4rem 0; }
.card { border: 1px solid #e5e7eb; border-radius: 8px; padding: .7rem 1rem; min-width: 9.5rem; }
.card b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; }
.card span { color: #6b7280; font-size: .86em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .28rem .8rem .28rem 0; border-bottom: 1px solid #e5e7eb; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; } svg { max-width: 100%; height: auto; } .scroll { overflow-x: auto; }
code { font-size: .92em; }
"""

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
        f"<p class=sub>{escape(subtitle)}; references {_code(result.inputs.references)}, "
        f"predictions {_code(result.inputs.predictions)}</p>",
        _cards(summary),
        figure_svg(result.summary),
        "<h2>Numbers</h2>",
        _numbers(summary),
        _notices(summary),
        "<h2>Cases</h2>",
        _cases(result.cases),
        "<h2>Settings</h2>",
        _table(("setting", "value"), [(_code(k), _code(json.dumps(v))) for k, v in summary["settings"].items()]),
    ]
    head = f"<meta charset=utf-8><title>Lesion-wise evaluation</title><style>{STYLE}</style>"
    return f"<!doctype html>\n<html lang=en><head>{head}</head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"


def _cards(summary: dict[str, Any]) -> str:
    counts = summary["counts"]
    found = counts["reference_lesions"] - counts["missed_lesions"]
    cards = [
        (_number(summary["metrics"]["map"]), "average precision"),
        (_number(summary["metrics"]["max_sensitivity"]), "max sensitivity"),
        (f"{found} / {counts['reference_lesions']}", "lesions detected"),
        (_number(summary["metrics"]["false_positives_per_case"]), "false positives per case"),
        (_number(summary["metrics"]["tp_dice"]), "Dice of true positives"),
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
        rows.append((title, _number(value), _interval(ends), f"<span class=why>{escape(note)}</span>"))
        if name == "map":
            why = summary["undefined"].get("map_ci95_hanley_mcneil", "Hanley-McNeil, lesions taken as independent")
            formula = _interval(summary["metrics"]["map_ci95_hanley_mcneil"])
            rows.append(("", "", formula, f"<span class=why>{escape(why)}</span>"))
    rows += [(name.replace("_", " "), str(value), "", "") for name, value in summary["counts"].items()]
    return _table(("", "value", "95% interval", ""), rows, right=(1,))


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
    return f"<div class=scroll>{_table(header, rows, right=(1, 2, 3, 4, 5))}</div>"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "".join(f"<{tag}{' class=n' if i in right else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{line(header, 'th')}</tr>\n{body}</table>"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _interval(ends: list[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _code(value: object) -> str:
    return f"<code>{escape(str(value))}</code>"
