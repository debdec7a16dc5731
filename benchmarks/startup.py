"""What the start-up line of nnunet-lopsided costs, in fresh interpreters.

    python benchmarks/startup.py

The line is timed where it runs: a copy of the installed .pth file, between two that take the time, is processed by
``site.addsitedir`` in an interpreter that has imported nothing of ours.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_N_STARTS = 100
_PTH = Path(__file__).parent.parent / "nnunet_lopsided.pth"
_PROGRAM = """
import site, sys, time
site.addsitedir(sys.argv[1])
print((sys.lopsided_end - sys.lopsided_start) * 1000, sum("nnunet_lopsided" in name for name in sys.modules))
"""


def main() -> None:
    """Print the median and the largest."""
    # Without our folder in the variable the line has to find and append it, the dearest case.
    environment = {key: value for key, value in os.environ.items() if key != "nnUNet_extTrainer"}
    environment["NNUNET_LOPSIDED_NO_HOOK"] = ""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.pth").write_text("import sys, time; sys.lopsided_start = time.perf_counter()\n")
        Path(folder, "b.pth").write_text(_PTH.read_text())
        Path(folder, "c.pth").write_text("import sys, time; sys.lopsided_end = time.perf_counter()\n")
        times = []
        for _ in range(_N_STARTS):
            command = [sys.executable, "-c", _PROGRAM, folder]
            output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
            milliseconds, n_imported = output.split()
            assert n_imported == "0", "the line imported the package"
            times.append(float(milliseconds))
    times.sort()
    slow = times[int(0.95 * _N_STARTS)]
    print(f"start-up line: median {statistics.median(times):.3f} ms, 95th percentile {slow:.3f} ms")
    print(f"of {_N_STARTS} starts of Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
