"""The main job through the console commands: censor, plan, train, predict, evaluate."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nnunet_lopsided.dataset_conversion.phantom import write_phantom_dataset
from nnunet_lopsided.nnunet.fingerprint import write_fingerprint
from nnunet_lopsided.nnunet.raw import raw_dataset
from tests.console import call, run, train

pytestmark = pytest.mark.slow

TRAINER = "nnUNetTrainerLopsided_a10_b0p5_w1_2epochs_2iters"
MODEL = f"Dataset711_PhantomCensored/{TRAINER}__nnUNetPlans__2.5d"


@pytest.fixture(scope="module")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the main job has run once."""
    root = tmp_path_factory.mktemp("main_job")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / variable).mkdir()
            patch.setenv(variable, str(root / variable))
        write_phantom_dataset(701, n_train=3, n_test=1, shape=(12, 32, 32), spacing_mm=(5, 4, 4), seed=3)
        run("lopsided-censor -d 701 -o 711 --mode stochastic --rate 0.5", root)
        # The command would spend its time on drawing nnU-Net's 1e8 voxels.
        write_fingerprint(raw_dataset(711), 10_000)
        run("nnUNetv2_plan_and_preprocess -d 711 -npfp 1 -np 1 -c 2d 3d_fullres", root)
        run("lopsided-plan -d 711 --encoder resnet18 --batch-size 2", root)
        preprocessed = root / "nnUNet_preprocessed" / "Dataset711_PhantomCensored"
        (preprocessed / "splits_final.json").write_text(
            json.dumps([{"train": ["phantom_000", "phantom_001"], "val": ["phantom_002"]}])
        )
        run(f"nnUNetv2_train 711 2.5d 0 -tr {TRAINER} -device cpu", root, nnUNet_n_proc_DA="0")
        images = root / "nnUNet_raw" / "Dataset711_PhantomCensored" / "imagesTs"
        run(
            f"nnUNetv2_predict -i {images} -o pred -d 711 -c 2.5d -tr {TRAINER} -f 0 "
            "-device cpu -npp 1 -nps 1 --save_probabilities --disable_tta",
            root,
        )
        run(f"lopsided-eval -g {images.parent / 'labelsTs'} -p pred -o report --bootstrap 0", root)
    return root


def test_training(main_job: Path) -> None:
    fold = main_job / "nnUNet_results" / MODEL / "fold_0"
    assert {p.name for p in fold.iterdir()} >= {"checkpoint_final.pth", "progress.png", "validation"}
    assert (fold / "validation" / "phantom_002.nii.gz").is_file()
    (log,) = fold.glob("training_log*.txt")
    text = log.read_text()
    assert "alpha=10.0, beta=0.5, warm_up_epochs=1, soft=False, teacher_decay=None, epochs=2, " in text
    assert "iterations_per_epoch=2" in text
    assert text.index("last-layer bias set to") < text.index("Current beta: 1 ") < text.index("Current beta: 0.5 ")
    checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=False, map_location="cpu")
    assert checkpoint["trainer_name"] == TRAINER
    assert checkpoint["init_args"]["lopsided"]["alpha"] == 10
    assert checkpoint["inference_allowed_mirroring_axes"] == (1, 2)


def test_prediction(main_job: Path) -> None:
    assert {p.name for p in (main_job / "pred").iterdir()} == {
        "phantom_test_000.nii.gz",
        "phantom_test_000.npz",
        "phantom_test_000.pkl",
        "dataset.json",
        "plans.json",
        "predict_from_raw_data_args.json",
    }
    probabilities = np.load(main_job / "pred" / "phantom_test_000.npz")["probabilities"]
    assert probabilities.shape == (2, 12, 32, 32)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-3)


def test_evaluation(main_job: Path) -> None:
    summary = json.loads((main_job / "report" / "summary.json").read_text())
    assert summary["counts"]["cases"] == 1
    # The test labels are whole.
    with (main_job / "report" / "lesions.csv").open() as file:
        n_lesions = len(list(csv.DictReader(file)))
    assert n_lesions == summary["counts"]["reference_lesions"] > 0
    assert (main_job / "report" / "report.html").is_file()


def test_probabilities_are_those_of_the_network(main_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nnUNetv2_predict stored equals one pass of the network over the preprocessed volume."""
    from acvl_utils.cropping_and_padding.padding import pad_nd_image
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_lopsided import trainers
    from nnunet_lopsided.nnunet.older_versions import build_network

    monkeypatch.setenv("nnUNet_results", str(main_job / "nnUNet_results"))
    model = main_job / "nnUNet_results" / MODEL
    dataset_json = json.loads((model / "dataset.json").read_text())
    plans = PlansManager(str(model / "plans.json"))
    configuration = plans.get_configuration("2.5d")
    images = main_job / "nnUNet_raw" / "Dataset711_PhantomCensored" / "imagesTs"
    data, _, properties = DefaultPreprocessor(verbose=False).run_case(
        sorted(str(p) for p in images.iterdir()), None, plans, configuration, dataset_json
    )
    assert data.shape[1] <= configuration.patch_size[0], "one window in z"
    assert all(np.array(data.shape[2:]) <= configuration.patch_size[1:]), "one window in the plane"

    build = getattr(trainers, TRAINER).build_network_architecture
    network = build_network(build, plans, configuration, 4, 2, False).eval()
    checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False, map_location="cpu")
    network.load_state_dict(checkpoint["network_weights"])
    # In the plane the network sees the patch it was trained with; slices beyond the volume are zero to it anyway.
    patch = configuration.configuration["lopsided"]["training_patch"]
    padded, place = pad_nd_image(torch.as_tensor(data), [data.shape[1], *patch], return_slicer=True)
    with torch.no_grad():
        logits = network(padded[None].float())[0][(slice(None), *place[1:])]
    expected = torch.softmax(logits, 0).numpy()

    stored = np.load(main_job / "pred" / "phantom_test_000.npz")["probabilities"]
    assert plans.transpose_forward == [0, 1, 2]
    box = tuple(slice(*bounds) for bounds in properties["bbox_used_for_cropping"])
    stored = stored[(slice(None), *box)]
    assert np.abs(stored - expected).max() < 2e-3
    # So short a training may leave every p far below 0.01, where a constant prediction would pass as well. On the scale
    # of the network's outputs it cannot: there the error is that of nnU-Net's half precision, and the spread is not.
    log_odds = (logits[1] - logits[0]).double().numpy()
    error = np.log(stored[1].astype(float) / stored[0]) - log_odds
    assert np.abs(error).max() < 0.25 * log_odds.std()


def test_audit_of_magnified_images(main_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the audit predicts is what nnU-Net's command says of images with voxels so many times as large."""
    from nnunet_lopsided.images import Geometry, Image, read_image, write_image

    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(main_job / variable))
    audit = f"lopsided-audit -d 711 -tr {TRAINER} -c 2.5d -f 0 --magnify 1.5 --bootstrap 0 -device cpu -np 1 -o audit"
    run(audit, main_job, nnUNet_n_proc_DA="0")
    fold = main_job / "nnUNet_results" / MODEL / "fold_0"
    made = fold / "validation_x1.5" / "phantom_002.npz"
    before = made.stat().st_mtime_ns
    run(f"{audit} --overwrite", main_job)
    assert made.stat().st_mtime_ns == before
    record = json.loads((main_job / "audit" / "audit.json").read_text())
    assert (record["settings"]["magnify"], record["not_magnified"]) == ([1.5], "")

    (main_job / "magnified").mkdir()
    for path in (main_job / "nnUNet_raw" / "Dataset701_Phantom" / "imagesTr").glob("phantom_002_*"):
        image = read_image(path)
        spacing = tuple(1.5 * size for size in image.geometry.spacing_mm)
        geometry = Geometry(spacing, image.geometry.origin_mm, image.geometry.direction)
        write_image(main_job / "magnified" / path.name, Image(image.array, geometry))
    run(
        f"nnUNetv2_predict -i magnified -o magnified_pred -d 711 -c 2.5d -tr {TRAINER} -f 0 "
        "-device cpu -npp 0 -nps 0 --save_probabilities --disable_tta",  # in one process
        main_job,
    )
    ours, theirs = (np.load(path)["probabilities"] for path in (made, main_job / "magnified_pred" / "phantom_002.npz"))
    plain = np.load(fold / "validation" / "phantom_002.npz")["probabilities"]
    assert np.abs(ours - theirs).max() < 0.01 * np.abs(ours - plain).max()


def test_audit_with_injected_lesions(main_job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is predicted of images with lesions is what nnU-Net's own command says, mirrored as in its validation."""
    job = tmp_path / "job"
    shutil.copytree(main_job, job, symlinks=True)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(job / variable))
    audit = f"lopsided-audit -d 711 -tr {TRAINER} -c 2.5d -f 0 --magnify 1.5 --bootstrap 0 -device cpu -np 1"
    run(f"{audit} -o plain", job, nnUNet_n_proc_DA="0")
    # So short a training may leave no place where nothing is seen, so that nothing could be injected.
    for path in (job / "nnUNet_results" / MODEL / "fold_0").glob("validation*/*.npz"):
        lesion = np.load(path)["probabilities"][1]
        faint = 0.009 * lesion / lesion.max()
        np.savez_compressed(path, probabilities=np.stack([1 - faint, faint]))
        path.with_suffix("").with_suffix(".nii.gz").unlink(missing_ok=True)
    run(f"{audit} -o plain --overwrite", job)
    run(f"{audit} --inject 3 --seed 2 -o injected", job)
    plain, record = (json.loads((job / name / "audit.json").read_text()) for name in ("plain", "injected"))
    injected = record.pop("injected")
    assert plain["injected"] is None
    assert {key: value for key, value in record.items() if key not in ("settings", "id")}.items() <= plain.items()
    assert (injected["seed"], injected["per_case"]) == (2, 3)
    assert 1 <= injected["lesions"] == sum(row["injected"] for row in injected["by_diameter"])
    folder = job / "nnUNet_results" / MODEL / "fold_0" / "validation_injected"
    made = folder / "validation_x1" / "phantom_002.npz"
    before = made.stat().st_mtime_ns
    run(f"{audit} --inject 3 --seed 2 -o injected --overwrite", job)
    assert made.stat().st_mtime_ns == before
    assert json.loads((job / "injected" / "audit.json").read_text())["injected"] == injected
    run(
        f"nnUNetv2_predict -i {folder / 'images'} -o injected_pred -d 711 -c 2.5d -tr {TRAINER} -f 0 "
        "-device cpu -npp 0 -nps 0 --save_probabilities",
        job,
    )
    ours, theirs = (np.load(path)["probabilities"] for path in (made, job / "injected_pred" / "phantom_002.npz"))
    np.testing.assert_array_equal(ours, theirs)
    assert (folder / "validation_x1.5" / "phantom_002.npz").is_file()


OURS = "python -m nnunet_lopsided.commands.predict"


def options(main_job: Path, trainer: str = TRAINER) -> str:
    images = main_job / "nnUNet_raw" / "Dataset711_PhantomCensored" / "imagesTs"
    return f"-i {images} -d 711 -c 2.5d -tr {trainer} -device cpu -npp 1 -nps 1 --save_probabilities"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_prediction_without_magnification_is_nnunets(main_job: Path, tmp_path: Path) -> None:
    run(f"{OURS} {options(main_job)} -o pred -f 0 --disable_tta", tmp_path, **paths_below(main_job))
    assert contents(tmp_path / "pred") == contents(main_job / "pred")


def test_magnified_prediction(main_job: Path, tmp_path: Path) -> None:
    """The mean of what nnU-Net's command says of the image as it is and with voxels so many times as large."""
    from nnunet_lopsided.images import Geometry, Image, read_image, write_image

    environment, name = paths_below(main_job), "phantom_test_000"
    model = main_job / "nnUNet_results" / MODEL
    if not (model / "fold_1").is_dir():  # another network, so that it matters which folds are meant
        (model / "fold_1").mkdir()
        checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
        weights = checkpoint["network_weights"]
        checkpoint["network_weights"] = {key: 1.3 * w if w.is_floating_point() else w for key, w in weights.items()}
        torch.save(checkpoint, model / "fold_1" / "checkpoint_final.pth")
    run(f"{OURS} {options(main_job)} -o ours -f 0 1 --magnify 2", tmp_path, **environment)
    run(f"{OURS} {options(main_job)} -o by_torch -f 0 1 --magnify 2 --torch-resampling", tmp_path, **environment)
    run(f"nnUNetv2_predict {options(main_job)} -o x1 -f 0 1", tmp_path, **environment)
    (tmp_path / "images").mkdir()
    for path in (main_job / "nnUNet_raw" / "Dataset711_PhantomCensored" / "imagesTs").iterdir():
        image = read_image(path)
        spacing = tuple(2 * size for size in image.geometry.spacing_mm)
        geometry = Geometry(spacing, image.geometry.origin_mm, image.geometry.direction)
        write_image(tmp_path / "images" / path.name, Image(image.array, geometry))
    in_one_process = "-npp 0 -nps 0"
    run(
        f"nnUNetv2_predict {options(main_job)} -i images -o x2 -f 0 1 --disable_tta {in_one_process}",
        tmp_path,
        **environment,
    )

    def probabilities(folder: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(tmp_path / folder / f"{name}.npz")["probabilities"]
        return array

    ours, plain = probabilities("ours"), probabilities("x1")
    expected = (plain + probabilities("x2")) / 2
    assert ours.dtype == np.float32
    assert np.abs(ours - probabilities("by_torch")).max() < 1e-3
    assert np.abs(ours - expected).max() < 0.01 * np.abs(ours - plain).max()
    written = read_image(tmp_path / "ours" / f"{name}.nii.gz")
    np.testing.assert_array_equal(written.array, ours.argmax(0))
    assert written.geometry == read_image(tmp_path / "x1" / f"{name}.nii.gz").geometry
    mine, nnunets = contents(tmp_path / "ours"), contents(tmp_path / "x1")
    assert set(mine) == set(nnunets)
    for same in ("dataset.json", "plans.json"):
        assert mine[same] == nnunets[same]
    assert repr(pickle.loads(mine[f"{name}.pkl"])) == repr(pickle.loads(nnunets[f"{name}.pkl"]))
    record, nnunets_record = (json.loads(files["predict_from_raw_data_args.json"]) for files in (mine, nnunets))
    key = "output_folder_or_list_of_truncated_output_files"
    assert record == nnunets_record | {key: "ours", "magnify": [2]}


def test_magnified_prediction_of_regions(main_job: Path, tmp_path: Path) -> None:
    """The same network with a sigmoid for each of two regions; labels are made as nnU-Net makes them."""
    from nnunet_lopsided.images import read_image

    results = tmp_path / "results"
    shutil.copytree(main_job / "nnUNet_results" / MODEL, results / MODEL)
    (results / MODEL / "fold_0").rename(results / MODEL / "fold_all")
    dataset = json.loads((results / MODEL / "dataset.json").read_text())
    dataset |= {"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, "regions_class_order": [1, 2]}
    (results / MODEL / "dataset.json").write_text(json.dumps(dataset))
    environment = paths_below(main_job) | {"nnUNet_results": str(results)}
    run(f"{OURS} {options(main_job)} -o ours -f all --magnify 1.5 --disable_tta", tmp_path, **environment)
    whole, core = np.load(tmp_path / "ours" / "phantom_test_000.npz")["probabilities"]
    labels = np.where(whole > 0.5, 1, 0)
    labels[core > 0.5] = 2
    assert np.abs(whole + core - 1).max() > 0.01, "no softmax"
    np.testing.assert_array_equal(read_image(tmp_path / "ours" / "phantom_test_000.nii.gz").array, labels)


INTERRUPTED = """
import os, signal
from nnunetv2.run.run_training import run_training_entry
from nnunet_lopsided import trainers
trainer = trainers.{trainer}
train = trainer.on_train_epoch_start
def killed(self):
    if self.current_epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    train(self)
trainer.on_train_epoch_start = killed
run_training_entry()
"""


def test_a_seed_fixes_a_training_killed_or_not(main_job: Path, tmp_path: Path) -> None:
    """Processes of their own, so that nothing of one, such as the order of its sets, can help another."""
    name = "nnUNetTrainerLopsided_2epochs_2iters_seed{}"

    def trained(seed: int, place: str, more: str = "") -> dict[str, torch.Tensor]:
        results = tmp_path / place
        results.mkdir(exist_ok=True)
        environment = paths_below(main_job) | {"nnUNet_n_proc_DA": "0", "nnUNet_results": str(results)}
        train(f"711 2.5d 0 -tr {name.format(seed)} {more}", main_job, **environment)
        (checkpoint,) = results.glob("*/*/fold_0/checkpoint_final.pth")
        weights: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=False)["network_weights"]
        return weights

    def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(one[key], other[key]) for key in one)

    whole = trained(3, "whole")
    assert same(trained(3, "again"), whole)
    assert not same(trained(4, "other"), whole)
    (tmp_path / "killed").mkdir()
    code = INTERRUPTED.format(trainer=name.format(3))
    killed = subprocess.run(
        [sys.executable, "-c", code, "711", "2.5d", "0", "-tr", name.format(3), "-device", "cpu"],
        env=os.environ | paths_below(main_job) | {"nnUNet_n_proc_DA": "0", "nnUNet_results": str(tmp_path / "killed")},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr[-3000:].decode()
    assert same(trained(3, "killed", "--c"), whole)


def paths_below(root: Path) -> dict[str, str]:
    return {variable: str(root / variable) for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}


@pytest.mark.parametrize("options", ["", "-tr nnUNetTrainerNoDeepSupervision"])
def test_nnunets_own_trainer_on_25d_names_ours(main_job: Path, options: str) -> None:
    environment = paths_below(main_job) | {"nnUNet_n_proc_DA": "0", "PYTHONWARNINGS": "ignore"}
    done = call(f"nnUNetv2_train 711 2.5d 0 {options} -device cpu", main_job, **environment)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("nnunet-lopsided: error: the 2.5d network has one output")
    assert "-tr nnUNetTrainer25D" in done.stderr
