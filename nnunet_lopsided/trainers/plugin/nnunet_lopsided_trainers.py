"""All that nnU-Net imports while it looks for a trainer: names are answered by the installed package.

nnU-Net drops this module from ``sys.modules`` after each search; the classes live in ``nnunet_lopsided.trainers`` and
are therefore the same objects every time.
"""

from typing import Any

from nnunet_lopsided import trainers
from nnunet_lopsided.errors import InputError, refuse


def __getattr__(name: str) -> Any:
    try:
        return getattr(trainers, name)
    except InputError as error:
        refuse(error)
