"""compare.html: several models on the same cases, one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from nnunet_lopsided.evaluation.comparison import Comparison, Difference, FoundBy, Pair
from nnunet_lopsided.evaluation.report.findings import MAX_ROWS, left_out
from nnunet_lopsided.evaluation.report.numbers import title_of
from nnunet_lopsided.pages.charts import compared_curves, figures, key, sensitivity_by_diameter
from nnunet_lopsided.pages.html import code, interval, number, page, sortable_table, table


def comparison_html(comparison: Comparison, settings: Mapping[str, Any]) -> str:
    """The page of a comparison.

    Args:
        comparison: of ``compare``.
        settings: those of comparison.json.

    Returns:
        HTML, the same for the same arguments. It asks for no other file.
    """
    models = comparison.models
    summaries = {model.name: model.summary for model in models}
    counts = models[0].summary["counts"]
    body = [
        "<h1>Comparison of " + escape(_listed([model.name for model in models])) + "</h1>",
        f'<p class="sub">{counts["cases"]} cases, {comparison.n_patients} units of the bootstrap, '
        f"{counts['reference_lesions']} reference lesions, the same rules for all</p>",
        key(list(summaries)),
        "<h2>Curves and size</h2>",
        compared_curves(summaries) + figures([sensitivity_by_diameter(summaries)]),
        *(_pair(comparison, pair) for pair in comparison.pairs),
        "<h2>Lesions</h2>",
        _lesions(comparison),
        "<h2>Settings</h2>",
        table(("model", "evaluation"), [(escape(m.name), code(m.folder)) for m in models]),
        table(("setting", "value"), [(code(k), code(json.dumps(v))) for k, v in settings.items()]),
    ]
    return page("Comparison", body)


def _pair(comparison: Comparison, pair: Pair) -> str:
    first, second = (escape(comparison.models[i].name) for i in (pair.first, pair.second))
    unit = escape(comparison.models[0].summary["settings"]["bootstrap_unit"])
    rows = [_row(title_of(name), difference) for name, difference in pair.differences.items()]
    rows += [_row(f"Sensitivity on {g.name} lesions", g.sensitivity) for g in pair.by_annotation]
    header = ("metric", first, second, "difference", "95% interval", "")
    return "".join(
        (
            f"<section><h2>{second} minus {first}</h2>",
            f'<div class="scroll">{table(header, rows, right=(1, 2, 3))}</div>',
            f'<p class="why">Paired bootstrap of {comparison.n_replicates} replicates over {unit}s, seed '
            f"{comparison.seed}: every replicate gives both models the same {unit}s. An interval that does not hold 0 "
            "is marked; with many metrics some are by chance.</p>",
            f"<h3>Lesion by lesion</h3>{_found(pair, first, second)}</section>",
        )
    )


def _row(title: str, d: Difference) -> tuple[str, ...]:
    low, high = d.interval.low, d.interval.high
    if low is None or high is None:
        between, remark = "", f'<span class="why">{escape(d.interval.undefined or "")}</span>'
    else:
        between = interval((low, high), "+")
        # Without any width the replicates were all the same, which is no finding.
        remark = "<b>without 0</b>" if low < high and (low > 0 or high < 0) else ""
    difference = "" if d.difference is None else number(d.difference, "+")
    return escape(title), number(d.first), number(d.second), difference, between, remark


def _found(pair: Pair, first: str, second: str) -> str:
    rows = [("all", *_counted(pair.lesions))]
    for b in pair.by_diameter:
        upper = " or more" if b.upper_mm is None else f" to {b.upper_mm:g}"
        rows.append((f"{b.lower_mm:g}{upper} mm", *_counted(b.found)))
    rows += [(f"{group.name} lesions", *_counted(group.found)) for group in pair.by_annotation]
    header = ("diameter", "lesions", "found by both", f"only {first}", f"only {second}", "neither", "McNemar p")
    note = '<p class="why">McNemar: exact test of "only one found it", which takes lesions as independent.</p>'
    return f'<div class="scroll">{table(header, rows, right=range(1, 7))}</div>{note}'


def _counted(found: FoundBy) -> tuple[str, ...]:
    counts = found.both, found.only_first, found.only_second, found.neither
    p = found.mcnemar_p
    return str(sum(counts)), *map(str, counts), "" if p is None else f"{p:.3g}"


def _lesions(comparison: Comparison) -> str:
    """Lesions on which the models differ come first, then the larger ones."""
    models = comparison.models
    places = [
        (case.case, k, float(case.lesions.diameter_mm[k]))
        for case in models[0].cases
        for k in np.flatnonzero(case.counted).tolist()
    ]
    hits: list[list[bool]] = comparison.detected.tolist()
    order = sorted(range(len(places)), key=lambda i: (len(set(hits[i])) == 1, -places[i][2], i))[:MAX_ROWS]
    rows, kinds = [], []
    for i in order:
        case, k, diameter = places[i]
        kinds.append(found_by([m.name for m in models], hits[i]))
        marks = ["found" if hit else "missed" for hit in hits[i]]
        rows.append((escape(case), str(k + 1), f"{diameter:.1f}", *marks, escape(kinds[-1])))
    header = ("case", "lesion", "diameter, mm", *(escape(m.name) for m in models), "found by")
    return sortable_table("lesions", header, rows, (1, 2), kinds) + left_out(
        len(places), "ones on which the models differ, then the large ones", "lesions.csv"
    )


def found_by(names: Sequence[str], hits: Sequence[bool]) -> str:
    """Who found a lesion, in words.

    Example:
        >>> found_by(["a", "b"], [True, False]), found_by(["a", "b"], [True, True]), found_by(["a"], [False])
        ('a only', 'all', 'none')
    """
    if all(hits):
        return "all"
    found = [name for name, hit in zip(names, hits, strict=True) if hit]
    if not found:
        return "none"
    return f"{found[0]} only" if len(found) == 1 else _listed(found)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]
