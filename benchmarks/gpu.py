"""Everything worth knowing of this package on a GPU, in one command with a time budget.

    python benchmarks/gpu.py --minutes 9 --out gpu.json      # on a machine with a CUDA device
    python benchmarks/gpu.py --rehearse --out rehearsal.json # every part on the CPU with tiny sizes, under 3 minutes

Parts run in order of value, each in a process of its own. Every number is in the JSON file as soon as it is known;
a part that would not fit into what is left of the time is skipped, one that fails or hangs is recorded and the next
one starts. What the numbers mean and what they should be: benchmarks/gpu.md.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import gpu_parts_kernels
import gpu_parts_prediction
import gpu_parts_study
import gpu_parts_training
from gpu_running import RESERVE_S, Number, Part, Record, Report, Settings, StartMethod, interrupt, run_part

REPOSITORY = Path(__file__).resolve().parents[1]
NOT_MEASURED = "not measured on a GPU: a rehearsal on the CPU with tiny sizes, whose numbers mean nothing"
REHEARSAL_LIMIT_S = 300.0  # of a part; on a machine that is busy otherwise a rehearsal takes longer than 3 minutes
PACKAGES = ("torch", "nnunetv2", "nnunet-lopsided", "triton", "numpy", "segmentation-models-pytorch")


def look_at_device(settings: Settings, report: Report) -> None:
    """What PyTorch sees; in a process of its own, as whoever starts the others must not touch the GPU."""
    import torch

    if settings.device == "cpu":
        report("device", f"cpu, {torch.get_num_threads()} threads")
        return
    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no CUDA device")
    properties = torch.cuda.get_device_properties(0)
    report("device", properties.name)
    report("memory_gib", round(properties.total_memory / 2**30, 1))
    report("compute_capability", f"{properties.major}.{properties.minor}")
    report("cuda", str(torch.version.cuda))
    report("cudnn", str(torch.backends.cudnn.version()))  # type: ignore[no-untyped-call]
    torch.ones(8, device="cuda").sum().item()


DEVICE = Part(
    name="device", measures="whether the GPU answers, and which it is", work=look_at_device, estimate_s=5, limit_s=60
)
PARTS = (
    *gpu_parts_kernels.TESTS_AND_LOSSES,
    *gpu_parts_training.DATA_AND_TRAINING,
    *gpu_parts_prediction.PREDICTION,
    *gpu_parts_kernels.MEMORY,
    *gpu_parts_training.FURTHER_TRAINING,
    *gpu_parts_prediction.AUDIT,
    *gpu_parts_study.STUDY,
)


def machine() -> dict[str, Number]:
    """Which machine and which versions; without importing PyTorch."""
    found: dict[str, Number] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "commit": _output(["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"])
        or os.environ.get("LOPSIDED_COMMIT")
        or "unknown: no git here and LOPSIDED_COMMIT is not set",
        "sources_sha256": _digest_of_sources(),
        "card_driver": _output(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]),
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _output(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted((REPOSITORY / "nnunet_lopsided").rglob("*.py")):
        digest.update(path.relative_to(REPOSITORY).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def chosen_parts(names: Sequence[str] | None) -> list[Part]:
    """Parts by name, in their own order, with those that they need.

    Raises:
        ValueError: a name is unknown.
    """
    known = {part.name: part for part in PARTS}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"--only must be some of {', '.join(known)}, got {' '.join(unknown)}")
    wanted = set(names or known)
    for name in tuple(wanted):
        wanted.update(known[name].needs)
    return [part for part in PARTS if part.name in wanted]


def prepare_environment(scratch: Path, device: str) -> None:
    """What nnU-Net and PyTorch read from the environment, before anything of theirs is imported."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (scratch / name).mkdir()
        os.environ[name] = str(scratch / name)
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # a question for a GPU does not spoil later forks
    os.environ["LOPSIDED_TEST_DEVICE"] = device
    if device == "cpu":
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("nnUNet_def_n_proc", "1")


def import_what_parts_need() -> None:
    """Once, for all parts that are forked: seconds each otherwise."""
    for module in (
        "nnunetv2.run.run_training",
        "nnunetv2.experiment_planning.plan_and_preprocess_api",
        "torch._dynamo",
        "nnunet_lopsided.trainers",
    ):
        importlib.import_module(module)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; 0: all done or skipped, 1: one failed or timed out, 2: wrong arguments, 130: interrupted."""
    arguments = _parser().parse_args(argv)
    out: Path = arguments.out
    try:
        if not arguments.minutes > 0:
            raise ValueError(f"--minutes must be above 0, got {arguments.minutes:g}")
        parts = chosen_parts(arguments.only)
        if out.exists() and not arguments.overwrite:
            raise ValueError(f"--out {out} is there already; --overwrite replaces it")
        if out.is_dir():
            raise ValueError(f"--out {out} is a folder, expected the name of a JSON file")
        out.parent.mkdir(parents=True, exist_ok=True)
        log = out.with_suffix(".log")
        log.write_bytes(b"")
    except (ValueError, OSError) as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    scratch = Path(tempfile.mkdtemp(prefix="lopsided-gpu-", dir=arguments.scratch))
    try:
        return _run(arguments, parts, out, log, scratch)
    except KeyboardInterrupt:
        print(f"gpu.py: stopped; {out} holds what was measured", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(arguments: argparse.Namespace, parts: Sequence[Part], out: Path, log: Path, scratch: Path) -> int:
    start = time.monotonic()
    end = start + 60 * arguments.minutes
    device = "cpu" if arguments.rehearse else "cuda"
    prepare_environment(scratch, device)
    content: dict[str, Number] = {
        "command": "benchmarks/gpu.py",
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "minutes": arguments.minutes,
        "rehearsal": arguments.rehearse,
        "measured_on_gpu": False,
        "note": NOT_MEASURED if arguments.rehearse else "",
        "machine": machine(),
    }
    record = Record(out, content)
    record.save()
    n_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def settings(seconds: float) -> Settings:
        return Settings(
            device=device, rehearsal=arguments.rehearse, scratch=scratch, n_cpus=max(1, n_cpus), seconds=seconds
        )

    import_what_parts_need()
    method: StartMethod = "fork"
    if run_part(DEVICE, settings(DEVICE.limit_s), record, log, method, end) != "done":
        method = "spawn"  # a library has touched the GPU while it was imported
        if run_part(DEVICE, settings(DEVICE.limit_s), record, log, method, end) != "done":
            print(f"gpu.py: no CUDA device answers ({log} says why); --rehearse needs none", file=sys.stderr)
            return 2
    content["measured_on_gpu"] = device == "cuda"
    content["start_method"] = method
    states: dict[str, str] = {}
    for part in parts:
        left = end - time.monotonic() - RESERVE_S
        lacking = [name for name in part.needs if states.get(name) != "done"]
        # A rehearsal is not skipped for what a GPU would take.
        needed = 1.0 if arguments.rehearse else part.estimate_s
        if lacking or needed > left:
            why = (
                f"needs part {', '.join(lacking)}" if lacking else f"needs about {needed:.0f} s, {left:.0f} s are left"
            )
            states[part.name] = "skipped"
            record.update(part.name, state="skipped", measures=part.measures, message=why)
            print(f"{part.name}: skipped, {why}", flush=True)
            continue
        limit = min(left, REHEARSAL_LIMIT_S if arguments.rehearse else part.limit_s)
        states[part.name] = run_part(part, settings(limit), record, log, method, end)
    content["seconds"] = round(time.monotonic() - start, 1)
    record.save()
    counted = ", ".join(f"{list(states.values()).count(s)} {s}" for s in dict.fromkeys(states.values()))
    note = f" ({NOT_MEASURED})" if arguments.rehearse else ""
    print(f"{out}: {counted} in {content['seconds']} s{note}")
    return 1 if {"failed", "timed out"} & set(states.values()) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9, help="of the whole run (default: %(default)g)")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="PART",
        help=f"these and what they need: {', '.join(part.name for part in PARTS)} (default: all, in this order)",
    )
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny sizes")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("gpu.json"),
        metavar="FILE",
        help="JSON; FILE.log beside it (default: gpu.json)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="for datasets (default: the system's)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
