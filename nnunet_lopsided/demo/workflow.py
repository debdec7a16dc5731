"""What the demo runs: one dataset, three arms, their comparison and an audit."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

from nnunet_lopsided import __version__
from nnunet_lopsided.demo.arms import CENSORED, FOLDS, FULL, arms_of
from nnunet_lopsided.demo.commands import Commands
from nnunet_lopsided.demo.demo_page import write_page
from nnunet_lopsided.demo.expected_time import expected_time, n_cores, n_lanes
from nnunet_lopsided.demo.ownership import SPLITS_FILE, check_folder, claim, only_demo, remember_kill
from nnunet_lopsided.demo.settings import DemoSettings
from nnunet_lopsided.demo.steps import StepRunner
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folder_record import finish_record
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.images import read_image
from nnunet_lopsided.nnunet.paths import PATH_VARIABLES, names_of_dataset
from nnunet_lopsided.nnunet.patients import patients_of
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.nnunet.raw import RawDataset, raw_dataset
from nnunet_lopsided.nnunet.splitting import folds_by_patient
from nnunet_lopsided.variants.choosing import check_rate
from nnunet_lopsided.variants.linking import link_with_test_set

_MOST_LOADERS = 12  # nnU-Net's own number on a workstation
_MOST_THREADS = 4  # more wait for each other in networks so small


def run_demo(settings: DemoSettings, folder: Path, overwrite: bool = False) -> Path:
    """Run the main job in ``folder`` and write the page.

    A repeated call with the same settings goes on where the last one stopped.

    Args:
        settings: what to run.
        folder: gets ``nnUNet_raw``, ``nnUNet_preprocessed``, ``nnUNet_results``, predictions, evaluations, comparisons,
            an audit, logs, ``table.csv``, ``table.md`` and ``index.html``.
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
    check_folder(folder)
    is_refused_after_a_kill = False
    try:
        with only_demo(folder) as was_killed:
            is_refused_after_a_kill = was_killed
            others = claim(folder, {"version": __version__, **asdict(settings)}, overwrite, was_killed)
            is_refused_after_a_kill = False
            try:
                return _run(settings, folder, source, others)
            finally:
                finish_record(folder, others)
    finally:
        if is_refused_after_a_kill:
            remember_kill(folder)


def _run(settings: DemoSettings, folder: Path, source: RawDataset | None, others: list[str]) -> Path:
    for variable in PATH_VARIABLES:
        (folder / variable).mkdir(exist_ok=True)
    paths = {variable: str(folder.absolute() / variable) for variable in PATH_VARIABLES}
    os.environ.update(paths)  # our own look-ups below use the same folders
    if source is not None and not names_of_dataset(FULL, ("nnUNet_raw",)):
        link_with_test_set(source, FULL)
    parent, configuration = _configurations(settings, is_flat=source is not None and _is_2d(raw_dataset(FULL)))
    commands = Commands(
        settings=settings, folder=folder, arms=arms_of(settings), parent=parent, configuration=configuration
    )
    for line in expected_time(settings):
        print(line, file=sys.stderr, flush=True)
    lanes = n_lanes(settings)
    environment = paths | _for_this_machine(settings, lanes)
    with StepRunner(folder / "logs", environment, commands.n_steps).closing() as runner:
        for step in (*commands.data, *commands.planning):
            runner.run([step])
            finish_record(folder, others)
        _share_folds(source)
        # Not while steps run side by side: what one of them is writing cannot be noted.
        runner.run_lanes(commands.lanes, lanes)
        finish_record(folder, others)
        runner.run_lanes([[commands.compare(fold)] for fold in FOLDS], lanes)
    return write_page(commands, raw_dataset(FULL), runner.spent)


def _configurations(settings: DemoSettings, is_flat: bool) -> tuple[str, str]:
    """nnU-Net's configuration, and what of it is trained: on a CPU a small version, which ends."""
    parent = "2d" if settings.data is None or is_flat else "3d_fullres"
    return parent, f"{parent}_small" if settings.data is None or settings.device == "cpu" else parent


def _for_this_machine(settings: DemoSettings, lanes: int) -> dict[str, str]:
    """How many processes and threads nnU-Net may start; what the user has set holds."""
    of_lane = max(1, n_cores() // lanes)
    numbers = {
        "nnUNet_n_proc_DA": min(_MOST_LOADERS, of_lane) if settings.device == "cuda" else 1,
        "nnUNet_def_n_proc": 1,
        # Of steps side by side each would take all cores, and wait for the others' threads.
        "OMP_NUM_THREADS": 1 if settings.data is None else min(_MOST_THREADS, of_lane),
    }
    return {name: str(n) for name, n in numbers.items() if name not in os.environ}


def _share_folds(source: RawDataset | None) -> None:
    """The same two halves for both datasets, patients kept together where cases.csv names them."""
    cases = [case.name for case in raw_dataset(FULL).training_cases()]
    patients, _ = patients_of(cases, source.folder if source is not None else raw_dataset(FULL).folder)
    of_patient: dict[str, list[str]] = {}
    for case, patient in patients.items():
        of_patient.setdefault(patient, []).append(case)
    folds = folds_by_patient(of_patient, dict.fromkeys(of_patient, 0), seed=0, n_folds=len(FOLDS))
    if not folds:
        raise InputError(f"the demo needs training cases of at least 2 patients, found {len(of_patient)}")
    for dataset in (FULL, CENSORED):
        write_json(preprocessed_folder(dataset) / SPLITS_FILE, folds)


def _is_2d(dataset: RawDataset) -> bool:
    label = dataset.training_cases()[0].label
    assert label is not None, "training cases have labels"
    return read_image(label).array.ndim == 2


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
