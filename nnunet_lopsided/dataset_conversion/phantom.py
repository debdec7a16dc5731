"""A dataset of procedural brains in nnU-Net's raw layout, for tests and demos."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nnunet_lopsided import __version__
from nnunet_lopsided.dataset_conversion.phantom_drawing import (
    SEQUENCES,
    Phantom,
    PhantomSettings,
    PlantedLesion,
    make_phantom,
)
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Image, write_image
from nnunet_lopsided.nnunet_layout import new_dataset_name, new_raw_dataset, write_json

__all__ = [
    "SEQUENCES",
    "Phantom",
    "PhantomSettings",
    "PlantedLesion",
    "case_seed",
    "make_phantom",
    "write_phantom_dataset",
]


def case_seed(seed: int, split: str, index: int) -> np.random.SeedSequence:
    """The seed of case ``index`` of ``split`` ("Tr" or "Ts"); it does not depend on how many cases there are."""
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
    n_processes: int = 1,
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
        n_processes: worker processes; 1 works in this one.

    Returns:
        The dataset folder.

    Raises:
        InputError: a number is out of range, or the id is in use.
    """
    from tqdm import tqdm

    settings = settings or PhantomSettings()
    if n_train < 1 or n_test < 0 or seed < 0 or n_processes < 1:
        raise InputError(
            "expected n_train >= 1, n_test >= 0, seed >= 0 and n_processes >= 1, "
            f"got {n_train}, {n_test}, {seed} and {n_processes}"
        )
    cases = [("Tr", i) for i in range(n_train)] + [("Ts", i) for i in range(n_test)]
    with new_raw_dataset(dataset_id, name, marker="phantom.json", overwrite=overwrite) as folder:
        for kind in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (folder / kind).mkdir()
        jobs = [(folder, split, index, tuple(shape), tuple(spacing_mm), seed, settings) for split, index in cases]
        written = tqdm(_write_all(jobs, n_processes), total=len(jobs), desc="phantoms", unit="case")
        deque(written, maxlen=0)
        write_json(
            folder / "dataset.json",
            {
                "channel_names": {str(i): sequence for i, sequence in enumerate(SEQUENCES)},
                "labels": {"background": 0, "lesion": 1},
                "numTraining": n_train,
                "file_ending": ".nii.gz",
            },
        )
        write_json(
            folder / "phantom.json",
            {
                "version": __version__,
                "seed": seed,
                "n_train": n_train,
                "n_test": n_test,
                "shape": list(shape),
                "spacing_mm": list(spacing_mm),
                "settings": asdict(settings),
            },
        )
        final = folder.parent / new_dataset_name(dataset_id, name)
    return final


def _write_all(jobs: list[tuple], n_processes: int) -> Iterator[str]:
    if n_processes == 1:
        yield from map(_write_case, jobs)
    else:
        with ProcessPoolExecutor(n_processes) as pool:
            yield from pool.map(_write_case, jobs)


def _write_case(job: tuple) -> str:
    folder, split, index, shape, spacing_mm, seed, settings = job
    phantom = make_phantom(shape, spacing_mm, case_seed(seed, split, index), settings)
    geometry = Geometry(phantom.spacing_mm, (0.0, 0.0, 0.0), tuple(np.eye(3).ravel().tolist()))
    name = f"phantom_{index:03d}" if split == "Tr" else f"phantom_test_{index:03d}"
    for channel, array in enumerate(phantom.images):
        write_image(folder / f"images{split}" / f"{name}_{channel:04d}.nii.gz", Image(array, geometry))
    write_image(folder / f"labels{split}" / f"{name}.nii.gz", Image(phantom.label, geometry))
    return name


def main(argv: list[str] | None = None) -> int:
    """``python -m nnunet_lopsided.dataset_conversion.phantom -d 900 --train 12 --test 6``."""
    from nnunet_lopsided.commands._cli import run

    default = PhantomSettings()
    parser = argparse.ArgumentParser(
        prog="python -m nnunet_lopsided.dataset_conversion.phantom",
        description="Write a dataset of procedural brains with lesions below nnUNet_raw.",
    )
    parser.add_argument("-d", type=int, required=True, metavar="ID", help="dataset id, 1 to 999, not in use")
    parser.add_argument("--train", type=int, default=12, help="training cases (default: 12)")
    parser.add_argument("--test", type=int, default=6, help="test cases (default: 6)")
    parser.add_argument("--shape", type=int, nargs=3, default=(24, 64, 64), metavar=("Z", "Y", "X"))
    parser.add_argument("--spacing", type=float, nargs=3, default=(2.0, 2.0, 2.0), metavar=("Z", "Y", "X"), help="mm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lesions", type=float, default=default.n_lesions_mean, help="mean lesions per case")
    parser.add_argument("--diameter", type=float, default=default.diameter_median_mm, help="median diameter in mm")
    parser.add_argument("--contrast", type=float, default=default.contrast, help="factor on lesion enhancement")
    parser.add_argument("--name", default="Phantom", help="folder name after the id (default: Phantom)")
    parser.add_argument("--overwrite", action="store_true", help="replace a raw dataset of the same id and name")
    parser.add_argument("-np", type=int, default=1, metavar="N", help="processes (default: 1)")
    return run(parser, _work, argv)


def _work(arguments: argparse.Namespace) -> int:
    try:
        settings = PhantomSettings(
            n_lesions_min=min(PhantomSettings().n_lesions_min, int(arguments.lesions)),
            n_lesions_mean=arguments.lesions,
            diameter_median_mm=arguments.diameter,
            contrast=arguments.contrast,
        )
        folder = write_phantom_dataset(
            arguments.d,
            n_train=arguments.train,
            n_test=arguments.test,
            shape=arguments.shape,
            spacing_mm=arguments.spacing,
            seed=arguments.seed,
            settings=settings,
            name=arguments.name,
            overwrite=arguments.overwrite,
            n_processes=arguments.np,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    print(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
