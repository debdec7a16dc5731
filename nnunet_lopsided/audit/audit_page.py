"""audit.html: one file in which a reader decides on the candidates, offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from nnunet_lopsided.audit.auditing import Audit
from nnunet_lopsided.audit.pictures import CandidatePictures
from nnunet_lopsided.evaluation.confidence import TITLES
from nnunet_lopsided.pages.charts import diameter_range
from nnunet_lopsided.pages.html import code, data_block, interval, number, page, table

_BUTTONS = (("accept", "a"), ("reject", "r"), ("unsure", "u"))


def audit_html(audit: Audit, record: Mapping[str, Any], pictures: Sequence[CandidatePictures]) -> str:
    """The page of an audit.

    Args:
        audit: what was found.
        record: the content of audit.json.
        pictures: of the candidates to decide on, in their order.

    Returns:
        HTML, the same for the same arguments. It asks for no other file.
    """
    counts, threshold = record["counts"], f"{record['settings']['threshold']:g}"
    fainter = f", {counts['fainter_candidates']} of them below {threshold}" if counts["fainter_candidates"] else ""
    body = [
        "<h1>Which lesions did the annotators miss?</h1>",
        f'<p class="sub">{escape(record["dataset"])}: {counts["cases"]} cases, {counts["annotated_lesions"]} annotated '
        f"lesions, of which the models find {counts['annotated_lesions_found']}, and {counts['candidates']} candidates "
        f"that no annotation explains{fainter}; {_models(record)}; audit {code(record['id'])}</p>",
        *_notices(record),
        _review(audit, pictures),
        f"<section><h2>How much was missed</h2>{_miss_rates(record)}</section>",
        f"<section><h2>What ranks the candidates</h2>{_ranking(record)}</section>",
        f"<section><h2>Settings</h2>{_settings(record)}</section>",
        data_block("audit-data", {"id": record["id"], "dataset": record["dataset"]}),
    ]
    style, script = (
        Path(__file__).with_name(f"audit_page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    return page(f"Audit of {record['dataset']}", body, style, script)


def _models(record: Mapping[str, Any]) -> str:
    names = [f"{m['trainer']}, {m['plans']}, {m['configuration']}" for m in record["models"]]
    folds, factors = ", ".join(map(str, record["folds"])), " and ".join(f"{x:g}" for x in record["settings"]["magnify"])
    magnified = f"; images as they are and magnified {factors} times" if factors else ""
    return f"{escape('; '.join(names))}; folds {folds}{magnified}"


def _notices(record: Mapping[str, Any]) -> list[str]:
    lines = []
    if record["not_audited"]:
        lines.append(f"Validated by none of the folds, and not audited: {', '.join(record['not_audited'])}.")
    if record["not_magnified"]:
        lines.append(f"Images were not magnified: {record['not_magnified']}.")
    if record["withheld"]:
        lines.append(f"Miss rates and scores are withheld: {record['withheld']}.")
    if record["no_likeness"] and record["ranked_by"] == "mean-probability":
        lines.append(f"Ranked by mean probability: {record['no_likeness']}.")
    return [f'<p class="notice">{escape(line)}</p>' for line in lines]


def _review(audit: Audit, pictures: Sequence[CandidatePictures]) -> str:
    if not pictures:
        return "<p>No candidates to show.</p>"
    left = len(audit.candidates) - len(pictures)
    more = f" The other {left} candidates are in audit.csv." if left else ""
    keys = (
        "<kbd>a</kbd> accept, <kbd>r</kbd> reject, <kbd>u</kbd> unsure (again: undo), <kbd>←</kbd> <kbd>→</kbd> "
        "go, <kbd>n</kbd> next undecided"
    )
    controls = (
        '<div class="only-script"><div class="controls"><progress id="bar" '
        f'max="{len(pictures)}" value="0" aria-label="decided"></progress><output id="progress"></output></div>'
        f'<div class="controls"><span>{keys}</span><label>go to <input id="jump" type="number" min="1" '
        f'max="{len(pictures)}" value="1"></label><label><input id="contours" type="checkbox" checked> outlines</label>'
        '</div><div class="controls"><button type="button" id="save-csv">save decisions.csv</button>'
        '<button type="button" id="save-json">save decisions.json</button>'
        '<button type="button" id="clear">start again</button></div>'
        '<p class="notice" id="unkept" hidden>This browser keeps nothing: save the decisions before closing the page.'
        "</p></div>"
    )
    note = (
        '<p class="why">Solid: annotated lesions. Dashed: the candidate, as it would be added. Decisions stay in this '
        f"browser until saved; {code('lopsided-audit apply decisions.csv -o ID')} makes the repaired dataset."
        f"{escape(more)}</p>"
    )
    return f'<div class="review">{controls}{"".join(map(_card, pictures))}{note}</div>'


def _card(one: CandidatePictures) -> str:
    candidate = one.candidate
    buttons = "".join(
        f'<button type="button" data-decision="{word}" aria-pressed="false">{word} ({key})</button> '
        for word, key in _BUTTONS
    )
    place = ", ".join(f"{value:.1f}" for value in candidate.position_mm)
    planes = "".join(f'<div class="planes">{"".join(p.figure() for p in channel)}</div>' for channel in one.channels)
    return (
        f'<article class="finding" data-case="{escape(candidate.case)}" data-candidate="{candidate.number}">'
        f"<h3>{one.rank}. {escape(candidate.case)}, candidate {candidate.number}{_score(candidate.score)}</h3>"
        f"<p>{candidate.diameter_mm:.1f} mm at ({place}) mm. {escape(_sentence(candidate.reason))}</p>"
        f'<p class="only-script">{buttons}</p>{planes}</article>'
    )


def _score(score: float | None) -> str:
    return "" if score is None else f": score {score:.2f}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _miss_rates(record: Mapping[str, Any]) -> str:
    rows = []
    for rate in (record["miss_rate"], *record["miss_rate_by_diameter"]):
        whole = rate is record["miss_rate"]
        diameter = "all" if whole else diameter_range(rate["lower_mm"], rate["upper_mm"])
        estimate = "undefined" if rate["miss_rate"] is None else number(rate["miss_rate"])
        missed = "" if rate["missed_lesions"] is None else f"{rate['missed_lesions']:.0f}"
        ends = interval(rate["miss_rate_ci95_bootstrap"]) or escape(rate["undefined"] or "")
        found = f"{rate['annotated_lesions_found']} / {rate['annotated_lesions']}"
        rows.append((diameter, found, str(rate["candidates"]), missed, estimate, ends))
    header = (
        *("diameter, mm", "annotated lesions found", "candidates", "missed lesions, estimate"),
        *("share of all lesions that was missed", "95% interval (bootstrap over patients)"),
    )
    note = (
        "This assumes that missed lesions look to the models like annotated ones (of the same diameter, in the rows by "
        "diameter), that the models find them as often, and that some annotated lesions are more probable than any "
        "false positive. Where annotators missed the faint, the estimate is too low."
    )
    shown = table(header, rows, right=(1, 2, 3, 4))
    return (
        f'<div class="scroll">{shown}</div>{_in_any(record)}{_outside(record)}{_detector(record)}'
        f'<p class="why">{escape(note)}</p>'
    )


def _detector(record: Mapping[str, Any]) -> str:
    detector = record["detector"]
    if detector["sensitivity"] is None:
        return ""
    return (
        f"<p>On the annotated lesions, out of fold, the models have a sensitivity of {number(detector['sensitivity'])} "
        f"and an average precision of {number(detector['average_precision'])}, with "
        f"{detector['false_positives_per_case']:.1f} candidates per case, missed lesions among them. Below "
        f"{detector['least_sensitivity']:g} and {detector['least_average_precision']:g} miss rates are withheld.</p>"
    )


def _in_any(record: Mapping[str, Any]) -> str:
    rate = record["miss_rate_in_any_prediction"]
    if rate is None or rate["miss_rate"] is None:
        return ""
    ends = interval(rate["miss_rate_ci95_bootstrap"]) or "undefined"
    return (
        f"<p><b>{number(rate['miss_rate'])}</b> (95% interval {ends}) "
        "is the share of all lesions that was missed if the highest probability in any prediction counts, in place of "
        "their mean: nearer where small lesions were missed, too high where magnified images bring false positives.</p>"
    )


def _outside(record: Mapping[str, Any]) -> str:
    outside = record["outside_miss_rate"]
    if outside is None:
        return ""
    return (
        f"<p><b>{outside['candidates']} candidates are of diameters that are hardly annotated</b>, and the first row "
        "judges them by lesions of others. If all of them were missed lesions, the rate would be "
        f"{number(outside['miss_rate_if_missed'])}.</p>"
    )


_RANKED_BY = {
    "likeness": "the probability of being a missed lesion",
    "mean-probability": TITLES["mean"],
    **{name: TITLES[name] for name in ("max", "sum", "sqrt", "learned")},
}


def _ranking(record: Mapping[str, Any]) -> str:
    by = _RANKED_BY[record["ranked_by"]]
    likeness = record["likeness"]
    beside = "audit.csv has mean, highest and sum of the probability beside it"
    parts = [f"<p>The candidates stand in the order of {by}; {beside}.</p>"]
    if record["counts"]["fainter_candidates"]:
        parts.append(
            "<p>Neither the model nor the miss rate is fitted to candidates of which no voxel reaches "
            f"{record['settings']['threshold']:g}.</p>"
        )
    if likeness is not None:
        parts.append(
            f"<p>A logistic regression tells annotated lesions from candidates, and never judges a patient it was "
            f"fitted to. Area under its ROC curve: {number(likeness['separation_auc'])}.</p>"
        )
        weights = [(escape(name), number(value, "+")) for name, value in likeness["coefficients"].items()]
        parts.append(table(("feature, standardised", "weight"), weights, right=(1,)))
        parts.append("<h3>Its calibration</h3>")
        bins = [(number(b["predicted"]), number(b["observed"]), str(b["n"])) for b in likeness["reliability"]]
        parts.append(table(("probability of being annotated", "share annotated", "components"), bins, right=(0, 1, 2)))
    return "".join(parts)


def _settings(record: Mapping[str, Any]) -> str:
    cut = record["cut_back"]
    dice = cut["mean_dice_of_annotated"]
    rows = [
        (escape("cut back at, of the highest probability"), code(cut["fraction"])),
        (escape("mean Dice of annotated lesions so cut back"), code("undefined" if dice is None else f"{dice:.3f}")),
        *((escape(name), code(value)) for name, value in record["settings"].items()),
        ("version", code(record["version"])),
    ]
    return table(("setting", "value"), rows)
