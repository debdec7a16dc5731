"""Candidates as DICOM SEG and structured reports, on slices that are turned, anisotropic and off the origin."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lopsided.audit.stored import StoredCandidate, read_audit
from nnunet_lopsided.commands.audit import main
from nnunet_lopsided.images import Geometry, read_image
from tests.audit.conftest import N_CASES, SHAPE, Audited, set_root, write_datasets
from tests.dicom.conftest import OBLIQUE, Scanner

highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

SPACING, ORIGIN = (3.0, 1.3, 0.9), (-20.5, 31.0, 47.0)
VOXEL_MM3 = 3.51


@pytest.fixture(scope="module")
def audited_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit of cases that lie as slices of the scanner do."""
    root = tmp_path_factory.mktemp("oblique")
    with pytest.MonkeyPatch.context() as patch:
        write_datasets(root / "nnunet", Geometry(SPACING, ORIGIN, tuple(OBLIQUE.ravel().tolist())))
        set_root(root / "nnunet", patch)
        assert main(["-d", "511", "-c", "2.5d", "--bootstrap", "0", "--shown", "0"]) == 0
    scanner = Scanner(root / "pacs")
    for i in range(N_CASES):
        scanner.series(
            f"p{i:02d}",
            "t1",
            np.zeros(SHAPE, np.int16),
            direction=OBLIQUE,
            spacing=SPACING,
            origin=ORIGIN,
            number=i + 1,
        )
    return root


@pytest.fixture
def oblique(audited_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audited:
    shutil.copytree(audited_once, tmp_path, dirs_exist_ok=True)
    set_root(tmp_path / "nnunet", monkeypatch)
    monkeypatch.chdir(tmp_path)
    return Audited(tmp_path / "nnunet")


def arguments(oblique: Audited, *more: str, series: str = "pacs") -> list[str]:
    return [
        "export",
        str(oblique.audit),
        "--to",
        "dicom",
        "-o",
        "out",
        *(["--series", series] if series else []),
        *more,
    ]


def shown_by_case(candidates: Sequence[StoredCandidate]) -> dict[str, list[StoredCandidate]]:
    found: dict[str, list[StoredCandidate]] = {}
    for c in candidates:
        found.setdefault(c.case, []).append(c)
    return found


def groups_of(report: Path) -> list[Any]:
    content = highdicom.sr.srread(str(report)).content
    return list(content.get_volumetric_roi_measurement_groups())


def places(segmentation: Path, number: int) -> NDArray[np.float64]:
    """Of the voxels of a segment, in millimetres, by pydicom alone."""
    dataset = pydicom.dcmread(segmentation)
    planes = dataset.pixel_array.reshape(-1, *SHAPE[1:])
    found = []
    for plane, frame in zip(planes, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        own = frame.get("SegmentIdentificationSequence") or (
            dataset.SharedFunctionalGroupsSequence[0].SegmentIdentificationSequence
        )
        if own[0].ReferencedSegmentNumber == number:
            corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
            found += [corner + x * 0.9 * OBLIQUE[:, 0] + y * 1.3 * OBLIQUE[:, 1] for y, x in np.argwhere(plane)]
    return np.array(found)


def test_each_shown_candidate_is_a_segment_and_a_finding(oblique: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(oblique, "--shown", "30")) == 0
    audit = read_audit(oblique.audit)
    assert capsys.readouterr().out.startswith(f"30 of {len(audit.candidates)} candidates, in ")
    by_case = shown_by_case(audit.candidates[:30])
    assert sorted(path.name for path in Path("out").iterdir() if path.is_dir()) == sorted(by_case)
    for case, candidates in by_case.items():
        folder = Path("out") / case
        assert sorted(path.name for path in folder.iterdir()) == [f"{case}.dcm", f"{case}_report.dcm"]
        segmentation = pydicom.dcmread(folder / f"{case}.dcm")
        assert segmentation.PatientID == case
        assert [s.SegmentLabel for s in segmentation.SegmentSequence] == [
            f"candidate {c.number} ({c.score:.2f})" for c in candidates
        ]
        numbers = read_image(oblique.audit / "maps" / f"{case}.nii.gz").array
        groups = groups_of(folder / f"{case}_report.dcm")
        for i, (c, group) in enumerate(zip(candidates, groups, strict=True), 1):
            assert group.tracking_identifier == f"candidate {c.number} ({c.score:.2f})"
            assert group.referenced_segment.referenced_sop_instance_uid == segmentation.SOPInstanceUID
            assert group.referenced_segment.referenced_segment_numbers == [i]
            volume, diameter, certainty = (item.value for item in group.get_measurements())
            assert volume == pytest.approx((numbers == c.number).sum() * VOXEL_MM3, abs=1e-3)
            assert diameter == pytest.approx(c.diameter_mm, abs=0.01)
            assert certainty == pytest.approx(100 * c.mean_probability, abs=0.01)
            np.testing.assert_allclose(
                places(folder / f"{case}.dcm", i).mean(axis=0), c.position_mm, atol=0.01, err_msg=f"{case} {c.number}"
            )


def test_accepted_candidates_alone(oblique: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    audit = read_audit(oblique.audit)
    first, second, last = audit.candidates[0], audit.candidates[1], audit.candidates[-1]
    words = ((first, "reject"), (second, "accept"), (last, "accept"))
    rows = [f"{audit.id},{c.case},{c.number},{word}" for c, word in words]
    Path("decisions.csv").write_text("\n".join(["audit,case,candidate,decision", *rows, ""]))
    assert main(arguments(oblique, "--shown", "2", "--accepted", "decisions.csv")) == 0
    for case, candidates in shown_by_case([second, last]).items():
        groups = groups_of(Path("out") / case / f"{case}_report.dcm")
        assert [group.tracking_identifier.split(" (")[0] for group in groups] == [
            f"candidate {c.number}" for c in candidates
        ]
    Path("decisions.csv").write_text(f"audit,case,candidate,decision\nother,{first.case},{first.number},accept\n")
    capsys.readouterr()
    assert main(arguments(oblique, "--overwrite", "--accepted", "decisions.csv")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"decisions.csv: expected decisions of audit {audit.id}" in line
    assert line.endswith("found other")


def test_the_study_that_a_case_was_converted_from(oblique: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    """Where names in the PACS are not those of cases, cases.csv says which study is whose."""
    for folder in (Path("pacs") / "p00", Path("pacs") / "p01"):
        for path in folder.rglob("*"):
            if path.is_file():
                dataset = pydicom.dcmread(path)
                dataset.PatientID = f"patient of {folder.name}"
                dataset.save_as(path)
    cases = {case for case in ("p00", "p01") if case in shown_by_case(read_audit(oblique.audit).candidates[:30])}
    assert cases
    chosen = ("--shown", "30", "--cases", *sorted(cases))
    assert main(arguments(oblique, *chosen)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2] for line in lines] == [f"case {case}" for case in sorted(cases)]
    assert all("rename the label map" in line for line in lines)
    study = {case: f"1.2.826.0.2.{sum(map(ord, case))}.20240101" for case in ("p00", "p01")}
    rows = [f"{case},{case},,{uid},train,3" for case, uid in study.items()]
    (oblique.raw / "cases.csv").write_text("\n".join(["case,patient,time_point,source,split,n_lesions", *rows, ""]))
    assert main(arguments(oblique, *chosen)) == 0
    for case in cases:
        assert pydicom.dcmread(Path("out") / case / f"{case}.dcm").PatientID == f"patient of {case}"


@pytest.mark.parametrize(
    ("series", "more", "said"),
    [
        ("", (), "--to dicom needs --series: any folder above the DICOM files that cases were converted from"),
        ("nowhere", (), "folder not found: nowhere (--series)"),
        ("pacs", ("--to", "slicer"), "--series is for --to dicom, got --to slicer"),
    ],
)
def test_wrong_inputs_are_one_line(
    oblique: Audited, capsys: pytest.CaptureFixture[str], series: str, more: Sequence[str], said: str
) -> None:
    assert main(arguments(oblique, *more, series=series)) == 2
    assert capsys.readouterr().err == f"lopsided-audit export: error: {said}\n"
    assert not Path("out").exists()


def test_it_is_not_read_back(oblique: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(oblique, "--shown", "3")) == 0
    capsys.readouterr()
    assert main(["import", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "dicom" in line
