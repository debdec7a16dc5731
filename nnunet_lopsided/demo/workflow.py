"""What the demo runs: one data set, three arms, and the table that compares them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunet_lopsided import __version__
from nnunet_lopsided.demo.demo_page import Arm, write_comparison
from nnunet_lopsided.demo.steps import Step, run_steps
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folders import check_holds_only
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.images import read_image
from nnunet_lopsided.nnunet.paths import PATH_VARIABLES, names_of_dataset
from nnunet_lopsided.nnunet.preprocessed import preprocessed_folder
from nnunet_lopsided.nnunet.raw import RawDataset, raw_dataset
from nnunet_lopsided.variants.choosing import check_rate
from nnunet_lopsided.variants.linking import link_with_test_set

FULL, CENSORED = 901, 902
SETTINGS_FILE = "demo.json"
_N_VALIDATION = 2
# Names in the folder of a demo.
_FILES = (SETTINGS_FILE, *PATH_VARIABLES, "predictions", "evaluation", "logs", "table.csv", "table.md", "index.html")


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does; written to ``demo.json``.

    Attributes:
        data: a raw nnU-Net dataset folder, or None for procedural brains.
        mode: censoring mode.
        rate: fraction of lesions censored.
        seed: of the phantom and the censoring. nnU-Net itself trains without a seed.
        epochs: training epochs per arm.
        iterations: iterations per epoch.
        alpha: weight of lesion voxels in all arms.
        beta: of the lopsided arm.
        device: ``cpu`` or ``cuda``.
        n_train: procedural training cases.
        n_test: procedural test cases.
    """

    data: str | None = None
    mode: str = "size"
    rate: float = 0.5
    seed: int = 0
    epochs: int = 5
    iterations: int = 50
    alpha: float = 3.0
    beta: float = 0.1
    device: str = "cpu"
    n_train: int = 24
    n_test: int = 12


def run_demo(settings: DemoSettings, folder: Path, overwrite: bool = False) -> Path:
    """Run the main job in ``folder`` and write the comparison.

    A repeated call with the same settings goes on where the last one stopped.

    Args:
        settings: what to run.
        folder: gets ``nnUNet_raw``, ``nnUNet_preprocessed``, ``nnUNet_results``, predictions, evaluations, logs,
            ``table.csv``, ``table.md`` and ``index.html``.
        overwrite: empty a folder that holds a demo with other settings.

    Returns:
        The page, ``index.html``.

    Raises:
        InputError: the folder holds something else, the data cannot be used, or a step failed.
    """
    check_rate(settings.rate)
    if settings.device == "cuda" and not _has_gpu():
        raise InputError("device cuda was asked for, and PyTorch finds no GPU")
    source = None if settings.data is None else RawDataset(Path(settings.data))
    if source is not None:
        source.training_cases()  # complains before anything is written
        if source.folder.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"data {source.folder} lie inside the demo's folder {folder}")
    _claim(folder, settings, overwrite)
    for variable in PATH_VARIABLES:
        (folder / variable).mkdir(exist_ok=True)
    environment = {variable: str(folder.absolute() / variable) for variable in PATH_VARIABLES}
    environment |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "2"}
    os.environ.update(environment)  # our own look-ups below use the same folders

    if source is not None and not names_of_dataset(FULL, ("nnUNet_raw",)):
        link_with_test_set(source, FULL)
    flat = source is not None and _is_2d(raw_dataset(FULL))
    arms, configuration = _arms(settings), "2d" if flat else "2.5d"
    n_steps = (source is None) + 1 + (2 if flat else 4) + 3 * len(arms)
    seconds = run_steps(_steps(settings, arms, configuration, folder), n_steps, folder / "logs", environment)
    return write_comparison(arms, folder, raw_dataset(FULL), asdict(settings), configuration, seconds)


def _steps(settings: DemoSettings, arms: list[Arm], configuration: str, folder: Path) -> Iterator[Step]:
    yield from _data_steps(settings)
    yield from _planning_steps(configuration == "2d")
    _share_split()
    yield from _arm_steps(arms, configuration, settings.device, folder)


def _arms(settings: DemoSettings) -> list[Arm]:
    budget = f"{settings.epochs}epochs_{settings.iterations}iters"
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
    make = Step(
        "phantom",
        (
            *("python", "-m", "nnunet_lopsided.commands.phantom", "-d", str(FULL), "--overwrite", "-np", "2"),
            *("--train", str(settings.n_train), "--test", str(settings.n_test), "--seed", str(settings.seed)),
            *("--shape", "32", "80", "80", "--spacing", "2", "1.6", "1.6"),
        ),
    )
    censor = Step(
        "censor",
        (
            *("lopsided-censor", "-d", str(FULL), "-o", str(CENSORED), "--mode", settings.mode),
            *("--rate", str(settings.rate), "--seed", str(settings.seed), "--overwrite"),
        ),
    )
    return [censor] if settings.data is not None else [make, censor]


def _planning_steps(flat: bool) -> list[Step]:
    steps = []
    for name, dataset in (("full", FULL), ("censored", CENSORED)):
        preprocess = ("nnUNetv2_plan_and_preprocess", "-d", str(dataset), "-c", "2d" if flat else "3d_fullres")
        steps.append(Step(f"preprocess-{name}", (*preprocess, "-np", "2", "-npfp", "2")))
        if not flat:
            # A small network, so that the demo ends on a CPU.
            network = ("--encoder", "resnet18", "--decoder", "deeplabv3plus", "--output-stride", "16")
            plan = ("lopsided-plan", "-d", str(dataset), *network, "--batch-size", "12", "--overwrite")
            steps.append(Step(f"plan-{name}", plan))
    return steps


def _arm_steps(arms: list[Arm], configuration: str, device: str, folder: Path) -> list[Step]:
    steps = []
    for arm in arms:
        model = ("-d", str(arm.dataset), "-c", configuration, "-tr", arm.trainer, "-f", "0", "-device", device)
        predictions = str(folder / "predictions" / arm.name)
        raw = raw_dataset(FULL).folder
        steps += [
            Step(
                f"train-{arm.name}",
                ("nnUNetv2_train", str(arm.dataset), configuration, "0", "-tr", arm.trainer, "-device", device, "--c"),
            ),
            Step(
                f"predict-{arm.name}",
                (
                    *("nnUNetv2_predict", "-i", str(raw / "imagesTs"), "-o", predictions, *model),
                    *("--save_probabilities", "--disable_tta", "-npp", "1", "-nps", "1"),
                ),
            ),
            Step(
                f"evaluate-{arm.name}",
                (
                    *("lopsided-eval", "-g", str(raw / "labelsTs"), "-p", predictions),
                    *("-o", str(folder / "evaluation" / arm.name), "--overwrite"),
                ),
            ),
        ]
    return steps


def _claim(folder: Path, settings: DemoSettings, overwrite: bool) -> None:
    """Make ``folder`` ours, or go on in it."""
    wanted = {"version": __version__, **asdict(settings)}
    settings_file = folder / SETTINGS_FILE
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    if settings_file.is_file():
        earlier = read_json(settings_file)
        if overwrite:
            if not isinstance(earlier, dict) or not wanted.keys() <= earlier.keys():
                raise InputError(f"{folder} is not replaced: its {SETTINGS_FILE} was not written by lopsided-demo")
            check_holds_only(folder, _FILES)
            shutil.rmtree(folder)
        elif earlier != wanted:
            raise InputError(f"{folder} holds a demo with other settings; --overwrite starts anew")
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no {SETTINGS_FILE}; choose another folder with -o")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(settings_file, wanted)


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
