"""Evaluation of a folder of predictions against a folder of reference label maps."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case import CaseResult, check_connectivity, evaluate_case
from nnunet_lopsided.evaluation.loading import LesionClass, lesion_class, load_case
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.summary import Summary, summarize
from nnunet_lopsided.images import import_readers
from nnunet_lopsided.nnunet_layout import Prediction, find_dataset_json, label_maps, predictions_by_case


@dataclass(frozen=True)
class Inputs:
    """What is evaluated.

    Attributes:
        references: folder of reference label maps.
        predictions: folder of predictions.
        label: class or region by name; None: all foreground.
        dataset_json: the file that declares the classes; None: none was given or found.
        patients_regex: its first group (or its match) in a case's name is the patient; None: a case is a patient.
        allow_missing: count the lesions of references without prediction as missed instead of refusing them.
        hard_labels: ignore probabilities and evaluate the predicted label maps.
    """

    references: Path
    predictions: Path
    label: str | None = None
    dataset_json: Path | None = None
    patients_regex: str | None = None
    allow_missing: bool = False
    hard_labels: bool = False


@dataclass(frozen=True)
class FolderResult:
    """The outcome of :func:`evaluate_folder`.

    Attributes:
        summary: metrics, counts, curves.
        cases: tables of every case, sorted by name.
        inputs: what was evaluated.
        rules: by which rules.
        n_replicates: bootstrap replicates asked for.
        seed: of the bootstrap.
        missing_predictions: references without prediction (only with ``allow_missing``).
        unreferenced_predictions: predictions without reference; not evaluated.
    """

    summary: Summary
    cases: tuple[CaseResult, ...]
    inputs: Inputs
    rules: EvaluationRules
    n_replicates: int
    seed: int
    missing_predictions: tuple[str, ...]
    unreferenced_predictions: tuple[str, ...]


def evaluate_folder(
    references: str | Path,
    predictions: str | Path,
    *,
    rules: EvaluationRules | None = None,
    label: str | None = None,
    dataset_json: str | Path | None = None,
    patients_regex: str | None = None,
    allow_missing: bool = False,
    hard_labels: bool = False,
    n_replicates: int = 2000,
    seed: int = 0,
    n_workers: int = 2,
    progress: Callable[[int, int], object] | None = None,
) -> FolderResult:
    """Evaluate every case of a folder, lesion by lesion.

    Cases are loaded and evaluated in threads, at most ``n_workers`` at a time; of each only tables are kept.

    Args:
        references: folder of label maps ``CASE.nii.gz`` (or another ending nnU-Net reads).
        predictions: folder with ``CASE.npz`` or ``CASE.npy``, a probability image, or a label map for each.
        rules: default :class:`EvaluationRules`.
        label: name of a class or region in dataset.json; None: all foreground classes together.
        dataset_json: None: that of ``predictions``, of ``references`` or of the folder above it, if there is one.
        patients_regex: groups cases into patients for the bootstrap; its first group, or else its match, in the case's
            name is the patient. None: every case is a patient.
        allow_missing: count the lesions of references without prediction as missed.
        hard_labels: evaluate label maps even where probabilities lie beside them.
        n_replicates: bootstrap replicates; 0: none.
        seed: of the bootstrap.
        n_workers: threads.
        progress: called with (cases done, cases) after every case.

    Returns:
        Summary and tables. The same inputs give the same result whatever ``n_workers`` is.

    Raises:
        InputError: there is nothing to evaluate, a reference has no prediction, only some cases have probabilities, or
            a case is unreadable or does not fit its reference; the message names the cases.

    Example:
        >>> result = evaluate_folder("labelsTs", "predictions", n_replicates=0)  # doctest: +SKIP
        >>> result.summary.metrics.max_sensitivity  # doctest: +SKIP
        0.9
    """
    rules = rules or EvaluationRules()
    if n_workers < 1:
        raise InputError(f"n_workers must be at least 1, got {n_workers}")
    if n_replicates < 0:
        raise InputError(f"n_replicates must be at least 0, got {n_replicates}")
    references, predictions = Path(references), Path(predictions)
    inputs = Inputs(
        references,
        predictions,
        label,
        find_dataset_json(predictions, references) if dataset_json is None else Path(dataset_json),
        patients_regex,
        allow_missing,
        hard_labels,
    )
    files, predicted = _pair(inputs)
    missing = tuple(name for name in files if name not in predicted)
    patients = _patients(tuple(files), patients_regex)
    target = lesion_class(label, inputs.dataset_json)

    def work(name: str) -> CaseResult:
        return _evaluate(name, files[name], predicted.get(name), target, rules, inputs, patients[name])

    cases = []
    for case in _in_order(work, tuple(files), n_workers):
        cases.append(case)
        if progress is not None:
            progress(len(cases), len(files))
    _check_kinds(cases)
    return FolderResult(
        summarize(cases, rules, n_replicates, seed),
        tuple(cases),
        inputs,
        rules,
        n_replicates,
        seed,
        missing,
        tuple(name for name in predicted if name not in files),
    )


def _pair(inputs: Inputs) -> tuple[dict[str, Path], dict[str, Prediction]]:
    files, predicted = label_maps(inputs.references), predictions_by_case(inputs.predictions)
    if not files:
        raise InputError(f"no label maps in the reference folder {inputs.references}")
    if not predicted:
        raise InputError(f"no predictions in {inputs.predictions}")
    if not set(files) & set(predicted):
        raise InputError(
            f"no case of {inputs.references} ({next(iter(files))}, ...) has a prediction in {inputs.predictions} "
            f"({next(iter(predicted))}, ...)"
        )
    missing = [name for name in files if name not in predicted]
    if missing and not inputs.allow_missing:
        raise InputError(
            f"{len(missing)} of {len(files)} references have no prediction in {inputs.predictions}: "
            f"{', '.join(missing)}; --allow-missing counts their lesions as missed"
        )
    return files, predicted


def _patients(names: Sequence[str], pattern: str | None) -> dict[str, str]:
    if pattern is None:
        return {name: name for name in names}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"patients_regex must be a regular expression, got {pattern!r}: {error}") from None
    found = {name: compiled.search(name) for name in names}
    unmatched = [name for name, hit in found.items() if hit is None]
    if unmatched:
        raise InputError(f"patients_regex {pattern!r} does not match the cases {', '.join(unmatched)}")
    return {name: (hit[1] if compiled.groups else hit[0]) or "" for name, hit in found.items() if hit is not None}


def _evaluate(
    name: str,
    reference: Path,
    prediction: Prediction | None,
    target: LesionClass,
    rules: EvaluationRules,
    inputs: Inputs,
    patient: str,
) -> CaseResult:
    loaded = load_case(name, reference, prediction, target, inputs.hard_labels)
    check_connectivity(loaded.reference.ndim, rules.connectivity, name)
    return evaluate_case(loaded.reference, loaded.prediction, loaded.spacing_mm, rules, loaded.valid, name, patient)


def _in_order(work: Callable[[str], CaseResult], names: Sequence[str], n_workers: int) -> Iterator[CaseResult]:
    """Results in the order of ``names``, computed in threads; a bounded number of cases is in the air."""
    import_readers()
    waiting = iter(names)
    running: deque[Future[CaseResult]] = deque()
    with ThreadPoolExecutor(n_workers) as pool:
        try:
            # Twice the workers: a slow case at the head of the queue must not idle them. Finished ones are only tables.
            for name in waiting:
                running.append(pool.submit(work, name))
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
