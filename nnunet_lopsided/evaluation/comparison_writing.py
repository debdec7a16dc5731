"""Writing a comparison: comparison.json, lesions.csv and compare.html."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import nnunet_lopsided
from nnunet_lopsided.evaluation.comparison import Comparison, Difference, FoundBy, Pair
from nnunet_lopsided.evaluation.rows import LESION_COLUMNS, SURFACE_COLUMNS, Cell
from nnunet_lopsided.evaluation.rows import lesion_rows as lesion_table_rows
from nnunet_lopsided.evaluation.writing import write_csv
from nnunet_lopsided.files.folders import new_output_folder

if TYPE_CHECKING:
    from nnunet_lopsided.evaluation.report.comparison_gallery import Group

SCHEMA_VERSION = 1
COMMAND, MARKS = "lopsided-eval compare", ("comparison.json", "lesions.csv")
# Names in the folder of a comparison.
FILES = (*MARKS, "compare.html")


def comparison_dict(comparison: Comparison) -> dict[str, object]:
    """The content of comparison.json: plain JSON types, None for what is undefined."""
    models = comparison.models
    counts = models[0].summary["counts"]
    return {
        "schema_version": SCHEMA_VERSION,
        "models": [{"name": m.name, "folder": str(m.folder), "metrics": m.metrics} for m in models],
        "counts": {
            "cases": counts["cases"],
            "patients": comparison.n_patients,
            "reference_lesions": counts["reference_lesions"],
        },
        "pairs": [_pair(comparison, pair) for pair in comparison.pairs],
        "settings": comparison_settings(comparison),
    }


def comparison_settings(comparison: Comparison) -> dict[str, object]:
    """How models were compared, and the rules they share."""
    first = comparison.models[0]
    return {
        "version": nnunet_lopsided.__version__,
        "bootstrap_replicates": comparison.n_replicates,
        "bootstrap_unit": first.summary["settings"]["bootstrap_unit"],
        "seed": comparison.seed,
        "difference": "second - first",
        **first.rule_settings,
    }


def write_comparison(
    comparison: Comparison,
    folder: Path,
    overwrite: bool = False,
    anonymous: bool = False,
    galleries: Sequence[Group] = (),
) -> None:
    """Write every output to a temporary folder beside ``folder`` and rename it when complete.

    The same comparison always gives the same bytes.

    Args:
        comparison: of ``compare``.
        folder: target.
        overwrite: replace an earlier comparison there, and nothing else.
        anonymous: the page names no case and no folder; the other files do. Models have their names on it.
        galleries: pictures for the page, of ``report.comparison_gallery``.

    Raises:
        InputError: the target is refused, or cannot be written.
    """
    from nnunet_lopsided.evaluation.report.comparison_page import comparison_html

    content = comparison_dict(comparison)
    inputs = [m.folder for m in comparison.models]
    with new_output_folder(folder, overwrite, inputs, MARKS, COMMAND, FILES) as unfinished:
        text = json.dumps(content, indent=2, allow_nan=False)
        (unfinished / MARKS[0]).write_text(text + "\n", encoding="utf-8")
        write_csv(unfinished / "lesions.csv", lesion_columns(comparison), lesion_rows(comparison))
        page = comparison_html(comparison, comparison_settings(comparison), anonymous, galleries)
        (unfinished / "compare.html").write_text(page, encoding="utf-8")


def lesion_columns(comparison: Comparison) -> tuple[str, ...]:
    """The header of lesions.csv: place and size of each lesion, then three columns per model, with surfaces five."""
    of_models = [
        f"{m.name}:{column}"
        for m in comparison.models
        for column in ("detected", "confidence", "dice", *(SURFACE_COLUMNS if m.rules.surface_distances else ()))
    ]
    # Of a lesion's own columns number, size and place: the others are one model's.
    return "case", "patient", *LESION_COLUMNS[1:8], "found_by", *of_models


def lesion_rows(comparison: Comparison) -> Iterable[tuple[Cell, ...]]:
    """Rows of lesions.csv: the lesions that count, in the order of the evaluations' own."""
    models = comparison.models
    hits = iter(comparison.detected.tolist())
    for of_case in zip(*(model.cases for model in models), strict=True):
        first = of_case[0]
        places = list(lesion_table_rows(first))
        for k in np.flatnonzero(first.counted).tolist():
            hit = next(hits)
            finders = [name for name, yes in zip([m.name for m in models], hit, strict=True) if yes]
            of_models: list[Cell] = []
            for case in of_case:
                confidence = None if not case.ranked else float(case.lesion_confidence[k])
                of_models += [int(case.detected[k]), confidence, float(case.matches.dice[k])]
                if case.surface is not None:
                    of_models += [float(case.surface.hd95_mm[k]), float(case.surface.nsd[k])]
            yield (first.case, first.patient, *places[k][1:8], "; ".join(finders), *of_models)


def _pair(comparison: Comparison, pair: Pair) -> dict[str, object]:
    content: dict[str, object] = {
        "first": comparison.models[pair.first].name,
        "second": comparison.models[pair.second].name,
        "differences": {name: _difference(d) for name, d in pair.differences.items()},
        "lesions": _found_by(pair.lesions),
        "by_diameter": [
            {"lower_mm": b.lower_mm, "upper_mm": b.upper_mm, **_found_by(b.found_by)} for b in pair.by_diameter
        ],
        "by_annotation": [
            {"name": group.name, **_found_by(group.found_by), "sensitivity": _difference(group.sensitivity)}
            for group in pair.by_annotation
        ],
    }
    if pair.surface is not None:
        content["surface_distances_of_both"] = {
            "lesions": pair.surface.n_lesions,
            "hd95_mm_mean": _difference(pair.surface.hd95_mm),
            "nsd_mean": _difference(pair.surface.nsd),
        }
    return content


def _difference(d: Difference) -> dict[str, object]:
    return {
        "first": d.first,
        "second": d.second,
        "difference": d.difference,
        "ci95_bootstrap": d.interval.ends,
        "undefined": d.interval.undefined,
    }


def _found_by(lesions: FoundBy) -> dict[str, object]:
    return {
        "both": lesions.both,
        "only_first": lesions.only_first,
        "only_second": lesions.only_second,
        "neither": lesions.neither,
        "mcnemar_p": lesions.mcnemar_p,
    }
