"""A variant of the audited dataset with the accepted candidates in its labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.decisions import REMARKS, Decisions, Verdict
from nnunet_lopsided.audit.stored import TABLE, StoredAudit, StoredCandidate, check_unchanged
from nnunet_lopsided.dilation import grown_voxels
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.images import Image, read_image, write_image
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.nnunet.lesion_labels import room_for
from nnunet_lopsided.nnunet.paths import new_dataset_name, nnunet_path, plain_name
from nnunet_lopsided.nnunet.raw import Case, RawDataset, new_raw_dataset, raw_dataset
from nnunet_lopsided.variants.linking import link_test_files, write_dataset_files

REPAIR_FILE, LESIONS_FILE = "repair.json", "repaired_lesions.csv"
Unsure = Literal["leave", "ignore"]


@dataclass(frozen=True)
class Change:
    """What became of one candidate that was decided on; ``n_voxels`` is how many of its voxels changed."""

    candidate: StoredCandidate
    action: str
    value: int | None
    n_voxels: int


@dataclass(frozen=True, kw_only=True)
class RepairedVariant:
    """What :func:`write_repaired_variant` made; ``notes`` is what the user must know."""

    folder: Path
    n_added: int
    n_rejected: int
    n_unsure: int
    n_undecided: int
    ignored: bool
    notes: tuple[str, ...] = ()


def write_repaired_variant(
    audit: StoredAudit,
    decisions: Decisions,
    output_id: int,
    *,
    unsure: Unsure = "leave",
    edited_maps: bool = False,
    maps: Path | None = None,
    name: str | None = None,
    grow: int = 0,
    marker: str = REPAIR_FILE,
    finish: Callable[[Path], None] = lambda folder: None,
    overwrite: bool = False,
    n_workers: int = 2,
) -> RepairedVariant:
    """Write a dataset whose training labels have the accepted candidates in addition.

    The voxels are those of the audit's label maps; what is annotated already is never changed. The folder appears only
    when complete. The same call gives the same bytes.

    Args:
        audit: of the dataset.
        decisions: on its candidates.
        output_id: id of the variant, 1 to 999, not in use below any nnU-Net path.
        unsure: ``ignore``: unsure candidates become the ignore label, which dataset.json gets if it has none.
        edited_maps: take label maps of candidates that were edited in a viewer since the audit wrote them.
        maps: folder of maps with redrawn candidates, which are taken in place of the audit's.
        name: folder name after ``DatasetXXX_``; default: the source's name followed by ``Repaired``.
        grow: by so many voxels candidates are larger that are ignored, not into labels or other candidates.
        marker: file that every variant of this kind holds; only one with it is replaced.
        finish: writes further files into the folder, which it is given.
        overwrite: replace an earlier repaired variant of the same id and name.
        n_workers: label files worked on at the same time.

    Raises:
        InputError: labels have changed since the audit, or maps and ``edited_maps`` is not set; a candidate has a label
            that the dataset has not; or the id is in use.
    """
    dataset = raw_dataset(audit.dataset)
    if maps is not None and not maps.is_dir():
        raise InputError(f"--maps: no such folder: {maps}")
    _check_labels(dataset, audit, decisions)
    training = dataset.training_cases()
    check_unchanged(audit, dataset, training)
    # Without an unsure candidate dataset.json stays as it is: nnU-Net samples patches in another way where there is an
    # ignore label, even if no voxel has it.
    ignore = dataset.value_to_ignore if unsure == "ignore" and decisions.count("unsure") else None
    match = re.fullmatch(r"Dataset([0-9]{3})_(.+)", dataset.name)
    if match is not None and int(match[1]) == output_id:
        raise InputError(f"output id {output_id} is the id of the source, {dataset.name}")
    name = name or plain_name(f"{match[2] if match else dataset.name}Repaired")
    final = nnunet_path("nnUNet_raw") / new_dataset_name(output_id, name)
    by_case = _decided_on(audit, decisions)

    with new_raw_dataset(output_id, name, marker=marker, overwrite=overwrite) as folder:
        (folder / "labelsTr").mkdir()

        def write(case: Case) -> list[Change]:
            candidates = by_case.get(case.name, [])
            label, changes = _repaired(
                case,
                candidates,
                decisions,
                audit,
                dataset,
                ignore=ignore,
                grow=grow,
                edited_maps=edited_maps,
                maps=maps,
            )
            write_image(folder / "labelsTr" / (case.name + dataset.file_ending), label)
            return changes

        changes = [change for of_case in for_each(write, training, n_workers, "labels") for change in of_case]
        link_test_files(dataset, folder, final)
        labels = dataset.json["labels"]
        write_dataset_files(
            dataset, training, folder, final, labels=labels if ignore is None else {**labels, "ignore": ignore}
        )
        _write_changes(folder / LESIONS_FILE, changes, decisions)
        record = _record(dataset, audit, decisions, changes=changes, unsure=unsure, ignore=ignore)
        record |= {"edited_maps": True} if edited_maps or maps else {}
        write_json(folder / REPAIR_FILE, record | ({"ignored_grown_by": grow} if grow else {}))
        finish(folder)
    return RepairedVariant(
        folder=final,
        n_added=decisions.count("accept"),
        n_rejected=decisions.count("reject"),
        n_unsure=decisions.count("unsure"),
        n_undecided=len(audit.candidates) - len(decisions.verdicts),
        ignored=ignore is not None,
        notes=_notes(changes),
    )


def _notes(changes: Sequence[Change]) -> tuple[str, ...]:
    # An edited map can put a candidate where labels are; the reader thinks it was added.
    empty = [c.candidate for c in changes if c.action in ("added", "ignored") and not c.n_voxels]
    return tuple(f"case {c.case}, candidate {c.number} changes no voxel: all of it is annotated" for c in empty)


def _decided_on(audit: StoredAudit, decisions: Decisions) -> dict[str, list[StoredCandidate]]:
    """The candidates that a decision is on, by case."""
    by_case: dict[str, list[StoredCandidate]] = {}
    for candidate in audit.candidates:
        if candidate.key in decisions.verdicts:
            by_case.setdefault(candidate.case, []).append(candidate)
    return by_case


def _check_labels(dataset: RawDataset, audit: StoredAudit, decisions: Decisions) -> None:
    """Refuse values that the dataset has not; a reader may have given a candidate another one in the table."""
    allowed = [value for value in dataset.label_scheme.label_values if value]
    for c in audit.candidates:
        if c.label not in allowed and decisions.verdicts.get(c.key) == "accept":
            raise InputError(
                f"case {c.case}, candidate {c.number}: expected one of the labels {', '.join(map(str, allowed))} of "
                f"{dataset.name}, found {c.label} in {audit.folder / TABLE}"
            )


def _repaired(
    case: Case,
    candidates: list[StoredCandidate],
    decisions: Decisions,
    audit: StoredAudit,
    dataset: RawDataset,
    *,
    ignore: int | None,
    grow: int,
    edited_maps: bool,
    maps: Path | None,
) -> tuple[Image, list[Change]]:
    assert case.label is not None, "training_cases() gives labels"
    label = read_image(case.label)
    changes = [_undone(candidate, decisions.verdicts[candidate.key], ignore) for candidate in candidates]
    if all(change.value is None for change in changes):  # so the map is not needed, and may be empty
        return label, changes
    numbers = audit.read_map(case.name, case.label, label, dataset.file_ending, edited=edited_maps, elsewhere=maps)
    # A label map of one class may be stored in a type that does not hold the ignore label.
    array = room_for(label.array, max(change.value or 0 for change in changes)).copy()
    for i, change in enumerate(changes):
        if change.value is None:
            continue
        voxels = numbers.array == change.candidate.number
        if not voxels.any():
            path = audit.map_of(case.name, dataset.file_ending)
            path = maps / path.name if maps is not None and (maps / path.name).is_file() else path
            raise InputError(f"case {case.name}: {path} has no voxel of candidate {change.candidate.number}")
        if grow and change.action == "ignored":
            voxels |= _around(voxels, label, grow) & (numbers.array == 0)
        # What grew may overlap what grew before.
        free = voxels & (array == 0)
        array[free] = change.value
        changes[i] = replace(change, n_voxels=int(free.sum()))
    return Image(array, label.geometry), changes


def _around(voxels: NDArray[np.bool_], label: Image, grow: int) -> NDArray[np.bool_]:
    reached = np.zeros(voxels.size, bool)
    reached[grown_voxels(find_lesions(voxels, label.geometry.spacing_mm), grow)[0]] = True
    return reached.reshape(voxels.shape)


def _undone(candidate: StoredCandidate, verdict: Verdict, ignore: int | None) -> Change:
    """What is to become of a candidate, before any voxel of it has changed."""
    if verdict == "accept":
        return Change(candidate, "added", candidate.label, 0)
    if verdict == "reject":
        return Change(candidate, "rejected", None, 0)
    return Change(candidate, "left" if ignore is None else "ignored", ignore, 0)


def _write_changes(path: Path, changes: list[Change], decisions: Decisions) -> None:
    """One row per decision; who made it, when and why, where any of them says so."""
    said = [name for name in REMARKS if any(decisions.remark(key, name) for key in decisions.verdicts)]
    rows = (
        [
            *c.candidate.key,
            c.action,
            "" if c.value is None else c.value,
            c.n_voxels,
            *(decisions.remark(c.candidate.key, name) for name in said),
        ]
        for c in changes
    )
    write_table(path, ["case", "candidate", "action", "value", "n_voxels", *said], rows)


def _record(
    dataset: RawDataset,
    audit: StoredAudit,
    decisions: Decisions,
    *,
    changes: list[Change],
    unsure: Unsure,
    ignore: int | None,
) -> dict[str, object]:
    return {
        "tool": "nnunet-lopsided",
        "version": __version__,
        "source_dataset": dataset.name,
        "audit": audit.id,
        **decisions.origin,
        **({"readers": list(decisions.readers)} if decisions.readers else {}),
        "unsure": unsure,
        "ignore_label": ignore,
        "n_candidates": len(audit.candidates),
        **{
            f"n_{action}": sum(c.action == action for c in changes)
            for action in ("added", "rejected", "ignored", "left")
        },
        "n_undecided": len(audit.candidates) - len(decisions.verdicts),
        "cases_changed": sorted({c.candidate.case for c in changes if c.n_voxels}),
        "voxels_changed": sum(c.n_voxels for c in changes),
    }
