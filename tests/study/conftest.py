"""A small dataset on disk, and an environment in which nnU-Net's commands and ours are quick stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_lopsided.images import Geometry, Image, write_image

# What every stand-in does: note the call, do what the next job needs, and in training take epochs that can be lost.
STAND_IN = """#!{python} -IS
import json, os, pathlib, sys, time, zipfile
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
root = pathlib.Path.cwd()
def note(**what):
    with open(root / "calls.jsonl", "a") as file:
        file.write(json.dumps({{"name": name, "arguments": arguments, **what}}) + "\\n")
if name != "nnUNetv2_train":
    note()
    if any(bad in " ".join([name, *arguments]) for bad in os.environ.get("BREAK", "").split()):
        print("some output")
        sys.exit("this is broken")
    sys.exit()
trainer = arguments[arguments.index("-tr") + 1]
dataset = next(pathlib.Path(os.environ["nnUNet_raw"]).glob(f"Dataset{{arguments[0]}}_*"), None)
fold = pathlib.Path(os.environ["nnUNet_results"], f"{{dataset.name if dataset else arguments[0]}}",
                    f"{{trainer}}__nnUNetPlans__{{arguments[1]}}", f"fold_{{arguments[2]}}")
fold.mkdir(parents=True, exist_ok=True)
checkpoint, first = fold / "checkpoint_latest.pth", 0
if "--c" in arguments:
    with zipfile.ZipFile(checkpoint) as file:
        first = int(file.read("epoch"))
note(first_epoch=first)
if trainer in os.environ.get("BREAK", "").split():
    sys.exit("RuntimeError: CUDA out of memory")
for epoch in range(first, int(os.environ.get("EPOCHS", 2))):
    time.sleep(float(os.environ.get("EPOCH_SECONDS", 0)))
    with zipfile.ZipFile(checkpoint, "w") as file:
        file.writestr("epoch", str(epoch + 1))
    note(epoch=epoch)
"""
COMMANDS = (
    "nnUNetv2_plan_and_preprocess",
    "nnUNetv2_train",
    "nnUNetv2_predict",
    "lopsided-plan",
    "lopsided-censor",
    "lopsided-share",
    "lopsided-eval",
)


@dataclass(frozen=True)
class StandIns:
    """An environment like this one, but for the commands that jobs call.

    Attributes:
        python: its interpreter.
    """

    python: Path

    def study(self, *arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
        """Start lopsided-study in it."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("nnUNet")}
        return subprocess.Popen(
            [self.python, "-m", "nnunet_lopsided.commands.study", *arguments],
            cwd=cwd,
            env=inherited | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    """See :class:`StandIns`."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    show = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", show], check=True, capture_output=True, text=True).stdout.strip())
    repository = Path(__file__).resolve().parents[2]
    borrowed = [str(repository), *(p for p in sys.path if p.endswith("-packages"))]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    for name in COMMANDS:
        (folder / "bin" / name).write_text(STAND_IN.format(python=python))
        (folder / "bin" / name).chmod(0o755)
    return StandIns(python)


def calls(folder: Path) -> list[dict[str, Any]]:
    """What the stand-ins noted in a study's folder."""
    file = folder / "calls.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


@pytest.fixture
def raw_dataset_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a dataset of 2 x 4 x 4 images in nnU-Net's raw layout."""

    def write(n_train: int = 5, n_test: int = 1, name: str = "Dataset501_Small") -> Path:
        folder = tmp_path / "data" / name
        geometry = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
        for part, n in (("Tr", n_train), ("Ts", n_test)):
            (folder / f"images{part}").mkdir(parents=True)
            (folder / f"labels{part}").mkdir()
            for i in range(n):
                case = f"{part.lower()}{i}"
                write_image(
                    folder / f"images{part}" / f"{case}_0000.nii.gz", Image(np.zeros((2, 4, 4), "f4"), geometry)
                )
                write_image(folder / f"labels{part}" / f"{case}.nii.gz", Image(np.ones((2, 4, 4), "u1"), geometry))
        content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
        (folder / "dataset.json").write_text(json.dumps(content | {"numTraining": n_train}))
        return folder

    return write
