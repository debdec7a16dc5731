"""Two processes of DDP give the loss and the gradient of one process that sees the whole batch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_lopsided.losses.distributed import ratio_of_sums, sum_over_ranks

WORKER = Path(__file__).with_name("ddp_worker.py")


def load_worker() -> Any:
    spec = importlib.util.spec_from_file_location("ddp_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_processes_equal_one(tmp_path: Path) -> None:
    commands = [
        [sys.executable, str(WORKER), str(rank), "2", str(tmp_path / "store"), str(tmp_path / f"{rank}.pt")]
        for rank in range(2)
    ]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]

    worker = load_worker()
    for name, loss in worker.losses(ddp=False).items():
        expected = worker.step(worker.network(), name, loss, slice(None))
        for rank in ranks:
            assert rank[name]["loss"] == pytest.approx(expected["loss"], rel=1e-12), name
            for got, wanted in zip(rank[name]["gradient"], expected["gradient"], strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-13, msg=name)

        # Averaging the ranks' own losses is another number: what the flag is for.
        if name == "lopsided":
            alone = [worker.step(worker.network(), name, loss, slice(k, k + 2))["loss"] for k in (0, 2)]
            assert abs(sum(alone) / 2 - expected["loss"]) > 0.05


def test_one_process_is_left_alone() -> None:
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    assert sum_over_ranks(values) is values
    assert float(ratio_of_sums(values.sum(), 6.0, ddp=True).detach()) == 0.5


def test_nothing_over_nothing_is_zero_with_a_graph() -> None:
    values = torch.zeros(2, requires_grad=True)
    ratio = ratio_of_sums(values.sum(), torch.tensor(0), ddp=False)
    ratio.backward()
    assert float(ratio.detach()) == 0
