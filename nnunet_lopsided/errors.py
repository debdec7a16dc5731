"""The exceptions for input that a user has to correct."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn


class InputError(ValueError):
    """Something the user gave is missing or wrong; the message is one line and says what was expected and found.

    Commands print it to stderr and exit with code 2.

    Example:
        >>> raise InputError("rate must be within [0, 1], got 1.5")
        Traceback (most recent call last):
        ...
        nnunet_lopsided.errors.InputError: rate must be within [0, 1], got 1.5
    """


class InputErrors(InputError):
    """Several such problems, found in one go.

    Attributes:
        problems: one line each; commands print each on its own line.

    Example:
        >>> str(InputErrors(["case a: empty", "case b: truncated"]))
        'case a: empty; case b: truncated'
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def refuse(error: InputError) -> NoReturn:
    """Raise an error; in one of nnU-Net's own commands end it as ours end on bad input: one line, exit code 2."""
    if os.path.basename(sys.argv[0]).startswith("nnUNetv2_"):
        print(f"nnunet-lopsided: error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    raise error
