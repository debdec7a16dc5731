"""Writing an audit: audit.json, audit.csv, audit.html and label maps of the candidates."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.auditing import Audit
from nnunet_lopsided.audit.candidates import Candidate
from nnunet_lopsided.audit.detector import LEAST_AVERAGE_PRECISION, LEAST_SENSITIVITY, Detector
from nnunet_lopsided.audit.inputs import AuditedCase
from nnunet_lopsided.audit.miss_rate import MissRate, outside_estimate
from nnunet_lopsided.audit.missed_by_size import MissedBySize, rising
from nnunet_lopsided.audit.ranking import Likeness
from nnunet_lopsided.audit.record_content import (
    AuditContent,
    AuditSettingsContent,
    DecidedContent,
    DetectorContent,
    InjectedContent,
    LikenessContent,
    MissRateContent,
)
from nnunet_lopsided.audit.stored import MAPS, MARKS, PAGE, TABLE, TABLE_COLUMNS, map_digest
from nnunet_lopsided.audit.stored_record import RECORD, SCHEMA_VERSION
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folder_record import is_nobodys_work
from nnunet_lopsided.files.folders import check_output_folder, new_output_folder
from nnunet_lopsided.files.json import file_digest, write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.files.tables import read_table, write_table
from nnunet_lopsided.images import Image, read_header, write_image
from nnunet_lopsided.nnunet.raw import RawDataset

# Names in the folder of an audit.
_FILES = (RECORD, TABLE, PAGE, MAPS)
COLUMNS = TABLE_COLUMNS


def check_audit_folder(folder: Path, overwrite: bool, dataset: RawDataset) -> None:
    """Refuse a target that holds anything but an earlier audit, such as a reader's work on one.

    Raises:
        InputError: see :func:`~nnunet_lopsided.files.folders.check_output_folder`; or the folder lies in the
            dataset, or holds files that no audit writes, or decisions in its table.
    """
    check_output_folder(folder, overwrite, [dataset.folder], marks=MARKS, command="lopsided-audit")
    if dataset.folder.resolve() in folder.resolve().parents:
        raise InputError(f"output folder {folder} lies in the dataset, {dataset.folder}; choose another -o")
    others = (
        sorted(name for name in os.listdir(folder) if name not in _FILES and not is_nobodys_work(name))
        if folder.is_dir()
        else []
    )
    if others:
        raise InputError(f"{folder} holds {', '.join(others[:3])} beside the audit; move it away, or choose another -o")
    # A reader's hours are in these: they are not replaced, not even with --overwrite.
    if (folder / TABLE).is_file() and any(row.get("decision") for row in read_table(folder / TABLE)):
        raise InputError(f"{folder / TABLE} holds decisions; move it away, or choose another -o")


def write_audit(audit: Audit, folder: Path, *, overwrite: bool = False, n_shown: int = 200, n_workers: int = 2) -> str:
    """Write every output to a temporary folder beside ``folder`` and rename it when complete.

    The same audit always gives the same bytes.

    Args:
        audit: of :func:`~nnunet_lopsided.audit.auditing.audit`.
        folder: target.
        overwrite: replace an earlier audit there, and nothing else.
        n_shown: so many of the first candidates are on the page.
        n_workers: cases worked on at the same time.

    Returns:
        The audit's id.

    Raises:
        InputError: the target is refused or cannot be written, or an image cannot be read.
    """
    from nnunet_lopsided.audit.audit_page import audit_html
    from nnunet_lopsided.audit.candidate_pictures import candidate_pictures

    check_audit_folder(folder, overwrite, audit.inputs.dataset)
    inputs = [audit.inputs.dataset.folder]
    with new_output_folder(folder, overwrite, inputs, marks=MARKS, command="lopsided-audit") as unfinished:
        record = audit_record(audit, _write_maps(audit, unfinished / MAPS, n_workers))
        write_table(unfinished / TABLE, table_columns(audit), candidate_rows(audit, record["id"]))
        pictures = candidate_pictures(audit, n_shown, n_workers)
        (unfinished / PAGE).write_text(audit_html(audit, record, pictures, audit.channel_names), encoding="utf-8")
        write_json(unfinished / RECORD, record)
    return record["id"]


def audit_record(audit: Audit, maps: Mapping[str, str]) -> AuditContent:
    """The content of audit.json: plain JSON types, None for what is undefined.

    Its ``id`` is a digest of everything that decisions depend on: the candidates, the labels and the settings. What
    follows from these is not in it: the detector's numbers, and the digests of the maps; nor are injected lesions.

    Args:
        audit: of :func:`~nnunet_lopsided.audit.auditing.audit`.
        maps: by case with candidates, the digest of its map.
    """
    inputs = audit.inputs
    # With withheld rates no diameter has an estimate, which says nothing of how much is annotated there.
    outside = None if audit.withheld else outside_estimate(audit.miss_rates)
    content: DecidedContent = {
        "schema_version": SCHEMA_VERSION,
        "tool": "nnunet-lopsided",
        "version": __version__,
        "dataset": inputs.dataset.name,
        "models": [{"trainer": m.trainer, "plans": m.plans, "configuration": m.configuration} for m in inputs.models],
        "folds": list(inputs.folds),
        "counts": {
            "cases": len(inputs.cases),
            "patients": len({case.patient for case in inputs.cases}),
            "annotated_lesions": audit.n_annotated,
            "annotated_lesions_found": audit.n_found,
            "candidates": len(audit.candidates),
            "fainter_candidates": audit.n_fainter,
        },
        "ranked_by": audit.rank_by,
        "likeness": None if audit.likeness is None else _likeness(audit.likeness),
        "no_likeness": audit.no_model,
        "miss_rate": _rate(audit.miss_rates[0]),
        "miss_rate_in_any_prediction": None if audit.miss_rate_in_any is None else _rate(audit.miss_rate_in_any),
        "miss_rate_by_diameter": [_rate(rate) for rate in audit.miss_rates[1:]],
        "outside_miss_rate": None if outside is None else {"candidates": outside[0], "miss_rate_if_missed": outside[1]},
        "cut_back": {"fraction": audit.fraction, "mean_dice_of_annotated": audit.fraction_dice},
        "settings": _settings(audit),
        "not_audited": list(inputs.left_out),
        "not_magnified": inputs.not_magnified,
        "cases": {case.name: {"fold": case.fold, "label_sha256": file_digest(case.label)} for case in inputs.cases},
    }
    # Sorted, so that the id does not depend on the order in which keys are written here.
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for candidate in audit.candidates:
        # Scores as the table shows them: their last bits may differ between machines.
        digest.update(f"{candidate.case}\n{candidate.number}\n{_cell(candidate.score)}\n".encode())
        digest.update(candidate.voxels.tobytes())
    return {
        "id": digest.hexdigest()[:16],
        **content,
        "detector": _detector(audit.detector),
        "withheld": audit.withheld or None,
        "injected": None if audit.injected is None else _injected(audit.injected),
        "maps": dict(maps),
    }


def _likeness(likeness: Likeness) -> LikenessContent:
    return {
        "separation_auc": likeness.separation,
        "coefficients": dict(likeness.coefficients),
        "reliability": [{"predicted": b.predicted, "observed": b.observed, "n": b.n} for b in likeness.reliability],
    }


def _settings(audit: Audit) -> AuditSettingsContent:
    rules = audit.rules
    return {
        "label": audit.target.name,
        "magnify": list(audit.inputs.magnify),
        "threshold": rules.threshold,
        "connectivity": rules.connectivity,
        "tolerance_mm": rules.tolerance_mm,
        "diameter_edges_mm": list(rules.diameter_edges_mm),
        "patients": audit.inputs.patients,
        "seed": audit.seed,
        "bootstrap_replicates": audit.n_replicates,
    }


def _detector(detector: Detector) -> DetectorContent:
    return {
        "annotated_lesions": detector.n_annotated,
        "annotated_lesions_found": detector.n_found,
        "sensitivity": detector.sensitivity,
        "false_positives_per_case": detector.false_positives_per_case,
        "average_precision": detector.average_precision,
        "least_sensitivity": LEAST_SENSITIVITY,
        "least_average_precision": LEAST_AVERAGE_PRECISION,
    }


def _injected(by_size: MissedBySize) -> InjectedContent:
    return {
        "seed": by_size.seed,
        "per_case": by_size.per_case,
        "lesions": by_size.n_injected,
        "by_diameter": [
            {
                "lower_mm": r.lower_mm,
                "upper_mm": r.upper_mm,
                "annotated_lesions": r.n_annotated,
                "injected": r.n_injected,
                "found": r.n_found,
                "recall": r.recall,
                "by_injected": r.by_injected,
                "by_highest_scores": r.by_highest_scores,
                "by_annotated": r.by_annotated,
                "missed_lesions": r.n_missed,
                "seen": r.seen,
                "seen_ci95_bootstrap": r.seen_interval.ends,
                "seen_rising": share,
            }
            for r, share in zip(by_size.ranges, rising(by_size.ranges), strict=True)
        ],
        "missed_lesions": by_size.n_missed,
        "miss_rate": by_size.rate,
        "miss_rate_ci95_bootstrap": by_size.interval.ends,
        "undefined": by_size.undefined or None,
    }


def _rate(rate: MissRate) -> MissRateContent:
    interval = rate.interval
    return {
        "lower_mm": rate.lower_mm,
        "upper_mm": rate.upper_mm,
        "annotated_lesions": rate.n_annotated,
        "annotated_lesions_found": rate.n_found,
        "candidates": rate.n_candidates,
        "missed_share_of_candidates": rate.missed_share,
        "missed_lesions": rate.n_missed,
        "miss_rate": rate.rate,
        "miss_rate_ci95_bootstrap": interval.ends,
        "undefined": rate.undefined or interval.undefined or None,
    }


def table_columns(audit: Audit) -> list[str]:
    """The columns of audit.csv."""
    channels = audit.candidates[0].contrasts if audit.candidates else ()
    return [*COLUMNS, *(f"contrast_{i}" for i in range(len(channels))), "reason", "decision"]


def candidate_rows(audit: Audit, audit_id: str) -> Iterable[list[object]]:
    """The rows of audit.csv; the last cell is for a decision."""
    for rank, c in enumerate(audit.candidates, 1):
        # 2D images have no z; the columns stay, so that tables of both can be read alike.
        z = [""] * (3 - len(c.centroid))
        yield [
            audit_id,
            rank,
            c.case,
            c.number,
            c.patient,
            c.fold,
            *z,
            *map(_cell, c.centroid),
            *map(_cell, c.position_mm),
            *z,
            _cell(c.diameter_mm),
            len(c.voxels),
            *map(_cell, (c.score, c.likeness, c.mean_probability, c.max_probability, c.total, c.root, c.agreement)),
            c.label,
            *map(_cell, c.contrasts),
            c.reason,
            "",
        ]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _write_maps(audit: Audit, folder: Path, n_workers: int) -> dict[str, str]:
    """A label map per case with candidates, in which every candidate has its number as value; their digests."""
    folder.mkdir()
    by_case: dict[str, list[Candidate]] = {}
    for candidate in audit.candidates:
        by_case.setdefault(candidate.case, []).append(candidate)
    ending = audit.inputs.dataset.file_ending

    def write(case: AuditedCase) -> str:
        own = by_case[case.name]
        header = read_header(case.label)
        # The smallest type that holds all numbers, mostly one byte per voxel.
        flat: NDArray[np.unsignedinteger] = np.zeros(int(np.prod(header.shape)), np.min_scalar_type(len(own)))
        for candidate in own:
            flat[candidate.voxels] = candidate.number
        array = flat.reshape(header.shape)
        write_image(folder / (case.name + ending), Image(array, header.geometry))
        return map_digest(array)

    cases = [case for case in audit.inputs.cases if case.name in by_case]
    return dict(zip([case.name for case in cases], for_each(write, cases, n_workers, "maps"), strict=True))
