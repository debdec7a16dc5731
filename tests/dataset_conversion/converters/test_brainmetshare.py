"""BrainMetShare: PNG slices sorted by number, the NIfTI release, and a test set without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import read_image

ROOT = "stanford_release_brainmask"


def png(path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def add_png(tree, side: str, case: str, numbers, with_seg: bool = True, without: tuple[str, ...] = ()) -> None:
    """Slices whose grey values say channel and number; the lesion is in the slice with the highest number."""
    folder = tree.root / ROOT / f"mets_stanford_releaseMask_{side}" / case
    for number in numbers:
        for channel in "0123":
            if channel not in without:
                png(folder / channel / f"{number}.png", np.full((5, 7), 50 * int(channel) + number, np.uint8))
        if with_seg:
            seg = np.zeros((5, 7), np.uint8)
            seg[2, 3] = 255 * (number == max(numbers))
            png(folder / "seg" / f"{number}.png", seg)


def test_png_slices_are_stacked_by_number(tree, run) -> None:
    add_png(tree, "train", "Mets_005", range(12))
    add_png(tree, "train", "Mets_006", range(3))
    add_png(tree, "test", "Mets_300", range(3), with_seg=False)
    tree.text(f"{ROOT}/mets_stanford_releaseMask_train/Mets_005/0/._3.png")
    tree.text(f"{ROOT}/mets_stanford_releaseMask_train/Mets_005/0/Thumbs.db")
    written = run("brainmetshare")
    assert written.channels == ["bravo", "t1_pre", "t1_gd", "flair"]
    for index, channel in enumerate(written.channels):
        image = read_image(written.image_path("Mets_005", channel))
        assert image.array[:, 0, 0].tolist() == [50 * index + n for n in range(12)], "2 comes before 10"
        assert image.array.shape == (12, 5, 7)
        assert image.geometry.spacing_mm == pytest.approx((1.0, 0.94, 0.94))
    label = written.label("Mets_005")
    assert np.argwhere(label).tolist() == [[11, 2, 3]]
    assert set(np.unique(label)) == {0, 1}
    assert written.names("imagesTs") == [f"Mets_300_{i:04d}.nii.gz" for i in range(4)]
    assert not (written.folder / "labelsTs").exists()
    assert written.cases["Mets_300"]["split"] == "test"


def test_png_slices_that_do_not_match(tree, run) -> None:
    add_png(tree, "train", "Mets_001", range(3))
    add_png(tree, "train", "Mets_002", [0, 1, 3])
    add_png(tree, "train", "Mets_003", range(3))
    add_png(tree, "train", "Mets_004", range(3))
    folder = tree.root / ROOT / "mets_stanford_releaseMask_train"
    for number in range(3):
        (folder / "Mets_003" / "2" / f"{number}.png").rename(folder / "Mets_003" / "2" / f"{number + 10}.png")
    (folder / "Mets_004" / "1" / "2.png").unlink()
    with pytest.raises(InputError) as error:
        run("brainmetshare")
    message = str(error.value)
    assert "case Mets_002: channel bravo: " in message
    assert "slice 2.png is missing between 0 and 3" in message
    assert "case Mets_003: " in message
    assert "2 starts at slice 10, " in message
    assert "case Mets_004: channel t1_pre" in message
    assert "shape (2, 5, 7) versus (3, 5, 7)" in message
    assert "Mets_001" not in message


def test_png_values_other_than_0_and_255_are_refused(tree, run) -> None:
    add_png(tree, "train", "Mets_001", range(3))
    seg = np.full((5, 7), 128, np.uint8)
    png(tree.root / ROOT / "mets_stanford_releaseMask_train" / "Mets_001" / "seg" / "1.png", seg)
    with pytest.raises(InputError, match="unknown label value 128 in 35 voxels, expected 0, 1, 255"):
        run("brainmetshare")


@pytest.mark.parametrize("test_folder", ["test", "test1"])
def test_nifti_release(tree, run, test_folder) -> None:
    for side, case in (("train", "Mets_005"), ("train", "Mets_007"), (test_folder, "Mets_310")):
        for name in ("bravo", "t1_gd", "t1_pre", "flair"):
            tree.image(f"brainmetshare-3/{side}/{case}/{name}.nii.gz")
        if side == "train":
            tree.label(f"brainmetshare-3/{side}/{case}/seg.nii.gz", 1, 1)
    written = run("brainmetshare")
    assert written.channels == ["bravo", "t1_pre", "t1_gd", "flair"]
    assert written.source_of("Mets_005", "t1_gd").name == "t1_gd.nii.gz"
    assert written.source_of("Mets_310", "flair", "Ts").parent.name == "Mets_310"
    label = written.folder / "labelsTr" / "Mets_005.nii.gz"
    assert label.is_symlink(), "a label that stays as it is is linked"
    assert written.dataset_json["numTraining"] == 2
    assert written.cases["Mets_005"]["n_lesions"] == "2"


def test_a_test_case_that_lacks_a_sequence(tree, run) -> None:
    for case, names in (("Mets_1", ("bravo", "t1_gd", "t1_pre", "flair")), ("Mets_9", ("bravo", "t1_gd", "t1_pre"))):
        for name in names:
            tree.image(f"{'train' if case == 'Mets_1' else 'test'}/{case}/{name}.nii.gz")
    tree.label("train/Mets_1/seg.nii.gz", 1)
    with pytest.raises(InputError, match=r"^case Mets_9: missing in test/Mets_9: flair \(--missing-channel skip .*\)$"):
        run("brainmetshare")
    assert list(run("brainmetshare", missing_channel="skip").cases) == ["Mets_1"]


def test_a_training_case_without_label(tree, run) -> None:
    add_png(tree, "train", "Mets_001", range(2))
    add_png(tree, "train", "Mets_002", range(2), with_seg=False)
    with pytest.raises(InputError, match="case Mets_002: no label found"):
        run("brainmetshare")
