"""A censored dataset with its whole one, and the out-of-fold predictions of a cross-validation."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.images import Geometry, Image, write_image

# x grows to the patient's left, y to the back, z to the head; voxels of 3 x 1 x 1 mm.
GEOMETRY = Geometry((3.0, 1.0, 1.0), (-20.0, -30.0, 40.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
SHAPE = (6, 36, 36)
PLACES = [(z, y, x) for z in (1, 4) for y in range(2, 36, 8) for x in range(2, 36, 8)]
TRAINER, MODEL = "nnUNetTrainerLopsided", "nnUNetTrainerLopsided__nnUNetPlans__2.5d"
N_CASES = 10


def _turned():
    """About z by 20 degrees, then about x by 15; x mirrored."""
    a, b = np.deg2rad((20, 15))
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_x @ about_z @ np.diag([-1, 1, 1])


TURNED = Geometry((3.0, 1.3, 0.9), (-20.5, 31.0, 47.0), tuple(_turned().ravel().tolist()))


@dataclass(frozen=True)
class Audited:
    """Dataset501_Whole has 6 lesions per case, Dataset511_Cut 3 of them; every prediction finds all, and 2 more."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / "Dataset511_Cut"

    @property
    def whole(self) -> Path:
        return self.root / "nnUNet_raw" / "Dataset501_Whole"

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / "Dataset511_Cut"

    @property
    def results(self) -> Path:
        return self.root / "nnUNet_results" / "Dataset511_Cut" / MODEL

    @property
    def audit(self) -> Path:
        return self.results / "audit"

    def validation(self, fold: int) -> Path:
        return self.results / f"fold_{fold}" / "validation"

    def edit_splits(self, change) -> None:
        path = self.preprocessed / "splits_final.json"
        splits = json.loads(path.read_text())
        change(splits)
        path.write_text(json.dumps(splits))

    def write_checkpoints(self, configurations=None) -> None:
        for fold in (0, 1):
            (self.results / f"fold_{fold}" / "checkpoint_final.pth").write_bytes(b"")
        content = {"configurations": configurations or {"2.5d": {}}}
        (self.results / "plans.json").write_text(json.dumps(content))


def cube(place, size):
    z, y, x = place
    return slice(z, z + 1), slice(y, y + size), slice(x, x + size)


def write_datasets(root: Path, geometry: Geometry = GEOMETRY) -> None:
    rng = np.random.default_rng(5)
    cases = [f"p{i:02d}" for i in range(N_CASES)]
    folds = [cases[::2], cases[1::2]]
    for name in ("Dataset501_Whole", "Dataset511_Cut"):
        for part in ("imagesTr", "labelsTr"):
            (root / "nnUNet_raw" / name / part).mkdir(parents=True)
    preprocessed = root / "nnUNet_preprocessed" / "Dataset511_Cut"
    (preprocessed / "gt_segmentations").mkdir(parents=True)
    for i, case in enumerate(cases):
        images = [rng.normal(100, 2, SHAPE).astype(np.float32) for _ in range(2)]
        whole, cut, probability = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.float32)
        for n, place in enumerate(rng.permutation(len(PLACES))[:8]):
            box = cube(PLACES[place], int(rng.integers(2, 5)))
            if n < 6:
                images[0][box] += 30
                images[1][box] -= 10
                whole[box] = 1
                cut[box] = n < 3
                probability[box] = rng.uniform(0.6, 0.99)
            else:
                images[0][box] += 3
                probability[box] = rng.uniform(0.15, 0.5)
        for name, label in (("Dataset501_Whole", whole), ("Dataset511_Cut", cut)):
            folder = root / "nnUNet_raw" / name
            for channel, image in enumerate(images):
                write_image(folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz", Image(image, geometry))
            write_image(folder / "labelsTr" / f"{case}.nii.gz", Image(label, geometry))
        write_image(preprocessed / "gt_segmentations" / f"{case}.nii.gz", Image(cut, geometry))
        validation = root / "nnUNet_results" / "Dataset511_Cut" / MODEL / f"fold_{i % 2}" / "validation"
        validation.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(validation / f"{case}.npz", probabilities=np.stack([1 - probability, probability]))
        write_image(validation / f"{case}.nii.gz", Image((probability > 0.5).astype(np.uint8), geometry))
    content = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": N_CASES,
        "file_ending": ".nii.gz",
    }
    for folder in (root / "nnUNet_raw" / "Dataset501_Whole", root / "nnUNet_raw" / "Dataset511_Cut", preprocessed):
        (folder / "dataset.json").write_text(json.dumps(content))
    splits = [{"train": folds[1 - i], "val": folds[i]} for i in range(2)]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))


def add_specks(audited: Audited, rows: range) -> None:
    """False positives in the slices of the lesions, none beside a lesion or another one, as probable as lesions."""
    rng = np.random.default_rng(1)
    for path in sorted(audited.results.glob("fold_*/validation/*.npz")):
        probability = np.load(path)["probabilities"][1]
        assert probability.shape == SHAPE
        for z, y, x in np.array(np.meshgrid((1, 4), rows, range(0, 12, 2))).reshape(3, -1).T:
            if not probability[z, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3].any():
                probability[z, 3 * y + 1, 3 * x + 1] = rng.uniform(0.5, 1)
        np.savez_compressed(path, probabilities=np.stack([1 - probability, probability]))
        path.with_suffix(".nii.gz").unlink()  # it no longer fits


def set_root(root: Path, patch: pytest.MonkeyPatch) -> None:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        patch.setenv(variable, str(root / variable))


def copied(root: Path, folder: Path, patch: pytest.MonkeyPatch) -> Audited:
    """A copy in a folder, with nnU-Net's paths set to it and the folder the current one."""
    shutil.copytree(root, folder / "nnunet")
    set_root(folder / "nnunet", patch)
    patch.chdir(folder)
    return Audited(folder / "nnunet")


@pytest.fixture(scope="session")
def datasets_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("audited")
    write_datasets(root)
    return root


@pytest.fixture
def audited(datasets_once, tmp_path, monkeypatch):
    """Copies that may be changed, with nnU-Net's paths set to them."""
    return copied(datasets_once, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def written_once(datasets_once, tmp_path_factory):
    from nnunet_lopsided.commands.audit import main

    root = tmp_path_factory.mktemp("written") / "nnunet"
    shutil.copytree(datasets_once, root)
    with pytest.MonkeyPatch.context() as patch:
        set_root(root, patch)
        assert main(["-d", "511", "-c", "2.5d", "--bootstrap", "50"]) == 0
    return root


@pytest.fixture
def written(written_once, tmp_path, monkeypatch):
    """The same with its audit, written where audits are by default."""
    return copied(written_once, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def turned_once(tmp_path_factory):
    """An audit of cases whose axes are turned and mirrored."""
    from nnunet_lopsided.commands.audit import main

    root = tmp_path_factory.mktemp("turned") / "nnunet"
    with pytest.MonkeyPatch.context() as patch:
        write_datasets(root, TURNED)
        set_root(root, patch)
        assert main(["-d", "511", "-c", "2.5d", "--bootstrap", "0", "--shown", "0"]) == 0
    return root


@pytest.fixture
def turned(turned_once, tmp_path, monkeypatch):
    """A copy that may be changed."""
    return copied(turned_once, tmp_path, monkeypatch)
