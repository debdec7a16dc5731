"""The folder of a study: what lies where in it, and what has become of every job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import Shape, read_json
from nnunet_lopsided.files.locks import is_locked
from nnunet_lopsided.running import last_line, why_it_failed
from nnunet_lopsided.study.jobs import Job, job_of_json, same_outcome

State = Literal["done", "failed", "running", "waiting", "blocked"]
STUDY_FILE, JOBS_FILE, IDS_FILE = "study.yaml", "jobs.json", "dataset_ids.json"

# What is read of these files.
_JOBS: Shape = [
    {
        "name": str,
        "command": [str],
        "needs": [str],
        "results": str,
        "cpus": int,
        "gpus": int,
        "memory_gb": float,
        "hours": float,
        "fold_folder": str,
        "run": str,
    }
]
_IDS: Shape = {"ids": {str: int}, "sources": {str: (str, int, dict)}}
_MARKER: Shape = {"command": [str], "seconds": float, "attempts": int, "host": str}
_ATTEMPTS: Shape = [{"seconds": float, "host": str}]
_MORE_MEMORY = "give a job more memory_gb or fewer cpus (resources), or run fewer at a time (--cores)"

# Where a dataset is from: a folder, an id, or the settings of a phantom.
Source = str | int | dict[str, object]


class _Timed(TypedDict):
    seconds: float
    host: str


class Attempt(_Timed, total=False):
    """One attempt at a job; those of earlier versions lack some keys."""

    started: str
    device: str
    command: list[str]


class Marker(_Timed, total=False):
    """What the marker of a finished job says: its times are sums over all attempts at its command."""

    command: list[str]
    attempts: int
    started: str
    device: str
    version: str


class _Ids(TypedDict):
    ids: dict[str, int]
    sources: dict[str, Source]


@dataclass(frozen=True)
class StudyFolder:
    """A folder that holds all of a study."""

    path: Path

    @property
    def study_file(self) -> Path:
        """The study, as it was last run."""
        return self.path / STUDY_FILE

    @property
    def jobs_file(self) -> Path:
        """Its jobs."""
        return self.path / JOBS_FILE

    def marker(self, job: str) -> Path:
        """Exists when a job has ended well: its command, wall time, host."""
        return self.path / "done" / f"{job}.json"

    def log(self, job: str) -> Path:
        """The output of a job's command."""
        return self.path / "logs" / f"{job}.log"

    def attempts(self, job: str) -> Path:
        """A folder with what is known of every attempt at a job; locked while one runs."""
        return self.path / "attempts" / job

    def jobs(self) -> tuple[Job, ...]:
        """The jobs of the last run.

        Raises:
            InputError: the folder holds no study.
        """
        if not self.jobs_file.is_file():
            raise InputError(
                f"{self.path} holds no study: {JOBS_FILE} not found; expected the -o of lopsided-study run"
            )
        try:
            return tuple(job_of_json(job) for job in read_json(self.jobs_file, _JOBS))
        except TypeError as error:  # keys of another version
            raise InputError(f"{self.jobs_file}: expected jobs as this version writes them: {error}") from None

    @property
    def ids_file(self) -> Path:
        """Dataset ids and where the data are from."""
        return self.path / IDS_FILE

    def ids(self) -> dict[str, int]:
        """Dataset ids by name of the variant; empty before the first run."""
        return dict(self._ids()["ids"])

    def sources(self) -> dict[str, Source]:
        """Where the data are from, by name of the dataset; empty before the first run."""
        return dict(self._ids()["sources"])

    def _ids(self) -> _Ids:
        if not self.ids_file.is_file():
            return {"ids": {}, "sources": {}}
        content: _Ids = read_json(self.ids_file, _IDS)
        return content

    def record(self, job: str) -> Marker | None:
        """The content of a job's marker, None while it is not done."""
        file = self.marker(job)
        if not file.is_file():
            return None
        content: Marker = read_json(file, _MARKER)
        return content

    def attempts_file(self, job: str) -> Path:
        """When each attempt at a job began, how long it took, on which host and with which command."""
        return self.attempts(job) / "attempts.json"

    def failure_file(self, job: str) -> Path:
        """Exists when the last attempt at a job has failed: its exit code."""
        return self.attempts(job) / "failed.json"

    def all_attempts(self, job: str) -> list[Attempt]:
        """Every attempt at a job, interrupted ones included."""
        file = self.attempts_file(job)
        attempts: list[Attempt] = read_json(file, _ATTEMPTS) if file.is_file() else []
        return attempts

    def known_attempts(self, job: str) -> list[Attempt]:
        """The attempts at the job's latest command."""
        return of_last_command(self.all_attempts(job))

    def states(self, jobs: Sequence[Job]) -> dict[str, State]:
        """What has become of every job: one that needs a failed one is blocked."""
        states: dict[str, State] = {}
        for job in jobs:
            # First, since the marker is written while the job's lock is still held.
            if self.marker(job.name).is_file():
                states[job.name] = "done"
            # A job that runs again may have failed before.
            elif is_locked(self.attempts(job.name)):
                states[job.name] = "running"
            elif self.failure_file(job.name).is_file():
                states[job.name] = "failed"
            elif any(states.get(need) in ("failed", "blocked") for need in job.needs):
                states[job.name] = "blocked"
            else:
                states[job.name] = "waiting"
        return states

    def failure(self, job: str) -> str:
        """Why a job failed: the last line of its log, or the signal that ended it, and where the log is."""
        log, file = self.log(job), self.failure_file(job)
        failure = read_json(file, dict) if file.is_file() else {}
        exit_code = failure.get("exit_code", 1)  # an earlier version may not have noted it
        return f"{why_it_failed(exit_code, last_line(log), _MORE_MEMORY)} (see {log})"


def of_last_command(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The attempts whose command makes the same as that of the last one; an attempt without a noted command does.

    Example:
        >>> attempts = [{"command": [name], "seconds": s, "host": "pc"} for name, s in (("a", 1), ("b", 2), ("b", 3))]
        >>> [attempt["seconds"] for attempt in of_last_command(attempts)]
        [2, 3]
    """
    last = attempts[-1].get("command", []) if attempts else []
    return [a for a in attempts if same_outcome(_without_npz(a.get("command", last)), _without_npz(last))]


def _without_npz(command: Sequence[str]) -> list[str]:
    """A training command without the option that keeps probabilities.

    A study that needs probabilities later runs a finished training again with this option. nnU-Net then only predicts
    the validation cases. The hours of the first run were spent on the same network, so they are counted too.
    """
    return [word for word in command if word != "--npz"]
