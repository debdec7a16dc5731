"""Writing an audit, and reading it again: audit.json, audit.csv, audit.html and label maps of the candidates."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.auditing import Audit, Candidate
from nnunet_lopsided.audit.inputs import AuditedCase
from nnunet_lopsided.audit.miss_rate import MissRate, outside_estimate
from nnunet_lopsided.dataset_conversion.parallel import for_each
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.outputs import check_output_folder, new_output_folder
from nnunet_lopsided.images import Image, difference, read_header, read_image, write_image
from nnunet_lopsided.nnunet_layout import Case, RawDataset, file_digest, nnunet_path, read_json, write_json
from nnunet_lopsided.tables import numbered_rows, read_table, write_table

SCHEMA_VERSION = 1
RECORD, TABLE, PAGE, MAPS = "audit.json", "audit.csv", "audit.html", "maps"
MARKS = (RECORD, TABLE)
COLUMNS = (
    *("audit", "rank", "case", "candidate", "patient", "fold"),
    *("centroid_z", "centroid_y", "centroid_x", "x_mm", "y_mm", "z_mm", "diameter_mm", "n_voxels"),
    *("score", "likeness", "mean_probability", "max_probability", "sum", "sqrt", "agreement", "label"),
)
_NEEDED_COLUMNS = ("audit", "rank", "case", "candidate", "score", "mean_probability", "max_probability", "label")
_RECORD_SHAPE = {
    **{"schema_version": int, "id": str, "dataset": str, "models": [{"trainer": str}], "miss_rate": dict},
    "counts": {"candidates": int},
    "settings": {"label": (str, type(None)), "tolerance_mm": float, "connectivity": (int, type(None))},
    "cases": {str: {"label_sha256": str}},
}


def check_audit_folder(folder: Path, overwrite: bool, dataset: RawDataset) -> None:
    """Refuse a target that holds anything but an earlier audit, such as a reader's work on one.

    Raises:
        InputError: see :func:`~nnunet_lopsided.evaluation.outputs.check_output_folder`; or the folder lies in the
            dataset, or holds files that no audit writes, or decisions in its table.
    """
    check_output_folder(folder, overwrite, [dataset.folder], MARKS, "lopsided-audit")
    if dataset.folder.resolve() in folder.resolve().parents:
        raise InputError(f"output folder {folder} lies in the dataset, {dataset.folder}; choose another -o")
    others = (
        sorted(p.name for p in folder.iterdir() if p.name not in (RECORD, TABLE, PAGE, MAPS)) if folder.is_dir() else []
    )
    if others:
        raise InputError(f"{folder} holds {', '.join(others[:3])} beside the audit; move it away, or choose another -o")
    if (folder / TABLE).is_file() and any(row.get("decision") for row in read_table(folder / TABLE)):
        raise InputError(f"{folder / TABLE} holds decisions; move it away, or choose another -o")


def write_audit(audit: Audit, folder: Path, overwrite: bool = False, n_shown: int = 200, n_workers: int = 2) -> str:
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
    from nnunet_lopsided.audit.page import audit_html
    from nnunet_lopsided.audit.pictures import candidate_pictures

    check_audit_folder(folder, overwrite, audit.inputs.dataset)
    inputs = [audit.inputs.dataset.folder]
    with new_output_folder(folder, overwrite, inputs, MARKS, "lopsided-audit") as unfinished:
        record = audit_record(audit)
        _write_maps(audit, unfinished / MAPS, n_workers)
        write_table(unfinished / TABLE, table_columns(audit), candidate_rows(audit, record["id"]))
        pictures = candidate_pictures(audit, n_shown, n_workers)
        (unfinished / PAGE).write_text(audit_html(audit, record, pictures), encoding="utf-8")
        write_json(unfinished / RECORD, record)
    return str(record["id"])


def audit_record(audit: Audit) -> dict[str, Any]:
    """The content of audit.json: plain JSON types, None for what is undefined.

    Its ``id`` is a digest of everything that decisions depend on: the candidates, the labels and the settings.
    """
    inputs, rules = audit.inputs, audit.rules
    likeness, outside = audit.likeness, outside_estimate(audit.miss_rates)
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "tool": "nnunet-lopsided",
        "version": __version__,
        "dataset": inputs.dataset.name,
        "models": [asdict(model) for model in inputs.models],
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
        "likeness": None
        if likeness is None
        else {
            "separation_auc": likeness.separation,
            "coefficients": dict(likeness.coefficients),
            "reliability": [asdict(entry) for entry in likeness.reliability],
        },
        "no_likeness": audit.no_model,
        "miss_rate": _rate(audit.miss_rates[0]),
        "miss_rate_in_any_prediction": None if audit.miss_rate_in_any is None else _rate(audit.miss_rate_in_any),
        "miss_rate_by_diameter": [_rate(rate) for rate in audit.miss_rates[1:]],
        "outside_miss_rate": None if outside is None else {"candidates": outside[0], "miss_rate_if_missed": outside[1]},
        "cut_back": {"fraction": audit.fraction, "mean_dice_of_annotated": audit.fraction_dice},
        "settings": {
            "label": audit.target.name,
            "magnify": list(inputs.magnify),
            "threshold": rules.threshold,
            "connectivity": rules.connectivity,
            "tolerance_mm": rules.tolerance_mm,
            "diameter_edges_mm": list(rules.diameter_edges_mm),
            "patients": inputs.patients,
            "seed": audit.seed,
            "bootstrap_replicates": audit.n_replicates,
        },
        "not_audited": list(inputs.left_out),
        "not_magnified": inputs.not_magnified,
        "cases": {case.name: {"fold": case.fold, "label_sha256": file_digest(case.label)} for case in inputs.cases},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for candidate in audit.candidates:
        digest.update(f"{candidate.case}\n{candidate.number}\n{candidate.score:.6g}\n".encode())
        digest.update(candidate.voxels.tobytes())
    return {"id": digest.hexdigest()[:16], **content}


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


def _rate(rate: MissRate) -> dict[str, Any]:
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
        "miss_rate_ci95_bootstrap": None if interval.low is None else [interval.low, interval.high],
        "undefined": rate.undefined or interval.undefined or None,
    }


def table_columns(audit: Audit) -> list[str]:
    """The columns of audit.csv."""
    channels = audit.candidates[0].contrasts if audit.candidates else ()
    return [*COLUMNS, *(f"contrast_{i}" for i in range(len(channels))), "reason", "decision"]


def candidate_rows(audit: Audit, audit_id: str) -> Iterable[list[Any]]:
    """The rows of audit.csv; the last cell is for a decision."""
    for rank, c in enumerate(audit.candidates, 1):
        z = [""] * (3 - len(c.centroid))
        yield [
            *(audit_id, rank, c.case, c.number, c.patient, c.fold),
            *(*z, *map(_number, c.centroid), *map(_number, c.position_mm), *z, _number(c.diameter_mm), len(c.voxels)),
            *(_number(c.score), "" if c.likeness is None else _number(c.likeness)),
            *map(_number, (c.mean_probability, c.max_probability, c.total, c.root)),
            *(_number(c.agreement), c.label),
            *(*map(_number, c.contrasts), c.reason, ""),
        ]


def _number(value: float) -> str:
    return f"{value:.6g}"


def _write_maps(audit: Audit, folder: Path, n_workers: int) -> None:
    """A label map per case with candidates, in which every candidate has its number as value."""
    folder.mkdir()
    by_case: dict[str, list[Candidate]] = {}
    for candidate in audit.candidates:
        by_case.setdefault(candidate.case, []).append(candidate)
    ending = audit.inputs.dataset.file_ending

    def write(case: AuditedCase) -> None:
        own = by_case[case.name]
        header = read_header(case.label)
        array = np.zeros(int(np.prod(header.shape)), np.min_scalar_type(len(own)))
        for candidate in own:
            array[candidate.voxels] = candidate.number
        write_image(folder / (case.name + ending), Image(array.reshape(header.shape), header.geometry))

    for_each(write, [case for case in audit.inputs.cases if case.name in by_case], n_workers, "maps")


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
    if [candidate.rank for candidate in ranked] != list(range(1, n + 1)):
        found = "other ranks" if len(ranked) == n else str(len(ranked))
        raise InputError(
            f"{path}: expected the {n} candidates of audit {record['id']}, ranked 1 to {n}, found {found}; audit again "
            "into another folder, and give this file as the decisions"
        )
    return StoredAudit(folder, record, ranked)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def _record(folder: Path) -> dict[str, Any]:
    """The content of audit.json, with all that is ever read of it."""
    record: dict[str, Any] = read_json(folder / RECORD, _RECORD_SHAPE)
    if record["schema_version"] != SCHEMA_VERSION:
        raise InputError(
            f"{folder / RECORD}: schema_version: expected {SCHEMA_VERSION}, found {record['schema_version']}"
        )
    if not record["models"]:
        raise InputError(f"{folder / RECORD}: models: expected at least one, found none")
    return record


def find_audits() -> list[Path]:
    """The audits below nnUNet_results, where ``lopsided-audit`` puts them by default, sorted."""
    return sorted(path.parent for path in nnunet_path("nnUNet_results").glob(f"Dataset*/*/audit/{RECORD}"))


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
