"""Evaluation of a folder of predictions, or of a whole cross-validation, against a folder of reference label maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.evaluation.case import EvaluatedCase, check_connectivity, evaluate_thresholds
from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.checking import Skipped, check_all_headers, check_kinds, load_files
from nnunet_lopsided.evaluation.chosen_confidence import ChosenConfidence
from nnunet_lopsided.evaluation.inputs import (
    CaseFiles,
    Inputs,
    default_references,
    find_inputs_dataset_json,
    pair,
)
from nnunet_lopsided.evaluation.intervals import check_replicates
from nnunet_lopsided.evaluation.learned_confidence import ConfidenceModel
from nnunet_lopsided.evaluation.loading import LesionClass, LoadedCase, lesion_class
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.summary import Summary, summarize
from nnunet_lopsided.files.parallel import import_readers, in_order
from nnunet_lopsided.nnunet.results import validation_folders


@dataclass(frozen=True, kw_only=True)
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
        look_swapped: cases whose probabilities look like the background's: channels in another order than the classes,
            or a network that has hardly trained.
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
    look_swapped: tuple[str, ...] = ()

    @property
    def lesions_in_pieces(self) -> int:
        """Instances of the references in several pieces, which count as one lesion each."""
        return sum(case.lesions.n_in_pieces for case in self.cases)

    @property
    def candidates_in_pieces(self) -> int:
        """Instances of the predictions in several pieces, which count as one candidate each."""
        return sum(case.candidates.n_in_pieces for case in self.cases)

    @property
    def looks_hard(self) -> bool:
        """Whether every candidate of all cases has a probability of 1: label maps that were saved as floating point?"""
        with_candidates = [case for case in self.cases if len(case.candidates)]
        return bool(with_candidates) and all(case.looks_hard for case in with_candidates)


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
    cases: Sequence[str] | None = None,
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
            name is the patient. None: ``cases.csv`` of the references' dataset says it, or else every case is one.
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
        cases: names of the only ones to evaluate; None: all.
        n_replicates: bootstrap replicates, at least 100; 0: none.
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
    check_replicates(n_replicates)
    if folds is not None and not cross_validation:
        raise InputError("folds needs cross_validation")
    if label is not None and rules.instances == "both":
        raise InputError(f"label {label} has no part in instances both: the values are numbers of lesions, not classes")
    if len(thresholds) > 1 and rules.predicted_instances:
        raise InputError(f"instances {rules.instances} has no thresholds: candidates are numbered already")
    all_rules = _rules_by_threshold(rules, thresholds)
    predictions = Path(predictions)
    chosen_folds = tuple(validation_folders(predictions, folds)) if cross_validation else None
    references = default_references(predictions) if references is None else Path(references)
    if dataset_json is None:
        dataset_json = find_inputs_dataset_json(references, predictions, chosen_folds)
    inputs = Inputs(
        references=references,
        predictions=predictions,
        label=label,
        dataset_json=None if dataset_json is None else Path(dataset_json),
        patients_regex=patients_regex,
        allow_missing=allow_missing,
        hard_labels=hard_labels,
        skip_bad=skip_bad,
        censored_references=None if censored_references is None else Path(censored_references),
        folds=chosen_folds,
        cases=None if cases is None else tuple(cases),
        instances=rules.instances,
    )
    pairing = pair(inputs)
    target = lesion_class(label, inputs.dataset_json)
    confidence = ChosenConfidence.choose(confidence_model, inputs, rules)
    import_readers()
    # A wrong shape shows in a header within milliseconds, and must not end an evaluation of hours.
    skipped = check_all_headers(pairing, inputs, target, n_workers, progress)
    left_out = {case.case for case in skipped}
    sound = [files for files in pairing.cases.values() if files.name not in left_out]
    evaluation = _CaseEvaluation(
        inputs=inputs, target=target, all_rules=all_rules, confidence=confidence, on_case=on_case
    )
    results: list[tuple[CaseResult, ...]] = []
    for i, outcome in enumerate(in_order(evaluation.of, sound, n_workers)):
        if isinstance(outcome, Skipped):
            skipped.append(outcome)
        else:
            results.append(outcome)
        if progress is not None:
            progress(i + 1, len(sound))
    skipped.sort(key=lambda case: case.case)
    _refuse(skipped, skip_bad, nothing_left=not results)
    left_out = {case.case for case in skipped}
    by_threshold = [tuple(result[i] for result in results) for i in range(len(all_rules))]
    check_kinds(by_threshold[0])  # files are of one kind at every threshold
    summaries = [summarize(c, r, n_replicates, seed) for c, r in zip(by_threshold, all_rules, strict=True)]
    several = [(r.threshold, s) for r, s in zip(all_rules, summaries, strict=True)] if len(all_rules) > 1 else []
    return FolderResult(
        summary=summaries[0],
        cases=by_threshold[0],
        inputs=inputs,
        files=pairing.cases,
        rules=all_rules[0],
        n_replicates=n_replicates,
        seed=seed,
        missing_predictions=tuple(name for name in pairing.missing if name not in left_out),
        unreferenced_predictions=pairing.unreferenced,
        skipped=tuple(skipped),
        by_threshold=tuple(several),
        confidence_model=confidence.model,
        look_swapped=tuple(sorted(evaluation.look_swapped)),
        seen=tuple(case.case for case in by_threshold[0] if confidence.has_seen(case.case)),
    )


@dataclass(frozen=True, kw_only=True)
class _CaseEvaluation:
    """What is done with every case, in a thread of its own."""

    inputs: Inputs
    target: LesionClass
    all_rules: Sequence[EvaluationRules]
    confidence: ChosenConfidence
    on_case: Callable[[LoadedAndEvaluated], object] | None
    # Names, as they are found; every thread appends to it.
    look_swapped: list[str] = field(default_factory=list)

    def of(self, files: CaseFiles) -> tuple[CaseResult, ...] | Skipped:
        """The tables of a case, one for each threshold; or why there are none."""
        try:
            loaded = load_files(files, self.target, self.inputs)
            check_connectivity(loaded.reference.ndim, self.all_rules[0].connectivity, files.name)
            evaluated = self._evaluate(files, loaded)
            if self.on_case is not None:
                self.on_case(LoadedAndEvaluated(files, loaded, evaluated[0]))
            if loaded.looks_swapped:
                self.look_swapped.append(files.name)
        except InputError as error:
            return Skipped(files.name, str(error))
        return tuple(one.result for one in evaluated)

    def _evaluate(self, files: CaseFiles, loaded: LoadedCase) -> tuple[EvaluatedCase, ...]:
        try:
            return evaluate_thresholds(
                loaded.lesions,
                loaded.prediction,
                loaded.spacing_mm,
                self.all_rules[0],
                [rules.threshold for rules in self.all_rules],
                valid=loaded.valid,
                case=files.name,
                patient=files.patient,
                segmentation=loaded.segmentation,
                censored_reference=loaded.censored_reference,
                learned=self.confidence.of_case(files.name),
            )
        except InputError as error:
            raise InputError(f"case {files.name}: {error}: {files.censored}") from error


def _refuse(skipped: Sequence[Skipped], skip_bad: bool, nothing_left: bool) -> None:
    """End here where cases cannot be evaluated and are not to be left out, or none is left."""
    if skipped and not skip_bad:
        raise InputErrors([case.problem for case in skipped])
    if nothing_left:
        raise InputErrors([f"none of the {len(skipped)} cases can be evaluated", *(case.problem for case in skipped)])


def load_again(result: FolderResult, case: str) -> LoadedCase:
    """Read a case of an evaluation once more, for its volumes.

    Raises:
        InputError: the files have changed and no longer load.
    """
    target = lesion_class(result.inputs.label, result.inputs.dataset_json)
    return load_files(result.files[case], target, result.inputs)


def _rules_by_threshold(rules: EvaluationRules, thresholds: Sequence[float]) -> list[EvaluationRules]:
    if any(a >= b for a, b in pairwise(sorted(thresholds))):
        raise InputError(f"thresholds must differ, got {', '.join(map(str, thresholds))}")
    return [replace(rules, threshold=float(threshold)) for threshold in thresholds] or [rules]
