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
    inherited = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
    return subprocess.run(
        [Path(sys.executable).parent / name, *arguments],
        cwd=cwd,
        env=inherited | {"nnUNet_def_n_proc": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def run(command: str, cwd: Path, **environment: str) -> str:
    """Output of a command that must succeed; arguments as of :func:`call`."""
    done = call(command, cwd, **environment)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
