"""What the commands do with damaged files: every run must end with exit code 0 or 2, and 2 with lines that say why.

    python benchmarks/fuzz.py WORLD [--minutes 10] [--seed 0] [--only dataset.json]

WORLD is a folder for a small dataset and what belongs to it, made on the first call (nnU-Net plans it: two minutes).
Then, over and over: a file of it is damaged, a command that reads it is called in this process, and the file is put
back. JSON gets values of other types, missing and renamed keys, NaN, byte order marks and broken ends; tables other
cells, separators and lines; images and arrays cut-off ends and flipped bits. Printed are the runs by outcome, every
traceback with the call that reproduces it, and by ``--accepted`` what the commands took without a word: to be judged by
eye.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from damages import damage

from nnunet_lopsided.images import Geometry, Image, read_image, write_image

PATHS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
DATASET, VARIANT, SECOND = "Dataset701_Phantom", "Dataset801_Variant", "Dataset702_Second"
MODEL = "nnUNetTrainerLopsided__nnUNetPlans__3d_fullres"


@dataclass(frozen=True)
class Target:
    """A file and a command that reads it.

    Attributes:
        file: below the world.
        command: name of the module in ``nnunet_lopsided.commands``, and its arguments; ``{}`` is the world.
    """

    file: str
    command: str


RAW, PRE, RES = f"nnUNet_raw/{DATASET}", f"nnUNet_preprocessed/{DATASET}", f"nnUNet_results/{DATASET}/{MODEL}"
CENSOR = "censor -d 701 -o 801 --name Variant --mode size --rate 0.5 -np 1"
SHARE = "share -d 701 -o 703 -np 1"
PLAN, SMALL = "plan -d 701 --overwrite -np 1", "plan -d 701 -c 3d_fullres_small --overwrite"
EVAL = "evaluate --cv {}/" + RES + " -o {}/out --bootstrap 0 --gallery 0 -np 1"
AUDIT = "audit -d 701 -c 3d_fullres --magnify -o {}/out --bootstrap 0 -np 1"
CONFIDENCE = "confidence -d 701 -c 3d_fullres --overwrite -np 1"
COMPARE = "compare {}/eval_a {}/eval_b -o {}/out --bootstrap 0"
FOLDER = "convert folder {}/flat -d 801 --channels t1=*_t1ENDING --label *_segENDING --name Variant -np 1"
PATIENTS = "censor -d 701 -o 801 --name Variant --patients 3 -np 1"
LIST = "censor -d 701 -o 801 --name Variant --mode list --list {}/lesions.csv -np 1"
MERGE = "convert merge 701 702 -d 801 --name Variant -np 1"
PLAIN_EVAL = "evaluate -g {}/flat_eval/reference -p {}/flat_eval/prediction -o {}/out --bootstrap 0 --gallery 0 -np 1"
TARGETS = (
    *(Target(f"{RAW}/dataset.json", command) for command in (CENSOR, PATIENTS, MERGE)),
    Target("nnUNet_raw/Dataset703_Shared/dataset.json", SHARE),
    *(Target(f"{PRE}/dataset.json", command) for command in (PLAN, SMALL, SHARE, AUDIT)),
    *(Target(f"{PRE}/nnUNetPlans.json", command) for command in (PLAN, SMALL, SHARE, AUDIT)),
    *(Target(f"{PRE}/splits_final.json", command) for command in (SHARE, EVAL, AUDIT, CONFIDENCE)),
    *(Target(f"{RAW}/splits_final.json", command) for command in (CENSOR, PATIENTS)),
    Target(f"{PRE}/dataset_fingerprint.json", PLAN),
    *(Target(f"{RES}/dataset.json", command) for command in (EVAL, CONFIDENCE)),
    *(Target(f"{RES}/plans.json", command) for command in (EVAL, AUDIT)),
    *(Target(f"{RAW}/cases.csv", command) for command in (PATIENTS, MERGE)),
    Target("lesions.csv", LIST),
    *(Target(f"eval_a/{name}", COMPARE) for name in ("summary.json", "lesions.csv", "candidates.csv", "cases.csv")),
    *(Target(f"{RAW}/labelsTr/phantom_001.nii.gz", command) for command in (CENSOR, SHARE)),
    Target(f"{PRE}/gt_segmentations/phantom_001.nii.gz", PLAN),
    Target(f"{RES}/fold_0/validation/phantom_000.npz", EVAL),
    Target(f"{PRE}/nnUNetPlans_3d_fullres/phantom_001.pkl", SHARE),
    Target(f"{PRE}/nnUNetPlans_3d_fullres/phantom_001_seg.b2nd", SHARE),
    *(
        Target(f"flat/a_{kind}{ending}", FOLDER.replace("ENDING", ending))
        for kind in ("t1", "seg")
        for ending in (".nii.gz", ".nii", ".mha", ".nrrd", ".tif", ".png", ".bmp")
    ),
    Target("flat/a_t1.json", FOLDER.replace("ENDING", ".tif")),
    *(
        Target(f"flat_eval/{side}/a{ending}", PLAIN_EVAL)
        for side in ("reference", "prediction")
        for ending in (".nii.gz",)
    ),
)


def main() -> None:
    """Fuzz for some minutes and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "world", type=Path, metavar="WORLD", help="folder of the small dataset; made where it is missing"
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="TEXT", help="targets whose file or command holds this text")
    parser.add_argument(
        "--runs", type=int, nargs="+", default=[], help="these numbers alone, as a traceback names them"
    )
    parser.add_argument("--accepted", action="store_true", help="print every damage that ended with exit code 0")
    arguments = parser.parse_args()
    world = arguments.world.resolve()
    os.environ.update({variable: str(world / variable) for variable in PATHS})
    make_world(world)
    targets = [t for t in TARGETS if arguments.only in t.file or arguments.only in t.command]
    Fuzzer(world, targets, arguments.seed, arguments.accepted).run(arguments.minutes, arguments.runs)


@dataclass
class Fuzzer:
    """Damages one file after the other.

    Attributes:
        world: the folder of :func:`make_world`.
        targets: see :class:`Target`; they take turns.
        seed: of all damages; a run's number and this seed tell what it did.
        show_accepted: print every damage that a command took.
        outcomes: runs by outcome.
        by_target: runs by target and outcome.
    """

    world: Path
    targets: Sequence[Target]
    seed: int
    show_accepted: bool
    outcomes: Counter[str] = field(default_factory=Counter)
    by_target: dict[Target, Counter[str]] = field(default_factory=dict)

    def run(self, minutes: float, runs: Sequence[int]) -> None:
        """Every command with whole files, then the targets damaged until the time is over."""
        kept = {path: path.read_bytes() for path in self._may_change()}
        for command in dict.fromkeys(target.command for target in self.targets if not runs):
            begin = time.monotonic()
            outcome, text = self._call(command)
            print(
                f"{outcome}, {time.monotonic() - begin:.1f} s: {command}", *[text] * (outcome != "exit 0"), flush=True
            )
            self._put_back(kept)
        end = time.monotonic() + 60 * minutes
        number = 0
        while time.monotonic() < end:
            target = self.targets[number % len(self.targets)]
            if not runs or number in runs:
                self._damage_and_call(target, number, kept)
            if runs and number >= max(runs):
                break
            number += 1
        print(f"{sum(self.outcomes.values())} runs, seed {self.seed}: {dict(self.outcomes)}")
        for target, outcomes in self.by_target.items():
            print(f"  {target.file} by {target.command.split()[0]}: {dict(outcomes)}")

    def _damage_and_call(self, target: Target, number: int, kept: dict[Path, bytes]) -> None:
        path, chance = self.world / target.file, random.Random(f"{self.seed} {target} {number}")
        content = path.read_bytes()
        damaged, what = damage(path, content, chance)
        path.unlink()  # it may be a hard link
        path.write_bytes(damaged)
        try:
            outcome, text = self._call(target.command)
        finally:
            path.unlink()
            path.write_bytes(content)
            self._put_back(kept)
        self.outcomes[outcome] += 1
        self.by_target.setdefault(target, Counter())[outcome] += 1
        place = f"run {number}: {target.file}: {what[:160]!a}: {target.command}"
        if outcome.startswith(("traceback", "nonsense")):
            print(f"{outcome}: {place}\n{text[-1500:]}", flush=True)
        elif outcome == "exit 0" and self.show_accepted:
            print(f"accepted: {place}", flush=True)

    def _call(self, command: str) -> tuple[str, str]:
        name, *arguments = command.replace("{}", str(self.world)).split()
        main = importlib.import_module(f"nnunet_lopsided.commands.{name}").main
        out, error = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
                code = main(arguments)
        except SystemExit as end:
            code = end.code
        except Exception as problem:
            return f"traceback {type(problem).__name__}", traceback.format_exc()
        said = [line for line in error.getvalue().splitlines() if "error:" in line]
        if code not in (0, 2) or (code == 2 and not said) or "Traceback" in error.getvalue():
            return f"nonsense exit {code}", error.getvalue()
        return f"exit {code}", error.getvalue()

    def _may_change(self) -> list[Path]:
        folders = (PRE, RES, RAW)
        return [path for folder in folders for path in (self.world / folder).glob("*.json")]

    def _put_back(self, kept: dict[Path, bytes]) -> None:
        for path in self._may_change():
            if path not in kept:
                path.unlink()
        for path, content in kept.items():
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)
        for path in (
            self.world / "out",
            self.world / "nnUNet_raw" / VARIANT,
            self.world / "nnUNet_preprocessed" / "Dataset703_Shared",
        ):
            shutil.rmtree(path, ignore_errors=True)


def make_world(world: Path) -> None:
    """A planned phantom, a variant to share with, a second one to merge, a model's predictions, two evaluations."""
    if (world / "lesions.csv").exists():
        return
    from nnunet_lopsided.commands import evaluate
    from nnunet_lopsided.dataset_conversion.phantom import write_phantom_dataset
    from nnunet_lopsided.variants.writing import write_censored_variant

    for variable in PATHS:
        (world / variable).mkdir(parents=True, exist_ok=True)
    raw, small = world / RAW, partial(write_phantom_dataset, shape=(12, 32, 32), spacing_mm=(5, 4, 4))
    if not (world / PRE / "nnUNetPlans_3d_fullres").is_dir():
        small(701, n_train=5, n_test=2, seed=3)
        command = "nnUNetv2_plan_and_preprocess -d 701 -c 3d_fullres 2d -npfp 1 -np 1 1"
        program, *arguments = command.split()
        subprocess.run([Path(sys.executable).parent / program, *arguments], check=True)
    small(702, name="Second", n_train=2, n_test=0, seed=4)
    write_censored_variant(701, 703, mode="size", rate=0.5, name="Shared", n_workers=1)
    cases = sorted(path.name[: -len(".nii.gz")] for path in (raw / "labelsTr").iterdir())
    folds = [[case for case in cases if case not in cases[i::3]] for i in range(3)]
    splits = json.dumps([{"train": train, "val": cases[i::3]} for i, train in enumerate(folds)])
    for folder in (raw, world / PRE):
        (folder / "splits_final.json").write_text(splits)
    for number in ("701_Phantom", "702_Second"):
        folder = world / f"nnUNet_raw/Dataset{number}"
        names = [(path.name[: -len(".nii.gz")], kind) for kind in ("Tr", "Ts") for path in _files(folder, kind)]
        rows = "".join(f"{name},{number}{name}1,,phantom,{kind},1\n" for name, kind in names)
        (folder / "cases.csv").write_text("case,patient,time_point,source,split,n_lesions\n" + rows)
        if number == "702_Second":  # other names than the first one's
            _rename(folder)
    _predict(world, cases)
    for name in ("eval_a", "eval_b"):
        shutil.rmtree(world / name, ignore_errors=True)
        program, *arguments = EVAL.replace("{}/out", str(world / name)).replace("{}", str(world)).split()
        evaluate.main(arguments)
    _write_flat(world)
    shutil.copyfile(world / "nnUNet_raw/Dataset703_Shared/censored_lesions.csv", world / "lesions.csv")


def _files(folder: Path, kind: str) -> list[Path]:
    labels = folder / f"labels{kind}"
    return sorted(labels.iterdir()) if labels.is_dir() else []


def _rename(folder: Path) -> None:
    for path in [*folder.glob("*/phantom_*")]:
        path.rename(path.with_name(path.name.replace("phantom", "second")))
    table = folder / "cases.csv"
    table.write_text(table.read_text().replace("phantom_", "second_"))


def _predict(world: Path, cases: Sequence[str]) -> None:
    """What a cross-validation would have left."""
    chance = np.random.default_rng(0)
    for name in ("dataset.json", "nnUNetPlans.json"):
        target = world / RES / name.replace("nnUNetPlans", "plans")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(world / PRE / name, target)
    for i, case in enumerate(cases):
        label = read_image(world / RAW / "labelsTr" / f"{case}.nii.gz")
        noise = chance.uniform(0, 1, label.array.shape).astype(np.float32)
        lesion = np.where(np.not_equal(label.array, 0), 0.6 + 0.3 * noise, 0.05 * noise).astype(np.float32)
        lesion[::4, ::6, ::6] = 0.4
        folder = world / RES / f"fold_{i % 3}" / "validation"
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / f"{case}.npz", probabilities=np.stack([1 - lesion, lesion]))
        write_image(folder / f"{case}.nii.gz", Image((lesion > 0.5).astype(np.uint8), label.geometry))


def _write_flat(world: Path) -> None:
    """Two cases in every format, and one to evaluate."""
    chance = np.random.default_rng(1)
    three = Geometry((3.0, 1.0, 1.0), (0.0,) * 3, tuple(np.eye(3).ravel().tolist()))
    two = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    for folder in ("flat", "flat_eval/reference", "flat_eval/prediction"):
        (world / folder).mkdir(parents=True, exist_ok=True)
    for case in "ab":
        for ending in (".nii.gz", ".nii", ".mha", ".nrrd", ".tif", ".png", ".bmp"):
            shape, place = ((12, 14), two) if ending in (".png", ".bmp") else ((5, 12, 14), three)
            image = chance.integers(1, 99, shape).astype(np.uint8)
            label = np.zeros(shape, np.uint8)
            label[..., 2:5, 2:5] = 1
            write_image(world / "flat" / f"{case}_t1{ending}", Image(image, place))
            write_image(world / "flat" / f"{case}_seg{ending}", Image(label, place))
            if ending == ".nii.gz":
                for side in ("reference", "prediction"):
                    write_image(world / "flat_eval" / side / f"{case}{ending}", Image(label, place))


if __name__ == "__main__":
    main()
