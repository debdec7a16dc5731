import json
import shutil
from dataclasses import asdict

import pytest

from nnunet_lopsided import __version__
from nnunet_lopsided.commands.demo import main
from nnunet_lopsided.demo import workflow
from nnunet_lopsided.demo.ownership import claim
from nnunet_lopsided.demo.settings import DemoSettings
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folder_record import finish_record, unrecorded
from nnunet_lopsided.files.locks import locked
from tests.files.forks import ended, killed_after, started


def _claim(folder, settings, overwrite, was_killed=False):
    return claim(folder, {"version": __version__, **asdict(settings)}, overwrite, was_killed)


def fails(capsys, *arguments):
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_rate_outside_0_to_1(tmp_path, capsys):
    assert "rate must be within [0, 1], got 1.5" in fails(capsys, "-o", str(tmp_path / "demo"), "--rate", "1.5")
    assert not (tmp_path / "demo").exists()


def test_no_iterations(tmp_path, capsys):
    assert "iterations must be at least 1, got 0" in fails(capsys, "-o", str(tmp_path / "demo"), "--iterations", "0")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "is not empty" in fails(capsys, "-o", str(tmp_path), "--overwrite")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_demo_with_other_settings_needs_overwrite(tmp_path, capsys):
    (tmp_path / "demo.json").write_text(json.dumps({"seed": 7}))
    assert "other settings" in fails(capsys, "-o", str(tmp_path))
    assert json.loads((tmp_path / "demo.json").read_text()) == {"seed": 7}


@pytest.mark.parametrize("content", [{"my": "app"}, {"version": "0", **asdict(DemoSettings())}])
def test_only_a_demo_is_ever_removed(tmp_path, capsys, content):
    (tmp_path / "demo.json").write_text(json.dumps(content))
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "is not replaced: it" in fails(capsys, "-o", str(tmp_path), "--overwrite")
    assert (tmp_path / "thesis.tex").is_file()


@pytest.fixture
def demo(tmp_path):
    """A folder as a demo leaves it, with a link to the data of a user."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scan.nii.gz").write_text("years of scans")
    folder = tmp_path / "demo"
    _claim(folder, DemoSettings(seed=7), overwrite=False)
    (folder / "predictions" / "full").mkdir(parents=True)
    (folder / "predictions" / "full" / "a.nii.gz").write_text("a")
    (folder / "predictions" / "scan.nii.gz").symlink_to(tmp_path / "data" / "scan.nii.gz")
    (folder / "predictions" / "data").symlink_to(tmp_path / "data")
    finish_record(folder)
    return folder


def test_a_demo_is_overwritten(demo, tmp_path):
    (demo / "nnUNet_results").mkdir()
    (demo / "nnUNet_results" / "checkpoint_latest.pth").write_text("of a step that was killed")
    with pytest.raises(InputError, match=r"it holds .*checkpoint_latest\.pth"):  # no kill, so it is somebody else's
        _claim(demo, DemoSettings(seed=8), overwrite=True)
    _claim(demo, DemoSettings(seed=8), overwrite=True, was_killed=True)
    assert sorted(path.name for path in demo.iterdir()) == [".lopsided.json", "demo.json"]
    assert (tmp_path / "data" / "scan.nii.gz").read_text() == "years of scans"


@pytest.mark.parametrize("name", ["thesis.tex", "predictions/full/notes.txt", "logs/x/mine.nii.gz"])
def test_what_the_demo_did_not_write_is_never_removed(demo, capsys, name):
    mine = demo / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("years of work")
    assert f"it holds {name}" in fails(capsys, "-o", str(demo), "--overwrite")
    assert mine.read_text() == "years of work"
    assert (demo / "predictions" / "full" / "a.nii.gz").is_file()


@pytest.mark.parametrize("name", ["predictions/full/notes.txt", ".notes", "nnUNet_raw/mine/scan.npz"])
def test_what_was_put_into_a_demo_that_then_went_on(demo, capsys, name, monkeypatch):
    """Every run notes its files; those of somebody else stay out of the list, however often it goes on."""
    monkeypatch.setattr(workflow, "_run", lambda *_: demo / "index.html")
    (demo / "table.md").write_text("")
    finish_record(demo)
    (demo / name).parent.mkdir(parents=True, exist_ok=True)
    (demo / name).write_text("years of work")
    for _ in range(2):
        assert main(["-o", str(demo), "--seed", "7"]) == 0
    capsys.readouterr()
    assert f"it holds {name}" in fails(capsys, "-o", str(demo), "--seed", "7", "--overwrite")
    assert (demo / name).read_text() == "years of work"


def test_files_of_a_killed_step_are_the_demo_s(demo, capsys, monkeypatch):
    monkeypatch.setattr(workflow, "_run", lambda *_: demo / "index.html")
    (demo / "table.md").write_text("")
    finish_record(demo)
    (demo / ".lopsided.lock").touch()
    (demo / "predictions" / "full" / "b.nii.gz").touch()
    (demo / "predictions" / "full" / "thesis.tex").touch()
    assert main(["-o", str(demo), "--seed", "7"]) == 0
    assert unrecorded(demo) == ["predictions/full/thesis.tex"]


@pytest.mark.parametrize(
    "left",
    [
        "logs/train-full-0.log",
        "nnUNet_results/Dataset901_Phantom/T__P__2d_small/plans.json",
        "predictions/full-0/a.nii.gz",
        "predictions/full-0/predict_from_raw_data_args.json",
        "nnUNet_raw/Dataset901_Phantom/labelsTr/b.nii.gz",
    ],
)
def test_a_demo_killed_in_a_step_can_be_overwritten_and_gone_on_with(demo, left):
    (demo / left).parent.mkdir(parents=True, exist_ok=True)
    (demo / left).write_text("half")
    assert _claim(demo, DemoSettings(seed=7), overwrite=False, was_killed=True) == []
    with pytest.raises(InputError, match="is not replaced"):
        _claim(demo, DemoSettings(seed=8), overwrite=True)
    _claim(demo, DemoSettings(seed=8), overwrite=True, was_killed=True)
    assert sorted(path.name for path in demo.iterdir()) == [".lopsided.json", "demo.json"]


@pytest.mark.parametrize("mine", ["predictions/full/notes.txt", "evaluation/thesis.docx", "scan.nii.gz"])
def test_a_kill_makes_nothing_of_somebody_else_ours(demo, mine):
    (demo / mine).parent.mkdir(parents=True, exist_ok=True)
    (demo / mine).write_text("years of work")
    assert _claim(demo, DemoSettings(seed=7), overwrite=False, was_killed=True) == [mine]
    with pytest.raises(InputError, match="is not replaced: it holds"):
        _claim(demo, DemoSettings(seed=8), overwrite=True, was_killed=True)
    assert (demo / mine).read_text() == "years of work"


def test_a_refused_run_does_not_forget_that_the_last_one_was_killed(demo, capsys, monkeypatch):
    def run(*_):
        (demo / "table.md").write_text("")
        return demo / "index.html"

    monkeypatch.setattr(workflow, "_run", run)
    (demo / ".lopsided.lock").touch()
    (demo / "predictions" / "full" / "b.nii.gz").touch()
    (demo / "notes.txt").touch()
    for _ in range(2):
        assert "notes.txt" in fails(capsys, "-o", str(demo), "--overwrite")
    (demo / "notes.txt").unlink()
    assert main(["-o", str(demo), "--overwrite"]) == 0


def test_the_halves_lie_in_what_another_command_has_noted(demo):
    preprocessed = demo / "nnUNet_preprocessed" / "Dataset902_Censored"
    preprocessed.mkdir(parents=True)
    (preprocessed / "nnUNetPlans.json").touch()
    finish_record(preprocessed)
    (preprocessed / "splits_final.json").touch()
    finish_record(demo)
    _claim(demo, DemoSettings(seed=8), overwrite=True)
    assert not preprocessed.exists()


def test_a_demo_killed_while_it_begins_or_is_emptied_can_be_overwritten(demo, tmp_path):
    """In every stage: what is left still proves whose folder it is, and that nothing is done yet."""
    (demo / "logs").mkdir()
    (demo / "logs" / "phantom.json").write_text("{}")
    finish_record(demo)
    for n_calls in range(60):
        copy = tmp_path / str(n_calls)
        shutil.copytree(demo, copy, symlinks=True)

        def overwrite(copy=copy, n_calls=n_calls):
            killed_after(n_calls)
            _claim(copy, DemoSettings(seed=8), overwrite=True)
            return 0

        (code,) = ended([started(overwrite)])
        assert not (copy / "logs" / "phantom.json").exists() or (copy / "predictions/full/a.nii.gz").exists()
        _claim(copy, DemoSettings(seed=9), overwrite=True, was_killed=True)
        assert {path.name for path in copy.iterdir()} == {".lopsided.json", "demo.json"}
        if code == 0:
            break
    assert 5 < n_calls < 59


def test_a_demo_killed_while_it_begins(tmp_path):
    for n_calls in range(60):
        new = tmp_path / str(n_calls)

        def begin(new=new, n_calls=n_calls):
            killed_after(n_calls)
            _claim(new, DemoSettings(), overwrite=False)
            return 0

        (code,) = ended([started(begin)])
        for overwrite in (True, False):
            _claim(new, DemoSettings(), overwrite=overwrite, was_killed=True)
        assert {path.name for path in new.iterdir()} == {".lopsided.json", "demo.json"}
        if code == 0:
            break
    assert 2 < n_calls < 59


def test_what_a_user_changed_is_never_removed(demo, capsys):
    (demo / "predictions" / "full" / "a.nii.gz").write_text("corrected by hand")
    assert "has been changed" in fails(capsys, "-o", str(demo), "--overwrite")


def test_two_demos_in_one_folder(demo, capsys):
    with locked(demo):
        assert "another lopsided-demo is at work" in fails(capsys, "-o", str(demo), "--overwrite")
        assert "another lopsided-demo is at work" in fails(capsys, "-o", str(demo))


@pytest.mark.parametrize("content", [None, "{}"])
def test_data_that_is_no_dataset(tmp_path, capsys, content):
    data = tmp_path / "data"
    data.mkdir()
    if content is not None:
        (data / "dataset.json").write_text(content)
    assert str(data) in fails(capsys, "-o", str(tmp_path / "demo"), "--data", str(data))
    assert not (tmp_path / "demo").exists()
