"""When a loss is compiled, and what happens where it cannot be. That it is the same: tests/losses/test_on_a_gpu.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunet_lopsided.losses import CompiledLoss, LopsidedDiceLoss


class Loss(nn.Module):
    """The mean square of its input; counts its calls as plain Python."""

    def __init__(self) -> None:
        super().__init__()
        self.n_calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.n_calls += 1
        return (x**2).mean()


@pytest.fixture(autouse=True)
def nothing_is_compiled_yet() -> None:
    torch._dynamo.reset()


def test_it_is_compiled_once_its_weights_are_settled() -> None:
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    epoch, said = 0, list[str]()
    recipe = LopsidedDiceLoss(1, 1, gamma=0)
    loss = CompiledLoss(recipe, settled=lambda: epoch >= 3, say=said.append, backend=backend)
    logits, target = torch.randn(1, 2, 6, 6), torch.zeros(1, 1, 6, 6)
    for epoch in range(5):
        recipe.gamma = min(epoch, 3)
        plain = LopsidedDiceLoss(1, 1, gamma=recipe.gamma)(logits, target)
        assert float(loss(logits, target)) == pytest.approx(float(plain), rel=1e-6)
        assert (len(graphs) > 0) == (epoch >= 3)
    assert said == []


def test_a_compiler_that_fails_is_asked_once() -> None:
    asked, said, plain = [], list[str](), Loss()

    def backend(graph: Any, _: Any) -> Any:
        asked.append(graph)
        raise RuntimeError("no compiler here")

    loss = CompiledLoss(plain, say=said.append, backend=backend)
    for n in (1, 2, 3):
        assert float(loss(torch.full((2,), 3.0))) == 9
        assert plain.n_calls == n
    assert len(asked) == 1
    assert len(said) == 1
    assert "cannot compile the loss" in said[0]
    assert "no compiler here" in said[0]


def test_wrong_input_is_refused_in_the_words_of_the_loss() -> None:
    said: list[str] = []
    loss = CompiledLoss(LopsidedDiceLoss(), say=said.append, backend="eager")
    with pytest.raises(ValueError, match="target must be"):
        loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))
    assert said == []
    assert float(loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))) != 0


def test_a_full_gpu_is_no_fault_of_the_compiler() -> None:
    def full(graph: Any, _: Any) -> Any:
        def run(*_: Any) -> Any:
            raise torch.cuda.OutOfMemoryError("full")

        return run

    plain = Loss()
    with pytest.raises(torch.cuda.OutOfMemoryError):
        CompiledLoss(plain, backend=full)(torch.ones(2))
    assert plain.n_calls == 0
