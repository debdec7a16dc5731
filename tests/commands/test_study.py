"""lopsided-study: its commands without running a job."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_lopsided.commands.study import main
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.locks import locked
from nnunet_lopsided.study import engine
from nnunet_lopsided.study.folder import StudyFolder
from nnunet_lopsided.study.preparation import prepare
from nnunet_lopsided.study.presets import preset_text
from nnunet_lopsided.study.study_file import read_study

STUDY = """
name: small
datasets:
  - {name: mets, phantom: {train: 5, test: 1}}
censoring: [none, {mode: size, rate: 0.5}]
configurations: [2d]
arms:
  - {name: plain, trainer: nnUNetTrainer_5epochs}
device: cpu
"""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    return file


@pytest.fixture
def prepared(study_file: Path, tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "out")
    prepare(read_study(study_file), STUDY, folder)
    return folder


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        assert main([str(a) for a in arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err

    return run


def done(folder: StudyFolder, name: str, seconds: float) -> None:
    (command,) = (list(job.command) for job in folder.jobs() if job.name == name)
    folder.marker(name).parent.mkdir(parents=True, exist_ok=True)
    write_json(folder.marker(name), {"command": command, "seconds": seconds, "attempts": 1, "host": "here"})


def test_plan(study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(study_file), "-o", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].split() == ["dataset", "labels", "configuration", "arm", "runs", "trainer"]
    assert lines[1].split() == ["mets", "full", "2d", "plain", "1", "nnUNetTrainer_5epochs"]
    assert lines[2].split() == ["mets", "size50", "2d", "plain", "1", "nnUNetTrainer_5epochs"]
    counts = {line.split()[0]: line.split()[1:] for line in lines[4:13]}
    assert counts["train"] == counts["predict"] == counts["evaluate"] == ["2", "2"]
    assert counts["phantom"] == counts["preprocess"] == counts["censor"] == counts["share"] == ["1", "1"]
    assert counts["all"] == ["10", "10"]
    # 2 x 5 x 250 iterations of 0.5 s, a tenth more for the online validation.
    assert "estimate of what is left: 0.38 h of training, one after the other, and " in out
    assert "0.50 s per iteration, assumed for device cpu, not measured; disk is a rule of thumb" in out
    assert "note: plain: nnUNetTrainer_5epochs is nnU-Net's own: its own epochs and iterations, and no seed" in out
    assert not (tmp_path / "out").exists()


def test_the_estimate_is_measured_once_something_is_trained(
    prepared: StudyFolder, study_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done(prepared, "train/mets-full-2d-plain-r1-f0", 1375)
    assert main(["plan", str(study_file), "-o", str(prepared.path)]) == 0
    out = capsys.readouterr().out
    assert "0.38 h of training" in out  # the one that is left: 1250 x 1 s and a tenth
    assert "1.00 s per iteration, measured: mean of 1 finished training of this study" in out
    study_file.write_text(STUDY + "resources: {seconds_per_iteration: 4}\n")
    assert main(["plan", str(study_file), "-o", str(prepared.path)]) == 0
    assert "4.00 s per iteration, given by resources: seconds_per_iteration" in capsys.readouterr().out


def test_status(prepared: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    done(prepared, "phantom/mets", 3)
    failed = prepared.attempts("preprocess/mets")
    failed.mkdir(parents=True)
    write_json(failed / "failed.json", {})
    prepared.log("preprocess/mets").parent.mkdir(parents=True)
    prepared.log("preprocess/mets").write_text("reading\nno space left\n\n")
    running = prepared.attempts("censor/mets-size50-s0")
    running.mkdir(parents=True)
    with locked(running):
        assert main(["status", str(prepared.path)]) == 1
    out = capsys.readouterr().out
    counts = {line.split()[0]: line for line in out.splitlines()}
    assert counts["all"].split() == ["all", "10", "1", "1", "1", "7"]
    assert f"failed: preprocess/mets: no space left (see {prepared.log('preprocess/mets')})" in out
    assert "blocked by these: 7 jobs" in out
    assert "running: censor/mets-size50-s0" in out


def test_report_of_an_unfinished_study(prepared: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(prepared.path)]) == 0
    assert capsys.readouterr().out == f"{prepared.path}/report/index.html\n"
    names = {p.name for p in (prepared.path / "report").iterdir()}
    tables = {"arms.csv", "arms.tex", "differences.csv", "jobs.csv", "runs.csv"}
    assert names == {".lopsided.json", "index.html", *tables}


@pytest.mark.parametrize(
    ("file", "content", "commands", "message"),
    [
        ("jobs.json", "", ("status", "report"), "not valid JSON: Expecting value"),
        ("jobs.json", "{}", ("status", "report"), "expected a list, found a mapping"),
        ("jobs.json", "[[]]", ("status", "report"), "[0]: expected a mapping, found a list"),
        ("study.yaml", "", ("report",), ": expected a mapping with the keys name, "),
        ("study.yaml", "", ("plan", "run"), ": expected the study that was last run, found nothing"),
        ("study.yaml", "- 3", ("plan", "run"), ": expected the study that was last run, found a list of 1"),
        ("dataset_ids.json", "", ("plan", "run"), "not valid JSON: Expecting value"),
        ("dataset_ids.json", "[]", ("plan", "run"), "expected a mapping, found a list"),
        ("done/phantom/mets.json", "", ("plan", "run"), "not valid JSON: Expecting value"),
    ],
)
def test_a_damaged_folder_is_one_line(
    prepared: StudyFolder,
    study_file: Path,
    fails: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    content: str,
    commands: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr(engine, "check_engine", lambda profile: None)
    prepared.attempts("train").mkdir(parents=True)
    (prepared.attempts("train") / "one").mkdir()
    path = prepared.path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    for command in commands:
        given = (study_file, "-o", prepared.path) if command in ("plan", "run") else (prepared.path,)
        said = fails(command, *given)
        assert f"error: {path}" in said
        assert message in said


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_study_that_cannot_work_is_refused_at_once(
    fails: Callable[..., str], study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(engine, "check_engine", lambda profile: None)
    monkeypatch.chdir(tmp_path)
    study_file.write_text(STUDY + "patients: [6]\n")
    expected = f"{study_file}: patients[0]: dataset mets: expected at most its 5 training patients, found 6\n"
    assert fails(command, study_file).endswith(f"error: {expected}")
    assert [p.name for p in tmp_path.iterdir()] == ["study.yaml"]


def test_jobs_get_gpus_that_the_user_has_left_visible(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dealt: list[list[str]] = []
    monkeypatch.setattr(engine, "check_engine", lambda profile: None)

    def run_engine(folder: object, command: object, cores: object, gpus: list[str]) -> int:
        dealt.append(gpus)
        return 0

    monkeypatch.setattr(engine, "run_engine", run_engine)
    study_file.write_text(STUDY.replace("device: cpu", "device: cuda"))
    run = ("run", str(study_file), "-o", str(tmp_path / "out"), "--gpus", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert main([*run]) == 0
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert main([*run]) == 0
    assert dealt == [["2", "3"], ["0", "1"]]


def test_fewer_gpus_than_asked_for(
    fails: Callable[..., str], study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "check_engine", lambda profile: None)
    study_file.write_text(STUDY.replace("device: cpu", "device: cuda"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = fails("run", study_file, "-o", tmp_path / "out")
    assert said.endswith("error: --gpus must be at most 0, as CUDA_VISIBLE_DEVICES is '', got 1\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "does"),
    [
        ("status", "names those that run and those that have failed"),
        ("report", "Makes FOLDER/report/index.html"),
    ],
)
def test_help_says_what_a_command_does_and_what_the_folder_is(
    command: str, does: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert does in out
    assert "of the study: what 'run' had as -o, or else study-NAME where it was called" in out


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["required"] == ["name", "datasets", "arms"]
    assert printed.err == ""


def test_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["losses", "paper-table1", "paper-table2", "paper-table3", "quick"]
    assert [line.split()[0] for line in lines] == names
    assert main(["presets", "quick"]) == 0
    assert capsys.readouterr().out == preset_text("quick")


def test_wrong_input(
    fails: Callable[..., str], study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "found quik. Did you mean quick?" in fails("plan", "quik")
    assert "got quik. Did you mean quick?" in fails("presets", "quik")
    assert "holds no study: jobs.json not found" in fails("status", tmp_path)
    assert "holds no study: jobs.json not found" in fails("report", tmp_path)
    assert "--cores must be at least 1, got 0" in fails("run", study_file, "--cores", "0")
    assert "only run takes arguments after --, got -n" in fails("status", tmp_path, "--", "-n")
    study_file.write_text(STUDY.replace("plain", "pl ain"))
    assert f"{study_file}: arms[0].name: expected a name of letters" in fails("plan", study_file)
    study_file.write_text(STUDY.replace("device: cpu", "resources: {gpus: 2}"))
    assert "a training needs 2 GPUs (resources: gpus), and --gpus gives 1" in fails("run", study_file)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["study.yaml"]


def test_a_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str], study_file: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", str(study_file), "--cores", "many"])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err == "lopsided-study run: error: argument --cores: invalid int value: 'many'\n"


def test_without_snakemake(fails: Callable[..., str], study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    assert "snakemake not installed: pip install 'nnunet-lopsided[study]'" in fails("run", study_file)


def test_one_run_at_a_time(fails: Callable[..., str], prepared: StudyFolder, study_file: Path) -> None:
    pytest.importorskip("snakemake")
    with locked(prepared.path):
        assert f"another lopsided-study run is at work in {prepared.path}" in fails(
            "run", study_file, "-o", prepared.path
        )
