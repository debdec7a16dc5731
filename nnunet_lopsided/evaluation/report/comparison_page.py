"""compare.html: several models on the same cases, one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from nnunet_lopsided.evaluation.comparison import Comparison, Difference, FoundBy, Pair
from nnunet_lopsided.evaluation.report.comparison_gallery import Group
from nnunet_lopsided.evaluation.report.evaluation_page import settings_table
from nnunet_lopsided.evaluation.report.findings import MAX_ROWS, left_out, shown_names
from nnunet_lopsided.evaluation.report.numbers import title_of
from nnunet_lopsided.evaluation.report.summary_charts import compared_curves, roc_charts, sensitivity_chart
from nnunet_lopsided.pages.html import SortableTable, Table, TableCell, code, interval, number, page, why


class ShownPair(NamedTuple):
    """Two models as the page shows them: names, the answer in words, differences of metrics, and lesion by lesion."""

    first: str
    second: str
    answer: tuple[str, ...]
    differences: Table
    lesions: Table


def comparison_html(
    comparison: Comparison, settings: Mapping[str, object], anonymous: bool = False, galleries: Sequence[Group] = ()
) -> str:
    """The page of a comparison.

    Args:
        comparison: of ``compare``.
        settings: those of comparison.json.
        galleries: pictures, of ``compared_gallery``.
        anonymous: without paths, and with numbers in place of the names of cases, which count them by name from 1.

    Returns:
        HTML, the same for the same arguments. It asks for no other file.
    """
    models = comparison.models
    contents = {model.name: model.summary for model in models}
    counts = models[0].summary["counts"]
    unit = models[0].summary["settings"]["bootstrap_unit"]
    folders = Table(("model", "evaluation"), [(model.name, code(model.folder)) for model in models])
    names = shown_names([case.case for case in models[0].cases], anonymous)
    shown = [
        Group(group.title, tuple(replace(picture, title=names[picture.title]) for picture in group.pictures))
        for group in galleries
    ]
    return page(
        "evaluation/report/comparison_page.html",
        "Comparison",
        all_models=_listed(list(contents)),
        subtitle=f"{counts['cases']} cases, {comparison.n_patients} units of the bootstrap, "
        f"{counts['reference_lesions']} reference lesions, the same rules for all",
        models=list(contents),
        charts=[*compared_curves(contents), sensitivity_chart(contents), *roc_charts(contents)],
        pairs=[_pair(comparison, pair) for pair in comparison.pairs],
        bootstrap=f"Paired bootstrap of {comparison.n_replicates} replicates over {unit}s, seed {comparison.seed}: "
        f"every replicate gives both models the same {unit}s.",
        galleries=shown,
        lesions=_lesions(comparison, names),
        folders=None if anonymous else folders,
        settings=settings_table(settings, anonymous),
    )


def _pair(comparison: Comparison, pair: Pair) -> ShownPair:
    first, second = (comparison.models[i].name for i in (pair.first, pair.second))
    rows = [_row(title_of(name), difference) for name, difference in pair.differences.items()]
    rows += [_row(f"Sensitivity on {g.name} lesions", g.sensitivity) for g in pair.by_annotation]
    if pair.surface is not None:
        of = f"of the {pair.surface.n_lesions} lesions that both found"
        rows += [_row(f"HD95, mm, {of}", pair.surface.hd95_mm), _row(f"NSD {of}", pair.surface.nsd)]
    header = ("metric", first, second, "difference", "95% interval")
    caption = f"Candidates match lesions by {comparison.models[0].rules.match_in_words}."
    differences = Table(header, rows, right=(1, 2, 3), caption=caption)
    answer = answer_in_words(pair, first, second, comparison.models[0].summary["settings"]["bootstrap_unit"])
    return ShownPair(first, second, answer, differences, _lesion_by_lesion(pair, first, second))


def answer_in_words(pair: Pair, first: str, second: str, unit: str = "case") -> tuple[str, ...]:
    """What the numbers of two models say, in sentences that need no table.

    Args:
        pair: the two.
        first: the name of the model that is subtracted.
        second: of the other.
        unit: whose resampling made the intervals, ``case`` or ``patient``.
    """
    lesions, answer = pair.lesions, []
    n_first, n_second = lesions.both + lesions.only_first, lesions.both + lesions.only_second
    n = n_first + lesions.only_second + lesions.neither
    answer.append(
        f"Of {n} lesions {second} found {n_second} and {first} {n_first}: {lesions.only_second} that {first} missed, "
        f"and it missed {lesions.only_first} that {first} found."
    )
    for name, what in (("false_positives_per_case", "false positives per case"), ("map", "average precision")):
        d = pair.differences.get(name)
        if d is None or d.difference is None:
            continue
        compared = f"{second} has {number(d.second)} {what}, {first} {number(d.first)}"
        if d.interval.ends is None:
            answer.append(f"{compared}; there is no interval, so nobody can say whether that is chance.")
        elif d.interval.ends[0] <= 0 <= d.interval.ends[1]:
            answer.append(
                f"{compared}; the interval of the difference, {interval(d.interval.ends, '+')}, holds 0: with other "
                f"{unit}s it could be the other way round."
            )
        else:
            answer.append(
                f"{compared}; the interval of the difference, {interval(d.interval.ends, '+')}, leaves out 0: with "
                f"other {unit}s of this kind it would most likely have the same sign."
            )
    return tuple(answer)


def _row(title: str, d: Difference) -> tuple[TableCell, ...]:
    """A metric of both models; nothing sets off an interval that leaves out 0."""
    ends = d.interval.ends
    between = why(d.interval.undefined) if ends is None else interval(ends, "+")
    difference = "" if d.difference is None else number(d.difference, "+")
    return title, number(d.first), number(d.second), difference, between


def _lesion_by_lesion(pair: Pair, first: str, second: str) -> Table:
    rows = [("all", *_counted(pair.lesions))]
    for b in pair.by_diameter:
        upper = " or more" if b.upper_mm is None else f" to {b.upper_mm:g}"
        rows.append((f"{b.lower_mm:g}{upper} mm", *_counted(b.found_by)))
    rows += [(f"{group.name} lesions", *_counted(group.found_by)) for group in pair.by_annotation]
    header = ("diameter", "lesions", "found by both", f"only {first}", f"only {second}", "neither", "McNemar p")
    return Table(header, rows, right=range(1, 7))


def _counted(lesions: FoundBy) -> tuple[str, ...]:
    counts = lesions.both, lesions.only_first, lesions.only_second, lesions.neither
    p = lesions.mcnemar_p
    return str(sum(counts)), *map(str, counts), "" if p is None else f"{p:.3g}"


def _lesions(comparison: Comparison, names: Mapping[str, str]) -> SortableTable:
    """Lesions on which the models differ come first, then the larger ones."""
    models = comparison.models
    places = [
        (case.case, k, float(case.lesions.diameter_mm[k]))
        for case in models[0].cases
        for k in np.flatnonzero(case.counted).tolist()
    ]
    hits: list[list[bool]] = comparison.detected.tolist()
    # The set of equal outcomes has one element.
    order = sorted(range(len(places)), key=lambda i: (len(set(hits[i])) == 1, -places[i][2], i))[:MAX_ROWS]
    rows, kinds = [], []
    for i in order:
        case, k, diameter = places[i]
        kinds.append(found_by([m.name for m in models], hits[i]))
        marks = ["found" if hit else "missed" for hit in hits[i]]
        rows.append((names[case], str(k + 1), f"{diameter:.1f}", *marks, kinds[-1]))
    header = ("case", "lesion", "diameter, mm", *(model.name for model in models), "found by")
    note = left_out(len(places), "ones on which the models differ, then the large ones", "lesions.csv")
    return SortableTable(name="lesions", header=header, rows=rows, right=(1, 2), kinds=kinds, note=note)


def found_by(names: Sequence[str], hits: Sequence[bool]) -> str:
    """Who found a lesion, in words.

    Example:
        >>> found_by(["a", "b"], [True, False]), found_by(["a", "b"], [True, True]), found_by(["a"], [False])
        ('a only', 'all', 'none')
    """
    if all(hits):
        return "all"
    finders = [name for name, hit in zip(names, hits, strict=True) if hit]
    if not finders:
        return "none"
    return f"{finders[0]} only" if len(finders) == 1 else _listed(finders)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]
