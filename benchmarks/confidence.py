"""How well each confidence ranks candidates, from finished evaluations: nothing is predicted or evaluated again.

    python benchmarks/confidence.py STUDY/evaluations/*/test --csv confidence.csv

For every output folder of lopsided-eval, every confidence and several smallest sizes of a candidate: average precision,
and sensitivity at 1, 2, 4 and 8 false positives per case; candidates are matched anew by each. Evaluations of versions
without the column ``max_probability`` have no maximum; ``learned`` is there where a model was given.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.curves import average_precision, operating_points, sensitivity_at
from nnunet_lopsided.evaluation.matching import Pairs, Status, assign
from nnunet_lopsided.evaluation.saved import pairs_of, scores_of
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.tables import read_table, write_table

FP_PER_CASE = (1.0, 2.0, 4.0, 8.0)
MIN_VOXELS = (1, 2, 3)
COLUMNS = ("evaluation", "confidence", "min_voxels", "cases", "lesions", "candidates", "map", "max_sensitivity")
SENSITIVITIES = tuple(f"sensitivity_at_{n:g}" for n in FP_PER_CASE)


def large_enough(pairs: Pairs, large: NDArray[Any]) -> Pairs:
    """The pairs that are left when small candidates are dropped, the others numbered anew."""
    kept = large[pairs.candidate_ids - 1]
    number = np.cumsum(large)
    return replace(
        pairs,
        candidate_ids=number[pairs.candidate_ids[kept] - 1],
        lesion_ids=pairs.lesion_ids[kept],
        n_shared=pairs.n_shared[kept],
        n_candidates=int(large.sum()),
    )


def by_case(rows: Sequence[Mapping[str, str]]) -> Mapping[str, list[Mapping[str, str]]]:
    """Rows of a table by their case."""
    found: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        found[row["case"]].append(row)
    return found


def readings(folder: Path, min_voxels: Sequence[int] = MIN_VOXELS) -> Iterator[list[Any]]:
    """One row of :data:`COLUMNS` and the sensitivities for every confidence and every smallest size."""
    duplicates = read_json(folder / "summary.json")["settings"]["duplicates"]
    cases = [row for row in read_table(folder / "cases.csv") if row["prediction"] != "skipped"]
    lesions, candidates = (by_case(read_table(folder / f"{name}.csv")) for name in ("lesions", "candidates"))
    parts = []
    for row in cases:
        counted = np.array([lesion["counted"] == "1" for lesion in lesions[row["case"]]], bool)
        mine = candidates[row["case"]]
        parts.append((scores_of(mine, row["prediction"] == "labels"), pairs_of(mine, len(counted)), counted))
    n_lesions = sum(int(counted.sum()) for _, _, counted in parts)
    learned = all(scores.learned is not None for scores, _, _ in parts if len(scores.mean))
    hard = any(row["prediction"] == "labels" for row in cases)
    for name in (
        "mean",
        "max",
        "sum",
        "sqrt",
        *(["learned"] if learned and any(len(s.mean) for s, _, _ in parts) else []),
    ):
        if (hard and name in ("mean", "max")) or (
            name == "max" and any(np.isnan(scores.highest).any() for scores, _, _ in parts)
        ):
            continue
        for least in min_voxels:
            detected, true, false, n = [], [], [], 0
            for scores, pairs, counted in parts:
                large = scores.n_voxels >= least
                confidence = scores.by(name)[large] if len(scores.mean) else np.zeros(0)
                assigned = assign(large_enough(pairs, large), confidence, counted)
                status, duplicate = assigned.status, assigned.status == Status.DUPLICATE
                found = assigned.candidate_of_lesion[counted]
                detected.append(confidence[found[found > 0] - 1])
                true.append(confidence[(status == Status.TRUE_POSITIVE) | (duplicate & (duplicates == "tp"))])
                false.append(confidence[(status == Status.FALSE_POSITIVE) | (duplicate & (duplicates == "fp"))])
                n += len(confidence)
            of_all = [np.concatenate(confidences) for confidences in (detected, true, false)]
            points = operating_points(
                lesion_confidence=of_all[0],
                true_confidence=of_all[1],
                false_confidence=of_all[2],
                n_lesions=n_lesions,
                n_cases=len(cases),
            )
            area, at = average_precision(points), sensitivity_at(points, FP_PER_CASE)
            share = sum(map(len, detected)) / n_lesions if n_lesions else None
            yield [
                str(folder),
                name,
                least,
                len(cases),
                n_lesions,
                n,
                area,
                share,
                *([m.sensitivity for m in at] or [None] * len(FP_PER_CASE)),
            ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", nargs="+", type=Path, metavar="FOLDER", help="output folders of lopsided-eval")
    parser.add_argument("--min-voxels", type=int, nargs="+", default=list(MIN_VOXELS), metavar="N")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table here, too")
    arguments = parser.parse_args(argv)
    rows = []
    for folder in arguments.evaluations:
        try:
            found = list(readings(folder, arguments.min_voxels))
        except (InputError, KeyError) as error:
            print(f"{folder}: left out: {error}", file=sys.stderr)
            continue
        rows += found
        print(f"{folder}: {found[0][3]} cases, {found[0][4]} lesions" if found else f"{folder}: nothing ranks")
        print(
            f"  {'confidence':<11}{'voxels':>7}{'cand.':>7}{'mAP':>7}{'max':>7}"
            + "".join(f"{f'@{n:g}':>7}" for n in FP_PER_CASE)
        )
        for row in found:
            numbers = "".join(f"{'' if value is None else f'{value:.3f}':>7}" for value in row[6:])
            print(f"  {row[1]:<11}{f'>= {row[2]}':>7}{row[5]:>7}{numbers}")
    if arguments.csv is not None:
        cells = ([("" if v is None else f"{v:.9g}" if isinstance(v, float) else v) for v in row] for row in rows)
        write_table(arguments.csv, (*COLUMNS, *SENSITIVITIES), cells)
    return 0 if rows else 2


if __name__ == "__main__":
    sys.exit(main())
