"""What docs/how-to/convert-a-dataset.md finds below ``/data``: releases as they are published, holding phantoms."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nnunet_lopsided.dataset_conversion.phantom import write_phantom_dataset
from nnunet_lopsided.images import Image, write_image
from tests.dataset_conversion.converters.conftest import Tree
from tests.dataset_conversion.converters.test_luna16 import SESSIONS, add_scan, add_xml
from tests.dicom.conftest import Scanner
from tests.documentation.shell import Shell

CHANNELS = ("t1", "t1c", "t1c_spin_echo", "flair")  # of a phantom, in its order


def phantom_cases(n: int) -> Iterator[tuple[int, dict[str, Path]]]:
    """Cases of 12 x 32 x 32, counted from 1: the file of each channel, and ``seg``; only while it is asked for more."""
    folder = write_phantom_dataset(
        900, n_train=n, n_test=0, shape=(12, 32, 32), spacing_mm=(5, 4, 4), seed=3, name="Source"
    )
    for number, label in enumerate(sorted((folder / "labelsTr").iterdir()), 1):
        case = label.name.removesuffix(".nii.gz")
        images = {name: folder / "imagesTr" / f"{case}_{i:04d}.nii.gz" for i, name in enumerate(CHANNELS)}
        yield number, images | {"seg": label}
    shutil.rmtree(folder)


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def clinic(shell: Shell) -> None:
    """``data/clinic``: a folder for every patient, with two channels and a label map."""
    for number, files in phantom_cases(6):
        for kind in ("t1c", "flair", "seg"):
            copy(files[kind], shell.folder / f"data/clinic/sub-{number:02d}/sub-{number:02d}_{kind}.nii.gz")


def releases(shell: Shell) -> None:
    """``data`` with BraTS2025-METS, clinic (two sessions a patient), study (BIDS), pacs, LUNA16 and ljubljana-ms."""
    data = shell.folder / "data"
    for number, files in phantom_cases(6):
        brats, patient, session = f"BraTS-MET-{number:05d}-000", f"sub-{(number + 1) // 2:02d}", f"ses-{number % 2}"
        bids, ms = f"sub-{number:02d}", data / f"ljubljana-ms/patient{number:02d}"
        for kind, ours, theirs in zip(
            ("t1n", "t1c", "t2w", "t2f"), CHANNELS, ("T1W", "T1WKS", "T2W", "FLAIR"), strict=True
        ):
            copy(files[ours], data / f"BraTS2025-METS/{brats}/{brats}-{kind}.nii.gz")
            copy(files[ours], ms / f"{theirs}.nii.gz")
        copy(files["seg"], data / f"BraTS2025-METS/{brats}/{brats}-seg.nii.gz")
        copy(files["seg"], ms / "consensus_gt.nii.gz")
        for kind in ("t1c", "flair", "seg"):
            copy(files[kind], data / f"clinic/{patient}_{session}_{kind}.nii.gz")
        copy(files["t1"], data / f"study/{bids}/anat/{bids}_T1w.nii.gz")
        copy(files["t1c"], data / f"study/{bids}/anat/{bids}_ce-gd_T1w.nii.gz")
        copy(files["seg"], data / f"study/derivatives/lesions/{bids}/anat/{bids}_label-lesion_mask.nii.gz")
    luna16(data / "LUNA16")
    pacs(shell, data)


def luna16(root: Path) -> None:
    """Scans that four readers have read."""
    root.mkdir()
    tree = Tree(root)
    for number, subset in ((101, 0), (102, 5), (103, 5), (107, 7), (109, 9)):
        add_xml(tree, add_scan(tree, subset, number), SESSIONS)


def pacs(shell: Shell, data: Path) -> None:
    """Studies of three patients with their DICOM SEG, and label maps ``predicted`` of them."""
    from nnunet_lopsided.dicom.series import series_of
    from nnunet_lopsided.dicom.studies import studies_of

    scanner = Scanner(data / "pacs")
    voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    for patient in ("P1", "P2", "P3"):
        for description in ("t1 mprage post", "FLAIR"):
            scanner.series(patient, description, voxels)
    (data / "predicted").mkdir()
    series, _ = series_of(sorted(path for path in (data / "pacs").rglob("*") if path.is_file()))
    label = np.zeros((4, 5, 6), np.uint8)
    label[1, 2, 3:5] = 1
    for study in studies_of(series):
        write_image(data / f"predicted/{study.case}.nii.gz", Image(label, study.series[0].header().geometry))
    shell.run("lopsided-dicom -i data/predicted --series data/pacs -o data/pacs/seg")
