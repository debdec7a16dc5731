"""Evaluation of a folder of predictions, or of a whole cross-validation, against a folder of reference label maps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.evaluation.case import CaseResult, EvaluatedCase, check_connectivity, evaluate_thresholds
from nnunet_lopsided.evaluation.confidence import LearnedConfidence
from nnunet_lopsided.evaluation.inputs import (
    CaseFiles,
    Inputs,
    Pairing,
    default_references,
    find_inputs_dataset_json,
    pair,
)
from nnunet_lopsided.evaluation.learned_confidence import ConfidenceModel, read_model
from nnunet_lopsided.evaluation.loading import LesionClass, LoadedCase, check_headers, lesion_class, load_case
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.summary import Summary, summarize
from nnunet_lopsided.files.parallel import import_readers
from nnunet_lopsided.nnunet.results import fold_of_validation, validation_folders

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Skipped:
    """A case that could not be evaluated, and why."""

    case: str
    problem: str


@dataclass(frozen=True)
class FolderResult:
    """The outcome of :func:`evaluate_folder`.

    Attributes:
        summary: metrics, counts, curves.
        cases: tables of every case, sorted by name.
        inputs: what was evaluated.
        files: the files of every case, by name.
        rules: by which rules.
        n_replicates: bootstrap replicates asked for.
        seed: of the bootstrap.
        missing_predictions: references without prediction (only with ``allow_missing``).
        unreferenced_predictions: predictions without reference; not evaluated.
        skipped: cases that could not be evaluated (only with ``skip_bad``).
        by_threshold: (threshold, summary) of every threshold, in their order; empty when there is only one.
        confidence_model: the model of the learned confidence; None: there is none.
        seen: cases whose candidates the model was fitted to, too: its confidence in them may be too good.
    """

    summary: Summary
    cases: tuple[CaseResult, ...]
    inputs: Inputs
    files: dict[str, CaseFiles]
    rules: EvaluationRules
    n_replicates: int
    seed: int
    missing_predictions: tuple[str, ...] = ()
    unreferenced_predictions: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    by_threshold: tuple[tuple[float, Summary], ...] = ()
    confidence_model: ConfidenceModel | None = None
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedAndEvaluated:
    """A case while its volumes are in memory: its files, what they hold, and what came of it at the first threshold."""

    files: CaseFiles
    loaded: LoadedCase
    evaluated: EvaluatedCase


def evaluate_folder(
    references: str | Path | None,
    predictions: str | Path,
    *,
    rules: EvaluationRules | None = None,
    thresholds: Sequence[float] = (),
    label: str | None = None,
    dataset_json: str | Path | None = None,
    patients_regex: str | None = None,
    allow_missing: bool = False,
    hard_labels: bool = False,
    skip_bad: bool = False,
    censored_references: str | Path | None = None,
    cross_validation: bool = False,
    folds: Sequence[int] | None = None,
    confidence_model: str | Path | None = None,
    n_replicates: int = 2000,
    seed: int = 0,
    n_workers: int = 2,
    progress: Callable[[int, int], object] | None = None,
    on_case: Callable[[LoadedAndEvaluated], object] | None = None,
) -> FolderResult:
    """Evaluate every case of a folder, lesion by lesion.

    Cases are loaded and evaluated in threads, at most ``n_workers`` at a time; of each only tables are kept. The
    headers of all files are checked before any case is evaluated, and every problem found is reported at once.

    Args:
        references: folder of label maps ``CASE.nii.gz`` (or another ending nnU-Net reads); None: ``gt_segmentations``
            of the dataset below whose result folder ``predictions`` lies.
        predictions: folder with ``CASE.npz`` or ``CASE.npy``, a probability image, or a label map for each; with
            ``cross_validation`` a trainer's result folder with ``fold_X/validation``.
        rules: default :class:`EvaluationRules`.
        thresholds: evaluate at each of these, from the same loaded data; the first takes the place of
            ``rules.threshold``. Empty: that one only.
        label: name of a class or region in dataset.json; None: all foreground classes together.
        dataset_json: None: that of ``predictions``, of ``references`` or of the folder above it, if there is one.
        patients_regex: groups cases into patients for the bootstrap; its first group, or else its match, in the case's
            name is the patient. None: every case is a patient.
        allow_missing: count the lesions of references without prediction as missed.
        hard_labels: evaluate label maps even where probabilities lie beside them.
        skip_bad: leave out cases that cannot be read or do not fit, and list them in the result.
        censored_references: folder of label maps that lack some lesions of ``references``; sensitivity is then told
            separately for the lesions they kept and those they lack.
        cross_validation: evaluate all folds together.
        folds: which; None: all of splits_final.json.
        confidence_model: file or result folder with the model of the confidence ``learned``, which is then told beside
            the others, too. None: with ``learned`` that of the result folder the predictions lie in. Cases of
            ``fold_X/validation`` are judged by the model fitted without their fold, where there is one.
        n_replicates: bootstrap replicates; 0: none.
        seed: of the bootstrap.
        n_workers: threads.
        progress: called with (cases done, cases) after every case.
        on_case: called in the worker threads with every case while its volumes are in memory; an ``InputError`` it
            raises is a problem of the case.

    Returns:
        Summary and tables. The same inputs give the same result whatever ``n_workers`` is.

    Raises:
        InputError: there is nothing to evaluate, a reference has no prediction, only some cases have probabilities, or
            cases are unreadable or do not fit their reference; the message names the cases (``InputErrors``: one line
            for each problem).

    Example:
        >>> import tempfile, numpy as np
        >>> from nnunet_lopsided.images import Geometry, Image, write_image
        >>> geometry = Geometry((1.0,) * 3, (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "labelsTs").mkdir(), (Path(folder) / "predicted").mkdir()
        ...     reference = np.zeros((4, 8, 8), np.uint8)
        ...     reference[1:3, 1:4, 1:4] = reference[2, 6, 6] = 1
        ...     write_image(f"{folder}/labelsTs/a.nii.gz", Image(reference, geometry))
        ...     np.save(f"{folder}/predicted/a.npy", 0.5 * (reference * (np.arange(8) < 5)))
        ...     result = evaluate_folder(f"{folder}/labelsTs", f"{folder}/predicted", n_replicates=0)
        (None, None)
        >>> result.summary.metrics.max_sensitivity, result.summary.counts.missed_lesions
        (0.5, 1)
    """
    rules = rules or EvaluationRules()
    if n_workers < 1:
        raise InputError(f"n_workers must be at least 1, got {n_workers}")
    if n_replicates < 0:
        raise InputError(f"n_replicates must be at least 0, got {n_replicates}")
    if folds is not None and not cross_validation:
        raise InputError("folds needs cross_validation")
    all_rules = _rules_by_threshold(rules, thresholds)
    predictions = Path(predictions)
    chosen = tuple(validation_folders(predictions, folds)) if cross_validation else None
    references = default_references(predictions) if references is None else Path(references)
    inputs = Inputs(
        references,
        predictions,
        label,
        find_inputs_dataset_json(references, predictions, chosen) if dataset_json is None else Path(dataset_json),
        patients_regex,
        allow_missing,
        hard_labels,
        skip_bad,
        None if censored_references is None else Path(censored_references),
        chosen,
    )
    pairing = pair(inputs)
    target = lesion_class(label, inputs.dataset_json)
    model = _confidence_model(confidence_model, inputs, rules)
    learned = _Learned(model, label, _results_folder(inputs) is not None)
    import_readers()
    bad = _check_all_headers(pairing, inputs, target, n_workers, progress)
    sound = [files for files in pairing.cases.values() if files.name not in {b.case for b in bad}]

    def work(files: CaseFiles) -> tuple[CaseResult, ...] | Skipped:
        try:
            loaded = _load(files, target, inputs)
            check_connectivity(loaded.reference.ndim, rules.connectivity, files.name)
            evaluated = _evaluate(files, loaded, all_rules, learned)
            if on_case is not None:
                on_case(LoadedAndEvaluated(files, loaded, evaluated[0]))
        except InputError as error:
            return Skipped(files.name, str(error))
        return tuple(e.result for e in evaluated)

    results: list[tuple[CaseResult, ...]] = []
    for i, outcome in enumerate(_in_order(work, sound, n_workers)):
        if isinstance(outcome, Skipped):
            bad.append(outcome)
        else:
            results.append(outcome)
        if progress is not None:
            progress(i + 1, len(sound))
    bad.sort(key=lambda skipped: skipped.case)
    if bad and not skip_bad:
        raise InputErrors([skipped.problem for skipped in bad])
    if not results:
        raise InputErrors([f"none of the {len(bad)} cases can be evaluated", *(b.problem for b in bad)])
    by_threshold = [tuple(result[i] for result in results) for i in range(len(all_rules))]
    _check_kinds(by_threshold[0])
    summaries = [summarize(c, r, n_replicates, seed) for c, r in zip(by_threshold, all_rules, strict=True)]
    return FolderResult(
        summaries[0],
        by_threshold[0],
        inputs,
        pairing.cases,
        all_rules[0],
        n_replicates,
        seed,
        tuple(name for name in pairing.missing if name not in {skipped.case for skipped in bad}),
        pairing.unreferenced,
        tuple(bad),
        tuple((r.threshold, s) for r, s in zip(all_rules, summaries, strict=True)) if len(all_rules) > 1 else (),
        model,
        tuple(case.case for case in by_threshold[0] if learned.has_seen(case.case)),
    )


def load_again(result: FolderResult, case: str) -> LoadedCase:
    """Read a case of an evaluation once more, for its volumes.

    Raises:
        InputError: the files have changed and no longer load.
    """
    target = lesion_class(result.inputs.label, result.inputs.dataset_json)
    return _load(result.files[case], target, result.inputs)


def _rules_by_threshold(rules: EvaluationRules, thresholds: Sequence[float]) -> list[EvaluationRules]:
    if any(a >= b for a, b in pairwise(sorted(thresholds))):
        raise InputError(f"thresholds must differ, got {', '.join(map(str, thresholds))}")
    return [replace(rules, threshold=float(threshold)) for threshold in thresholds] or [rules]


def _check_all_headers(
    pairing: Pairing,
    inputs: Inputs,
    target: LesionClass,
    n_workers: int,
    progress: Callable[[int, int], object] | None,
) -> list[Skipped]:
    """Cases whose headers show that they cannot be evaluated.

    Raises:
        InputErrors: there are any without ``skip_bad``, or references without prediction without ``allow_missing``.
            Then the other cases are read too, without being evaluated, so that every problem is named in one go.
    """

    def check(files: CaseFiles) -> Skipped | None:
        try:
            check_headers(files.name, files.reference, files.prediction, inputs.hard_labels, files.censored)
        except InputError as error:
            return Skipped(files.name, str(error))
        return None

    bad = [Skipped(name, problem) for name, problem in pairing.problems.items()]
    others = [files for files in pairing.cases.values() if files.name not in pairing.problems]
    bad += [found for found in _in_order(check, others, n_workers) if found is not None]
    problems = []
    if pairing.missing and not inputs.allow_missing:
        hint = "; no splits_final.json below nnUNet_preprocessed tells the fold's own cases" * pairing.unknown_fold
        problems.append(
            f"{len(pairing.missing)} of {len(pairing.cases)} references have no prediction in {inputs.predictions}: "
            f"{', '.join(pairing.missing)}; --allow-missing counts their lesions as missed{hint}"
        )
    if problems or (bad and not inputs.skip_bad):
        known = {skipped.case for skipped in bad}
        others = [files for files in pairing.cases.values() if files.name not in known]
        for i, found in enumerate(_in_order(lambda f: _content_problem(f, target, inputs), others, n_workers)):
            bad += [found] if found is not None else []
            if progress is not None:
                progress(i + 1, len(others))
        bad.sort(key=lambda skipped: skipped.case)
        raise InputErrors([*problems, *(skipped.problem for skipped in bad)])
    return bad


def _content_problem(files: CaseFiles, target: LesionClass, inputs: Inputs) -> Skipped | None:
    try:
        _load(files, target, inputs)
    except InputError as error:
        return Skipped(files.name, str(error))
    return None


def _load(files: CaseFiles, target: LesionClass, inputs: Inputs) -> LoadedCase:
    return load_case(files.name, files.reference, files.prediction, target, inputs.hard_labels, files.censored)


def _results_folder(inputs: Inputs) -> Path | None:
    """The result folder whose validation cases are evaluated; None: the predictions are others."""
    if inputs.folds is not None:
        return inputs.predictions
    return inputs.predictions.absolute().parent.parent if fold_of_validation(inputs.predictions) is not None else None


def _confidence_model(given: str | Path | None, inputs: Inputs, rules: EvaluationRules) -> ConfidenceModel | None:
    if given is not None:
        return read_model(Path(given))
    if rules.confidence != "learned":
        return None
    folder = _results_folder(inputs)
    if folder is None:
        raise InputError(
            "the confidence learned needs --confidence-model: a file of lopsided-confidence, or the result folder of "
            "the trainer in which lopsided-confidence -d ID -c CONFIGURATION -tr TRAINER has put it"
        )
    return read_model(folder)


@dataclass(frozen=True)
class _Learned:
    """Which coefficients judge the candidates of a case."""

    model: ConfidenceModel | None
    label: str | None
    validation: bool

    def __post_init__(self) -> None:
        if self.model is not None:
            self.model.of_class(self.label)

    def of_case(self, case: str) -> LearnedConfidence | None:
        if self.model is None:
            return None
        unseen = self.model.unseen(self.label, case) if self.validation else None
        return (unseen or self.model.all_folds[self.model.of_class(self.label)]).confidence

    def has_seen(self, case: str) -> bool:
        """Whether it was fitted to the very candidates that it judges."""
        if self.model is None or not self.validation:
            return False
        return case in self.model.fold_of_case and self.model.unseen(self.label, case) is None


def _evaluate(
    files: CaseFiles, loaded: LoadedCase, all_rules: Sequence[EvaluationRules], learned: _Learned
) -> tuple[EvaluatedCase, ...]:
    try:
        return evaluate_thresholds(
            loaded.reference,
            loaded.prediction,
            loaded.spacing_mm,
            all_rules[0],
            [rules.threshold for rules in all_rules],
            valid=loaded.valid,
            case=files.name,
            patient=files.patient,
            segmentation=loaded.segmentation,
            censored_reference=loaded.censored_reference,
            learned=learned.of_case(files.name),
        )
    except InputError as error:
        raise InputError(f"case {files.name}: {error}: {files.censored}") from error


def _in_order(work: Callable[[T], R], items: Sequence[T], n_workers: int) -> Iterator[R]:
    """Results in the order of ``items``, computed in threads; a bounded number of items is in the air."""
    waiting = iter(items)
    running: deque[Future[R]] = deque()
    with ThreadPoolExecutor(n_workers) as pool:
        try:
            # Twice the workers: a slow case at the head of the queue must not idle them. Finished ones are only tables.
            for item in waiting:
                running.append(pool.submit(work, item))
                if len(running) >= 2 * n_workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _check_kinds(cases: Sequence[CaseResult]) -> None:
    hard = [case.case for case in cases if case.kind == "labels"]
    n_soft = sum(case.kind == "probabilities" for case in cases)
    if hard and n_soft:
        raise InputError(
            f"{n_soft} cases have probabilities and {len(hard)} only label maps ({', '.join(hard[:5])}"
            f"{', ...' if len(hard) > 5 else ''}); predict with --save_probabilities, or evaluate all by --hard-labels"
        )
