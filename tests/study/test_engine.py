"""Whole studies through Snakemake, with stand-ins for the commands that jobs call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.study import engine
from nnunet_lopsided.study.folder import StudyFolder
from tests.study.conftest import StandIns, calls

needs_snakemake = pytest.mark.skipif(find_spec("snakemake") is None, reason="needs the extra: study")
# nnU-Net's own trainers: ours would have to be imported to be checked.
STUDY = """
name: small
datasets:
  - {name: mets, folder: DATA}
censoring: [none, {mode: size, rate: 0.5}]
configurations: [2d]
arms:
  - {name: plain, trainer: nnUNetTrainer}
  - {name: other, trainer: nnUNetTrainer_5epochs, censoring: [size50]}
device: cpu
resources: {cpus: 1}
"""


@pytest.fixture
def study_file(tmp_path: Path, raw_dataset_folder: Callable[..., Path]) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.replace("DATA", str(raw_dataset_folder())))
    return file


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=120)
    return process.returncode, out


def trained(folder: Path) -> list[tuple[str, int]]:
    """Trainings that were begun: result folder's trainer and dataset id, and the first epoch."""
    return [
        (f"{c['arguments'][0]} {c['arguments'][c['arguments'].index('-tr') + 1]}", c["first_epoch"])
        for c in calls(folder)
        if "first_epoch" in c
    ]


@needs_snakemake
def test_a_study_that_is_killed_goes_on_and_repeats_nothing(
    stand_ins: StandIns, study_file: Path, tmp_path: Path
) -> None:
    folder, run = tmp_path / "out", ("run", str(study_file), "-o", str(tmp_path / "out"), "--cores", "1")
    slow = {"EPOCHS": "4", "EPOCH_SECONDS": "1"}
    process = stand_ins.study(*run, cwd=tmp_path, **slow)
    end = time.monotonic() + 90
    while not any(c.get("epoch") == 1 for c in calls(folder)):
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < end, "no training reached its second epoch"
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = calls(folder)

    code, out = finished(stand_ins.study(*run, cwd=tmp_path, EPOCHS="4"))
    assert code == 0, out
    first_training = trained(folder)[0][0]
    again = [first for name, first in trained(folder) if name == first_training]
    n_before = sum("epoch" in c for c in before)
    # It went on from its checkpoint: at most the epoch that was under way is lost.
    assert len(again) == 2
    assert again[0] == 0
    assert n_before <= again[1] <= n_before + 1
    others = Counter(name for name, _ in trained(folder) if name != first_training)
    assert others == dict.fromkeys(others, 1)
    assert len(others) == 2
    rest = Counter(" ".join([c["name"], *c["arguments"]]) for c in calls(folder) if c["name"] != "nnUNetv2_train")
    assert set(rest.values()) == {1}, rest
    jobs = StudyFolder(folder).jobs()
    assert sum(rest.values()) + 3 == len(jobs)
    assert set(StudyFolder(folder).states(jobs).values()) == {"done"}
    attempts = json.loads(next((folder / "done" / "train").glob("*full*")).read_text())
    assert attempts["attempts"] == 2 if first_training.startswith("800") else 1

    n_calls = len(calls(folder))
    code, out = finished(stand_ins.study(*run, cwd=tmp_path))
    assert code == 0, out
    assert len(calls(folder)) == n_calls, "nothing that is done is done again"


@needs_snakemake
def test_a_failed_arm_stops_no_other_and_is_named(stand_ins: StandIns, study_file: Path, tmp_path: Path) -> None:
    folder, run = tmp_path / "out", ("run", str(study_file), "-o", str(tmp_path / "out"), "--cores", "1")
    code, out = finished(stand_ins.study(*run, cwd=tmp_path, BREAK="nnUNetTrainer_5epochs"))
    assert code == 1
    job = "train/mets-size50-s0-2d-other-r1-f0"
    log = folder / "logs" / f"{job}.log"
    assert f"failed: {job}: RuntimeError: CUDA out of memory (see {log})" in out
    assert "blocked by these: 2 jobs" in out
    states = StudyFolder(folder).states(StudyFolder(folder).jobs())
    assert Counter(states.values()) == {"done": len(states) - 3, "failed": 1, "blocked": 2}
    page = (folder / "report" / "index.html").read_text()
    assert f"<b>failed</b>: {job}: RuntimeError: CUDA out of memory" in page
    assert "2 jobs blocked by a failed job" in page

    code, out = finished(stand_ins.study("status", str(folder), cwd=tmp_path))
    assert code == 1
    assert f"failed: {job}: RuntimeError: CUDA out of memory" in out

    # Mended, only what is missing runs.
    n_calls = len(calls(folder))
    code, out = finished(stand_ins.study(*run, cwd=tmp_path))
    assert code == 0, out
    added = [c["name"] for c in calls(folder)[n_calls:] if "epoch" not in c]
    assert added == ["nnUNetv2_train", "nnUNetv2_predict", "lopsided-eval"]


@needs_snakemake
def test_jobs_share_the_cores(stand_ins: StandIns, study_file: Path, tmp_path: Path) -> None:
    study_file.write_text(study_file.read_text().replace("cpus: 1", "cpus: 2"))
    folder = tmp_path / "out"
    run = ("run", str(study_file), "-o", str(folder), "--cores", "2")
    code, out = finished(stand_ins.study(*run, cwd=tmp_path, EPOCH_SECONDS="0.3"))
    assert code == 0, out
    # Each training needs both cores, so no epoch of one lies between those of another.
    order = [c["arguments"][0] + c["arguments"][4] for c in calls(folder) if c["name"] == "nnUNetv2_train"]
    assert [len(order), len(set(order))] == [9, 3]
    assert all(len(set(order[i : i + 3])) == 1 for i in (0, 3, 6)), order


@needs_snakemake
def test_a_dry_run_of_the_quick_preset(stand_ins: StandIns, tmp_path: Path) -> None:
    # The real package: what is checked is that Snakemake takes our workflow.
    import sys

    command = [sys.executable, "-m", "nnunet_lopsided.commands.study", "run", "quick", "-o", "out", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {
        line.split()[0]: int(line.split()[1])
        for line in done.stdout.splitlines()
        if len(line.split()) == 2 and line.split()[1].isdigit()
    }
    assert counts["train"] == counts["predict"] == 3
    assert counts["evaluate"] == 6
    assert counts["phantom"] == counts["preprocess"] == counts["plan"] == counts["censor"] == counts["share"] == 1
    assert counts["total"] == 18  # with Snakemake's "all"
    assert not (tmp_path / "out" / "done").exists()


def test_without_snakemake_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^snakemake not installed: pip install 'nnunet-lopsided\[study\]'"):
        engine.check_engine()
    with pytest.raises(InputError, match=r"^snakemake and snakemake-executor-plugin-slurm not installed"):
        engine.check_engine("slurm")


@pytest.mark.parametrize(
    ("n", "visible", "chosen"),
    [
        (2, None, ["0", "1"]),
        (2, "2,3", ["2", "3"]),
        (1, "2,3", ["2"]),
        (2, " 5, GPU-8932f937", ["5", "GPU-8932f937"]),
        (0, "", []),
        (1, "4,-1,5", ["4"]),
    ],
)
def test_gpus_are_among_those_that_the_user_has_left_visible(n: int, visible: str | None, chosen: list[str]) -> None:
    assert engine.chosen_gpus(n, visible) == chosen


@pytest.mark.parametrize(("n", "visible", "left"), [(3, "2,3", 2), (1, "", 0), (1, "-1", 0), (2, "4,-1,5", 1)])
def test_more_gpus_than_are_visible(n: int, visible: str, left: int) -> None:
    with pytest.raises(InputError) as error:
        engine.chosen_gpus(n, visible)
    assert str(error.value) == f"--gpus must be at most {left}, as CUDA_VISIBLE_DEVICES is '{visible}', got {n}"


def test_the_call_of_snakemake(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    here = engine.command_line(folder, cores=4, gpus=2, further=["--quiet"])
    assert here[here.index("--cores") : here.index("--cores") + 2] == ["--cores", "4"]
    assert "gpu=2" in here
    assert here[-1] == "--quiet"
    there = engine.command_line(folder, cores=4, gpus=2, profile="slurm")
    assert "--cores" not in there
    assert (Path(there[there.index("--profile") + 1]) / "config.yaml").is_file()
    with pytest.raises(InputError, match=r"--profile must be slurm or a folder with config\.yaml, got nowhere"):
        engine.command_line(folder, cores=4, gpus=2, profile="nowhere")
