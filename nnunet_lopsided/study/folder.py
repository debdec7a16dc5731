"""The folder of a study: what lies where in it, and what has become of every job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.locks import is_locked
from nnunet_lopsided.running import last_line
from nnunet_lopsided.study.jobs import Job, job_of_json, same_outcome

State = Literal["done", "failed", "running", "waiting", "blocked"]
STUDY_FILE, JOBS_FILE, IDS_FILE = "study.yaml", "jobs.json", "dataset_ids.json"

# What is read of these files.
_JOBS = [
    {
        **{"name": str, "command": [str], "needs": [str], "results": str, "cpus": int, "gpus": int},
        **{"memory_gb": float, "hours": float, "fold_folder": str, "run": str},
    }
]
_IDS = {"ids": {str: int}, "sources": {str: (str, int, dict)}}
_MARKER = {"command": [str], "seconds": float, "attempts": int, "host": str}
_ATTEMPTS = [{"seconds": float, "host": str}]


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

    def sources(self) -> dict[str, Any]:
        """Where the data are from, by name of the dataset; empty before the first run."""
        return dict(self._ids()["sources"])

    def _ids(self) -> dict[str, Any]:
        return dict(read_json(self.ids_file, _IDS)) if self.ids_file.is_file() else {"ids": {}, "sources": {}}

    def record(self, job: str) -> dict[str, Any] | None:
        """The content of a job's marker, None while it is not done."""
        file = self.marker(job)
        return dict(read_json(file, _MARKER)) if file.is_file() else None

    def attempts_file(self, job: str) -> Path:
        """When each attempt at a job began, how long it took, on which host and with which command."""
        return self.attempts(job) / "attempts.json"

    def all_attempts(self, job: str) -> list[dict[str, Any]]:
        """Every attempt at a job, interrupted ones included."""
        file = self.attempts_file(job)
        return list(read_json(file, _ATTEMPTS)) if file.is_file() else []

    def known_attempts(self, job: str) -> list[dict[str, Any]]:
        """Those at the command that the job had last."""
        return of_last_command(self.all_attempts(job))

    def states(self, jobs: Sequence[Job]) -> dict[str, State]:
        """What has become of every job: one that needs a failed one is blocked."""
        found: dict[str, State] = {}
        for job in jobs:
            attempt = self.attempts(job.name)
            if self.marker(job.name).is_file():
                found[job.name] = "done"
            elif is_locked(attempt):
                found[job.name] = "running"
            elif (attempt / "failed.json").is_file():
                found[job.name] = "failed"
            elif any(found.get(need) in ("failed", "blocked") for need in job.needs):
                found[job.name] = "blocked"
            else:
                found[job.name] = "waiting"
        return found

    def failure(self, job: str) -> str:
        """The last line of a failed job's log, with the log's place."""
        log = self.log(job)
        return f"{last_line(log)} (see {log})"


def of_last_command(attempts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The attempts whose command had the outcome of the last one's; where none was noted, it counts as that.

    Example:
        >>> of_last_command([{"command": ["a"], "n": 1}, {"command": ["b"], "n": 2}, {"command": ["b"], "n": 3}])
        [{'command': ['b'], 'n': 2}, {'command': ['b'], 'n': 3}]
    """
    last = attempts[-1].get("command", []) if attempts else []
    return [a for a in attempts if same_outcome(_without_npz(a.get("command", last)), _without_npz(last))]


def _without_npz(command: Sequence[str]) -> list[str]:
    """With it a training that is done goes on to its probabilities; the hours before are its own."""
    return [word for word in command if word != "--npz"]
