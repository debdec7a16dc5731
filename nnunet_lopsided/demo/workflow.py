"""What the demo runs: one data set, three arms, and the table that compares them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

from nnunet_lopsided import __version__
from nnunet_lopsided.demo.demo_page import Arm, write_comparison
from nnunet_lopsided.demo.expected_time import expected_time
from nnunet_lopsided.demo.settings import DemoSettings
from nnunet_lopsided.demo.steps import Step, run_steps
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folder_record import (
    RECORD_FILE,
    check_ours,
    finish_record,
    is_nobodys_work,
    unrecorded,
)
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.files.locks import HELD, LOCK_FILE, locked
from nnunet_lopsided.images import read_image
from nnunet_lopsided.nnunet.paths import PATH_VARIABLES, names_of_dataset
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.nnunet.raw import RawDataset, raw_dataset
from nnunet_lopsided.variants.choosing import check_rate
from nnunet_lopsided.variants.linking import link_with_test_set

# In folders of the demo's own, so that they are in nobody's way.
FULL, CENSORED = 901, 902
SETTINGS_FILE = "demo.json"
# nnU-Net validates in every epoch; more cases would be missing in a training of minutes.
_N_VALIDATION = 2
# Names in the folder of a demo.
_FILES = (SETTINGS_FILE, *PATH_VARIABLES, "predictions", "evaluation", "logs", "table.csv", "table.md", "index.html")
# What nnU-Net writes in the middle of a step; a run that was killed there could not note it.
_OF_A_KILLED_STEP = ("checkpoint_*.pth", "training_log_*.txt", "progress.png", "debug.json", "*.b2nd", "*.pkl", "*.npz")
# What the next run may find of it, too, when it goes on.
_OF_ANY_STEP = (*_OF_A_KILLED_STEP, "*.nii.gz", "*.json", "*.log")
_LOCKS = (LOCK_FILE, LOCK_FILE + HELD)


def run_demo(settings: DemoSettings, folder: Path, overwrite: bool = False) -> Path:
    """Run the main job in ``folder`` and write the comparison.

    A repeated call with the same settings goes on where the last one stopped.

    Args:
        settings: what to run.
        folder: gets ``nnUNet_raw``, ``nnUNet_preprocessed``, ``nnUNet_results``, predictions, evaluations, logs,
            ``table.csv``, ``table.md`` and ``index.html``.
        overwrite: empty a folder that holds a demo, and nothing else.

    Returns:
        The page, ``index.html``.

    Raises:
        InputError: the folder holds something else, another process runs a demo in it, the data cannot be used, or a
            step failed.
    """
    check_rate(settings.rate)
    if settings.device == "cuda" and not _has_gpu():
        raise InputError("device cuda was asked for, and PyTorch finds no GPU")
    source = None if settings.data is None else RawDataset(Path(settings.data))
    if source is not None:
        source.training_cases()  # raises InputError before anything is written
        if source.folder.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"data {source.folder} lie inside the demo's folder {folder}")
    _check_folder(folder)
    # A run that ended, however, has removed its lock.
    was_killed = any(os.path.lexists(folder / name) for name in _LOCKS)
    with _only_demo(folder):
        others = _claim(folder, settings, overwrite, was_killed)
        try:
            return _run(settings, folder, source, others)
        finally:
            finish_record(folder, others)


@contextmanager
def _only_demo(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            yield
    except InputError as error:
        if str(error).startswith("another process is writing"):
            raise InputError(f"another lopsided-demo is at work in {folder}") from None
        raise


def _run(settings: DemoSettings, folder: Path, source: RawDataset | None, others: list[str]) -> Path:
    for variable in PATH_VARIABLES:
        (folder / variable).mkdir(exist_ok=True)
    environment = {variable: str(folder.absolute() / variable) for variable in PATH_VARIABLES}
    # For a laptop: nnU-Net's own numbers of processes are for a workstation.
    environment |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
    os.environ.update(environment)  # our own look-ups below use the same folders

    if source is not None and not names_of_dataset(FULL, ("nnUNet_raw",)):
        link_with_test_set(source, FULL)
    flat = source is not None and _is_2d(raw_dataset(FULL))
    arms, configuration = _arms(settings), "2d" if flat else "2.5d"
    n_steps = len(_data_steps(settings)) + len(_planning_steps(flat)) + 3 * len(arms)
    for line in expected_time(settings):
        print(line, file=sys.stderr, flush=True)
    steps = _steps(settings, arms, configuration=configuration, folder=folder, others=others)
    seconds = run_steps(steps, n_steps, folder / "logs", environment)
    return write_comparison(
        arms, folder, dataset=raw_dataset(FULL), settings=settings, configuration=configuration, seconds=seconds
    )


def _steps(
    settings: DemoSettings, arms: list[Arm], *, configuration: str, folder: Path, others: list[str]
) -> Iterator[Step]:
    """All steps; after each, its files are noted as ours."""
    for step in (*_data_steps(settings), *_planning_steps(configuration == "2d")):
        yield step
        finish_record(folder, others)
    _share_split()
    for step in _arm_steps(arms, configuration, settings.device, folder):
        yield step
        finish_record(folder, others)


def _arms(settings: DemoSettings) -> list[Arm]:
    budget = f"{settings.epochs}epochs_{settings.iterations}iters"
    # Trainers are Python classes, whose names hold no dot.
    alpha, beta = (f"{value:g}".replace(".", "p") for value in (settings.alpha, settings.beta))
    plain = f"nnUNetTrainerClassWeighted_a{alpha}_{budget}"
    lopsided = f"nnUNetTrainerLopsidedDice_dicenone_a{alpha}_b{beta}_{budget}"
    percent = f"{100 * settings.rate:g}%"
    return [
        Arm("full", "all lesions, weighted cross-entropy", FULL, plain),
        Arm("censored", f"{percent} {settings.mode}-censored, weighted cross-entropy", CENSORED, plain),
        Arm("lopsided", f"{percent} {settings.mode}-censored, lopsided bootstrap", CENSORED, lopsided),
    ]


def _data_steps(settings: DemoSettings) -> list[Step]:
    seed = str(settings.seed)
    phantom = ["python", "-m", "nnunet_lopsided.commands.phantom", "-d", str(FULL), "--overwrite", "-np", "2"]
    phantom += ["--train", str(settings.n_train), "--test", str(settings.n_test), "--seed", seed]
    # A whole brain in few voxels, so that a CPU trains on it in minutes.
    phantom += ["--shape", "32", "80", "80", "--spacing", "2", "1.6", "1.6"]
    censor = ["lopsided-censor", "-d", str(FULL), "-o", str(CENSORED), "--mode", settings.mode]
    censor += ["--rate", str(settings.rate), "--seed", seed, "--overwrite"]
    # nnU-Net's own step would take half a minute and gigabytes for statistics that it does not use for MRI.
    fingerprint = ("python", "-m", "nnunet_lopsided.commands.fingerprint", "-d", str(FULL))
    made = [] if settings.data is not None else [Step("phantom", tuple(phantom)), Step("fingerprint", fingerprint)]
    return [*made, Step("censor", tuple(censor))]


def _planning_steps(flat: bool) -> list[Step]:
    preprocess = ("nnUNetv2_plan_and_preprocess", "-d", str(FULL), "-c", "2d" if flat else "3d_fullres")
    # A small network, so that the demo ends on a CPU.
    network = ("--encoder", "tu-resnet10t", "--decoder", "deeplabv3plus", "--output-stride", "16")
    plan = ("lopsided-plan", "-d", str(FULL), *network, "--batch-size", "12", "--overwrite")
    share = ("lopsided-share", "-d", str(FULL), "-o", str(CENSORED), "--overwrite")
    return [
        Step("preprocess", (*preprocess, "-np", "2", "-npfp", "2")),
        *([] if flat else [Step("plan", plan)]),
        Step("share", share),
    ]


def _arm_steps(arms: list[Arm], configuration: str, device: str, folder: Path) -> list[Step]:
    steps = []
    for arm in arms:
        predictions, raw = str(folder / "predictions" / arm.name), raw_dataset(FULL).folder
        # --c goes on from a checkpoint, and begins anew where there is none.
        train = ["nnUNetv2_train", str(arm.dataset), configuration, "0", "-tr", arm.trainer, "-device", device, "--c"]
        predict = ["nnUNetv2_predict", "-i", str(raw / "imagesTs"), "-o", predictions, "-d", str(arm.dataset)]
        predict += ["-c", configuration, "-tr", arm.trainer, "-f", "0", "-device", device]
        predict += [
            "--save_probabilities",
            "--disable_tta",
            "-npp",
            "0",
            "-nps",
            "0",
        ]  # 0: no processes that import PyTorch again
        evaluate = ["lopsided-eval", "-g", str(raw / "labelsTs"), "-p", predictions]
        evaluate += ["-o", str(folder / "evaluation" / arm.name), "--overwrite"]
        for name, command in (("train", train), ("predict", predict), ("evaluate", evaluate)):
            steps.append(Step(f"{name}-{arm.name}", tuple(command)))
    return steps


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    if (folder / SETTINGS_FILE).is_file() or not folder.is_dir():
        return
    if not all(is_nobodys_work(path.name) for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no {SETTINGS_FILE}; choose another folder with -o")


def _claim(folder: Path, settings: DemoSettings, overwrite: bool, was_killed: bool = False) -> list[str]:
    """Make ``folder`` ours, or go on in it; returns the files in it that somebody else put there meanwhile."""
    wanted = {"version": __version__, **asdict(settings)}
    _check_folder(folder)
    if (folder / SETTINGS_FILE).is_file():
        if not overwrite:
            if read_json(folder / SETTINGS_FILE) != wanted:
                raise InputError(f"{folder} holds a demo with other settings; --overwrite starts anew")
            if not (folder / RECORD_FILE).is_file():  # from before there were records: nothing is known of its files
                known = {SETTINGS_FILE, *_LOCKS}
                files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
                finish_record(folder, without=[name for name in files if name not in known])
            ours = _OF_ANY_STEP if was_killed else ()
            return [name for name in unrecorded(folder) if not any(fnmatch(Path(name).name, o) for o in ours)]
        _check_own(folder, was_killed)
        _empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    finish_record(folder)  # before the settings: a kill between the two must not leave a demo that proves nothing
    write_json(folder / SETTINGS_FILE, wanted)
    finish_record(folder)
    return []


def _check_own(folder: Path, was_killed: bool) -> None:
    """Refuse to remove a folder that holds anything but what a demo wrote: its list of files is the proof."""
    if folder.is_symlink():
        raise InputError(f"{folder} is a link, which is not followed; give the folder that it leads to")
    # A file that was put there while a demo ran is in its list.
    others = sorted(path.name for path in folder.iterdir() if path.name not in _FILES and path.name[0] != ".")
    if others:
        raise InputError(f"{folder} is not replaced: it holds {others[0]}, which lopsided-demo did not write")
    try:
        check_ours(
            folder, [SETTINGS_FILE, RECORD_FILE], grows=(SETTINGS_FILE, *(_OF_A_KILLED_STEP if was_killed else ()))
        )
    except InputError as error:
        raise InputError(f"{error}; if it is of a demo that was killed, remove {folder} yourself") from None


def _empty(folder: Path) -> None:
    """Remove what a demo wrote. Killed in the middle, it can begin again: what shows whose folder it is stays.

    The logs, which say what is done, go first.
    """
    kept = {SETTINGS_FILE, RECORD_FILE, *_LOCKS}
    for path in sorted(folder.iterdir(), key=lambda path: path.name != "logs"):
        if path.name in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _share_split() -> None:
    """The same single fold for both datasets: nnU-Net's online validation needs a few cases, the arms the same ones."""
    cases = [case.name for case in raw_dataset(FULL).training_cases()]
    if len(cases) < 2:
        raise InputError(f"the demo needs at least 2 training cases, found {len(cases)}")
    n_validation = min(_N_VALIDATION, len(cases) - 1)
    split = [{"train": cases[:-n_validation], "val": cases[-n_validation:]}]
    for dataset in (FULL, CENSORED):
        write_json(preprocessed_folder(dataset) / "splits_final.json", split)


def _is_2d(dataset: RawDataset) -> bool:
    label = dataset.training_cases()[0].label
    assert label is not None, "training cases have labels"
    return read_image(label).array.ndim == 2


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
