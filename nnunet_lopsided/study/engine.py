"""Calling Snakemake: it is never imported, so a study can be planned, looked at and reported without it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.progress import progress_bar
from nnunet_lopsided.running import WITH_PARENT, end_with_children, last_line
from nnunet_lopsided.study.folder import StudyFolder
from nnunet_lopsided.study.job_runner import CORES_VARIABLE, GPUS_VARIABLE

_HERE = Path(__file__).parent


def check_engine(profile: str | None = None) -> None:
    """Raise :class:`InputError` unless Snakemake, and for a SLURM profile its plugin, are installed."""
    missing = ["snakemake"] if find_spec("snakemake") is None else []
    if profile == "slurm" and find_spec("snakemake_executor_plugin_slurm") is None:
        missing.append("snakemake-executor-plugin-slurm")
    if missing:
        raise InputError(
            f"{' and '.join(missing)} not installed: pip install 'nnunet-lopsided[study]' (Python 3.11 or newer)"
        )


def profile_folder(profile: str) -> Path:
    """The folder of a profile: ``slurm`` is ours, anything else a folder of the user's.

    Raises:
        InputError: there is none.
    """
    shipped = _HERE / "profiles" / profile
    folder = shipped if shipped.is_dir() else Path(profile).expanduser().resolve()
    if not (folder / "config.yaml").is_file():
        raise InputError(f"--profile must be slurm or a folder with config.yaml, got {profile}")
    return folder


def command_line(
    folder: StudyFolder, *, cores: int, gpus: int, profile: str | None = None, further: Sequence[str] = ()
) -> list[str]:
    """The call of Snakemake that runs a study."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(_HERE / "Snakefile")]
    # A failed job stops only what needs it, and jobs that a kill cut off are run again. Our own lock of the folder is
    # held by now; Snakemake's would outlive a kill and ask for --unlock.
    command += ["--directory", str(folder.path.resolve()), "--keep-going", "--rerun-incomplete", "--nolock"]
    # Markers say what is done; a change of a job's command removes its marker.
    # The default scheduler solves an integer programme to pack jobs well, which jobs of hours do not need.
    command += ["--rerun-triggers", "mtime", "--scheduler", "greedy"]
    if profile is None:
        command += ["--cores", str(cores), "--resources", f"gpu={gpus}"]
    else:
        command += ["--profile", str(profile_folder(profile))]
    return [*command, *further]


def chosen_gpus(n: int, visible: str | None) -> list[str]:
    """The ``n`` GPUs that jobs are dealt out to: the first of those that the user has left visible, or else of all.

    Args:
        n: how many.
        visible: the value of CUDA_VISIBLE_DEVICES; None: it is not set.

    Raises:
        InputError: fewer are visible.

    Example:
        >>> chosen_gpus(2, "2,3"), chosen_gpus(2, None), chosen_gpus(1, "GPU-7f3a, 0")
        (['2', '3'], ['0', '1'], ['GPU-7f3a'])
    """
    if visible is None:
        return [str(i) for i in range(n)]
    # As CUDA does: the first name that is no GPU, such as -1, hides all names after it too.
    names = [name.strip() for name in visible.split(",")]
    left = list(takewhile(lambda name: name and not name.startswith("-"), names))
    if n > len(left):
        raise InputError(f"--gpus must be at most {len(left)}, as CUDA_VISIBLE_DEVICES is '{visible}', got {n}")
    return left[:n]


def run_engine(folder: StudyFolder, command: Sequence[str], n_cores: int = 0, gpus: Sequence[str] = ()) -> int:
    """Run Snakemake to its end, with a bar of finished jobs; its own output goes to ``logs/snakemake.log``.

    Args:
        folder: of the study; the lock of it is held by the caller.
        command: of :func:`command_line`.
        n_cores: those of this machine that jobs share; 0: a batch system decides.
        gpus: those that jobs are dealt out to; empty: all jobs see all.

    Returns:
        Snakemake's exit code.

    Raises:
        InputError: Snakemake stopped before any job did.
    """
    log = folder.path / "logs" / "snakemake.log"
    log.parent.mkdir(exist_ok=True)
    # Unbuffered, so that the log tells what goes on while it does.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", CORES_VARIABLE: ",".join(map(str, range(n_cores)))}
    environment[GPUS_VARIABLE] = ",".join(gpus)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            preexec_fn=WITH_PARENT,
        )
        try:
            _watch(folder, process)
        except BaseException:
            end_with_children(process)
            raise
    # A failed job is no error of Snakemake: the caller names it, and its log.
    states = folder.states(folder.jobs()).values()
    if process.returncode != 0 and "failed" not in states:
        raise InputError(f"Snakemake ended with exit code {process.returncode}: {last_line(log)} (see {log})")
    return process.returncode


def _watch(folder: StudyFolder, process: subprocess.Popen[bytes]) -> None:
    jobs = folder.jobs()
    with progress_bar(total=len(jobs), unit="job", bar_format="{n}/{total} |{bar:20}| {elapsed}{postfix}") as bar:
        while True:
            ended = process.poll() is not None
            states = folder.states(jobs)
            running = [name for name, state in states.items() if state == "running"]
            failed = sum(state == "failed" for state in states.values())
            bar.n = sum(state == "done" for state in states.values())
            shown = [f"{failed} failed"] if failed else []
            bar.set_postfix_str(", ".join([*shown, *running[:2], *(["..."] if running[2:] else [])]))
            if ended:
                return
            # Jobs take from seconds to days; on a network file system every look at all markers costs something.
            time.sleep(2)
