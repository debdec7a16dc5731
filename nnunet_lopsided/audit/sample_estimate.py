"""What the reading of a sample says of all candidates: how many are missed lesions, of which sizes, and which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.decisions import Decisions, Verdict, decisions_on
from nnunet_lopsided.audit.recalibration import Zones, recalibrated, zones
from nnunet_lopsided.audit.sampled import Sample
from nnunet_lopsided.audit.sampling import Total, all_sampled, estimate_total
from nnunet_lopsided.audit.stored_record import RECORD as AUDIT_RECORD
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import Shape, read_json

READING: dict[Verdict, float] = {"accept": 1.0, "reject": 0.0, "unsure": 0.5}
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
    decisions = decisions_on(sample.audit, path)
    reading: NDArray[np.float64] = np.full(len(sample.population), np.nan)
    for i in all_sampled(sample.strata):
        word = decisions.verdicts.get(sample.population[i].key)
        reading[i] = np.nan if word is None else READING[word]
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
