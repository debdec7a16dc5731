"""A folder as it comes from a clinic: what a new user is told, and that the options named there mend it exactly."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lopsided.commands.convert import main
from nnunet_lopsided.dataset_conversion.converters.orientation import direction_of
from nnunet_lopsided.images import Geometry, Image, read_image, write_image

SHAPE = (4, 6, 8)
LPS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GRID = Geometry((2.0, 1.0, 1.0), (-3.0, 4.0, 5.0), LPS)
# Half as many voxels along x, from elsewhere: the centres lie within those of GRID's outer voxels and beyond.
OTHER_GRID = Geometry((1.0, 1.0, 2.0), (-5.0, 3.0, 4.0), LPS)
LESION = ((1, 2, 3), (1, 2, 4), (2, 2, 3), (3, 5, 7))  # (z, y, x): no axis can be exchanged or flipped unnoticed
SCANS = (*(f"P{i:02d}" for i in range(1, 22)), "P22_ses-1", "P22_ses-2")


def places_mm(shape: tuple[int, ...], geometry: Geometry) -> NDArray[np.float64]:
    """Where the voxels lie, of shape (*shape, 3), in (x, y, z)."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)[..., ::-1]
    steps = indices * np.array(geometry.spacing_mm[::-1])
    return steps @ np.array(geometry.direction).reshape(3, 3).T + geometry.origin_mm


def field(shape: tuple[int, ...], geometry: Geometry) -> NDArray[np.float64]:
    """An intensity that is linear in the place: interpolated, it is the same again."""
    return (places_mm(shape, geometry) @ (1.0, 10.0, 100.0) + 300).astype(np.float32)


def write_scan(folder: Path, scan: str) -> None:
    folder.mkdir(parents=True)
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(np.transpose(LESION))] = 1
    for channel in ("t1c", "t2"):
        write_image(folder / f"{scan}_{channel}.nii.gz", Image(field(SHAPE, GRID), GRID))
    write_image(folder / f"{scan}_seg.nii.gz", Image(mask, GRID))


def permuted(image: Image) -> Image:
    """The same mask with its axes (x, y, z) stored as (z, -x, y), as sagittal tools write them."""
    array = np.flip(image.array.transpose(1, 2, 0), 1)  # (y, x, z), x backwards
    columns = np.array([[0, -1, 0], [0, 0, 1], [1, 0, 0]], float)
    last_x = image.geometry.origin_mm[0] + (image.shape[2] - 1) * image.geometry.spacing_mm[2]
    spacing = (image.geometry.spacing_mm[1], image.geometry.spacing_mm[2], image.geometry.spacing_mm[0])
    return Image(array, Geometry(spacing, (last_x, *image.geometry.origin_mm[1:]), tuple(columns.ravel().tolist())))


@pytest.fixture
def clinic(nnunet_paths: Path) -> Path:
    source = nnunet_paths / "clinic"
    for scan in SCANS:
        write_scan(source / scan, scan)
    mask = source / "P03" / "P03_seg.nii.gz"
    write_image(mask, permuted(read_image(mask)))
    write_image(source / "P05" / "P05_t2.nii.gz", Image(field((9, 9, 8), OTHER_GRID), OTHER_GRID))
    of_255 = read_image(source / "P09" / "P09_seg.nii.gz")
    write_image(source / "P09" / "P09_seg.nii.gz", Image(of_255.array.astype(np.uint8) * np.uint8(255), GRID))
    write_scan(source / "derivatives" / "old" / "P01", "P01")
    return source


def command(clinic: Path, *more: str) -> list[str]:
    patterns = ["--channels", "t1c=*_t1c.nii.gz", "t2=*_t2.nii.gz", "--labels", "*_seg.nii.gz"]
    return ["folder", str(clinic), "-d", "502", "--name", "Clinic", *patterns, *more]


MENDED = ("--ignore", "derivatives", "--reorient", "--resample-channels", "--fix-label", "P09:255=1")


def test_what_a_new_user_is_told(clinic: Path, nnunet_paths: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(clinic)) == 2
    lines = [line.removeprefix("lopsided-convert: error: ") for line in capsys.readouterr().err.splitlines()]
    lines = [line for line in lines if not line.startswith("cases:")]
    beginnings = ("2 cases look like", "case P01", "case P01", "case P01", "case P03", "case P05", "case P09")
    assert len(lines) == len(beginnings)
    assert all(line.startswith(beginning) for line, beginning in zip(lines, beginnings, strict=True))
    of_p01, told = " ".join(lines[1:4]), dict(zip(beginnings, lines, strict=True))
    assert of_p01.count("two files for") == of_p01.count("--ignore FOLDER") == 3
    assert "--reorient" in told["case P03"]
    assert "--resample-channels" in told["case P05"]
    assert "--fix-label P09:255=1" in told["case P09"]
    assert "P22_ses-1, P22_ses-2 of P22" in told["2 cases look like"]
    assert not list((nnunet_paths / "nnUNet_raw").iterdir())
    # What it proposes works as it stands there.
    words = shlex.split(told["2 cases look like"])
    proposed = words[words.index("--patients-regex") + 1].rstrip(",")
    assert main(command(clinic, *MENDED, "--patients-regex", proposed)) == 0
    cases = (nnunet_paths / "nnUNet_raw" / "Dataset502_Clinic" / "cases.csv").read_text().splitlines()
    assert [row.split(",")[1:3] for row in cases[-3:]] == [["P21", ""], ["P22", "ses-1"], ["P22", "ses-2"]]


def test_it_is_mended_exactly(clinic: Path, nnunet_paths: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{scan},{scan[:3]}\n" for scan in SCANS)
    (clinic / "patients.csv").write_text("case,patient\n" + rows)
    options = (*MENDED, "--patients", str(clinic / "patients.csv"))
    assert main(command(clinic, *options, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert out.endswith("would hold 23 training cases, 46 lesions, of 22 patients; nothing was written\n")
    assert "P03" in out
    assert "label: turned from " in out
    assert not list((nnunet_paths / "nnUNet_raw").iterdir())
    assert main(command(clinic, *options)) == 0
    folder = nnunet_paths / "nnUNet_raw" / "Dataset502_Clinic"
    for scan in SCANS:
        label = read_image(folder / "labelsTr" / f"{scan}.nii.gz")
        assert tuple(map(tuple, np.argwhere(label.array == 1))) == LESION, scan
        assert label.array.max() == 1
        assert label.geometry.difference(GRID, 1e-6) is None
        for index in (0, 1):
            image = read_image(folder / "imagesTr" / f"{scan}_{index:04d}.nii.gz")
            assert image.geometry.difference(GRID, 1e-6) is None
            np.testing.assert_allclose(image.array.astype(np.float64), field(SHAPE, GRID), rtol=0, atol=1e-3)
    linked = {path.name for path in (folder / "imagesTr").iterdir() if path.is_symlink()}
    assert len(linked) == 2 * 23 - 1, "only what is changed is written anew"
    about = json.loads((folder / "conversion.json").read_text())
    assert about["reorient"] == "first"
    assert set(about["changed_images"]) == {"P03", "P05"}
    assert about["changed_images"]["P03"]["label"] == "turned from SRP to LPS"
    assert about["changed_images"]["P05"]["t2"].startswith("resampled (linear, 32-bit float")


def test_one_orientation_for_all_cases(clinic: Path, nnunet_paths: Path) -> None:
    given = (*MENDED, "--patients-regex", "(.+)")
    options = ["--reorient=RAS" if option == "--reorient" else option for option in given]
    assert main(command(clinic, *options)) == 0
    folder = nnunet_paths / "nnUNet_raw" / "Dataset502_Clinic"
    for scan in ("P01", "P03"):
        label = read_image(folder / "labelsTr" / f"{scan}.nii.gz")
        np.testing.assert_allclose(np.array(label.geometry.direction).reshape(3, 3), direction_of("RAS"))
        image = read_image(folder / "imagesTr" / f"{scan}_0000.nii.gz")
        np.testing.assert_allclose(
            image.array.astype(np.float64), field(image.shape, image.geometry), rtol=0, atol=1e-3
        )
        before = places_mm(SHAPE, GRID)[tuple(np.transpose(LESION))]
        after = places_mm(label.shape, label.geometry)[label.array == 1]
        assert sorted(map(tuple, after.tolist())) == sorted(map(tuple, before.tolist()))


def test_a_channel_that_shows_nothing_of_the_label(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    far = Geometry((2.0, 1.0, 1.0), (-3.0, 4.0, 500.0), LPS)
    write_image(clinic / "P06" / "P06_t2.nii.gz", Image(field(SHAPE, far), far))
    assert main(command(clinic, *MENDED, "--patients-regex", "(.+)")) == 2
    assert "case P06: channel t2 (" in capsys.readouterr().err


def test_patterns_that_match_nothing_are_a_line_each(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["folder", str(clinic), "-d", "502", "--ignore", "derivatives", "spam", "--patients-regex", r"P(\d\d)$"]
    arguments += ["--channels", "t1c=*_T1C.nii.gz", "t2=*_t2.nii.gz", "--labels", "*_mask.nii.gz"]
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert (
        sum("--channels t1c=*_T1C.nii.gz matches no file (46 image files match no pattern: " in x for x in lines) == 1
    )
    assert sum("--labels *_mask.nii.gz matches no file" in line for line in lines) == 1
    finds_none = [line for line in lines if "finds no patient" in line]
    assert [line.split()[3] for line in finds_none] == ["P22_ses-1:", "P22_ses-2:"], "and hides nothing"
    assert len(lines) == 4


def test_channels_alone_may_be_turned(clinic: Path, nnunet_paths: Path) -> None:
    turned = permuted(Image(field(SHAPE, GRID), GRID))
    write_image(clinic / "P02" / "P02_t1c.nii.gz", turned)
    options = ("--ignore", "derivatives", "--reorient", "--exclude", "P05", "P09", "--patients-regex", "(.+)")
    assert main(command(clinic, *options)) == 0
    folder = nnunet_paths / "nnUNet_raw" / "Dataset502_Clinic"
    images = [read_image(folder / "imagesTr" / f"P02_{index:04d}.nii.gz") for index in (0, 1)]
    assert images[0].geometry.difference(images[1].geometry, 1e-6) is None
    np.testing.assert_array_equal(images[0].array, turned.array, "the first channel says which way")
    np.testing.assert_array_equal(images[1].array, turned.array)
