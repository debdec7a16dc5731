"""The network of a running training as nnU-Net's predictor takes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_lopsided.trainers.base import LesionTrainer


@contextlib.contextmanager
def predicting(trainer: LesionTrainer) -> Iterator[nnUNetPredictor]:
    """nnU-Net's predictor around the network as it is; afterwards the training can go on.

    Without mirroring, which a candidate is not worth.

    Args:
        trainer: initialized.
    """
    predictor = nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=trainer.device.type == "cuda",
        device=trainer.device,
        allow_tqdm=False,
    )
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    if trainer._is_25d:
        trainer._network_25d.centre_slice_only = False
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json,
        type(trainer).__name__, trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip
    try:
        yield predictor
    finally:
        trainer.set_deep_supervision_enabled(trainer.enable_deep_supervision)
        trainer.network.train()
        if trainer._is_25d:
            trainer._network_25d.centre_slice_only = True
