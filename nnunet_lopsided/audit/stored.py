"""A written audit: its files, and reading them again."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.ranking import WITHIN_1
from nnunet_lopsided.audit.stored_record import RECORD, AuditRecord, read_record
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import file_digest
from nnunet_lopsided.files.tables import numbered_rows
from nnunet_lopsided.images import Image, difference, read_image
from nnunet_lopsided.nnunet.paths import nnunet_path
from nnunet_lopsided.nnunet.raw import Case, RawDataset

TABLE, PAGE, MAPS = "audit.csv", "audit.html", "maps"
MARKS = (RECORD, TABLE)

# Of audit.csv; one per channel, the reason and the decision follow.
TABLE_COLUMNS = (
    "audit", "rank", "case", "candidate", "patient", "fold", "centroid_z", "centroid_y", "centroid_x", "x_mm",
    "y_mm", "z_mm", "diameter_mm", "n_voxels", "score", "likeness", "mean_probability", "max_probability", "sum",
    "sqrt", "agreement", "label",
)  # fmt: skip
# What apply and score use. The other columns are for people, who may delete them in a spreadsheet.
_NEEDED_COLUMNS = ("audit", "rank", "case", "candidate", "score", "mean_probability", "max_probability", "label")
_POSITION = ("x_mm", "y_mm", "z_mm")


@dataclass(frozen=True, kw_only=True)
class StoredCandidate:
    """A row of audit.csv.

    Attributes:
        case: where it lies.
        number: of the candidate in its case.
        rank: from 1.
        score: None where scores are withheld.
        mean_probability, max_probability: of the whole component.
        label: the value it would get.
        patient: whose case it is.
        position_mm: of its centroid in the file's own coordinates (x, y, z; LPS where the file is of a patient).
        diameter_mm: of the sphere (2D: circle) of equal volume.
        reason: why it stands where it does, in words.
    """

    case: str
    number: int
    rank: int
    score: float | None
    mean_probability: float
    max_probability: float
    label: int
    patient: str
    position_mm: tuple[float, ...]
    diameter_mm: float
    reason: str

    @property
    def key(self) -> tuple[str, int]:
        """By which decisions name it."""
        return self.case, self.number


@dataclass(frozen=True)
class StoredAudit:
    """An audit that was written.

    Attributes:
        folder: where.
        record: of audit.json.
        candidates: in the order of their rank.
    """

    folder: Path
    record: AuditRecord
    candidates: tuple[StoredCandidate, ...]

    @property
    def id(self) -> str:
        """The id by which decisions name the audit."""
        return self.record.id

    @property
    def dataset(self) -> str:
        """Name of the audited dataset."""
        return self.record.dataset

    def map_of(self, case: str, file_ending: str) -> Path:
        """The label map of a case's candidates."""
        return self.folder / MAPS / (case + file_ending)

    def read_map(
        self,
        case: str,
        label: Path,
        image: Image,
        file_ending: str,
        edited: bool = False,
        elsewhere: Path | None = None,
    ) -> Image:
        """The label map of a case's candidates, which must lie where ``image``, read from ``label``, does.

        Args:
            case: which.
            label: its label map, for messages.
            image: read from it.
            file_ending: of the dataset.
            edited: take a map that was edited since the audit.
            elsewhere: a folder with maps that were redrawn, which are taken in place of the audit's.

        Raises:
            InputError: it cannot be read or lies elsewhere, holds a number that no candidate has, or is not the one
                that the audit wrote and may not be edited.
        """
        path = self.map_of(case, file_ending)
        if elsewhere is not None and (elsewhere / path.name).is_file():
            path, edited = elsewhere / path.name, True
        numbers = read_image(path)
        differing = difference(image, numbers)
        if differing is not None:
            raise InputError(f"case {case}: {label} and {path} differ: {differing}")
        if not edited and not self._is_as_written(case, numbers.array):
            raise InputError(
                f"case {case}: {path} is not the map that audit {self.id} wrote: it was edited since, or is of another "
                "audit; lopsided-audit apply takes edited maps with --edited-maps"
            )
        known = [0, *(candidate.number for candidate in self.candidates if candidate.case == case)]
        unknown = np.setdiff1d(numbers.array, known)
        if len(unknown):
            raise InputError(
                f"case {case}: {path} holds {float(unknown[0]):g}; expected the numbers of the candidates of audit "
                f"{self.id} in this case, 1 to {len(known) - 1}"
            )
        return numbers

    def _is_as_written(self, case: str, numbers: NDArray[np.generic]) -> bool:
        written = self.record.map_digests or {}
        return case in written and map_digest(numbers) == written[case]


def map_digest(numbers: NDArray[np.generic]) -> str:
    """SHA-256 of a map's shape and nonzero voxels: the same whatever its file format, compression and voxel type.

    Example:
        >>> map_digest(np.array([[0, 1]], np.uint8)) == map_digest(np.array([[0, 1]], np.float32))
        True
    """
    voxels = np.flatnonzero(numbers)
    values = numbers.reshape(-1)[voxels].astype("<f8")  # holds candidates' numbers exactly, whatever type the file has
    digest = hashlib.sha256(f"{numbers.shape}\n".encode())
    digest.update(voxels.astype("<i8").tobytes())
    digest.update(values.tobytes())
    return digest.hexdigest()


def check_unchanged(audit: StoredAudit, dataset: RawDataset, training: Sequence[Case]) -> None:
    """Refuse labels of the audited dataset that are no longer those that were audited.

    Raises:
        InputError: a case is no longer in the dataset, or its label has changed.
    """
    cases = {case.name: case for case in training}
    for name, audited in audit.record.label_digests.items():
        if name not in cases:
            raise InputError(f"{dataset.name} has changed since audit {audit.id}: case {name} is no longer in it")
        label = cases[name].label
        assert label is not None, "training_cases() gives labels"
        if file_digest(label) != audited:
            raise InputError(f"case {name}: {label} has changed since audit {audit.id}; audit again")


def read_audit(folder: Path) -> StoredAudit:
    """Read what :func:`~nnunet_lopsided.audit.writing.write_audit` wrote.

    Raises:
        InputError: the folder holds no audit, or its table is not that of the audit: other candidates, or not all.
    """
    record, path = read_record(folder), folder / TABLE
    candidates: dict[tuple[str, int], StoredCandidate] = {}
    for line, row in numbered_rows(path, _NEEDED_COLUMNS):
        candidate = _candidate(row, record, f"{path}, line {line}")
        if (candidate.case, candidate.number) in candidates:
            raise InputError(
                f"{path}, line {line}: case {candidate.case}, candidate {candidate.number} is listed twice"
            )
        candidates[candidate.case, candidate.number] = candidate
    ranked = tuple(sorted(candidates.values(), key=lambda c: c.rank))
    n = record.n_candidates
    # The number first: a range up to a count of 1e9 would fill the memory.
    if len(ranked) != n or [candidate.rank for candidate in ranked] != list(range(1, n + 1)):
        ranks = "other ranks" if len(ranked) == n else str(len(ranked))
        raise InputError(
            f"{path}: expected the {n} candidates of audit {record.id}, ranked 1 to {n}, found {ranks}; audit again "
            "into another folder, and give this file as the decisions"
        )
    return StoredAudit(folder, record, ranked)


def _candidate(row: Mapping[str, str], record: AuditRecord, place: str) -> StoredCandidate:
    """A row of the table."""
    if row["audit"] != record.id:
        raise InputError(f"{place}: expected a candidate of audit {record.id}, found {row['audit']}")
    if row["case"] not in record.label_digests:
        raise InputError(f"{place}: expected a case of audit {record.id}, found {row['case'] or 'nothing'}")
    numbers = {name: whole_number(row[name], name, place) for name in ("candidate", "rank", "label")}
    if numbers["candidate"] < 1:  # 0 is the background of its map
        raise InputError(f"{place}: expected the number of a candidate, at least 1, found {numbers['candidate']}")
    score = None
    if not record.withheld or row["score"]:
        score = number_within(row["score"], "score", 1.0 if record.ranked_by in WITHIN_1 else math.inf, place)
    return StoredCandidate(
        case=row["case"],
        number=numbers["candidate"],
        rank=numbers["rank"],
        score=score,
        mean_probability=number_within(row["mean_probability"], "mean_probability", 1.0, place),
        max_probability=number_within(row["max_probability"], "max_probability", 1.0, place),
        label=numbers["label"],
        patient=row.get("patient") or row["case"],
        position_mm=tuple(
            number_within(row[name], name, math.inf, place, -math.inf) for name in _POSITION if row.get(name)
        ),
        diameter_mm=number_within(row.get("diameter_mm") or "0", "diameter_mm", math.inf, place),
        reason=row.get("reason", ""),
    )


def whole_number(text: str, name: str, place: str) -> int:
    """A cell of a table; InputError names it where it is none."""
    # int() also takes 1_0 and digits of other scripts. 18 digits fit into 64 bits.
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        raise InputError(f"{place}: {name}: expected a whole number, found {text!r:.40}")
    return int(text)


def number_within(text: str, name: str, highest: float, place: str, lowest: float = 0.0) -> float:
    """The same of any number in a range."""
    try:
        # A spreadsheet that separates cells by semicolons writes decimal commas.
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not (lowest <= value <= highest and abs(value) < math.inf):
        expected = "a number from 0 to 1" if highest == 1 else "a finite number of at least 0"
        expected = "a finite number" if lowest < 0 else expected
        raise InputError(f"{place}: {name}: expected {expected}, found {text!r:.40}")
    return value


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
        audit = read_audit(folder)
        if wanted is not None and audit.id != wanted:
            raise InputError(f"the decisions are of audit {wanted}, but {folder} holds audit {audit.id}")
        return audit
    # Where the decisions lie comes first: a copied audit beside its decisions is meant, not the one it was copied from.
    nearby = [path for path in near if (path / RECORD).is_file()]
    if nearby and (wanted is None or read_record(nearby[0]).id == wanted):
        return read_audit(nearby[0])
    fitting = [path for path in find_audits() if wanted is None or read_record(path).id == wanted]
    if len(fitting) == 1:
        return read_audit(fitting[0])
    if fitting:
        raise InputError(f"there are several audits, name one: {', '.join(map(str, fitting))}")
    which = "no audit" if wanted is None else f"no audit {wanted}"
    raise InputError(
        f"{which} in {', '.join(map(str, near)) or 'this folder'} nor below nnUNet_results; name its folder"
    )


def find_audits() -> list[Path]:
    """The audits below nnUNet_results, where ``lopsided-audit`` puts them by default, sorted."""
    return sorted(path.parent for path in nnunet_path("nnUNet_results").glob(f"Dataset*/*/audit/{RECORD}"))
