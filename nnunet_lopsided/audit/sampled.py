"""A random sample of an audit's candidates to read: drawing it, and reading a written one again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.sampling import LEAST_PER_STRATUM, Stratum, all_sampled, draw_sample, probability_by_rank
from nnunet_lopsided.audit.stored import (
    StoredAudit,
    StoredCandidate,
    chosen_audit,
    find_audits,
    number_within,
    whole_number,
)
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.intervals import check_seed
from nnunet_lopsided.files.json import Shape, read_json
from nnunet_lopsided.files.tables import numbered_rows

RECORD, TABLE, PAGE = "sample.json", "sample.csv", "sample.html"
COLUMNS = ("audit", "case", "candidate", "stratum", "probability", "diameter_mm", "sampled", "decision")
_SHAPE: Shape = {
    "audit": str,
    "seed": int,
    "strata": [{"lower_mm": float, "upper_mm": (float, type(None)), "candidates": int, "sampled": int}],
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Candidates to read, drawn at random from strata of all.

    Attributes:
        audit: whose candidates.
        population: those that were drawn from, by rank: all but the fainter ones.
        probability: by which strata were cut, of each of the population.
        strata: with indices into the population.
        n_left_out: fainter candidates, of which nothing is said.
        seed: of the draw.
    """

    audit: StoredAudit
    population: tuple[StoredCandidate, ...]
    probability: NDArray[np.float64]
    strata: tuple[Stratum, ...]
    n_left_out: int
    seed: int

    @property
    def diameter_mm(self) -> NDArray[np.float64]:
        """Of each candidate of the population."""
        return np.array([c.diameter_mm for c in self.population])

    @property
    def drawn(self) -> tuple[StoredCandidate, ...]:
        """The candidates to read, in an order of chance: neither rank nor case tells what to expect of the next."""
        shuffled = np.random.default_rng([self.seed, 1]).permutation(all_sampled(self.strata))
        return tuple(self.population[i] for i in shuffled)


def sample_candidates(audit: StoredAudit, n: int, seed: int = 0) -> Sample:
    """Draw candidates of an audit to read.

    Strata follow the scores where these are probabilities of being a missed lesion, and otherwise the ranks.

    Args:
        audit: a written one.
        n: how many to read; all, where there are not more.
        seed: of the draw.

    Raises:
        InputError: fewer than two are asked for, or the audit has no candidate at or above its threshold.
    """
    if n < LEAST_PER_STRATUM:
        raise InputError(f"expected a sample of at least {LEAST_PER_STRATUM} candidates, got {n}")
    check_seed(seed)
    threshold = audit.record.rules.threshold
    population = tuple(c for c in audit.candidates if c.max_probability >= threshold)
    if not population:
        raise InputError(f"audit {audit.id} has no candidate of at least {threshold:g} to sample")
    scores = [c.score for c in population if c.score is not None]
    calibrated = audit.record.ranked_by == "likeness" and len(scores) == len(population)
    probability = np.array(scores) if calibrated else probability_by_rank(len(population))
    diameter_mm = np.array([c.diameter_mm for c in population])
    strata = draw_sample(probability, diameter_mm, audit.record.rules.diameter_edges_mm, n, seed)
    return Sample(
        audit=audit,
        population=population,
        probability=probability,
        strata=strata,
        n_left_out=len(audit.candidates) - len(population),
        seed=seed,
    )


def chosen_sample(folder: Path | None, decisions: Path) -> Path:
    """The folder of the sample that decisions are of.

    Args:
        folder: if it is named.
        decisions: a file; the sample may lie beside it, or be the only one of an audit below nnUNet_results.

    Raises:
        InputError: there is none, or several and none is named.
    """
    if folder is not None:
        return folder
    beside = decisions.absolute().parent
    if (beside / RECORD).is_file():
        return beside
    found = [audit / "sample" for audit in find_audits() if (audit / "sample" / RECORD).is_file()]
    if len(found) != 1:
        where = f"there are several samples: {', '.join(map(str, found))}" if found else "there is no sample"
        raise InputError(f"{where}, and none beside {decisions}; name its folder with --sample")
    return found[0]


def read_sample(folder: Path, audit_folder: Path | None = None) -> Sample:
    """Read what :func:`~nnunet_lopsided.audit.sample_writing.write_sample` wrote.

    Args:
        folder: of the sample.
        audit_folder: of the audit; None: above ``folder``, or below nnUNet_results.

    Raises:
        InputError: the folder holds no sample, or its table is not that of its record and the audit.
    """
    if not (folder / RECORD).is_file():
        raise InputError(f"{folder} holds no {RECORD}; expected the folder of lopsided-audit sample")
    record = read_json(folder / RECORD, _SHAPE)
    audit = chosen_audit(audit_folder, record["audit"], [folder.absolute().parent])
    by_key = {c.key: c for c in audit.candidates}
    population, probability, stratum, drawn = [], [], [], []
    for line, row in numbered_rows(folder / TABLE, COLUMNS[:-1]):
        place = f"{folder / TABLE}, line {line}"
        key = row["case"], whole_number(row["candidate"], "candidate", place)
        number = whole_number(row["stratum"], "stratum", place)
        value = number_within(row["probability"], "probability", 1.0, place)
        if key not in by_key or not 1 <= number <= len(record["strata"]):
            raise InputError(
                f"{place}: expected a candidate of audit {audit.id} in one of {len(record['strata'])} strata"
            )
        population.append(by_key[key])
        probability.append(value)
        stratum.append(number)
        drawn.append(row["sampled"] == "1")
    of_all, is_drawn, probabilities = np.array(stratum, np.int64), np.array(drawn, bool), np.array(probability)
    strata = tuple(
        Stratum.of(
            (s["lower_mm"], s["upper_mm"]),
            probabilities,
            members=np.flatnonzero(of_all == i),
            sampled=np.flatnonzero((of_all == i) & is_drawn),
        )
        for i, s in enumerate(record["strata"], 1)
    )
    if [(len(s.members), len(s.sampled)) for s in strata] != [
        (s["candidates"], s["sampled"]) for s in record["strata"]
    ]:
        raise InputError(
            f"{folder / TABLE} is not the table of {RECORD}: rows are missing or were changed; sample again"
        )
    return Sample(
        audit=audit,
        population=tuple(population),
        probability=probabilities,
        strata=strata,
        n_left_out=len(audit.candidates) - len(population),
        seed=record["seed"],
    )
