"""The command behind the phantom."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_lopsided.commands.phantom import main
from nnunet_lopsided.images import read_image


def test_main(nnunet_paths: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = nnunet_paths / "nnUNet_raw"
    arguments = ["-d", "900", "--train", "1", "--test", "0", "--shape", "12", "40", "40", "--spacing", "4", "3", "3"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{raw / 'Dataset900_Phantom'}\n"
    assert main(arguments) == 2
    assert "is in use" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--diameter", "100"]) == 2
    assert "diameter_range_mm must enclose" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--lesions", "0"]) == 0
    assert not read_image(raw / "Dataset900_Phantom" / "labelsTr" / "phantom_000.nii.gz").array.any()
