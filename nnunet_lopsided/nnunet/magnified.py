"""Out-of-fold predictions of magnified images: lesions too small to be annotated become as large as annotated ones."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from threading import Lock
from typing import TYPE_CHECKING, cast

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folders import check_holds_only
from nnunet_lopsided.files.json import file_digest, read_json, write_json
from nnunet_lopsided.files.locks import locked
from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.nnunet.raw import Case

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_RECORD = "magnified.json"


def predict_magnified(
    fold_folder: Path,
    checkpoint: str,
    factors: Sequence[float],
    cases: Sequence[Case],
    device: str | None,
    n_workers: int,
) -> dict[str, list[Path]]:
    """The probabilities of cases by one fold's model, of their images magnified; what is there already is kept.

    nnU-Net's own predictor, told that the voxels are so many times as large as they are: it resamples the image to
    that many more voxels along every axis that the configuration resamples (in the plane, where it is 2D), and the
    probabilities back. Without mirroring.

    Args:
        fold_folder: nnU-Net's ``fold_X``.
        checkpoint: name of the model's file in it.
        factors: how many times, each above 1.
        cases: which; the model must not have trained on them.
        device: cpu, cuda or mps; None: :func:`best_device`.
        n_workers: cases read, resampled and written at the same time; the network sees them one by one.

    Returns:
        By case, an array file per factor as nnU-Net's validation writes, in ``fold_X/validation_x<factor>``.

    Raises:
        InputError: an image cannot be read, the network cannot predict, the folder cannot be written, or another
            process is writing it.
    """
    if not factors:
        return {case.name: [] for case in cases}
    digest = file_digest(fold_folder / checkpoint)
    network = cache(lambda: _Network(fold_folder, checkpoint, device or best_device()))
    by_factor = [_arrays(fold_folder, digest, factor, cases, network, n_workers) for factor in factors]
    return {case.name: [arrays[case.name] for arrays in by_factor] for case in cases}


def _arrays(
    fold_folder: Path,
    checkpoint_digest: str,
    factor: float,
    cases: Sequence[Case],
    network: Callable[[], _Network],
    n_workers: int,
) -> dict[str, Path]:
    folder = fold_folder / f"validation_x{factor:g}"
    made_by = {"checkpoint_sha256": checkpoint_digest, "factor": factor}
    arrays = {case.name: folder / f"{case.name}.npz" for case in cases}

    def lacking() -> list[Case]:
        return [case for case in cases if not is_whole(arrays[case.name])]

    if not _is_of(folder, made_by) or lacking():
        title = f"{fold_folder.name}, magnified {factor:g} times"
        try:
            with locked(fold_folder):
                if not _is_of(folder, made_by):
                    _begin(folder, made_by)
                predict = network().predict
                for_each(lambda case: predict(case, factor, arrays[case.name]), lacking(), n_workers, title)
        except InputError:
            raise
        except Exception as error:  # of any kind: nnU-Net's
            raise InputError(f"{folder}: {_cannot(error)}") from error
    return arrays


def _is_of(folder: Path, made_by: dict[str, object]) -> bool:
    return (folder / _RECORD).is_file() and read_json(folder / _RECORD) == made_by


def _begin(folder: Path, made_by: dict[str, object]) -> None:
    """Make the folder empty: predictions of the model before it was trained again go, other files are refused."""
    if (folder / _RECORD).is_file():
        check_holds_only(folder, (_RECORD, "*.npz", ".*"))
        shutil.rmtree(folder)
    elif folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder}: expected the predictions of an audit, found other files and no {_RECORD}")
    folder.mkdir(exist_ok=True)
    write_json(folder / _RECORD, made_by)


def _cannot(error: Exception) -> str:
    """The error in one line: the last of its own, as SimpleITK says there what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return f"cannot predict magnified images: {reason}; --magnify without a number audits without them"


class _Network:
    """A fold's network in nnU-Net's predictor."""

    def __init__(self, fold_folder: Path, checkpoint: str, device: str) -> None:
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        # nnU-Net prints where it looks for the trainer; the libraries that it imports for that warn about themselves.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._predictor = nnUNetPredictor(
                use_mirroring=False,
                perform_everything_on_device=device == "cuda",
                device=torch.device(device),
                allow_tqdm=False,
            )
            fold = fold_folder.name.removeprefix("fold_")
            load = self._predictor.initialize_from_trained_model_folder
            try:
                try:
                    with _tensors_and_numbers_only():
                        load(str(fold_folder.parent), (fold,), checkpoint)
                except UnpicklingError:
                    # It holds objects of other kinds, which a trainer may keep: unpickled as nnU-Net itself would.
                    load(str(fold_folder.parent), (fold,), checkpoint)
            except Exception as error:  # of any kind: what a damaged file makes of pickle
                raise InputError(f"{fold_folder / checkpoint}: {_cannot(error)}") from error
        self._one_at_a_time = Lock()
        self._n_threads = torch.get_num_threads()

    def predict(self, case: Case, factor: float, array: Path) -> None:
        """Write the probabilities of a case, first under a temporary name."""
        import numpy as np

        try:
            probabilities = self._probabilities(case, factor)
        except Exception as error:  # of any kind: nnU-Net's
            images = ", ".join(map(str, case.images))
            raise InputError(f"case {case.name}: {images}: {_cannot(error)}") from error
        with new_file(array) as unfinished:
            np.savez_compressed(unfinished, probabilities=probabilities)

    def _probabilities(self, case: Case, factor: float) -> NDArray[np.floating]:
        import numpy as np
        import torch
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        of = self._predictor
        image, properties = of.plans_manager.image_reader_writer_class().read_images([str(p) for p in case.images])
        properties["spacing"] = [factor * size for size in properties["spacing"]]
        preprocessor = of.configuration_manager.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case_npy(
            image, None, properties, of.plans_manager, of.configuration_manager, of.dataset_json
        )
        with self._one_at_a_time:
            logits = of.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
        _, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits,
            of.plans_manager,
            of.configuration_manager,
            of.label_manager,
            properties,
            return_probabilities=True,
            num_threads_torch=self._n_threads,
        )
        return np.asarray(probabilities)


@contextlib.contextmanager
def _tensors_and_numbers_only() -> Iterator[None]:
    """Let torch.load build tensors, numbers and plain containers alone, though nnU-Net asks it to unpickle anything.

    What nnU-Net's own trainers write is of these kinds; the losses of the log are numbers of numpy.
    """
    import numpy as np
    import torch

    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    # What pickle makes numbers with; its module was renamed in numpy 2.
    scalar = cast("Callable[..., object]", np.float64(0).__reduce__()[0])
    os.environ[variable] = "1"
    kinds = [type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")]
    try:
        with torch.serialization.safe_globals([scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]):
            yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def is_whole(array: Path) -> bool:
    """Whether an array file is there, and no archive that was cut off, which holds no probabilities."""
    return array.is_file() and (array.suffix != ".npz" or zipfile.is_zipfile(array))


def best_device() -> str:
    """cuda where there is one, otherwise cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
