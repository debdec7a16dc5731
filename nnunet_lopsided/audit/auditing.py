"""An audit: the components of out-of-fold predictions that no annotated lesion explains, ranked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.classes import channel_means, label_values
from nnunet_lopsided.audit.components import FRACTIONS, Kind, MeasuredCase, measure_case
from nnunet_lopsided.audit.inputs import AuditedCase, AuditInputs
from nnunet_lopsided.audit.miss_rate import MissRate, Scored, estimate_miss_rates, mixture_share
from nnunet_lopsided.audit.ranking import Likeness, fit_likeness, missed_probability, why_no_model
from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.evaluation.archives import read_channels
from nnunet_lopsided.evaluation.case import check_connectivity
from nnunet_lopsided.evaluation.confidence import CandidateScores
from nnunet_lopsided.evaluation.learned_confidence import ConfidenceModel
from nnunet_lopsided.evaluation.loading import LesionClass, LoadedCase, check_headers, lesion_class, load_case
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import Geometry
from nnunet_lopsided.lesions import equivalent_diameter_mm, lesions_of_voxels
from nnunet_lopsided.nnunet.raw import case_images
from nnunet_lopsided.nnunet.results import Prediction

RankBy = Literal["likeness", "mean-probability", "max", "sum", "sqrt", "learned"]
# Those that are probabilities, unlike sums.
WITHIN_1: tuple[RankBy, ...] = ("likeness", "mean-probability", "max", "learned")
# Without annotated lesions that tell it, a component is cut back at half its highest probability.
DEFAULT_FRACTION = 0.5


@dataclass(frozen=True)
class Candidate:
    """One unexplained component.

    Attributes:
        case: where it lies.
        number: of the candidate in its case, from 1; its value in the label map of candidates.
        patient: whose case it is.
        fold: the fold that predicted it.
        voxels: flat indices of what would be added to the label map, ascending.
        centroid: mean voxel index of these, in array order.
        position_mm: the same in the file's own coordinates (x, y, z; LPS where the file is of a patient).
        box: first (inclusive) and last (exclusive) index along each axis.
        diameter_mm: of the sphere (2D: circle) of equal volume.
        score: probability of being a missed lesion, or whatever else ranks.
        likeness: probability of being annotated, by a model that did not see its patient; None: there is no model.
        mean_probability: of the whole component.
        max_probability: its highest.
        total: sum of the probabilities of the whole component; 0 when it is fainter.
        root: its mean probability times the root of its voxels; 0 when it is fainter.
        fainter: whether all of it is below the threshold.
        agreement: share of the predictions that find it.
        contrasts: by channel, in robust standard deviations, positive where it is brighter than its surroundings.
        label: the value it would have in the label map.
        reason: the above in words.
    """

    case: str
    number: int
    patient: str
    fold: int
    voxels: NDArray[np.int64]
    centroid: tuple[float, ...]
    position_mm: tuple[float, ...]
    box: NDArray[np.int64]
    diameter_mm: float
    score: float
    likeness: float | None
    mean_probability: float
    max_probability: float
    total: float
    root: float
    fainter: bool
    agreement: float
    contrasts: tuple[float, ...]
    label: int
    reason: str


@dataclass(frozen=True)
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
        fraction: share of its highest probability at which a component is cut back.
        fraction_dice: mean Dice of annotated components so cut back with their lesions; None without any.
        n_annotated: annotated lesions.
        n_found: those of them that a component matches.
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
    fraction: float
    fraction_dice: float | None
    n_annotated: int
    n_found: int
    seed: int
    n_replicates: int

    @property
    def n_fainter(self) -> int:
        """Candidates below the threshold; neither the model nor the miss rate is fitted to them."""
        return sum(candidate.fainter for candidate in self.candidates)

    @property
    def channel_names(self) -> list[str]:
        """In the order of the images."""
        return self.inputs.dataset.channel_names


@dataclass(frozen=True)
class _Measured:
    """A case's components and what is needed to describe them later."""

    case: AuditedCase
    components: MeasuredCase
    geometry: Geometry
    means: NDArray[np.float64] | None


def audit(
    inputs: AuditInputs,
    *,
    rules: EvaluationRules | None = None,
    label: str | None = None,
    rank_by: RankBy = "likeness",
    confidence_model: ConfidenceModel | None = None,
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
        n_replicates: of the bootstrap of the miss rate, 0 for none.
        seed: of that bootstrap.
        n_workers: cases read at the same time.

    Raises:
        InputError: files cannot be read or do not fit each other; every such case is named.
    """
    rules = rules or EvaluationRules()
    target = lesion_class(label, inputs.dataset.folder / "dataset.json")
    _check_headers(inputs.cases)
    measured = for_each(lambda case: _measure(case, target, rules), inputs.cases, n_workers, "finding candidates")
    _check_n_channels(measured)
    fraction, fraction_dice = _best_fraction(
        [m.components.dice[m.components.level >= rules.threshold] for m in measured]
    )
    table = _Table.of(measured, fraction)
    rows = table.kind >= 0
    sure = rows & (table.level >= rules.threshold)
    no_model = why_no_model(table.annotated[sure], table.patient[sure])
    likeness = None
    probability: NDArray[np.float64] = np.full(len(table.kind), np.nan)
    if not no_model:
        likeness = fit_likeness(
            table.features(rules.threshold)[rows],
            table.feature_names,
            table.annotated[rows],
            table.patient[rows],
            sure[rows],
        )
        probability[rows] = likeness.probability
    # Dividing a component leaves its highest mean probability as it is.
    scored = table.scored(measured, sure, table.max_probability)
    in_any = table.scored(measured, sure, table.any_probability)
    shown: RankBy = "mean-probability" if likeness is None and rank_by == "likeness" else rank_by
    learned = None if confidence_model is None else _learned(table, measured, confidence_model, label)
    unexplained = table.kind == Kind.UNEXPLAINED
    confidence = table.confidence("mean" if shown in ("likeness", "mean-probability") else shown, learned, sure)
    values = np.where(unexplained, confidence, np.nan)
    if likeness is not None and shown == "likeness":
        share = mixture_share(scored.found_score, scored.candidate_score)
        n_known, n_unknown = int((table.annotated & sure).sum()), int((unexplained & sure).sum())
        values[unexplained] = missed_probability(probability[unexplained], n_known, n_unknown, share)
    order = _order(table, unexplained, probability if shown == "likeness" else values)
    return Audit(
        inputs,
        rules,
        target,
        _candidates(measured, table, order, values, probability, fraction, target, sure),
        shown,
        no_model,
        likeness,
        estimate_miss_rates(scored, rules.diameter_edges_mm, n_replicates, seed),
        estimate_miss_rates(in_any, (), n_replicates, seed)[0]
        if any(len(case.predictions) > 1 for case in inputs.cases)
        else None,
        fraction,
        fraction_dice,
        len(scored.annotated_mm),
        len(scored.found_mm),
        seed,
        n_replicates,
    )


def _learned(
    table: _Table, measured: Sequence[_Measured], model: ConfidenceModel, label: str | None
) -> NDArray[np.float64]:
    """The learned confidence of every component, (N,)."""
    confidence = np.zeros(len(table.kind))
    for i, of_case in enumerate(measured):
        rows = table.case == i
        coefficients = model.unseen(label, of_case.case.name) or model.all_folds[model.of_class(label)]
        volume = table.n_voxels[rows] * float(np.prod(of_case.components.components.spacing_mm))
        confidence[rows] = coefficients.confidence(volume, table.mean_probability[rows], table.max_probability[rows])
    return confidence


def load(case: AuditedCase, target: LesionClass) -> tuple[LoadedCase, list[NDArray[np.floating]]]:
    """The label map of a case and the lesion probabilities of every prediction.

    Raises:
        InputError: a file cannot be read, does not fit, or holds no probabilities.
    """
    loaded = [load_case(case.name, case.label, prediction, target) for prediction in case.predictions]
    probabilities = []
    for one in loaded:
        assert one.prediction is not None, "every audited case has predictions"
        probabilities.append(one.prediction)
    return loaded[0], probabilities


def _check_headers(cases: Sequence[AuditedCase]) -> None:
    problems = []
    for case in cases:
        for prediction in case.predictions:
            try:
                check_headers(case.name, case.label, prediction)
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise InputErrors(problems)


def _measure(case: AuditedCase, target: LesionClass, rules: EvaluationRules) -> _Measured:
    loaded, predictions = load(case, target)
    check_connectivity(loaded.reference.ndim, rules.connectivity, case.name)
    images = case_images(case.case, loaded.reference.shape, colour=True)
    components = measure_case(
        loaded.reference, predictions, images, loaded.spacing_mm, rules, valid=loaded.valid, case=case.name
    )
    means = None
    if len(target.values or ()) > 1 and len(components.components):
        by_prediction = [channel_means(components.components, read_channels(_array(p))) for p in case.predictions]
        means = np.mean(by_prediction, axis=0)
    return _Measured(case, components, loaded.geometry, means)


def _array(prediction: Prediction) -> Path:
    assert prediction.array is not None, "probabilities were asked for"
    return prediction.array


def _check_n_channels(measured: Sequence[_Measured]) -> None:
    """Refuse a case whose number of images is not that of most cases."""
    usual = Counter(m.components.n_channels for m in measured).most_common(1)
    for m in measured:
        if (found := m.components.n_channels) != usual[0][0]:
            raise InputError(f"case {m.case.name}: expected {usual[0][0]} images, as most cases have, found {found}")


def _best_fraction(dice: Sequence[NDArray[np.float64]]) -> tuple[float, float | None]:
    """The share of the highest probability that cuts annotated components back to their lesions best."""
    known = np.concatenate([d[~np.isnan(d).any(axis=1)] for d in dice]) if dice else np.zeros((0, len(FRACTIONS)))
    if not len(known):
        return DEFAULT_FRACTION, None
    means = known.mean(axis=0)
    best = int(np.argmax(np.round(means, 9)))
    return FRACTIONS[best], float(means[best])


@dataclass(frozen=True)
class _Table:
    """The components of all cases, one row each."""

    case: NDArray[np.int64]
    index: NDArray[np.int64]
    patient: NDArray[np.int64]
    kind: NDArray[np.int8]
    mean_probability: NDArray[np.float64]
    max_probability: NDArray[np.float64]
    level: NDArray[np.float64]
    any_probability: NDArray[np.float64]
    agreement: NDArray[np.float64]
    contrasts: NDArray[np.float64]
    diameter_mm: NDArray[np.float64]
    n_voxels: NDArray[np.int64]
    patients: tuple[str, ...]

    @property
    def annotated(self) -> NDArray[np.bool_]:
        return self.kind == Kind.ANNOTATED

    @classmethod
    def of(cls, measured: Sequence[_Measured], fraction: float) -> _Table:
        patients = sorted({m.case.patient for m in measured})
        number = {name: i for i, name in enumerate(patients)}
        parts = [m.components for m in measured]
        sizes = [len(part.kind) for part in parts]

        def joined(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        diameters = [
            _diameter(part, [len(part.cut_back(i, fraction)) for i in range(len(part.kind))]) for part in parts
        ]
        return cls(
            np.repeat(np.arange(len(measured)), sizes),
            np.concatenate([np.arange(n) for n in sizes]),
            np.repeat([number[m.case.patient] for m in measured], sizes),
            joined("kind"),
            joined("mean_probability"),
            joined("max_probability"),
            joined("level"),
            joined("any_probability"),
            joined("agreement"),
            joined("contrasts"),
            np.concatenate(diameters),
            np.concatenate([part.components.n_voxels for part in parts]),
            tuple(patients),
        )

    def confidence(
        self, name: str, learned: NDArray[np.float64] | None, sure: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """A confidence of every component, as in the evaluation, (N,).

        Where size is part of it, components that are not ``sure`` have 0: a low enough level makes them as large as one
        likes.
        """
        confidence = CandidateScores(self.mean_probability, self.max_probability, self.n_voxels, learned).by(name)
        return confidence if name in ("mean", "max") else np.where(sure, confidence, 0.0)

    def features(self, threshold: float) -> NDArray[np.float64]:
        """What the model sees, 0 being neutral. Not the size, by which annotators choose what they overlook."""
        columns = [_logit(p) - _logit(np.array(threshold)) for p in (self.mean_probability, self.max_probability)]
        if (self.agreement < 1).any():
            columns.append(self.agreement)
        return np.column_stack([*columns, self.contrasts])

    @property
    def feature_names(self) -> list[str]:
        """Of the columns of :meth:`features`."""
        names = ["mean probability", "highest probability"]
        if (self.agreement < 1).any():
            names.append("agreement")
        return [*names, *(f"contrast, channel {i}" for i in range(self.contrasts.shape[1]))]

    def scored(self, measured: Sequence[_Measured], sure: NDArray[np.bool_], score: NDArray[np.float64]) -> Scored:
        """What the miss rate is estimated from: a highest probability, in which size has no part.

        Only components that are ``sure`` count: of fainter ones there are as many as one likes.
        """
        number = {name: i for i, name in enumerate(self.patients)}
        lesions = [m.components.lesion_diameter_mm for m in measured]
        annotated, unexplained = self.annotated & sure, (self.kind == Kind.UNEXPLAINED) & sure
        found = [m.components.lesion_of_component[annotated[self.case == i]] for i, m in enumerate(measured)]
        return Scored(
            np.concatenate(lesions),
            np.repeat([number[m.case.patient] for m in measured], [len(d) for d in lesions]),
            np.concatenate([diameters[which] for diameters, which in zip(lesions, found, strict=True)]),
            score[annotated],
            self.patient[annotated],
            self.diameter_mm[unexplained],
            score[unexplained],
            self.patient[unexplained],
            len(self.patients),
        )


def _diameter(part: MeasuredCase, n_voxels: Sequence[int]) -> NDArray[np.float64]:
    """Of parts of so many voxels."""
    volume = np.asarray(n_voxels, np.float64) * float(np.prod(part.components.spacing_mm))
    return equivalent_diameter_mm(volume, len(part.components.shape))


def _logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(probability, 1e-4, 1 - 1e-4)
    return np.log(inside / (1 - inside))


def _order(table: _Table, unexplained: NDArray[np.bool_], score: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of the candidates, the highest score first; ties: the higher mean probability, the larger, the earlier."""
    rows = np.flatnonzero(unexplained)
    keys = (table.index, table.case, -table.diameter_mm, -table.mean_probability, -np.round(score, 9))
    return rows[np.lexsort(tuple(key[rows] for key in keys))]


def _candidates(
    measured: Sequence[_Measured],
    table: _Table,
    order: NDArray[np.int64],
    values: NDArray[np.float64],
    probability: NDArray[np.float64],
    fraction: float,
    target: LesionClass,
    sure: NDArray[np.bool_],
) -> tuple[Candidate, ...]:
    assert target.scheme is not None, "the dataset has a dataset.json"
    allowed = target.values or (1,)
    labels = [label_values(target.scheme, m.means, allowed, len(m.components.kind)) for m in measured]
    usual = _usual_contrasts(table)
    numbers: dict[int, int] = {}
    total, root = (table.confidence(name, None, sure) for name in ("sum", "sqrt"))
    found = []
    for row in order.tolist():
        of_case = int(table.case[row])
        case, components, index = measured[of_case].case, measured[of_case].components, int(table.index[row])
        numbers[of_case] = numbers.get(of_case, 0) + 1
        voxels = components.cut_back(index, fraction)
        place = lesions_of_voxels(
            components.components.shape, components.components.spacing_mm, voxels, np.ones(len(voxels), np.int32)
        )
        likeness = None if np.isnan(probability[row]) else float(probability[row])
        found.append(
            Candidate(
                case.name,
                numbers[of_case],
                case.patient,
                case.fold,
                voxels,
                tuple(place.centroids[0].tolist()),
                position_mm(measured[of_case].geometry, place.centroids[0]),
                place.boxes[0],
                float(table.diameter_mm[row]),
                float(values[row]),
                likeness,
                float(table.mean_probability[row]),
                float(table.max_probability[row]),
                float(total[row]),
                float(root[row]),
                not sure[row],
                float(table.agreement[row]),
                tuple(table.contrasts[row].tolist()),
                int(labels[of_case][index]),
                _reason(table, row, usual, len(case.predictions)),
            )
        )
    return tuple(found)


def position_mm(geometry: Geometry, index: NDArray[np.float64]) -> tuple[float, ...]:
    """Where a voxel index in array order lies, in the file's own coordinates (x, y, z).

    Example:
        >>> geometry = Geometry((2.0, 1.0), (10.0, 20.0), (1.0, 0.0, 0.0, 1.0))
        >>> position_mm(geometry, np.array([3.0, 4.0]))
        (14.0, 26.0)
    """
    n = len(geometry.spacing_mm)
    along = (np.asarray(index) * geometry.spacing_mm)[::-1]
    return tuple((np.asarray(geometry.origin_mm) + np.reshape(geometry.direction, (n, n)) @ along).tolist())


def _usual_contrasts(table: _Table) -> NDArray[np.float64]:
    """The middle half of the contrasts of annotated components, (2, channels); NaN without any."""
    if not table.annotated.any():
        return np.full((2, table.contrasts.shape[1]), np.nan)
    return np.percentile(table.contrasts[table.annotated], (25, 75), axis=0)


def _reason(table: _Table, row: int, usual: NDArray[np.float64], n_predictions: int) -> str:
    highest = table.max_probability[row]
    parts = [f"probability up to {highest:{'.2f' if highest >= 0.1 else '.1g'}}, over {table.diameter_mm[row]:.1f} mm"]
    if n_predictions > 1:
        parts.append(f"found by {round(table.agreement[row] * n_predictions)} of {n_predictions} predictions")
    for channel, contrast in enumerate(table.contrasts[row].tolist()):
        low, high = usual[:, channel]
        known = "" if np.isnan(low) else f" (annotated lesions mostly {low:.1f} to {high:.1f})"
        parts.append(f"contrast {contrast:+.1f} in channel {channel}{known}")
    return "; ".join(parts)
