"""Tables of the trainings in benchmarks/results/*.jsonl, as Markdown; `study_tables.py` calls them by name.

python benchmarks/study_tables.py answer
python benchmarks/study_tables.py arms arms-phantom
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from scipy import stats

RESULTS = Path(__file__).parent / "results"
LACK = {"full": "nothing", "random": "half, at random", "size": "the smaller half", "read": "half, as readers miss"}
PLAIN, GAMMA, EARLY, LATER, RECIPE, LARGEST = "plain", "gamma", "early", "later", "recipe", "largest"
BEFORE, GAMMA_2 = "before", "gamma 2"
GAMMA_1, MARGIN_2, TOLD = "gamma 1", "margin 2", "told"
# By the trainer's name without its budget; the rule says what the soft targets were.
LOSSES = {
    PLAIN: "nnUNetTrainer25D_prior",
    GAMMA: "nnUNetTrainerLopsided_margin0_nopaste",
    EARLY: "nnUNetTrainerLopsided_nolookback_from10",
    LATER: "nnUNetTrainerLopsided_nolookback",
    BEFORE: "nnUNetTrainerLopsided_cemean",
    GAMMA_2: "nnUNetTrainerLopsided_g2",
    RECIPE: "nnUNetTrainerLopsided",
    MARGIN_2: "nnUNetTrainerLopsided_margin2",
    GAMMA_1: "nnUNetTrainerLopsided_margin0_nopaste_g1",
    LARGEST: "nnUNetTrainerLopsided_margin0_pastelargest",
}
TOLD_AND_PASTED = "nnUNetTrainerLopsided_g0_paste"
TOLD_NOW = f"{TOLD_AND_PASTED}_celesion"
SHOWN = {
    PLAIN: "nnU-Net's loss",
    GAMMA: "gamma 2 alone",
    EARLY: "pasted, gamma from 10%",
    LATER: "pasted, gamma from 70%",
    BEFORE: "cross-entropy by all voxels, otherwise the recipe",
    GAMMA_2: "gamma 2, otherwise the recipe",
    RECIPE: "recipe",
    TOLD: "told which are missing (ignore label), pasted, cross-entropy by all voxels",
    TOLD_NOW: "the same by lesion voxels",
    GAMMA_1: "gamma 1 alone",
    MARGIN_2: "gamma 2, margin 2",
    LARGEST: "pasted up to the largest",
}

# What was trained on, in the order of the page.
DATA = {
    "arms-fresh": "third phantom",
    "arms-phantom": "first phantom, faint",
    "arms-nuclei": "nuclei",
    "arms-wide": "third phantom, nnU-Net's own network",
    "arms-25d": "third phantom, 2.5D",
    "arms-3d-40": "third phantom, 3D, 40 cases",
    "arms-3d": "third phantom, 3D, 8 cases",
}

# Ways to paste lesions, by the key `how` of arms-repairs-choice.jsonl.
REPAIRS = {
    "P": "nnU-Net's loss",
    "L": "gamma 2 alone",
    "now": "up to the largest diameter",
    "own": "each lesion shrunk to between the smallest and its own",
    "half": "each lesion shrunk to between half of its own and its own",
    "q75": "up to the upper quartile",
    "q75_margin2_g2": "the same, margin 2",
    "q75_margin2_g1": "the same, margin 2, gamma 1",
    "q75_n1_margin2_g2": "the same, margin 2, at most one lesion in each slice",
    "q75_like_margin2_g2": "the same, margin 2, only where it looks as around lesions",
    "q75_wide_margin2_g2": "the same, within a standard deviation of that",
    "q75_stop6_margin2_g2": "up to the upper quartile, margin 2, in 60% of the training",
}

Row = dict[str, float | int | str | None]


def read_rows(name: str) -> list[Row]:
    """The lines of a file of benchmarks/results."""
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Arm:
    """The trainings of one loss on one kind of labels, by the set of cases (the seed)."""

    by_set: dict[int, Row]

    def values(self, column: str) -> list[float]:
        return [float(value) for row in self.by_set.values() if isinstance(value := row.get(column), int | float)]

    def mean(self, column: str, digits: int = 3) -> str:
        values = self.values(column)
        return f"{fmean(values):.{digits}f}" if values else ""


def without_budget(trainer: str) -> str:
    """Its name without the epochs and their iterations."""
    return re.sub(r"_\d+epochs_\d+iters$", "", trainer)


def select(rows: Iterable[Row], labels: str, trainer: str, rule: str | None = None) -> Arm:
    """Trainings of a trainer, whatever its budget; the last line of a set counts."""
    mine = (
        r for r in rows if (r["labels"], without_budget(str(r["trainer"])), r.get("rule")) == (labels, trainer, rule)
    )
    return Arm({int(r["seed"] or 0): r for r in sorted(mine, key=lambda r: int(r["seed"] or 0))})


def reported(labels: str) -> dict[str, Arm]:
    """nnU-Net's loss and the recipe on the phantom that had no part in choosing."""
    rows = read_rows("arms-fresh")
    return {PLAIN: select(rows, labels, LOSSES[PLAIN]), RECIPE: recipe_of(rows, labels)}


def difference(arm: Arm, other: Arm, column: str = "ap_sqrt") -> tuple[float, float, float] | None:
    """Mean and 95% t-interval of the differences on common sets of cases; None with fewer than two."""
    common = sorted(arm.by_set.keys() & other.by_set.keys())
    values = [float(arm.by_set[s][column] or 0) - float(other.by_set[s][column] or 0) for s in common]
    return t_interval(values) if len(values) > 1 else None


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of at least two values and their 95% t-interval."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return fmean(values), fmean(values) - half, fmean(values) + half


def share_of_whole(arm: Arm, whole: Arm, column: str = "ap_sqrt") -> float:
    """Of what nnU-Net's loss reaches with whole labels on the same sets of cases."""
    common = sorted(arm.by_set.keys() & whole.by_set.keys())
    return fmean(float(arm.by_set[s][column] or 0) for s in common) / fmean(
        float(whole.by_set[s][column] or 0) for s in common
    )


def answer() -> tuple[list[str], list[list[str]]]:
    """Lesions found at 4 false alarms per scan, and shares of average precision; as many sets as each has."""
    whole = reported("full")[PLAIN]
    head = ["your labels lack", *(SHOWN[name] for name in reported("full"))]
    body = []
    for labels, lack in LACK.items():
        cells = []
        for arm in reported(labels).values():
            if not arm.by_set:
                cells.append("not measured")
                continue
            found = 100 * fmean(arm.values("sens_sqrt_at_4"))
            cells.append(f"**{found:.0f}** ({share_of_whole(arm, whole):.0%}; {len(arm.by_set)})")
        if any(cell != "not measured" for cell in cells):
            body.append([lack, *cells])
    return head, body


def arms(name: str) -> tuple[list[str], list[list[str]]]:
    """Means over the sets of cases, and the recipe's difference to nnU-Net's loss on common sets."""
    rows = read_rows(name)
    columns = {
        "ap_sqrt": ("AP by sqrt", 3),
        "ap_sum": ("by sum", 3),
        "ap_mean": ("by mean", 3),
        "sensitivity": ("sensitivity", 3),
        "fp_per_case": ("FP", 1),
        "sens_sqrt_at_4": ("sensitivity at 4 FP", 3),
        "sens_sqrt_at_4.5": ("at 4.5 FP", 3),
        "p_hidden": ("p on missing", 2),
    }
    head = ["labels lack", "loss", "n", *(title for title, _ in columns.values()), "AP by sqrt: minus nnU-Net's loss"]
    body = []
    for labels, lack in LACK.items():
        both = {loss: select(rows, labels, trainer) for loss, trainer in LOSSES.items() if loss != LARGEST}
        both[TOLD] = select(rows, f"{labels}_ignored", TOLD_AND_PASTED)
        both[TOLD_NOW] = select(rows, f"{labels}_ignored", TOLD_NOW)
        for loss, arm in both.items():
            if arm.by_set:
                cells = [arm.mean(column, digits) for column, (_, digits) in columns.items()]
                # There nothing is pasted, and gamma begins at 10%: this name leaves out that it asks first.
                shown = "recipe that does not ask" if (name, loss) == ("arms-nuclei", LATER) else SHOWN[loss]
                body.append([lack, shown, str(len(arm.by_set)), *cells, _difference(arm, both[PLAIN], loss)])
    return head, body


def recipe_of(rows: Sequence[Row], labels: str) -> Arm:
    """Its trainings; with whole labels, where nothing is doubted, those with gamma 2 stand for what it lacks."""
    recipe = select(rows, labels, LOSSES[RECIPE])
    earlier = select(rows, labels, LOSSES[GAMMA_2]).by_set if labels == "full" else {}
    return Arm({**earlier, **recipe.by_set})


def everywhere() -> tuple[list[str], list[list[str]]]:
    """Each kind of data and labels: the share of nnU-Net's loss with whole labels, and what is found at 4 or 4.5 FP."""
    body = []
    for name, what in DATA.items():
        rows = read_rows(name)
        whole = select(rows, "full", LOSSES[PLAIN])
        for labels, lack in LACK.items():
            plain, before = (select(rows, labels, LOSSES[loss]) for loss in (PLAIN, BEFORE))
            recipe = recipe_of(rows, labels)
            told, told_before = (select(rows, f"{labels}_ignored", name) for name in (TOLD_NOW, TOLD_AND_PASTED))
            if not recipe.by_set and not before.by_set:
                continue
            shares = [
                f"{share_of_whole(arm, whole):.0%} ({len(arm.by_set)})" if arm.by_set else ""
                for arm in (plain, told if told.by_set else told_before, before, recipe)
            ]
            found = [m or "not run" for m in (plain.mean("sens_sqrt_at_4"), recipe.mean("sens_sqrt_at_4.5"))]
            body.append([what, lack, *shares, ", ".join(found)])
            what = ""
    losses = ["nnU-Net's loss", "told which are missing", "cross-entropy by all voxels", "**recipe**"]
    return ["data", "labels lack", *losses, "found at 4 and 4.5 FP"], body


def _difference(arm: Arm, plain: Arm, loss: str) -> str:
    three = None if loss == PLAIN else difference(arm, plain)
    return "" if three is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*three)


def set_by_set(arm: Arm, sets: Iterable[int]) -> list[str]:
    """Average precision of each set, its mean, and the mean number of false positives per case."""
    cells = [f"{float(arm.by_set[s]['ap_sqrt'] or 0):.3f}" if s in arm.by_set else "" for s in sets]
    return [*cells, arm.mean("ap_sqrt"), arm.mean("fp_per_case", 1)]


def froc(name: str) -> tuple[list[str], list[list[str]]]:
    """Share of lesions found at so many false positives per case, by nnU-Net's loss and the recipe."""
    rows, at = read_rows(name), (1, 2, 4, 8)
    body = []
    for labels, lack in LACK.items():
        arms = {PLAIN: select(rows, labels, LOSSES[PLAIN]), RECIPE: recipe_of(rows, labels)}
        for loss, arm in arms.items():
            found = [f"{100 * fmean(arm.values(f'sens_sqrt_at_{n}')):.1f}" for n in at]
            body.append([lack, SHOWN[loss], str(len(arm.by_set)), *found])
    return ["labels lack", "loss", "n", *(f"at {n}" for n in at)], body


def screened() -> tuple[list[str], list[list[str]]]:
    """The first loop in which losses were compared: means over the seeds that there are."""
    rows, kinds = [r for r in read_rows("screen") if "later" not in r], ("full", "random", "size", "read")
    body = []
    for arm in dict.fromkeys(str(row["arm"]) for row in rows):
        cells = [arm]
        for labels in kinds:
            one = Arm({int(r["seed"] or 0): r for r in rows if r["arm"] == arm and r["labels"] == labels})
            numbers = [one.mean("ap_sqrt"), one.mean("sensitivity", 2), one.mean("fp_per_case", 1)]
            p = one.mean("p_hidden", 2)
            cells.append(" / ".join(numbers) + (f"; {p}" if p else "") + f" ({len(one.by_set)})" if one.by_set else "")
        body.append(cells)
    return ["arm", *(LACK[labels] for labels in kinds)], body


def pasted() -> tuple[list[str], list[list[str]]]:
    """Pasted lesions and networks of halves in that loop, beside the recipe on the same seeds."""
    rows = [r for r in read_rows("screen") if r.get("later") == "paste"]
    columns = {
        "ap_sqrt": 3,
        "ap_mean": 3,
        "sens_sqrt_at_4": 3,
        "sens_small_at_4": 3,
        "sens_large_at_4": 3,
        "sensitivity": 3,
        "fp_per_case": 1,
        "pasted_small": 2,
        "pasted_large": 2,
    }
    body = []
    for labels, lack in LACK.items():
        names = dict.fromkeys(str(r["arm"]) for r in rows if r["labels"] == labels)
        of = {
            name: Arm({int(r["seed"] or 0): r for r in rows if (r["labels"], r["arm"]) == (labels, name)})
            for name in names
        }
        for name, arm in of.items():
            cells = [arm.mean(column, digits) for column, digits in columns.items()]
            gained = difference(arm, of["gamma2"]) if name != "gamma2" else None
            cells.append("{:+.3f} ({:+.3f} to {:+.3f})".format(*gained) if gained else "")
            body.append([lack, name, str(len(arm.by_set)), *cells])
    head = ["labels lack", "arm", "n", "AP by sqrt", "by mean", "found at 4 FP", "small", "large", "found", "FP"]
    return [*head, "small pasted", "large pasted", "AP by sqrt: minus gamma2"], body


def sets_of_cases(name: str) -> tuple[list[str], list[list[str]]]:
    """Every set: nnU-Net's loss, the recipe, and how lesions were pasted before."""
    rows = read_rows(name)
    sets = sorted(select(rows, "full", LOSSES[PLAIN]).by_set)
    body = []
    for loss in (PLAIN, RECIPE, GAMMA_2, BEFORE, LATER, EARLY, LARGEST):
        for labels, lack in LACK.items():
            arm = select(rows, labels, LOSSES[loss])
            if arm.by_set:
                body.append([SHOWN[loss], lack, *set_by_set(arm, sets)])
    return ["loss", "labels lack", *(f"set {s}" for s in sets), "mean", "FP"], body


def one_training(row: Row | None) -> str:
    """Its average precision and false positives per case."""
    return "" if row is None else f"{float(row['ap_sqrt'] or 0):.3f}, {float(row['fp_per_case'] or 0):.0f}"


def pasting() -> tuple[list[str], list[list[str]]]:
    """Ways to paste, compared on the training cases of the other folds of set 4."""
    rows = [r for r in read_rows("arms-repairs-choice") if (r["dataset"], r["seed"]) == (800, 4)]
    body = []
    for how in REPAIRS:
        mine = {str(r["labels"]): r for r in rows if r["how"] == how}
        body.append([REPAIRS[how], *(one_training(mine.get(labels)) for labels in ("full", "random"))])
    return ["way", LACK["full"], LACK["random"]], body


def chosen() -> tuple[list[str], list[list[str]]]:
    """Settings compared on the training cases of the other folds."""
    rows = read_rows("arms-phantom-choice")
    names = dict.fromkeys(without_budget(str(row["trainer"])) for row in rows)
    body = []
    for name in names:
        arm = select(rows, "random", name)
        cells = [
            "{:.3f} / {:.1f}; {:.2f}".format(
                *(float(arm.by_set[s][c] or 0) for c in ("ap_sqrt", "fp_per_case", "p_hidden"))
            )
            if s in arm.by_set
            else ""
            for s in (0, 1)
        ]
        body.append([f"`{name}`", *cells])
    return ["trainer", "cases 0 to 7", "cases 8 to 15"], body


def magnified() -> tuple[list[str], list[list[str]]]:
    """Test cases as they are, and by the mean with the magnified images."""
    body = []
    for name, what in (
        ("magnified-networks", "nnU-Net's loss, ten cases; labels lack the smaller half"),
        ("magnified-training", "gamma 2 alone, eight cases; labels lack nothing"),
        ("magnified-stock", "nnU-Net's loss, eight others; labels lack nothing"),
    ):
        for row in read_rows(name):
            numbers = [float(row[c] or 0) for c in ("ap_sqrt", "ap_mean", "sens_small_at_4", "sens_large_at_4")]
            everything = f"{float(row['sensitivity'] or 0):.3f}, {float(row['fp_per_case'] or 0):.1f}"
            images = "magnified, too" if row["magnify"] else "as they are"
            body.append([what, images, *(f"{number:.3f}" for number in numbers), everything])
            what = ""
    return ["network", "images", "AP", "AP by mean p", "small found", "large found", "all candidates: found, FP"], body


TABLES: dict[str, Callable[..., tuple[Sequence[str], Sequence[Sequence[str]]]]] = {
    "answer": answer,
    "arms": arms,
    "everywhere": everywhere,
    "froc": froc,
    "screened": screened,
    "pasted": pasted,
    "sets_of_cases": sets_of_cases,
    "chosen": chosen,
    "pasting": pasting,
    "magnified": magnified,
}
