"""Time lesion-wise evaluation: the sparse path against a bare labelling pass and a naive version, in one run.

    python benchmarks/evaluation.py [--cases 5] [--specks 19455]

Volumes are 150x256x256 float32 with about 21 lesions and 46 candidates. ``bare cc3d`` labels the thresholded volume and
does nothing else: a floor for tools that label densely. ``naive`` is what one writes first: scipy.ndimage labels, one
distance transform and per-component masks; it must count the same detections.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cc3d
import numpy as np
from scipy import ndimage

from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, evaluate_folder
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.images import Geometry, Image, write_image

SHAPE, SPACING_MM = (150, 256, 256), (1.0, 1.0, 1.0)


def volume(rng: np.random.Generator, n_specks: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A reference mask with 21 balls, and a probability map that finds most of them and 28 things more."""
    reference, probability = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.float32)
    for i in range(21 + 28):
        radius = rng.uniform(1.5, 7.0) if i < 21 else rng.uniform(1.0, 4.0)
        center = rng.uniform(10, np.array(SHAPE) - 10)
        low = np.maximum(np.floor(center - radius - 2), 0).astype(int)
        box = tuple(slice(lo, int(hi)) for lo, hi in zip(low, center + radius + 3, strict=True))
        grid = np.stack(np.mgrid[box], axis=-1)
        distance = np.linalg.norm(grid - center, axis=-1)
        if i < 21:
            reference[box] |= distance <= radius
        if i >= 21 or rng.random() < 0.86:
            blob = np.clip(1.3 - distance / radius, 0, 1) * rng.uniform(0.3, 1.0)
            probability[box] = np.maximum(probability[box], blob)
    if n_specks:
        # Every third voxel along each axis: no two specks touch.
        lattice = np.zeros(SHAPE, bool)
        lattice[::3, ::3, ::3] = True
        chosen = rng.choice(np.flatnonzero(lattice), n_specks, replace=False)
        probability.reshape(-1)[chosen] = np.maximum(probability.reshape(-1)[chosen], 0.2)
    return reference, probability


def naive(reference: np.ndarray, probability: np.ndarray) -> int:
    """Candidates whose centroid lies within 1 mm of a voxel center, densely."""
    labels, _ = ndimage.label(probability >= 0.1, np.ones((3, 3, 3)))
    lesions, _ = ndimage.label(reference, np.ones((3, 3, 3)))
    distance, nearest = ndimage.distance_transform_edt(~reference, sampling=SPACING_MM, return_indices=True)
    detected = set()
    for i, box in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[box] == i
        probability[box][mask].mean()
        centroid = [c.mean() + s.start for c, s in zip(np.nonzero(mask), box, strict=True)]
        at = tuple(round(c) for c in centroid)
        if distance[at] <= 1.0:
            detected.add(int(lesions[tuple(nearest[(slice(None), *at)])]))
    return len(detected)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Best of a few runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--specks", type=int, default=19455)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    cases = [volume(rng) for _ in range(arguments.cases)]
    results = [evaluate_case(r, p, SPACING_MM) for r, p in cases]
    n_lesions = np.mean([len(result.lesions) for result in results])
    n_candidates = np.mean([len(result.candidates) for result in results])
    print(f"{len(cases)} cases of {SHAPE}, {n_lesions:.1f} lesions and {n_candidates:.1f} candidates each\n")

    letter = EvaluationRules(distance="center")
    agree = [
        (int((evaluate_case(r, p, SPACING_MM, letter).matches.status == Status.TRUE_POSITIVE).sum()), naive(r, p))
        for r, p in cases[:2]
    ]
    sparse = np.mean([seconds(lambda r=r, p=p: evaluate_case(r, p, SPACING_MM)) for r, p in cases])
    bare = np.mean([seconds(lambda p=p: cc3d.connected_components(p >= 0.1, connectivity=26)) for _, p in cases])
    threshold = np.mean([seconds(lambda p=p: np.flatnonzero(p >= 0.1)) for _, p in cases])
    dense = np.mean([seconds(lambda r=r, p=p: naive(r, p), 1) for r, p in cases[:2]])
    specks = volume(rng, arguments.specks)
    speckled = seconds(lambda: evaluate_case(*specks, SPACING_MM))
    speckled_bare = seconds(lambda: cc3d.connected_components(specks[1] >= 0.1, connectivity=26))
    print(f"{'seconds per case, arrays in memory':<52}{'s':>8}{'x sparse':>10}")
    for name, value in (
        ("find the voxels p >= t, nothing else", threshold),
        ("bare cc3d over the thresholded volume", bare),
        ("sparse path: evaluate_case", sparse),
        (f"sparse path with {arguments.specks} specks of noise", speckled),
        (f"bare cc3d with {arguments.specks} specks of noise", speckled_bare),
        ("naive: dense labels and distance transform", dense),
    ):
        print(f"{name:<52}{value:>8.4f}{value / sparse:>10.2f}")
    print(f"lesions detected by sparse (--distance center) and naive: {agree}\n")
    time_folders(cases)


def time_folders(cases: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Seconds per case from files, one and two threads."""
    geometry = Geometry(SPACING_MM, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    print(f"{'seconds per case, from files (without report)':<52}{'1 thread':>9}{'2 threads':>10}")
    with tempfile.TemporaryDirectory() as folder:
        references, npz, npy = (Path(folder) / name for name in ("references", "npz", "npy"))
        for path in (references, npz, npy):
            path.mkdir()
        for i, (reference, probability) in enumerate(cases):
            name = f"case{i:03d}"
            write_image(references / f"{name}.nii.gz", Image(reference.astype(np.uint8), geometry))
            write_image(npz / f"{name}.nii.gz", Image((probability > 0.5).astype(np.uint8), geometry))
            np.savez_compressed(npz / f"{name}.npz", probabilities=np.stack([1 - probability, probability]))
            np.save(npy / f"{name}.npy", probability)
        for title, path in (("nnU-Net .npz and label map", npz), (".npy", npy)):
            times = [
                seconds(lambda n=n, path=path: evaluate_folder(references, path, n_replicates=0, n_workers=n), 2)
                / len(cases)
                for n in (1, 2)
            ]
            print(f"{title:<52}{times[0]:>9.3f}{times[1]:>10.3f}")
        start = time.perf_counter()
        evaluate_folder(references, npy, n_replicates=2000, n_workers=2)
        per_case = (time.perf_counter() - start) / len(cases)
        print(f"{'.npy with 2000 bootstrap replicates':<52}{'':>9}{per_case:>10.3f}")


if __name__ == "__main__":
    main()
