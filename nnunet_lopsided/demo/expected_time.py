"""How long a demo will take, from the speed that this machine has now."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np

from nnunet_lopsided.demo.settings import DemoSettings

# CPU seconds of a demo on procedural brains, by one run on cores that did nothing else (docs/results/speed.md): of
# steps that run alone, of those that run beside others (of every training, with its prediction and evaluation, all but
# its iterations, and of the rest), of an iteration; and of one transform below.
_ALONE, _PER_TRAINING, _REST = 34.0, 59.0, 40.0
_PER_ITERATION, _TRANSFORM = 0.075, 0.000108
_TRAININGS = 5
_LANES = 2  # trainings side by side: more would need more memory than a laptop has
_WAITING = 1.1  # cores wait while programs start and files are written
_PROBE_SECONDS = 0.6
_IDLE = 0.85  # from this share on, what else runs is not worth a word


@dataclass(frozen=True)
class Speed:
    """What the cores of this machine do now.

    Attributes:
        transform_seconds: CPU time of a Fourier transform of 2^14 numbers, on a core that does nothing else.
        share: of the cores, which other programs leave; within (0, 1].
    """

    transform_seconds: float
    share: float


def expected_time(settings: DemoSettings) -> list[str]:
    """Lines that say how long the demo will take, or why that is not known."""
    if settings.data is not None or settings.device != "cpu":
        return ["the time depends on your images and this machine; the first epoch of the first training shows it"]
    cores, lanes = n_cores(), n_lanes(settings)
    speed = measured_speed(lanes)
    seconds = expected_seconds(settings, speed.transform_seconds, lanes)
    line = f"about {_minutes(seconds)} min on {lanes} of {cores} cores that do nothing else"
    if speed.share < _IDLE:
        minutes = _minutes(seconds / speed.share)
        line += f"; other programs leave {speed.share:.0%} of them now, which makes it about {minutes}"
    return [line]


def _minutes(seconds: float) -> int:
    return max(1, round(seconds / 60))


def expected_seconds(settings: DemoSettings, transform_seconds: float, lanes: int) -> float:
    """Wall seconds of a demo on procedural brains, on cores that do nothing else.

    Args:
        settings: of the demo; its epochs and iterations count.
        transform_seconds: of :func:`measured_speed`.
        lanes: of :func:`n_lanes`.

    Example:
        >>> from nnunet_lopsided.demo.settings import DemoSettings
        >>> slow, fast = (expected_seconds(DemoSettings(), speed, 2) for speed in (0.004, 0.002))
        >>> slow == 2 * fast
        True
    """
    beside = _TRAININGS * (_PER_TRAINING + settings.epochs * settings.iterations * _PER_ITERATION) + _REST
    return _WAITING * (_ALONE + beside / lanes) * transform_seconds / _TRANSFORM


def n_lanes(settings: DemoSettings) -> int:
    """How many trainings run side by side: two where there are two cores; on a GPU one, whose memory it may need."""
    return min(n_cores(), _LANES) if settings.device == "cpu" else 1


def measured_speed(n_threads: int) -> Speed:
    """How fast so many threads work side by side: by their CPU time, and by the clock."""
    values = np.random.default_rng(0).random(1 << 14)

    def work(end: float) -> list[float]:
        each: list[float] = []
        while not each or time.perf_counter() < end:
            before = time.thread_time()
            np.fft.rfft(values)
            each.append(time.thread_time() - before)
        return each

    start, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(n_threads) as pool:
        each = list(chain.from_iterable(pool.map(work, [start + _PROBE_SECONDS] * n_threads)))
    cpu_seconds, wall_seconds = time.process_time() - cpu, time.perf_counter() - start
    # The fastest of many: the others have waited for memory that other programs were using.
    return Speed(max(min(each), 1e-6), min(1.0, max(cpu_seconds, 1e-3) / (wall_seconds * n_threads)))


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
