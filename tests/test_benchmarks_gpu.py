"""benchmarks/gpu.py: what it refuses, and that no part can spoil the others; the whole of it as a rehearsal."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "benchmarks" / "gpu.py"


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import gpu_running

    return gpu_running


@pytest.fixture
def run(running: ModuleType, tmp_path: Path) -> Any:
    """Runs a part of its own work in seconds; gives its state and what the file holds of it."""

    def of(work: Any, seconds: float = 20, method: str = "fork") -> tuple[str, dict[str, Any]]:
        part = running.Part(name="it", measures="something", work=work, estimate_s=1, limit_s=1)
        settings = running.Settings(device="cpu", rehearsal=False, scratch=tmp_path, n_cpus=1, seconds=seconds)
        record = running.Record(tmp_path / "out.json", {"minutes": 1})
        state = running.run_part(part, settings, record, tmp_path / "out.log", method)
        return state, json.loads((tmp_path / "out.json").read_text())["parts"]["it"]

    return of


def test_numbers_are_on_the_disk_at_once(run: Any, tmp_path: Path) -> None:
    def work(settings: Any, report: Any) -> None:
        report("first", 1.5)
        for _ in range(200):
            content = json.loads((settings.scratch / "out.json").read_text())
            if content["parts"]["it"]["numbers"] == {"first": 1.5}:
                break
            time.sleep(0.05)
        report("seen", content["parts"]["it"]["state"])
        print("said")

    state, part = run(work)
    assert state == part["state"] == "done"
    assert part["numbers"] == {"first": 1.5, "seen": "running"}
    assert part["message"] == ""
    assert "said" in (tmp_path / "out.log").read_text()
    assert json.loads((tmp_path / "out.json").read_text())["minutes"] == 1


def test_a_failing_part_leaves_its_numbers_and_a_line(run: Any, tmp_path: Path) -> None:
    def work(settings: Any, report: Any) -> None:
        report("before", 2)
        raise ValueError("it broke\nat length")

    state, part = run(work)
    assert (state, part["message"], part["numbers"]) == ("failed", "ValueError: it broke", {"before": 2})
    assert "Traceback" in (tmp_path / "out.log").read_text()


@pytest.mark.parametrize("how", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_part_that_is_killed(run: Any, how: str) -> None:
    def work(settings: Any, report: Any) -> None:
        report("before", 2)
        # Who still holds the other end of the pipe must not make us wait.
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,)).start()
        exec(how)

    start = time.monotonic()
    state, part = run(work)
    assert (state, part["numbers"]) == ("failed", {"before": 2})
    assert f"exit code {3 if '3' in how else -9}" in part["message"]
    assert time.monotonic() - start < 15


def test_a_part_that_hangs_is_ended_with_what_it_started(run: Any, tmp_path: Path) -> None:
    def work(settings: Any, report: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        process.start()
        report("pid", process.pid)
        time.sleep(60)

    start = time.monotonic()
    state, part = run(work, seconds=2)
    assert state == "timed out"
    assert part["message"] == "ended after 2 s, with what it had by then"
    assert time.monotonic() - start < 20
    for _ in range(50):
        if not is_running(part["numbers"]["pid"]):
            break
        time.sleep(0.1)
    assert not is_running(part["numbers"]["pid"])


def is_running(pid: int) -> bool:
    """Whether it is there and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_interruption_is_recorded(run: Any, tmp_path: Path) -> None:
    parent = os.getpid()
    # A shell starts what runs in its background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def work(settings: Any, report: Any) -> None:
        report("before", 2)
        time.sleep(0.5)
        os.kill(parent, signal.SIGINT)
        time.sleep(60)

    try:
        with pytest.raises(KeyboardInterrupt):
            run(work)
    finally:
        signal.signal(signal.SIGINT, before)
    part = json.loads((tmp_path / "out.json").read_text())["parts"]["it"]
    assert (part["state"], part["numbers"]) == ("interrupted", {"before": 2})


def test_a_fresh_process_does_the_same(run: Any) -> None:
    state, part = run(os.path.exists, method="spawn")  # takes one argument: what fails is the call, in a fresh process
    assert state == "failed"
    assert part["message"].startswith("TypeError")


def test_aims(running: ModuleType) -> None:
    assert running.aimed(0.61, at_most=0.6) == {"value": 0.61, "aim": "at most 0.6", "met": False}
    assert running.aimed(1.1, at_least=1, at_most=1.15)["met"]
    assert not running.aimed(0.99, at_least=1, at_most=1.15)["met"]
    assert not running.aimed(float("nan"), at_most=1)["met"]


def call(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "losses", "kernels"], "--only must be some of tests, losses, "),
        (["--minutes", "0"], "--minutes must be above 0, got 0"),
        (["--out", "there.json"], "--out there.json is there already; --overwrite replaces it"),
        (["--out", "there.json/x/out.json"], "there.json"),
        (["--out", "folder", "--overwrite"], "--out folder is a folder, expected the name of a JSON file"),
    ],
)
def test_what_is_refused_in_a_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    import gpu

    assert gpu.main(["--rehearse", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("gpu.py: ")
    assert error.count("\n") == 1
    assert (tmp_path / "there.json").read_text() == "{}"


def test_parts_come_in_their_order_with_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import gpu

    assert [part.name for part in gpu.chosen_parts(["study", "audit"])] == ["data", "audit", "study"]
    names = [part.name for part in gpu.chosen_parts(None)]
    assert names == list(dict.fromkeys(names))
    assert names[:2] == ["tests", "losses"]
    for part in gpu.PARTS:
        assert part.estimate_s <= part.limit_s
        assert all(names.index(needed) < names.index(part.name) for needed in part.needs)


def test_one_command_on_a_machine_without_internet(tmp_path: Path) -> None:
    """Wheels in the parts of a bundle are installed beside this Python, and gpu.py gets the options."""
    name, parts = "lopsided_probe-1.0", tmp_path / "parts"
    info, wheel = f"{name}.dist-info", tmp_path / "bundle" / f"{name}-py3-none-any.whl"
    parts.mkdir()
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("lopsided_probe.py", "there = True")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: lopsided-probe\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    with tarfile.open(tmp_path / "all.tar", "w") as packed:
        packed.add(wheel, "bundle/" + wheel.name)
    content = (tmp_path / "all.tar").read_bytes()
    for k, piece in enumerate((content[:700], content[700:])):
        (parts / f"bundle.tar.part-{k:03d}").write_bytes(piece)

    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        variables = {"PYTHON": sys.executable, "TMPDIR": str(tmp_path), "OUT": str(tmp_path / "out")}
        command = ["sh", "benchmarks/gpu_on_device.sh", *arguments]
        return subprocess.run(
            command, cwd=REPOSITORY, env=os.environ | variables, capture_output=True, text=True, check=False
        )

    done = script("--bundle", str(parts), "--rehearse", "--only", "kernels")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("gpu.py: --only must be some of tests, losses, ")
    assert (tmp_path / "lopsided-site" / "lopsided_probe.py").read_text() == "there = True"
    assert script("--bundle", str(tmp_path / "none")).stderr == (
        f"gpu_on_device.sh: --bundle: folder not found: {tmp_path / 'none'}\n"
    )


def states(out: Path) -> dict[str, str]:
    """Of the parts that have begun."""
    return {name: part["state"] for name, part in json.loads(out.read_text())["parts"].items()}


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.mark.slow
def test_the_rehearsal(tmp_path: Path) -> None:
    """Every part on a CPU, as it is rehearsed before minutes on a GPU are spent; nothing of it stays."""
    out = tmp_path / "new" / "folder" / "rehearsal.json"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = call("--rehearse", "--out", str(out), "--scratch", str(scratch), "--minutes", "25", timeout=1500)
    log = out.with_suffix(".log").read_text()[-4000:]
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-2000:]}\n{log}"
    record = json.loads(out.read_text())
    assert not record["measured_on_gpu"]
    assert record["note"].startswith("not measured on a GPU")
    assert {part["state"] for part in record["parts"].values()} == {"done"}
    assert set(record["parts"]) == {
        "device", "tests", "losses", "data", "train-3d", "prediction", "memory", "train-2d", "train-2.5d", "audit",
        "study",
    }  # fmt: skip
    assert record["parts"]["tests"]["numbers"]["passed"] > 20
    # What PyTorch resamples is what nnU-Net does.
    assert record["parts"]["audit"]["numbers"]["x2: largest difference of a probability"]["value"] < 1e-3
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_interrupted_and_short_of_time(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--rehearse", "--out", str(out), "--scratch", str(tmp_path),
         "--only", "tests"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(1200):
        # The part that takes long: a quick one may have ended before the signal.
        if out.exists() and states(out).get("tests") == "running":
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1] == f"gpu.py: stopped; {out} holds what was measured"
    assert states(out) == {"device": "done", "tests": "interrupted"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.log"]

    without_gpu = call("--out", str(tmp_path / "gpu.json"), "--only", "losses") if not has_gpu() else None
    if without_gpu is not None:
        assert without_gpu.returncode == 2
        assert without_gpu.stderr.splitlines()[-1].startswith("gpu.py: no CUDA device answers (")

    short = call("--rehearse", "--out", str(out), "--overwrite", "--only", "losses", "--minutes", "0.1")
    assert short.returncode == 0, short.stderr
    part = json.loads(out.read_text())["parts"]["losses"]
    assert part["state"] == "skipped"
    assert part["message"].startswith("needs about ")
