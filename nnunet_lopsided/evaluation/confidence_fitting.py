"""Fitting the learned confidence to the out-of-fold candidates of a cross-validation; its file beside the folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided import __version__
from nnunet_lopsided.belief import LEAST_ANNOTATED, belief, missed_per_annotated
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.folder import FolderResult, evaluate_folder
from nnunet_lopsided.evaluation.learned_confidence import (
    ALL_FOREGROUND,
    EPSILON,
    FEATURES,
    FILE_NAME,
    SCHEMA_VERSION,
    Coefficients,
    fit_coefficients,
)
from nnunet_lopsided.evaluation.loading import lesion_class
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.images import read_header
from nnunet_lopsided.nnunet.results import dataset_of_results

# Below so many unexplained candidates there is nothing to learn from.
LEAST_UNEXPLAINED = 20

_Value = TypeVar("_Value", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The candidates that a model of confidence is fitted to; M of them.

    Attributes:
        volume_mm3: (2D: mm2), (M,).
        mean: mean probability, (M,).
        highest: highest probability, (M,).
        n_voxels: (M,).
        explained: whether it detects an annotated lesion; the others touch no annotation; (M,).
        fold: that predicted it, (M,).
        n_left_out: candidates that are neither: duplicates, and such that touch a lesion without detecting it.
        n_lesions: annotated lesions.
        n_cases: cases, with candidates or not.
    """

    volume_mm3: NDArray[np.float64]
    mean: NDArray[np.float64]
    highest: NDArray[np.float64]
    n_voxels: NDArray[np.int64]
    explained: NDArray[np.bool_]
    fold: NDArray[np.int64]
    n_left_out: int
    n_lesions: int
    n_cases: int

    @classmethod
    def of(cls, cases: Sequence[CaseResult], folds: Mapping[str, int]) -> Evidence:
        """The candidates of evaluated cases; ``folds`` is the fold of each case."""
        chosen = []
        for case in cases:
            status = case.matches.status
            # What touches a lesion without detecting it is neither: too far off to be it, too near to be another one.
            unexplained = (status == Status.FALSE_POSITIVE) & (case.matches.overlap_voxels == 0)
            chosen.append((status == Status.TRUE_POSITIVE) | unexplained)

        def joined(values: Callable[[CaseResult], NDArray[_Value]]) -> NDArray[_Value]:
            return np.concatenate([values(case)[which] for case, which in zip(cases, chosen, strict=True)])

        return cls(
            volume_mm3=joined(lambda case: case.candidates.volume_mm3),
            mean=joined(lambda case: case.scores.mean),
            highest=joined(lambda case: case.scores.highest),
            n_voxels=joined(lambda case: case.scores.n_voxels),
            explained=joined(lambda case: case.matches.status == Status.TRUE_POSITIVE),
            fold=joined(lambda case: np.full(len(case.candidates), folds[case.case], np.int64)),
            n_left_out=sum(int((~which).sum()) for which in chosen),
            n_lesions=sum(case.n_lesions for case in cases),
            n_cases=len(cases),
        )


@dataclass(frozen=True)
class Fitted:
    """A model and what was believed of the candidates it was fitted to.

    Attributes:
        coefficients: the model.
        missed_per_annotated: rho; 0 where labels are complete.
        expected_missed: missed lesions among the unexplained candidates: the sum of the beliefs.
    """

    coefficients: Coefficients
    missed_per_annotated: float
    expected_missed: float


def why_not(evidence: Evidence, which: NDArray[np.bool_]) -> str:
    """Why no model can be fitted to some of the candidates; empty: it can."""
    n_explained = int(evidence.explained[which].sum())
    n_unexplained = int(which.sum()) - n_explained
    if n_explained < LEAST_ANNOTATED or n_unexplained < LEAST_UNEXPLAINED:
        return (
            f"expected at least {LEAST_ANNOTATED} candidates that detect an annotated lesion and {LEAST_UNEXPLAINED} "
            f"that touch none, found {n_explained} and {n_unexplained}; a lower --threshold may give more"
        )
    return ""


def fit(evidence: Evidence, which: NDArray[np.bool_], complete: bool = False) -> Fitted:
    """Fit the model to some of the candidates.

    Where lesions may be missing from the labels it is fitted twice: first with every unexplained candidate taken for
    false. If lesions were missed at random, that ranks as the truth would (Elkan and Noto 2008), and so its confidence
    is the score by which unexplained candidates are believed to be lesions in the second fit. The highest probability
    would be a bad score here: by it specks would be believed to be lesions.

    Args:
        evidence: all of them.
        which: which are used, (M,).
        complete: whether the labels lack no lesion, so that every unexplained candidate is false.

    Raises:
        InputError: there are too few, see :func:`why_not`, or nothing tells those that touch no lesion from the others.
    """
    if reason := why_not(evidence, which):
        raise InputError(reason)
    candidates = evidence.volume_mm3[which], evidence.mean[which], evidence.highest[which]
    explained = evidence.explained[which]
    believed, rho = explained.astype(np.float64), 0.0
    coefficients = fit_coefficients(*candidates, believed)
    if not complete:
        score = coefficients.confidence(*candidates)
        bound = missed_per_annotated(score[explained], score[~explained])
        assert bound is not None, "there are enough"
        rho = bound
        believed[~explained] = belief(score[explained], score[~explained], rho)
        if believed.min() < 1:  # otherwise there is no false candidate to fit to
            coefficients = fit_coefficients(*candidates, believed)
    if not any(coefficients.weights):
        raise InputError(
            "candidates that touch no label are neither smaller nor fainter than those on annotated lesions, so there "
            "is nothing to rank by; --complete where the labels lack no lesion, a lower --threshold may tell more"
        )
    return Fitted(coefficients, rho, float(believed[~explained].sum()))


@dataclass(frozen=True, kw_only=True)
class FittedClass:
    """The models of one class.

    Attributes:
        name: of the class or region, or ``all foreground``.
        evidence: the candidates.
        all_folds: fitted to all of them; None: there are too few.
        without_fold: fitted to those of the other folds, where that is possible.
        reason: why there is no model; empty: there is one.
    """

    name: str
    evidence: Evidence
    all_folds: Fitted | None
    without_fold: Mapping[int, Fitted]
    reason: str

    @classmethod
    def of(cls, name: str, evidence: Evidence, folds: Sequence[int], complete: bool) -> FittedClass:
        """Fit the models of a class: to all candidates, and to those of all folds but each one."""
        everything = np.ones(len(evidence.fold), bool)
        if reason := why_not(evidence, everything):
            return cls(name=name, evidence=evidence, all_folds=None, without_fold={}, reason=reason)
        try:
            whole = fit(evidence, everything, complete)
        except InputError as problem:
            return cls(name=name, evidence=evidence, all_folds=None, without_fold={}, reason=str(problem))
        without = {}
        # Without the only fold there would be nothing to fit to.
        for fold in folds if len(folds) > 1 else ():
            with suppress(InputError):  # what is left may be too little, or tell nothing
                without[fold] = fit(evidence, evidence.fold != fold, complete)
        return cls(name=name, evidence=evidence, all_folds=whole, without_fold=without, reason="")


@dataclass(frozen=True)
class FittedConfidence:
    """What is written to ``lopsided_confidence.json``.

    Attributes:
        classes: all foreground first, then every class of dataset.json; those without a model too.
        result: the evaluation of all foreground behind it.
        complete: whether labels were taken as complete.
        spacings_mm: the voxel sizes of the cases, each once.
    """

    classes: tuple[FittedClass, ...]
    result: FolderResult
    complete: bool
    spacings_mm: tuple[tuple[float, ...], ...]

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds whose predictions were read."""
        assert self.result.inputs.folds is not None, "a cross-validation was evaluated"
        return self.result.inputs.folds


def fit_confidence(
    results: Path,
    folds: Sequence[int] | None = None,
    *,
    threshold: float = EvaluationRules().threshold,
    complete: bool = False,
    n_workers: int = 2,
    progress: Callable[[int, int], object] | None = None,
) -> FittedConfidence:
    """Fit the models of a cross-validation against the labels that its evaluation is made against.

    Args:
        results: a trainer's result folder with ``fold_X/validation``, with probabilities.
        folds: which; None: all of splits_final.json.
        threshold: of the candidates.
        complete: whether the labels lack no lesion.
        n_workers: threads.
        progress: called with (cases done, cases) after every case.

    Raises:
        InputError: files cannot be read or there are too few candidates; see
            :func:`~nnunet_lopsided.evaluation.folder.evaluate_folder`.
    """
    # By the sum, so that a speck in a large lesion is not what detects it.
    rules = EvaluationRules(threshold=threshold, confidence="sum")

    def evaluated(label: str | None) -> FolderResult:
        result = evaluate_folder(
            None,
            results,
            rules=rules,
            label=label,
            cross_validation=True,
            folds=folds,
            n_replicates=0,
            n_workers=n_workers,
            progress=progress,
        )
        hard = next((case.case for case in result.cases if case.kind == "labels"), None)
        if hard is not None:
            raise InputError(
                f"case {hard}: no probabilities in {results}; nnUNetv2_train ... FOLD --val --npz makes them"
            )
        return result

    def fitted(name: str, result: FolderResult) -> FittedClass:
        assert result.inputs.folds is not None, "a cross-validation was evaluated"
        fold_of = {name: files.fold for name, files in result.files.items() if files.fold is not None}
        return FittedClass.of(name, Evidence.of(result.cases, fold_of), result.inputs.folds, complete)

    whole = evaluated(None)
    classes = [fitted(ALL_FOREGROUND, whole)]
    if classes[0].reason:
        raise InputError(f"{results}: {classes[0].reason}")
    scheme = lesion_class(None, whole.inputs.dataset_json).scheme
    names = () if scheme is None else tuple(scheme.foreground)
    for name in names:
        # The only class is all foreground: it was evaluated already.
        classes.append(fitted(name, whole if len(names) == 1 else evaluated(name)))
    spacings = {read_header(whole.files[case.case].reference).geometry.spacing_mm for case in whole.cases}
    return FittedConfidence(tuple(classes), whole, complete, tuple(sorted(spacings)))


def confidence_record(fitted: FittedConfidence) -> dict[str, object]:
    """The content of the file: plain JSON types."""
    results, rules = fitted.result.inputs.predictions, fitted.result.rules
    # TRAINER__PLANS__CONFIGURATION, unless somebody has renamed the folder.
    parts = results.absolute().name.split("__")
    trainer, plans, configuration = parts if len(parts) == 3 else (None, None, None)
    cases: dict[str, list[str]] = {str(fold): [] for fold in fitted.folds}
    for case in fitted.result.cases:
        cases[str(fitted.result.files[case.case].fold)].append(case.case)
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": "nnunet-lopsided",
        "version": __version__,
        "dataset": dataset_of_results(results),
        "trainer": trainer,
        "plans": plans,
        "configuration": configuration,
        "references": str(fitted.result.inputs.references),
        "labels_complete": fitted.complete,
        "threshold": rules.threshold,
        "connectivity": rules.connectivity,
        "features": list(FEATURES),
        "epsilon": EPSILON,
        "caveat": (
            "confidence = 1 / (1 + exp(-(intercept + weights x features))), natural logarithms, volumes in mm3 (2D: "
            "mm2) of candidates at this threshold: at another, on images of other voxel sizes or by another model the "
            "ranking may be worse"
        ),
        "spacings_mm": [list(spacing) for spacing in fitted.spacings_mm],
        "folds": cases,
        "classes": {c.name: _class_record(c) for c in fitted.classes if c.all_folds is not None},
        "classes_without_model": {c.name: c.reason for c in fitted.classes if c.all_folds is None},
    }


def _class_record(fitted: FittedClass) -> dict[str, object]:
    evidence, whole = fitted.evidence, fitted.all_folds
    assert whole is not None, "classes without a model are left out"
    n_explained = int(evidence.explained.sum())
    return {
        "all_folds": _coefficients(whole),
        "without_fold": {str(fold): _coefficients(one) for fold, one in fitted.without_fold.items()},
        "fitted_on": {
            "cases": evidence.n_cases,
            "annotated_lesions": evidence.n_lesions,
            "explained_candidates": n_explained,
            "unexplained_candidates": len(evidence.explained) - n_explained,
            "candidates_left_out": evidence.n_left_out,
            "missed_per_annotated": whole.missed_per_annotated,
            "expected_missed_lesions": whole.expected_missed,
        },
    }


def _coefficients(fitted: Fitted) -> dict[str, object]:
    return {"intercept": fitted.coefficients.intercept, "weights": list(fitted.coefficients.weights)}


def check_target(results: Path, overwrite: bool) -> Path:
    """The file to write.

    Raises:
        InputError: it exists and is not to be replaced.
    """
    path = results / FILE_NAME
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; --overwrite replaces it")
    return path


def write_confidence(fitted: FittedConfidence, overwrite: bool = False) -> Path:
    """Write ``lopsided_confidence.json`` beside the folds; gives its path.

    Raises:
        InputError: it exists and is not to be replaced.
    """
    path = check_target(fitted.result.inputs.predictions, overwrite)
    write_json(path, confidence_record(fitted))
    return path
