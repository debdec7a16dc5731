"""What the start-up line of nnunet-lopsided costs, and what the commands need before they do anything.

    python benchmarks/startup.py [--starts 100] [--command-starts 3]

All in fresh interpreters. The line is timed where it runs: a copy of the installed .pth file, between two that take the
time, is processed by ``site.addsitedir`` in an interpreter that has imported nothing of ours. A command is timed by its
``--help`` and by the import of its module. These are CPU seconds, the least of some starts, without those of an
interpreter that imports nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_REPOSITORY = Path(__file__).parents[1]
_PTH = _REPOSITORY / "nnunet_lopsided.pth"
_PROGRAM = """
import site, sys, time
site.addsitedir(sys.argv[1])
print((sys.lopsided_end - sys.lopsided_start) * 1000, sum("nnunet_lopsided" in name for name in sys.modules))
"""


def main() -> None:
    """Print the median and the largest of the line, and a line for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=100, help="of an interpreter with the line")
    parser.add_argument("--command-starts", type=int, default=3, help="of each command; 0: the line alone")
    arguments = parser.parse_args()
    time_line(arguments.starts)
    if arguments.command_starts:
        time_commands(arguments.command_starts)


def time_line(n_starts: int) -> None:
    # Without our folder in the variable the line has to find and append it, the dearest case.
    environment = {key: value for key, value in os.environ.items() if key != "nnUNet_extTrainer"}
    environment["NNUNET_LOPSIDED_NO_HOOK"] = ""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.pth").write_text("import sys, time; sys.lopsided_start = time.perf_counter()\n")
        Path(folder, "b.pth").write_text(_PTH.read_text())
        Path(folder, "c.pth").write_text("import sys, time; sys.lopsided_end = time.perf_counter()\n")
        times = []
        for _ in range(n_starts):
            command = [sys.executable, "-c", _PROGRAM, folder]
            output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
            milliseconds, n_imported = output.split()
            assert n_imported == "0", "the line imported the package"
            times.append(float(milliseconds))
    times.sort()
    slow = times[int(0.95 * n_starts)]
    print(f"start-up line: median {statistics.median(times):.3f} ms, 95th percentile {slow:.3f} ms")
    print(f"of {n_starts} starts of Python {sys.version.split()[0]}")


def time_commands(n_starts: int) -> None:
    bare = least_cpu_seconds("pass", n_starts)
    print(f"\nPython alone {bare:.2f} s\n{'command':<12}{'--help':>8}{'import':>8}  heavy imports")
    for path in sorted((_REPOSITORY / "nnunet_lopsided" / "commands").glob("[a-z]*.py")):
        if "def main(" not in path.read_text(encoding="utf-8"):
            continue  # a part of a command
        module = f"nnunet_lopsided.commands.{path.stem}"
        helped = least_cpu_seconds(f"import sys; from {module} import main; main(['--help'])", n_starts)
        imported = least_cpu_seconds(f"import {module}", n_starts)
        heavy = "[m for m in ('numpy', 'scipy', 'SimpleITK', 'matplotlib', 'torch', 'nnunetv2') if m in sys.modules]"
        program = f"import sys, {module}; print(*{heavy})"
        names = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        print(f"{path.stem:<12}{helped - bare:>8.2f}{imported - bare:>8.2f}  {names.strip()}")


def least_cpu_seconds(program: str, n_starts: int) -> float:
    """Of an interpreter that runs a program."""
    seconds = []
    for _ in range(n_starts):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


if __name__ == "__main__":
    main()
