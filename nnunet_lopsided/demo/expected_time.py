"""How long a demo will take, from the speed that this machine has now."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nnunet_lopsided.demo.settings import DemoSettings

# CPU seconds of a demo on procedural brains (docs/results/speed.md): of steps that run alone, of those that run beside
# others (of every training all but its iterations, and of the rest), of an iteration; and of one transform below, in
# that run.
_ALONE, _PER_TRAINING, _REST = 30.0, 30.0, 30.0
_PER_ITERATION, _TRANSFORM = 0.1, 0.00185
_TRAININGS = 6
_LANES = 2  # trainings side by side: more would need more memory than a laptop has
_WAITING = 1.15  # cores wait while programs start and files are written
_PROBE_SECONDS = 0.6


def expected_time(settings: DemoSettings) -> list[str]:
    """Lines that say how long the demo will take, or why that is not known."""
    if settings.data is not None or settings.device != "cpu":
        return ["the time depends on your images and this machine; the first epoch of the first training shows it"]
    cores, lanes = n_cores(), n_lanes(settings)
    seconds = expected_seconds(settings, transforms_per_second(lanes), lanes)
    return [
        f"about {max(1, round(seconds / 60))} min on {lanes} of {cores} cores, as fast as they are now "
        f"(measured for {_PROBE_SECONDS:g} s; other programs make it longer)"
    ]


def expected_seconds(settings: DemoSettings, transforms_per_second: float, lanes: int) -> float:
    """Wall seconds of a demo on procedural brains.

    Args:
        settings: of the demo; its epochs and iterations count.
        transforms_per_second: of :func:`transforms_per_second`, by as many cores as there are lanes.
        lanes: of :func:`n_lanes`.

    Example:
        >>> from nnunet_lopsided.demo.settings import DemoSettings
        >>> slow, fast = (expected_seconds(DemoSettings(), speed, 2) for speed in (100, 200))
        >>> slow == 2 * fast
        True
    """
    beside = _TRAININGS * (_PER_TRAINING + settings.epochs * settings.iterations * _PER_ITERATION) + _REST
    cpu_seconds_in_turn = _ALONE + beside / lanes
    return _WAITING * cpu_seconds_in_turn / _TRANSFORM / (transforms_per_second / lanes)


def n_lanes(settings: DemoSettings) -> int:
    """How many trainings run side by side: two where there are two cores; on a GPU one, whose memory it may need."""
    return min(n_cores(), _LANES) if settings.device == "cpu" else 1


def transforms_per_second(n_threads: int) -> float:
    """How many Fourier transforms of 2^17 numbers this machine does in a second, in so many threads at once."""
    values = np.random.default_rng(0).random(1 << 17)

    def work(end: float) -> int:
        n = 0
        while time.perf_counter() < end:
            np.fft.rfft(values)
            n += 1
        return n

    start = time.perf_counter()
    with ThreadPoolExecutor(n_threads) as pool:
        n_done = sum(pool.map(work, [start + _PROBE_SECONDS] * n_threads))
    return n_done / (time.perf_counter() - start)


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
