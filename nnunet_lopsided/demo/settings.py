"""What a demo is asked to run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
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
    iterations: int = 40
    alpha: float = 3.0
    beta: float = 0.1
    device: str = "cpu"
    n_train: int = 24
    n_test: int = 12
