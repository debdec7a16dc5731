"""How long a demo will take, from the speed that this machine has now."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nnunet_lopsided.demo.settings import DemoSettings

# CPU seconds of a demo on procedural brains, of all but the trainings and of these per iteration, and of one transform
# below: by one run on a machine that did nothing else (docs/results/speed.md).
_FIXED, _PER_ITERATION, _TRANSFORM = 149.0, 1.37, 0.00185
_ARMS = 3
_USED_CORES = 2  # what nnU-Net makes use of with a network so small
_WAITING = 1.25  # a second core waits while programs start and files are written
_PROBE_SECONDS = 0.6


def expected_time(settings: DemoSettings) -> list[str]:
    """Lines that say how long the demo will take, or why that is not known."""
    if settings.data is not None or settings.device != "cpu":
        return ["the time depends on your images and this machine; the first epoch of the first training shows it"]
    cores = _cores()
    n_used = min(cores, _USED_CORES)
    seconds = expected_seconds(settings, transforms_per_second(n_used))
    return [
        f"about {max(1, round(seconds / 60))} min on {n_used} of {cores} cores, as fast as they are now "
        f"(measured for {_PROBE_SECONDS:g} s; other programs make it longer)"
    ]


def expected_seconds(settings: DemoSettings, transforms_per_second: float) -> float:
    """Wall seconds of a demo on procedural brains.

    Args:
        settings: of the demo; its epochs and iterations count.
        transforms_per_second: of :func:`transforms_per_second`, by as many cores as the demo uses.

    Example:
        >>> from nnunet_lopsided.demo.settings import DemoSettings
        >>> slow, fast = (expected_seconds(DemoSettings(), speed) for speed in (100, 200))
        >>> slow == 2 * fast
        True
    """
    cpu_seconds = _FIXED + _ARMS * settings.epochs * settings.iterations * _PER_ITERATION
    return _WAITING * cpu_seconds / _TRANSFORM / transforms_per_second


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


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
