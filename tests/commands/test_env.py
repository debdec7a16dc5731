"""lopsided-env."""

from __future__ import annotations

import os
import shlex

import pytest

from nnunet_lopsided.commands.env import main
from nnunet_lopsided.startup import PLUGIN_FOLDER, VARIABLE


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", [PLUGIN_FOLDER]),
        (PLUGIN_FOLDER, [PLUGIN_FOLDER]),
        ("/with space", ["/with space", PLUGIN_FOLDER]),
        (f"{PLUGIN_FOLDER}{os.pathsep}/mine", ["/mine", PLUGIN_FOLDER]),
        (f"/$HOME{os.pathsep}/it's", ["/$HOME", "/it's", PLUGIN_FOLDER]),
    ],
)
def test_one_export_line(
    before: str, after: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, before)
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert shlex.split(out) == ["export", f"{VARIABLE}={os.pathsep.join(after)}"]
    assert os.environ[VARIABLE] == before


def test_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["now"])
    assert caught.value.code == 2
    assert "unrecognized arguments: now" in capsys.readouterr().err
