"""What a variant costs: lopsided-share against nnUNetv2_preprocess, disk space, and censoring against copying labels.

    python benchmarks/variants.py [--cases 3] [--labels 20] [--shape 150 256 256] [--folder FOLDER]

Makes a dataset of 4-channel brains without a skull (zero outside) and lets nnU-Net plan and preprocess it (2d and
3d_fullres). Then two variants, of one case and of all, are made both ways by the commands a user would type, in turn.
From the two sizes follow start-up and time per case, and from those the ratio for 50 cases. Times are CPU times of
the commands with their worker processes, which other work on the machine disturbs less than wall-clock times.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.files.parallel import import_readers
from nnunet_lopsided.images import Geometry, Image, read_image, write_image
from nnunet_lopsided.variants.writing import write_censored_variant

GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
PATHS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
MEASURED, N_TARGET = ("2d", "3d_fullres"), 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=3, help="cases of the larger variant")
    parser.add_argument("--labels", type=int, default=20, help="labels to censor")
    parser.add_argument("--shape", type=int, nargs=3, default=(150, 256, 256))
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        root = Path(folder)
        for name in PATHS:
            (root / name).mkdir()
            os.environ[name] = str(root / name)
        write_dataset(root / "nnUNet_raw" / "Dataset501_Brains", arguments.cases, tuple(arguments.shape))
        time_censoring(root, arguments.labels)
        command("nnUNetv2_plan_and_preprocess", "-d", "501", "-c", *MEASURED, "-np", "2", "-npfp", "2")
        time_sharing(root, arguments.cases)


def write_dataset(folder: Path, n_cases: int, shape: tuple[int, ...]) -> None:
    """Noise within an ellipsoid, zero outside, and 21 ragged lesions per case."""
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij"))
    inside = (grid**2).sum(0) < 0.95
    for i in range(n_cases):
        rng = np.random.default_rng(i)
        label = np.zeros(shape, np.uint8)
        for _ in range(21):
            radius = rng.uniform(1.5, 9.0)
            center = [int(rng.integers(n // 5, 4 * n // 5)) for n in shape]
            low = [max(int(c - radius - 2), 0) for c in center]
            box = tuple(slice(lo, int(c + radius + 3)) for lo, c in zip(low, center, strict=True))
            ranges = [np.arange(s.start, s.start + n) for s, n in zip(box, label[box].shape, strict=True)]
            offsets = np.meshgrid(*ranges, indexing="ij")
            distance = np.sqrt(sum((o - c) ** 2 for o, c in zip(offsets, center, strict=True)))
            label[box] |= distance + rng.normal(0, 0.5, distance.shape) <= radius
        label[~inside] = 0
        for channel in range(4):
            image = (rng.normal(500 + 100 * channel, 60, shape).astype(np.float32) + 150 * label) * inside
            write_image(
                folder / "imagesTr" / f"case{i:02d}_{channel:04d}.nii.gz", Image(image.astype(np.int16), GEOMETRY)
            )
        write_image(folder / "labelsTr" / f"case{i:02d}.nii.gz", Image(label, GEOMETRY))
    channels = {str(c): name for c, name in enumerate(("t1", "t1c", "t2", "flair"))}
    labels = {"background": 0, "lesion": 1}
    write_json(
        folder / "dataset.json",
        {"channel_names": channels, "labels": labels, "numTraining": n_cases, "file_ending": ".nii.gz"},
    )


def time_censoring(root: Path, n_labels: int) -> None:
    """The whole of lopsided-censor against reading and writing the same labels, in turn, one thread each."""
    source = root / "nnUNet_raw" / "Dataset501_Brains"
    originals = sorted((source / "labelsTr").iterdir())
    many, copies = root / "nnUNet_raw" / "Dataset502_Labels", root / "copies"
    for folder in (many, copies):
        folder.mkdir()
    cases = {f"case{i:02d}": str(originals[i % len(originals)]) for i in range(n_labels)}
    image = str(next((source / "imagesTr").iterdir()))
    content = read_json(source / "dataset.json") | {"channel_names": {"0": "t1"}}
    content["dataset"] = {case: {"images": [image], "label": label} for case, label in cases.items()}
    write_json(many / "dataset.json", content)

    import SimpleITK as sitk

    def copy_with_simpleitk() -> None:
        for case, label in cases.items():
            array = sitk.GetArrayFromImage(itk := sitk.ReadImage(label))
            copy = sitk.GetImageFromArray(array)
            copy.CopyInformation(itk)
            sitk.WriteImage(copy, str(copies / f"{case}.nii.gz"), True)

    def copy_with_nibabel() -> None:
        for case, label in cases.items():
            image: Any = nibabel.load(label)
            nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine), copies / f"{case}.nii.gz")

    def copy() -> None:
        for case, label in cases.items():
            write_image(copies / f"{case}.nii.gz", read_image(label))

    def censor() -> None:
        write_censored_variant(502, 590, "stochastic", 0.5, overwrite=True, n_workers=1)

    import_readers()
    work = {"SimpleITK": copy_with_simpleitk, "nibabel": copy_with_nibabel, "this package, checked": copy}
    work |= {"lopsided-censor": censor}
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(5):
        for name, run in work.items():
            start = time.process_time()
            run()
            times[name].append((time.process_time() - start) / n_labels)
    medians = {name: float(np.median(seconds)) for name, seconds in times.items()}
    ours = medians.pop("lopsided-censor")
    print(f"\ncensoring, CPU seconds per label: {ours:.4f}")
    for name, seconds in medians.items():
        print(f"  read and write with {name}: {seconds:.4f}; censoring takes {ours / seconds:.2f} x")
    for folder in (many, copies, root / "nnUNet_raw" / "Dataset590_LabelsCensored"):
        shutil.rmtree(folder)


def time_sharing(root: Path, n_cases: int) -> None:
    variants = {1: 511, n_cases: 512}
    stock_root = root / "stock"
    seconds: dict[str, dict[int, float]] = {"nnUNetv2_preprocess": {}, "lopsided-share": {}}
    walls: dict[str, dict[int, float]] = {name: {} for name in seconds}
    clean = root / "nnUNet_preprocessed" / "Dataset501_Brains"
    for n, number in variants.items():
        command("lopsided-censor", "-d", "501", "-o", str(number), "--mode", "stochastic", "--rate", "0.5",
                "--patients", str(n))  # fmt: skip
        name = f"Dataset{number}_BrainsCensored"
        (stock_root / clean.name).mkdir(parents=True, exist_ok=True)
        (stock_root / name).mkdir()
        shutil.copy(clean / "nnUNetPlans.json", stock_root / clean.name)
        shutil.copy(root / "nnUNet_raw" / name / "dataset.json", stock_root / name)
        environment = {"nnUNet_preprocessed": str(stock_root)}
        command(
            "nnUNetv2_move_plans_between_datasets", "-s", "501", "-t", str(number), "-sp", "nnUNetPlans", **environment
        )
        runs: dict[str, Callable[[], None]] = {
            "lopsided-share": partial(command, "lopsided-share", "-d", "501", "-o", str(number), "-np", "2"),
            "nnUNetv2_preprocess": partial(
                command, "nnUNetv2_preprocess", "-d", str(number), "-c", *MEASURED, "-np", "2", **environment
            ),
        }
        for tool, run in runs.items():
            walls[tool][n], seconds[tool][n] = timed(run)
    per_case, at_target = {}, {}
    title = f"{'CPU seconds (wall seconds)':<28}{'1 case':>16}{f'{n_cases} cases':>16}"
    print(f"\n{title}{'per case':>10}{f'{N_TARGET} cases':>10}")
    for tool, times in seconds.items():
        per_case[tool] = (times[n_cases] - times[1]) / (n_cases - 1)
        at_target[tool] = times[1] + (N_TARGET - 1) * per_case[tool]
        cells = [f"{times[n]:.1f} ({walls[tool][n]:.1f})" for n in variants]
        print(f"{tool:<28}{cells[0]:>16}{cells[1]:>16}{per_case[tool]:>10.2f}{at_target[tool]:>10.0f}")
    stock, ours = per_case
    print(f"ratio per case {per_case[stock] / per_case[ours]:.1f}; for {N_TARGET} cases, start-up included, "
          f"{at_target[stock] / at_target[ours]:.1f}")  # fmt: skip
    variant = root / "nnUNet_preprocessed" / f"Dataset{variants[n_cases]}_BrainsCensored"
    whole, more = disk(clean), disk(clean, variant) - disk(clean)
    print(f"disk: clean {whole / 1e6:.1f} MB, variant {more / 1e6:.2f} MB more, {more / whole:.2%}")


def command(name: str, *arguments: str, **environment: str) -> None:
    start = [str(Path(sys.executable).with_name(name))]
    if name == "lopsided-share":  # works without an installed command, too
        start = [sys.executable, "-m", "nnunet_lopsided.commands.share"]
    result = subprocess.run(
        [*start, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(f"{name} {' '.join(arguments)} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")


def timed(run: Callable[[], None]) -> tuple[float, float]:
    """Wall seconds and CPU seconds of commands that this starts, their worker processes included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used


def disk(*folders: Path) -> int:
    """Bytes on disk; a file with several links counts once."""
    files = {(s.st_dev, s.st_ino): s.st_blocks * 512 for f in folders for p in f.rglob("*") if (s := p.stat())}
    return sum(files.values())


if __name__ == "__main__":
    main()
