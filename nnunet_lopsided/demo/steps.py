"""Running public commands, each once, with its output in a log file; some of them side by side."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
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


@dataclass(frozen=True)
class Spent:
    """What a step took.

    Attributes:
        seconds: by the clock.
        cpu_seconds: of its process and all that this started; 0 where the system does not tell.
    """

    seconds: float
    cpu_seconds: float


class _Stopped(Exception):
    """Another lane has failed, or the user has stopped the run."""


class StepRunner:
    """Runs steps; one that ended well in an earlier run with the same command is not repeated."""

    def __init__(self, logs: Path, environment: Mapping[str, str], n_steps: int) -> None:
        """Begin.

        Args:
            logs: gets ``NAME.log`` and, for a finished step, ``NAME.json`` with its wall time and CPU time.
            environment: variables set for all steps.
            n_steps: how many there will be, for the progress bar.
        """
        logs.mkdir(exist_ok=True)
        self.spent: dict[str, Spent] = {}
        self._logs, self._environment = logs, dict(environment)
        self._bar = progress_bar(total=n_steps, unit="step", bar_format="{n}/{total} |{bar:20}| {elapsed} {desc}")
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._at_work: dict[str, str] = {}
        self._accounted = _cpu_seconds_of_children()

    @contextmanager
    def closing(self) -> Iterator[StepRunner]:
        """Inside, the progress is shown."""
        try:
            yield self
        finally:
            self._bar.close()

    def run(self, steps: Iterable[Step]) -> None:
        """Run steps in order; a step may be made once the steps before it are done.

        Raises:
            InputError: a step failed; the message names its log and the last line in it.
        """
        for step in steps:
            self._once(step)

    def run_lanes(self, lanes: Sequence[Iterable[Step]], at_once: int) -> None:
        """Run lanes of steps, ``at_once`` of them side by side; the steps of a lane one after the other.

        Raises:
            InputError: a step failed. The steps beside it are ended, and no other is begun.
        """
        if at_once == 1:
            for lane in lanes:
                self.run(lane)
            return
        # Threads that live until all is done: a command ends with the thread that has started it.
        with ThreadPoolExecutor(at_once) as pool:
            running: list[Future[None]] = [pool.submit(self._lane, lane) for lane in lanes]
            try:
                wait(running, return_when=FIRST_EXCEPTION)
                failed = [f for f in running if f.done() and not f.cancelled() and f.exception() is not None]
            except BaseException:  # Ctrl-C: the lanes would go on to their ends
                self._end(pool)
                raise
            if failed:
                self._end(pool)
                # The others were stopped because of the first one, and say nothing else.
                reasons = [e for f in failed if (e := f.exception()) is not None]
                raise next((e for e in reasons if not isinstance(e, _Stopped)), reasons[0])

    def _lane(self, steps: Iterable[Step]) -> None:
        try:
            self.run(steps)
        except BaseException:
            # Here, not where it is waited for: this thread would begin the next lane meanwhile.
            self._stop.set()
            raise

    def _end(self, pool: ThreadPoolExecutor) -> None:
        self._stop.set()
        pool.shutdown(wait=True, cancel_futures=True)

    def _once(self, step: Step) -> None:
        done = self._logs / f"{step.name}.json"
        earlier = read_json(done, {"command": [str], "seconds": float}) if done.is_file() else {}
        # With other settings a step of the same name is another one.
        if earlier.get("command") != list(step.command):
            if self._stop.is_set():
                raise _Stopped
            spent = self._run(step)
            earlier = {"command": list(step.command), **vars(spent)}
            write_json(done, earlier)
        with self._lock:
            self.spent[step.name] = Spent(float(earlier["seconds"]), float(earlier.get("cpu_seconds", 0.0)))
            self._bar.update()

    def _run(self, step: Step) -> Spent:
        log, started = self._logs / f"{step.name}.log", time.monotonic()

        def every_second() -> None:
            if self._stop.is_set():
                raise _Stopped
            epochs = _EPOCH.findall(log.read_bytes())
            # nnU-Net counts epochs from 0.
            self._show(step.name, f"{step.name} epoch {int(epochs[-1]) + 1}" if epochs else step.name)

        self._show(step.name, step.name)
        try:
            code = run_logged(step.command, log, {**self._environment, **dict(step.environment)}, every_second)
            cpu_seconds = self._newly_accounted()
        finally:
            self._show(step.name, None)
        if code != 0:
            why = why_it_failed(code, last_line(log), "end other programs, or use a machine with more of it")
            ended = f"failed with exit code {code}" if code > 0 else "failed"
            raise InputError(f"step {step.name} {ended}: {why} (see {log})")
        return Spent(round(time.monotonic() - started, 1), round(cpu_seconds, 1))

    def _newly_accounted(self) -> float:
        """CPU seconds that the system has booked since the last step ended: it books a process when it has ended.

        So these are of the step that has just ended, whatever runs beside it; two that end at the same moment count as
        one.
        """
        with self._lock:
            before, self._accounted = self._accounted, _cpu_seconds_of_children()
            return self._accounted - before

    def _show(self, name: str, text: str | None) -> None:
        with self._lock:
            if text is None:
                self._at_work.pop(name, None)
            else:
                self._at_work[name] = text
            self._bar.set_description_str(", ".join(self._at_work.values()))


def _cpu_seconds_of_children() -> float:
    """Of all processes that this one and its children started and that ended; 0 where the system does not tell."""
    times = os.times()
    return times.children_user + times.children_system
