"""Predictions of a folder of images: by nnUNetv2_predict, or as it makes them with images magnified, too."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import check_shape, read_json
from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.mean_probability import mean_of
from nnunet_lopsided.nnunet.magnified import is_whole
from nnunet_lopsided.nnunet.network import Network, reason_of
from nnunet_lopsided.nnunet.paths import is_litter, names_of_dataset, nnunet_path
from nnunet_lopsided.nnunet.plans import is_cascade
from nnunet_lopsided.nnunet.raw import Case, RawDataset
from nnunet_lopsided.nnunet.results import results_folder_name

_RECORD = "predict_from_raw_data_args.json"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What nnUNetv2_predict is asked for by its options, and how many times images are magnified.

    Attributes:
        images: folder of images.
        output: folder of predictions.
        model: nnU-Net's ``DATASET/TRAINER__PLANS__CONFIGURATION``.
        configuration: of it.
        folds: numbers, or "all".
        checkpoint: name of the file in each ``fold_X``.
        step_size: of the sliding window, within (0, 1].
        mirroring: of the image as it is; magnified images are never mirrored.
        verbose: let nnU-Net say what it does.
        save_probabilities: write ``CASE.npz`` and ``CASE.pkl``, too.
        continue_prediction: leave alone what is there already.
        n_preprocessing: processes of nnUNetv2_predict.
        n_export: processes of nnUNetv2_predict; the larger of both is how many cases are in work at the same time
            where images are magnified. Both 0: one after the other.
        previous_stage: folder of predictions, for a cascade.
        n_parts: in how many parts the cases are divided.
        part: which of them, from 0.
        device: cpu, cuda or mps.
        on_device: keep the sum of windows on a cuda device.
        progress: show a bar.
        magnify: how many times, each above 1; empty: the image as it is alone.
        torch_resampling: see :class:`~nnunet_lopsided.nnunet.network.Network`; where images are magnified.
    """

    images: str
    output: str
    model: Path
    configuration: str
    folds: tuple[int | str, ...]
    checkpoint: str
    step_size: float
    mirroring: bool
    verbose: bool
    save_probabilities: bool
    continue_prediction: bool
    n_preprocessing: int
    n_export: int
    previous_stage: str | None
    n_parts: int
    part: int
    device: str
    on_device: bool
    progress: bool
    magnify: tuple[float, ...]
    torch_resampling: bool = False


def trained_model(dataset: str, trainer: str, plans: str, configuration: str) -> Path:
    """The folder of a trained model.

    Args:
        dataset: id or name.
        trainer: as ``-tr`` of nnU-Net's commands.
        plans: as ``-p``.
        configuration: as ``-c``.

    Raises:
        InputError: there is none, or several datasets carry the id.
    """
    results = nnunet_path("nnUNet_results")
    names = [dataset] if dataset.startswith("Dataset") else names_of_dataset(dataset)
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise InputError(f"-d {dataset}: expected one dataset of this id below nnU-Net's folders, found {found}")
    model = results / results_folder_name(names[0], trainer, plans, configuration)
    if not model.is_dir():
        there = sorted(path.name for path in model.parent.iterdir()) if model.parent.is_dir() else []
        raise InputError(f"no trained model {model}: -tr, -p and -c name it; there are {', '.join(there) or 'none'}")
    return model


def predict(request: Request, nnunet_arguments: Sequence[str]) -> int:
    """Predict, and write the files that nnUNetv2_predict writes.

    Args:
        request: what was asked for.
        nnunet_arguments: the same as nnUNetv2_predict understands it, which is called where nothing is magnified.

    Returns:
        How many cases were predicted or were there already.

    Raises:
        InputError: the model, an image or an option is missing or wrong, what is there was predicted otherwise, or
            nnU-Net cannot predict.
    """
    _check_model(request)
    cases = _cases(request)
    output = Path(request.output)
    output.mkdir(parents=True, exist_ok=True)
    ending = RawDataset(request.model).file_ending
    _check_or_remove_earlier(request, cases, ending)
    if request.magnify:
        _predict_magnified(request, cases, ending)
    else:
        _nnunet_predicts(nnunet_arguments)
    return len(cases)


def _check_model(request: Request) -> None:
    import torch

    for name in ("dataset.json", "plans.json", *(f"fold_{fold}/{request.checkpoint}" for fold in request.folds)):
        if not (request.model / name).is_file():
            there = sorted(path.parent.name for path in request.model.glob(f"fold_*/{request.checkpoint}"))
            raise InputError(
                f"{request.model / name} not found: -f and -chk choose folds and checkpoint; {request.checkpoint} is "
                f"in {', '.join(there) or 'none'}"
            )
    if is_cascade(request.model / "plans.json", request.configuration):
        if request.magnify:
            raise InputError(
                f"--magnify: {request.configuration} is a cascade, which needs predictions of its previous stage of "
                "magnified images; predict it without --magnify"
            )
        if request.previous_stage is None:
            raise InputError(
                f"{request.configuration} is a cascade: -prev_stage_predictions FOLDER says where the predictions of "
                "its previous stage are"
            )
    if request.previous_stage is not None and not Path(request.previous_stage).is_dir():
        raise InputError(f"-prev_stage_predictions: folder not found: {request.previous_stage}")
    if request.device == "cuda" and not torch.cuda.is_available():
        raise InputError("-device cuda: no CUDA device was found; -device cpu predicts without one")


def _cases(request: Request) -> list[Case]:
    """The cases of this part, whose images are all there."""
    cases = RawDataset(request.model).cases_to_predict(Path(request.images))
    return cases[request.part :: request.n_parts]


def _check_or_remove_earlier(request: Request, cases: Sequence[Case], ending: str) -> None:
    """See to it that no folder holds predictions of different magnifications as if they were the same."""
    output = Path(request.output)
    path = output / _RECORD
    earlier = _recorded_factors(path) if path.is_file() else ()
    ours = {case.name + ending for case in cases}
    label_maps = sorted(
        entry for entry in output.iterdir() if entry.name.endswith(ending) and not is_litter(entry.name)
    )
    # The record is of the folder: what stays in it must have been predicted in the same way.
    stays = [entry for entry in label_maps if request.continue_prediction or entry.name not in ours]
    if earlier != request.magnify and (stays or (request.n_parts > 1 and path.is_file())):
        what = stays[0] if stays else f"what {path} is of"
        option = "--continue_prediction: " if request.continue_prediction else ""
        raise InputError(
            f"{option}{what} was predicted {_words(earlier)}, expected {_words(request.magnify)}; predict into another "
            "folder"
        )
    if (earlier or request.magnify) and not request.continue_prediction:
        # They are replaced one by one, and arrays not at all without --save_probabilities: what stays must not be taken
        # for predictions of this kind.
        for case in cases:
            for end in (ending, ".npz", ".pkl"):
                (output / (case.name + end)).unlink(missing_ok=True)


def _recorded_factors(path: Path) -> tuple[float, ...]:
    factors = read_json(path, dict, any_number=True).get("magnify", [])
    check_shape(factors, [float], path, "magnify")
    return tuple(factors)


def _words(factors: Sequence[float]) -> str:
    return f"with --magnify {' '.join(f'{factor:g}' for factor in factors)}" if factors else "without --magnify"


def _nnunet_predicts(arguments: Sequence[str]) -> None:
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point

    # Its entry point takes no arguments: it reads those of the process.
    own, sys.argv = sys.argv, ["nnUNetv2_predict", *arguments]
    try:
        predict_entry_point()
    except (InputError, MemoryError, OSError):
        raise  # these say by themselves what is wrong, and end a command as they should
    except Exception as error:  # of any kind: nnU-Net's
        raise InputError(f"nnUNetv2_predict: {reason_of(error)}") from error
    finally:
        sys.argv = own


def _predict_magnified(request: Request, cases: Sequence[Case], ending: str) -> None:
    import torch

    if request.device == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)  # as nnUNetv2_predict does; nnUNet_def_n_proc limits it
    output = Path(request.output)
    try:
        network = Network(
            request.model,
            request.folds,
            request.checkpoint,
            request.device,
            step_size=request.step_size,
            on_device=request.on_device,
            torch_resampling=request.torch_resampling,
            verbose=request.verbose,
        )
    except Exception as error:  # of any kind: nnU-Net's, what a damaged file makes of pickle
        raise InputError(f"{request.model}: nnU-Net cannot load this model: {reason_of(error)}") from error
    _write_records(request, network)

    def is_done(case: Case) -> bool:
        return (output / (case.name + ending)).is_file() and (
            not request.save_probabilities or is_whole(output / f"{case.name}.npz")
        )

    todo = [case for case in cases if not (request.continue_prediction and is_done(case))]
    for_each(
        lambda case: _predict_case(request, network, case, ending),
        todo,
        max(1, request.n_preprocessing, request.n_export),
        "predicting",
        option="-npp and -nps",
        progress=request.progress,
    )


def _predict_case(request: Request, network: Network, case: Case, ending: str) -> None:
    """Write the files of a case; its label map last, which says that it is done."""
    import numpy as np
    from batchgenerators.utilities.file_and_folder_operations import save_pickle

    try:
        scan = network.read(case.images)
        mean = mean_of(
            network.probabilities(scan, factor, mirrored=request.mirroring and factor == 1)
            for factor in (1.0, *request.magnify)
        )
        labels = network.label_map(mean)
    except MemoryError:
        raise
    except Exception as error:  # of any kind: nnU-Net's
        images = ", ".join(map(str, case.images))
        raise InputError(f"case {case.name}: {images}: nnU-Net cannot predict them: {reason_of(error)}") from error
    output = Path(request.output)
    if request.save_probabilities:
        with new_file(output / f"{case.name}.npz") as unfinished:
            np.savez_compressed(unfinished, probabilities=mean)
        with new_file(output / f"{case.name}.pkl") as unfinished:
            save_pickle(scan.properties, str(unfinished))
    with new_file(output / (case.name + ending)) as unfinished:
        network.write_label_map(labels, unfinished, scan)


def _write_records(request: Request, network: Network) -> None:
    """The three files beside predictions; nnU-Net's record of its arguments says how images were magnified, too."""
    from batchgenerators.utilities.file_and_folder_operations import save_json

    arguments = {
        "list_of_lists_or_source_folder": request.images,
        "output_folder_or_list_of_truncated_output_files": request.output,
        "save_probabilities": request.save_probabilities,
        "overwrite": not request.continue_prediction,
        "num_processes_preprocessing": request.n_preprocessing,
        "num_processes_segmentation_export": request.n_export,
        "folder_with_segs_from_prev_stage": None,
        "num_parts": request.n_parts,
        "part_id": request.part,
        "magnify": list(request.magnify),
        **({"torch_resampling": True} if request.torch_resampling else {}),
    }
    for name, content, is_sorted in (
        (_RECORD, arguments, True),
        ("dataset.json", network.dataset_json, False),
        ("plans.json", network.plans, False),
    ):
        with new_file(Path(request.output) / name) as unfinished:
            save_json(content, str(unfinished), sort_keys=is_sorted)
