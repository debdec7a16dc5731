"""The console commands of the tests' environment, ours and nnU-Net's, as a user calls them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# What a test of trainers sets for itself, and a user does not.
_NOT_INHERITED = ("nnUNet_extTrainer", "nnUNet_n_proc_DA")


def call(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command that may fail, with its output; a word of it must hold no space.

    Args:
        command: program of the environment's bin folder, and its arguments.
        cwd: where it runs.
        environment: variables to set.
    """
    name, *arguments = command.split()
    return _call([str(Path(sys.executable).parent / name), *arguments], cwd, environment)


def _call(command: list[str], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
    return subprocess.run(
        command,
        cwd=cwd,
        env=inherited | {"nnUNet_def_n_proc": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# Validation would start two more processes that import torch.
_TRAIN = """
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
nnUNetTrainer.perform_actual_validation = lambda self, save_probabilities=False: None
run_training_entry()
"""


def train(arguments: str, cwd: Path, **environment: str) -> None:
    """``nnUNetv2_train`` on the CPU up to its final checkpoint, for tests that need no validation.

    Args:
        arguments: those of the command.
        cwd: where it runs.
        environment: variables to set.
    """
    done = _call([sys.executable, "-c", _TRAIN, *arguments.split(), "-device", "cpu"], cwd, environment)
    assert done.returncode == 0, f"nnUNetv2_train {arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def run(command: str, cwd: Path, **environment: str) -> str:
    """Output of a command that must succeed; arguments as of :func:`call`."""
    done = call(command, cwd, **environment)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
