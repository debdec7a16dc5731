"""A loss through torch.compile where that works, and as it is where it does not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class CompiledLoss(nn.Module):
    """A loss that torch.compile fuses into few kernels; the same numbers up to the last bits of float32.

    What fuses saves is memory traffic: every step of the formula reads and writes whole volumes otherwise. The first
    call compiles, which takes seconds to a minute; where that fails (no compiler, an operation it does not know), this
    and all later calls run uncompiled, and ``say`` is told why, once.

    A compiled loss does not look at the values of labels: a label that is no class has no loss instead of an error.
    Our trainers look at every label map before the first step.

    Args:
        loss: of any arguments, giving a scalar.
        settled: whether the loss's weights have their final values. While they move, as in a warm-up, every new value
            would be compiled anew: until then the loss runs uncompiled.
        say: gets a line for a log.
        backend: of torch.compile, by its name or itself.

    Example:
        >>> loss = CompiledLoss(nn.MSELoss(), backend="eager")
        >>> float(loss(torch.ones(2), torch.zeros(2)))
        1.0
    """

    def __init__(
        self,
        loss: nn.Module,
        *,
        settled: Callable[[], bool] = lambda: True,
        say: Callable[[str], object] = print,
        backend: str | Callable[..., object] = "inductor",
    ) -> None:
        super().__init__()
        self.loss = loss
        self._settled = settled
        self._say = say
        self._compiled: Callable[..., Tensor] | None = torch.compile(loss, backend=backend)

    def forward(self, *arguments: object, **inputs: object) -> Tensor:
        """The loss of what it takes."""
        if self._compiled is not None and self._settled():
            try:
                return self._compiled(*arguments, **inputs)
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:  # of any kind: PyTorch's compilers and theirs
                # Wrong input is no fault of the compiler: the loss itself says what is wrong with it.
                value: Tensor = self.loss(*arguments, **inputs)
                self._compiled = None
                # The first line says who failed, the next one why.
                reason = " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2])
                reason = reason[:300] or type(error).__name__
                self._say(f"WARNING: torch.compile cannot compile the loss, which runs as it is: {reason}")
                return value
        value = self.loss(*arguments, **inputs)
        return value
