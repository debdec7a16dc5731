"""A trained model in nnU-Net's own predictor: probabilities of images as they are and magnified."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from threading import Lock
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Scan:
    """The images of a case as nnU-Net's reader gives them.

    Attributes:
        image: shape (channels, z, y, x), in the frame of the reader.
        properties: what nnU-Net knows of them; :meth:`Network.probabilities` of the image as it is adds to them, as
            nnU-Net does before it writes them.
    """

    image: NDArray[np.floating]
    properties: dict[str, object]


class Network:
    """A trained model: the mean of the logits of its folds, as nnU-Net predicts.

    What nnU-Net raises is passed on as it is, of whatever kind.

    Args:
        model: nnU-Net's ``DATASET/TRAINER__PLANS__CONFIGURATION``.
        folds: which of it, numbers or "all".
        checkpoint: name of the file in each ``fold_X``.
        device: cpu, cuda or mps.
        step_size: of the sliding window, in its sizes, within (0, 1].
        on_device: keep the sum of the windows on a cuda device, too.
        torch_resampling: bring logits back to the grid of the image by PyTorch on ``device`` instead of by nnU-Net's
            functions on the CPU, where :func:`~nnunet_lopsided.nnunet.torch_resampling.is_linear`: within 1e-3.
        verbose: let nnU-Net say what it does.
    """

    def __init__(
        self,
        model: Path,
        folds: Sequence[int | str],
        checkpoint: str,
        device: str,
        *,
        step_size: float = 0.5,
        on_device: bool = True,
        torch_resampling: bool = False,
        verbose: bool = False,
    ) -> None:
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        # It says where it looks for the trainer; importing them warns of what others use.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._predictor = nnUNetPredictor(
                tile_step_size=step_size,
                use_mirroring=False,
                perform_everything_on_device=device == "cuda" and on_device,
                device=torch.device(device),
                verbose=verbose,
                allow_tqdm=False,
            )
            load = self._predictor.initialize_from_trained_model_folder
            try:
                with _tensors_and_numbers_only():
                    load(str(model), tuple(folds), checkpoint)
            except UnpicklingError:
                # It holds objects of other kinds, which a trainer may keep: unpickled as nnU-Net itself would.
                load(str(model), tuple(folds), checkpoint)
        # Two cases on a GPU at once would need twice its memory; reading and resampling go on beside it.
        self._one_at_a_time = Lock()
        self._torch_resampling = torch_resampling
        self._n_threads = torch.get_num_threads()

    @property
    def plans(self) -> dict[str, object]:
        """What ``plans.json`` of predictions holds."""
        return cast("dict[str, object]", self._predictor.plans_manager.plans)

    @property
    def dataset_json(self) -> dict[str, object]:
        """What ``dataset.json`` of predictions holds."""
        return cast("dict[str, object]", self._predictor.dataset_json)

    def read(self, images: Sequence[Path]) -> Scan:
        """The images of a case, one file per channel."""
        reader = self._predictor.plans_manager.image_reader_writer_class()
        image, properties = reader.read_images([str(path) for path in images])
        return Scan(image, properties)

    def probabilities(self, scan: Scan, factor: float = 1.0, *, mirrored: bool = False) -> NDArray[np.floating]:
        """The probabilities that nnU-Net would store for a case.

        nnU-Net is told that the voxels are ``factor`` times as large as they are: it resamples the image to that many
        more voxels along every axis that the configuration resamples (in the plane, where it is 2D), and the
        probabilities back. Threads may call it at the same time; the network sees their cases one by one.

        Args:
            scan: of :meth:`read`.
            factor: how many times the image is magnified.
            mirrored: mean over the mirrored images, too.

        Returns:
            Shape (classes or regions, z, y, x), on the grid of the image.
        """
        import numpy as np
        import torch
        from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

        of, properties = self._predictor, scan.properties
        if factor != 1:
            spacing = cast("Sequence[float]", properties["spacing"])
            properties = {**properties, "spacing": [factor * size for size in spacing]}
        preprocessor = of.configuration_manager.preprocessor_class(verbose=of.verbose)
        data, _, properties = preprocessor.run_case_npy(
            scan.image, None, properties, of.plans_manager, of.configuration_manager, of.dataset_json
        )
        logits = self._logits(torch.from_numpy(data), mirrored)
        if self._torch_resampling:
            logits = self._resampled(logits, properties)
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

    def _resampled(self, logits: torch.Tensor, properties: dict[str, object]) -> torch.Tensor:
        from nnunet_lopsided.nnunet.torch_resampling import resampled

        of = self._predictor
        with self._one_at_a_time:
            return resampled(logits, of.plans_manager, of.configuration_manager, properties, of.device)

    def _logits(self, data: torch.Tensor, mirrored: bool) -> torch.Tensor:
        with self._one_at_a_time:
            self._predictor.use_mirroring = mirrored
            logits: torch.Tensor = self._predictor.predict_logits_from_preprocessed_data(data).cpu()
        return logits

    def label_map(self, probabilities: NDArray[np.floating]) -> NDArray[np.unsignedinteger]:
        """The labels that nnU-Net would store for such probabilities: of classes, regions, or with an ignore label."""
        import numpy as np

        manager = self._predictor.label_manager
        labels = manager.convert_probabilities_to_segmentation(probabilities)
        # The types that nnU-Net's export chooses, so that the files are the same.
        return np.asarray(labels).astype(np.uint8 if len(manager.foreground_labels) < 255 else np.uint16)

    def write_label_map(self, labels: NDArray[np.unsignedinteger], path: Path, scan: Scan) -> None:
        """Write labels as nnU-Net does, in the frame of the images."""
        self._predictor.plans_manager.image_reader_writer_class().write_seg(labels, str(path), scan.properties)


def reason_of(error: Exception) -> str:
    """What was wrong, in a line: the last one, which says it in SimpleITK's messages for one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


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
