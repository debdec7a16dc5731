import json
from dataclasses import asdict

import pytest

from nnunet_lopsided.commands.demo import main
from nnunet_lopsided.demo.workflow import DemoSettings


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


@pytest.mark.parametrize("content", [None, "{}"])
def test_data_that_is_no_dataset(tmp_path, capsys, content):
    data = tmp_path / "data"
    data.mkdir()
    if content is not None:
        (data / "dataset.json").write_text(content)
    assert str(data) in fails(capsys, "-o", str(tmp_path / "demo"), "--data", str(data))
    assert not (tmp_path / "demo").exists()
