"""UCSF-BMSR, NYUMets, Ljubljana MS, LiTS in both layouts."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, read_image

UCSF = ("T1pre", "T1post", "FLAIR", "subtraction", "T2Synth")


def add_ucsf(tree, case: str, *values: int, brats: tuple[int, ...] = ()) -> None:
    for name in UCSF:
        tree.image(f"UCSF_BrainMetastases_TRAIN/{case}/{case}_{name}.nii.gz")
    tree.label(f"UCSF_BrainMetastases_TRAIN/{case}/{case}_seg.nii.gz", *values)
    if brats:
        tree.label(f"UCSF_BrainMetastases_TRAIN/{case}/{case}_BraTS-seg.nii.gz", *brats)


def test_ucsf(tree, run, a_label) -> None:
    for case in ("100101A", "100101B", "100102A"):
        add_ucsf(tree, case, 1, 2, 7)
    folder = tree.root / "UCSF_BrainMetastases_TRAIN" / "100102A"
    (folder / "100102A_T1post.nii.gz").rename(folder / "100102A_t1post.nii.gz")
    (folder / "100102A_FLAIR.nii.gz").rename(folder / "100102A_Flair.nii.gz")
    written = run("ucsf-bmsr")
    assert written.channels == ["T1pre", "T1post", "FLAIR"]
    np.testing.assert_array_equal(written.label("100101A"), a_label(1, 1, 1))
    assert written.source_of("100102A", "T1post").name == "100102A_t1post.nii.gz"
    row = written.cases["100101B"]
    assert (row["patient"], row["time_point"], row["source"]) == ("100101", "B", "UCSF_BrainMetastases_TRAIN/100101B")
    for fold in written.splits:
        assert len({"100101A", "100101B"} & set(fold["val"])) in (0, 2)
    assert any("BraTS-METS" in note for note in written.converted.notes)
    assert run("ucsf-bmsr", channels=["T2Synth"], overwrite=True).channels == ["T2Synth"]


def test_ucsf_target_is_read_from_the_brats_segmentation(tree, run, a_label) -> None:
    add_ucsf(tree, "100101A", 1, 1, 1, brats=(1, 2, 3))
    add_ucsf(tree, "100102A", 1, brats=(3,))
    np.testing.assert_array_equal(run("ucsf-bmsr", target="ET").label("100101A"), a_label(0, 0, 1))


def test_nyumets(tree, run, a_label) -> None:
    for patient, study in (("00000012", "0000000001"), ("00000012", "0000000002"), ("00000034", "0000000003")):
        folder = f"NYUMets-Brain/imaging/patientId/{patient}/studyId/{study}"
        for name in ("T1", "CT1", "T2", "FLAIR", "RTSTRUCT_MRI"):
            tree.image(f"{folder}/{name}.nii.gz")
        if study != "0000000002":
            tree.label(f"{folder}/RTSTRUCT_segmentation.nii.gz", 1, 3)
    written = run("nyumets")
    assert written.channels == ["T1", "CT1", "T2", "FLAIR"]
    assert list(written.cases) == ["00000012_0000000001", "00000034_0000000003"]
    np.testing.assert_array_equal(written.label("00000034_0000000003"), a_label(1, 1))
    assert written.cases["00000034_0000000003"]["time_point"] == "0000000003"
    assert "1 studies without RTSTRUCT_segmentation are left out" in written.converted.notes
    assert any("not treated are not annotated" in note for note in written.conversion["notes"])


@pytest.mark.parametrize("prefix", ["", "patient01_"])
def test_ljubljana(tree, run, prefix) -> None:
    for name in ("FLAIR", "T1W", "T1WKS", "T2W", "brainmask"):
        tree.image(f"patient01/{prefix}{name}.nii.gz")
    tree.label(f"patient01/{prefix}consensus_gt.nii.gz", *[1] * 12)
    written = run("ljubljana-ms")
    assert written.channels == ["FLAIR", "T1W", "T1WKS", "T2W"]
    assert written.cases["patient01"]["n_lesions"] == "12"
    assert "only one patient to train on: no splits_final.json is written" in written.converted.notes


def add_lits(tree, *numbers: int) -> None:
    for number in numbers:
        batch = f"Training Batch {1 if number < 28 else 2}"
        tree.image(f"{batch}/volume-{number}.nii")
        tree.label(f"{batch}/segmentation-{number}.nii", 1, 2, 2)


def test_lits_with_the_papers_split(tree, run, a_label) -> None:
    add_lits(tree, 0, 27, 28, 32, 33, 130)
    tree.image("test-volume-0.nii")
    written = run("lits")
    assert written.channels == ["CT"]
    assert written.splits == [{"train": ["liver_130", "liver_33"], "val": ["liver_28", "liver_32"]}]
    sides = {name: row["split"] for name, row in written.cases.items()}
    assert [name for name in sides if sides[name] == "test"] == ["liver_0", "liver_27", "test_0"]
    assert written.names("labelsTs") == ["liver_0.nii.gz", "liver_27.nii.gz"]
    np.testing.assert_array_equal(written.label("liver_130"), a_label(0, 1, 1))
    np.testing.assert_array_equal(written.label("liver_0", "Ts"), a_label(0, 1, 1))


def test_lits_without_the_papers_split(tree, run) -> None:
    add_lits(tree, 0, 27, 28, 33)
    written = run("lits", split="all")
    assert {row["split"] for row in written.cases.values()} == {"train"}
    assert len(written.splits) == 4


def test_lits_as_task03(tree, run, a_label) -> None:
    for number in (0, 28, 33):
        tree.image(f"Task03_Liver/imagesTr/liver_{number}.nii.gz")
        tree.label(f"Task03_Liver/labelsTr/liver_{number}.nii.gz", 1, 2)
        tree.text(f"Task03_Liver/imagesTr/._liver_{number}.nii.gz")
    tree.image("Task03_Liver/imagesTs/liver_140.nii.gz")
    written = run("lits")
    assert {name: row["split"] for name, row in written.cases.items()} == {
        "liver_0": "test",
        "liver_140": "test",
        "liver_28": "train",
        "liver_33": "train",
    }
    assert written.source_of("liver_140", "CT", "Ts").name == "liver_140.nii.gz"
    np.testing.assert_array_equal(written.label("liver_33"), a_label(0, 1))


def test_lits_as_the_paper_had_it(tree, run) -> None:
    ct = np.full((20, 24, 30), 100, np.int16)
    ct[:, :, 15], ct[10, 12, 14] = -1024, 3000
    seg = np.zeros((20, 24, 30), np.uint8)
    seg[9:12, 10:14, 3:20], seg[10, 12, 14] = 1, 2
    oblique = Geometry((2.5, 0.7, 0.8), (10.0, 20.0, 30.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    for number in (28, 33):
        tree.write(f"Training Batch 2/volume-{number}.nii", ct, oblique)
        tree.write(f"Training Batch 2/segmentation-{number}.nii", seg, oblique)
    tree.image("test-volume-1.nii")
    written = run("lits", paper_images=True)
    image, label = read_image(written.image_path("liver_33", "CT")), written.label("liver_33")
    box = np.s_[4:17, 5:19, 0:25]  # five voxels around the liver, as far as there are any
    np.testing.assert_array_equal(image.array, np.clip(ct, -300, 300)[box])
    np.testing.assert_array_equal(label, (seg == 2)[box])
    # Voxel (5, 4) in (y, x) of the slice, through the rotation: x' = -0.7 * 5, y' = 0.8 * 0.
    assert image.geometry.origin_mm == pytest.approx((10.0 - 0.7 * 5, 20.0, 30.0 + 2.5 * 4), abs=1e-5)
    original = sitk.ReadImage(str(tree.root / "Training Batch 2" / "volume-33.nii"))
    assert image.geometry.origin_mm == pytest.approx(original.TransformIndexToPhysicalPoint((0, 5, 4)), abs=1e-5)
    assert "test_1 is left out: without a label there is no liver to crop to" in written.converted.notes

    tree.write("Training Batch 2/segmentation-33.nii", np.zeros_like(seg), oblique)
    with pytest.raises(InputError, match=r"case liver_33: .*nothing to crop to, the segmentation is empty"):
        run("lits", paper_images=True, overwrite=True)
    tree.write("Training Batch 2/segmentation-33.nii", seg[1:], oblique)
    with pytest.raises(InputError, match=r"segmentation-33.nii: expected shape \(20, 24, 30\), found \(19, 24, 30\)"):
        run("lits", paper_images=True, overwrite=True)


def test_lits_without_a_segmentation(tree, run) -> None:
    add_lits(tree, 0, 28, 33)
    (tree.root / "Training Batch 1" / "segmentation-0.nii").unlink()
    (tree.root / "Training Batch 2" / "segmentation-33.nii").unlink()
    with pytest.raises(InputError) as error:
        run("lits")
    assert "case liver_0: no label found in Training Batch 1" in str(error.value)
    assert "case liver_33: no label found in Training Batch 2" in str(error.value)


@pytest.mark.parametrize("converter", ["brainmetshare", "brats-mets", "ucsf-bmsr", "nyumets", "ljubljana-ms", "lits"])
def test_nothing_found(tree, run, raw, converter) -> None:
    tree.image("other/thing.nii.gz")
    with pytest.raises(InputError, match=r"release: no case found, expected "):
        run(converter)
    with pytest.raises(InputError, match="source folder not found"):
        run(converter, source=tree.root / "nowhere")
    with pytest.raises(InputError, match=r"channel must be one of .*, got 'nonsense'"):
        run(converter, channels=["nonsense"])
    assert not list(raw.iterdir())
