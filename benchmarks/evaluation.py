"""Time lesion-wise evaluation: compute, loading, threads, memory, and other tools on the same cases, in one run.

    python benchmarks/evaluation.py [--cases 20] [--file-cases 8] [--stream 1000] [--specks 19455] [--peers 2]

Volumes are 150x256x256 float32 with about 21 lesions and 46 candidates; the background is noise of about 1e-4.
``bare cc3d`` labels the thresholded volume and does nothing else. ``naive`` is what one writes first: scipy.ndimage
labels, one distance transform and per-component masks; it must count the same detections. Other tools are timed where
they can be imported (see ``make peers``).

How long a file takes depends on what is in it, so files are of three kinds. Two are what nnU-Net's predictor writes:
the float32 softmax of float16 logits, in the box of a brain without its skull, or in five sixths of every axis, as in
a whole head. The third has the noise above in every bit, which hardly repeats: the worst for whatever inflates it.
Loading them is what a script does: ``numpy.load`` of the .npz and ``SimpleITK.ReadImage`` of both label maps, one
case after the other. Nobody's first imports are counted.

CPU seconds are those of the process and all its threads: on a machine that does other work compare these.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, evaluate_folder, profile_rules
from nnunet_lopsided.evaluation.case import evaluate_thresholds
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.files.parallel import import_readers
from nnunet_lopsided.images import Geometry, Image, write_image

SHAPE, SPACING_MM = (150, 256, 256), (1.0, 1.0, 1.0)
# Of a skull-stripped phantom of this shape: where along each axis its brain lies.
BRAIN = ((0.08, 0.92), (0.16, 0.83), (0.25, 0.75))
KINDS = {
    "brain": "softmax of a brain without its skull",
    "head": "softmax of a whole head",
    "noise": "noise in every bit",
}
GEOMETRY = Geometry(SPACING_MM, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def label_above(p: NDArray[Any]) -> NDArray[Any]:
    return cc3d.connected_components(p >= 0.1, connectivity=26)


def voxels_above(p: NDArray[Any]) -> NDArray[Any]:
    return np.flatnonzero(p >= 0.1)


def volume(rng: np.random.Generator, n_specks: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """A reference mask with 21 balls, and a probability map that finds most of them and 28 things more."""
    reference = np.zeros(SHAPE, bool)
    probability = 1e-4 * rng.standard_exponential(SHAPE, dtype=np.float32)
    for i in range(21 + 28):
        radius = rng.uniform(1.5, 7.0) if i < 21 else rng.uniform(1.0, 4.0)
        center = rng.uniform(10, np.array(SHAPE) - 10)
        low = np.maximum(np.floor(center - radius - 2), 0).astype(int)
        box = tuple(slice(lo, int(hi)) for lo, hi in zip(low, center + radius + 3, strict=True))
        grid = np.moveaxis(np.mgrid[box], 0, -1)
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


def naive(reference: NDArray[Any], probability: NDArray[Any]) -> int:
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


def cpu_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Best of a few runs, in CPU time."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def time_computing(rng: np.random.Generator, n_cases: int, n_specks: int) -> float:
    """Arrays in memory; returns the CPU seconds per case of the ordinary evaluation."""
    rows: dict[str, list[float]] = {}
    letter, brats = EvaluationRules(distance="center"), profile_rules("brats-mets-2023")
    counts, agree = [], []
    for i in range(n_cases):
        reference, p = volume(rng)
        result = evaluate_case(reference, p, SPACING_MM)
        counts.append((len(result.lesions), len(result.candidates)))
        works: dict[str, Callable[[], object]] = {
            "bare cc3d over the thresholded volume": partial(label_above, p),
            "find the voxels p >= t, nothing else": partial(voxels_above, p),
            "evaluate_case": partial(evaluate_case, reference, p, SPACING_MM),
            "evaluate_case, brats-mets-2023": partial(evaluate_case, reference, p, SPACING_MM, brats),
            "three thresholds at once": partial(
                evaluate_thresholds, reference, p, SPACING_MM, EvaluationRules(), (0.1, 0.3, 0.5)
            ),
        }
        for name, work in works.items():
            rows.setdefault(name, []).append(cpu_seconds(work))
        if i < 2:
            start = time.process_time()
            dense = naive(reference, p)
            rows.setdefault("naive: dense labels and distance transform", []).append(time.process_time() - start)
            agree.append((int(evaluate_case(reference, p, SPACING_MM, letter).count(Status.TRUE_POSITIVE)), dense))
    r, p = volume(rng, n_specks)
    rows[f"evaluate_case, {n_specks} specks of noise"] = [cpu_seconds(lambda: evaluate_case(r, p, SPACING_MM))]
    bare = float(np.mean(rows["bare cc3d over the thresholded volume"]))
    ours = float(np.mean(rows["evaluate_case"]))
    n_lesions, n_candidates = np.mean(counts, axis=0)
    print(f"{n_cases} cases of {SHAPE}, {n_lesions:.1f} lesions and {n_candidates:.1f} candidates each\n")
    print(f"{'CPU seconds per case, arrays in memory':<52}{'s':>8}{'x cc3d':>9}{'x ours':>9}")
    for name, values in rows.items():
        value = float(np.mean(values))
        print(f"{name:<52}{value:>8.4f}{value / bare:>9.2f}{value / ours:>9.2f}")
    print(f"lesions detected by evaluate_case (--distance center) and naive: {agree}\n")
    return ours


def time_peers(rng: np.random.Generator, n_cases: int, ours: float) -> None:
    """Other tools on cases of the same kind, those that are installed."""
    for name, prepare in (("panoptica", panoptica_tool), ("picai_eval", picai_tool)):
        try:
            evaluate = prepare()
        except ImportError:
            print(f"{name}: not installed here")
            continue
        cases = [volume(rng) for _ in range(n_cases)]
        start = time.process_time()
        for reference, probability in cases:
            evaluate(reference, probability)
        value = (time.process_time() - start) / n_cases
        print(f"{name}: {value:.2f} CPU s per case, {value / ours:.0f} x evaluate_case")
    print()


def panoptica_tool() -> Callable[[NDArray[Any], NDArray[Any]], object]:
    """Panoptica as light as it can be asked for: components, matching by overlap, counts and Dice."""
    from panoptica import ConnectedComponentsInstanceApproximator, InputType, Metric, NaiveThresholdMatching
    from panoptica import Panoptica_Evaluator as Evaluator

    evaluator = Evaluator(
        expected_input=InputType.SEMANTIC,
        instance_approximator=ConnectedComponentsInstanceApproximator(),
        instance_matcher=NaiveThresholdMatching(),
        instance_metrics=[Metric.DSC],
        global_metrics=[],
    )
    return lambda reference, p: evaluator.evaluate((p >= 0.1).astype(np.uint8), reference.astype(np.uint8))


def picai_tool() -> Callable[[NDArray[Any], NDArray[Any]], object]:
    """picai_eval on detection maps: every candidate's voxels hold its confidence."""
    from picai_eval import evaluate

    def run(reference: NDArray[Any], p: NDArray[Any]) -> object:
        labels = cc3d.connected_components(p >= 0.1, connectivity=26)
        means = np.bincount(labels.reshape(-1), weights=p.reshape(-1)) / np.bincount(labels.reshape(-1))
        means[0] = 0
        detections = means[labels].astype(np.float32)
        return evaluate([detections], [reference.astype(np.int32)], num_parallel_calls=1, verbose=0)

    return run


def time_files(rng: np.random.Generator, n_cases: int) -> None:
    """From files: merely loading them against the whole evaluation, and memory."""
    print(f"{n_cases} cases from files: nnU-Net's .npz (2 channels, float32) beside its label map; ratios to loading")
    print(f"{'':<46}{'wall s':>9}{'x':>6}{'CPU s':>9}{'x':>6}{'peak MiB':>10}   per case")
    for kind, title in KINDS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_cases(rng, folder, n_cases, kind=kind)
            mib = (folder / "predictions" / "case0000.npz").stat().st_size / 2**20
            print(f"{title}, {mib:.0f} MiB per .npz")
            # All in processes of their own, each of which prints what it took.
            loading = alone("load", folder, 1)
            rows = {"numpy.load and SimpleITK, one after the other": loading}
            rows |= {f"evaluate_folder, {_workers(n)}": alone("evaluate", folder, n) for n in (1, 2)}
            for row, taken in rows.items():
                wall, cpu = taken["wall"] / n_cases, taken["cpu"] / n_cases
                ratios = [taken[key] / loading[key] for key in ("wall", "cpu")]
                print(f"  {row:<44}{wall:>9.3f}{ratios[0]:>6.2f}{cpu:>9.3f}{ratios[1]:>6.2f}{taken['peak_mib']:>10.0f}")
    print()


def _workers(n: int) -> str:
    return "1 worker" if n == 1 else f"{n} workers (the default)"


def softmax(rng: np.random.Generator, probability: NDArray[Any], kind: str) -> NDArray[Any]:
    """Both channels as nnU-Net writes them: float32 softmax of float16 logits, background alone outside of the brain.

    The logits of the background wander around -4.65 by 0.3, smoothly, with a little noise on top: as those of a small
    U-Net trained on phantoms, whose archive is a fifth smaller.
    """
    box = tuple(slice(n // 12, n - n // 12) for n in probability.shape)
    if kind == "brain":
        box = tuple(slice(int(n * low), int(n * high)) for n, (low, high) in zip(probability.shape, BRAIN, strict=True))

    def smooth(deviation: float) -> NDArray[Any]:
        field = ndimage.gaussian_filter(rng.standard_normal(inside.shape, dtype=np.float32), 1.5)
        return field * (deviation / field.std())

    inside = np.clip(probability[box], 1e-6, 0.9999)
    difference = np.maximum(np.log(inside / (1 - inside)), smooth(0.3) - 4.65)
    difference += 0.02 * rng.standard_normal(inside.shape, dtype=np.float32)
    common = smooth(0.1)
    logits = np.stack([common - difference / 2, common + difference / 2]).astype(np.float16).astype(np.float32)
    exponential = np.exp(logits - logits.max(axis=0))
    both = np.zeros((2, *probability.shape), np.float32)
    both[0] = 1
    both[(slice(None), *box)] = exponential / exponential.sum(axis=0)
    return both


def write_cases(
    rng: np.random.Generator, folder: Path, n_cases: int, shape: tuple[int, ...] = SHAPE, kind: str = "noise"
) -> None:
    """References and nnU-Net's files for them."""
    for name in ("references", "predictions"):
        (folder / name).mkdir()
    for i in range(n_cases):
        reference, probability = (array[tuple(slice(n) for n in shape)] for array in volume(rng))
        both = np.stack([1 - probability, probability]) if kind == "noise" else softmax(rng, probability, kind)
        name = f"case{i:04d}"
        write_image(folder / "references" / f"{name}.nii.gz", Image(reference.astype(np.uint8), GEOMETRY))
        label = Image((both[1] > 0.5).astype(np.uint8), GEOMETRY)
        write_image(folder / "predictions" / f"{name}.nii.gz", label)
        np.savez_compressed(folder / "predictions" / name, probabilities=both)


def stream(rng: np.random.Generator, n_cases: int) -> None:
    """Memory over many cases: links to a few files, so that only the number of cases grows."""
    print(f"{'cases of 48x96x96':<20}{'wall s':>9}{'peak MiB':>10}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cases(rng, folder, 4, (48, 96, 96))
        done = 4
        for n in sorted({max(4, n_cases // 10), n_cases}):
            for i in range(done, n):
                for kind, ending in (("references", "nii.gz"), ("predictions", "nii.gz"), ("predictions", "npz")):
                    source = folder / kind / f"case{i % 4:04d}.{ending}"
                    (folder / kind / f"case{i:04d}.{ending}").symlink_to(source)
            done = n
            taken = alone("evaluate", folder, 2)
            print(f"{n:<20}{taken['wall']:>9.1f}{taken['peak_mib']:>10.0f}")


def alone(what: str, folder: Path, n_workers: int) -> dict[str, float]:
    """Run one of the two below in a process of its own."""
    command = [sys.executable, __file__, "--alone", what, str(folder), str(n_workers)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_alone(what: str, folder: Path, n_workers: int) -> None:
    """Load or evaluate a folder; print what it took as JSON."""
    references, predictions = folder / "references", folder / "predictions"

    def load(path: Path) -> int:
        labels = [SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(p))) for p in (path, predictions / path.name)]
        with np.load(predictions / path.name.replace(".nii.gz", ".npz")) as archive:
            return int(archive["probabilities"].size + sum(label.size for label in labels))

    import_readers()
    warm_up()
    wall, cpu = time.perf_counter(), time.process_time()
    if what == "load":
        for path in sorted(references.iterdir()):
            load(path)
    else:
        evaluate_folder(references, predictions, n_workers=n_workers)
    taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps({**taken, "peak_mib": peak_mib()}))


def warm_up() -> None:
    """Import all that an evaluation imports, by one of a few tiny cases."""
    with tempfile.TemporaryDirectory() as name:
        write_cases(np.random.default_rng(0), Path(name), 8, (4, 64, 64))
        evaluate_folder(Path(name) / "references", Path(name) / "predictions", n_workers=1)


def peak_mib() -> float:
    """Greatest resident memory of this process; Linux only (what getrusage says includes the parent's before exec)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--file-cases", type=int, default=8)
    parser.add_argument("--stream", type=int, default=1000)
    parser.add_argument("--specks", type=int, default=19455)
    parser.add_argument("--peers", type=int, default=2, help="cases for other tools")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        run_alone(arguments.alone[0], Path(arguments.alone[1]), int(arguments.alone[2]))
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    rng = np.random.default_rng(0)
    ours = time_computing(rng, arguments.cases, arguments.specks)
    if arguments.peers:
        time_peers(rng, arguments.peers, ours)
    if arguments.file_cases:
        time_files(rng, arguments.file_cases)
    if arguments.stream:
        stream(rng, arguments.stream)


if __name__ == "__main__":
    main()
