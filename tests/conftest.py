"""Settings of all tests, and a tiny planned and preprocessed dataset, made once for all tests that build trainers."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nnunetv2.paths
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

# Before torch is imported. The tensors of the tests are too small for threads to pay, least of all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from nnunet_lopsided.images import Geometry, Image, read_image, write_image

# How long an example takes says how busy the machine is, and no test may depend on that.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

PATHS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


class PathOfVariable(os.PathLike[str]):
    """A path that an environment variable names when it is used."""

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def __fspath__(self) -> str:
        return os.environ[self._variable]

    __str__ = __fspath__


# nnU-Net 2.6 and 2.7 read the paths when they are imported; 2.8 when they are used, and tests set each its own.
if not hasattr(nnunetv2.paths.nnUNet_raw, "__fspath__"):
    for variable in PATHS:
        setattr(nnunetv2.paths, variable, PathOfVariable(variable))

BINARY = {"background": 0, "lesion": 1}
KINDS = {
    "binary": BINARY,
    "multi-class": {"background": 0, "rim": 1, "core": 2},
    "regions": {"background": 0, "whole": [1, 2], "core": [2]},
    "ignore": {"background": 0, "rim": 1, "core": 2, "ignore": 3},
    "regions with ignore": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
}


def without_progress_pictures(patch: pytest.MonkeyPatch) -> None:
    """nnU-Net's picture of a training's progress is not drawn, which takes longer than a tiny epoch."""
    from nnunetv2.training.logging import nnunet_logger

    logger = getattr(nnunet_logger, "MetaLogger", None) or nnunet_logger.nnUNetLogger  # so called in 2.6
    patch.setattr(logger, "plot_progress_png", lambda self, folder: None)


def set_paths(root: Path, patch: pytest.MonkeyPatch) -> None:
    for variable in PATHS:
        (root / variable).mkdir(parents=True, exist_ok=True)
        patch.setenv(variable, str(root / variable))


@pytest.fixture
def device() -> Any:
    """What tests marked ``gpu`` run on: ``LOPSIDED_TEST_DEVICE`` (``cpu`` rehearses them), else a GPU or not at all."""
    import torch

    name = os.environ.get("LOPSIDED_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else None)
    if name is None:
        pytest.skip("needs a CUDA device; LOPSIDED_TEST_DEVICE=cpu runs it without")
    return torch.device(name)


@pytest.fixture
def nnunet_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the three nnU-Net paths, empty and set."""
    set_paths(tmp_path, monkeypatch)
    return tmp_path


@dataclass(frozen=True)
class TinyDataset:
    """Five cases of 12 x 32 x 32, planned and preprocessed; binary or with another set of labels.

    Attributes:
        root: holds the nnU-Net paths.
        name: the dataset's folder name.
        dataset_json: the content of dataset.json.
    """

    root: Path
    name: str
    dataset_json: dict[str, Any]

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / self.name

    def plans(self, name: str = "nnUNetPlans") -> dict[str, Any]:
        """A copy of the plans, with batch size 2 and few features everywhere."""
        plans: dict[str, Any] = json.loads((self.preprocessed / f"{name}.json").read_text())
        for configuration in plans["configurations"].values():
            configuration["batch_size"] = 2
            network = configuration["architecture"]["arch_kwargs"]
            if "features_per_stage" in network:
                network["features_per_stage"] = [4 * 2**i for i in range(network["n_stages"])]
        return plans


@pytest.fixture(scope="session")
def tiny_datasets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyDataset]:
    """One of ``KINDS`` -> a dataset with these labels, made on first use."""
    root = tmp_path_factory.mktemp("nnunet")
    made: dict[str, TinyDataset] = {}

    def get(kind: str) -> TinyDataset:
        if kind not in made:
            with pytest.MonkeyPatch.context() as patch:
                set_paths(root, patch)
                made[kind] = make_dataset(root, kind, patch)
        return made[kind]

    return get


@pytest.fixture
def tiny(tiny_datasets: Callable[[str], TinyDataset], monkeypatch: pytest.MonkeyPatch) -> TinyDataset:
    """The binary tiny dataset, with the nnU-Net paths set to it."""
    dataset = tiny_datasets("binary")
    set_paths(dataset.root, monkeypatch)
    return dataset


def make_dataset(root: Path, kind: str, patch: pytest.MonkeyPatch) -> TinyDataset:
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet
    from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
        ResEncUNetPlanner,
    )

    from nnunet_lopsided.dataset_conversion.phantom import write_phantom_dataset
    from nnunet_lopsided.planning.configuration_25d import add_configuration
    from nnunet_lopsided.planning.rules_25d import Overrides

    number = 701 + list(KINDS).index(kind)
    folder = write_phantom_dataset(
        number, n_train=5, n_test=2 if kind == "binary" else 0, shape=(12, 32, 32), spacing_mm=(5, 4, 4), seed=3
    )
    dataset_json = json.loads((folder / "dataset.json").read_text()) | {"labels": KINDS[kind]}
    if "regions" in kind:
        dataset_json["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    for path in (folder / "labelsTr").iterdir() if kind != "binary" else ():
        label = read_image(path)
        write_image(path, Image(relabelled(np.asarray(label.array), "ignore" in kind), label.geometry))

    patch.setenv("nnUNet_n_proc_DA", "2")  # planning crashes at 0, which the tests of trainers set
    # Threads instead of spawned processes, each of which would import torch again.
    patch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
    patch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)

    extractor = nnunet.DatasetFingerprintExtractor(number, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = 10_000  # the default, 1e8, would take most of the time
    extractor.run()
    nnunet.plan_experiment_dataset(number)
    nnunet.plan_experiment_dataset(number, ResEncUNetPlanner)
    nnunet.preprocess_dataset(number, configurations=("2d", "3d_fullres"), num_processes=(1,))
    add_configuration(number, overrides=Overrides(encoder="resnet18", n_slices=5, output_stride=16, batch_size=2))
    return TinyDataset(root, folder.name, deepcopy(dataset_json))


def relabelled(label: NDArray[Any], with_ignored: bool) -> NDArray[Any]:
    """Lesions of two classes, the upper half 2; and with a block to ignore, 3."""
    lesion = label > 0
    label = lesion.astype(np.uint8)
    label[6:][lesion[6:]] = 2
    if with_ignored:
        label[:, :, :8] = 3
    return label


@pytest.fixture
def planned_dataset(nnunet_paths: Path) -> Callable[..., Path]:
    """Writes the preprocessed folder of a dataset 505 of one case with one lesion, as far as planning reads it."""

    def write(plans: dict[str, Any], fingerprint: dict[str, Any]) -> Path:
        folder = nnunet_paths / "nnUNet_preprocessed" / "Dataset505_Planned"
        (folder / "gt_segmentations").mkdir(parents=True)
        (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
        (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        dataset_json = {
            "channel_names": {"0": "T1"},
            "labels": {"background": 0, "lesion": 1},
            "file_ending": ".nii.gz",
        }
        (folder / "dataset.json").write_text(json.dumps(dataset_json))
        label = np.zeros((20, 20, 20), np.uint8)
        label[4:16, 4:16, 4:16] = 1  # 14.9 mm across
        geometry = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
        write_image(folder / "gt_segmentations" / "a.nii.gz", Image(label, geometry))
        return folder

    return write


@pytest.fixture
def empty_results(tiny: TinyDataset) -> TinyDataset:
    """The binary tiny dataset without results of earlier tests."""
    shutil.rmtree(tiny.root / "nnUNet_results")
    (tiny.root / "nnUNet_results").mkdir()
    return tiny
