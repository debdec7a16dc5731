"""Every table of measured results in the documentation, from the files in benchmarks/results.

    python benchmarks/study_tables.py study phantom_losses --cases test --arms dice_ce recipe
    python benchmarks/study_tables.py regimes
    python benchmarks/study_tables.py write      # all tables of docs/, between their marks

A page marks a table by the words after `study_tables.py`, in a comment before it.

A training that found nothing counts as 0. Means over repetitions, with the least and the largest mAP in brackets.
"""

from __future__ import annotations

import argparse
import inspect
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean

import arms_tables
import completion_tables
import doubt_tables

from nnunet_lopsided.files.tables import read_table

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
LABELS = {
    "full": "full",
    "stochastic50": "at random",
    "size50": "smallest",
    "reader50": "as readers miss",
    "stochastic50-n10": "at random",
}
# How the arms of older studies are called here.
SAME = {
    "dice_a1_b0p5": "recipe",
    "dice_a1_b1": "recipe_b1",
    "dice_a1_b0p5+dice_ce": "recipe+dice_ce",
    "read_dice_a1_b0p5": "read_recipe",
    "again_dice_a1_b0p5": "again_recipe",
    "lopsided": "eq3",
    "masked_a1_b0p1": "masked",
}
TITLES = {"recipe_b1": "recipe, beta 1", "recipe_b0p8": "recipe, beta 0.8", "oracle_b1": "oracle, beta 1"}
# Study, the cases it is read from, what it was about; in the order of the page.
REGIMES = (
    ("phantom_losses", "test", "procedural brains, 2D, 600 iterations"),
    ("phantom_fine", "test", "finer voxels, 1000 iterations"),
    ("phantom_clear", "test", "clear lesions, 600 iterations"),
    ("phantom_audit_clear", "test", "clear lesions, 80 patients, 2000 iterations"),
    ("phantom_3d", "test", "3D, 600 iterations"),
    ("phantom_25d", "test", "2.5D, 250 iterations"),
    ("phantom_long", "test", "10 training cases, 2000 iterations"),
    ("nuclei", "test", "nuclei, 2D, 600 iterations"),
    ("open_ms", "validation", "MRI, multiple sclerosis, 2D, 600 iterations"),
)
# Audited studies, likewise.
AUDITED = (
    ("phantom_audit_clear", "brains, clear lesions, 80 patients, 2000 iterations"),
    ("phantom_clear", "brains, clear lesions, 40 patients, 600 iterations"),
    ("phantom_audit_faint", "brains, faint lesions, 80 patients, 2000 iterations"),
    ("phantom_losses", "brains, faint lesions, 40 patients, 600 iterations"),
    ("phantom_fine", "the same in finer voxels, 1000 iterations"),
    ("phantom_3d", "the same in 3D"),
    ("nuclei", "nuclei"),
    ("open_ms", "MRI, multiple sclerosis"),
)
# Studies with an arm trained again on labels that a reader who knows the truth has repaired.
REPAIRED = (
    ("phantom_read", "brains, faint lesions, 40 patients, 600 iterations"),
    ("phantom_clear", "brains, clear lesions, 40 patients, 600 iterations"),
    ("phantom_repair", "brains, clear lesions, 80 patients, 2000 iterations"),
    ("phantom_repair_faint", "brains, faint lesions, 80 patients, 2000 iterations"),
    ("phantom_audit_faint", "the same, one training"),
    ("nuclei", "nuclei"),
)
AUDITED_ARMS = (
    ("recipe", "recipe"),
    ("recipe_b1", TITLES["recipe_b1"]),
    ("dice_ce", "Dice and CE"),
    ("recipe+dice_ce", "recipe, Dice and CE together"),
)


@dataclass(frozen=True)
class Runs:
    """The repetitions of one arm on one kind of labels."""

    maps: tuple[float, ...]
    sensitivities: tuple[float, ...]
    false_positives: tuple[float, ...]

    def cells(self, *, spread: bool) -> list[str]:
        """mAP, sensitivity, and false positives per case, as a table shows them."""
        least = f" ({min(self.maps):.2f} to {max(self.maps):.2f})" if spread and len(self.maps) > 1 else ""
        return [
            f"{fmean(self.maps):.3f}{least}",
            f"{fmean(self.sensitivities):.3f}",
            f"{fmean(self.false_positives):.1f}",
        ]


def read_runs(study: str, cases: str) -> dict[tuple[str, str], Runs]:
    """Arm and labels -> its repetitions, in the order of the file."""
    rows = defaultdict(list)
    for row in read_table(RESULTS / f"{study}-runs.csv"):
        if row["cases"] == cases:
            numbers = [float(row[key] or 0) for key in ("map", "max_sensitivity", "false_positives_per_case")]
            rows[SAME.get(row["arm"], row["arm"]), row["labels"]].append(numbers)
    return {key: Runs(*zip(*numbers, strict=True)) for key, numbers in rows.items()}


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def arms_table(study: str, cases: str, arms: Sequence[str]) -> str:
    """One row per arm, mAP, sensitivity and false positives for every kind of labels."""
    runs = read_runs(study, cases)
    arms = arms or list(dict.fromkeys(arm for arm, _ in runs))
    labels = [label for label in LABELS if any(label == of for _, of in runs)]
    header = ["arm", *(cell for label in labels for cell in (f"{LABELS[label]}: mAP", "sensitivity", "FP per case"))]
    rows = []
    for arm in arms:
        found = [runs.get((arm, label)) for label in labels]
        cells = [one.cells(spread=True) if one else ["", "", ""] for one in found]
        rows.append([TITLES.get(arm, arm), *chain.from_iterable(cells)])
    return markdown(header, rows)


def regimes_table() -> str:
    """One row per regime: mAP and sensitivity of nnU-Net's loss, the recipe, and the recipe without bootstrap."""
    rows = []
    for study, cases, what in REGIMES:
        runs = read_runs(study, cases)
        for label in LABELS:
            three = [runs.get((arm, label)) for arm in ("dice_ce", "recipe", "recipe_b1")]
            if three[0] and three[1]:
                started = f"{sum(m >= 0.1 for m in three[0].maps)} of {len(three[0].maps)}"
                cells = [" / ".join(one.cells(spread=False)[:2]) if one else "" for one in three]
                rows.append([what, LABELS[label], *cells, started])
                what = ""
    header = ["data, training", "missing", "Dice and CE", "recipe", "recipe, beta 1", "Dice and CE started"]
    return markdown(header, rows)


def audits_table() -> str:
    """One row per audited arm, means over repetitions."""
    rows = []
    for study, what in AUDITED:
        path = RESULTS / f"{study}-audits.csv"
        by_audit: dict[tuple[str, str], dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
        for row in read_table(path) if path.is_file() else []:
            by_audit[row["labels"], SAME.get(row["arm"], row["arm"])][row["ranking"]].append(row)
        for label in LABELS:
            for arm, title in AUDITED_ARMS:
                if (label, arm) in by_audit:
                    rows.append([what, LABELS[label], *_audit_cells(by_audit[label, arm], title)])
                    what = ""
    three = "likeness / mean / highest"
    header = ["data", "missing", "N", "model", "magnified", f"AP: {three}", f"precision at N: {three} / random"]
    return markdown(
        [*header, "found at 2N: likeness / random", "precision at 50", "estimated miss rate (in any prediction)"], rows
    )


def _audit_cells(rankings: Mapping[str, Sequence[Mapping[str, str]]], arm: str) -> list[str]:
    def mean(ranking: str, column: str) -> str:
        return f"{fmean(float(row[column] or 0) for row in rankings[ranking]):.3f}"

    ours, random = "its ranking", "random order"
    three = (ours, "mean probability", "highest probability")
    found = [float(row["found_at_2n"]) for row in rankings[ours]]
    spread = f" ({min(found):.2f} to {max(found):.2f})" if len(found) > 1 else ""
    rates = [row["estimated_miss_rate"] for row in rankings[ours]]
    in_any = [row.get("estimated_miss_rate_in_any_prediction") for row in rankings[ours]]
    return [
        rankings[ours][0]["missed_lesions"],
        arm,
        rankings[ours][0].get("magnified") or "no",
        " / ".join(mean(ranking, "average_precision") for ranking in three),
        " / ".join(mean(ranking, "precision_at_n") for ranking in (*three, random)),
        f"{mean(ours, 'found_at_2n')}{spread} / {mean(random, 'found_at_2n')}",
        mean(ours, "precision_at_50"),
        ", ".join(_rates(*both) for both in zip(rates, in_any, strict=True)),
    ]


def _rates(rate: str, in_any: str | None) -> str:
    return (f"{float(rate):.2f}" if rate else "undefined") + (f" ({float(in_any):.2f})" if in_any else "")


def repairs_table() -> str:
    """What a reader's decisions on the first candidates of an audit gave back, test cases, means over trainings."""
    rows = []
    for study, what in REPAIRED:
        runs = read_runs(study, "test")
        for arm, title in (("dice_ce", "Dice and CE"), ("recipe", "recipe")):
            for label in LABELS:
                three = runs.get((arm, "full")), runs.get((arm, label)), runs.get((f"read_{arm}", label))
                if three[1] and three[2]:
                    cells = [" / ".join(one.cells(spread=False)[:2]) if one else "" for one in three]
                    rows.append([what, title, LABELS[label], str(len(three[2].maps)), *cells])
                    what = ""
    return markdown(["data", "arm", "missing", "n", "whole labels", "censored", "repaired"], rows)


def csv_table(name: str) -> str:
    """A file of benchmarks/results as it is: numbers whose runs were not kept in any other form."""
    rows = read_table(RESULTS / f"{name}.csv")
    return markdown(list(rows[0]), [list(row.values()) for row in rows])


def table(words: Sequence[str]) -> str:
    """The Markdown table that a line of words names, as on the command line.

    Raises:
        SystemExit: there is no such table.

    Example:
        >>> table(["study", "phantom_25d", "--arms", "dice_ce"]).splitlines()[2]
        '| dice_ce | 0.547 | 0.562 | 1.9 | 0.520 | 0.532 | 1.4 |'
    """
    parser = argparse.ArgumentParser(prog="study_tables.py", description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_study = kinds.add_parser("study", help="every arm of a study")
    of_study.add_argument("name", help="of benchmarks/results/NAME-runs.csv")
    of_study.add_argument("--cases", default="test", choices=["test", "validation"])
    of_study.add_argument("--arms", nargs="+", default=[])
    for kind, of_all in OF_ALL.items():
        kinds.add_parser(kind, help=of_all.__doc__)
    kinds.add_parser("csv", help=csv_table.__doc__).add_argument("name")
    for kind, make in TABLES.items():
        one = kinds.add_parser(kind, help=make.__doc__)
        for parameter in inspect.signature(make).parameters:
            one.add_argument(parameter)
    arguments = vars(parser.parse_args(words))
    kind = arguments.pop("kind")
    if kind == "study":
        return arms_table(arguments["name"], arguments["cases"], arguments["arms"])
    if kind == "csv":
        return csv_table(arguments["name"])
    if kind in OF_ALL:
        return OF_ALL[kind]()
    return markdown(*TABLES[kind](**arguments))


TABLES = {**arms_tables.TABLES, **completion_tables.TABLES, **doubt_tables.TABLES}
OF_ALL: Mapping[str, Callable[[], str]] = {
    "regimes": regimes_table,
    "audits": audits_table,
    "repairs": repairs_table,
}
# <!-- table: study phantom --cases test --> ... <!-- end of table -->
BLOCK = re.compile(r"(<!-- table: ([^\n]*?) -->\n)(?:.*?\n)??(<!-- end of table -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """A page with every marked table written anew."""
    return BLOCK.sub(lambda block: f"{block[1]}{table(shlex.split(block[2]))}\n{block[3]}", text)


def write_pages() -> None:
    """Write all tables of the documentation anew; says which pages changed."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (anew := with_tables(text)) != text:
            page.write_text(anew, encoding="utf-8")
            print(f"{page.relative_to(DOCS.parent)}: tables written anew")


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        write_pages()
    else:
        print(table(sys.argv[1:]))
