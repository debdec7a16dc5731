"""``python -m nnunet_lopsided.study.job_runner NAME`` in a study's folder: run one of its jobs; what Snakemake calls.

The job's command runs once, with its output in a log. When it ends well the job's marker is written. A training goes on
from its checkpoint. The command ends with this process, however that ends.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from nnunet_lopsided import __version__
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.locks import locked
from nnunet_lopsided.nnunet.checkpoints import whole_checkpoint
from nnunet_lopsided.nnunet.paths import PATH_VARIABLES
from nnunet_lopsided.running import last_line, run_logged
from nnunet_lopsided.study.folder import Attempt, Marker, StudyFolder, of_last_command
from nnunet_lopsided.study.jobs import Job, same_outcome

# What a run on one machine may use, names separated by commas; set by the engine. On a cluster its scheduler decides.
CORES_VARIABLE, GPUS_VARIABLE = "LOPSIDED_STUDY_CORES", "LOPSIDED_STUDY_GPUS"
_SECONDS_FOR_LOCK, _SECONDS_BETWEEN_RECORDS = 60, 10


def main(argv: list[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    (name,) = sys.argv[1:] if argv is None else argv
    folder = StudyFolder(Path.cwd())
    (job,) = (job for job in folder.jobs() if job.name == name)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent by batch systems; then clean up as after Ctrl-C
    try:
        return run_job(folder, job)
    except (InputError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def run_job(folder: StudyFolder, job: Job) -> int:
    """Run a job in a study's folder and write its marker if its command ends well.

    Returns:
        The exit code of the command.

    Raises:
        InputError: another process has been running the same job for a minute.
    """
    for path in (folder.marker(job.name), folder.log(job.name), folder.attempts_file(job.name)):
        path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        # Cores and GPUs before the lock: a job that waits for them must not look as if it were running.
        cores, gpus = _names_in(CORES_VARIABLE), _names_in(GPUS_VARIABLE)
        held.enter_context(held_slots(folder.path, "core", cores, job.cpus))
        chosen = held.enter_context(held_slots(folder.path, "gpu", gpus, job.gpus))
        _wait_for(held, folder.attempts(job.name))
        done = folder.record(job.name)
        if done is not None and same_outcome(done["command"], job.command):  # done while this waited
            return 0
        folder.failure_file(job.name).unlink(missing_ok=True)
        device = _gpu_name(chosen) if job.gpus else platform.processor() or platform.machine()
        record, environment = _Record(folder, job, device), _environment(folder.path, job)
        # One that a kill left half-written is set aside by this: nnU-Net would fail on it at every attempt.
        goes_on = bool(job.fold_folder) and bool(whole_checkpoint(folder.path / job.fold_folder))
        command = [*job.command, *(["--c"] if goes_on else [])]
        if chosen:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
        code = run_logged(
            command,
            folder.log(job.name),
            environment,
            record.every_second,
            cwd=folder.path,
            append=record.n_earlier > 0,
        )
        record.write()
        if code != 0:
            failure = {"exit_code": code, "last_line": last_line(folder.log(job.name))}
            write_json(folder.failure_file(job.name), failure)
            ended = f"failed with exit code {code}" if code > 0 else "failed"
            print(f"{job.name} {ended}: {folder.failure(job.name)}", file=sys.stderr)
            # A command that a signal ended has a negative code, in a shell one from 128 on; this process ended by
            # itself.
            return code if 0 < code < 128 else 1
        write_json(folder.marker(job.name), record.marker())
    return 0


def _names_in(variable: str) -> list[str]:
    """The names in an environment variable of the engine; none where it is empty or not set."""
    return [name for name in os.environ.get(variable, "").split(",") if name]


def _environment(folder: Path, job: Job) -> dict[str, str]:
    paths = {variable: folder / variable for variable in PATH_VARIABLES} | {"nnUNet_results": folder / job.results}
    for path in paths.values():
        path.mkdir(parents=True, exist_ok=True)
    environment = {variable: str(path) for variable, path in paths.items()}
    of_cpus = {
        # One core is left to the main process, which feeds the network.
        "nnUNet_n_proc_DA": max(1, job.cpus - 1),
        "nnUNet_def_n_proc": job.cpus,
        "OMP_NUM_THREADS": job.cpus,  # jobs side by side would else wait for each other's threads
    }
    for variable, n in of_cpus.items():
        # What the user has set holds, as in nnU-Net itself.
        if variable not in os.environ:
            environment[variable] = str(n)
    return environment


class _Record:
    """When every attempt at a job began and how long it took, kept while it runs, so that a kill loses little."""

    def __init__(self, folder: StudyFolder, job: Job, device: str) -> None:
        self.file, self.command, self.device = folder.attempts_file(job.name), list(job.command), device
        self.earlier = folder.all_attempts(job.name)
        self.n_earlier = len(self.earlier)
        self.begin, self.written = time.monotonic(), 0.0
        self.started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.parent = os.getppid()
        self.write()

    def every_second(self) -> None:
        # An orphan gets another parent: Snakemake is gone, so nobody would take note of how the job ends.
        if os.getppid() != self.parent:
            raise KeyboardInterrupt("the process that started this job is gone")
        if time.monotonic() - self.written > _SECONDS_BETWEEN_RECORDS:
            with suppress(OSError):  # a disk that is full for a moment ends no training
                self.write()

    def write(self) -> None:
        self.written = time.monotonic()
        # By the monotonic clock, which does not jump when the machine's time is set.
        seconds = round(self.written - self.begin, 1)
        self.attempt: Attempt = {
            "started": self.started,
            "seconds": seconds,
            "host": platform.node(),
            "device": self.device,
            "command": self.command,
        }
        write_json(self.file, [*self.earlier, self.attempt])

    def marker(self) -> Marker:
        """What the marker says when the job is done: of all attempts at this command."""
        attempts = of_last_command([*self.earlier, self.attempt])
        return {
            "command": self.command,
            "version": __version__,
            "started": self.started,
            "seconds": round(sum(attempt["seconds"] for attempt in attempts), 1),
            "host": self.attempt["host"],
            "device": self.device,
            "attempts": len(attempts),
        }


def _gpu_name(chosen: Sequence[str]) -> str:
    """What the driver calls the first of the chosen GPUs; of all, where the batch system chooses."""
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", *[f"--id={gpu}" for gpu in chosen[:1]]]
        # A driver that hangs must not keep the job from starting: the name is only for the record.
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown GPU"
    return (done.stdout.strip().splitlines() or ["unknown GPU"])[0]


def _wait_for(held: ExitStack, folder: Path) -> None:
    """Hold the lock of a folder; an attempt that was just killed may need a moment to end."""
    end = time.monotonic() + _SECONDS_FOR_LOCK
    while True:
        try:
            held.enter_context(locked(folder))
            return
        except InputError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


@contextmanager
def held_slots(folder: Path, kind: str, slots: Sequence[str], n: int) -> Iterator[list[str]]:
    """Hold ``n`` of these slots (all, if there are fewer), which no other job of the study then has; wait for them.

    Snakemake up to 9.15 counts the cores and GPUs of a job that was the only one ready as free while it runs.

    Args:
        folder: of the study.
        kind: "core" or "gpu".
        slots: names of all there are.
        n: how many are needed.
    """
    n, parent = min(n, len(slots)), os.getppid()
    while True:
        with ExitStack() as held:
            chosen: list[str] = []
            for slot in slots:
                place = folder / "attempts" / "slots" / f"{kind}-{slot}"
                place.mkdir(parents=True, exist_ok=True)
                # Locks of slots are freed by the system when a job is killed, so none stays taken.
                if len(chosen) < n:
                    with suppress(InputError):
                        held.enter_context(locked(place))
                        chosen.append(slot)
            # All or none: two jobs that each hold a part of what both need would wait for ever.
            if len(chosen) == n:
                yield chosen
                return
        if os.getppid() != parent:
            raise KeyboardInterrupt("the process that started this job is gone")
        time.sleep(1)


if __name__ == "__main__":
    raise SystemExit(main())
