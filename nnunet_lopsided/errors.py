"""The one exception for input that a user has to correct."""


class InputError(ValueError):
    """Something the user gave is missing or wrong; the message is one line and says what was expected and found.

    Commands print it to stderr and exit with code 2.

    Example:
        >>> raise InputError("rate must be within [0, 1], got 1.5")
        Traceback (most recent call last):
        ...
        nnunet_lopsided.errors.InputError: rate must be within [0, 1], got 1.5
    """
