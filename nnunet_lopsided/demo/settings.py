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
        seed: of the phantom, the censoring and every training.
        epochs: training epochs, in every training.
        iterations: iterations per epoch.
        device: ``cpu`` or ``cuda``.
        n_train: procedural training cases.
        n_test: procedural test cases.
    """

    data: str | None = None
    mode: str = "stochastic"
    rate: float = 0.5
    seed: int = 0
    epochs: int = 4
    iterations: int = 80
    device: str = "cpu"
    n_train: int = 16
    n_test: int = 12
