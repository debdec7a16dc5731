"""Scoring audits of a dataset whose lesions were deleted on purpose: JSON, CSV and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.decisions import Decisions, Verdict
from nnunet_lopsided.audit.scoring import RankingScore, random_order, reviewed_numbers, score_ranking
from nnunet_lopsided.audit.stored import StoredAudit, check_unchanged, chosen_audit, read_audit
from nnunet_lopsided.audit.truth_matching import TruthMatching
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folders import new_output_folder
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.nnunet.raw import RawDataset, raw_dataset
from nnunet_lopsided.pages.html import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORE_FILE, SCORE_TABLE, SCORE_PICTURE = "audit_score.json", "audit_score.csv", "audit_score.png"

_WORDS = {"mean": "mean", "max": "highest"}


@dataclass(frozen=True, kw_only=True)
class ScoredAudit:
    """An audit against the truth.

    Attributes:
        audit: which.
        name: how tables call it.
        lesion: number of the missed lesion each candidate lies on, 0 for none, by rank.
        n_not_in_truth: annotated lesions of which no voxel is lesion in the truth.
        n_in_truth: lesions of the truth in the audited cases, missed or annotated.
        rankings: its own, those by mean and by highest probability, and the random order.
    """

    audit: StoredAudit
    name: str
    lesion: NDArray[np.int64]
    n_not_in_truth: int
    n_in_truth: int
    rankings: tuple[RankingScore, ...]

    @property
    def n_missed(self) -> int:
        """Lesions of the truth that are not annotated."""
        return self.rankings[0].n_missed

    @property
    def true_miss_rate(self) -> float | None:
        """Missed share of the lesions of the truth, within [0, 1]; None without any."""
        return self.n_missed / self.n_in_truth if self.n_in_truth else None


def score_audits(
    folder: Path | None, truth: int | str, against: Sequence[Path] = (), n_workers: int = 2
) -> list[ScoredAudit]:
    """Match the candidates of audits to the lesions that their dataset lacks.

    A missed lesion is a component of the truth no voxel of which is annotated in the audited dataset. A candidate lies
    on one by the rules of the evaluation: its centroid is within 1 mm of it.

    Args:
        folder: of the audit; see :func:`~nnunet_lopsided.audit.stored.chosen_audit`.
        truth: id or name of the dataset with the whole labels.
        against: further audits of the same dataset.
        n_workers: cases read at the same time.

    Raises:
        InputError: an audit is missing, its labels have changed since, the truth is the audited dataset itself or has
            other label values, or a case is missing in the truth or does not fit it.
    """
    # Without a folder the one in which the command is called.
    audits = [chosen_audit(folder, near=[Path.cwd()]), *map(read_audit, against)]
    others = sorted({audit.dataset for audit in audits})
    if len(others) > 1:
        raise InputError(f"expected audits of one dataset, got {', '.join(others)}")
    dataset, whole = raw_dataset(others[0]), raw_dataset(truth)
    _check_truth(whole, dataset)
    names = _names(audits)
    return [
        _scored(audit, name, dataset, whole, n_workers=n_workers) for audit, name in zip(audits, names, strict=True)
    ]


def _check_truth(truth: RawDataset, audited: RawDataset) -> None:
    if truth.name == audited.name:
        raise InputError(f"the truth: expected the dataset with the whole labels, found the audited one, {truth.name}")
    expected, of_truth = (dataset.label_scheme.label_values for dataset in (audited, truth))
    if not set(of_truth) <= set(expected):
        raise InputError(
            f"{truth.folder / 'dataset.json'}: expected lesions among the label values {_listed(expected)} of "
            f"{audited.name}, found {_listed(of_truth)}"
        )


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _names(audits: Sequence[StoredAudit]) -> list[str]:
    """A name for each audit: its trainers, or its folder where two audits are of the same trainers."""
    trainers = [" + ".join(audit.record.trainers) for audit in audits]
    return trainers if len(set(trainers)) == len(trainers) else [str(audit.folder) for audit in audits]


def _scored(audit: StoredAudit, name: str, dataset: RawDataset, truth: RawDataset, *, n_workers: int) -> ScoredAudit:
    matching = TruthMatching.of(audit, dataset, truth)
    check_unchanged(audit, dataset, list(matching.annotated.values()))
    cases = sorted(audit.record.label_digests)
    matched = for_each(matching.match, cases, n_workers, f"scoring {name}")
    lesion, n_missed = np.zeros(len(audit.candidates), np.int64), 0
    for case, of_case in zip(cases, matched, strict=True):
        # Missed lesions are numbered through all cases.
        own = of_case.lesion_of_candidate
        lesion[matching.places.get(case, [])] = np.where(own > 0, own + n_missed, 0)
        n_missed += of_case.n_missed
    # By rank, not by score: equal scores have an order too, and a score may be cut off at 1.
    descending = -np.arange(len(lesion), dtype=np.float64)
    rankings = [score_ranking(f"{name}, its ranking", lesion, descending, n_missed)]
    for what in ("mean", "max"):
        other = np.array([getattr(candidate, f"{what}_probability") for candidate in audit.candidates])
        order = np.argsort(-other, kind="stable")
        rankings.append(score_ranking(f"{name}, {_WORDS[what]} probability", lesion[order], other[order], n_missed))
    return ScoredAudit(
        audit=audit,
        name=name,
        lesion=lesion,
        n_not_in_truth=sum(of_case.n_disputed for of_case in matched),
        n_in_truth=sum(of_case.n_in_truth for of_case in matched),
        rankings=(*rankings, random_order(lesion, n_missed)),
    )


def _rankings(scored: Sequence[ScoredAudit]) -> list[RankingScore]:
    """The rankings of all audits; the random order, which is the same for all, once."""
    return [*scored[0].rankings, *(ranking for other in scored[1:] for ranking in other.rankings[:-1])]


def write_score(scored: Sequence[ScoredAudit], truth: int | str, folder: Path, overwrite: bool = False) -> None:
    """Write the score to a temporary folder beside ``folder`` and rename it when complete.

    Raises:
        InputError: the target is refused or cannot be written.
    """
    from nnunet_lopsided.pages.rendering import png

    rankings = _rankings(scored)
    n_missed = rankings[0].n_missed
    content = {
        "schema_version": 1,
        "tool": "nnunet-lopsided",
        "version": __version__,
        "truth": raw_dataset(truth).name,
        "audits": [{"id": s.audit.id, "name": s.name, "dataset": s.audit.dataset} for s in scored],
        "missed_lesions": n_missed,
        "annotated_lesions_not_in_truth": scored[0].n_not_in_truth,
        "estimated_miss_rate": scored[0].audit.record.miss_rate,
        "miss_rates": [
            {
                "name": s.name,
                "estimated": s.audit.record.estimate,
                "estimated_by_injected": s.audit.record.rate_by_injected,
                "withheld": s.audit.record.withheld or None,
                "true": s.true_miss_rate,
            }
            for s in scored
        ],
        "rankings": [_entry(ranking, n_missed) for ranking in rankings],
    }
    with new_output_folder(
        folder,
        overwrite,
        inputs=[],
        marks=(SCORE_FILE, SCORE_TABLE),
        command="lopsided-audit score",
        holds=(SCORE_FILE, SCORE_TABLE, SCORE_PICTURE),
    ) as unfinished:
        write_json(unfinished / SCORE_FILE, content)
        rows = (
            [ranking.name, n, f"{precision:.6g}", f"{share:.6g}"]
            for ranking in rankings
            for n, (precision, share) in enumerate(zip(ranking.precision, ranking.share_found, strict=True), 1)
        )
        write_table(unfinished / SCORE_TABLE, ["ranking", "reviewed", "precision", "found"], rows)
        (unfinished / SCORE_PICTURE).write_bytes(png(lambda: score_figure(rankings)))


def _entry(ranking: RankingScore, n_missed: int) -> dict[str, object]:
    return {
        "name": ranking.name,
        "candidates": ranking.n_candidates,
        "on_missed_lesions": ranking.n_hits,
        "average_precision": ranking.average_precision,
        "reviewed": [_reviewed(ranking, n) for n in reviewed_numbers(n_missed)],
    }


def _reviewed(ranking: RankingScore, asked: int) -> dict[str, object]:
    # Fewer than were asked for where there are fewer candidates.
    after = ranking.after(asked)
    return {"n": after.n, "precision": after.precision, "found": after.share_found, "asked": asked}


def score_table(scored: Sequence[ScoredAudit]) -> str:
    """The score in lines of text."""
    rankings = _rankings(scored)
    n_missed = rankings[0].n_missed
    lines = [f"{n_missed} missed lesions" + ("" if n_missed else ": every lesion of the truth is annotated")]
    if scored[0].n_not_in_truth:
        lines.append(f"{scored[0].n_not_in_truth} annotated lesions have no voxel in the truth")
    for ranking in rankings:
        area = "" if ranking.average_precision is None else f", average precision {number(ranking.average_precision)}"
        lines.append(f"{ranking.name}: {ranking.n_candidates} candidates{area}")
        for n in reviewed_numbers(n_missed):
            after = ranking.after(n)
            lines.append(f"  first {n:>5}: precision {number(after.precision)}, found {number(after.share_found)}")
    lines += [_rates(s) for s in scored if s.true_miss_rate is not None]
    return "\n".join(lines)


def _rates(scored: ScoredAudit) -> str:
    record = scored.audit.record
    without = "withheld" if record.withheld else "undefined"
    estimate = without if record.estimate is None else number(record.estimate)
    rate = record.rate_by_injected
    by_injected = "" if rate is None else f", by injected lesions {number(rate)}"
    return f"{scored.name}: miss rate estimated {estimate}{by_injected}, true {number(scored.true_miss_rate)}"


def decisions_of_truth(scored: ScoredAudit, truth: int | str, first: int | None = None) -> Decisions:
    """What a reader who knows the truth decides: candidates on a missed lesion are accepted, the others rejected.

    Args:
        scored: the audit against the truth.
        truth: id or name of the dataset with the whole labels.
        first: how many candidates are decided on, by rank; None: all.
    """
    verdicts: dict[tuple[str, int], Verdict] = {
        (candidate.case, candidate.number): "accept" if lesion else "reject"
        for candidate, lesion in zip(scored.audit.candidates[:first], scored.lesion[:first].tolist(), strict=True)
    }
    return Decisions(scored.audit.id, verdicts, {"decided_by": raw_dataset(truth).name, "first": first})


def score_figure(rankings: Sequence[RankingScore]) -> Figure:
    """Precision over the missed lesions found, and these over the candidates reviewed.

    The random order, which has no average precision, is dashed; the vertical line is at the number of missed lesions.
    """
    from matplotlib.figure import Figure

    from nnunet_lopsided.pages.charts import draw_pr_steps

    # The legend has two columns below the axes, and the figure grows with its rows.
    rows = (len(rankings) + 1) // 2
    figure = Figure(figsize=(10, 4.2 + 0.2 * rows), layout="constrained")
    curve, reviewed = figure.subplots(1, 2)
    for ranking in rankings:
        if not ranking.n_candidates:
            continue
        style = "--" if ranking.average_precision is None else "-"
        draw_pr_steps(curve, ranking.share_found, ranking.precision, linestyle=style, label=ranking.name)
        reviewed.plot(np.arange(1, ranking.n_candidates + 1), ranking.share_found, linestyle=style, label=ranking.name)
    # A little beyond 1, where a line on the frame would not be seen.
    curve.set(title="Precision", xlabel="missed lesions found", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.04))
    reviewed.set(title="Yield", xlabel="candidates reviewed", ylabel="missed lesions found", ylim=(0, 1.04))
    if rankings[0].n_missed:
        reviewed.axvline(rankings[0].n_missed, color="#9aa2af", linewidth=0.8)
    figure.legend(*reviewed.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
    return figure
