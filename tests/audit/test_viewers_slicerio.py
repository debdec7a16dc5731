"""Segmentations for 3D Slicer, read and saved by Slicer's own library for its files, where that is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lopsided.audit.stored import read_audit
from nnunet_lopsided.audit.viewers.tiers import tiers_of
from nnunet_lopsided.commands.audit import main
from tests.audit.conftest import Audited

slicerio = pytest.importorskip("slicerio", reason="slicerio is not installed")


@pytest.fixture
def exported(turned: Audited) -> Path:
    assert main(["export", str(turned.audit), "--to", "slicer", "-o", "out", "--shown", "30"]) == 0
    return Path("out")


def centroids(path: Path) -> Mapping[int, NDArray[np.float64]]:
    """Of the candidates of a map, in millimetres and LPS, by nibabel."""
    image = nibabel.Nifti1Image.from_filename(path)
    numbers = np.asarray(image.dataobj)
    assert image.affine is not None
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    return {
        int(n): (lps @ [*np.argwhere(numbers == n).mean(axis=0), 1])[:3]
        for n in np.unique(numbers[numbers > 0]).tolist()
    }


def test_names_places_and_voxels_are_those_of_the_candidates(turned: Audited, exported: Path) -> None:
    audit = read_audit(turned.audit)
    shown = audit.candidates[:30]
    tiers = tiers_of(audit, shown)
    for case in {c.case for c in shown}:
        own = [c for c in shown if c.case == case]
        read = slicerio.read_segmentation(str(exported / case / f"{case}_candidates.seg.nrrd"))
        assert slicerio.segment_names(read) == [f"candidate {c.number} ({c.score:.2f})" for c in own]
        places = centroids(turned.audit / "maps" / f"{case}.nii.gz")
        counts = np.bincount(
            np.asarray(nibabel.Nifti1Image.from_filename(turned.audit / "maps" / f"{case}.nii.gz").dataobj).ravel()
        )
        for c, segment in zip(own, read["segments"], strict=True):
            assert (segment["id"], segment["labelValue"], segment["layer"], segment["status"]) == (
                f"candidate_{c.number}",
                c.number,
                0,
                "inprogress",
            )
            np.testing.assert_allclose(segment["color"], np.array(tiers[c.key].colour) / 255, atol=1e-4)
            mask = slicerio.segment_mask(read, segment["name"])
            assert mask.sum() == counts[c.number]
            place = (read["ijkToLPS"] @ [*np.argwhere(mask).mean(axis=0), 1])[:3]
            np.testing.assert_allclose(place, places[c.number], atol=1e-3)
        assert read["masterRepresentation"] == "Binary labelmap"


def test_what_the_library_saves_is_read_back(turned: Audited, exported: Path) -> None:
    """One segment emptied, one renamed, one grown by a voxel; the rest as it was."""
    audit = read_audit(turned.audit)
    case = next(c.case for c in audit.candidates if sum(d.case == c.case for d in audit.candidates[:30]) >= 3)
    first, second, third = [c for c in audit.candidates[:30] if c.case == case][:3]
    path = exported / case / f"{case}_candidates.seg.nrrd"
    read = slicerio.read_segmentation(str(path))
    voxels = read["voxels"].copy()
    voxels[voxels == first.number] = 0
    assert voxels[35, 35, 5] == 0
    voxels[35, 35, 5] = third.number
    read["voxels"] = voxels
    renamed = slicerio.segment_from_id(read, f"candidate_{second.number}")
    renamed["name"] += " unsure: a vessel?"
    slicerio.write_segmentation(str(path), read)
    assert main(["import", "out", "--reader", "Ada", "--audit", str(turned.audit)]) == 0
    with (Path("out-decisions") / "decisions.csv").open(newline="") as file:
        rows = {(row["case"], int(row["candidate"])): row for row in csv.DictReader(file)}
    assert {key: row["decision"] for key, row in rows.items() if row["decision"]} == {
        first.key: "reject",
        second.key: "unsure",
        third.key: "accept",
    }
    assert rows[second.key]["comment"] == "a vessel?"
    redrawn = np.asarray(nibabel.Nifti1Image.from_filename(Path("out-decisions") / "maps" / f"{case}.nii.gz").dataobj)
    assert redrawn[35, 35, 5] == third.number
