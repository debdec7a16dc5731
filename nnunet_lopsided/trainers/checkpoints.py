"""Reading nnU-Net's checkpoints, and what they say about our trainers."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nnunet_lopsided.errors import InputError, refuse


@contextmanager
def named_if_damaged(checkpoint: object) -> Iterator[None]:
    """Turns what a damaged checkpoint raises inside into bad input of ours that names the file.

    nnU-Net unpickles checkpoints (``weights_only=False``): they can run any code, and must come from a source that is
    trusted as much as a program.

    Args:
        checkpoint: the file's path; anything else (a checkpoint in memory) is left alone.
    """
    try:
        yield
    except (pickle.UnpicklingError, EOFError, KeyError, RuntimeError, UnicodeDecodeError) as error:
        if not isinstance(checkpoint, (str, Path)):
            raise
        # The checkpoint may be whole, and another one would fail as well.
        if isinstance(error, RuntimeError) and _is_of_the_device(error):
            raise
        reason = " ".join(str(error).split())[:200]
        refuse(
            InputError(
                f"checkpoint {checkpoint}: cannot be continued or predicted with ({type(error).__name__}: {reason}); "
                "it is damaged or of another network. Take an earlier one of the same folder, or train anew"
            )
        )


def _is_of_the_device(error: RuntimeError) -> bool:
    """Whether a GPU failed (out of memory, say) rather than the file."""
    return "CUDA" in str(error) or "out of memory" in str(error)


def changed_values(
    stored: Mapping[str, object], now: Mapping[str, object], names: tuple[str, ...], before: Mapping[str, object]
) -> list[str]:
    """Which hyper-parameters a checkpoint's training had other than now, in words.

    Args:
        stored: the checkpoint's, by name.
        now: what they are.
        names: those to compare.
        before: what trainings of versions that did not know a hyper-parameter were like.

    Example:
        >>> changed_values({"beta": 0.5}, {"beta": 0.1, "seed": None}, ("beta", "seed"), {"seed": None})
        ['beta was 0.5, is 0.1']
    """
    then = {name: stored.get(name, before.get(name)) for name in names}
    return [f"{name} was {then[name]}, is {now[name]}" for name in names if then[name] != now[name]]
