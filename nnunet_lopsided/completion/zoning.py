"""Zones of candidates: what is added to labels, what is ignored, what stays background.

Candidates and their voxels are those of an audit of the cross-validation. The probability that one is a missed lesion
is the audit's score, mended by what was read where somebody has read a random sample. Whether anything is missing at
all is told by injected lesions (:mod:`nnunet_lopsided.audit.missed_by_size`) where some can be injected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.auditing import THRESHOLD, Audit, audit
from nnunet_lopsided.audit.candidates import Candidate
from nnunet_lopsided.audit.decisions import Decisions, write_decisions
from nnunet_lopsided.audit.estimate_writing import decisions_by_zones, write_estimate
from nnunet_lopsided.audit.injected import inject_lesions
from nnunet_lopsided.audit.inputs import AuditInputs, why_not_injected
from nnunet_lopsided.audit.missed_by_size import MissedBySize
from nnunet_lopsided.audit.recalibration import Zones, zones
from nnunet_lopsided.audit.sample_estimate import SampleEstimate, estimate_from_sample
from nnunet_lopsided.audit.sample_writing import write_sample
from nnunet_lopsided.audit.sampled import PAGE as SAMPLE_PAGE
from nnunet_lopsided.audit.sampled import RECORD as SAMPLE_RECORD
from nnunet_lopsided.audit.sampled import Sample, read_sample, sample_candidates
from nnunet_lopsided.audit.score_writing import decisions_of_truth, score_audits
from nnunet_lopsided.audit.stored import StoredAudit, StoredCandidate, read_audit
from nnunet_lopsided.audit.stored_record import RECORD
from nnunet_lopsided.audit.writing import write_audit
from nnunet_lopsided.audit.zone_decisions import zone_decisions
from nnunet_lopsided.belief import LEAST_ANNOTATED, belief, missed_per_annotated
from nnunet_lopsided.completion.target import digest_of_predictions, digest_of_settings
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.files.json import file_digest

# Below this miss rate labels are left as they are: of whole ones injected lesions told .01 to .04, in one bare network
# .14, of those that lacked half .19 and more. Where so few are missing, labels as they are lose nothing.
AS_GOOD_AS_WHOLE = 0.1
# In the folder of the audit.
SAMPLE, ESTIMATE, TRUTH = "sample", "estimate", "decisions_of_truth.csv"


@dataclass(frozen=True, kw_only=True)
class Zoning:
    """How zones are drawn.

    Attributes:
        precision: expected share of lesions among what is accepted unread, within (0, 1].
        doubtful: other candidates of at least this probability are ignored, within [0, 1].
        threshold: candidates have p of at least this, within (0, 1).
        sample: how many candidates are read; None: none, or as many as the decisions are on.
        seed: of the draw of the sample.
        decisions: what a reader decided on the sample; None: not yet.
        truth: instead of a reader, id or name of the dataset with the whole labels.
    """

    precision: float = 0.8
    doubtful: float = 0.2
    threshold: float = THRESHOLD
    sample: int | None = None
    seed: int = 0
    decisions: Path | None = None
    truth: int | str | None = None

    def check(self) -> None:
        """Refuse what cannot be, before hours of training.

        Raises:
            InputError: a number is out of range, or options contradict each other.
        """
        if not 0 < self.precision <= 1 or not 0 <= self.doubtful <= 1:
            raise InputError(
                f"--precision must be above 0 and at most 1 and --doubtful within 0 and 1, got {self.precision:g} and "
                f"{self.doubtful:g}"
            )
        if not 0 < self.threshold < 1:
            raise InputError(f"the threshold must be within 0 and 1, got {self.threshold}")
        if self.sample is not None and self.sample < 2:
            raise InputError(f"--sample must be at least 2, got {self.sample}")
        if self.truth is not None and (self.sample is None or self.decisions is not None):
            raise InputError("--truth stands for the reader of a sample; expected --sample with it, and no --decisions")
        if self.decisions is not None and not self.decisions.is_file():
            raise InputError(f"--decisions: file not found: {self.decisions}")

    @property
    def is_read(self) -> bool:
        """Whether a sample is drawn for somebody to read."""
        return self.sample is not None or self.decisions is not None

    @property
    def rules(self) -> EvaluationRules:
        """Of candidates."""
        return EvaluationRules(threshold=self.threshold)

    def settings(self) -> dict[str, object]:
        """For the record of a completion, by which a repeated one is known; JSON types alone."""
        given = {"way": "zones", "precision": self.precision, "doubtful": self.doubtful, "threshold": self.threshold}
        if self.truth is not None:
            return {**given, "sample": self.sample, "seed": self.seed, "truth": str(self.truth)}
        if self.decisions is not None:
            return {**given, "decisions_sha256": file_digest(self.decisions)}
        return given


@dataclass(frozen=True)
class SampleToRead:
    """A sample that somebody is to read before zones can be drawn.

    Attributes:
        page: to decide on.
        n: how many candidates.
        n_candidates: of how many.
    """

    page: Path
    n: int
    n_candidates: int


@dataclass(frozen=True, kw_only=True)
class Zoned:
    """Candidates with their zones.

    Attributes:
        audit: whose candidates.
        candidates: all but the fainter ones, the first rank first, (N,).
        probability: of being a missed lesion, (N,).
        zones: of these.
        decisions: the same for the writer of labels.
        n_annotated: annotated lesions.
        rho: missed lesions per annotated one, without a reader; None: told by a sample.
        by_size: the estimate by injected lesions; None: there is none.
        estimated_by: what tells rho; empty: the sample.
        not_injected: why none was; empty: lesions were injected, or a sample was read.
        nearly_whole: whether so few lesions are missing that labels are left as they are.
        estimate: of the sample; None: nobody has read one.
    """

    audit: StoredAudit
    candidates: tuple[StoredCandidate, ...]
    probability: NDArray[np.float64]
    zones: Zones
    decisions: Decisions
    n_annotated: int
    rho: float | None = None
    by_size: MissedBySize | None = None
    estimated_by: str = ""
    not_injected: str = ""
    nearly_whole: bool = False
    estimate: SampleEstimate | None = None

    @property
    def zone(self) -> NDArray[np.str_]:
        """``accepted``, ``doubtful`` or ``background``, as labels will have it, (N,); a reader's word comes first."""
        by_verdict = {"accept": "accepted", "unsure": "doubtful"}
        verdicts = [self.decisions.verdicts.get(c.key, "") for c in self.candidates]
        return np.array([by_verdict.get(verdict, "background") for verdict in verdicts], np.str_)

    @property
    def is_read(self) -> NDArray[np.bool_]:
        """Whether a reader has decided on each, (N,)."""
        read = {} if self.estimate is None else self.estimate.decisions.verdicts
        return np.array([c.key in read for c in self.candidates], bool)


def find_zones(
    inputs: AuditInputs, zoning: Zoning, *, device: str | None, overwrite: bool, n_workers: int
) -> Zoned | SampleToRead:
    """Audit a cross-validation, and draw zones among its candidates.

    Args:
        inputs: cases with their out-of-fold predictions.
        zoning: how.
        device: where images with injected lesions are predicted; None: cuda where there is one, otherwise cpu.
        overwrite: replace an earlier sample of another size or seed, if nobody has decided in it.
        n_workers: cases worked on at the same time.

    Returns:
        The zones; a sample, if it has to be read first.

    Raises:
        InputError: the audit has no candidates to sample, decisions are of another audit or incomplete; without a
            reader: the networks are too weak, or too few annotated lesions are found, to tell anything; or images with
            injected lesions cannot be written or predicted.
    """
    not_injected = "" if zoning.is_read else why_not_injected(inputs)
    folder = audit_folder(inputs, zoning, with_injected=not (zoning.is_read or not_injected))
    if zoning.is_read:
        return _of_sample(inputs, zoning, folder, overwrite=overwrite, n_workers=n_workers)
    injected = None
    if not not_injected:
        injected = inject_lesions(inputs, rules=zoning.rules, device=device, n_workers=n_workers)
    audited = audit(inputs, rules=zoning.rules, injected=injected, n_workers=n_workers)
    stored = _written(audited, folder, n_workers)
    if audited.withheld:
        raise InputError(
            f"no zones without a reader: {audited.withheld}; --sample 60 asks one, or take --way soft ({folder})"
        )
    sure = [i for i, candidate in enumerate(audited.candidates) if not candidate.fainter]
    candidates = tuple(stored.candidates[i] for i in sure)
    estimated = _estimated([audited.candidates[i] for i in sure], audited)
    nearly_whole = estimated.rate < AS_GOOD_AS_WHOLE
    unread = np.full(len(sure), np.nan)
    drawn = zones(estimated.probability, (), unread, precision=zoning.precision, doubtful=zoning.doubtful)
    if nearly_whole:
        nothing = np.zeros(len(sure), bool)
        drawn = replace(drawn, accepted=nothing, doubtful=nothing, n_by_rule=0)
    origin: Mapping[str, object] = {"zones": "by probability, without a reader", "precision_asked": zoning.precision}
    nobody = Decisions(stored.id, {}, origin)
    return Zoned(
        audit=stored,
        candidates=candidates,
        probability=estimated.probability,
        zones=drawn,
        decisions=zone_decisions(candidates, estimated.probability, drawn, nobody, origin),
        n_annotated=audited.n_annotated,
        rho=estimated.rate / (1 - estimated.rate),
        by_size=audited.injected,
        estimated_by=estimated.by,
        not_injected=not_injected,
        nearly_whole=nearly_whole,
    )


class _Estimated(NamedTuple):
    """What is told without a reader.

    Attributes:
        probability: of each candidate of being a missed lesion, (N,).
        rate: share of all lesions that was missed, within [0, 1).
        by: what tells the rate.
    """

    probability: NDArray[np.float64]
    rate: float
    by: str


def _estimated(candidates: Sequence[Candidate], audited: Audit) -> _Estimated:
    """How probably each is a missed lesion, and how many were missed, without a reader.

    Raises:
        InputError: too few annotated lesions are found to tell.
    """
    rate = audited.miss_rates[0].rate
    if audited.likeness is not None and rate is not None:
        probability = np.array([candidate.score or 0.0 for candidate in candidates])
    else:  # of so few components no model tells more than their own score
        score = np.array([candidate.root for candidate in candidates])
        rho = missed_per_annotated(audited.explained_root, score)
        if rho is None:
            raise InputError(
                f"no zones without a reader: the networks find {len(audited.explained_root)} annotated lesions, of "
                f"{LEAST_ANNOTATED} needed; --sample 60 asks one, or take --way soft"
            )
        probability, rate = belief(audited.explained_root, score, rho), rho / (1 + rho)
    by_size = audited.injected
    if by_size is not None and by_size.rate is not None:
        return _Estimated(probability, by_size.rate, "injected lesions")
    return _Estimated(probability, rate, "the highest scores")


def audit_folder(inputs: AuditInputs, zoning: Zoning, *, with_injected: bool) -> Path:
    """Where the audit of just these predictions lies: what somebody has read stays with what was read.

    Beside the folds, ``completion_DIGEST``.
    """
    of: dict[str, object] = {"predictions": digest_of_predictions(inputs), "magnify": list(inputs.magnify)}
    of |= {"injected": True} if with_injected else {}
    digest = digest_of_settings({**of, "threshold": zoning.threshold})[:12]
    return inputs.models[0].folder(inputs.dataset.name) / f"completion_{digest}"


def _written(audited: Audit, folder: Path, n_workers: int) -> StoredAudit:
    """The audit on the disk, written where it is not there."""
    if not (folder / RECORD).is_file():
        write_audit(audited, folder, n_workers=n_workers)
    stored = read_audit(folder)
    if [c.key for c in stored.candidates] != [(c.case, c.number) for c in audited.candidates]:
        raise InputError(f"{folder} holds an audit of another version of this program; move it away")
    return stored


def _of_sample(
    inputs: AuditInputs, zoning: Zoning, folder: Path, *, overwrite: bool, n_workers: int
) -> Zoned | SampleToRead:
    if (folder / RECORD).is_file():
        stored = read_audit(folder)
    elif zoning.decisions is None:
        stored = _written(audit(inputs, rules=zoning.rules, n_workers=n_workers), folder, n_workers)
    else:
        raise InputError(
            f"{zoning.decisions}: these predictions have not been sampled yet, so nobody can have read a sample of "
            "them; the same command with --sample and without --decisions writes one"
        )
    sample = _sample(stored, zoning, overwrite=overwrite, n_workers=n_workers)
    decisions = zoning.decisions
    if zoning.truth is not None:
        decisions = _decided_by_truth(sample, zoning.truth, n_workers)
    if decisions is None:
        return SampleToRead(folder / SAMPLE / SAMPLE_PAGE, len(sample.drawn), len(sample.population))
    found = estimate_from_sample(sample, decisions, precision=zoning.precision, doubtful=zoning.doubtful)
    # Replaced: another --precision of the same decisions.
    write_estimate(found, folder / ESTIMATE, overwrite=True)
    return Zoned(
        audit=stored,
        candidates=sample.population,
        probability=found.probability,
        zones=found.zones,
        decisions=decisions_by_zones(found),
        n_annotated=found.n_annotated,
        estimate=found,
    )


def _sample(audit: StoredAudit, zoning: Zoning, *, overwrite: bool, n_workers: int) -> Sample:
    """The sample on the disk, drawn where it is not there."""
    folder = audit.folder / SAMPLE
    if zoning.sample is None:
        return read_sample(folder, audit.folder)
    drawn = sample_candidates(audit, zoning.sample, zoning.seed)
    is_there = (folder / SAMPLE_RECORD).is_file()
    if is_there:
        known = read_sample(folder, audit.folder)
        if known.drawn == drawn.drawn:
            return known
        if zoning.decisions is not None or not overwrite:
            raise InputError(
                f"{folder} holds another sample, of {len(known.drawn)} candidates drawn by seed {known.seed}; give its "
                "--sample and --seed, or --overwrite without --decisions draws anew"
            )
    write_sample(drawn, folder, overwrite=is_there, n_workers=n_workers)
    return drawn


def _decided_by_truth(sample: Sample, truth: int | str, n_workers: int) -> Path:
    """The file of decisions that one makes who knows the whole labels, on what was drawn alone."""
    (scored,) = score_audits(sample.audit.folder, truth, n_workers=n_workers)
    every = decisions_of_truth(scored, truth)
    drawn = {c.key for c in sample.drawn}
    path = sample.audit.folder / TRUTH
    verdicts = {key: verdict for key, verdict in every.verdicts.items() if key in drawn}
    write_decisions(replace(every, verdicts=verdicts), path)
    return path
