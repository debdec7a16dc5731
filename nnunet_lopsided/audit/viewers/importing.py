"""What a reader did with exported candidates in a viewer, as decisions for ``lopsided-audit apply``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.decisions import CandidateKey, Decisions, Verdict, write_decisions
from nnunet_lopsided.audit.stored import StoredAudit, StoredCandidate, check_unchanged, chosen_audit
from nnunet_lopsided.audit.viewers.exporting import LABELS, MAP, RECORD, SEGMENTS, points_file
from nnunet_lopsided.audit.viewers.itk_snap import read_descriptions
from nnunet_lopsided.audit.viewers.slicer import name_of, read_points, read_segments
from nnunet_lopsided.audit.viewers.tiers import TIERS
from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.files.folders import check_output_folder, new_output_folder
from nnunet_lopsided.files.json import Shape, file_digest, read_json, write_json
from nnunet_lopsided.images import Image, difference, read_image, write_image
from nnunet_lopsided.nnunet.paths import check_case_name
from nnunet_lopsided.nnunet.raw import Case, raw_dataset

Rest = Literal["undecided", "accept"]
DECISIONS, IMPORT, MAPS = "decisions.csv", "import.json", "maps"
_SHAPE: Shape = {"audit": str, "to": str, "cases": {str: {"candidates": [int], "files": {str: str}}}}
_SAID = re.compile(r"\s*(accept|reject|unsure)(?:ed)?\b[\s:,;.-]*(.*)", re.IGNORECASE | re.DOTALL)


@dataclass
class Seen:
    """What a viewer's files say of one candidate.

    Attributes:
        words: decisions that stand in texts of the reader.
        comments: what else these texts say.
        taken_away: how the reader took the candidate away: point deleted, segment emptied; empty: not.
        redrawn: its voxels as the reader changed them; None: not changed.
        empty: whether no voxel of it is left.
    """

    words: list[Verdict] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    taken_away: list[str] = field(default_factory=list)
    redrawn: NDArray[np.bool_] | None = None
    empty: bool = False

    def read(self, text: str) -> None:
        """Take what a text of the reader says."""
        match = _SAID.fullmatch(text)
        if match is not None:
            word = match[1].lower()
            self.words.append("accept" if word == "accept" else "reject" if word == "reject" else "unsure")
        comment = (match[2] if match is not None else text).strip()
        if comment:
            self.comments.append(comment)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What was read: the decisions, cases with redrawn candidates, and what the reader must know."""

    audit: StoredAudit
    decisions: Decisions
    redrawn: tuple[str, ...]
    saved_cases: tuple[str, ...]
    notes: tuple[str, ...]


def import_decisions(
    export: Path,
    folder: Path,
    audit_folder: Path | None = None,
    *,
    reader: str = "",
    rest: Rest = "undecided",
    overwrite: bool = False,
) -> Imported:
    """Read an export back, and write decisions.csv, import.json and the maps of cases with redrawn candidates.

    A text that begins with accept, reject or unsure decides. Otherwise a point that was deleted or is not selected, and
    a segment without voxels, is a rejection, and a segment whose voxels changed an acceptance as it was drawn.

    Args:
        export: what :func:`~nnunet_lopsided.audit.viewers.exporting.export_audit` wrote, for Slicer or ITK-SNAP.
        folder: target.
        audit_folder: of the audit; None: beside the export, or below nnUNet_results.
        reader: who decided.
        rest: what candidates are that were left as they were, in cases whose files were saved since the export.
        overwrite: replace an earlier import there.

    Raises:
        InputError: nothing was saved since the export, a file is missing or of another grid, or a candidate is decided
            on in two ways.
    """
    check_output_folder(folder, overwrite, [export], (IMPORT, DECISIONS), "lopsided-audit import", (MAPS,))
    record = read_json(export / RECORD, _SHAPE)
    if record["to"] not in ("slicer", "itk-snap"):
        raise InputError(f"{export / RECORD}: expected an export to slicer or itk-snap, found {record['to']}")
    audit = chosen_audit(audit_folder, record["audit"], [export.absolute().parent])
    dataset = raw_dataset(audit.dataset)
    training = dataset.training_cases()
    check_unchanged(audit, dataset, training)
    candidates = {c.key: c for c in audit.candidates}
    verdicts: dict[CandidateKey, Verdict] = {}
    remarks: dict[CandidateKey, dict[str, str]] = {}
    problems: list[str] = []
    saved: list[str] = []
    notes: list[str] = []
    maps: dict[str, Image] = {}
    for name, entry in record["cases"].items():
        check_case_name(name, export / RECORD)
        own = [candidates[name, n] for n in entry["candidates"] if (name, n) in candidates]
        if len(own) < len(entry["candidates"]):
            raise InputError(f"{export / RECORD}: case {name} has candidates that audit {audit.id} has not")
        here = export / name
        missing = [file for file in entry["files"] if not (here / file).is_file()]
        if missing:
            problems.append(f"case {name}: {here / missing[0]}, which the export wrote, is missing")
            continue
        if all(file_digest(here / file) == digest for file, digest in entry["files"].items()):
            continue
        saved.append(name)
        case = next(case for case in training if case.name == name)
        assert case.label is not None, "training_cases() gives labels"
        numbers = audit.read_map(name, case.label, read_image(case.label), dataset.file_ending)
        read = _read_slicer if record["to"] == "slicer" else _read_itk_snap
        seen = read(here, case, own, numbers, notes)
        for c in own:
            try:
                verdict = _verdict(seen[c.number], c, rest)
            except InputError as error:
                problems.append(str(error))
                continue
            said = "; ".join(seen[c.number].comments)
            if verdict is not None:
                verdicts[c.key] = verdict
            if verdict is not None or said:
                remarks[c.key] = {"reader": reader, "comment": said}
        drawn = {n: one.redrawn for n, one in seen.items() if one.redrawn is not None}
        if drawn:
            array = np.array(numbers.array)
            array[np.isin(array, list(drawn))] = 0
            for number, voxels in drawn.items():
                array[voxels] = number
            maps[name] = Image(array, numbers.geometry)
    if problems:
        raise InputErrors(problems)
    if not saved:
        raise InputError(
            f"{export}: no file was saved since the export; save points, segments and label descriptions under the "
            "names that they were loaded by"
        )
    decisions = Decisions(audit.id, verdicts, {}, remarks)
    with new_output_folder(
        folder, overwrite, [export], (IMPORT, DECISIONS), "lopsided-audit import", (MAPS,)
    ) as unfinished:
        write_decisions(decisions, unfinished / DECISIONS)
        for name, image in maps.items():
            (unfinished / MAPS).mkdir(exist_ok=True)
            write_image(unfinished / MAPS / (name + dataset.file_ending), image)
        content = {
            "schema_version": 1,
            "tool": "nnunet-lopsided",
            "version": __version__,
            "audit": audit.id,
            "from": record["to"],
            "rest": rest,
            "saved_cases": saved,
            "redrawn_cases": sorted(maps),
        }
        write_json(unfinished / IMPORT, content)
    return Imported(
        audit=audit, decisions=decisions, redrawn=tuple(sorted(maps)), saved_cases=tuple(saved), notes=tuple(notes)
    )


def _verdict(seen: Seen, candidate: StoredCandidate, rest: Rest) -> Verdict | None:
    where = f"case {candidate.case}, candidate {candidate.number}"
    if len(set(seen.words)) > 1:
        raise InputError(f"{where}: is called both {' and '.join(sorted(set(seen.words)))}")
    if seen.words:
        if seen.words[0] == "accept" and seen.empty:
            raise InputError(f"{where}: is called accepted, but has no voxel left")
        return seen.words[0]
    if seen.taken_away:
        if seen.redrawn is not None and not seen.empty:
            raise InputError(
                f"{where}: {seen.taken_away[0]}, but its voxels were changed; begin a description with accept or reject"
            )
        return "reject"
    if seen.redrawn is not None or rest == "accept":
        return "accept"
    return None


def _compare(seen: Seen, now: NDArray[np.bool_], before: NDArray[np.bool_]) -> None:
    """Note whether voxels were changed."""
    if not now.any():
        seen.taken_away.append("its segment has no voxel")
        seen.empty = True
    elif not np.array_equal(now, before):
        seen.redrawn = now


def _read_slicer(
    folder: Path, case: Case, own: Sequence[StoredCandidate], numbers: Image, notes: list[str]
) -> dict[int, Seen]:
    seen = {c.number: Seen() for c in own}
    points = [point for tier in TIERS for point in read_points(folder / points_file(case.name, tier))]
    here = [point.number for point in points]
    for point in points:
        if point.number not in seen:
            notes.append(f"case {case.name}: point {point.name!r} is of no candidate that was exported, and left out")
            continue
        seen[point.number].read(point.description)
        if not point.selected:
            seen[point.number].taken_away.append("its point is not selected")
    for number, one in seen.items():
        if number not in here:
            one.taken_away.append("its point was deleted")
    path = folder / f"{case.name}_{SEGMENTS}"
    segments = {s.number: s for s in read_segments(path, numbers.shape, numbers.geometry)}
    notes += [
        f"case {case.name}: segment {segment.name!r} is of no candidate that was exported, and left out"
        for number, segment in segments.items()
        if number not in seen
    ]
    for c in own:
        segment = segments.get(c.number)
        now = np.zeros(numbers.shape, bool) if segment is None else segment.voxels
        _compare(seen[c.number], now, numbers.array == c.number)
        if segment is not None:
            seen[c.number].read(_without(segment.name, c))
    return seen


def _read_itk_snap(
    folder: Path, case: Case, own: Sequence[StoredCandidate], numbers: Image, notes: list[str]
) -> dict[int, Seen]:
    seen = {c.number: Seen() for c in own}
    path = folder / f"{case.name}_{MAP}"
    edited = read_image(path)
    differing = difference(numbers, edited)
    if differing is not None:
        raise InputError(f"case {case.name}: expected {path} to lie where its label map does: {differing}")
    unknown = sorted(set(np.unique(edited.array).tolist()) - {0, *seen})
    if unknown:
        notes.append(
            f"case {case.name}: {path.name} holds {unknown[0]:g}, no candidate that was exported; it is left out"
        )
    texts = read_descriptions(folder / f"{case.name}_{LABELS}")
    for c in own:
        _compare(seen[c.number], edited.array == c.number, numbers.array == c.number)
        seen[c.number].read(_without(texts.get(c.number, ""), c))
    return seen


def _without(text: str, candidate: StoredCandidate) -> str:
    """What a reader wrote behind or in place of the name of a candidate."""
    for name in (name_of(candidate), f"candidate {candidate.number}"):
        if text.startswith(name):
            return text[len(name) :].lstrip(" :,;.-")
    return text
