"""Running public commands one after the other, each once, with its output in a log file."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.progress import progress_bar
from nnunet_lopsided.running import last_line, run_logged, why_it_failed

_EPOCH = re.compile(rb"Epoch (\d+)")


@dataclass(frozen=True)
class Step:
    """One call of a public command.

    Attributes:
        name: unique, names the log file.
        command: program and arguments.
        environment: variables set for this step only.
    """

    name: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


def run_steps(steps: Iterable[Step], n_steps: int, logs: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Run the steps in order; a step that ended well in an earlier run with the same command is not repeated.

    Args:
        steps: what to run; a step may be made once the steps before it are done.
        n_steps: how many there will be, for the progress bar.
        logs: gets ``NAME.log`` and, for a finished step, ``NAME.json`` with its wall time and CPU time.
        environment: variables set for all steps.

    Returns:
        Wall time in seconds by step name.

    Raises:
        InputError: a step failed; the message names its log and the last line in it.
    """
    logs.mkdir(exist_ok=True)
    seconds = {}
    with progress_bar(total=n_steps, unit="step", bar_format="{n}/{total} |{bar:20}| {elapsed} {desc}{postfix}") as bar:
        for step in steps:
            bar.set_description_str(step.name)
            bar.set_postfix_str("")
            done = logs / f"{step.name}.json"
            earlier = read_json(done, {"command": [str], "seconds": float}) if done.is_file() else {}
            # With other settings a step of the same name is another one.
            if earlier.get("command") != list(step.command):
                started, cpu = time.monotonic(), _cpu_seconds_of_children()
                _run(step, logs / f"{step.name}.log", environment, bar.set_postfix_str)
                earlier = {
                    "command": list(step.command),
                    "seconds": round(time.monotonic() - started, 1),
                    "cpu_seconds": round(_cpu_seconds_of_children() - cpu, 1),
                }
                write_json(done, earlier)
            seconds[step.name] = float(earlier["seconds"])
            bar.update()
    return seconds


def _run(step: Step, log: Path, environment: Mapping[str, str], show: Callable[[str], None]) -> None:
    def show_epoch() -> None:
        epochs = _EPOCH.findall(log.read_bytes())
        # nnU-Net counts epochs from 0.
        show(f"epoch {int(epochs[-1]) + 1}" if epochs else "")

    code = run_logged(step.command, log, {**environment, **dict(step.environment)}, show_epoch)
    if code != 0:
        why = why_it_failed(code, last_line(log), "end other programs, or use a machine with more of it")
        ended = f"failed with exit code {code}" if code > 0 else "failed"
        raise InputError(f"step {step.name} {ended}: {why} (see {log})")


def _cpu_seconds_of_children() -> float:
    """Of all processes that this one and its children started and that ended; 0 where the system does not tell."""
    times = os.times()
    return times.children_user + times.children_system
