"""Tiny data and the commands for interruptions.py; alone it only says so.

python benchmarks/interruptions_data.py --help
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import zipfile
from dataclasses import dataclass, replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np

_HERE = "nnunet_lopsided.commands."
# Imported before anything forks, and with them what they need in the end.
MODULES = [
    *(
        _HERE + name
        for name in (
            "audit",
            "censor",
            "compare",
            "complete",
            "confidence",
            "convert",
            "evaluate",
            "phantom",
            "plan",
            "share",
            "soften",
            "study",
        )
    ),
    "torch",
    "sklearn.linear_model",
    "scipy.stats",
    "pandas",
    "matplotlib.figure",
    "nibabel",
    "SimpleITK",
    "tifffile",
    "nnunetv2.utilities.plans_handling.plans_handler",
    "nnunet_lopsided.trainers",
    "nnunet_lopsided.planning.configuration_25d",
    "nnunet_lopsided.variants.sharing",
    "nnunet_lopsided.variants.softening",
    "nnunet_lopsided.evaluation.folder",
    "nnunet_lopsided.evaluation.report.evaluation_page",
    "nnunet_lopsided.audit.audit_page",
    "nnunet_lopsided.audit.auditing",
]
_MODEL = "nnUNet_results/Dataset701_Phantom/nnUNetTrainerLopsided__nnUNetPlans__2d"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A command in two settings that have the same output.

    Attributes:
        one, other: module and arguments.
        overwrite: options that let it replace an earlier output; empty: it needs none.
        before: commands that make what it needs.
        stages: it keeps what it has finished, one folder after the other, and goes on there.
    """

    one: tuple[str, ...]
    other: tuple[str, ...]
    overwrite: tuple[str, ...] = ("--overwrite",)
    before: tuple[tuple[str, ...], ...] = ()
    stages: bool = False


def _trial(
    command: str, one: str, other: str, overwrite: str = "--overwrite", before: tuple[tuple[str, ...], ...] = ()
) -> Trial:
    module, *arguments = command.split()
    start = (_HERE + module, *arguments)
    return Trial(
        one=(*start, *one.split()), other=(*start, *other.split()), overwrite=tuple(overwrite.split()), before=before
    )


def _command(text: str) -> tuple[str, ...]:
    module, *arguments = text.split()
    return (_HERE + module, *arguments)


_EVAL = "evaluate -g nnUNet_raw/Dataset701_Phantom/labelsTs -p predictions --bootstrap 100"
_AUDIT = "audit -d 701 -c 2d --bootstrap 20 --shown 3 --magnify"
COMMANDS = {
    "phantom": _trial("phantom -d 801 --train 3 --test 1 --shape 12 32 32 -np 2", "--seed 1", "--seed 2"),
    "censor": _trial("censor -d 701 -o 802 --mode stochastic --rate 0.5", "--seed 1", "--seed 2"),
    "folder": _trial(
        "convert folder release -d 804 --name Read --channels T1=*_t1.nii.gz --label *_seg.nii.gz --lesion-values 1",
        "--seed 1",
        "--test-fraction 0.4",
    ),
    "share": _trial(
        "share -d 701 -o 810",
        "-np 1",
        "-np 2",
        before=(_command("censor -d 701 -o 810 --mode size --rate 0.5"),),
    ),
    "soften": _trial("soften -d 701 -c 2d", "-i beliefs", "-i beliefs_other"),
    "plan": _trial("plan -d 701", "-c 2d_small", "-c 3d_fullres_small"),
    "eval": _trial(f"{_EVAL} -o evaluation --write-maps", "--seed 1", "--threshold 0.3"),
    "compare": _trial(
        "compare one two -o compared",
        "--bootstrap 100 --seed 1",
        "--bootstrap 100 --seed 2",
        before=(_command(f"{_EVAL} -o one"), _command(f"{_EVAL} -o two --seed 3")),
    ),
    "audit": _trial(_AUDIT, "--seed 1", "--threshold 0.2"),
    "apply": _trial("audit apply -o 811", "--accept-above 0.2", "--accept-above 0.6", before=(_command(_AUDIT),)),
    "score": _trial("audit score --truth 700", "-np 1", "-np 2", before=(_command(_AUDIT),)),
    "confidence": _trial("confidence -d 701 -c 2d", "--threshold 0.1", "--threshold 0.2"),
    "complete": replace(_trial("complete -d 701 -c 2d -o 812", "--threshold 0.1", "--threshold 0.3"), stages=True),
    "report": _trial("study report study", "", "", overwrite=""),
}


def set_paths(root: Path) -> None:
    """nnU-Net's variables, and as few threads as there can be."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / variable).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(root / variable)
    os.environ["nnUNet_n_proc_DA"] = os.environ["nnUNet_def_n_proc"] = "1"


def make_data(root: Path) -> None:
    """Dataset700_Whole and 701_Phantom, whose lesions are half censored, planned, preprocessed and as if trained."""
    from nnunet_lopsided.commands import censor
    from nnunet_lopsided.dataset_conversion.phantom import write_phantom_dataset
    from nnunet_lopsided.images import Image, read_image, write_image
    from nnunet_lopsided.nnunet.raw import raw_dataset

    root.mkdir(parents=True)
    set_paths(root)
    write_phantom_dataset(700, n_train=10, n_test=2, shape=(12, 32, 32), spacing_mm=(5, 4, 4), seed=3, name="Whole")
    censor.main(["-d", "700", "-o", "701", "--name", "Phantom", "--mode", "stochastic", "--rate", "0.3", "--seed", "1"])
    _preprocess(701)
    whole, dataset = raw_dataset(700), raw_dataset(701)
    rng = np.random.default_rng(0)
    model, folds = root / _MODEL, [[c.name for c in dataset.training_cases()][i::2] for i in (0, 1)]
    splits = [{"train": folds[1 - i], "val": folds[i]} for i in (0, 1)]
    (root / "nnUNet_preprocessed/Dataset701_Phantom/splits_final.json").write_text(json.dumps(splits))
    for name in ("predictions", "beliefs", "beliefs_other", "release"):
        (root / name).mkdir()

    def as_predicted(label: Path) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], Image]:
        truth = read_image(label)
        p = np.where(truth.array != 0, rng.uniform(0.4, 0.99, truth.array.shape), 0.02).astype(np.float32)
        p[:2, :3, :3] = 0.3  # a false one
        return p, truth

    for case in whole.training_cases():
        fold = next(i for i in (0, 1) if case.name in folds[i])
        validation = model / f"fold_{fold}" / "validation"
        validation.mkdir(parents=True, exist_ok=True)
        assert case.label is not None
        p, truth = as_predicted(case.label)
        np.savez_compressed(validation / f"{case.name}.npz", probabilities=np.stack([1 - p, p]))
        write_image(validation / f"{case.name}.nii.gz", Image((p > 0.5).astype(np.uint8), truth.geometry))
        for name, belief in (("beliefs", p / 2), ("beliefs_other", p / 3)):
            write_image(root / name / f"{case.name}.nii.gz", Image(belief, truth.geometry))
        shutil.copyfile(case.label, root / "release" / f"{case.name}_seg.nii.gz")
        shutil.copyfile(case.images[0], root / "release" / f"{case.name}_t1.nii.gz")
    for fold in (0, 1):
        with zipfile.ZipFile(model / f"fold_{fold}" / "checkpoint_final.pth", "w") as file:
            file.writestr("archive/version", "3")
    for case in whole.test_cases():
        assert case.label is not None
        p, truth = as_predicted(case.label)
        np.savez_compressed(root / "predictions" / f"{case.name}.npz", probabilities=np.stack([1 - p, p]))
    _make_study(root)


def _preprocess(dataset: int) -> None:
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

    # Threads instead of spawned processes, each of which would import torch again.
    threads = SimpleNamespace(Pool=ThreadPool)
    with (
        patch.object(multiprocessing, "get_context", lambda method=None: threads),
        patch("nnunetv2.utilities.utils.Pool", ThreadPool),
    ):
        os.environ["nnUNet_n_proc_DA"] = "2"  # planning crashes at 0
        extractor = nnunet.DatasetFingerprintExtractor(dataset, num_processes=1)
        extractor.num_foreground_voxels_for_intensitystats = 10_000
        extractor.run()
        nnunet.plan_experiment_dataset(dataset)
        nnunet.preprocess_dataset(dataset, configurations=("2d", "3d_fullres"), num_processes=(1,))


def _make_study(root: Path) -> None:
    """A study of which nothing has run."""
    from nnunet_lopsided.study.folder import StudyFolder
    from nnunet_lopsided.study.preparation import prepare
    from nnunet_lopsided.study.presets import preset_text
    from nnunet_lopsided.study.study_file import study_of_text

    text = preset_text("quick")
    prepare(study_of_text(text, "preset quick", root), text, StudyFolder(root / "study"))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
