"""The raw dataset of a completion by zones: written as a repaired one is, with a table, a record and a page beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.repair import write_repaired_variant
from nnunet_lopsided.audit.stored import StoredCandidate
from nnunet_lopsided.completion.completed_variant import COMPLETION_FILE, LESIONS_FILE, PAGE
from nnunet_lopsided.completion.completion_page import N_SHOWN
from nnunet_lopsided.completion.target import Settings, Target
from nnunet_lopsided.completion.zoned_page import ZoneRow, zone_pictures, zoned_html
from nnunet_lopsided.completion.zoning import Zoned
from nnunet_lopsided.evaluation.strata import diameter_bin, diameter_bounds
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.nnunet.dataset_json import read_dataset_json

# A candidate's edge is where a network is least sure, so that a little around it is ignored too.
GROWN_BY = 1
_COLUMNS = ("case", "candidate", "diameter_mm", "probability", "zone", "decided_by")


def write_zoned_variant(
    zoned: Zoned,
    target: Target,
    *,
    settings: Settings,
    rounds: Sequence[object],
    left_out: Sequence[str] = (),
    overwrite: bool = False,
    n_workers: int = 2,
) -> None:
    """Write the labels with the accepted candidates, and the ignore label where a candidate is doubtful.

    Args:
        zoned: of :func:`~nnunet_lopsided.completion.zoning.find_zones`.
        target: what is written.
        settings: what it is made of, for its record.
        rounds: what earlier rounds found.
        left_out: cases that none of the folds judges; they are in the variant as they are.
        overwrite: replace an earlier completion of this id and name.
        n_workers: cases worked on at the same time.

    Raises:
        InputError: the id is in use, labels have changed since the audit, or a file cannot be read.
    """
    by_diameter = _by_diameter(zoned)
    record = _record(zoned, settings, rounds, left_out, by_diameter)
    pictures = [zone_pictures(zoned.audit, part, n_workers) for part in _shown(zoned)]
    title = target.folder.name

    def finish(folder: Path) -> None:
        who = "without a reader" if zoned.estimate is None else "after the reading of a sample"
        completed_by = f"zones by nnunet-lopsided {__version__}, {who}: {COMPLETION_FILE}"
        content = {**read_dataset_json(folder / "dataset.json"), "completed": completed_by}
        write_json(folder / "dataset.json", content)
        rows = _rows(zoned)
        write_table(folder / LESIONS_FILE, _COLUMNS, rows)
        page = zoned_html(title, record=record, by_diameter=by_diameter, rows=rows, pictures=pictures)
        (folder / PAGE).write_text(page, encoding="utf-8")
        write_json(folder / COMPLETION_FILE, record)

    write_repaired_variant(
        zoned.audit,
        zoned.decisions,
        target.id,
        unsure="ignore",
        name=target.name,
        grow=GROWN_BY,
        marker=COMPLETION_FILE,
        finish=finish,
        overwrite=overwrite,
        n_workers=n_workers,
    )


def _record(
    zoned: Zoned,
    settings: Settings,
    rounds: Sequence[object],
    left_out: Sequence[str],
    by_diameter: Sequence[ZoneRow],
) -> Mapping[str, object]:
    zone, total = zoned.zone, None if zoned.estimate is None else zoned.estimate.total
    accepted = zone == "accepted"
    missed = float(zoned.probability.sum()) if total is None else total.missed
    # By probability, of all that is accepted; a reader's word is worth 1.
    worth = np.where(zoned.is_read & accepted, 1.0, zoned.probability)
    gained = float(worth[accepted].sum())
    found = {
        "n_candidates": len(zoned.candidates),
        "n_annotated": zoned.n_annotated,
        "missed_per_annotated": zoned.rho,
        "missed_per_annotated_ci95": _ratio_interval(zoned),
        "estimated_missed_lesions": missed,
    }
    return {
        "schema_version": 1,
        "tool": "nnunet-lopsided",
        "version": __version__,
        "settings": settings,
        "audit": zoned.audit.id,
        "audit_folder": str(zoned.audit.folder),
        "not_completed": list(left_out),
        **found,
        "estimated_missed_lesions_ci95": None if total is None else [total.low, total.high],
        "estimated_by": zoned.estimated_by or "a sample that was read",
        "not_injected": zoned.not_injected or None,
        "nearly_whole": zoned.nearly_whole,
        "n_accepted": int(accepted.sum()),
        "n_accepted_unread": zoned.zones.n_by_rule,
        "n_doubtful": int((zone == "doubtful").sum()),
        "doubtful_grown_by_voxels": GROWN_BY,
        "expected_precision": gained / int(accepted.sum()) if accepted.any() else None,
        # Of the sample alone, of all candidates that the rule would accept; None: nobody has read one of them.
        "precision_of_the_rule": zoned.zones.precision,
        "precision_of_the_rule_ci95": None if zoned.zones.low is None else [zoned.zones.low, zoned.zones.high],
        "expected_recall": min(1.0, gained / missed) if missed else None,
        "rounds": [*rounds, {"trained_on": zoned.audit.dataset, **found}],
        "by_diameter": [vars(row) for row in by_diameter],
    }


def _ratio_interval(zoned: Zoned) -> list[float] | None:
    """95%, of missed per annotated lesions, by injected lesions."""
    ends = None if zoned.by_size is None or zoned.estimate is not None else zoned.by_size.interval.ends
    return None if ends is None else [rate / (1 - rate) for rate in ends]


def _rows(zoned: Zoned) -> list[list[object]]:
    read = zoned.is_read
    return [
        [*c.key, f"{c.diameter_mm:.6g}", f"{zoned.probability[i]:.6g}", zone, "reader" if read[i] else "probability"]
        for i, (c, zone) in enumerate(zip(zoned.candidates, zoned.zone.tolist(), strict=True))
    ]


def _by_diameter(zoned: Zoned) -> list[ZoneRow]:
    edges = zoned.audit.record.rules.diameter_edges_mm
    bins = diameter_bin(np.array([c.diameter_mm for c in zoned.candidates]), edges)
    accepted, doubtful = zoned.zone == "accepted", zoned.zone == "doubtful"
    return [
        ZoneRow(
            lower_mm=lower,
            upper_mm=upper,
            n_candidates=int((bins == i).sum()),
            n_accepted=int((accepted & (bins == i)).sum()),
            n_doubtful=int((doubtful & (bins == i)).sum()),
            expected_lesions=float(zoned.probability[bins == i].sum()),
            expected_accepted=float(zoned.probability[accepted & (bins == i)].sum()),
        )
        for i, (lower, upper) in enumerate(diameter_bounds(edges))
    ]


def _shown(zoned: Zoned) -> list[list[tuple[StoredCandidate, float]]]:
    """The least probable that are accepted, the most probable that are ignored, and that stay background."""
    names = zoned.zone
    order = np.argsort(-zoned.probability, kind="stable")
    shown = []
    for zone in ("accepted", "doubtful", "background"):
        of_zone = [int(i) for i in order if names[i] == zone]
        of_zone = of_zone[::-1] if zone == "accepted" else of_zone
        shown.append([(zoned.candidates[i], float(zoned.probability[i])) for i in of_zone[:N_SHOWN]])
    return shown
