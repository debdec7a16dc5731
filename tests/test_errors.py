"""What bad input of ours does inside nnU-Net's commands."""

from __future__ import annotations

import sys

import pytest

from nnunet_lopsided.errors import InputError, refuse


@pytest.mark.parametrize("command", ["/somewhere/bin/nnUNetv2_train", "nnUNetv2_predict"])
def test_nnunets_commands_end_with_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [command, "501"])
    with pytest.raises(SystemExit) as ending:
        refuse(InputError("n_slices must\n be odd"))
    assert ending.value.code == 2
    assert capsys.readouterr().err == "nnunet-lopsided: error: n_slices must be odd\n"


def test_elsewhere_it_is_an_exception(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/python"])
    with pytest.raises(InputError, match=r"^no$"):
        refuse(InputError("no"))
    assert capsys.readouterr().err == ""
