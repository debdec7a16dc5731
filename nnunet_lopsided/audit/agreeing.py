"""Several readers of one audit: what they agree on, how well, and a page on which to settle the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_lopsided.audit.agreement import UNDECIDED, Kappa, measure_agreement
from nnunet_lopsided.audit.decisions import (
    VERDICTS,
    CandidateKey,
    Decisions,
    Verdict,
    check_candidates,
    read_decisions,
)
from nnunet_lopsided.audit.stored import StoredAudit, StoredCandidate, chosen_audit
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.intervals import check_replicates

# How decisions are told apart: all three, and what apply makes of them.
ALL_WORDS, ACCEPTED = "accept, reject, unsure", "accepted or not"


@dataclass(frozen=True)
class Reading:
    """One reader's decisions; ``name`` is that in the file's column ``reader``, or else the file's."""

    name: str
    path: Path
    decisions: Decisions


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What several readers decided on the candidates of an audit.

    Attributes:
        audit: which they read.
        readings: at least two.
        kappas: by how decisions are told apart (:data:`ALL_WORDS`, :data:`ACCEPTED`), of every two readers and of all.
        agreed: what all of them decided alike.
        disputed: candidates on which two decided differently, by rank.
        partly_read: other candidates that some have decided on and some have not, by rank.
        seed, n_replicates: of the bootstrap.
    """

    audit: StoredAudit
    readings: tuple[Reading, ...]
    kappas: dict[str, list[Kappa]]
    agreed: dict[CandidateKey, Verdict]
    disputed: tuple[StoredCandidate, ...]
    partly_read: tuple[StoredCandidate, ...]
    seed: int
    n_replicates: int

    @property
    def names(self) -> list[str]:
        """Of the readers."""
        return [reading.name for reading in self.readings]

    @property
    def to_settle(self) -> tuple[StoredCandidate, ...]:
        """Candidates without consensus: the disputed ones first."""
        return (*self.disputed, *self.partly_read)

    def table(self, first: int, second: int) -> list[list[int]]:
        """How many candidates the first reader put into each of :data:`VERDICTS` (row), and the second (column)."""
        ours, theirs = (self.readings[i].decisions.verdicts for i in (first, second))
        pairs = [(ours[key], theirs[key]) for key in ours if key in theirs]
        return [[pairs.count((one, other)) for other in VERDICTS] for one in VERDICTS]


def read_agreement(
    paths: Sequence[Path], audit_folder: Path | None = None, *, n_replicates: int = 1000, seed: int = 0
) -> Agreement:
    """Read several readers' decisions on one audit and compare them.

    Args:
        paths: of :func:`~nnunet_lopsided.audit.decisions.read_decisions`, at least two.
        audit_folder: of the audit; None: beside the first file, or below nnUNet_results.
        n_replicates: of the bootstrap over patients, 0 for none.
        seed: of the bootstrap.

    Raises:
        InputError: a file cannot be read or is given twice, they are of different audits, or no candidate is decided
            on by two of them.
    """
    check_replicates(n_replicates)
    if len(paths) < 2:
        raise InputError(f"expected the decisions of at least two readers, got {len(paths)} file")
    twice = next((path for i, path in enumerate(paths) if path.resolve() in [p.resolve() for p in paths[:i]]), None)
    if twice is not None:
        raise InputError(f"{twice} is given twice; expected a file per reader")
    decisions = [read_decisions(path) for path in paths]
    for path, one in zip(paths[1:], decisions[1:], strict=True):
        if one.audit != decisions[0].audit:
            raise InputError(
                f"{path} holds decisions of audit {one.audit}; expected those of {decisions[0].audit}, as in {paths[0]}"
            )
    audit = chosen_audit(audit_folder, decisions[0].audit, [path.absolute().parent for path in paths])
    for path, one in zip(paths, decisions, strict=True):
        check_candidates(one, audit, path)
    named = _names(paths, decisions)
    readings = tuple(Reading(*of_one) for of_one in zip(named, paths, decisions, strict=True))
    given = {c.key: [one.verdicts.get(c.key) for one in decisions] for c in audit.candidates}
    read = [c for c in audit.candidates if any(given[c.key])]
    words = np.array([[UNDECIDED if word is None else VERDICTS.index(word) for word in given[c.key]] for c in read])
    patients = [c.patient for c in read]
    accepted = np.where(words == UNDECIDED, UNDECIDED, words != VERDICTS.index("accept"))
    agreed: dict[CandidateKey, Verdict] = {}
    for key, of_all in given.items():
        if of_all[0] is not None and len(set(of_all)) == 1:
            agreed[key] = of_all[0]
    disputed = tuple(c for c in read if len({word for word in given[c.key] if word}) > 1)
    return Agreement(
        audit=audit,
        readings=readings,
        kappas={
            ALL_WORDS: measure_agreement(words, patients, n_replicates, seed),
            ACCEPTED: measure_agreement(accepted, patients, n_replicates, seed),
        },
        agreed=agreed,
        disputed=disputed,
        partly_read=tuple(c for c in read if c.key not in agreed and c not in disputed),
        seed=seed,
        n_replicates=n_replicates,
    )


def _names(paths: Sequence[Path], decisions: Sequence[Decisions]) -> list[str]:
    """Of the readers, no two alike: those in the files, or else the files', or else these with their folders."""
    said = [one.readers[0] if len(one.readers) == 1 else path.stem for path, one in zip(paths, decisions, strict=True)]
    stems, parents = [path.stem for path in paths], [path.absolute().parent.name for path in paths]
    for names in (said, stems, [f"{parent}/{stem}" for parent, stem in zip(parents, stems, strict=True)]):
        if len(set(names)) == len(names):
            return names
    return [f"reader {i}" for i in range(1, len(paths) + 1)]


def consensus(agreement: Agreement) -> Decisions:
    """What all readers decided alike, with what each of them remarked; the others without decision."""
    remarks: dict[CandidateKey, dict[str, str]] = {}
    for key in [*agreement.agreed, *(c.key for c in agreement.to_settle)]:
        comments = [
            f"{reading.name}: {said}"
            for reading in agreement.readings
            if (said := reading.decisions.remark(key, "comment"))
        ]
        readers = ", ".join(agreement.names) if key in agreement.agreed else ""
        times = [reading.decisions.remark(key, "time") for reading in agreement.readings]
        remarks[key] = {
            "reader": readers,
            "time": max(times) if key in agreement.agreed else "",
            "comment": "; ".join(comments),
        }
    return Decisions(agreement.audit.id, agreement.agreed, {}, remarks)
