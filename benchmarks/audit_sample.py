"""What sixty random readings say of all candidates, against other ways to spend them, on candidates with known truth.

    python benchmarks/audit_sample.py candidates 800 --labels random size full --oof oof --out candidates.csv
    python benchmarks/audit_sample.py read candidates.csv [--readings 30 60 120] [--draws 500] [--out readings.csv]

``candidates`` lists what the networks of ``completion.py find`` called and no label explains: mean p, mean p times the
root of its voxels, diameter, and whether it lies on a lesion that the labels lack. ``read`` draws samples of these and
reads them by the truth: how far off is the estimated number of missed lesions, how often does its 95% interval hold the
truth, and how well do the recalibrated probabilities and the zones fit? Beside it: a simple random sample, and the
probability as it was.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.recalibration import recalibrated, zones
from nnunet_lopsided.audit.sampling import Stratum, all_sampled, draw_sample, estimate_total, probability_by_rank
from nnunet_lopsided.evaluation.rules import EvaluationRules

EDGES_MM = EvaluationRules().diameter_edges_mm
Numbers = NDArray[np.float64]
LACK = {"random": "half, at random", "size": "the smaller half", "full": "nothing"}
# Printed, and left out of the table.
ASIDE = ("Brier score", "Brier score before", "interval of the precision holds the truth")


def list_candidates(dataset: int, labels: list[str], oof: Path, out: Path) -> None:
    from arms import cases_of, label_array, label_of, variant

    from nnunet_lopsided.soft_target import unexplained_components

    rows = []
    for kind in labels:
        left = cases_of(variant(dataset, kind), "Tr")
        for name, case in cases_of(dataset, "Tr").items():
            file = oof / kind / f"{name}.npy"
            if not file.is_file():
                continue
            image = label_of(case)
            found = unexplained_components(np.load(file), label_array(left[name]) == 1, image.geometry.spacing_mm)
            whole = np.squeeze(image.array).reshape(-1) > 0
            for i in range(len(found.components)):
                on_lesion = bool(whole[found.components.select([i + 1])].any())
                numbers = found.mean[i], found.unexplained_score[i], found.components.diameter_mm[i]
                rows.append([kind, name, *(f"{x:.6g}" for x in numbers), int(on_lesion)])
    with out.open("w", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([["labels", "case", "mean_probability", "sqrt", "diameter_mm", "lesion"], *rows])


def simple_sample(p: Numbers, diameter_mm: Numbers, edges_mm: object, n: int, seed: int) -> tuple[Stratum, ...]:
    """One stratum of all."""
    chosen = np.random.default_rng(seed).choice(len(p), min(n, len(p)), replace=False)
    everyone = np.arange(len(p))
    return (Stratum(lower_mm=0.0, upper_mm=None, lowest=0.0, highest=1.0, members=everyone, sampled=np.sort(chosen)),)


def read(path: Path, readings: list[int], n_draws: int, out: Path | None) -> None:
    rows = list(csv.DictReader(path.open()))
    lines: list[dict[str, str]] = []
    for kind in dict.fromkeys(row["labels"] for row in rows):
        of_kind = [row for row in rows if row["labels"] == kind]
        p, score, diameter_mm, lesion = (
            np.array([float(row[name]) for row in of_kind])
            for name in ("mean_probability", "sqrt", "diameter_mm", "lesion")
        )
        by_rank = np.empty(len(p))
        by_rank[np.argsort(-score, kind="stable")] = probability_by_rank(len(p))
        for n in readings:
            for name, draw, by in (
                ("stratified by mean p", draw_sample, p),
                ("stratified by rank", draw_sample, by_rank),
                ("simple random", simple_sample, by_rank),
            ):
                numbers = of_draws(draw, by, diameter_mm, lesion=lesion, n=n, n_draws=n_draws)
                start = {"labels lack": LACK[kind], "candidates": str(len(p)), "missed lesions": f"{lesion.sum():.0f}"}
                lines.append({**start, "readings": str(n), "sample": name, **numbers})
                print(lines[-1], flush=True)
    if out is not None:
        with out.open("w", newline="") as table:
            writer = csv.DictWriter(
                table, [key for key in lines[0] if key not in ASIDE], "", "ignore", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(lines)


def of_draws(
    draw: Callable[..., tuple[Stratum, ...]], p: Numbers, diameter_mm: Numbers, *, lesion: Numbers, n: int, n_draws: int
) -> dict[str, str]:
    totals, held, widths, brier, accepted, right, precise = [], [], [], [], [], [], []
    for seed in range(n_draws):
        strata = draw(p, diameter_mm, EDGES_MM, n, seed)
        total = estimate_total(strata, lesion)
        totals.append(total.missed)
        held.append(total.low <= lesion.sum() <= total.high)
        widths.append(total.high - total.low)
        q = recalibrated(p, diameter_mm, strata, lesion)
        unread = np.ones(len(p), bool)
        unread[all_sampled(strata)] = False
        brier.append(float(((q - lesion)[unread] ** 2).mean()))
        found = zones(q, strata, lesion)
        chosen = found.accepted & unread
        accepted.append(found.n_by_rule)
        if found.n_by_rule:
            right.append(float(lesion[chosen].mean()))
        if found.low is not None and found.high is not None:
            limit = q[chosen].min()
            precise.append(found.low <= lesion[q >= limit].mean() <= found.high)
    error = np.sqrt(np.mean((np.array(totals) - lesion.sum()) ** 2))
    return {
        "mean estimate": f"{np.mean(totals):.0f}",
        "typical error": f"{error:.0f}",
        "95% interval holds the truth": f"{np.mean(held):.0%}",
        "its width": f"{np.mean(widths):.0f}",
        "accepted unread": f"{np.mean(accepted):.0f}",
        "of these lesions": f"{np.mean(right):.0%}" if right else "",
        "Brier score": f"{np.mean(brier):.3f}",
        "Brier score before": f"{((p - lesion) ** 2).mean():.3f}",
        "interval of the precision holds the truth": f"{np.mean(precise):.0%}" if precise else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    listing = parts.add_parser("candidates")
    listing.add_argument("dataset", type=int)
    listing.add_argument("--labels", nargs="+", default=["random", "size", "full"])
    listing.add_argument("--oof", type=Path, required=True, help="of completion.py find")
    listing.add_argument("--out", type=Path, required=True)
    reading = parts.add_parser("read")
    reading.add_argument("file", type=Path)
    reading.add_argument("--readings", nargs="+", type=int, default=[30, 60, 120])
    reading.add_argument("--draws", type=int, default=500)
    reading.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "candidates":
        list_candidates(arguments.dataset, arguments.labels, arguments.oof, arguments.out)
    else:
        read(arguments.file, arguments.readings, arguments.draws, arguments.out)


if __name__ == "__main__":
    main()
