"""nnU-Net in this process and in seconds: threads for its processes, few features, no picture of the loss."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.documentation.shell import Shell
from tests.documentation.tables import ADDED

PATHS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def with_added_options(words: list[str]) -> list[str]:
    """A command with the options of the table, unless it has them."""
    call = " ".join(words)
    options = [option for begin, its in ADDED.items() if f"{call} ".startswith(f"{begin} ") for option in its]
    missing = [option for option in options if option.split()[0] not in words]
    return [*words, *(word for option in missing for word in option.split())]


def make_plans_small(words: Sequence[str]) -> None:
    """After planning: two patches a batch, few features."""
    if words[0] != "nnUNetv2_plan_and_preprocess":
        return
    for path in Path(os.environ["nnUNet_preprocessed"]).glob("*/nnUNetPlans.json"):
        plans = json.loads(path.read_text())
        for configuration in plans["configurations"].values():
            if "architecture" in configuration and "features_per_stage" in configuration["architecture"]["arch_kwargs"]:
                network = configuration["architecture"]["arch_kwargs"]
                network["features_per_stage"] = [4 * 2**i for i in range(network["n_stages"])]
                configuration["batch_size"] = 2
        path.write_text(json.dumps(plans))


def quick_shell(root: Path, patch: pytest.MonkeyPatch) -> Shell:
    """A shell in ``root``, with nnU-Net's paths there, and nnU-Net made quick."""
    import torch
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.training.logging import nnunet_logger

    from nnunet_lopsided.audit import inputs
    from nnunet_lopsided.completion import training
    from nnunet_lopsided.trainers import curves

    for variable in PATHS:
        (root / variable).mkdir(parents=True, exist_ok=True)
        patch.setenv(variable, str(root / variable))
    patch.setenv("root", str(root))

    patch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
    patch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)
    patch.setattr(torch, "set_num_threads", lambda n: None)  # nnU-Net asks for all there are
    # The pictures of a training take half of its time.
    logger = getattr(nnunet_logger, "LocalLogger", None) or nnunet_logger.nnUNetLogger  # 2.6 has one class for all
    patch.setattr(logger, "plot_progress_png", lambda self, folder: None)
    patch.setattr(curves, "draw", lambda folder, rows: None)
    extract = DatasetFingerprintExtractor.__init__

    def few_voxels(self: DatasetFingerprintExtractor, *arguments: object, **options: object) -> None:
        extract(self, *arguments, **options)
        self.num_foreground_voxels_for_intensitystats = 10_000  # the default, 1e8, would take most of the time

    patch.setattr(DatasetFingerprintExtractor, "__init__", few_voxels)

    def changed(words: list[str]) -> list[str]:
        # Planning crashes at 0; training at more has processes load its data.
        os.environ["nnUNet_n_proc_DA"] = "0" if words[0] in ("nnUNetv2_train", "lopsided-complete") else "2"
        return with_added_options(words)

    patch.setenv("nnUNet_n_proc_DA", "2")
    shell = Shell(root, changed, make_plans_small)

    def run_logged(command: Sequence[str], log: Path, environment: Mapping[str, str], *_: object, **__: object) -> int:
        call = shell.call(list(command), Path.cwd())
        log.write_text(call.stdout + call.stderr)
        return call.code

    patch.setattr(inputs, "run_logged", run_logged)
    patch.setattr(training, "run_logged", run_logged)
    return shell
