"""What a reader decided on the candidates of an audit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from nnunet_lopsided.audit.ranking import WITHIN_1
from nnunet_lopsided.audit.stored import TABLE_COLUMNS, StoredAudit, chosen_audit
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import file_digest, read_json
from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.files.tables import BEYOND, numbered_rows, write_table

Verdict = Literal["accept", "reject", "unsure"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
_BY_WORD: Mapping[str, Verdict] = {verdict: verdict for verdict in VERDICTS}
# What the page saves; audit.csv has them among its own.
COLUMNS = ("audit", "case", "candidate", "decision")
# What the page writes beside a decision: who, when (ISO 8601, UTC) and why.
REMARKS = ("reader", "time", "comment")

CandidateKey = tuple[str, int]


@dataclass(frozen=True)
class Decisions:
    """Decisions of one audit.

    Attributes:
        audit: the id of the audit.
        verdicts: by case and number of the candidate; candidates without decision are not in it.
        origin: who decided, for the record of what was done with them.
        remarks: by case and number, what else the file says of a candidate, by column: reader, time, comment and any
            other; of candidates without decision too.
    """

    audit: str
    verdicts: Mapping[CandidateKey, Verdict]
    origin: Mapping[str, object]
    remarks: Mapping[CandidateKey, Mapping[str, str]] = field(default_factory=dict)

    def count(self, verdict: Verdict) -> int:
        """Candidates so decided."""
        return sum(given == verdict for given in self.verdicts.values())

    def remark(self, candidate: CandidateKey, column: str) -> str:
        """What a column says of a candidate; empty: nothing."""
        return self.remarks.get(candidate, {}).get(column, "")

    @property
    def readers(self) -> tuple[str, ...]:
        """The names in the column ``reader``, in their order."""
        return tuple(dict.fromkeys(name for key in self.verdicts if (name := self.remark(key, "reader"))))


def decisions_above(audit: StoredAudit, score: float) -> Decisions:
    """Accept the candidates whose score is at least ``score``, and leave the others undecided: no reader has seen them.

    Raises:
        InputError: no such score is possible: it is below 0, or above 1 where scores are probabilities.
    """
    if audit.record.withheld and all(c.score is None for c in audit.candidates):
        raise InputError(f"audit {audit.id} has no scores to accept by: {audit.record.withheld}")
    highest = 1.0 if audit.record.ranked_by in WITHIN_1 else math.inf
    # Infinity would accept nothing, without a word.
    if not 0 <= score <= highest or score == math.inf:
        expected = "from 0 to 1" if highest == 1 else "of at least 0"
        raise InputError(f"expected a score {expected} above which to accept, got {score}")
    verdicts: dict[tuple[str, int], Verdict] = {
        (c.case, c.number): "accept" for c in audit.candidates if c.score is not None and c.score >= score
    }
    return Decisions(audit.id, verdicts, {"accepted_above": score})


def audit_and_decisions(path: Path, audit_folder: Path | None = None) -> tuple[StoredAudit, Decisions]:
    """Decisions in a file and the audit that they are of.

    Args:
        path: see :func:`read_decisions`.
        audit_folder: of the audit; None: beside the decisions, or see
            :func:`~nnunet_lopsided.audit.stored.chosen_audit`.

    Raises:
        InputError: see :func:`read_decisions`; there is no such audit, or a decision is on no candidate of it.
    """
    decisions = read_decisions(path)
    audit = chosen_audit(audit_folder, decisions.audit, [path.absolute().parent])
    check_candidates(decisions, audit, path)
    return audit, decisions


def decisions_on(audit: StoredAudit, path: Path) -> Decisions:
    """Decisions in a file, which must be of this audit.

    Raises:
        InputError: see :func:`read_decisions`; they are of another audit, or one is on no candidate of it.
    """
    decisions = read_decisions(path)
    if decisions.audit != audit.id:
        raise InputError(f"{path}: expected decisions of audit {audit.id} ({audit.folder}), found {decisions.audit}")
    check_candidates(decisions, audit, path)
    return decisions


def check_candidates(decisions: Decisions, audit: StoredAudit, path: Path) -> None:
    """Refuse decisions, read from ``path``, on what is no candidate of the audit.

    Raises:
        InputError: there is one.
    """
    known = {(candidate.case, candidate.number) for candidate in audit.candidates}
    for case, number in decisions.verdicts:
        if (case, number) not in known:
            raise InputError(f"{path}: case {case} has no candidate {number} in audit {audit.id}")


def write_decisions(decisions: Decisions, path: Path) -> None:
    """Write decisions as the CSV that ``lopsided-audit apply`` reads, with all that was remarked.

    Remarks on candidates without decision are written after the decisions.
    """
    keys = dict.fromkeys([*decisions.verdicts, *decisions.remarks])
    remarked = dict.fromkeys(column for remarks in decisions.remarks.values() for column in remarks)
    columns = [*(c for c in REMARKS if c in remarked), *(c for c in remarked if c not in REMARKS)]
    rows = (
        [decisions.audit, *key, decisions.verdicts.get(key, ""), *(decisions.remark(key, c) for c in columns)]
        for key in keys
    )
    with new_file(path, durable=True) as unfinished:
        write_table(unfinished, [*COLUMNS, *columns], rows)


def read_decisions(path: Path) -> Decisions:
    """Read decisions: the CSV or JSON that the page saves, or audit.csv with its column ``decision`` filled.

    An empty decision is none. What other columns say is kept.

    Raises:
        InputError: the file is missing or is neither, a decision is none of accept, reject and unsure, a candidate is
            decided on twice, decisions are of several audits, or there is none.
    """
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    verdicts: dict[CandidateKey, Verdict] = {}
    remarks: dict[CandidateKey, Mapping[str, str]] = {}
    audits = set()
    for row in rows:
        word = (row.decision or "").strip().lower()
        # Of rows without a decision too: a table of two audits is a slip even where one of them is empty.
        audits.add(row.audit)
        if not word and not row.remarks:
            continue
        if word and word not in _BY_WORD:
            raise InputError(f"{path}, {row.place}: expected accept, reject or unsure, found {row.decision!r}")
        try:
            key = row.case, int(row.candidate)
        except ValueError:
            if not word:
                continue
            raise InputError(
                f"{path}, {row.place}: expected the number of a candidate, found {row.candidate!r}"
            ) from None
        if word and key in verdicts:
            raise InputError(f"{path}, {row.place}: case {key[0]}, candidate {key[1]} is decided on twice")
        if word:
            verdicts[key] = _BY_WORD[word]
        if row.remarks and (word or key not in remarks):
            remarks[key] = row.remarks
    if len(audits) > 1:
        raise InputError(f"{path} holds decisions of several audits: {', '.join(sorted(audits))}")
    if not verdicts:
        raise InputError(f"{path} holds no decision")
    return Decisions(audits.pop(), verdicts, {"decisions_sha256": file_digest(path)}, remarks)


def _remarks(row: Mapping[str, object]) -> dict[str, str]:
    """What a row says beside the decision; what is empty, or was written by the audit, is left out."""
    known = {*COLUMNS, *TABLE_COLUMNS, "reason", BEYOND}
    others = {name: value for name, value in row.items() if name not in known and not name.startswith("contrast_")}
    return {name: str(value) for name, value in others.items() if value not in (None, "")}


class _Row(NamedTuple):
    """A decision as it stands in a file, and where there."""

    place: str
    audit: str
    case: str
    candidate: str | int
    decision: str | None
    remarks: Mapping[str, str]


def _csv_rows(path: Path) -> Iterable[_Row]:
    return [
        _Row(f"line {line}", row["audit"], row["case"], row["candidate"], row["decision"], _remarks(row))
        for line, row in numbered_rows(path, COLUMNS)
    ]


def _json_rows(path: Path) -> Iterable[_Row]:
    # Spreadsheets and scripts write numbers as text, and no decision as null.
    content = read_json(
        path, {"audit": str, "decisions": [{"case": str, "candidate": (int, str), "decision": (str, type(None))}]}
    )
    return [
        _Row(f"decision {i}", content["audit"], row["case"], row["candidate"], row["decision"], _remarks(row))
        for i, row in enumerate(content["decisions"], 1)
    ]
