"""One job: command, log, marker, checkpoint."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import zipfile
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Timer

import pytest

from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.locks import locked
from nnunet_lopsided.nnunet.checkpoints import whole_checkpoint
from nnunet_lopsided.study.folder import StudyFolder
from nnunet_lopsided.study.job_runner import CORES_VARIABLE, GPUS_VARIABLE, held_slots, run_job
from nnunet_lopsided.study.jobs import Job


@pytest.fixture(autouse=True)
def no_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (
        CORES_VARIABLE,
        GPUS_VARIABLE,
        "nnUNet_n_proc_DA",
        "nnUNet_def_n_proc",
        "OMP_NUM_THREADS",
        "CUDA_VISIBLE_DEVICES",
    ):
        monkeypatch.delenv(variable, raising=False)


def python(code: str, **more: object) -> Job:
    return Job("train/one", (sys.executable, "-c", code), **more)  # type: ignore[arg-type]


def test_a_job_that_ends_well(tmp_path: Path) -> None:
    folder, job = StudyFolder(tmp_path), python("print('hello')")
    assert run_job(folder, job) == 0
    assert folder.log("train/one").read_text() == "hello\n"
    record = folder.record("train/one")
    assert record is not None
    assert record["command"] == list(job.command)
    assert record["attempts"] == 1
    assert 0 <= record["seconds"] < 60
    assert folder.states([job]) == {"train/one": "done"}


def test_it_runs_in_the_studys_folders(tmp_path: Path) -> None:
    names = "nnUNet_raw nnUNet_preprocessed nnUNet_results nnUNet_n_proc_DA nnUNet_def_n_proc OMP_NUM_THREADS"
    job = python(
        f"import os; print(os.getcwd(), *[os.environ[n] for n in {names.split()!r}])",
        results="nnUNet_results/repetition_2",
        cpus=3,
    )
    assert run_job(StudyFolder(tmp_path), job) == 0
    assert StudyFolder(tmp_path).log("train/one").read_text().split() == [
        str(tmp_path),
        str(tmp_path / "nnUNet_raw"),
        str(tmp_path / "nnUNet_preprocessed"),
        str(tmp_path / "nnUNet_results" / "repetition_2"),
        "2",
        "3",
        "3",
    ]


def test_a_job_that_fails_has_no_marker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import os; print('hello'); raise SystemExit(None if os.path.exists('mended') else 'too bad')"
    folder, job = StudyFolder(tmp_path), python(code)
    after = Job("predict/one", ("true",), needs=("train/one",))
    assert run_job(folder, job) == 1
    assert folder.record("train/one") is None
    assert folder.states([job, after]) == {"train/one": "failed", "predict/one": "blocked"}
    log = folder.log("train/one")
    assert folder.failure("train/one") == f"too bad (see {log})"
    assert capsys.readouterr().err == f"train/one failed with exit code 1: too bad (see {log})\n"
    failed = json.loads((folder.attempts("train/one") / "failed.json").read_text())
    assert failed == {"exit_code": 1, "last_line": "too bad"}

    # The next attempt adds to the log, and its time to that of the first.
    (tmp_path / "mended").touch()
    assert run_job(folder, job) == 0
    assert log.read_text() == "hello\ntoo bad\nhello\n"
    record = folder.record("train/one")
    assert record is not None
    assert record["attempts"] == 2
    assert folder.states([job, after]) == {"train/one": "done", "predict/one": "waiting"}


def test_what_is_done_is_not_repeated_but_by_another_command(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    for code, log in (("print('one')", "one\n"), ("print('one')", "one\n"), ("print('two')", "one\ntwo\n")):
        assert run_job(folder, python(code)) == 0
        assert folder.log("train/one").read_text() == log
    record = folder.record("train/one")
    assert record is not None
    assert record["command"][-1] == "print('two')"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_job_that_is_killed_is_told_by_its_signal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, job = StudyFolder(tmp_path), python("import os; print('Epoch 3', flush=True); os.kill(os.getpid(), 9)")
    assert run_job(folder, job) == 1
    why = (
        "killed by signal 9 (SIGKILL), as the system does when memory runs out: give a job more memory_gb or fewer "
        f"cpus (resources), or run fewer at a time (--cores); last line: Epoch 3 (see {folder.log('train/one')})"
    )
    assert folder.failure("train/one") == why
    assert capsys.readouterr().err == f"train/one failed: {why}\n"
    assert folder.states([job]) == {"train/one": "failed"}


def test_the_time_of_another_command_does_not_count(tmp_path: Path) -> None:
    folder, job = StudyFolder(tmp_path), python("print('hello')")
    folder.attempts("train/one").mkdir(parents=True)
    other = {"started": "2026-01-01", "host": "here", "device": "cpu"}
    earlier = [{**other, "seconds": 1000, "command": ["other"]}, {**other, "seconds": 500, "command": [*job.command]}]
    write_json(folder.attempts_file("train/one"), earlier)
    assert run_job(folder, job) == 0
    record = folder.record("train/one")
    assert record is not None
    assert record["attempts"] == 2
    assert 500 <= record["seconds"] < 600
    assert len(folder.all_attempts("train/one")) == 3
    known = folder.known_attempts("train/one")
    assert [a["command"] for a in known] == [list(job.command)] * 2
    assert sum(a["seconds"] for a in known) == pytest.approx(record["seconds"])


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    folder, job = StudyFolder(tmp_path), Job("train/one", ("no-such-program",))
    assert run_job(folder, job) == 127
    assert "no-such-program" in folder.failure("train/one")


def checkpoint(folder: Path, name: str, cut: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("weights", "0" * 1000)
    if cut:
        file.write_bytes(file.read_bytes()[:-cut])
    return file


def test_a_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    job = python("import sys; print(sys.argv[1:])", fold_folder="results/fold_0")
    assert run_job(StudyFolder(tmp_path), job) == 0
    assert StudyFolder(tmp_path).log("train/one").read_text() == "[]\n"
    StudyFolder(tmp_path).marker("train/one").unlink()
    checkpoint(tmp_path / "results" / "fold_0", "checkpoint_latest.pth")
    assert run_job(StudyFolder(tmp_path), job) == 0
    assert StudyFolder(tmp_path).log("train/one").read_text() == "[]\n['--c']\n"
    # The marker holds the command as the study has it, so that it is not taken for a changed one.
    record = StudyFolder(tmp_path).record("train/one")
    assert record is not None
    assert record["command"] == list(job.command)


def test_a_checkpoint_that_a_kill_cut_off_is_set_aside(tmp_path: Path) -> None:
    damaged = checkpoint(tmp_path / "fold_0", "checkpoint_latest.pth", cut=30)
    assert not whole_checkpoint(tmp_path / "fold_0")
    assert not damaged.exists()
    assert (tmp_path / "fold_0" / "checkpoint_latest.pth.damaged").is_file()
    checkpoint(tmp_path / "fold_0", "checkpoint_latest.pth", cut=30)
    checkpoint(tmp_path / "fold_0", "checkpoint_best.pth")
    assert whole_checkpoint(tmp_path / "fold_0") == "checkpoint_best.pth"


def test_a_finished_training_is_not_begun_again(tmp_path: Path) -> None:
    folder, job = StudyFolder(tmp_path), python("open('count', 'a').write('x')")
    assert run_job(folder, job) == run_job(folder, job) == 0
    assert (tmp_path / "count").read_text() == "x"


def test_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GPUS_VARIABLE, "4,5,6")
    taken = tmp_path / "attempts" / "slots" / "gpu-4"
    taken.mkdir(parents=True)
    job = python("import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))", gpus=2)
    with locked(taken):
        assert run_job(StudyFolder(tmp_path), job) == 0
    assert StudyFolder(tmp_path).log("train/one").read_text() == "5,6\n"


def hold(folder: Path, release: Event) -> None:
    with held_slots(folder, "core", ["0", "1"], 1):
        (folder / "held").touch()
        release.wait(120)


def test_slots_are_waited_for(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    release = context.Event()
    other = context.Process(target=hold, args=(tmp_path, release))
    other.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.05)
    with held_slots(tmp_path, "core", ["0", "1"], 1) as chosen:
        assert chosen == ["1"]
    assert other.is_alive()
    Timer(0.5, release.set).start()
    with held_slots(tmp_path, "core", ["0", "1"], 5) as chosen:  # all there are
        assert chosen == ["0", "1"]
        assert release.is_set()
        other.join(60)
        assert not other.is_alive()


def test_a_note_that_cannot_be_written_meanwhile_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunet_lopsided.study import job_runner

    n_notes = 0

    def full_at_the_second(path: Path, content: object) -> None:
        nonlocal n_notes
        n_notes += path.name == "attempts.json"
        if n_notes == 2:
            raise OSError(28, "No space left on device")
        write_json(path, content)

    monkeypatch.setattr(job_runner, "write_json", full_at_the_second)
    monkeypatch.setattr(job_runner, "_SECONDS_BETWEEN_RECORDS", 0)
    assert run_job(StudyFolder(tmp_path), python("import time; time.sleep(2.5); print('done')")) == 0
    assert n_notes > 2
    assert StudyFolder(tmp_path).log("train/one").read_text() == "done\n"
