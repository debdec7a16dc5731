"""All that nnU-Net imports while it looks for a trainer: names are answered by the installed package.

nnU-Net drops this module from ``sys.modules`` after each search; the classes live in ``nnunet_lopsided.trainers`` and
are therefore the same objects every time.
"""

import os
import sys
from typing import Any

from nnunet_lopsided import trainers
from nnunet_lopsided.errors import InputError


def __getattr__(name: str) -> Any:
    try:
        return getattr(trainers, name)
    except InputError as error:
        # In nnU-Net's own commands a malformed name ends like any bad input of ours: one line, exit code 2.
        if os.path.basename(sys.argv[0]).startswith("nnUNetv2_"):
            print(f"nnunet-lopsided: error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        raise
