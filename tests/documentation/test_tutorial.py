"""The tutorial from its first line to its last, in its own order, on files of its own."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.images import read_image
from tests.documentation.quick import quick_shell
from tests.documentation.running import files_missing, run_page
from tests.documentation.worlds import TUTORIAL

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs bash")]


def test_from_own_folder_to_repaired_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(TUTORIAL, quick_shell(tmp_path, monkeypatch))

    before, after = tmp_path / "nnUNet_raw/Dataset502_Clinic", tmp_path / "nnUNet_raw/Dataset521_ClinicRepaired"
    repair = json.loads((after / "repair.json").read_text())
    assert [repair[f"n_{what}"] for what in ("added", "rejected", "left")] == [1, 1, 1]
    (case,) = repair["cases_changed"]
    kept, repaired = (
        np.asarray(read_image(folder / "labelsTr" / f"{case}.nii.gz").array) for folder in (before, after)
    )
    assert ((repaired != 0) & (kept == 0)).sum() == repair["voxels_changed"] > 0
    assert ((kept != 0) & (repaired == 0)).sum() == 0

    # Whole labels of the same test cases, before and after.
    with (tmp_path / "comparison/lesions.csv").open(newline="") as file:
        columns = csv.DictReader(file).fieldnames or []
    assert {"report502:detected", "report521:detected"} <= set(columns)
    assert files_missing(TUTORIAL, tmp_path) == []
