"""How many threads a training on a CPU takes."""

from __future__ import annotations

import os

import torch


def keep_to_omp_num_threads() -> None:
    """Take back what nnU-Net's commands do on a CPU: a thread per core, whatever ``OMP_NUM_THREADS`` says.

    Several trainings on one machine would wait for each other's threads in oneDNN, seven to ten times as long.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isascii() and wanted.isdecimal() and int(wanted):
        torch.set_num_threads(int(wanted))
