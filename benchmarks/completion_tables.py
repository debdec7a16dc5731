"""Tables of trainings on completed labels, by machines and by readers; `study_tables.py` calls them by name.

python benchmarks/study_tables.py completed_with_recipe
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from arms_tables import (
    BEFORE,
    EARLY,
    GAMMA,
    LACK,
    LOSSES,
    PLAIN,
    RECIPE,
    RESULTS,
    SHOWN,
    TOLD,
    TOLD_AND_PASTED,
    Arm,
    read_rows,
    recipe_of,
    select,
    set_by_set,
    share_of_whole,
)

from nnunet_lopsided.files.tables import read_table

SOFT = "nnUNetTrainerLopsided_margin0_nopaste_softtargets"
WAYS = {"highest": "the 60 that score highest are read", "sample": "a random sample of 60, and zones"}


def completed(labels: str) -> tuple[list[str], list[list[str]]]:
    """Average precision set by set, of completed labels and of what they are compared with."""
    plain, done = read_rows("arms-phantom"), read_rows("completion-phantom")
    lacking = {} if labels == "full" else {"nnU-Net's loss": select(plain, labels, LOSSES[PLAIN])}
    rows = {
        "nnU-Net's loss, whole labels": select(plain, "full", LOSSES[PLAIN]),
        **lacking,
        "gamma 2 alone": select(plain, labels, LOSSES[GAMMA]),
        "told which lesions are missing (ignore label), nnU-Net's loss": select(
            done, f"{labels}_ignored", LOSSES[PLAIN]
        ),
        "**completed**: p of the networks, voxel by voxel": select(done, labels, SOFT, rule="p"),
        "completed: q of the component times its p": select(done, labels, SOFT, rule="qp"),
        "completed: p in images that are magnified, too": select(done, labels, SOFT, rule="p magnified"),
        "not completed: lesions pasted, gamma from 10%": select(plain, labels, LOSSES[EARLY]),
    }
    sets = sorted({s for arm in rows.values() for s in arm.by_set})
    body = []
    for title, arm in rows.items():
        if arm.by_set:
            body.append([title, *set_by_set(arm, sets)])
    return ["labels, loss", *(f"set {s}" for s in sets), "mean", "FP"], body


def completed_with_recipe() -> tuple[list[str], list[list[str]]]:
    """The same with the recipe as finder, half missing at random, on the phantom that had no part in choosing."""
    plain, done = read_rows("arms-fresh"), read_rows("completion-recipe")
    without_gamma = f"{TOLD_AND_PASTED}_softtargets"
    rows = {
        "nnU-Net's loss, whole labels": select(plain, "full", LOSSES[PLAIN]),
        "nnU-Net's loss": select(plain, "random", LOSSES[PLAIN]),
        "**not completed: the recipe of then**": select(plain, "random", LOSSES[BEFORE]),
        SHOWN[TOLD]: select(plain, "random_ignored", TOLD_AND_PASTED),
        "completed by p, its own gamma from 70%": select(done, "random", f"{LOSSES[RECIPE]}_softtargets", rule="p"),
        "completed by p, no gamma": select(done, "random", without_gamma, rule="p"),
        "completed by q, no gamma": select(done, "random", without_gamma, rule="q"),
        "**not completed: the recipe**": select(plain, "random", LOSSES[RECIPE]),
        "completed by p, no gamma, cross-entropy by lesion voxels": select(
            done, "random", f"{TOLD_AND_PASTED}_softtargets_celesion", rule="p"
        ),
    }
    sets = (0, 1, 2)
    shown = {title: Arm({s: arm.by_set[s] for s in sets}) for title, arm in rows.items()}
    return ["labels, loss", *(f"set {s}" for s in sets), "mean", "FP"], [
        [title, *set_by_set(arm, sets)] for title, arm in shown.items()
    ]


def sixty_readings() -> tuple[list[str], list[list[str]]]:
    """The recipe on labels with what was read of sixty candidates of each set."""
    plain, done, counts = (read_rows(name) for name in ("arms-fresh", "readings", "readings-counts"))
    whole, sets = select(plain, "full", LOSSES[PLAIN]), (0, 1, 2)
    body = []
    for labels, lack in LACK.items():
        arms = {
            "nnU-Net's loss": select(plain, labels, LOSSES[PLAIN]),
            "nobody has read": recipe_of(plain, labels),
            **{text: select(done, f"{labels}_{way}", LOSSES[RECIPE]) for way, text in WAYS.items()},
        }
        for (text, arm), way in zip(arms.items(), ("", "", *WAYS), strict=True):
            own = Arm({s: row for s, row in arm.by_set.items() if s in sets})
            if not own.by_set or (labels == "full" and way):
                continue
            of = [r for r in counts if r["labels"] == f"{labels}_{way}"]
            found = ", ".join(
                f"{r['accepted_missed']} + {int(r['accepted'] or 0) - int(r['accepted_missed'] or 0)}" for r in of
            )
            share = f"{own.mean('ap_sqrt')} ({share_of_whole(own, whole):.0%})"
            body.append(
                [lack, text, found, share, own.mean("ap_mean"), own.mean("sens_sqrt_at_4"), own.mean("fp_per_case", 1)]
            )
            lack = ""
    head = [
        "labels lack",
        "loss, or who reads",
        "accepted: missed lesions + false ones",
        "AP",
        "by mean p",
        "found at 4 FP",
        "FP",
    ]
    return head, body


def missed_by_size() -> tuple[list[str], list[list[str]]]:
    """True and estimated miss rates, by the audit and by injected lesions."""
    rows = [row for row in read_table(RESULTS / "missed-by-size.csv") if row["network"] == "per_lesion_paste"]
    methods = {"as lopsided-audit": "audit", "as lopsided-audit --inject": "by injected lesions"}
    rates = {(r["data"], r["labels"], r["method"]): (r["true_miss_rate"], r["estimated_miss_rate"]) for r in rows}
    data = {"faint": "faint", "clear": "clear", "faint2": "faint, other patients", "clear2": "clear, other patients"}
    body = []
    for name, what in data.items():
        for labels, lack in LACK.items():
            both = [rates[name, labels, method] for method in methods]
            body.append([what, lack, both[0][0], *(estimated for _, estimated in both)])
            what = ""
    return ["lesions", "labels lack", "true", *methods.values()], body


def audited() -> tuple[list[str], list[list[str]]]:
    """Audits of cross-validations of the recipe: miss rates, and what probabilities add up to."""
    body = []
    for data, of_data in by_data().items():
        what = data
        for labels, lack in LACK.items():
            if (r := of_data.get(labels)) is None:
                continue
            ends, j = r["injected_ci95"], r["judged"]
            interval = "" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})"
            body.append(
                [
                    what,
                    lack,
                    f"{r['true']:.2f}",
                    f"{r['audit']:.2f}",
                    f"{r['injected']:.2f}{interval}",
                    f"{j['lesions']} of {j['candidates']}",
                    f"{j['sum_of_scores']:.0f}",
                    f"{j['accepted']}, {j['accepted_lesions']} of them lesions",
                ]
            )
            what = ""
    head = ["lesions", "labels lack", "true", "audit", "by injected lesions (95%)"]
    return [*head, "missed lesions among the candidates", "sum of scores", "scores of .5 and more"], body


def seen_by_size() -> tuple[list[str], list[list[str]]]:
    """By diameter: missed lesions and their estimate, and the share found of injected and of truly missed lesions."""
    body = []
    for data, of_data in by_data().items():
        for labels, lack in LACK.items():
            for of in of_data.get(labels, {}).get("by_diameter", []):
                if not of["missed"]:
                    continue
                estimate = "" if of["estimated_missed"] is None else f"{of['estimated_missed']:.0f}"
                body.append(
                    [
                        f"{data}: {lack}",
                        f"from {of['lower_mm']:g} mm",
                        str(of["lesions"]),
                        str(of["missed"]),
                        estimate,
                        f"{of['missed_found'] / of['missed']:.2f}",
                        f"{of['injected_found'] / of['injected']:.2f}" if of["injected"] else "",
                    ]
                )
    head = ["labels lack", "diameter", "lesions", "missed", "estimated", "found of the missed", "found of the injected"]
    return head, body


def completed_by_zones(data: str) -> tuple[list[str], list[list[str]]]:
    """Trainings on all cases: whole labels, what is left of them, and what zones make of that."""
    rows = [row for row in read_rows("completion-zones") if row["data"] == data]
    losses = {"nnU-Net's loss": LOSSES[PLAIN], "the recipe": LOSSES[RECIPE]}
    whole = select(rows, "full", LOSSES[PLAIN], rule="left")
    body = []
    for labels, lack in LACK.items():
        for rule, now in (("left", "as they are"), ("zones", "**completed**"), ("injected", "completed by injected")):
            for loss, trainer in losses.items():
                arm = select(rows, labels, trainer, rule=rule)
                if not arm.by_set:
                    continue
                ap = f"{arm.mean('ap_sqrt')} ({share_of_whole(arm, whole):.0%})"
                numbers = [arm.mean(column) for column in ("ap_mean", "sens_sqrt_at_4", "sens_small_at_4")]
                n = str(len(arm.by_set))
                body.append([lack, now, loss, n, ap, *numbers, arm.mean("fp_per_case", 1)])
                lack = ""
    head = ["labels lack", "labels are", "loss", "n", "AP", "by mean p", "found at 4 FP", "of the smaller half", "FP"]
    return head, body


def by_data() -> dict[str, dict[str, Any]]:
    """The lines of `audited.py` by data and labels."""
    found: dict[str, dict[str, Any]] = {}
    for row in read_rows("audited"):
        found.setdefault(str(row["data"]), {})[str(row["labels"])] = row
    return found


TABLES: dict[str, Callable[..., tuple[Sequence[str], Sequence[Sequence[str]]]]] = {
    "audited": audited,
    "completed": completed,
    "completed_by_zones": completed_by_zones,
    "completed_with_recipe": completed_with_recipe,
    "missed_by_size": missed_by_size,
    "seen_by_size": seen_by_size,
    "sixty_readings": sixty_readings,
}
