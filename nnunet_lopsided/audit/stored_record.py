"""What is read again of a written audit's audit.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from nnunet_lopsided.audit.ranking import RankBy
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.files.json import Shape, check_shape, read_json
from nnunet_lopsided.nnunet.paths import check_case_name

SCHEMA_VERSION = 1
RECORD = "audit.json"

_RECORD_SHAPE: Shape = {
    "schema_version": int,
    "id": str,
    "dataset": str,
    "models": [{"trainer": str}],
    "miss_rate": dict,
    "counts": {"candidates": int},
    "settings": {"label": (str, type(None)), "tolerance_mm": float, "connectivity": (int, type(None))},
    "cases": {str: {"label_sha256": str}},
}


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """What is read again of audit.json.

    Attributes:
        id: by which decisions name the audit.
        dataset: name of the audited dataset.
        trainers: of the models.
        n_candidates: rows of audit.csv.
        ranked_by: what the scores are.
        withheld: why there are no scores; empty: there are.
        label: the audited class or region; None: all foreground.
        rules: of components and matches.
        miss_rate: the estimate for all diameters, as it stands there.
        rate_by_injected: the one by injected lesions, within [0, 1]; None: undefined, withheld, or none injected.
        label_digests: by audited case, the SHA-256 of its label map.
        map_digests: by case with candidates, :func:`map_digest` of its map; None: written before there were any.
    """

    id: str
    dataset: str
    trainers: tuple[str, ...]
    n_candidates: int
    ranked_by: RankBy
    withheld: str
    label: str | None
    rules: EvaluationRules
    miss_rate: Mapping[str, object]
    rate_by_injected: float | None = None
    label_digests: Mapping[str, str]
    map_digests: Mapping[str, str] | None

    @property
    def estimate(self) -> float | None:
        """The estimated miss rate, within [0, 1]; None: undefined, or withheld."""
        rate = self.miss_rate.get("miss_rate")
        return rate if isinstance(rate, int | float) else None


def read_record(folder: Path) -> AuditRecord:
    """Read audit.json.

    Raises:
        InputError: it is missing or damaged: file, key, what was expected and what was found.
    """
    path = folder / RECORD
    content = read_json(path, _RECORD_SHAPE)

    def expect(holds: bool, key: str, expected: str, value: object) -> None:
        if not holds:
            raise InputError(f"{path}: {key}: expected {expected}, found {value}")

    version, models, counts = (content[key] for key in ("schema_version", "models", "counts"))
    expect(version == SCHEMA_VERSION, "schema_version", str(SCHEMA_VERSION), version)
    expect(bool(models), "models", "at least one", "none")
    expect(counts["candidates"] >= 0, "counts.candidates", "at least 0", counts["candidates"])
    # Audits from before there was a choice do not say.
    ranked_by = content.get("ranked_by", "likeness")
    check_shape(ranked_by, str, path, "ranked_by")
    expect(ranked_by in get_args(RankBy), "ranked_by", f"one of {', '.join(get_args(RankBy))}", ranked_by)
    injected = content.get("injected")
    if injected is not None:  # None also in audits from before lesions could be injected
        check_shape(injected, {"miss_rate": (float, type(None))}, path, "injected")
    by_injected = None if injected is None else injected["miss_rate"]
    for name, rate in (("miss_rate", content["miss_rate"].get("miss_rate")), ("injected", by_injected)):
        is_rate = rate is None or (type(rate) in (int, float) and 0 <= rate <= 1)
        expect(is_rate, f"{name}.miss_rate", "a number from 0 to 1, or null", rate)
    for name in content["cases"]:
        check_case_name(name, path)
    check_shape(content.get("withheld"), (str, type(None)), path, "withheld")
    if "maps" in content:
        check_shape(content["maps"], {str: str}, path, "maps")
    settings, usual = content["settings"], EvaluationRules()
    edges = settings.get("diameter_edges_mm", list(usual.diameter_edges_mm))
    check_shape(edges, [float], path, "settings.diameter_edges_mm")
    check_shape(settings.get("threshold", usual.threshold), float, path, "settings.threshold")
    try:
        rules = EvaluationRules(
            tolerance_mm=settings["tolerance_mm"],
            connectivity=settings["connectivity"],
            threshold=settings.get("threshold", usual.threshold),
            diameter_edges_mm=tuple(edges),
        )
    except InputError as error:
        raise InputError(f"{path}: settings: {error}") from None
    return AuditRecord(
        id=content["id"],
        dataset=content["dataset"],
        trainers=tuple(model["trainer"] for model in models),
        n_candidates=counts["candidates"],
        ranked_by=ranked_by,
        withheld=content.get("withheld") or "",
        label=settings["label"],
        rules=rules,
        miss_rate=content["miss_rate"],
        rate_by_injected=by_injected,
        label_digests={name: entry["label_sha256"] for name, entry in content["cases"].items()},
        map_digests=content.get("maps"),
    )
