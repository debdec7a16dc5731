"""The tables of when-it-helps.md, and that of the audits in results.md, from the CSV files in benchmarks/results.

    python benchmarks/study_tables.py phantom_losses --cases test --arms dice_ce recipe
    python benchmarks/study_tables.py --regimes
    python benchmarks/study_tables.py --audits

A training that found nothing counts as 0. Means over repetitions, with the least and the largest mAP in brackets.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean

from nnunet_lopsided.files.tables import read_table

RESULTS = Path(__file__).parent / "results"
LABELS = {
    "full": "full",
    "stochastic50": "at random",
    "size50": "smallest",
    "reader50": "as readers miss",
    "stochastic50-n10": "at random",
}
# How the arms of older studies are called here.
SAME = {"dice_a1_b0p5": "recipe", "dice_a1_b1": "recipe_b1", "dice_a1_b0p5+dice_ce": "recipe+dice_ce"}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", help="name of a study in benchmarks/results")
    parser.add_argument("--cases", default="test", choices=["test", "validation"])
    parser.add_argument("--arms", nargs="+", default=[])
    parser.add_argument("--regimes", action="store_true", help="the table of all regimes")
    parser.add_argument("--audits", action="store_true", help="the table of all audits")
    arguments = parser.parse_args()
    if arguments.regimes + arguments.audits + bool(arguments.study) != 1:
        parser.error("expected a study, --regimes or --audits")
    if arguments.study:
        print(arms_table(arguments.study, arguments.cases, arguments.arms))
    else:
        print(regimes_table() if arguments.regimes else audits_table())


if __name__ == "__main__":
    main()
