"""The generic converter: patterns, patients, label values, 2D images."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Image, write_image

FLAT = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))


def test_a_folder_per_case(tree, run) -> None:
    for case in ("sub-01", "sub 02"):
        tree.image(f"data/{case}/flair.nii.gz")
        tree.label(f"data/{case}/masks/lesions.nii.gz", 1)
        (tree.root / "data" / case / "masks" / "lesions.nii.gz").rename(tree.root / "data" / case / "lesions.nii.gz")
    written = run("folder", channels={"FLAIR": "flair.nii.gz"}, label="lesions.nii.gz")
    assert list(written.cases) == ["sub-01", "sub_02"]
    assert written.cases["sub_02"]["source"] == "data/sub 02"


def test_a_folder_per_channel(tree, run) -> None:
    for case in ("a", "b"):
        tree.image(f"t1/{case}.nii.gz")
        tree.image(f"deep/er/t2/{case}.nii.gz")
        tree.label(f"masks_v2/{case}.nii.gz", 1)
    written = run("folder", channels={"T2": "t2/*.nii.gz", "T1": "t1/*.nii.gz"}, label="masks_*/*.nii.gz")
    assert written.channels == ["T2", "T1"]
    assert written.source_of("b", "T2") == (tree.root / "deep/er/t2/b.nii.gz").resolve()


def test_label_values(tree, run, a_label) -> None:
    tree.image("a_x.nii.gz")
    tree.label("a_y.nii.gz", 1, 2, 3)
    options = {"channels": {"X": "*_x.nii.gz"}, "label": "*_y.nii.gz"}
    with pytest.raises(InputError, match="unknown label value 2, 3 in 2 voxels, expected 0, 1"):
        run("folder", **options)
    some = run("folder", lesion_values=[1, 3], other_values=[2], **options)
    np.testing.assert_array_equal(some.label("a"), a_label(1, 0, 1))
    every = run("folder", lesion_values=None, overwrite=True, **options)
    np.testing.assert_array_equal(every.label("a"), a_label(1, 1, 1))


def test_2d_png_stays_png(tree, run) -> None:
    rng = np.random.default_rng(0)
    for case in "ab":
        tree.write(f"{case}_im.png", rng.integers(0, 255, (9, 11)).astype(np.uint8), FLAT)
        tree.write(f"{case}_mask.png", (rng.random((9, 11)) < 0.05).astype(np.uint8) * 255, FLAT)
    written = run("folder", channels={"grey": "*_im.png"}, label="*_mask.png", lesion_values=[255])
    assert written.dataset_json["file_ending"] == ".png"
    assert written.names("labelsTr") == ["a.png", "b.png"]
    assert written.image_path("a", "grey").is_symlink()


def test_patients_by_regex(tree, run) -> None:
    for case in ("sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"):
        tree.image(f"{case}_x.nii.gz")
        tree.label(f"{case}_y.nii.gz", 1)
    options = {"channels": {"X": "*_x.nii.gz"}, "label": "*_y.nii.gz"}
    written = run("folder", patients_regex=r"(sub-\d+)_(ses-\d+)", **options)
    assert [(row["patient"], row["time_point"]) for row in written.cases.values()] == [
        ("sub-01", "ses-1"),
        ("sub-01", "ses-2"),
        ("sub-02", "ses-1"),
    ]
    for regex, message in (("(sub", "is not a regular expression"), ("patient(.)", "finds no patient")):
        with pytest.raises(InputError, match=message):
            run("folder", patients_regex=regex, overwrite=True, **options)


def test_one_case_name_in_two_folders_is_refused(tree, run) -> None:
    for folder in ("site1", "site2"):
        tree.image(f"{folder}/001_x.nii.gz")
        tree.label(f"{folder}/001_y.nii.gz", 1)
    with pytest.raises(InputError) as error:
        run("folder", channels={"X": "*_x.nii.gz"}, label="*_y.nii.gz")
    assert "case 001: two files for X: site1/001_x.nii.gz and site2/001_x.nii.gz" in str(error.value)


def test_patterns_that_cannot_work(tree, run) -> None:
    with pytest.raises(InputError, match=r"at most one \* in the file name, got '\*_\*.nii.gz'"):
        run("folder", channels={"X": "*_*.nii.gz"}, label="*_y.nii.gz")
    with pytest.raises(InputError, match="no case found, expected files that match the patterns"):
        run("folder", channels={"X": "*_x.nii.gz"}, label="*_y.nii.gz")


@pytest.mark.parametrize("flat_file", ["a_x.nii.gz", "a_z.nii.gz", "a_y.nii.gz"])
def test_a_flat_image_among_volumes_is_named(tree, run, flat_file) -> None:
    for channel in ("x", "z"):
        tree.image(f"a_{channel}.nii.gz")
    tree.label("a_y.nii.gz", 1)
    write_image(tree.root / flat_file, Image(np.ones((4, 5), np.uint8), FLAT))
    with pytest.raises(InputError, match=r"case a: .*shape "):
        run("folder", channels={"X": "*_x.nii.gz", "Z": "*_z.nii.gz"}, label="*_y.nii.gz")
