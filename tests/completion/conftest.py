"""Completions in seconds: trainings that write predictions, and preprocessed folders without nnU-Net."""

from __future__ import annotations

import json
import os
import shutil
import signal
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lopsided.completion import completing, preprocessing, training
from nnunet_lopsided.completion.completing import Completion
from nnunet_lopsided.completion.zoning import SampleToRead
from nnunet_lopsided.files.json import file_digest, write_json
from nnunet_lopsided.images import Image, read_image, write_image
from tests.audit.conftest import set_root, write_datasets

TRAINER = "nnUNetTrainerLopsided"
PLANS = {"plans_name": "nnUNetPlans", "configurations": {"2.5d": {"data_identifier": "nnUNetPlans_2.5d"}}}


@dataclass
class World:
    """Dataset511_Cut lacks 3 of the 6 lesions of each of its ten cases.

    Every network calls all 6 lesions and two false ones; those of soft targets call them with the square root of p.

    Attributes:
        root: holds nnU-Net's paths.
        source: of which it is a copy.
        calls: the trainings that were run: dataset, fold and trainer; with ``--c`` where it went on.
        killed_in: the dataset and fold whose training kills this process after some epochs.
    """

    root: Path
    source: Path
    calls: list[tuple[str, ...]] = field(default_factory=list)
    killed_in: tuple[str, str] | None = None

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw"

    @property
    def results(self) -> Path:
        return self.root / "nnUNet_results"

    def fold(self, dataset: str, trainer: str, fold: str) -> Path:
        return self.results / dataset / f"{trainer}__nnUNetPlans__2.5d" / f"fold_{fold}"

    def record(self, dataset: str) -> dict[str, object]:
        content = json.loads((self.raw / dataset / "completion.json").read_text())
        assert isinstance(content, dict)
        return content

    def contents(self) -> dict[str, str]:
        """What lies below nnU-Net's paths: digests of all files but locks and logs, links as what they lead to."""
        return {
            # Checkpoints hold the time.
            path.relative_to(self.root).as_posix(): "" if path.suffix == ".pth" else file_digest(path)
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and "lock" not in path.name
        }

    def reset(self) -> None:
        """As if nothing had run."""
        shutil.rmtree(self.root)
        shutil.copytree(self.source, self.root)
        self.calls.clear()


def finished(made: Completion | SampleToRead) -> Completion:
    """A completion that needs no reader, or has had one."""
    assert isinstance(made, Completion)
    return made


def checkpoint(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/version", "3")


@pytest.fixture(scope="session")
def cut_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The datasets, planned; the predictions that networks will make lie in ``predictions``."""
    root = tmp_path_factory.mktemp("cut")
    write_datasets(root)
    (root / "predictions").mkdir()
    for path in (root / "nnUNet_results").rglob("validation/*"):
        path.rename(root / "predictions" / path.name)
    shutil.rmtree(root / "nnUNet_results")
    (root / "nnUNet_results").mkdir()
    write_json(root / "nnUNet_preprocessed" / "Dataset511_Cut" / "nnUNetPlans.json", PLANS)
    return root


@pytest.fixture
def world(cut_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy, in which trainings and preprocessing are stand-ins."""
    root = tmp_path / "nnunet"
    shutil.copytree(cut_once, root)
    set_root(root, monkeypatch)
    made = World(root, cut_once)

    def run_logged(
        command: Sequence[str], log: Path, environment: Mapping[str, str], every_second: Callable[[], None]
    ) -> int:
        dataset, _, fold = command[1:4]
        trainer = command[command.index("-tr") + 1]
        made.calls.append((dataset, fold, trainer, *(["--c"] if "--c" in command else [])))
        log.write_text("Epoch 1\n")
        own = made.fold(dataset, trainer, fold)
        if made.killed_in == (dataset, fold):
            checkpoint(own / "checkpoint_latest.pth")
            os.kill(os.getpid(), signal.SIGKILL)
        if fold != "all":
            (own / "validation").mkdir(exist_ok=True)
            splits = json.loads((root / "nnUNet_preprocessed" / dataset / "splits_final.json").read_text())
            for case in splits[int(fold)]["val"]:
                with np.load(root / "predictions" / f"{case}.npz") as arrays:
                    p = arrays["probabilities"][1]
                p = np.sqrt(p) if "softtargets" in trainer else p
                np.savez_compressed(own / "validation" / f"{case}.npz", probabilities=np.stack([1 - p, p]))
                shutil.copyfile(root / "predictions" / f"{case}.nii.gz", own / "validation" / f"{case}.nii.gz")
        checkpoint(own / "checkpoint_final.pth")
        (own / "checkpoint_latest.pth").unlink(missing_ok=True)
        return 0

    def share_preprocessed(source: str, variant: str, *, overwrite: bool, n_workers: int) -> None:
        folder = root / "nnUNet_preprocessed" / variant
        assert overwrite == folder.is_dir()
        final, folder = folder, folder.with_name(f".unfinished-{variant}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root / "nnUNet_preprocessed" / source, folder)
        shutil.copyfile(root / "nnUNet_raw" / variant / "dataset.json", folder / "dataset.json")
        for path in (root / "nnUNet_raw" / variant / "labelsTr").iterdir():
            shutil.copyfile(path, folder / "gt_segmentations" / path.name)
        write_json(folder / "sharing.json", {})
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)

    def soften(
        dataset: str, configuration: str, source: Path, *, plans_name: str, overwrite: bool, n_workers: int
    ) -> None:
        folder = root / "nnUNet_preprocessed" / dataset / f"{plans_name}_{configuration}" / "lopsided_beliefs"
        folder.mkdir(parents=True, exist_ok=True)
        digests = {path.name: file_digest(path) for path in source.iterdir()}
        write_json(folder / "lopsided_beliefs.json", {"cases": {"all": digests}})

    monkeypatch.setattr(training, "run_logged", run_logged)
    monkeypatch.setattr(preprocessing, "share_preprocessed", share_preprocessed)
    monkeypatch.setattr(preprocessing, "soften", soften)
    monkeypatch.setattr(completing, "_check_trainer", lambda trainer: None)  # would import PyTorch
    return made


def edit_predictions(world: World, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
    """Let the networks say something else, also those that are trained already."""
    for path in [*(world.root / "predictions").glob("*.npz"), *world.results.rglob("*.npz")]:
        with np.load(path) as arrays:
            p = change(arrays["probabilities"][1])
        np.savez_compressed(path, probabilities=np.stack([1 - p, p]))


def edit_labels(world: World, dataset: str, change: Callable[[str, NDArray[np.generic]], NDArray[np.generic]]) -> None:
    """Edit the labels, which the training saw as they are now; ``change`` gets the name of the file too."""
    for folder in (world.raw / dataset / "labelsTr", world.root / "nnUNet_preprocessed" / dataset / "gt_segmentations"):
        for path in folder.iterdir():
            label = read_image(path)
            write_image(path, Image(change(path.name, label.array), label.geometry))
