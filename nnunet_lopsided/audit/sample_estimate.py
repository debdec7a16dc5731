"""What the reading of a sample says of all candidates: how many are missed lesions, of which sizes, and which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.decisions import Decisions, Verdict, check_candidates, read_decisions, write_decisions
from nnunet_lopsided.audit.recalibration import Zones, recalibrated, zones
from nnunet_lopsided.audit.sampled import Sample
from nnunet_lopsided.audit.sampling import Total, estimate_total
from nnunet_lopsided.audit.stored import RECORD as AUDIT_RECORD
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folders import check_output_folder, new_output_folder
from nnunet_lopsided.files.json import Shape, read_json, write_json
from nnunet_lopsided.files.tables import write_table

RECORD, TABLE, ZONES, PAGE = "estimate.json", "probabilities.csv", "zones.csv", "estimate.html"
_READING: dict[Verdict, float] = {"accept": 1.0, "reject": 0.0, "unsure": 0.5}
_ANNOTATED: Shape = {"miss_rate_by_diameter": [{"lower_mm": float, "annotated_lesions": int}]}


@dataclass(frozen=True, kw_only=True)
class SizeEstimate:
    """Of a range of diameters.

    Attributes:
        lower_mm: diameters from here.
        upper_mm: to below here; None: no limit.
        n_annotated: annotated lesions.
        total: of its candidates.
    """

    lower_mm: float
    upper_mm: float | None
    n_annotated: int
    total: Total


@dataclass(frozen=True, kw_only=True)
class SampleEstimate:
    """What a read sample says.

    Attributes:
        sample: what was drawn.
        decisions: of the reader, on all that was drawn.
        reading: 1, 0.5 or 0 where read, NaN elsewhere, of the population.
        total: of all candidates.
        by_size: by ranges of diameters, those of the strata.
        n_annotated: annotated lesions of the audit.
        probability: of being a missed lesion, recalibrated, of the population.
        zones: what to do with each.
        precision: what was asked of the accepted.
        doubtful: from which probability others are doubtful.
    """

    sample: Sample
    decisions: Decisions
    reading: NDArray[np.float64]
    total: Total
    by_size: tuple[SizeEstimate, ...]
    n_annotated: int
    probability: NDArray[np.float64]
    zones: Zones
    precision: float
    doubtful: float


def miss_rate(missed: float, n_annotated: int) -> float | None:
    """The share of all lesions that the annotators missed; None where there is no lesion."""
    return missed / (missed + n_annotated) if missed + n_annotated else None


def estimate_from_sample(
    sample: Sample, path: Path, *, precision: float = 0.8, doubtful: float = 0.2
) -> SampleEstimate:
    """Count missed lesions by the design of the sample, mend the probabilities, and draw zones by these.

    Args:
        sample: that was read.
        path: the decisions, of :func:`~nnunet_lopsided.audit.decisions.read_decisions`; those on candidates that were
            not drawn have no say here.
        precision: see :func:`~nnunet_lopsided.audit.recalibration.zones`, as for ``doubtful``.

    Raises:
        InputError: a number is out of range, the decisions are of another audit, or one that was drawn has none.
    """
    for name, value in (("--precision", precision), ("--doubtful", doubtful)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} must be within 0 and 1, got {value:g}")
    decisions = read_decisions(path)
    if decisions.audit != sample.audit.id:
        raise InputError(f"{path} holds decisions of audit {decisions.audit}; the sample is of audit {sample.audit.id}")
    check_candidates(decisions, sample.audit, path)
    reading: NDArray[np.float64] = np.full(len(sample.population), np.nan)
    for i in np.concatenate([s.sampled for s in sample.strata]):
        word = decisions.verdicts.get(sample.population[i].key)
        reading[i] = np.nan if word is None else _READING[word]
    open_ = [c for c in sample.drawn if c.key not in decisions.verdicts]
    if open_:
        # Those that a reader leaves out are not left out at random.
        first = open_[0]
        raise InputError(
            f"{path}: {len(open_)} of the {len(sample.drawn)} sampled candidates have no decision, the first is case "
            f"{first.case}, candidate {first.number}; decide on each, 'unsure' is a decision"
        )
    probability = recalibrated(sample.probability, sample.diameter_mm, sample.strata, reading)
    annotated = _annotated(sample)
    return SampleEstimate(
        sample=sample,
        decisions=decisions,
        reading=reading,
        total=estimate_total(sample.strata, reading),
        by_size=tuple(_by_size(sample, reading, annotated)),
        n_annotated=sum(n for _, n in annotated),
        probability=probability,
        zones=zones(probability, sample.strata, reading, precision=precision, doubtful=doubtful),
        precision=precision,
        doubtful=doubtful,
    )


def _annotated(sample: Sample) -> list[tuple[float, int]]:
    """Annotated lesions by the lower edge of their range of diameters, as the audit counted them."""
    content = read_json(sample.audit.folder / AUDIT_RECORD, _ANNOTATED)
    return [(rate["lower_mm"], rate["annotated_lesions"]) for rate in content["miss_rate_by_diameter"]]


def _by_size(
    sample: Sample, reading: NDArray[np.float64], annotated: Sequence[tuple[float, int]]
) -> list[SizeEstimate]:
    ranges = dict.fromkeys((s.lower_mm, s.upper_mm) for s in sample.strata)
    return [
        SizeEstimate(
            lower_mm=lower,
            upper_mm=upper,
            n_annotated=sum(n for low, n in annotated if lower <= low and (upper is None or low < upper)),
            total=estimate_total([s for s in sample.strata if (s.lower_mm, s.upper_mm) == (lower, upper)], reading),
        )
        for lower, upper in ranges
    ]


def write_estimate(estimate: SampleEstimate, folder: Path, *, overwrite: bool = False) -> None:
    """Write ``estimate.json``, ``probabilities.csv``, ``zones.csv`` (decisions for ``apply``) and ``estimate.html``.

    Raises:
        InputError: the target is refused or cannot be written.
    """
    from nnunet_lopsided.audit.estimate_page import estimate_html

    marks, files = (RECORD, TABLE), (RECORD, TABLE, ZONES, PAGE)
    check_output_folder(folder, overwrite, [], marks, "lopsided-audit estimate", files)
    with new_output_folder(folder, overwrite, [], marks, "lopsided-audit estimate", files) as unfinished:
        write_json(unfinished / RECORD, estimate_record(estimate))
        write_table(unfinished / TABLE, _COLUMNS, _rows(estimate))
        write_decisions(decisions_by_zones(estimate), unfinished / ZONES)
        (unfinished / PAGE).write_text(estimate_html(estimate), encoding="utf-8")


_COLUMNS = ("audit", "case", "candidate", "diameter_mm", "probability_before", "probability", "reading", "zone")


def _zone(estimate: SampleEstimate, i: int) -> str:
    if estimate.zones.accepted[i]:
        return "accepted"
    return "doubtful" if estimate.zones.doubtful[i] else "background"


def _rows(estimate: SampleEstimate) -> list[list[object]]:
    sample = estimate.sample
    return [
        [
            sample.audit.id,
            *c.key,
            f"{c.diameter_mm:.6g}",
            f"{sample.probability[i]:.6g}",
            f"{estimate.probability[i]:.6g}",
            "" if np.isnan(estimate.reading[i]) else f"{estimate.reading[i]:g}",
            _zone(estimate, i),
        ]
        for i, c in enumerate(sample.population)
    ]


def decisions_by_zones(estimate: SampleEstimate) -> Decisions:
    """Accept what is accepted, be unsure of what is doubtful, reject what a reader rejected, and leave the rest."""
    verdicts: dict[tuple[str, int], Verdict] = {}
    remarks: dict[tuple[str, int], dict[str, str]] = {}
    for i, candidate in enumerate(estimate.sample.population):
        key, zone = candidate.key, _zone(estimate, i)
        if key in estimate.decisions.verdicts:
            verdicts[key] = estimate.decisions.verdicts[key]
            remarks[key] = dict(estimate.decisions.remarks.get(key, {}))
        elif zone != "background":
            verdicts[key] = "accept" if zone == "accepted" else "unsure"
            remarks[key] = {"comment": f"by its probability, {estimate.probability[i]:.2f}: nobody has read it"}
    return Decisions(estimate.sample.audit.id, verdicts, estimate.decisions.origin, remarks)


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
        "read": {word: int((estimate.reading == value).sum()) for word, value in _READING.items()},
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
