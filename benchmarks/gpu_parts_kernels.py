"""Parts of benchmarks/gpu.py: the tests marked ``gpu``, time and memory of the losses, the planner's estimate."""

from __future__ import annotations

import os
import runpy
import statistics
import xml.etree.ElementTree as ET
from pathlib import Path

from gpu_running import Part, Report, Settings, aimed, rounded

REPOSITORY = Path(__file__).resolve().parents[1]
SHAPES = ((2, 2, 96, 96, 96), (2, 2, 128, 128, 128), (32, 2, 256, 256))
TINY_SHAPES = ((2, 2, 12, 12, 12),)


def tests(settings: Settings, report: Report) -> None:
    """The tests marked ``gpu``, in this process; on a CPU the same ones with ``LOPSIDED_TEST_DEVICE=cpu``."""
    import pytest

    files = [p for p in sorted((REPOSITORY / "tests").rglob("test_*.py")) if "@pytest.mark.gpu" in p.read_text()]
    # What a step allocates is the part `memory`, which gives numbers instead of a yes or no.
    files = [p for p in files if p.name != "test_memory.py"]
    if settings.rehearsal:
        files = [p for p in files if p.name == "test_on_a_gpu.py" and p.parent.name == "losses"]
    os.chdir(REPOSITORY)
    results = settings.scratch / "tests.xml"
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={results}"]
    code = pytest.main([*options, *map(str, files)])
    suite = next(ET.parse(results).getroot().iter("testsuite"))
    count = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    report("passed", count["tests"] - count["failures"] - count["errors"] - count["skipped"])
    report("skipped", count["skipped"])
    failed = {}
    for case in suite.iter("testcase"):
        for kind in ("failure", "error"):
            problem = case.find(kind)
            if problem is not None:
                message = next(iter((problem.get("message") or "").splitlines()), "")
                failed[f"{case.get('classname')}::{case.get('name')}"] = message[:300]
    report("failed", failed)
    if code != 0:
        raise RuntimeError(f"{len(failed)} of {count['tests']} tests failed, pytest ended with {int(code)}")


def losses(settings: Settings, report: Report) -> None:
    """Forward and backward of every loss in turns, against nnU-Net's Dice + CE and plain cross-entropy."""
    import time

    import torch
    from losses import NNUNET, PLAIN, RECIPE, compiled, contenders, peak_memory, time_passes

    device = torch.device(settings.device)
    repeats = 2 if settings.rehearsal else 20
    for shape in TINY_SHAPES if settings.rehearsal else SHAPES:
        name = "x".join(map(str, shape))
        logits, by_name = contenders(shape, device)
        by_name |= compiled(by_name, "inductor" if settings.device == "cuda" else "aot_eager")
        # A pass ends when the host has seen the GPU end it: the same few microseconds for all.
        seconds = time_passes(logits, by_name, repeats, time.perf_counter)
        median = {loss: statistics.median(times) for loss, times in seconds.items()}
        memory = {loss: peak_memory(logits, run) for loss, run in by_name.items()}
        for loss in by_name:
            report(
                f"{name}: {loss}",
                {
                    "ms": rounded(1e3 * median[loss]),
                    "over_cross_entropy": rounded(median[loss] / median[PLAIN]),
                    "over_dice_and_ce": rounded(median[loss] / median[NNUNET]),
                    "memory_in_logits": rounded(memory[loss]),
                },
            )
        for kind in ("", ", compiled"):
            ratio = median[RECIPE + kind] / median[NNUNET]
            report(f"{name}: recipe{kind} over Dice + CE", aimed(ratio, at_most=0.6))
            above = memory[RECIPE + kind] - memory[PLAIN]
            report(f"{name}: recipe{kind}, logits-sized temporaries above CE", aimed(above, at_most=1))


def memory(settings: Settings, report: Report) -> None:
    """The planner's estimate over what PyTorch counts: 1 to 1.15 is right."""
    import torch

    from nnunet_lopsided.planning.memory import training_memory

    # By its path: `import tests` may find another package's.
    test = runpy.run_path(str(REPOSITORY / "tests" / "planning" / "test_memory.py"))
    device = torch.device(settings.device)
    for network, patch, batch_size in [(test["SMALL"], (32, 32), 2)] if settings.rehearsal else test["PLANS"]:
        measured = test["memory_of_training_steps"](network, patch, batch_size, device)
        estimated = training_memory(network, 4, 2, patch).of_batch(batch_size)
        name = f"{' '.join(map(str, network.values()))}, {patch[0]} x {patch[1]}, batch {batch_size}"
        report(f"{name}: measured MiB", rounded(measured / 2**20))
        report(f"{name}: estimate over measured", aimed(estimated / measured, at_least=1, at_most=1.15))


TESTS_AND_LOSSES = (
    Part(
        name="tests",
        measures="the tests marked gpu",
        work=tests,
        estimate_s=90,
        limit_s=180,
    ),
    Part(
        name="losses",
        measures="forward and backward of the losses, time and memory",
        work=losses,
        estimate_s=40,
        limit_s=120,
    ),
)
MEMORY = (
    Part(
        name="memory",
        measures="the 2.5D planner's estimate of memory against torch.cuda.max_memory_allocated",
        work=memory,
        estimate_s=30,
        limit_s=90,
    ),
)
