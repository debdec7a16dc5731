"""How long a study will take and how much disk, before it runs: an estimate, and it says from what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_lopsided.study.folder import StudyFolder
from nnunet_lopsided.study.jobs import Job, trainer_of_command
from nnunet_lopsided.study.schema import Study
from nnunet_lopsided.study.trainer_choice import budget_of

# Seconds per training iteration where nothing is known: judgement, for nnU-Net's default patches on one current GPU and
# for small networks on two CPU cores.
ASSUMED_SECONDS = {"cuda": 0.2, "mps": 1.0, "cpu": 0.5}
# nnU-Net's own budget, and our trainers' outside 2.5d.
_EPOCHS, _ITERATIONS = 1000, 250
# A fifth as many iterations validate; they cost about half as much.
_VALIDATION = 1.1
# The other jobs where none of their kind is done: judgement too.
_SECONDS_BY_KIND = {
    "phantom": 30,
    "preprocess": 120,
    "plan": 30,
    "censor": 15,
    "share": 20,
    "audit": 300,
    "apply": 20,
    "complete": 120,
    "predict": 90,
    "confidence": 30,
    "evaluate": 15,
}
# Judgement again; of a training it is mostly its checkpoints.
_GB_PER_TRAINING, _GB_PER_JOB = 0.6, 0.1


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the jobs that are not done will take.

    Attributes:
        training_hours: of all trainings, one after the other.
        other_hours: of everything else.
        disk_gb: of the whole study.
        seconds_per_iteration: assumed or measured.
        basis: where that number is from, in words.
    """

    training_hours: float
    other_hours: float
    disk_gb: float
    seconds_per_iteration: float
    basis: str


def estimate(study: Study, jobs: Sequence[Job], folder: StudyFolder) -> Estimate:
    """Estimate from the user's number, else from the study's finished trainings, else from an assumption."""
    seconds, basis = _seconds_per_iteration(study, jobs, folder)
    states = folder.states(jobs)
    left = [job for job in jobs if states[job.name] != "done"]
    training = sum(n_iterations(job) * seconds * _VALIDATION for job in left if job.kind == "train")
    other = 0.0
    for job in left:
        if job.kind != "train":
            # What this machine has shown counts more than judgement.
            known = [record["seconds"] for j in jobs if j.kind == job.kind and (record := folder.record(j.name))]
            other += sum(known) / len(known) if known else _SECONDS_BY_KIND[job.kind]
    disk = sum(
        _GB_PER_TRAINING if job.kind == "train" else _GB_PER_JOB
        for job in jobs
        if job.kind not in ("confidence", "evaluate")
    )
    return Estimate(
        training_hours=training / 3600,
        other_hours=other / 3600,
        disk_gb=disk,
        seconds_per_iteration=seconds,
        basis=basis,
    )


def n_iterations(job: Job) -> int:
    """Training iterations of a training, by its trainer's name or else nnU-Net's default."""
    epochs, iterations = budget_of(trainer_of_command(job.command))
    return (epochs or _EPOCHS) * (iterations or _ITERATIONS)


def _seconds_per_iteration(study: Study, jobs: Sequence[Job], folder: StudyFolder) -> tuple[float, str]:
    if study.resources.seconds_per_iteration is not None:
        return study.resources.seconds_per_iteration, "given by resources: seconds_per_iteration"
    done = [(job, record) for job in jobs if job.kind == "train" and (record := folder.record(job.name))]
    if done:
        total = sum(record["seconds"] for _, record in done)
        return total / (_VALIDATION * sum(n_iterations(job) for job, _ in done)), (
            f"measured: mean of {len(done)} finished training{'s' if len(done) > 1 else ''} of this study"
        )
    return ASSUMED_SECONDS[study.device], f"assumed for device {study.device}, not measured"
