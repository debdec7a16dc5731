"""Evaluations of several models on the same cases, side by side: paired differences, and lesion by lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.intervals import (
    Interval,
    check_replicates,
    check_seed,
    patient_weights,
    percentile_interval,
    resampled_ratio,
    why_no_bootstrap,
)
from nnunet_lopsided.evaluation.metrics import n_contributing, resampled_map_by, resampled_metrics
from nnunet_lopsided.evaluation.pooling import Pooled, lesions_by_patient, pool
from nnunet_lopsided.evaluation.saved import SavedEvaluation
from nnunet_lopsided.evaluation.strata import ANNOTATION_GROUPS, diameter_bin, diameter_bounds
from nnunet_lopsided.evaluation.summary_json import map_by_confidence
from nnunet_lopsided.evaluation.surface_summary import mean_interval


@dataclass(frozen=True)
class Difference:
    """One metric of two models, second minus first; None where undefined.

    Attributes:
        first: value of the first model.
        second: value of the second.
        difference: second - first.
        interval: 95% of the paired bootstrap, in which both models are always given the same patients.
    """

    first: float | None
    second: float | None
    difference: float | None
    interval: Interval


@dataclass(frozen=True)
class FoundBy:
    """How many lesions both, only one, or neither of two models found."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def mcnemar_p(self) -> float | None:
        """Two-sided p of McNemar's exact test; None when the models differ on no lesion.

        It takes lesions as independent, those of one patient too; the bootstrap does not.

        Example:
            >>> FoundBy(both=5, only_first=0, only_second=5, neither=1).mcnemar_p
            0.0625
        """
        from scipy.stats import binomtest

        n = self.only_first + self.only_second
        return float(binomtest(self.only_first, n).pvalue) if n else None


@dataclass(frozen=True)
class FoundByDiameter:
    """:class:`FoundBy` for lesions with ``lower_mm <= diameter < upper_mm`` (None: no upper edge)."""

    lower_mm: float
    upper_mm: float | None
    found_by: FoundBy


@dataclass(frozen=True)
class FoundByAnnotation:
    """:class:`FoundBy` for lesions that an incomplete reference kept or lacks, and the sensitivity on them.

    Attributes:
        name: ``kept`` or ``censored``.
        found_by: how many of them, and by which model.
        sensitivity: of both models.
    """

    name: str
    found_by: FoundBy
    sensitivity: Difference


@dataclass(frozen=True)
class SurfaceDifferences:
    """Means over the lesions that both models found: of others one of the two has no surface.

    Attributes:
        n_lesions: so many.
        hd95_mm: the mean HD95.
        nsd: the mean normalised surface Dice; undefined where the tolerances differ.
    """

    n_lesions: int
    hd95_mm: Difference
    nsd: Difference


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models, by their number (from 0).

    Attributes:
        first: the one that is subtracted.
        second: the one it is subtracted from.
        differences: by metric.
        lesions: found by which of them.
        by_diameter: the same by size, smallest first.
        by_annotation: the same for lesions that an incomplete reference kept and lacks; empty unless both models were
            evaluated with the same one.
        surface: mean HD95 and NSD of the lesions that both found; None unless both were evaluated with them.
    """

    first: int
    second: int
    differences: dict[str, Difference]
    lesions: FoundBy
    by_diameter: tuple[FoundByDiameter, ...]
    by_annotation: tuple[FoundByAnnotation, ...]
    surface: SurfaceDifferences | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The outcome of :func:`compare`.

    Attributes:
        models: the evaluations, in the order given.
        pairs: every pair of them.
        detected: which lesion was found by which model, (lesions, models), in the order of lesions.csv without the
            lesions that do not count.
        n_patients: units of the bootstrap.
        n_replicates: of the bootstrap.
        seed: of the bootstrap.
    """

    models: tuple[SavedEvaluation, ...]
    pairs: tuple[Pair, ...]
    detected: NDArray[np.bool_]
    n_patients: int
    n_replicates: int
    seed: int


def compare(models: Sequence[SavedEvaluation], n_replicates: int = 2000, seed: int = 0) -> Comparison:
    """Compare evaluations of the same cases by the same rules.

    Args:
        models: at least two, of :func:`~nnunet_lopsided.evaluation.saved.read_evaluation`.
        n_replicates: bootstrap replicates; 0: none.
        seed: of the bootstrap.

    Returns:
        Differences of every pair, second minus first. An evaluation compared with itself differs by exactly 0.

    Raises:
        InputError: cases, reference lesions, patients or rules differ, or names are not unique.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from nnunet_lopsided.evaluation import evaluate_folder
        >>> from nnunet_lopsided.evaluation.writing import write_results
        >>> from nnunet_lopsided.evaluation.saved import read_evaluation
        >>> from nnunet_lopsided.images import Geometry, Image, write_image
        >>> reference = np.eye(8, dtype=np.uint8)[None, ::3]
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder, models = Path(name), []
        ...     geometry = Geometry((1.0,) * 3, (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
        ...     (folder / "labels").mkdir()
        ...     write_image(folder / "labels" / "case.nii.gz", Image(reference, geometry))
        ...     for model, n_voxels in (("some", 4), ("all", 8)):
        ...         (folder / model).mkdir()
        ...         np.save(folder / model / "case.npy", 0.5 * (reference * (np.arange(8) < n_voxels)))
        ...         result = evaluate_folder(folder / "labels", folder / model, n_replicates=0)
        ...         write_results(result, folder / f"{model}-evaluated")
        ...         models.append(read_evaluation(folder / f"{model}-evaluated", model))
        >>> pair = compare(models).pairs[0]
        >>> pair.lesions
        FoundBy(both=2, only_first=0, only_second=1, neither=0)
    """
    if len(models) < 2:
        raise InputError(f"a comparison needs at least two evaluations, got {len(models)}")
    check_replicates(n_replicates)
    check_seed(seed)
    check_comparable(models)
    rules = models[0].rules
    pooled = [pool(model.cases, rules) for model in models]
    n_patients = len(pooled[0].patients)
    why = why_no_bootstrap(n_patients, n_replicates)
    # Drawn once, for all models: that is what makes the bootstrap a paired one.
    weights = np.zeros((0, n_patients), np.int64) if why else patient_weights(n_patients, n_replicates, seed)
    replicates = [resampled_metrics(p, weights) for p in pooled]
    for of_model in replicates:
        of_model.pop("lesion_entropy_bits")  # the tables hold no histograms
    for of_model, model, of_cases in zip(replicates, models, pooled, strict=True):
        for name, value in map_by_confidence(model.summary["metrics"]).items():
            if value is not None:
                of_model[f"map_by_{name}"] = resampled_map_by(model.cases, of_cases, rules, name, weights)
    names = {name for of_model in replicates for name in of_model}
    # A difference is no surer than the model to which fewer patients contribute.
    contributing = {name: min(n_contributing(p, name) for p in pooled) for name in names}
    counted = np.concatenate([case.counted for case in models[0].cases])
    detected = np.stack([np.concatenate([c.detected for c in m.cases]) for m in models], axis=1)[counted]
    diameter = np.concatenate([case.lesions.diameter_mm for case in models[0].cases])[counted]
    pairs = tuple(
        Pair(
            first=a,
            second=b,
            differences=_differences(
                (models[a], models[b]), of_models=(replicates[a], replicates[b]), contributing=contributing, why=why
            ),
            lesions=_found_by(detected[:, a], detected[:, b]),
            by_diameter=_by_diameter(diameter, detected[:, a], detected[:, b], rules.diameter_edges_mm),
            by_annotation=_by_annotation(pooled[a], pooled[b], weights, why),
            surface=_surface(models[a], models[b], pooled[a], n_replicates, seed),
        )
        for a, b in combinations(range(len(models)), 2)
    )
    return Comparison(
        models=tuple(models),
        pairs=pairs,
        detected=detected,
        n_patients=n_patients,
        n_replicates=n_replicates,
        seed=seed,
    )


def check_comparable(models: Sequence[SavedEvaluation]) -> None:
    """Refuse to compare what was not measured alike.

    Raises:
        InputError: names are not unique, or cases, patients, rules or reference lesions differ; the message says where.
    """
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise InputError(f"names must be unique, got {', '.join(names)}; give others by --names")
    first = models[0]
    for other in models[1:]:
        where = f"{first.folder} and {other.folder} cannot be compared"
        mine, theirs = ({case.case: case for case in model.cases} for model in (first, other))
        for folder, missing in ((other.folder, mine.keys() - theirs), (first.folder, theirs.keys() - mine)):
            if missing:
                raise InputError(f"{where}: {folder} lacks {_some(sorted(missing))}")
        ours, others = first.rule_settings, other.rule_settings
        for name in ours | others:
            mine_is, theirs_is = ours.get(name, "off"), others.get(name, "off")  # what is off is not named
            if mine_is != theirs_is:
                raise InputError(f"{where}: {name} is {mine_is!r} versus {theirs_is!r}")
        for case in first.cases:
            _check_case(where, case, theirs[case.case])


def _check_case(where: str, mine: CaseResult, theirs: CaseResult) -> None:
    if mine.patient != theirs.patient:
        raise InputError(f"{where}: case {mine.case} is of patient {mine.patient} versus {theirs.patient}")
    # Sizes are exact; centroids were written with nine digits.
    same = len(mine.lesions) == len(theirs.lesions) and np.array_equal(mine.lesions.n_voxels, theirs.lesions.n_voxels)
    if not (same and np.allclose(mine.lesions.centroid, theirs.lesions.centroid, rtol=0, atol=1e-6)):
        raise InputError(
            f"{where}: case {mine.case} has other reference lesions "
            f"({len(mine.lesions)} versus {len(theirs.lesions)} of them)"
        )


def _differences(
    models: tuple[SavedEvaluation, SavedEvaluation],
    *,
    of_models: tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]],
    contributing: dict[str, int],
    why: str | None,
) -> dict[str, Difference]:
    """The second of two models minus the first, by metric."""
    (first, second), (of_first, of_second) = models, of_models
    differences = {}
    for name, a in first.metrics.items():
        b = second.metrics.get(name)
        if a is None or b is None:
            interval = Interval.without("undefined for both" if a is b else "undefined for one of the two")
        elif name not in of_first or name not in of_second:
            interval = Interval.without("there is no bootstrap of this metric")
        elif why is not None:
            interval = Interval.without(why)
        else:
            interval = percentile_interval(of_second[name] - of_first[name], contributing[name])
        differences[name] = Difference(a, b, b - a if a is not None and b is not None else None, interval)
    return differences


def _found_by(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> FoundBy:
    return FoundBy(
        int((first & second).sum()),
        int((first & ~second).sum()),
        int((~first & second).sum()),
        int((~first & ~second).sum()),
    )


def _by_diameter(
    diameter_mm: NDArray[np.float64], first: NDArray[np.bool_], second: NDArray[np.bool_], edges_mm: Sequence[float]
) -> tuple[FoundByDiameter, ...]:
    index = diameter_bin(diameter_mm, edges_mm)
    return tuple(
        FoundByDiameter(low, high, _found_by(first[index == i], second[index == i]))
        for i, (low, high) in enumerate(diameter_bounds(edges_mm))
    )


def _by_annotation(
    first: Pooled, second: Pooled, weights: NDArray[np.int64], why: str | None
) -> tuple[FoundByAnnotation, ...]:
    censored = first.lesion_censored
    if censored is None or second.lesion_censored is None or not np.array_equal(censored, second.lesion_censored):
        return ()
    (lesions, of_first), (_, of_second) = (lesions_by_patient(p, censored.astype(np.int64), 2) for p in (first, second))
    groups = []
    for i, name in enumerate(ANNOTATION_GROUPS):
        inside, n = censored == i, int(lesions[:, i].sum())
        interval = Interval.without(why or "the group has no lesion")
        if n and why is None:
            replicates = resampled_ratio(weights, of_second[:, i] - of_first[:, i], lesions[:, i])
            interval = percentile_interval(replicates, int((lesions[:, i] > 0).sum()))
        found_by = _found_by(first.lesion_detected[inside], second.lesion_detected[inside])
        a, b = (float(hits[:, i].sum()) / n if n else None for hits in (of_first, of_second))
        difference = Difference(a, b, b - a if a is not None and b is not None else None, interval)
        groups.append(FoundByAnnotation(name, found_by, difference))
    return tuple(groups)


def _surface(
    first: SavedEvaluation, second: SavedEvaluation, pooled: Pooled, n_replicates: int, seed: int
) -> SurfaceDifferences | None:
    """Mean HD95 and NSD over the lesions that both found, paired."""
    if not (first.rules.surface_distances and second.rules.surface_distances):
        return None
    # Of a lesion that one model missed there is one surface only, and no pair.
    both = [a.detected & b.detected for a, b in zip(first.cases, second.cases, strict=True)]
    patient = pooled.lesion_patient[
        np.concatenate([b[case.counted] for b, case in zip(both, first.cases, strict=True)])
    ]
    n = np.bincount(patient, minlength=len(pooled.patients))
    differences = []
    for name in ("hd95_mm", "nsd"):
        a, b = (
            np.concatenate([getattr(c.surface, name)[found] for c, found in zip(m.cases, both, strict=True)])
            for m in (first, second)
        )
        why = "no lesion was found by both"
        comparable = name == "hd95_mm" or first.rules.nsd_tolerance_mm == second.rules.nsd_tolerance_mm
        if not comparable:
            why = f"tolerances of {first.rules.nsd_tolerance_mm:g} and {second.rules.nsd_tolerance_mm:g} mm"
        if not (len(patient) and comparable):
            differences.append(Difference(None, None, None, Interval.without(why)))
            continue
        sums = np.bincount(patient, weights=b - a, minlength=len(pooled.patients)).astype(np.float64)
        interval = mean_interval(sums, n, n_replicates, seed)
        differences.append(Difference(float(a.mean()), float(b.mean()), float((b - a).mean()), interval))
    return SurfaceDifferences(len(patient), *differences)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more cases" if len(names) > 3 else "")
