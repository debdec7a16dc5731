"""Reading a written audit again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_lopsided.audit.outputs import _NEEDED_COLUMNS, MAPS, RECORD, TABLE, _finite, _record, find_audits
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import file_digest
from nnunet_lopsided.files.tables import numbered_rows
from nnunet_lopsided.images import Image, difference, read_image
from nnunet_lopsided.nnunet.raw import Case, RawDataset


def check_unchanged(audit: StoredAudit, dataset: RawDataset, training: Sequence[Case]) -> None:
    """Refuse labels of the audited dataset that are no longer those that were audited.

    Raises:
        InputError: a case is no longer in the dataset, or its label has changed.
    """
    cases = {case.name: case for case in training}
    for name, entry in audit.record["cases"].items():
        if name not in cases:
            raise InputError(f"{dataset.name} has changed since audit {audit.id}: case {name} is no longer in it")
        label = cases[name].label
        assert label is not None, "training_cases() gives labels"
        if file_digest(label) != entry["label_sha256"]:
            raise InputError(f"case {name}: {label} has changed since audit {audit.id}; audit again")


@dataclass(frozen=True)
class StoredCandidate:
    """A row of audit.csv."""

    case: str
    number: int
    rank: int
    score: float
    mean_probability: float
    max_probability: float
    label: int


@dataclass(frozen=True)
class StoredAudit:
    """An audit that was written.

    Attributes:
        folder: where.
        record: the content of audit.json.
        candidates: in the order of their rank.
    """

    folder: Path
    record: dict[str, Any]
    candidates: tuple[StoredCandidate, ...]

    @property
    def id(self) -> str:
        """By which decisions name it."""
        return str(self.record["id"])

    @property
    def dataset(self) -> str:
        """Name of the audited dataset."""
        return str(self.record["dataset"])

    def map_of(self, case: str, file_ending: str) -> Path:
        """The label map of a case's candidates."""
        return self.folder / MAPS / (case + file_ending)

    def read_map(self, case: str, label: Path, image: Image, file_ending: str) -> Image:
        """The label map of a case's candidates, which must lie where ``image``, read from ``label``, does.

        Raises:
            InputError: it cannot be read, or lies elsewhere.
        """
        path = self.map_of(case, file_ending)
        numbers = read_image(path)
        differing = difference(image, numbers)
        if differing is not None:
            raise InputError(f"case {case}: {label} and {path} differ: {differing}")
        return numbers


def read_audit(folder: Path) -> StoredAudit:
    """Read what :func:`write_audit` wrote.

    Raises:
        InputError: the folder holds no audit, or its table is not that of the audit: other candidates, or not all.
    """
    record = _record(folder)
    path = folder / TABLE
    candidates: dict[tuple[str, int], StoredCandidate] = {}
    for line, row in numbered_rows(path, _NEEDED_COLUMNS):
        if row["audit"] != record["id"]:
            raise InputError(f"{path}, line {line}: expected a candidate of audit {record['id']}, found {row['audit']}")
        if row["case"] not in record["cases"]:
            found = row["case"] or "nothing"
            raise InputError(f"{path}, line {line}: expected a case of audit {record['id']}, found {found}")
        try:
            number, rank, label = (int(row[name]) for name in ("candidate", "rank", "label"))
            score, mean, highest = (_finite(row[name]) for name in ("score", "mean_probability", "max_probability"))
        except ValueError as error:
            raise InputError(f"{path}, line {line}: expected a candidate: {error}") from None
        if number < 1:  # 0 is the background of its map
            raise InputError(f"{path}, line {line}: expected the number of a candidate, at least 1, found {number}")
        if (row["case"], number) in candidates:
            raise InputError(f"{path}, line {line}: case {row['case']}, candidate {number} is listed twice")
        candidates[row["case"], number] = StoredCandidate(row["case"], number, rank, score, mean, highest, label)
    ranked = tuple(sorted(candidates.values(), key=lambda c: c.rank))
    n = record["counts"]["candidates"]
    if len(ranked) != n or [candidate.rank for candidate in ranked] != list(range(1, n + 1)):
        found = "other ranks" if len(ranked) == n else str(len(ranked))
        raise InputError(
            f"{path}: expected the {n} candidates of audit {record['id']}, ranked 1 to {n}, found {found}; audit again "
            "into another folder, and give this file as the decisions"
        )
    return StoredAudit(folder, record, ranked)


def chosen_audit(folder: Path | None, wanted: str | None = None, near: Sequence[Path] = ()) -> StoredAudit:
    """The audit that is meant.

    Args:
        folder: where it lies; None: looked for in ``near`` and where audits are by default.
        wanted: its id; None: whichever is the only one.
        near: folders that may be an audit's.

    Raises:
        InputError: there is none, or several and none is named.
    """
    if folder is not None:
        found = read_audit(folder)
        if wanted is not None and found.id != wanted:
            raise InputError(f"the decisions are of audit {wanted}, but {folder} holds audit {found.id}")
        return found
    nearby = [path for path in near if (path / RECORD).is_file()]
    if nearby and (wanted is None or _record(nearby[0])["id"] == wanted):
        return read_audit(nearby[0])
    all_found = find_audits()
    fitting = [path for path in all_found if wanted is None or _record(path)["id"] == wanted]
    if len(fitting) == 1:
        return read_audit(fitting[0])
    if fitting:
        raise InputError(f"there are several audits, name one: {', '.join(map(str, fitting))}")
    which = "no audit" if wanted is None else f"no audit {wanted}"
    raise InputError(
        f"{which} in {', '.join(map(str, near)) or 'this folder'} nor below nnUNet_results; name its folder"
    )
