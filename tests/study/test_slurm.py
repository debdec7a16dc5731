"""The same study on SLURM, with the shipped profile and stand-ins for the commands; a single node will do.

``tests/study/single_node_slurm.sh up`` starts one; see docs/how-to/run-a-study.md.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from nnunet_lopsided.study.folder import StudyFolder
from tests.study.conftest import StandIns, calls
from tests.study.test_engine import STUDY


def cluster_is_up() -> bool:
    return shutil.which("sbatch") is not None and (
        subprocess.run(["sinfo", "--noheader"], capture_output=True, check=False).returncode == 0
    )


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(find_spec("snakemake_executor_plugin_slurm") is None, reason="needs the extra: study"),
    pytest.mark.skipif(not cluster_is_up(), reason="needs a SLURM cluster"),
]


def test_a_study_on_slurm(stand_ins: StandIns, tmp_path: Path, raw_dataset_folder: Callable[..., Path]) -> None:
    text = STUDY.replace("DATA", str(raw_dataset_folder())).replace("{cpus: 1}", "{cpus: 1, memory_gb: 0.5}")
    (tmp_path / "study.yaml").write_text(text)
    folder = tmp_path / "out"
    quick = ("--slurm-init-seconds-before-status-checks", "3", "--seconds-between-status-checks", "5")
    process = stand_ins.study(
        "run",
        "study.yaml",
        "-o",
        str(folder),
        "--profile",
        "slurm",
        "--",
        "--retries",
        "0",
        *quick,
        cwd=tmp_path,
        BREAK="nnUNetTrainer_5epochs",
    )
    out, _ = process.communicate(timeout=480)
    assert process.returncode == 1, out
    jobs = StudyFolder(folder).jobs()
    states = StudyFolder(folder).states(jobs)
    broken = "train/mets-size50-s0-2d-other-r1-f0"
    assert {name for name, state in states.items() if state == "failed"} == {broken}
    assert sum(state == "done" for state in states.values()) == len(jobs) - 3
    assert f"failed: {broken}: RuntimeError: CUDA out of memory" in out
    assert "has been submitted with SLURM jobid" in (folder / "logs" / "snakemake.log").read_text()
    began = [c for c in calls(folder) if "first_epoch" in c]
    assert len(began) == 3
