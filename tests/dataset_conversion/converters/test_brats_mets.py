"""BraTS-METS: layouts of three years, targets, overrides, stray labels, time points."""

from __future__ import annotations

import os

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import read_image

SEQUENCES = ("t1n", "t1c", "t2w", "t2f")


def add(tree, folder: str, case: str, *values: int, ending: str = ".nii.gz", without: tuple[str, ...] = ()) -> None:
    for sequence in SEQUENCES:
        if sequence not in without:
            tree.image(f"{folder}/{case}-{sequence}{ending}")
    if "seg" not in without:
        tree.label(f"{folder}/{case}-seg{ending}", *values)


def test_2023_training_and_additional_data(tree, run) -> None:
    first, second = "BraTS-MET-00001-000", "BraTS-MET-00002-000"
    add(tree, f"ASNR-MICCAI-BraTS2023-MET-Challenge-TrainingData/{first}", first, 1, 2, 3, 3)
    add(tree, f"ASNR-MICCAI-BraTS2023-MET-Challenge-TrainingData_Additional/{second}", second, 3)
    tree.text(f"__MACOSX/{first}/{first}-t1c.nii.gz", "resource fork")
    tree.text(f"ASNR-MICCAI-BraTS2023-MET-Challenge-TrainingData/{first}/._{first}-t1c.nii.gz", "resource fork")
    written = run("brats-mets")
    assert written.folder.name == "Dataset501_BraTSMETS"
    assert written.channels == list(SEQUENCES)
    assert written.dataset_json["labels"] == {"background": 0, "lesion": 1}
    assert (written.dataset_json["numTraining"], written.dataset_json["file_ending"]) == (2, ".nii.gz")
    assert written.names("labelsTr") == [f"{first}.nii.gz", f"{second}.nii.gz"]
    assert written.source_of(second, "t2w").name == f"{second}-t2w.nii.gz"
    assert written.cases[first] == {
        "case": first,
        "patient": "BraTS-MET-00001",
        "time_point": "000",
        "source": f"ASNR-MICCAI-BraTS2023-MET-Challenge-TrainingData/{first}",
        "split": "train",
        "n_lesions": "3",
    }


@pytest.mark.parametrize(("target", "lesion"), [("ET", {3}), ("TC", {1, 3}), ("WT", {1, 2, 3})])
def test_targets(tree, run, a_label, target, lesion) -> None:
    add(tree, "x", "BraTS-MET-00001-000", 1, 2, 3, 4)
    add(tree, "x", "BraTS-MET-00002-000", 3)
    written = run("brats-mets", target=target)
    expected = a_label(*(int(value in lesion) for value in (1, 2, 3, 4)))
    np.testing.assert_array_equal(written.label("BraTS-MET-00001-000"), expected)


def test_the_default_target_is_the_tumour_core(tree, run, a_label) -> None:
    add(tree, "x", "BraTS-MET-00001-000", 1, 2, 3, 4)
    np.testing.assert_array_equal(run("brats-mets").label("BraTS-MET-00001-000"), a_label(1, 0, 1, 0))


def test_2024_fixed_cases_replace_what_they_fix(tree, run) -> None:
    case = "BraTS-MET-00232-000"
    add(tree, ".", case, 3)
    (tree.root / f"{case}-t2w.nii.gz").write_bytes(b"broken")
    fixed = tree.image(f"fixed-cases/{case}/{case}-t2w.nii.gz")
    add(tree, ".", "BraTS-MET-00233-000", 3)
    written = run("brats-mets")
    assert written.source_of(case, "t2w") == fixed.resolve()
    assert written.source_of(case, "t2f") == (tree.root / f"{case}-t2f.nii.gz").resolve()
    note = f"fixed-cases/{case}/{case}-t2w.nii.gz is used instead of {case}-t2w.nii.gz"
    assert note in written.converted.notes
    assert note in written.conversion["notes"]


def test_2025_nested_folder_corrected_labels_and_time_points(tree, run, a_label) -> None:
    top = "MICCAI-LH-BraTS2025-MET-Challenge-Training"
    for number in (1, 2, 3):
        for time in (0, 1):
            case = f"BraTS-MET-{number:05d}-{time:03d}"
            add(tree, f"{top}/{case}", case, 3, 4)
    ucsd = "BraTS-MET-01184-002"
    add(tree, f"{top}/UCSD - Training/{ucsd}", ucsd, 8)
    tree.label(f"MICCAI-LH-BraTS2025-MET-Challenge-corrected-labels/{ucsd}-seg.nii.gz", 0, 3)
    written = run("brats-mets")
    assert len(written.cases) == 7
    np.testing.assert_array_equal(written.label(ucsd), a_label(0, 1))
    assert (written.cases[ucsd]["patient"], written.cases[ucsd]["time_point"]) == ("BraTS-MET-01184", "002")
    for fold in written.splits:
        assert not {n[:15] for n in fold["train"]} & {n[:15] for n in fold["val"]}
        assert sorted(fold["train"] + fold["val"]) == sorted(written.cases)
    assert len(written.splits) == 4, "one fold per patient, when there are fewer than five"
    assert sorted(case for fold in written.splits for case in fold["val"]) == sorted(written.cases)


def test_the_stray_label_of_one_case_is_known_and_of_others_refused(tree, run, a_label) -> None:
    add(tree, "x", "BraTS-MET-01094-002", 3, 6)
    written = run("brats-mets")
    np.testing.assert_array_equal(written.label("BraTS-MET-01094-002"), a_label(1, 0))
    assert written.conversion["label_fixes"] == {"BraTS-MET-01094-002": {"6": 0}}

    add(tree, "x", "BraTS-MET-00001-000", 3, 6)
    with pytest.raises(InputError, match=r"case BraTS-MET-00001-000: .*unknown label value 6 in 1 voxels, expected 0,"):
        run("brats-mets", overwrite=True)
    fixed = run("brats-mets", overwrite=True, label_fixes={"BraTS-MET-00001-000": {6: 3}})
    np.testing.assert_array_equal(fixed.label("BraTS-MET-00001-000"), a_label(1, 1))


def test_missing_t2w(tree, run) -> None:
    add(tree, "x", "BraTS-MET-00001-000", 3)
    add(tree, "x", "BraTS-MET-00002-000", 3, without=("t2w",))
    with pytest.raises(
        InputError, match=r"^case BraTS-MET-00002-000: missing in x: t2w \(--missing-channel skip .*\)$"
    ):
        run("brats-mets")
    skipped = run("brats-mets", missing_channel="skip")
    assert list(skipped.cases) == ["BraTS-MET-00001-000"]
    assert "left out because a channel is missing: BraTS-MET-00002-000" in skipped.converted.notes
    fewer = run("brats-mets", channels=["t1c", "T2F"], overwrite=True)
    assert (fewer.channels, len(fewer.cases)) == (["t1c", "t2f"], 2)
    assert fewer.source_of("BraTS-MET-00002-000", "t2f").name == "BraTS-MET-00002-000-t2f.nii.gz"


def test_uncompressed_copies_are_compressed(tree, run) -> None:
    add(tree, "x", "BraTS-MET-00001-000", 3, ending=".nii")
    add(tree, "x", "BraTS-MET-00002-000", 3)
    written = run("brats-mets")
    path = written.image_path("BraTS-MET-00001-000", "t1c")
    assert not path.is_symlink()
    assert path.read_bytes()[:8] == b"\x1f\x8b\x08" + bytes(5), "no name, no time"
    np.testing.assert_array_equal(
        read_image(path).array, read_image(tree.root / "x" / "BraTS-MET-00001-000-t1c.nii").array
    )
    assert written.source_of("BraTS-MET-00002-000", "t1c").is_file()


def test_validation_data_is_the_test_set(tree, run) -> None:
    add(tree, "BraTS2023-MET-Challenge-TrainingData", "BraTS-MET-00001-000", 3)
    add(tree, "BraTS2023-MET-Challenge-ValidationData", "BraTS-MET-00500-000", without=("seg",))
    written = run("brats-mets")
    assert written.names("imagesTs") == [f"BraTS-MET-00500-000_{i:04d}.nii.gz" for i in range(4)]
    assert not (written.folder / "labelsTs").exists()
    assert written.cases["BraTS-MET-00500-000"]["n_lesions"] == ""

    add(tree, "BraTS2023-MET-Challenge-TrainingData", "BraTS-MET-00002-000", without=("seg",))
    with pytest.raises(InputError, match="case BraTS-MET-00002-000: no label found in BraTS2023-MET-Challenge-Train"):
        run("brats-mets", overwrite=True)


def test_two_files_for_one_role(tree, run) -> None:
    add(tree, "x", "BraTS-MET-00001-000", 3)
    tree.image("y/BraTS-MET-00001-000-t1c.nii.gz")
    tree.image("x/BraTS-MET-00001-000-t1n.nii")
    with pytest.raises(InputError) as error:
        run("brats-mets")
    assert "two files for t1c: x/BraTS-MET-00001-000-t1c.nii.gz and y/BraTS-MET-00001-000-t1c.nii.gz" in str(
        error.value
    )
    assert "two files for t1n: x/BraTS-MET-00001-000-t1n.nii and x/BraTS-MET-00001-000-t1n.nii.gz" in str(error.value)


def test_a_folder_whose_name_is_not_utf8(tree, run) -> None:
    add(tree, "good", "BraTS-MET-00001-000", 1)
    add(tree, "bad", "BraTS-MET-00002-000", 1)
    os.rename(os.fsencode(tree.root / "bad"), os.fsencode(tree.root / "bad") + b"\xff")
    with pytest.raises(InputError, match=r"BraTS-MET-00002-000.*is not UTF-8: rename the file"):
        run("brats-mets")
