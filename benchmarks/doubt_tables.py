"""Tables of whose doubt in background labels helps, and when; `study_tables.py` calls them by name.

python benchmarks/study_tables.py looked_back
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from arms_tables import LACK, Row, one_training, read_rows, select, without_budget

# When gamma begins, by the trainer's name without its budget.
LATE = {
    "nnUNetTrainer25D_prior": "nnU-Net's loss",
    "nnUNetTrainerLopsided_margin0_nopaste": "nothing pasted, gamma 2 from 10%",
    "nnUNetTrainerLopsided_margin0_nopaste_g1_from10": "nothing pasted, gamma 1 from 10%",
    "nnUNetTrainerLopsided_g0_paste": "pasted, no gamma",
    "nnUNetTrainerLopsided_nolookback_from10": "pasted, gamma 2 from 10%",
    "nnUNetTrainerLopsided_nolookback_from50": "from 50%",
    "nnUNetTrainerLopsided_nolookback_from70": "from 70%",
    "nnUNetTrainerLopsided_nolookback_from85": "from 85%",
    "nnUNetTrainerLopsided_nolookback_g1_from10": "pasted, gamma 1 from 10%",
    "nnUNetTrainerLopsided_nolookback_g1_from70": "gamma 1 from 70%",
    "nnUNetTrainerLopsided_dicenone_g0": "cross-entropy alone, nothing pasted, no gamma",
    "nnUNetTrainerLopsided_margin0_nopaste_dicenone_g1": "the same, gamma 1 from 10%",
}

# Who judges which background labels are doubted, by the key `how` of arms-looking-back.jsonl.
JUDGES = {
    "nnU-Net": "nnU-Net's loss",
    "pasted": "pasted, no doubt",
    "from 30": "its own p, from 30% of the training",
    "from 50": "from 50%",
    "from 70": "from 70%",
    "floor 0.2": "from 10%, trust at least 0.2",
    "floor 0.5": "from 10%, trust at least 0.5",
    "stands still": "p of the average network at 30%",
    "soft targets": "candidates at 30%, as soft targets",
    "trust": "candidates at 30%, as trust",
    "trust grown": "the same, grown by a voxel",
    "trust grown gamma 1": "the same, gamma 1",
    "trust grown capped": "the same, at most one missed for each annotated",
    "again": "grown, and again at 50 and 70%",
    "again gamma 1": "the same, gamma 1",
    "lesion voxels": "again, and cross-entropy by lesion voxels",
    "gamma 4": "**the same, gamma 4: the recipe**",
    "gamma 8": "the same, gamma 8",
    "told": "told which are missing (ignore label)",
}

# Of by-heart.jsonl: dataset, configuration, cases, epochs.
TRAININGS = {
    (900, "2d_small", 8, 20): "clear, 8 cases, 800 steps",
    (840, "2d_small", 8, 20): "third, 8 cases, 800 steps",
    (900, "2d_small", 8, 40): "clear, 8 cases, 3200 steps",
    (900, "2d_small", 40, 40): "clear, 40 cases, 3200 steps",
    (840, "3d_fullres_small", 8, 20): "third, 8 cases in 3D, 800 steps",
    (840, "2.5d", 8, 12): "third, 8 cases in 2.5D",
    (840, "2d_wide", 8, 12): "third, 8 cases, nnU-Net's own network",
    (840, "2d_wide", 40, 6): "third, 40 cases, nnU-Net's own network",
}

# What looks when in trainings four times as long, by the key `how` of arms-long.jsonl.
LONG = {
    "nnU-Net": "nnU-Net's loss",
    "30": "looks at 30, 50, 70% (epochs 12, 20, 28)",
    "once early": "epochs 3, 12, 20, 28",
    "recipe": "epochs 3, 6, 12, 20, 28, as the recipe; cross-entropy by all voxels",
    "by lesion voxels": "the same, cross-entropy by lesion voxels, gamma 2",
    "gamma 4": "the same, gamma 4",
    "told": "told which are missing (ignore label), pasted",
}


def late() -> tuple[list[str], list[list[str]]]:
    """When gamma begins: set 0 of the phantom on which it was chosen and of the one of the first table."""
    rows = [r for r in (*read_rows("arms-late"), *read_rows("arms-phantom")) if "how" not in r]
    body = []
    for trainer, what in LATE.items():
        cells = []
        for dataset in (900, 800):
            of_one = [r for r in rows if r["dataset"] == dataset]
            cells += [one_training(select(of_one, labels, trainer).by_set.get(0)) for labels in ("full", "random")]
        body.append([what, *cells])
    where = [f"{phantom}: {LACK[labels]}" for phantom in ("clear", "first") for labels in ("full", "random")]
    return ["loss", *where], body


def looked_back() -> tuple[list[str], list[list[str]]]:
    """Who judges: sets 0 and 1 of the clear phantom, and p on missing lesions."""
    rows = [*(r for r in read_rows("arms-looking-back") if r["dataset"] == 900), *_of_set_0()]
    body = []
    for how, what in JUDGES.items():
        cells = []
        for labels in ("full", "random"):
            mine = [r for r in rows if r["how"] == how and str(r["labels"]).removesuffix("_ignored") == labels]
            of_sets = [next((r for r in mine if r["seed"] == seed), None) for seed in (0, 1)]
            cells += [one_training(row) for row in of_sets]
        hidden = {r["seed"]: f"{float(r['p_hidden'] or 0):.2f}" for r in mine}
        body.append([what, *cells, *(hidden.get(seed, "") for seed in (0, 1))])
    of_labels = [f"{lack}, set {k}" for lack in (LACK["full"], LACK["random"]) for k in (0, 1)]
    return ["judge", *of_labels, "p on missing, set 0", "set 1"], body


def _of_set_0() -> list[Row]:
    """What was trained before, under the same names."""
    known = {"nnUNetTrainer25D_prior": "nnU-Net", "nnUNetTrainerLopsided_g0_paste": "pasted"}
    known |= {f"nnUNetTrainerLopsided_nolookback_from{n}": f"from {n}" for n in (50, 70)}
    rows = [r for r in read_rows("arms-late") if r["dataset"] == 900 and "how" not in r]
    named = ((without_budget(str(r["trainer"])), r) for r in rows)
    return [{**r, "how": known[name]} for name, r in named if name in known]


def by_heart() -> tuple[list[str], list[list[str]]]:
    """Mean p on missing lesions trained on, and on those of test cases, by the passes over the training data."""
    rows, body = read_rows("by-heart"), []
    for passes in (2, 3, 7, 9, 14, 20, 24, 28, 34, 41, 50, 55, 60, 80, 100, 120, 160):
        cells = []
        for training in TRAININGS:
            mine = [r for r in rows if (r["dataset"], r["configuration"], r["cases"], r["of_epochs"]) == training]
            away = {abs(float(r["passes"] or 0) - passes): r for r in mine}
            near = away[min(away)] if away and min(away) <= 1 else None
            two = [] if near is None else [near["hidden"], near["test"]]
            cells.append(", ".join(f"{float(p or 0):.2f}" for p in two) + (f" ({near['steps']})" if near else ""))
        body.append([str(passes), *cells])
    return ["passes", *TRAININGS.values()], body


def long() -> tuple[list[str], list[list[str]]]:
    """Trainings four times as long: the clear phantom, and the third one, on which nothing of it was chosen."""
    rows, body = read_rows("arms-long"), []
    sets = list(dict.fromkeys((r["dataset"], r["seed"]) for r in rows))
    for how, what in LONG.items():
        cells = []
        for of in sets:
            mine = [r for r in rows if (r["dataset"], r["seed"]) == of and r["how"] == how]
            for labels in ("full", "random"):
                cells.append(one_training(next((r for r in mine if str(r["labels"]).split("_")[0] == labels), None)))
            missing = next((r for r in mine if r["labels"] != "full"), None)
            cells.append("" if missing is None else f"{float(missing['p_hidden'] or 0):.2f}")
        if any(cells):
            body.append([what, *cells])
    of_sets = [f"{'clear' if phantom == 900 else 'third'}, set {k}" for phantom, k in sets]
    columns = (LACK["full"], LACK["random"], "p on missing")
    return ["loss", *(f"{of}: {column}" for of in of_sets for column in columns)], body


def counted() -> tuple[list[str], list[list[str]]]:
    """Missed lesions for each annotated one, as looking back says and as it is, in the trainings of the first table."""
    rows = {(str(r["labels"]), int(r["seed"] or 0), r["percent"]): r for r in read_rows("looked-back")}
    body = []
    for labels, seed in dict.fromkeys(key[:2] for key in rows):
        first = rows[labels, seed, 30]
        said = [f"{float(rows[labels, seed, at]['missed_per_annotated'] or 0):.2f}" for at in (30, 50, 70)]
        truth = float(first["missed"] or 0) / float(first["annotated"] or 1)
        numbers = [str(first[what]) for what in ("annotated", "called", "candidates", "missed")]
        body.append([LACK[labels], str(seed), *numbers, *said, f"{truth:.2f}"])
    head = ["labels lack", "set", "annotated lesions", "called at 30%", "candidates at 30%", "missed lesions"]
    return [*head, *(f"for each annotated, at {at}%" for at in (30, 50, 70)), "truth"], body


TABLES: dict[str, Callable[..., tuple[Sequence[str], Sequence[Sequence[str]]]]] = {
    "late": late,
    "looked_back": looked_back,
    "by_heart": by_heart,
    "long": long,
    "counted": counted,
}
