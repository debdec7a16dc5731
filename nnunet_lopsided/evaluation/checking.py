"""Which cases cannot be evaluated, and why: every problem is named at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.evaluation.case_result import CaseResult
from nnunet_lopsided.evaluation.inputs import CaseFiles, Inputs, Pairing
from nnunet_lopsided.evaluation.loading import LesionClass, LoadedCase, check_headers, load_case
from nnunet_lopsided.files.parallel import in_order
from nnunet_lopsided.nnunet.paths import nearly


@dataclass(frozen=True)
class Skipped:
    """A case that could not be evaluated, and why."""

    case: str
    problem: str


def check_all_headers(
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

    skipped = [Skipped(name, problem) for name, problem in pairing.problems.items()]
    others = [files for files in pairing.cases.values() if files.name not in pairing.problems]
    skipped += [problem for problem in in_order(check, others, n_workers) if problem is not None]
    problems = []
    if pairing.missing and not inputs.allow_missing:
        no_splits = "; no splits_final.json below nnUNet_preprocessed tells the fold's own cases"
        hint = no_splits if pairing.unknown_fold else ""
        hint += next((alike for name in pairing.missing if (alike := nearly(name, pairing.unreferenced))), "")
        problems.append(
            f"{len(pairing.missing)} of {len(pairing.cases)} references have no prediction in {inputs.predictions}: "
            f"{', '.join(pairing.missing)}; --allow-missing counts their lesions as missed{hint}"
        )
    if problems or (skipped and not inputs.skip_bad):
        known = {case.case for case in skipped}
        others = [files for files in pairing.cases.values() if files.name not in known]
        for i, problem in enumerate(in_order(lambda f: _content_problem(f, target, inputs), others, n_workers)):
            skipped += [problem] if problem is not None else []
            if progress is not None:
                progress(i + 1, len(others))
        skipped.sort(key=lambda case: case.case)
        raise InputErrors([*problems, *(case.problem for case in skipped)])
    return skipped


def _content_problem(files: CaseFiles, target: LesionClass, inputs: Inputs) -> Skipped | None:
    try:
        load_files(files, target, inputs)
    except InputError as error:
        return Skipped(files.name, str(error))
    return None


def load_files(files: CaseFiles, target: LesionClass, inputs: Inputs) -> LoadedCase:
    """Read a case.

    Raises:
        InputError: see :func:`~nnunet_lopsided.evaluation.loading.load_case`.
    """
    return load_case(
        files.name,
        files.reference,
        files.prediction,
        target,
        inputs.hard_labels,
        files.censored,
        inputs.instances,
    )


def check_kinds(cases: Sequence[CaseResult]) -> None:
    """Refuse a mixture of probabilities and hard labels: candidates of all cases are ranked together.

    Raises:
        InputError: some cases have probabilities and some do not.
    """
    hard = [case.case for case in cases if case.kind == "labels"]
    n_soft = sum(case.kind == "probabilities" for case in cases)
    if hard and n_soft:
        raise InputError(
            f"{n_soft} cases have probabilities and {len(hard)} only label maps ({', '.join(hard[:5])}"
            f"{', ...' if len(hard) > 5 else ''}); predict with --save_probabilities, or evaluate all by --hard-labels"
        )
