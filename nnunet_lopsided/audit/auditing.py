"""An audit: the components of out-of-fold predictions that no annotated lesion explains, ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.candidates import Candidate, Ranking, describe_candidates
from nnunet_lopsided.audit.component_table import ComponentTable
from nnunet_lopsided.audit.components import FRACTIONS
from nnunet_lopsided.audit.detector import Detector, measure_detector, why_withheld
from nnunet_lopsided.audit.inputs import AuditInputs
from nnunet_lopsided.audit.measuring import measure_cases
from nnunet_lopsided.audit.miss_rate import MissRate, Scored, estimate_miss_rates, mixture_share
from nnunet_lopsided.audit.missed_by_size import InjectedLesions, MissedBySize, estimate_by_size
from nnunet_lopsided.audit.ranking import Likeness, RankBy, fit_likeness, missed_probability, why_no_model
from nnunet_lopsided.evaluation.learned_confidence import ConfidenceModel
from nnunet_lopsided.evaluation.loading import LesionClass, lesion_class
from nnunet_lopsided.evaluation.rules import EvaluationRules

# Of a candidate's voxels, by default. Below that of lopsided-eval: networks that learned from incomplete labels give
# overlooked lesions low values.
THRESHOLD = 0.03
# Without annotated lesions that tell it, a component is cut back at half its highest probability.
DEFAULT_FRACTION = 0.5


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What :func:`audit` finds.

    Attributes:
        inputs: what was audited.
        rules: of components and matches.
        target: the class that was audited.
        candidates: the most probable missed lesion first.
        rank_by: what ranks them: ``mean-probability`` also where no model could be fitted.
        no_model: why there is no model; empty: there is one.
        likeness: the model, None without one.
        miss_rates: of the whole data set, then by diameter, from the highest mean of the predictions.
        miss_rate_in_any: of the whole data set, from the highest probability in any prediction; None: there is one.
        injected: what the models see of injected lesions, and how many were missed by that; None: nothing was injected.
        detector: how well the models find what is annotated.
        withheld: why miss rates, and scores by likeness, are withheld; empty: they are not.
        fraction: share of its highest probability at which a component is cut back.
        fraction_dice: mean Dice of annotated components so cut back with their lesions; None without any.
        n_annotated: annotated lesions.
        n_found: those of them that a component matches.
        explained_root: mean probability times the root of the voxels, of every component that matches one, (M,).
        seed: of the bootstrap.
        n_replicates: of the bootstrap.
    """

    inputs: AuditInputs
    rules: EvaluationRules
    target: LesionClass
    candidates: tuple[Candidate, ...]
    rank_by: RankBy
    no_model: str
    likeness: Likeness | None
    miss_rates: tuple[MissRate, ...]
    miss_rate_in_any: MissRate | None
    injected: MissedBySize | None
    detector: Detector
    withheld: str
    fraction: float
    fraction_dice: float | None
    n_annotated: int
    n_found: int
    explained_root: NDArray[np.float64]
    seed: int
    n_replicates: int

    @property
    def n_fainter(self) -> int:
        """Candidates below the threshold; neither the model nor the miss rate is fitted to them."""
        return sum(candidate.fainter for candidate in self.candidates)

    @property
    def channel_names(self) -> list[str]:
        """Names of the image channels, in the order of the images."""
        return self.inputs.dataset.channel_names


def audit(
    inputs: AuditInputs,
    *,
    rules: EvaluationRules | None = None,
    label: str | None = None,
    rank_by: RankBy = "likeness",
    confidence_model: ConfidenceModel | None = None,
    injected: InjectedLesions | None = None,
    n_replicates: int = 1000,
    seed: int = 0,
    n_workers: int = 2,
) -> Audit:
    """Find and rank the candidates.

    Args:
        inputs: of :func:`~nnunet_lopsided.audit.inputs.find_inputs`.
        rules: of components and matches; default: those of ``lopsided-eval``.
        label: class or region by name; None: all foreground.
        rank_by: what the score is.
        confidence_model: for ``learned``; cases are judged by what was fitted without their fold, where there is that.
        injected: of :func:`~nnunet_lopsided.audit.injected.inject_lesions` with the same rules and label; None: none.
        n_replicates: of the bootstrap of the miss rate, 0 for none.
        seed: of that bootstrap.
        n_workers: cases read at the same time.

    Raises:
        InputError: files cannot be read or do not fit each other; every such case is named.
    """
    rules = rules or EvaluationRules()
    target = lesion_class(label, inputs.dataset.folder / "dataset.json")
    measured = measure_cases(inputs.cases, target, rules, n_workers)
    # As whatever is fitted, without the fainter components: there are as many of these as the lowest level is low.
    fraction, fraction_dice = best_fraction(
        [m.components.dice[m.components.level >= rules.threshold] for m in measured]
    )
    table = ComponentTable.of(measured, fraction, rules.threshold)
    no_model = why_no_model(table.annotated[table.sure], table.patient[table.sure])
    likeness = None if no_model else _likeness(table)
    # Dividing a component leaves its highest mean probability as it is.
    scored = table.scored(measured, table.max_probability)
    in_any = table.scored(measured, table.any_probability)
    learned = None if confidence_model is None else table.learned_confidence(measured, confidence_model, label)
    detector = measure_detector(scored.found_score, scored.candidate_score, len(scored.annotated_mm), len(inputs.cases))
    miss_rates = estimate_miss_rates(scored, rules.diameter_edges_mm, n_replicates, seed)
    rate_in_any = estimate_miss_rates(in_any, (), n_replicates, seed)[0] if _are_several(inputs) else None
    by_size = None
    if injected is not None:
        by_size = estimate_by_size(scored, injected, rules.diameter_edges_mm, n_replicates, seed)
    # Where there is neither a rate nor a model, there is nothing to withhold.
    estimated = miss_rates[0].rate is not None or likeness is not None
    withheld = why_withheld(detector, miss_rates[0].rate) if estimated else ""
    if withheld:
        miss_rates = tuple(rate.withheld(withheld) for rate in miss_rates)
        rate_in_any = None if rate_in_any is None else rate_in_any.withheld(withheld)
        by_size = None if by_size is None else by_size.withheld(withheld)
    can_be_like = likeness is not None and not withheld
    shown: RankBy = "mean-probability" if rank_by == "likeness" and not can_be_like else rank_by
    if withheld and rank_by == "likeness":
        ranking = _without_scores(table)
    else:
        ranking = _ranking(table, shown, likeness=likeness, learned=learned, scored=scored)
    return Audit(
        inputs=inputs,
        rules=rules,
        target=target,
        candidates=describe_candidates(
            measured,
            table,
            ranking=ranking,
            fraction=fraction,
            target=target,
            channel_names=inputs.dataset.channel_names,
        ),
        rank_by=shown,
        no_model=no_model,
        likeness=likeness,
        miss_rates=miss_rates,
        miss_rate_in_any=rate_in_any,
        injected=by_size,
        detector=detector,
        withheld=withheld,
        fraction=fraction,
        fraction_dice=fraction_dice,
        n_annotated=len(scored.annotated_mm),
        n_found=len(scored.found_mm),
        explained_root=table.confidence("sqrt")[table.annotated & table.sure],
        seed=seed,
        n_replicates=n_replicates,
    )


def _are_several(inputs: AuditInputs) -> bool:
    """Whether a case has several predictions.

    With one per case the highest in any is the highest of the mean, and a second estimate would be the first.
    """
    return any(len(case.predictions) > 1 for case in inputs.cases)


def _likeness(table: ComponentTable) -> Likeness:
    """The model that tells annotated components from candidates; it is not fitted to any others."""
    rows = table.annotated | table.unexplained
    return fit_likeness(
        table.features()[rows],
        table.feature_names,
        annotated=table.annotated[rows],
        patients=table.patient[rows],
        learned=table.sure[rows],
    )


def _without_scores(table: ComponentTable) -> Ranking:
    """The order by mean probability; a score would claim a probability of being missed that is not known."""
    nothing: NDArray[np.float64] = np.full(len(table.kind), np.nan)
    return Ranking(table.ranked(table.mean_probability), nothing, nothing)


def _ranking(
    table: ComponentTable,
    rank_by: RankBy,
    *,
    likeness: Likeness | None,
    learned: NDArray[np.float64] | None,
    scored: Scored,
) -> Ranking:
    """The order of the candidates, and the score that puts them in this order."""
    probability: NDArray[np.float64] = np.full(len(table.kind), np.nan)
    if likeness is not None:
        probability[table.annotated | table.unexplained] = likeness.probability
    if likeness is not None and rank_by == "likeness":
        share = mixture_share(scored.found_score, scored.candidate_score)
        n_known, n_unknown = int((table.annotated & table.sure).sum()), int((table.unexplained & table.sure).sum())
        score: NDArray[np.float64] = np.full(len(table.kind), np.nan)
        score[table.unexplained] = missed_probability(probability[table.unexplained], n_known, n_unknown, share)
        # Scores are cut off at 1, so that many may be equal; likeness still tells them apart.
        return Ranking(table.ranked(probability), score, probability)
    score = table.confidence("mean" if rank_by in ("likeness", "mean-probability") else rank_by, learned)
    return Ranking(table.ranked(score), score, probability)


def best_fraction(dice: Sequence[NDArray[np.float64]]) -> tuple[float, float | None]:
    """The share of the highest probability that cuts annotated components back to their lesions best."""
    known = np.concatenate([d[~np.isnan(d).any(axis=1)] for d in dice]) if dice else np.zeros((0, len(FRACTIONS)))
    if not len(known):
        return DEFAULT_FRACTION, None
    means = known.mean(axis=0)
    # Rounded, so that the last bit of a sum does not choose between equals; the first of them cuts back least.
    best = int(np.argmax(np.round(means, 9)))
    return FRACTIONS[best], float(means[best])
