"""Reading the output folder of an evaluation back: summary.json and the three tables of cases, lesions, candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case_result import CaseResult, Components, VoxelCounts
from nnunet_lopsided.evaluation.confidence import BY_SIZE, CandidateScores
from nnunet_lopsided.evaluation.matching import Matches, Pairs
from nnunet_lopsided.evaluation.metrics import resampled_metrics
from nnunet_lopsided.evaluation.pooling import pool
from nnunet_lopsided.evaluation.rows import STATUS_NAMES
from nnunet_lopsided.evaluation.rules import RENAMED_PROFILES, EvaluationRules
from nnunet_lopsided.evaluation.summary_content import SummaryContent
from nnunet_lopsided.evaluation.summary_json import SCHEMA_VERSION, flat_metrics
from nnunet_lopsided.evaluation.surface_distances import SurfaceDistances
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.schema import validated
from nnunet_lopsided.files.tables import read_table

# Settings beside the rules that decide what is counted.
_FURTHER_RULES = (
    "label",
    "threshold_rule",
    "average_precision",
    "average_recall_max_fp_per_case",
)
# A name, where a curve is read, and what changes no count: models are compared where both have it.
_NO_RULES = ("profile", "fp_per_case", "surface_distances", "nsd_tolerance_mm")
# The tables have 9 significant digits.
_TOLERANCE = 1e-6

Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class SavedEvaluation:
    """One output folder of ``lopsided-eval``.

    Attributes:
        name: of the model.
        folder: where it was read from.
        summary: content of summary.json.
        rules: by which the cases were evaluated.
        cases: the tables, sorted by name. What they do not hold is empty: histograms of probabilities and boxes.
    """

    name: str
    folder: Path
    summary: SummaryContent
    rules: EvaluationRules
    cases: tuple[CaseResult, ...]

    @property
    def metrics(self) -> dict[str, float | None]:
        """The metrics of summary.json without intervals; those by confidence as ``map_by_mean``, ``map_by_max``, ..."""
        return flat_metrics(self.summary["metrics"])

    @property
    def rule_settings(self) -> dict[str, object]:
        """The settings that must be the same where numbers are compared."""
        settings = _known(self.summary["settings"])
        names = [f.name for f in fields(EvaluationRules) if f.name not in {*_NO_RULES, *self.rules.unused}] + list(
            _FURTHER_RULES
        )
        hard = any(case.kind == "labels" for case in self.cases)
        return {**{name: settings[name] for name in names}, "predictions": "hard labels" if hard else "probabilities"}


def read_evaluation(folder: str | Path, name: str | None = None) -> SavedEvaluation:
    """Read what ``lopsided-eval`` wrote.

    The metrics are computed again from the tables and must be those of summary.json.

    Args:
        folder: output folder.
        name: of the model; None: the folder's.

    Raises:
        InputError: the folder is no evaluation, was written by a version with other files, or its files do not belong
            together.
    """
    folder = Path(folder)
    if not (folder / "summary.json").is_file():
        raise InputError(f"{folder} is no output folder of lopsided-eval: it holds no summary.json")
    summary = read_json(folder / "summary.json")
    version = summary.get("schema_version") if isinstance(summary, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(f"{folder / 'summary.json'}: expected schema_version {SCHEMA_VERSION}, found {version}")
    validated(TypeAdapter(SummaryContent), summary, folder / "summary.json", may_lack=True)
    try:
        rules = _rules(summary["settings"])
        cases = _cases(folder, rules, summary["settings"]["censored_references"] is not None)
        evaluation = SavedEvaluation(
            name=name or folder.resolve().name, folder=folder, summary=summary, rules=rules, cases=cases
        )
        evaluation.rule_settings  # noqa: B018  every setting is there
        _check(evaluation)
    except KeyError as error:
        raise InputError(f"{folder}: {error.args[0]} is missing; evaluate again with this version") from error
    return evaluation


def _known(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings, with the rules that older versions had no choice of."""
    unchosen: dict[str, object] = {
        "min_candidate_voxels": 1,
        "candidates": "threshold",
        "min_iou": 0.0,
        "one_to_one": False,
        "small_below_mm3": 0.0,
        # Not named where they are off.
        "surface_distances": False,
        "nsd_tolerance_mm": 1.0,
        "instances": "none",
    }
    known = {**unchosen, **settings}
    profile = str(known["profile"])
    known["profile"] = RENAMED_PROFILES.get(profile, profile)
    # Before there was a choice the settings described the confidence in words.
    return {**known, "confidence": "mean"} if str(known["confidence"]).startswith("mean probability") else known


def _rules(settings: Mapping[str, object]) -> EvaluationRules:
    known = _known(settings)
    # Any: what a file says; the rules refuse a value that they cannot have.
    values: dict[str, Any] = {f.name: known[f.name] for f in fields(EvaluationRules)}
    # Where it was not chosen, the settings say what it is in 2D and in 3D.
    if isinstance(values["connectivity"], dict):
        values["connectivity"] = None
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return EvaluationRules(**{**values, **lists})


def _cases(folder: Path, rules: EvaluationRules, censored: bool) -> tuple[CaseResult, ...]:
    of_case = [row for row in read_table(folder / "cases.csv") if row["prediction"] != "skipped"]
    lesions, candidates = (_by_case(read_table(folder / f"{name}.csv")) for name in ("lesions", "candidates"))
    cases = []
    for row in of_case:
        name = row["case"]
        try:
            cases.append(_case(row, lesions.pop(name, []), candidates.pop(name, []), rules, censored))
        except ValueError as error:
            raise InputError(f"{folder}, case {name}: {error}") from error
    if lesions or candidates:
        raise InputError(f"{folder}: case {min([*lesions, *candidates])} has rows, but not in cases.csv")
    return tuple(cases)


def _by_case(rows: Sequence[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    by_case: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_case.setdefault(row["case"], []).append(row)
    return by_case


def _case(
    row: Row, lesions: Sequence[Row], candidates: Sequence[Row], rules: EvaluationRules, censored: bool
) -> CaseResult:
    kind = row["prediction"]
    status = {name: value for value, name in STATUS_NAMES.items()}
    for component in candidates:
        if component["status"] not in status:
            raise ValueError(f"unknown status {component['status']!r} in candidates.csv")
    matches = Matches(
        status=np.array([status[c["status"]] for c in candidates], np.int8),
        lesion_of_candidate=_whole_column(candidates, "lesion"),
        distance_mm=_number_column(candidates, "distance_mm"),
        overlap_voxels=_whole_column(candidates, "overlap_voxels"),
        lesions_touched=_whole_column(candidates, "lesions_touched"),
        candidate_of_lesion=_whole_column(lesions, "candidate"),
        dice=_number_column(lesions, "dice"),
        pairs=pairs_of(candidates, len(lesions)),
        # Tables of older versions do not tell these two.
        covering_candidate=_whole_column(lesions, "covered_by", missing="0"),
        covered_share=_number_column(lesions, "covered_share", missing=""),
    )
    scores = scores_of(candidates, kind == "labels")
    reference = _whole(row["reference_voxels"])
    return CaseResult(
        case=row["case"],
        patient=row["patient"],
        kind=kind,
        lesions=_components(lesions),
        candidates=_components(candidates),
        confidence=scores.by(rules.confidence),
        counted=_whole_column(lesions, "counted") == 1,
        matches=matches,
        mean_probability=_number_column(lesions, "mean_probability"),
        entropy_bits=_number_column(lesions, "entropy_bits"),
        lesion_histogram=np.zeros(1, np.int64),
        candidate_overlap=VoxelCounts(
            reference, _whole(row["candidate_voxels"]), _whole(row["shared_candidate_voxels"])
        ),
        segmentation_overlap=VoxelCounts(
            reference, _whole(row["segmented_voxels"]), _whole(row["shared_segmented_voxels"])
        ),
        scores=scores,
        ranked=kind != "labels" or rules.confidence in BY_SIZE,
        n_dropped=_whole(row.get("dropped_candidates", "")),
        censored=_whole_column(lesions, "censored") == 1 if censored else None,
        surface=_surface(lesions) if rules.surface_distances else None,
    )


def scores_of(candidates: Sequence[Row], hard: bool) -> CandidateScores:
    """What ranks the candidates of candidates.csv.

    Args:
        candidates: its rows. Those of older versions have the mean probability as their confidence, and no highest.
        hard: whether the predictions are hard labels, whose probabilities are 1.
    """
    n_voxels = _whole_column(candidates, "n_voxels")
    if hard:
        return CandidateScores(np.ones(len(candidates)), np.ones(len(candidates)), n_voxels)
    if candidates and "mean_probability" not in candidates[0]:
        return CandidateScores(_number_column(candidates, "confidence"), np.full(len(candidates), np.nan), n_voxels)
    learned = _number_column(candidates, "learned_confidence")
    return CandidateScores(
        _number_column(candidates, "mean_probability"),
        _number_column(candidates, "max_probability"),
        n_voxels,
        learned if not np.isnan(learned).any() else None,
    )


def pairs_of(candidates: Sequence[Row], n_lesions: int) -> Pairs:
    """What matches what by candidates.csv; by older ones, which tell of each candidate one lesion alone, only that."""
    old = bool(candidates) and "matched_lesions" not in candidates[0]
    lesions, shared = ("lesion", "overlap_voxels") if old else ("matched_lesions", "matched_voxels")
    rows = [
        (i + 1, int(lesion), int(n))
        for i, row in enumerate(candidates)
        for lesion, n in zip(row[lesions].split(), row[shared].split(), strict=not old)
    ]
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    return Pairs(
        candidate_ids=columns[0],
        lesion_ids=columns[1],
        n_shared=columns[2],
        n_candidates=len(candidates),
        n_lesions=n_lesions,
    )


def _surface(lesions: Sequence[Row]) -> SurfaceDistances:
    return SurfaceDistances(_number_column(lesions, "hd95_mm"), _number_column(lesions, "nsd"))


def _components(rows: Sequence[Row]) -> Components:
    axes = ["centroid_y", "centroid_x"] if any(not row["centroid_z"] for row in rows) else None
    names = axes or ["centroid_z", "centroid_y", "centroid_x"]
    centroid = np.stack([_number_column(rows, name) for name in names], axis=1)
    return Components(
        n_voxels=_whole_column(rows, "n_voxels"),
        volume_mm3=_number_column(rows, "volume_mm3"),
        diameter_mm=_number_column(rows, "diameter_mm"),
        centroid=centroid,
        boxes=np.zeros((len(rows), len(names), 2), np.int64),
    )


def _whole_column(rows: Sequence[Row], name: str, missing: str | None = None) -> NDArray[np.int64]:
    return np.array([_whole(cell) for cell in _cells(rows, name, missing)], np.int64)


def _number_column(rows: Sequence[Row], name: str, missing: str | None = None) -> NDArray[np.float64]:
    return np.array([_number(cell) for cell in _cells(rows, name, missing)], np.float64)


def _cells(rows: Sequence[Row], name: str, missing: str | None) -> list[str]:
    """A column; ``missing`` takes the place of the cells of one that is not there."""
    return [row[name] if missing is None else row.get(name, missing) for row in rows]


def _whole(cell: str) -> int:
    return int(cell) if cell else 0


def _number(cell: str) -> float:
    return float(cell) if cell else np.nan


def _check(evaluation: SavedEvaluation) -> None:
    """Refuse tables that give other metrics than summary.json."""
    if not evaluation.cases:
        raise InputError(f"{evaluation.folder}: cases.csv has no cases")
    pooled = pool(evaluation.cases, evaluation.rules)
    again = resampled_metrics(pooled, np.ones((1, len(pooled.patients)), np.int64))
    for name, values in again.items():
        # Older versions had fewer metrics, and the tables hold no histograms.
        if name not in evaluation.metrics or name == "lesion_entropy_bits":
            continue
        expected, value = evaluation.metrics[name], float(values[0])
        same = np.isnan(value) if expected is None else abs(value - expected) <= _TOLERANCE * max(1, abs(expected))
        if not same:
            raise InputError(
                f"{evaluation.folder}: the tables do not belong to summary.json: {name} is {value:.6g} by the tables, "
                f"{expected} by summary.json"
            )
