"""Writing what a sample says: estimate.json, probabilities.csv, zones.csv and estimate.html."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.decisions import Decisions, write_decisions
from nnunet_lopsided.audit.estimate_page import estimate_html
from nnunet_lopsided.audit.sample_estimate import READING, SampleEstimate, miss_rate
from nnunet_lopsided.audit.sampling import Total
from nnunet_lopsided.audit.zone_decisions import zone_decisions, zone_names
from nnunet_lopsided.files.folders import new_output_folder
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.tables import write_table

RECORD, TABLE, ZONES, PAGE = "estimate.json", "probabilities.csv", "zones.csv", "estimate.html"


def write_estimate(estimate: SampleEstimate, folder: Path, *, overwrite: bool = False) -> None:
    """Write ``estimate.json``, ``probabilities.csv``, ``zones.csv`` (decisions for ``apply``) and ``estimate.html``.

    Raises:
        InputError: the target is refused or cannot be written.
    """
    marks, files = (RECORD, TABLE), (RECORD, TABLE, ZONES, PAGE)
    with new_output_folder(folder, overwrite, [], marks, "lopsided-audit estimate", files) as unfinished:
        write_json(unfinished / RECORD, estimate_record(estimate))
        write_table(unfinished / TABLE, _COLUMNS, _rows(estimate))
        write_decisions(decisions_by_zones(estimate), unfinished / ZONES)
        (unfinished / PAGE).write_text(estimate_html(estimate), encoding="utf-8")


_COLUMNS = ("audit", "case", "candidate", "diameter_mm", "probability_before", "probability", "reading", "zone")


def _rows(estimate: SampleEstimate) -> list[list[object]]:
    sample, zone = estimate.sample, zone_names(estimate.zones)
    return [
        [
            sample.audit.id,
            *c.key,
            f"{c.diameter_mm:.6g}",
            f"{sample.probability[i]:.6g}",
            f"{estimate.probability[i]:.6g}",
            "" if np.isnan(estimate.reading[i]) else f"{estimate.reading[i]:g}",
            zone[i],
        ]
        for i, c in enumerate(sample.population)
    ]


def decisions_by_zones(estimate: SampleEstimate) -> Decisions:
    """See :func:`~nnunet_lopsided.audit.zone_decisions.zone_decisions`."""
    return zone_decisions(
        estimate.sample.population, estimate.probability, estimate.zones, estimate.decisions, estimate.decisions.origin
    )


def estimate_record(estimate: SampleEstimate) -> dict[str, object]:
    """The content of estimate.json."""
    sample, chosen = estimate.sample, estimate.zones
    return {
        "schema_version": 1,
        "tool": "nnunet-lopsided",
        "version": __version__,
        "audit": sample.audit.id,
        "dataset": sample.audit.dataset,
        "seed": sample.seed,
        **estimate.decisions.origin,
        "readers": list(estimate.decisions.readers),
        "read": {word: int((estimate.reading == value).sum()) for word, value in READING.items()},
        "fainter_candidates_left_out": sample.n_left_out,
        "all": _total(estimate.total, estimate.n_annotated),
        "by_diameter": [
            {"lower_mm": s.lower_mm, "upper_mm": s.upper_mm, **_total(s.total, s.n_annotated)} for s in estimate.by_size
        ],
        "zones": {
            "precision_asked": estimate.precision,
            "doubtful_from": estimate.doubtful,
            "accepted": int(chosen.accepted.sum()),
            "accepted_unread": chosen.n_by_rule,
            "doubtful": int(chosen.doubtful.sum()),
            "precision_of_the_rule": chosen.precision,
            "precision_of_the_rule_ci95": None if chosen.low is None else [chosen.low, chosen.high],
        },
    }


def _total(total: Total, n_annotated: int) -> dict[str, object]:
    return {
        "annotated_lesions": n_annotated,
        "candidates": total.n_candidates,
        "read": total.n_read,
        "missed_lesions": total.missed,
        "missed_lesions_ci95": [total.low, total.high],
        "miss_rate": miss_rate(total.missed, n_annotated),
        "miss_rate_ci95": [miss_rate(total.low, n_annotated), miss_rate(total.high, n_annotated)],
    }
