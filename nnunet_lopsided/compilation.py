"""What torch.compile is to leave alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., object])


def uncompiled(function: Function) -> Function:
    """A decorator: the function runs as plain Python inside a compiled one; what it calls may be compiled.

    PyTorch's own decorator has no types, so that it would hide those of the function.
    """
    disable: Callable[..., Function] = torch.compiler.disable
    return disable(function, recursive=False)


def never_compiled(function: Function) -> Function:
    """A decorator: neither the function nor what it calls is compiled."""
    disable: Callable[..., Function] = torch.compiler.disable
    return disable(function)
