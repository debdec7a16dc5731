"""A dataset of procedural brains in nnU-Net's raw layout, for tests and demos."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nnunet_lopsided import __version__
from nnunet_lopsided.dataset_conversion.phantom_case import SEQUENCES, Phantom, PhantomSettings, PlantedLesion
from nnunet_lopsided.dataset_conversion.phantom_drawing import make_phantom
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.images import Geometry, Image, write_image
from nnunet_lopsided.nnunet.paths import new_dataset_name
from nnunet_lopsided.nnunet.raw import new_raw_dataset
from nnunet_lopsided.progress import with_progress
from nnunet_lopsided.running import end_with_parent

__all__ = [
    "LABELS",
    "SEQUENCES",
    "Phantom",
    "PhantomSettings",
    "PlantedLesion",
    "case_names",
    "case_seed",
    "make_phantom",
    "write_phantom_dataset",
]

_Job = tuple[Path, str, int, tuple[int, ...], tuple[float, ...], int, PhantomSettings]
LABELS = {"background": 0, "lesion": 1}


def case_seed(seed: int, split: str, index: int) -> np.random.SeedSequence:
    """The seed of case ``index`` of ``split`` ("Tr" or "Ts"); it does not depend on how many cases there are."""
    # A key per case, not one stream for all: more training cases leave the test cases what they were.
    return np.random.SeedSequence(seed, spawn_key=(("Tr", "Ts").index(split), index))


def write_phantom_dataset(
    dataset_id: int,
    *,
    n_train: int,
    n_test: int,
    shape: Sequence[int] = (24, 64, 64),
    spacing_mm: Sequence[float] = (2.0, 2.0, 2.0),
    seed: int = 0,
    settings: PhantomSettings | None = None,
    name: str = "Phantom",
    overwrite: bool = False,
    n_workers: int = 1,
) -> Path:
    """Write ``DatasetXXX_NAME`` below ``nnUNet_raw``: images, labels, test images with labels, and what made them.

    The folder appears only when complete.

    Args:
        dataset_id: 1 to 999, not in use below any nnU-Net path.
        n_train: training cases, at least 1.
        n_test: test cases, 0 or more.
        shape: (z, y, x) of every case.
        spacing_mm: voxel size (z, y, x).
        seed: non-negative; case k is the same whatever ``n_train`` and ``n_test`` are.
        settings: what to draw.
        name: the part of the folder name after the id.
        overwrite: replace a raw dataset of the same id and name.
        n_workers: worker processes; 1 works in this one.

    Returns:
        The dataset folder.

    Raises:
        InputError: a number is out of range, or the id is in use.
    """
    settings = settings or PhantomSettings()
    if n_train < 1 or n_test < 0 or seed < 0 or n_workers < 1:
        raise InputError(
            "expected n_train >= 1, n_test >= 0, seed >= 0 and n_workers >= 1, "
            f"got {n_train}, {n_test}, {seed} and {n_workers}"
        )
    cases = [("Tr", i) for i in range(n_train)] + [("Ts", i) for i in range(n_test)]
    with new_raw_dataset(dataset_id, name, marker="phantom.json", overwrite=overwrite) as folder:
        for kind in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (folder / kind).mkdir()
        jobs = [(folder, split, index, tuple(shape), tuple(spacing_mm), seed, settings) for split, index in cases]
        written = with_progress(_write_all(jobs, n_workers), total=len(jobs), title="phantoms", unit="case")
        # Nothing is kept of the cases that are written; the deque only runs the iterator to its end.
        deque(written, maxlen=0)
        channels = {str(i): sequence for i, sequence in enumerate(SEQUENCES)}
        described = {"channel_names": channels, "labels": LABELS, "numTraining": n_train, "file_ending": ".nii.gz"}
        write_json(folder / "dataset.json", described)
        drawn = {"shape": list(shape), "spacing_mm": list(spacing_mm), "settings": asdict(settings)}
        made = {"version": __version__, "seed": seed, "n_train": n_train, "n_test": n_test, **drawn}
        write_json(folder / "phantom.json", made)
        final = folder.parent / new_dataset_name(dataset_id, name)
    return final


def _write_all(jobs: list[_Job], n_workers: int) -> Iterator[str]:
    if n_workers == 1:
        yield from map(_write_case, jobs)
    else:
        # Workers that outlived a killed command would go on writing into a folder that the next run removes.
        with ProcessPoolExecutor(n_workers, initializer=end_with_parent) as pool:
            yield from pool.map(_write_case, jobs)


def _write_case(job: _Job) -> str:
    folder, split, index, shape, spacing_mm, seed, settings = job
    phantom = make_phantom(shape, spacing_mm, case_seed(seed, split, index), settings)
    geometry = Geometry(phantom.spacing_mm, (0.0, 0.0, 0.0), tuple(np.eye(3).ravel().tolist()))
    name = _case_name(split, index)
    for channel, array in enumerate(phantom.images):
        write_image(folder / f"images{split}" / f"{name}_{channel:04d}.nii.gz", Image(array, geometry))
    write_image(folder / f"labels{split}" / f"{name}.nii.gz", Image(phantom.label, geometry))
    return name


def case_names(split: str, n: int) -> list[str]:
    """The cases of a phantom dataset, of ``split`` "Tr" or "Ts".

    Example:
        >>> case_names("Tr", 2), case_names("Ts", 1)
        (['phantom_000', 'phantom_001'], ['phantom_test_000'])
    """
    return [_case_name(split, index) for index in range(n)]


def _case_name(split: str, index: int) -> str:
    return f"phantom_{index:03d}" if split == "Tr" else f"phantom_test_{index:03d}"
